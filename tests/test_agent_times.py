"""When Agora's agents leave after a reply, to the moment, and when they stay: on the clock that jumps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from actions_of_a_test import BYE, CALLS, LEAVE, ON_AGORA, app_on, calls

from firstword import App, Turn, clock
from firstword.stages.act import SPEECH_LEAD, spoken_for
from firstword.testing import Phone, Score, run, says, script, talk

SPOKEN = round(len(BYE) / 12 + 2.0, 6)  # seconds from its begin until it was heard


def asks(say: str | None = BYE, **more: Any) -> App:
    app = app_on("agora", **more)

    @app.before_turn
    def ask(turn: Turn) -> None:
        if turn.text == "Stop":
            turn.end_call(say=say)

    return app


def left(phone: Phone, began: float = 0.0) -> list[tuple[float, str]]:
    """Return when an agent was told to leave, and by which request."""
    found = [each for each in phone.seen if "/agents" in each.path]
    return [(round(each.requested - began, 6), each.path) for each in found if each.requested is not None]


async def on_a_phone(app: App, main: Callable[[Phone], Awaitable[Any]], **more: Any) -> tuple[Any, Any]:
    """Have a conversation; return what it returns, and when which agent was told to leave."""

    async def call() -> tuple[Any, Any]:
        began = clock.now()
        async with Phone(app, **more) as phone:
            result = await main(phone)
        return result, left(phone, began)

    return await run(call)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_the_agent_leaves_when_the_farewell_was_heard(stream: bool) -> None:
    """The reply is over at once; the words take their time, and the voice its own."""

    async def main(phone: Phone) -> Score:
        return await phone.talk("Stop", request=ON_AGORA, stream=stream)

    score, told = await on_a_phone(asks(), main)
    assert (score, score.ended, calls(score)) == ([(0.0, BYE)], 0.0, [])
    assert told == [(SPOKEN, LEAVE)]


async def test_an_agent_that_says_nothing_leaves_soon() -> None:
    """Nothing has to be heard, but the reply has to have come."""

    async def main(phone: Phone) -> Score:
        return await phone.talk("Stop", request=ON_AGORA)

    _, told = await on_a_phone(asks(None), main)
    assert told == [(SPEECH_LEAD, LEAVE)]


@pytest.mark.parametrize(
    ("model", "say", "words", "began"),
    [
        (says("Take care of yourself.", 0.2), None, "Take care of yourself.", 2.2),
        (says("Take care of yourself.", 0.2), BYE, BYE, 2.0),
    ],
    ids=["the model's words", "words of the tool"],
)
async def test_the_words_of_a_whole_reply_are_waited_for(model: Any, say: str | None, words: str, began: float) -> None:
    """From the first word on: they are spoken while the others are still on their way."""
    app = app_on("agora")

    @app.tool
    async def hang_up(turn: Turn) -> str:
        """Hang up."""
        await asyncio.sleep(2.0)
        turn.end_call(say=say)
        return "hanging up"

    def answer(record: Any) -> Any:
        return model if any(each["role"] == "tool" for each in record.body["messages"]) else CALLS

    async def main(phone: Phone) -> Score:
        return await phone.talk("Stop", request=ON_AGORA)

    score, told = await on_a_phone(app, main, models=answer)
    assert score.text == words and score[0][0] == began
    assert told == [(round(began + len(words) / 12 + SPEECH_LEAD, 6), LEAVE)]


def test_ideographs_take_longer_than_letters() -> None:
    """Four signs of Chinese are about as long as a word of twelve letters."""
    assert spoken_for("abcdefghijkl") == spoken_for("再见再见") == 1.0 and spoken_for("") == 0.0


@pytest.mark.parametrize("after", [0.0, 1.0, 2.6])
async def test_an_agent_stays_when_its_caller_speaks_on(after: float, caplog: pytest.LogCaptureFixture) -> None:
    """The farewell is being spoken, and the caller has one more question."""

    async def main(phone: Phone) -> str:
        await phone.talk("Stop", request=ON_AGORA)
        await asyncio.sleep(after)
        return (await phone.talk("Wait", request={**ON_AGORA, "turn_id": 2})).text

    with caplog.at_level(logging.INFO, "firstword"):
        assert await on_a_phone(asks(), main) == ("Wait", [])
    assert sum("agent stays" in record.getMessage() for record in caplog.records) == 1


async def test_a_turn_of_another_call_keeps_nobody() -> None:
    """Two conversations on one server."""

    async def main(phone: Phone) -> None:
        await phone.talk("Stop", request=ON_AGORA)
        await phone.talk("Wait", request={"agent_id": "agent-2", "channel": "room-8"})

    assert (await on_a_phone(asks(), main))[1] == [(SPOKEN, LEAVE)]


async def test_a_turn_that_is_sent_again_ends_the_call_once() -> None:
    """The engine lost patience after the reply: the first one's agent stays, the second one's leaves."""

    async def main(phone: Phone) -> None:
        await phone.talk("Stop", request=ON_AGORA)
        await asyncio.sleep(0.5)
        await phone.talk("Stop", request=ON_AGORA)

    assert (await on_a_phone(asks(), main))[1] == [(round(0.5 + SPOKEN, 6), LEAVE)]


@pytest.mark.parametrize("speaks_on", [True, False], ids=["stays", "leaves"])
async def test_a_farewell_that_two_requests_have_heard_is_one_farewell(speaks_on: bool) -> None:
    """The engine sent the turn twice, and both joined one reply; then its caller has one more question, or none."""
    app = asks(None, resent="join")

    @app.stage
    async def ask(turn: Turn, send: Any, call_next: Any) -> None:
        await call_next(turn, send)
        if turn.text == "Bye":
            turn.end_call()

    async def main(phone: Phone) -> list[str]:
        heard = await asyncio.gather(*(phone.talk("Bye", request=ON_AGORA) for _ in range(2)))
        more = [await phone.talk("Wait", request={**ON_AGORA, "turn_id": 2})] if speaks_on else []
        return [score.text for score in (*heard, *more)]

    def answer(record: Any) -> Any:
        return says("Goodbye.", 0.2) if record.body["messages"][-1]["content"] == "Bye" else says("Yes?")

    heard, told = await on_a_phone(app, main, models=answer)
    assert heard == ["Goodbye.", "Goodbye.", "Yes?"][: len(heard)]
    assert [path for _, path in told] == ([] if speaks_on else [LEAVE])


async def test_a_tool_that_commits_ends_the_call_in_the_turn_that_is_heard() -> None:
    """The engine sends the turn again while the tool runs: it runs once, and the words are heard once."""
    app, ran = app_on("agora"), []

    @app.tool(commits=True)
    async def hang_up(turn: Turn) -> str:
        """Cancel the order and hang up."""
        ran.append(turn)
        await asyncio.sleep(2.0)
        turn.end_call(say=BYE)
        return "cancelled"

    async def main(phone: Phone) -> tuple[Score, Score]:
        first = await phone.talk("Stop", request=ON_AGORA, leaves=1.0)
        return first, await phone.talk("Stop", request=ON_AGORA)

    (first, second), told = await on_a_phone(app, main, models=CALLS)
    assert (first, second, len(ran)) == ([], [(1.0, BYE)], 1)
    assert told == [(round(2.0 + SPOKEN, 6), LEAVE)]


async def test_a_tool_that_was_left_behind_ends_no_call_and_its_result_is_kept() -> None:
    """The caller speaks on while it books: the booking is told in the next turn, and nobody is hung up on."""
    app = app_on("agora")

    @app.tool(commits=True)
    async def hang_up(turn: Turn) -> str:
        """Book, and hang up."""
        await asyncio.sleep(2.0)
        turn.end_call(say=BYE)
        return "booked"

    def answer(record: Any) -> Any:
        return CALLS if record.body["messages"][-1]["content"] == "Book" else says("Booked.")

    async def main(phone: Phone) -> Score:
        await phone.talk("Book", request=ON_AGORA, leaves=1.0)
        await asyncio.sleep(2.0)
        return await phone.talk("And?", request={**ON_AGORA, "turn_id": 2})

    score, told = await on_a_phone(app, main, models=answer)
    results = [each["content"] for each in score.seen[0].body["messages"] if each["role"] == "tool"]
    assert (score.text, results, told) == ("Booked.", ["booked"], [])


@pytest.mark.parametrize("kind", ["leaves", "fails"])
async def test_a_turn_that_does_not_come_to_its_end_keeps_the_agent(kind: str) -> None:
    """The caller interrupts the farewell, or the model breaks off."""
    app = app_on("agora")

    @app.stage
    async def ask(turn: Turn, send: Any, call_next: Any) -> None:
        turn.end_call(say=BYE)
        await call_next(turn, send)

    async def main(phone: Phone) -> None:
        await phone.talk("Stop", request=ON_AGORA, leaves=1.0 if kind == "leaves" else None)

    model = says("Let me tell you", 0.5) if kind == "leaves" else script.closes_after("Let me")
    assert (await on_a_phone(app, main, models=model))[1] == []


async def test_a_server_without_the_keys_says_so() -> None:
    """An error at once, not a call that is never ended."""
    app = asks(agora_basic_secret="")
    score = await talk(app, say="Stop", request=ON_AGORA)

    assert score.status == 500 and score.error is not None
    assert "AGORA_APP_ID, AGORA_BASIC_KEY and AGORA_BASIC_SECRET" in score.error["message"]
