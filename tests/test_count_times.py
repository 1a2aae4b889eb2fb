"""What starts and what ends each time that is counted: turns on a clock that jumps, and the marks that they leave."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from firstword import App, Turn
from firstword.telemetry import Counts
from firstword.testing import after, drips, fails, says, script, talk
from firstword.turn import Timeline

FRIEND = "Hello there, friend. How are you?"


def marks(turn: Turn | None) -> dict[str, float]:
    """Return the marks of a turn, in seconds since it was received."""
    assert turn is not None
    found = {each.name: getattr(turn.timeline, each.name) for each in dataclasses.fields(Timeline)}
    return {name: round(at - turn.timeline.received, 3) for name, at in found.items() if at is not None}


def noted(turn: Turn | None) -> dict[str, float]:
    """Return the times that are counted of a turn, in seconds, without their labels."""
    assert turn is not None
    counts = Counts()
    counts.note(turn, "answered")
    return {
        name.removesuffix("_seconds"): round(sum(each.sum for each in spreads.values()), 3)
        for name, spreads in counts.spreads.items()
        if any(sum(each.counts) for each in spreads.values())
    }


async def test_the_marks_of_a_filler_and_of_the_answer_behind_it() -> None:
    """The filler is heard at 0.8 s, the model speaks at 2 s, and its first sentence is whole two words later."""
    score = await talk(models=after(2.0, drips("Hello there, friend. How", every=0.25)), fill_after=0.8)
    assert marks(score.turn) == {
        "received": 0, "admitted": 0, "prepared": 0, "asked": 0, "answered": 2, "sent": 0.8, "heard": 0.8,
        "spoke": 2.25, "replied": 2.25, "sentence": 2.75, "ended": 3.0,
    }  # fmt: skip
    assert noted(score.turn) == {
        "first_byte": 0.8, "first_heard": 0.8, "first_answer": 2.25, "first_sentence": 2.75, "first_token": 2.25,
        "longest_gap": 0.25, "turn": 3.0, "overhead": 0,
    }  # fmt: skip


async def test_what_a_hook_and_a_stage_take_is_the_server_s_own() -> None:
    """A hook looks something up for 0.3 s before the model is asked; a stage keeps its first word back for 0.2 s."""
    app = App()

    @app.before_turn
    async def look_up(turn: Turn) -> None:
        await asyncio.sleep(0.3)

    @app.stage
    async def slow(turn: Turn, send: Any, call_next: Any) -> None:
        async def late(chunk: Any) -> None:
            if chunk.speaks:
                await asyncio.sleep(0.2)
            await send(chunk)

        await call_next(turn, late)

    score = await talk(app, models=after(1.0, says("Yes.")))
    found = noted(score.turn)
    assert (found["first_token"], found["first_answer"], found["overhead"]) == (1.0, 1.5, 0.5)


async def test_the_longest_gap_is_the_model_s_silence() -> None:
    """Words at 0.1, 0.2, then a silence of a second, then the rest."""
    score = await talk(models=[_uneven()])
    assert noted(score.turn)["longest_gap"] == 1.0


def _uneven() -> Any:
    words = [script.wait(0.1), script.text("One "), script.wait(0.1), script.text("two "), script.wait(1.0)]
    return script.events(script.role(), words, script.text("three."), script.finish(), script.done())


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("Hello there, friend. How are you?", 3),
        ("Dr. Who lives at No. 5 and pays 3.14 euros. Yes.", 10),
        ("一二 三。四 五", 2),
        ("No end at all of it", 6),
        ("1. First of all. Then", 4),
        ("...and then? Yes", 2),
        ("He said: “Stop!” Then he left.", 3),
    ],
)
async def test_a_sentence_has_left_when_a_voice_can_say_it(text: str, at: int) -> None:
    """A word comes each tenth of a second: numbers, abbreviations and the marks of a list end nothing."""
    score = await talk(models=drips(text, every=0.1))
    assert marks(score.turn)["sentence"] == pytest.approx(at / 10)


async def test_an_endless_first_sentence_is_looked_at_no_further() -> None:
    """300 signs without an end are said in pieces: that is the sentence."""
    score = await talk(models=drips("word " * 200, every=0.01))
    assert marks(score.turn)["sentence"] == pytest.approx(0.61)


async def test_an_apology_is_heard_and_is_no_answer() -> None:
    """The model fails, and fails again after 0.1 s; the apology is the first thing that the caller hears."""
    score = await talk(models=fails(500), apology="I am sorry.")
    found = marks(score.turn)
    assert found["heard"] == found["sent"] and "replied" not in found and "sentence" not in found


async def test_a_stall_counts_once_however_many_answers_follow() -> None:
    """Words drip for longer than `stall_timeout`, then a tool is called and the model, one of two, asked again."""
    app = App(models=["one", "two"], stall_timeout=2.0)

    @app.tool
    def balance() -> str:
        """Say how much there is."""
        return "five euros"

    drip = script.words("a b c d e f g h", every=0.4)
    call = script.tool_call("balance", "{}", id="c1")
    slow = script.events(script.role(), drip, call, script.finish("tool_calls"), script.done())
    score = await talk(app, models=[[slow, says("It is five.")], says("Nobody asks me.")])
    assert score.turn is not None and score.turn.stalls == 1
    assert score.turn.longest_gap == pytest.approx(0.4)


async def test_a_slow_stage_is_not_the_model_s_silence() -> None:
    """The model says all at once; a stage of yours takes half a second over each word."""
    app = App()

    @app.stage
    async def slow(turn: Turn, send: Any, call_next: Any) -> None:
        async def late(chunk: Any) -> None:
            await asyncio.sleep(0.5)
            await send(chunk)

        await call_next(turn, late)

    score = await talk(app, models=says("One two three four."))
    assert score.turn is not None and score.turn.longest_gap == pytest.approx(0.0)
    assert noted(score.turn)["turn"] >= 2.0


async def test_a_filler_is_none_of_the_answer_where_each_chunk_is_changed_on_its_way() -> None:
    """Hume wants its session back in every chunk: the filler is made anew, and is a filler all the same."""
    models = after(2.0, drips("Hello there.", every=0.25))
    score = await talk(models=models, fill_after=0.8, path="/hume/chat/completions?custom_session_id=call-7")
    found = marks(score.turn)
    assert score.chunks[0]["system_fingerprint"] == "call-7"
    assert (found["heard"], found["replied"], found["sentence"]) == (0.8, 2.25, 2.5)
