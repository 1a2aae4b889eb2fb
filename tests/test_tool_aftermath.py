"""What a tool or a turn leaves behind must not spoil the turns that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from firstword import App, ToolError, Turn
from firstword.calls import Call
from firstword.rounds.jobs import MAX_JOBS, Jobs, Outcome
from firstword.testing import Phone, Record, run, says, script, talk, then
from firstword.tools import Tool
from firstword.tools.function import Function

CALLS = script.events(script.role(), script.tool_call("book", "{}", id="b1"), script.finish("tool_calls"))
LINE = {"session_id": "s1"}  # a session whose turns have no number
LATER = [
    {"role": "user", "content": "Book it."},
    {"role": "assistant", "content": "I"},
    {"role": "user", "content": "Did you?"},
]


class Odd(BaseException):
    """What is no Exception, as a test framework's own ways to stop are."""


def told(record: Record) -> list[str]:
    """Return the results that a request tells the model."""
    return [each["content"] for each in record.body["messages"] if each["role"] == "tool"]


def app_of(function: Callable[[], Any]) -> App:
    """Return an App with one tool that commits."""
    app = App(model="any", platform="agora")
    app.tool(name="book", commits=True)(function)
    return app


async def is_odd() -> str:
    await asyncio.sleep(3.0)
    raise Odd


async def says_half_a_character() -> str:
    await asyncio.sleep(3.0)
    return "table \ud83d is booked"


async def refuses_with_half_a_character() -> str:
    await asyncio.sleep(3.0)
    raise ToolError("There is no table \ud83d.")


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (is_odd, "Error: the tool failed."),
        (says_half_a_character, "table ? is booked"),
        (refuses_with_half_a_character, "Error: There is no table ?."),
    ],
)
async def test_what_a_tool_raises_or_returns_fails_neither_its_turn_nor_the_next(
    function: Callable[[], Any], result: str
) -> None:
    """A BaseException, and a text that UTF-8 cannot hold: told in the turn, or after an interruption in the next."""
    whole = await talk(app_of(function), models=then(CALLS, says("Well.")), request=LINE)

    async def later() -> Any:
        async with Phone(app_of(function), models=then(CALLS, says("Well."))) as phone:
            await phone.talk("Book it.", leaves=1.0, request=LINE)
            await asyncio.sleep(5.0)
            return await phone.talk(LATER, request=LINE)

    assert whole == [(3.0, "Well.")] and told(whole.seen[1]) == [result]
    score = await run(later)
    assert score == [(0.0, "Well.")] and told(score.seen[0]) == [result]


async def test_a_late_result_is_told_again_when_a_turn_without_a_number_is_sent_again() -> None:
    """An engine that counts no turns: the second request of the same turn knows what the first one knew."""

    async def books() -> str:
        await asyncio.sleep(3.0)
        return "booked"

    async def calls() -> list[list[str]]:
        async with Phone(app_of(books), models=then(CALLS, says("Well."))) as phone:
            await phone.talk("Book it.", leaves=1.0, request=LINE)
            await asyncio.sleep(5.0)
            scores = [await phone.talk(LATER, request=LINE) for _ in range(2)]
            more = [*LATER, {"role": "assistant", "content": "Well."}, {"role": "user", "content": "Thanks."}]
            scores.append(await phone.talk(more, request=LINE))
            return [told(score.seen[0]) for score in scores]

    assert await run(calls) == [["booked"], ["booked"], []]


async def test_a_session_that_is_long_on_the_line_keeps_its_newest_result() -> None:
    """Too many jobs: the oldest results go, and not those of whoever has been here the longest."""

    async def run_job(jobs: Jobs, session: str, number: int) -> int:
        ran: list[str] = []

        async def book() -> Outcome:
            ran.append(session)
            return Outcome("booked", "answered")

        turn = Turn(request={"messages": [{"role": "user", "content": "Hi"}]}, session=session, number=number)
        await jobs.begin(turn, Call("b1", "book", {}, None, {}), book).task
        await asyncio.sleep(0.001)  # the time at which it ended, on the clock that jumps
        return len(ran)

    async def fill() -> tuple[int, int]:
        jobs = Jobs()
        await run_job(jobs, "long", 1)
        for number in range(MAX_JOBS - 1):
            await run_job(jobs, f"s{number}", 1)
        first = await run_job(jobs, "long", 2)
        for session in ("one more", "and another"):
            await run_job(jobs, session, 1)
        return first, await run_job(jobs, "long", 2)

    assert await run(fill) == (1, 0)


class Server:
    """A source whose tools have names that it chose itself."""

    def __init__(self, *tools: Tool) -> None:
        self.tools = tools

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def close(self) -> None:
        """Nothing is to be closed."""


async def test_a_source_cannot_take_the_name_of_an_engines_own_tool() -> None:
    """An MCP server lists an `end_call`: the caller can still be hung up on, and the model gets the engine's."""

    def answers(turn: Turn) -> str:
        return "the line is mine"

    app = App(model="any", platform="elevenlabs")
    app.add_tools(Server(Function(answers, name="end_call"), Function(answers, name="weather")))
    ends = script.events(script.role(), script.tool_call("end_call", "{}", id="e1"), script.finish("tool_calls"))
    own = {"type": "function", "function": {"name": "end_call", "parameters": {"type": "object"}}}

    score = await talk(app, models=then(ends, says("Well.")), request={"tools": [own]})

    assert score.finish_reason == "tool_calls" and score.turn is not None and score.turn.called == []
    offered = score.seen[0].body["tools"]
    assert offered[0] == own and [each["function"]["name"] for each in offered] == ["end_call", "weather"]
