"""Tools, to the moment: what is heard while they run, whose time is over when, and what an interruption ends.

On the clock that jumps; what needs a real wire is in `test_tool_fillers.py` and `test_tool_jobs.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firstword import App, Send, Turn, clock
from firstword.errors import UpstreamTimeout
from firstword.testing import Phone, Record, after, drips, run, says, script, silent, stalls, talk

FILLER = "Let me look. "
SORRY = "I'm sorry."
CALLS = script.events(
    script.role(), script.tool_call("look", "{}", id="c1"), script.finish("tool_calls"), script.done()
)


def answers(*scripts: script.Script) -> Any:
    """Return a model that answers a conversation by the number of results that it holds."""

    def answer(record: Record) -> script.Script:
        results = [each for each in record.body["messages"] if each["role"] == "tool"]
        return scripts[min(len(results), len(scripts) - 1)]

    return answer


class Look:
    """A tool that takes its time, and notes when it began and how it ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began: list[float] = []
        self.ended: list[tuple[str, float]] = []

    async def look(self) -> str:
        """Look it up."""
        self.began.append(clock.now())
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended.append(("cancelled", round(clock.now(), 6)))
            raise
        self.ended.append(("done", round(clock.now(), 6)))
        return "five"


def app_of(
    tool: Look, *, filler: str | None = None, timeout: float | None = None, commits: bool = False, **more: Any
) -> App:
    app = App(base_url="http://model.test/v1", model="m", **more)
    app.tool(filler=filler, timeout=timeout, commits=commits)(tool.look)
    return app


@pytest.mark.parametrize(
    ("seconds", "model", "given", "heard"),
    [
        (2.0, answers(CALLS, says("Five.")), {"filler": FILLER}, [(0.0, FILLER), (2.0, "Five.")]),
        (
            2.0,
            answers(after(1.0, CALLS), after(1.0, says("Five."))),
            {"filler": FILLER},
            [(1.0, FILLER), (4.0, "Five.")],
        ),
        (2.0, answers(CALLS, says("Five.")), {"fillers": [FILLER], "fill_after": 0.8}, [(0.8, FILLER), (2.0, "Five.")]),
        (0.5, answers(CALLS, says("Five.")), {"fillers": [FILLER], "fill_after": 0.8}, [(0.5, "Five.")]),
        (2.0, answers(CALLS, says("Five.")), {}, [(2.0, "Five.")]),
        (2.0, answers(CALLS, drips("It is five.", 0.5)), {}, [(2.5, "It"), (3.0, " is"), (3.5, " five.")]),
        (90.0, answers(CALLS, says("Later.")), {"filler": FILLER}, [(0.0, FILLER), (10.0, "Later.")]),
        (90.0, answers(CALLS, says("Later.")), {"timeout": 3.0}, [(3.0, "Later.")]),
        (90.0, answers(CALLS, says("Later.")), {"tool_timeout": 4.0}, [(4.0, "Later.")]),
        (90.0, answers(CALLS, says("Later.")), {"turn_timeout": 5.0, "apology": SORRY}, [(5.0, SORRY)]),
        (2.0, answers(CALLS, after(3.9, says("Five."))), {}, [(5.9, "Five.")]),
        (2.0, answers(CALLS, silent()), {"filler": FILLER, "apology": SORRY}, [(0.0, FILLER), (6.0, SORRY)]),
        (2.0, answers(CALLS, stalls("It")), {"apology": SORRY}, [(2.0, "It"), (7.0, f" {SORRY}")]),
    ],
    ids=[
        "its filler",
        "a slow model",
        "the App's filler",
        "soon enough",
        "no filler",
        "words as they come",
        "it hangs",
        "its own timeout",
        "the App's timeout",
        "the turn's timeout",
        "a slow second answer",
        "a silent second answer",
        "a second answer that stalls",
    ],
)
async def test_what_is_heard_while_a_tool_runs(seconds: float, model: Any, given: Any, heard: Any) -> None:
    """Each answer has its own time for the first word; the turn's time counts over all of them."""
    tool = Look(seconds)
    score = await talk(app_of(tool, **given), models=model)

    assert score == heard
    assert (score.status, score.done, score.finish_reason, score.left_open) == (200, True, "stop", 0)
    assert len({chunk["id"] for chunk in score.chunks}) == 1 and len(tool.ended) == 1


async def test_words_that_came_together_with_a_call_do_not_wait_for_its_end() -> None:
    """One read brings words and the beginning of a call, which takes a second to its end."""
    together = script.text("Well.")["text"] + script.tool_call("look", "{", id="c1")["text"]
    first = script.events(
        script.role(),
        script.send(together),
        script.wait(1.0),
        script.tool_call(arguments="}"),
        script.finish("tool_calls"),
    )
    assert await talk(app_of(Look(2.0)), models=answers(first, says("Five."))) == [(0.0, "Well."), (3.0, " Five.")]


@pytest.mark.parametrize(("count", "until"), [(2, 2.0), (8, 2.0), (9, 4.0), (20, 6.0)])
async def test_calls_run_side_by_side_eight_at_a_time(count: int, until: float) -> None:
    """Two of two seconds take two seconds; the ninth waits for one of the first eight."""
    tool = Look(2.0)
    calls = [script.tool_call("look", "{}", id=f"c{number}", index=number) for number in range(count)]
    first = script.events(script.role(), *calls, script.finish("tool_calls"))

    score = await talk(app_of(tool), models=answers(first, says("Five.")))
    assert score == [(until, "Five.")] and len(tool.ended) == count


async def test_five_rounds_and_the_answer_are_asked_one_behind_the_other() -> None:
    """A model that calls for ever: five times a tool of a second, and then it has to answer."""

    def model(record: Record) -> script.Script:
        return CALLS if record.body.get("tools") else says("Enough.")

    score = await talk(app_of(Look(1.0)), models=model)
    assert score == [(5.0, "Enough.")]
    assert [at for at, _ in score.asked] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


async def test_the_first_word_is_when_the_caller_hears_one() -> None:
    """A call is none; the times of asking are those of the first answer."""
    for begin, spoke in ((script.role(), 2.5), (script.text("Well."), 0.0)):
        first = script.events(begin, script.tool_call("look", "{}", id="c1"), script.finish("tool_calls"))
        score = await talk(app_of(Look(2.0)), models=answers(first, after(0.5, says("Five."))))

        assert score.turn is not None
        timeline = score.turn.timeline
        assert timeline.spoke is not None and round(timeline.spoke - timeline.received, 6) == spoke
        assert timeline.asked == timeline.answered == timeline.received


async def test_a_second_answer_that_never_begins_has_not_stalled() -> None:
    """The first answer spoke: the error of the second says all the same that it never began."""
    first = script.events(script.text("Well."), script.tool_call("look", "{}", id="c1"), script.finish("tool_calls"))
    score = await talk(app_of(Look(2.0)), models=answers(first, script.sends_only_the_role()))

    assert score == [(0.0, "Well.")] and score.ended == 6.0
    assert score.turn is not None and isinstance(score.turn.error, UpstreamTimeout)
    assert score.turn.error.phase == "first token"


async def test_a_model_function_is_heard_word_by_word_in_every_round() -> None:
    """What it corked before it called does not wait for the tool, nor do the words of its second answer."""
    app = app_of(Look(2.0))

    @app.model("mine")
    async def mine(turn: Turn, send: Send) -> None:
        if turn.messages[-1]["role"] != "tool":
            turn.corked = True
            await send(turn.chunk({"content": "Well."}))
            calls = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
            await send(turn.chunk({"tool_calls": calls}, "tool_calls"))
            return
        for word in ("It", " is", " five."):
            await send(turn.chunk({"content": word}))
            await asyncio.sleep(1.0)
        await send(turn.chunk({}, "stop"))

    score = await talk(app, request={"model": "mine"})
    assert score == [(0.0, "Well."), (2.0, " It"), (3.0, " is"), (4.0, " five.")]


# --- an interruption in each phase ------------------------------------------------------------------

PHASES = {
    "before the first answer": (0.5, [], []),
    "within its words": (1.5, [], [(1.0, "Well.")]),
    "while the tool runs": (3.0, ["at 3.0"], [(1.0, "Well.")]),
    "before the second answer": (4.5, [], [(1.0, "Well.")]),
    "within it": (5.5, [], [(1.0, "Well."), (5.0, " It")]),
}


@pytest.mark.parametrize("commits", [False, True], ids=["", "commits"])
@pytest.mark.parametrize("phase", PHASES)
async def test_an_interruption_ends_what_runs_at_once(phase: str, commits: bool) -> None:
    """The model's connection is closed, the tool is cancelled; one that commits is done to its end, and then told."""
    leaves, cancelled, heard = PHASES[phase]
    tool = Look(2.0)
    first = script.events(
        script.role(),
        script.wait(1.0),
        script.text("Well."),
        script.wait(1.0),
        script.tool_call("look", "{}", id="c1"),
        script.finish("tool_calls"),
    )
    model = answers(first, [*after(1.0, script.stalls_after("It")), script.wait(1.0), *script.says(" is.")])
    line = {"session_id": "s", "turn_id": 1}

    async def main() -> None:
        async with Phone(app_of(tool, commits=commits), models=model) as phone:
            score = await phone.talk(leaves=leaves, request=line)
            assert score == heard and score.ended == leaves and score.left_open == 0
            await asyncio.sleep(10.0)
            asked = len(phone.seen)
            assert all(record.closed_by == "peer" or record.ended for record in phone.seen)
            await phone.talk(leaves=0.1, request={**line, "turn_id": 2})
            results = [each["content"] for each in phone.seen[asked].body["messages"] if each["role"] == "tool"]
            assert results == (["five"] if commits and leaves > 2.0 else [])

    await run(main)
    if not cancelled:
        assert [how for how, _ in tool.ended] == (["done"] if leaves > 2.0 else [])
    else:
        assert tool.ended == ([("done", 4.0)] if commits else [("cancelled", 3.0)])


async def test_a_turn_that_is_sent_again_waits_for_the_same_job() -> None:
    """The engine gives up after a second, and sends the turn again: booked once, and told when it is done."""
    tool = Look(2.0)
    line = {"session_id": "s", "turn_id": 1}

    async def main() -> None:
        async with Phone(app_of(tool, commits=True), models=answers(CALLS, says("Booked."))) as phone:
            first = await phone.talk(leaves=1.0, request=line)
            second = await phone.talk(request=line)
            assert (first.text, second) == ("", [(1.0, "Booked.")])
            again = await phone.talk(request=line)
            assert again == [(0.0, "Booked.")]
            await asyncio.sleep(61.0)
            assert await phone.talk(request=line) == [(2.0, "Booked.")]  # nobody sends a turn again after a minute

    await run(main)
    assert len(tool.began) == 2


async def test_many_callers_at_once_have_a_job_each() -> None:
    """A hundred sessions, each twice at the same moment: a hundred bookings."""
    tool = Look(2.0)

    async def main() -> None:
        async with Phone(app_of(tool, commits=True, resent="none"), models=answers(CALLS, says("Booked."))) as phone:
            lines = [{"session_id": f"s{number % 100}", "turn_id": 1} for number in range(200)]
            scores = await asyncio.gather(*(phone.talk(request=line) for line in lines))
            assert all(score == [(2.0, "Booked.")] for score in scores)

    await run(main)
    assert len(tool.began) == 100
