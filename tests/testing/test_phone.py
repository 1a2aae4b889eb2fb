"""A `Phone`: several turns with one App on a clock that jumps, what it learns in them, and what is left of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from firstword import App, CallNext, Send, Turn
from firstword.testing import (
    Phone,
    Record,
    Score,
    after,
    drips,
    fails,
    run,
    says,
    script,
    silent,
    talk,
    then,
)
from firstword.wire import HttpRequest

# --- several turns --------------------------------------------------------------------------------


async def test_a_phone_remembers_from_turn_to_turn() -> None:
    """Three failures in a row, and the model is left alone, until it has been given time."""

    async def main() -> list[list[tuple[float, str]]]:
        models = [then(fails(500), fails(500), fails(500), says("I am back")), says("hello")]
        async with Phone(models=models) as phone:
            asked = [(await phone.talk()).asked for _ in range(4)]
            await asyncio.sleep(5.0)
            score = await phone.talk()
            assert score == [(0.0, "I am back")]
            return [*asked, score.asked]

    both = [(0.0, "first"), (0.0, "second")]
    assert await run(main) == [both, both, both, [(0.0, "second")], [(0.0, "first")]]


async def test_turns_on_one_phone_share_its_connections() -> None:
    """One after the other by one connection, at once by two; unused for long, and it is closed."""

    async def main() -> list[int]:
        async with Phone(models=drips("one two", every=1.0)) as phone:
            await phone.talk()
            await phone.talk()
            both = await asyncio.gather(phone.talk("left"), phone.talk("right", leaves=1.5))
            assert both == [[(1.0, "one"), (2.0, " two")], [(1.0, "one")]]
            assert [score.seen[0].body["messages"][0]["content"] for score in both] == ["left", "right"]
            assert [score.left_open for score in both] == [0, 0]
            await asyncio.sleep(100)
            await phone.talk()
        # After 50 s without use; by the caller who left; at the end.
        assert [record.closed for record in phone.seen] == [56.0, 56.0, 56.0, 5.5, 108.0]
        return [record.connection for record in phone.seen]

    assert await run(main) == [1, 1, 1, 2, 3]


async def test_a_connection_that_the_next_turn_has_is_not_left_open_by_the_last() -> None:
    """It was given back, and taken again at the same moment."""
    app, over = App(model="m"), asyncio.Event()

    @app.after_turn
    async def tell(turn: Turn) -> None:
        over.set()

    async def main() -> list[Score]:
        async def next_one(phone: Phone) -> Score:
            await over.wait()
            return await phone.talk()

        async with Phone(app, models=drips("one two", every=1.0)) as phone:
            scores = await asyncio.gather(phone.talk(), next_one(phone))
            assert [record.connection for record in phone.seen] == [1, 1]
            return list(scores)

    scores = await run(main)
    assert [(score.text, score.ended, score.left_open) for score in scores] == [("one two", 2.0, 0)] * 2


async def test_a_model_may_be_a_function_of_the_request() -> None:
    """Each request is answered by what it says, and by how many came before."""

    def model(record: Record) -> script.Script:
        return after(float(record.attempt), says(record.body["messages"][0]["content"]))

    async def main() -> list[Score]:
        async with Phone(models=model) as phone:
            return [await phone.talk(word) for word in ("one", "two")]

    assert await run(main) == [[(1.0, "one")], [(2.0, "two")]]


async def test_a_thousand_turns_take_a_moment() -> None:
    """What a simulation is made of: an hour of calls."""

    async def main() -> float:
        async with Phone(models=[after(2.0, says("hello")), silent()], hedge_after=None) as phone:
            for _ in range(1000):
                assert await phone.talk() == [(2.0, "hello")]
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    assert await run(main) == pytest.approx(2000.0)
    assert 20 * (time.perf_counter() - began) < 2000.0


async def test_a_phone_rings_on_a_jumping_clock_only() -> None:
    """On any other loop its wires would be read too late."""
    with pytest.raises(RuntimeError, match="await run"):
        async with Phone():
            pass


# --- nothing is left ------------------------------------------------------------------------------


async def test_a_task_that_a_hook_leaves_behind_is_told() -> None:
    """A test passes, and in production it would pile up."""
    app = App(model="m")

    async def forgotten() -> None:
        await asyncio.Event().wait()

    @app.before_turn
    async def start(turn: Turn) -> None:
        turn.state["task"] = asyncio.ensure_future(forgotten())

    with pytest.raises(RuntimeError, match=r"left behind: .*forgotten"):
        await talk(app)


async def test_a_test_that_can_never_end_is_told() -> None:
    """A test waits for a word that no hook of its App will give."""

    async def main() -> None:
        async with Phone() as phone:
            await phone.talk()
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is left that could wake anybody"):
        await run(main)


async def test_a_connection_that_is_held_for_ever_is_told() -> None:
    """Somebody takes one from the pool and does not give it back: the score says so, and the end."""
    app = App(model="m")
    transports: list[Any] = []
    held = []

    @app.stage
    async def take(turn: Turn, send: Send, call_next: CallNext) -> None:
        body = b'{"model": "m", "messages": []}'
        request = HttpRequest("POST", "http://first.test/v1/chat/completions", (), body)
        held.append(await transports[0].request(request, within=1.0))
        await call_next(turn, send)

    async def main() -> None:
        async with Phone(app, models=says("hello")) as phone:
            assert phone.app._transport is not None
            transports.append(phone.app._transport)
            scores.append(await phone.talk())

    scores: list[Score] = []
    with pytest.raises(RuntimeError, match="in use although every turn is over: 1"):
        await run(main)
    assert scores[0].left_open == 1 and scores[0] == [(0.0, "hello")]
    assert repr(scores[0]).endswith("1 connections left open>")


async def test_an_answer_that_lacks_its_last_bytes_is_not_held_for_ever() -> None:
    """All words and `[DONE]` are there, and the body never ends: the connection is given up after a second."""
    endless = script.events(script.says("hello"))[:-1]

    async def main() -> tuple[Score, float]:
        async with Phone(models=endless) as phone:
            score = await phone.talk()
        return score, asyncio.get_running_loop().time()

    score, at = await run(main)
    assert (score, score.done, score.ended, score.left_open, at) == ([(0.0, "hello")], True, 0.0, 1, 1.0)


async def test_what_a_model_of_the_tests_own_does_wrong_comes_out() -> None:
    """It would else be the server's mistake, a 500, and the test's own line would be seen nowhere."""

    def breaks(record: Record) -> script.Script:
        raise LookupError("in the test itself")

    with pytest.raises(LookupError, match="in the test itself"):
        await talk(models=breaks)
    with pytest.raises(ValueError, match=r"a script is wrong: .*sing"):
        await talk(models=[{"do": "sing"}])
