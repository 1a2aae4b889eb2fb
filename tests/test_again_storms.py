"""One turn that arrives many times within a second: one request to a model at a time, one reply, and nothing left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from caller import Call, Caller, Heard, turn
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream, script
from firstword.testing.witness import Record

Serve = Callable[[App], Served]
TIMES = 6
STORY = "It is noon, and the sun is high."
SAID = script.events(script.says(STORY))
STALLS = script.stalls_after("It is")
BOOKS = script.events(script.tool_call("book", '{"table": 4}', id="b1"), script.finish("tool_calls"))
MARGIN = 0.25  # seconds: a process that waits for a core sees a close and the next request in either order
NOTHING = {"in_use": 0, "turns": 0}

# How an engine says who is on the line, and which turn it is; Vapi says only the one.
ENGINES: dict[str, Callable[[str], dict[str, Any]]] = {
    "agora": lambda marker: {"session_id": marker, "turn_id": 1},
    "vapi": lambda marker: {"call": {"id": marker}},
}
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def check_one_at_a_time(records: list[Record]) -> None:
    """Assert that no two requests to the model were under way at the same time."""
    times = sorted((each.requested, min(filter(None, (each.ended, each.closed)))) for each in records)
    for (_, over), (begun, _) in itertools.pairwise(times):
        assert over <= begun + MARGIN


def watched(app: App) -> App:
    """Have each turn fail that begins to ask while another one's request to the model is still under way."""

    @app.before_turn
    async def look(turn: Turn) -> None:
        assert app._built is not None and app._built.transport.in_use == 0

    return app


async def check_nothing_left(served: Served) -> None:
    assert await asyncio.to_thread(served.left_open) == NOTHING
    assert served.app._built.server._repeats._running == {}  # type: ignore[union-attr]


def was_superseded(reply: Heard) -> bool:
    """Return whether a reply ended so: neither may hear of an error, for Vapi ends the call, and Agora speaks."""
    return reply.status == 200 and reply.done and reply.finish_reasons == ["stop"] and STORY not in reply.text


async def rest_of(call: Call) -> None:
    async for _ in call.listens():
        pass


@ENGINE
@pytest.mark.parametrize("heard", ["nothing", "words"])
async def test_each_is_closed_by_the_caller(
    serve: Serve, upstream: Upstream, marker: str, engine: str, heard: str
) -> None:
    """The engine hangs up on each before it sends the next, at once or behind the first words."""
    served = serve(watched(App(base_url=upstream.base_url, platform=engine)))
    caller = Caller(served.url)
    body = turn(user=marker, scripts=[STALLS] * (TIMES - 1) + [SAID], **ENGINES[engine](marker))
    for count in range(1, TIMES):
        async with caller.dials(body) as call:
            await (call.hears_word('" is"') if heard == "words" else upstream.wait_asked(marker, count))
            call.hangs_up()
    last = await caller.hears(body)

    assert last.text == STORY and last.done
    records = await upstream.wait_settled(marker, TIMES)
    assert len(records) == TIMES
    check_one_at_a_time(records)
    await check_nothing_left(served)


@ENGINE
async def test_none_is_closed(serve: Serve, upstream: Upstream, marker: str, engine: str) -> None:
    """The engine leaves them all open, and reads what comes."""
    served = serve(watched(App(base_url=upstream.base_url, platform=engine)))
    caller = Caller(served.url)
    body = turn(user=marker, scripts=[STALLS] * (TIMES - 1) + [SAID], **ENGINES[engine](marker))
    async with AsyncExitStack() as stack:
        calls = []
        for count in range(1, TIMES + 1):
            calls.append(await stack.enter_async_context(caller.dials(body)))
            await upstream.wait_asked(marker, count)
        await asyncio.gather(*map(rest_of, calls))

    assert [was_superseded(call.heard) for call in calls] == [True] * (TIMES - 1) + [False]
    assert calls[-1].heard.text == STORY and calls[-1].heard.done
    check_one_at_a_time(await upstream.wait_settled(marker, TIMES))
    await check_nothing_left(served)


@ENGINE
async def test_all_come_at_once(serve: Serve, upstream: Upstream, marker: str, engine: str) -> None:
    """Nobody waits for anything: whichever comes last is answered, and all others are told so."""
    served = serve(watched(App(base_url=upstream.base_url, platform=engine)))
    caller = Caller(served.url)
    slow = script.events(script.says(STORY, every=0.05))
    body = turn(user=marker, script=slow, **ENGINES[engine](marker))
    replies = await asyncio.gather(*(caller.hears(body) for _ in range(TIMES)))

    assert sum(was_superseded(reply) for reply in replies) == TIMES - 1
    assert [reply.text for reply in replies if reply.status == 200 and reply.text == STORY] == [STORY]
    check_one_at_a_time(await upstream.wait_settled(marker))
    await check_nothing_left(served)


async def test_each_has_understood_one_word_more(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The engine sends what it hears while it hears it, under one number, and closes nothing."""
    served = serve(watched(App(base_url=upstream.base_url)))
    caller = Caller(served.url)
    scripts = [STALLS] * (TIMES - 1) + [script.events(script.says(STORY, every=0.01))]
    words = ["How", "late", "is", "it", "now", "please"]
    async with AsyncExitStack() as stack:
        calls = []
        for count in range(1, TIMES + 1):
            said = " ".join(words[:count])
            body = turn(said, user=marker, scripts=scripts, **ENGINES["agora"](marker))
            calls.append(await stack.enter_async_context(caller.dials(body)))
            await upstream.wait_asked(marker, count)
        await asyncio.gather(*map(rest_of, calls))

    assert all(was_superseded(call.heard) for call in calls[:-1])
    assert calls[-1].heard.text == STORY
    records = await upstream.wait_settled(marker, TIMES)
    assert records[-1].body["messages"][-1]["content"] == "How late is it now please"
    check_one_at_a_time(records)
    await check_nothing_left(served)


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "left open"])
async def test_what_commits_is_done_once(serve: Serve, upstream: Upstream, marker: str, closes: bool) -> None:
    """Each time the model calls the tool that books a table, while the booking of the first time is still under way."""
    app = App(base_url=upstream.base_url)
    booked: list[int] = []
    go_on = asyncio.Event()

    @app.tool(commits=True)
    async def book(table: int) -> str:
        """Book a table."""
        await go_on.wait()
        booked.append(table)
        return "It is booked."

    served = serve(app)
    caller = Caller(served.url)
    body = turn(user=marker, scripts=[BOOKS] * TIMES + [SAID], **ENGINES["agora"](marker))
    async with AsyncExitStack() as stack:
        for count in range(1, TIMES + 1):
            call = await stack.enter_async_context(caller.dials(body))
            await upstream.wait_settled(marker, count)
            if closes and count < TIMES:
                call.hangs_up()

        async def let_go() -> None:
            go_on.set()

        await asyncio.to_thread(served.run, let_go)
        await rest_of(call)

    assert call.heard.text == STORY and booked == [4]
    records = await upstream.wait_settled(marker, TIMES + 1)
    assert records[-1].body["messages"][-1]["content"] == "It is booked."
    check_one_at_a_time(records)
    await check_nothing_left(served)


@pytest.mark.parametrize("rule", ["supersede", "join"])
async def test_nobody_hears_another_caller(serve: Serve, upstream: Upstream, rule: str) -> None:
    """Forty callers with the very same request, three of a session and each with a key of its own, three times each."""
    app = App(base_url=upstream.base_url, resent=rule)

    @app.model("who")
    async def who(turn: Turn) -> AsyncIterator[str]:
        for word in f"This is for {turn.session} with {turn.headers['authorization']} only.".split(" "):
            yield f"{word} "
            await asyncio.sleep(0.002)

    served = serve(app)
    caller = Caller(served.url)

    async def calls(session: str, key: str) -> None:
        mine = f"This is for {session} with {key} only. "
        body = turn(model="who", session_id=session)
        replies = await asyncio.gather(*(caller.hears(body, headers={"authorization": key}) for _ in range(3)))
        again = {"authorization": key, "x-stainless-retry-count": "1"}
        whole = [reply for reply in [*replies, await caller.hears(body, headers=again)] if b"error" not in reply.body]
        assert [reply.text for reply in whole] == [mine] * (4 if rule == "join" else 2)
        for reply in replies:
            assert reply in whole or (reply.error["code"] == "superseded" and mine.startswith(words_of(reply)))

    await asyncio.gather(*(calls(f"s{each // 3}", f"Bearer key-{each % 3}") for each in range(40)))
    await check_nothing_left(served)


def words_of(reply: Heard) -> str:
    """Return what was said before the error."""
    said = reply.chunks[:-1] if reply.status == 200 else []
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in said)
