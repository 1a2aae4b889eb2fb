"""Fillers, to the moment: when one is said, when none is, and what its time is counted from.

On the clock that jumps; what needs a real wire is in `test_fill.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firstword import App, CallNext, Send, Turn
from firstword.testing import after, drips, fails, says, script, silent, stalls, talk, thinks

FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line."
FILLER = "One moment. "


@pytest.mark.parametrize(
    ("model", "heard"),
    [
        (after(0.79, says(FRIEND)), [(0.79, FRIEND)]),
        (after(0.81, says(FRIEND)), [(0.8, FILLER), (0.81, FRIEND)]),
        (after(3.0, says(FRIEND)), [(0.8, FILLER), (3.0, FRIEND)]),
        (thinks("let me see", FRIEND, every=0.5), [(0.8, FILLER), (1.5, FRIEND)]),
        (drips("one two", every=0.5), [(0.5, "one"), (1.0, " two")]),
        (stalls("one two"), [(0.0, "one two"), (5.0, f" {SORRY}")]),
        (silent(), [(0.8, FILLER), (4.0, SORRY)]),
        (after(1.5, fails(400)), [(0.8, FILLER), (1.5, SORRY)]),
        (after(1.5, fails(500)), [(0.8, FILLER), (1.6, FRIEND)]),
    ],
    ids=["just before", "just after", "late", "reasoning", "early words", "a stall", "silence", "an error", "a retry"],
)
async def test_a_filler_is_said_once_and_only_into_silence(model: Any, heard: list[tuple[float, str]]) -> None:
    """Its time is counted from the request; reasoning is silence, and so is a second try."""
    steps = [model, says(FRIEND)]
    score = await talk(models=lambda record: steps[record.attempt - 1], fill_after=0.8, apology=SORRY)

    assert score == heard
    assert (score.status, score.done, score.finish_reason, score.left_open) == (200, True, "stop", 0)
    assert len({chunk["id"] for chunk in score.chunks}) == 1
    roles = [choice["delta"].get("role") for chunk in score.chunks for choice in chunk["choices"]]
    assert roles.count("assistant") == 1


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_hook_may_ask_for_another_filler_at_another_time(kind: str) -> None:
    """Its time is counted from the request as well; the search goes on meanwhile."""
    app = App(model="m", fillers=[FILLER], fill_after=20.0)

    async def on_the_loop(turn: Turn) -> None:
        await asyncio.sleep(0.1)
        turn.adjust(fillers=["Let me look. "], fill_after=0.5)

    def in_a_thread(turn: Turn) -> None:
        turn.adjust(fillers=["Let me look. "], fill_after=0.5)

    async def search(turn: Turn) -> None:
        await asyncio.sleep(1.0)

    app.before_turn(on_the_loop if kind == "async def" else in_a_thread)
    app.before_turn(search)
    began = 1.1 if kind == "async def" else 1.0
    assert await talk(app, models=after(0.25, says(FRIEND))) == [(0.5, "Let me look. "), (began + 0.25, FRIEND)]


async def test_a_stage_that_is_slow_is_filled_and_one_that_answers_is_not() -> None:
    """The filler stands over all stages of the user's."""
    app = App(model="m", fillers=[FILLER], fill_after=0.8)

    @app.stage
    async def slow(turn: Turn, send: Send, call_next: CallNext) -> None:
        if turn.text == "short":
            await send(turn.chunk({"content": "Yes."}))
            await asyncio.sleep(1.0)
            await send(turn.chunk({}, "stop"))
            return
        await asyncio.sleep(1.0)
        await call_next(turn, send)

    assert await talk(app, models=says(FRIEND)) == [(0.8, FILLER), (1.0, FRIEND)]
    score = await talk(app, say="short")
    assert (score, score.ended, score.asked) == ([(0.0, "Yes.")], 1.0, [])


async def test_a_reply_in_one_piece_and_a_turn_that_wants_none_have_no_filler() -> None:
    """There is nobody to hear it, or it would not fit."""
    late = after(2.0, says(FRIEND))
    for given in ({"stream": False}, {"request": {"response_format": {"type": "json_object"}}}):
        score = await talk(models=late, fill_after=0.8, **given)  # type: ignore[arg-type]
        assert score == [(2.0, FRIEND)]
    assert await talk(models=late, fill_after=0.8, fillers=[]) == [(2.0, FRIEND)]


async def test_the_next_turn_of_a_conversation_has_another_filler() -> None:
    """The same one again when the engine asks again."""
    late = after(2.0, says(FRIEND))
    conversation = [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")]
    for said, filler in (("Hi", "Hm. "), (conversation, "Well. "), (conversation, "Well. ")):
        score = await talk(models=late, say=said, fillers=["Hm.", "Well."], fill_after=0.5)  # type: ignore[arg-type]
        assert score == [(0.5, filler), (2.0, FRIEND)]


LATE = after(1.0, says(FRIEND))
CHANGES: list[tuple[dict[str, Any], Any, int, list[tuple[float, str]], float]] = [
    ({"turn_timeout": 0.3}, silent(), 504, [], 0.3),
    ({"first_token_timeout": 0.2}, silent(), 504, [], 0.2),
    ({"stall_timeout": 0.2}, stalls("one two"), 200, [(0.0, "one two")], 0.2),
    ({"apology": SORRY, "first_token_timeout": 0.2}, silent(), 200, [(0.2, SORRY)], 0.2),
    ({"on_cut": "finish"}, [*drips("one", 0.5)[:-3], script.close()], 200, [(0.5, "one")], 0.5),
    ({"fillers": ["Hm."], "fill_after": 0.1}, LATE, 200, [(0.1, "Hm. "), (1.0, FRIEND)], 1.0),
    ({"turn_timeout": 20.0}, LATE, 200, [(1.0, FRIEND)], 1.0),
]


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize(
    ("changes", "model", "status", "heard", "ended"), CHANGES, ids=[",".join(row[0]) for row in CHANGES]
)
async def test_a_hook_changes_each_limit_of_its_turn(
    kind: str, changes: dict[str, Any], model: Any, status: int, heard: list[tuple[float, str]], ended: float
) -> None:
    """Also from a thread, and however generous or strict the App is."""
    app = App(model="m", turn_timeout=0.9 if "turn_timeout" in changes else 60.0)

    async def on_the_loop(turn: Turn) -> None:
        turn.adjust(**changes)

    def in_a_thread(turn: Turn) -> None:
        turn.adjust(**changes)

    app.before_turn(on_the_loop if kind == "async def" else in_a_thread)
    score = await talk(app, models=model)
    assert (score.status, score, score.ended, score.left_open) == (status, heard, ended, 0)


@pytest.mark.parametrize("on_cut", ["apologise", "finish", "error"])
@pytest.mark.parametrize("apology", [SORRY, None])
async def test_a_filler_is_no_answer_that_could_be_cut_off(on_cut: str, apology: str | None) -> None:
    """All fail behind it: "One moment." and a made-up stop would be the dead line that it promises not to be."""
    models = [after(2.0, fails(500)), fails(500)]
    score = await talk(models=models, fill_after=0.8, hedge_after=None, hedge_share=0.0, on_cut=on_cut, apology=apology)

    assert score == [(0.8, FILLER), (2.0, SORRY)] if apology else score == [(0.8, FILLER)]
    assert (score.done, score.finish_reason, score.error is None) == (bool(apology), apology and "stop", bool(apology))


async def test_an_engine_that_plays_audio_is_told_the_error() -> None:
    """It would not speak words of ours; of a true error it knows what to do."""
    sound = script.event(script.chunk({"audio": {"data": "AA"}}))
    begins = [script.head(200, script.EVENT_STREAM), script.role(), sound]
    for model, status in ((fails(500), 500), ([*begins, script.close()], 200)):
        score = await talk(models=model, apology=SORRY, request={"modalities": ["text", "audio"]})
        assert (score, score.status, score.done) == ([], status, False)
        assert score.error is not None


async def test_a_chunk_without_choices_is_no_end() -> None:
    """Azure tells of its filter in mid-answer: what is cut off behind it is cut off."""
    model = [*stalls("one two"), script.event({**script.chunk({}), "choices": []}), script.close()]
    assert await talk(models=model, apology=SORRY) == [(0.0, f"one two {SORRY}")]


async def test_long_reasoning_and_then_nothing_ends_once() -> None:
    """The reply has begun, as the reasoning is too long to be held, and its end has come: it waits for the apology."""
    thought = [script.reasoning("x" * 60_000) for _ in range(6)]
    for pause in (0.0, 0.1):
        ending = [script.finish(), script.wait(pause), script.usage(), script.wait(pause), script.done()]
        options = {"stream_options": {"include_usage": True}}
        score = await talk(models=script.events(script.role(), thought, ending), apology=SORRY, request=options)
        reasons = [choice["finish_reason"] for chunk in score.chunks for choice in chunk["choices"]]
        assert (score.text.strip(), reasons[-2:], reasons.count("stop")) == (SORRY, [None, "stop"], 1)
