"""The fault catalogue on a clock that jumps: how long a caller hears nothing, to the microsecond, and who was asked.

What the real wire does with the same faults is in `test_faults_heard.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from catalogue import ALL, BEFORE_SPEECH, FILLER, FINAL, FRIEND, MIDWAY, NO_CONNECTION, SORRY, WHOLE, Fault, Unreached
from faults import PAGE, SETTINGS, play, table, within

from firstword import App, Model, Policy, Turn
from firstword.testing import Phone, Score, after, fails, run, says, script, silent, talk, then, thinks

POLICY = Policy()
SLACK = 0.1  # seconds: the promise of the documentation
HEDGE_AFTER = float(POLICY.hedge_after or 0)
AnyFault = Fault | Unreached


def each(faults: Sequence[AnyFault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults, ids=lambda fault: fault.name)


def check_ending(score: Score) -> None:
    """Assert that the reply has exactly one ending, one id, no word twice, and left nothing open."""
    assert score.left_open == 0
    if score.status != 200:
        assert score.error is not None and not score.chunks
        return
    assert score.done and score.finish_reason == "stop" and score.error is None
    reasons = [choice["finish_reason"] for chunk in score.chunks for choice in chunk["choices"]]
    assert len([reason for reason in reasons if reason]) == 1
    assert len({chunk["id"] for chunk in score.chunks}) == 1
    for words in (FRIEND, SORRY, FILLER.strip(), "One, two,"):
        assert score.text.count(words) <= 1


# --- the promise ----------------------------------------------------------------------------------


@each([*NO_CONNECTION, *ALL])
async def test_the_line_is_never_dead(fault: AnyFault) -> None:
    """With a second model, alone with a filler and an apology, and when both models do the same."""
    played = await play(fault)  # type: ignore[arg-type]
    for score, longest in zip(played, (HEDGE_AFTER, POLICY.fill_after, POLICY.fill_after), strict=True):
        check_ending(score)
        if fault in FINAL:
            assert score.status >= 400 and score.ended == 0.0
            continue
        assert score.first_word is not None and score.first_word <= longest + SLACK
        assert score.longest_silence <= POLICY.stall_timeout + SLACK


@each([*NO_CONNECTION, *BEFORE_SPEECH])
async def test_before_the_first_word_the_second_model_answers(fault: AnyFault) -> None:
    """At once when the first has failed, after `hedge_after` when it is silent; nothing of ours is heard."""
    score = (await play(fault)).helped  # type: ignore[arg-type]
    at = HEDGE_AFTER if fault.is_slow else 0.0
    assert score == [(at, FRIEND)]
    assert score.asked == [(0.0, "first"), (at, "second")]
    assert [record.closed_by for record in score.seen if fault.is_slow and record.body["model"] == "first"] in (
        [],
        ["peer"],
    )
    assert score.turn is not None and score.turn.answered_by == "second"
    outcomes = [attempt.outcome for attempt in score.turn.attempts]
    assert outcomes == ["lost" if fault.is_slow else "failed", "answered"]


@each([fault for fault in BEFORE_SPEECH if fault.is_slow])
async def test_who_lost_is_let_go_of_when_the_other_speaks(fault: Fault) -> None:
    """Not when the other has ended: a request that nobody hears costs money, and a connection."""
    score = await talk(models=[fault.play(1.0), says("one two three", every=1.0)], hedge_share=1.0)
    assert score == [(2.2, "one"), (3.2, " two"), (4.2, " three")]
    assert [record.closed for record in score.seen if record.body["model"] == "first"] == [pytest.approx(2.2)]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_turn_has_one_second_try(count: int) -> None:
    """There would be money and time for more: who is down is not asked for ever."""
    models = [fails(503)] * count
    score = await talk(models=models[0] if count == 1 else models, hedge_share=1.0, turn_timeout=10)
    assert len(score.asked) == count + 1 and score.ended == 0.1


async def test_a_filler_is_said_once_however_often_its_time_is_changed() -> None:
    """A slow hook thinks of another time for it when it was said already."""
    app = App(model="m", fillers=[FILLER], fill_after=0.5)

    @app.before_turn
    async def search(turn: Turn) -> None:
        await asyncio.sleep(1.0)
        turn.adjust(fillers=["Still looking. "], fill_after=2.0)
        await asyncio.sleep(2.0)

    assert await talk(app, models=says(FRIEND)) == [(0.5, FILLER), (3.0, FRIEND)]


@each(MIDWAY)
async def test_after_the_first_word_nobody_else_is_asked(fault: Fault) -> None:
    """The apology follows the words that came, and the turn knows that it was cut off."""
    score = (await play(fault)).helped
    assert score.asked == [(0.0, "first")] and score.text.endswith(f" {SORRY}")
    assert score.ended == (POLICY.stall_timeout if fault.is_slow else 0.0)
    assert score.turn is not None and score.turn.reply.truncated and score.turn.apologised
    assert score.turn.attempts[0].outcome == "cut"


@each([*WHOLE, *FINAL])
async def test_who_answers_at_all_is_the_only_one_asked(fault: Fault) -> None:
    """An odd answer is an answer, and a refusal another model would repeat is told as it is."""
    for score in await play(fault):
        assert [name for _, name in score.asked] == ["first"]
        assert score.text == (FRIEND if fault in WHOLE else "")


async def test_the_table_of_the_documentation_is_what_is_played() -> None:
    """Somebody changes what a caller hears: the page must say so (`make faults ARGS=--write`)."""
    assert within(PAGE.read_text("utf-8")) == await table()


# --- the caller leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [0.0, 0.6, 1.3, 1.6, 3.9, 4.5])
@each([fault for fault in (*NO_CONNECTION, *BEFORE_SPEECH) if fault.is_slow])
async def test_a_caller_who_leaves_before_the_first_word_ends_all_of_it(fault: AnyFault, leaves: float) -> None:
    """With one model asked, with both, behind the filler, and when the first has failed: nobody is asked any more."""
    score = await talk(models=[fault.play(1.0), fault.play(1.0)], leaves=leaves, **SETTINGS)

    assert score.left_open == 0 and not score.done
    assert score.ended == leaves
    assert len(score.asked) <= (2 if leaves > HEDGE_AFTER else 1)
    assert all(record.closed is not None and record.closed <= leaves for record in score.seen)


@pytest.mark.parametrize("pause", [0.05, 0.2])
async def test_a_caller_who_leaves_in_the_pause_before_a_second_try(pause: float) -> None:
    """The one model has failed, and would be asked again 100 ms later."""
    score = await talk(models=then(fails(503), says(FRIEND)), leaves=pause, **SETTINGS)
    assert (score.text, len(score.asked)) == ("", 1) if pause < 0.1 else (FRIEND, 2)


@pytest.mark.parametrize("leaves", [0.25, 2.0, 4.9])
@each([fault for fault in MIDWAY if fault.is_slow])
async def test_a_caller_who_leaves_in_mid_answer_hears_no_apology(fault: Fault, leaves: float) -> None:
    """Barge-in, while the model is silent within its answer."""
    score = await talk(models=[fault.play(1.0), says(FRIEND)], leaves=leaves, **SETTINGS)
    assert SORRY not in score.text and score.ended == leaves and len(score.asked) == 1
    assert [record.closed_by for record in score.seen] == ["peer"] and score.left_open == 0


# --- many turns -----------------------------------------------------------------------------------


async def test_a_model_that_flaps_is_heard_in_every_turn() -> None:
    """Every second request fails. No turn is silent, and two failures in a row were never seen: no breaker opens."""

    def flaps(record: Any) -> script.Script:
        return fails(500) if record.attempt % 2 else says("From the first.")

    async def calls() -> list[Score]:
        async with Phone(models=[flaps, says("From the second.")], **SETTINGS) as phone:
            return [await phone.talk() for _ in range(10)]

    scores = await run(calls)
    assert [score.text for score in scores] == ["From the second.", "From the first."] * 5
    assert all(score.longest_silence == 0.0 for score in scores)


async def test_a_dead_first_choice_costs_later_turns_nothing() -> None:
    """Slow and never heard: after six turns it is left alone, and five seconds later one turn finds out."""

    async def calls() -> list[tuple[float, int]]:
        async with Phone(models=[silent(), says(FRIEND)], hedge_share=1.0) as phone:
            scores = [await phone.talk() for _ in range(9)]
            return [(score.first_word or 0.0, len(score.asked)) for score in scores]

    found = await run(calls)
    assert found == [(HEDGE_AFTER, 2)] * 6 + [(0.0, 1)] * 3


async def test_p95_follows_each_model() -> None:
    """It speaks after 300 ms as a rule: once that is known, a slow answer is hedged a little later than that."""
    times = [0.3] * 30 + [5.0]

    async def calls() -> Score:
        models = [lambda record: after(times[record.attempt - 1], says("First.")), says("Second.")]
        async with Phone(models=models, hedge_after="p95", hedge_share=1.0) as phone:
            *_, last = [await phone.talk() for _ in times]
            return last

    assert await run(calls) == [(0.3, "Second.")]


async def test_a_second_request_is_rationed_and_a_filler_is_not() -> None:
    """All is slow: one turn in ten is hedged at 1.2 s, the others hear a filler, and then the first model."""

    async def calls() -> list[str]:
        models = [after(3.0, says("Slow.")), after(3.0, says("Slower."))]
        async with Phone(models=models, **{**SETTINGS, "apology": None}) as phone:
            scores = [await phone.talk() for _ in range(40)]
            assert all(score == [(1.5, FILLER), (3.0, "Slow.")] for score in scores)
            return [name for score in scores for _, name in score.asked]

    asked = await run(calls)
    assert 3 <= asked.count("second") <= 5


# --- half a call ----------------------------------------------------------------------------------

HALF = [script.role(), script.tool_call("transfer", '{"amount": 1', id="call_1"), script.text("")]


@pytest.mark.parametrize(
    "end", [[script.close()], [], [script.error_event(), script.end()]], ids=["cut", "stall", "error"]
)
@pytest.mark.parametrize("count", [1, 2])
async def test_half_a_call_is_never_followed_by_words(end: list[Any], count: int) -> None:
    """An engine would take them, and the `stop` behind them, for the call's end, and run half a transfer."""
    models = [[script.head(200, script.EVENT_STREAM), *HALF, *end], says(FRIEND)]
    for more in ({}, {"turn_timeout": 2.0}):
        score = await talk(models=models[:count] if count > 1 else models[0], **{**SETTINGS, **more})
        assert score.status == 200 and not score.done and score.finish_reason is None and score.text == ""
        assert score.error is not None and score.left_open == 0


async def test_half_a_call_of_a_tool_of_ours_is_followed_by_the_apology() -> None:
    """The engine saw nothing of it: the caller hears a word, and the call is made by nobody."""
    app, ran = App(model="m", apology=SORRY), []

    @app.tool
    def transfer(amount: int) -> str:
        """Transfer money."""
        ran.append(amount)
        return "Done."

    score = await talk(app, models=[script.head(200, script.EVENT_STREAM), *HALF, script.close()])
    assert score.text == SORRY and score.done and ran == []


# --- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "every", "stalls"),
    [
        ("one two three four five six seven eight nine ten eleven twelve.", 1.0, 1),
        ("One. two three four five. six seven eight nine ten.", 1.0, 0),
        (" ".join(["and"] * 24), 0.5, 2),
        ("你 好 吗 。 我 很 好 ！ 你 呢 ？", 1.0, 0),
    ],
)
async def test_a_sentence_that_does_not_end_is_a_stall_to_the_engine(words: str, every: float, stalls: int) -> None:
    """Words come all the time; an engine speaks whole sentences, and says nothing."""
    for models in (says(words, every), [says(words, every), says(FRIEND)]):
        score = await talk(models=models)
        assert re.sub(r"\s+", " ", score.text) == words
        assert score.turn is not None and score.turn.stalls == stalls
    whole = await talk(models=says(words, every), stream=False)
    assert whole.turn is not None and whole.turn.stalls == 0


# --- who may answer, and how long it may reason ---------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "heard"), [(["second"], "From the second."), (["third", "first"], "From the third.")]
)
async def test_a_hook_says_who_may_answer(allowed: list[str], heard: str) -> None:
    """The order is the hook's, and whoever is not named is not asked."""
    app = App([Model(name, base_url="http://m.test/v1", api_key="k") for name in ("first", "second", "third")])
    app.before_turn(lambda turn: turn.adjust(models=allowed))
    models = [says(f"From the {name}.") for name in ("first", "second", "third")]
    score = await talk(app, models=models, request={"model": "first"})
    assert score == [(0.0, f"From the {allowed[0]}.")] and [name for _, name in score.asked] == allowed[:1]


async def test_nobody_stands_in_where_a_hook_forbids_it() -> None:
    """LiteLLM#19077: a fallback ran although it was disabled. The one model is tried twice, and its error is told."""
    app = App([Model(name, base_url="http://m.test/v1", api_key="k") for name in ("first", "second")])
    app.before_turn(lambda turn: turn.adjust(models=["first"]))
    score = await talk(app, models=[fails(503), says(FRIEND)])
    assert (score.status, [name for _, name in score.asked]) == (503, ["first", "first"])
    assert score.error is not None and score.error["message"] == "Service Unavailable."


async def test_a_name_that_nobody_has_is_a_mistake_of_the_hook() -> None:
    """It is logged as one, and told as a 500 that does not show it."""
    app = App([Model(name, base_url="http://m.test/v1", api_key="k") for name in ("first", "second")])
    app.before_turn(lambda turn: turn.adjust(models=["frist"]))
    score = await talk(app, models=[says(FRIEND), says(FRIEND)])
    assert (score.status, score.asked) == (500, [])


@pytest.mark.parametrize(
    ("given", "heard"),
    [
        ({}, [(1.5, FILLER), (4.0, SORRY)]),
        ({"reasoning_timeout": 10.0}, [(1.5, FILLER), (6.5, FRIEND)]),
        ({"reasoning_timeout": 6.0}, [(1.5, FILLER), (6.0, SORRY)]),
        ({"reasoning_timeout": 2.0}, [(1.5, FILLER), (4.0, SORRY)]),
    ],
)
async def test_a_model_that_shows_its_reasoning_may_have_longer(
    given: dict[str, Any], heard: list[tuple[float, str]]
) -> None:
    """Thirteen thoughts, half a second each; one that says nothing at all has failed as before."""
    thought = " ".join(["hm"] * 13)
    assert await talk(models=thinks(thought, FRIEND, every=0.5), **SETTINGS, **given) == heard
    assert (await talk(models=silent(), **SETTINGS, **given)).ended == 4.0
