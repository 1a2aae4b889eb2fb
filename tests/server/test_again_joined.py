"""A turn that is sent again, where the rule is to join: all hear one reply, each at a pace of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from caller import Call, Caller, Heard, turn
from served import Served

from firstword import App, Turn
from firstword.server.run import AHEAD, MAX_REPLY
from firstword.testing import Upstream, script

SORRY = "I am sorry."
STORY = "It is noon, and the sun is high."
SLOWLY = script.events(script.says(STORY, every=0.05))
BROKEN = [*script.stalls_after("It is"), script.wait(1.0), script.close()]
FAILS = [script.wait(1.0), *script.rejects("Not like this.", "not_like_this")]
LONG = "word " * 2000
COUNT = 8 * MAX_REPLY // len(LONG)
NOTHING = {"in_use": 0, "turns": 0}


class Line:
    """An App whose rule is to join, and what its hooks saw."""

    def __init__(self, upstream: Upstream, **more: Any) -> None:
        self.app = App(base_url=upstream.base_url, resent="join")
        self.began = 0
        self.over: list[Turn] = []
        self.app.after_turn(self.over.append)
        self.app.before_turn(self._begin)
        self.app.model("talks")(self._talk)
        self.go_on = asyncio.Event()
        self.served = Served(self.app, **more)
        # The kernel would take megabytes for a caller who reads nothing, who would look like a fast one.
        self.served._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.caller = Caller(self.served.url)

    def _begin(self, turn: Turn) -> None:
        self.began += 1

    async def _talk(self, turn: Turn) -> AsyncIterator[str]:
        """Talk at length, once it is let go."""
        await self.go_on.wait()
        for _ in range(COUNT):
            yield LONG


@pytest.fixture(params=[None, "h11"], ids=["ours", "asgi"])
def line(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Line]:
    """Somebody to call, under our own protocol and under plain ASGI."""
    line = Line(upstream, **({"http": request.param} if request.param else {}))
    yield line
    line.served.stop()


def body_of(marker: str, *scripts: script.Script, **fields: Any) -> dict[str, Any]:
    """Return a turn of a session of this test's own; the n-th time that the model is asked, it does the n-th script."""
    return turn(**{"user": marker, "scripts": list(scripts), "session_id": marker, "turn_id": 1, **fields})


async def rest_of(call: Call) -> Heard:
    async for _ in call.listens():
        pass
    return call.heard


def _runs(app: App) -> list[Any]:
    return list(app._built.server._repeats._running.values())  # type: ignore[union-attr]


async def check_asked_once(line: Line, upstream: Upstream, marker: str) -> None:
    """Assert that the model was asked once, hooks were called once, and nothing is left."""
    assert await asyncio.to_thread(line.served.left_open) == NOTHING
    assert len(await upstream.wait_settled(marker)) == 1
    assert line.began == len(line.over) == 1


async def test_who_comes_late_hears_the_same_reply_from_its_beginning(
    line: Line, upstream: Upstream, marker: str
) -> None:
    """The second comes after some words, the third wants it in one piece; the model and the hooks are asked once."""
    body = body_of(marker, SLOWLY)
    async with line.caller.dials(body) as first:
        await first.hears_word("noon")
        second, third = await asyncio.gather(line.caller.hears(body), line.caller.hears({**body, "stream": False}))
        heard = await rest_of(first)

    assert heard.text == second.text == STORY and heard.done and second.done
    assert heard.chunks == second.chunks
    assert third.json["choices"][0]["message"]["content"] == STORY and third.json["id"] == heard.chunks[0]["id"]
    ids = {each.headers["x-request-id"] for each in (heard, second, third)}
    assert len(ids) == 3
    await check_asked_once(line, upstream, marker)
    assert line.over[0].reply.text == STORY


async def test_the_first_one_leaves_and_the_second_stays(line: Line, upstream: Upstream, marker: str) -> None:
    """The turn lives on, and is nobody's barge-in; hooks get the whole of it."""
    body = body_of(marker, SLOWLY)
    async with line.caller.dials(body) as first:
        await first.hears_word('" is"')
        async with line.caller.dials(body) as second:
            await second.hears_word("noon")
            first.hangs_up()
            heard = await rest_of(second)

    assert heard.text == STORY and heard.done
    await check_asked_once(line, upstream, marker)
    assert line.over[0].reply.text == STORY


async def test_the_last_one_to_leave_ends_the_turn(line: Line, upstream: Upstream, marker: str) -> None:
    """The first leaves, then the second, and then the one that came behind them: the model is let go of."""

    async def one_is_left() -> None:
        while len(_runs(line.app)[0]._listeners) > 1:
            await asyncio.sleep(0.001)

    body = body_of(marker, script.stalls_after("It is"))
    async with line.caller.dials(body) as first, line.caller.dials(body) as second:
        await first.hears_word('" is"')
        await second.hears_word('" is"')
        first.hangs_up()
        async with line.caller.dials(body) as third:
            await third.hears_word('" is"')
            second.hangs_up()
            await asyncio.to_thread(line.served.run, one_is_left)
            assert upstream.seen(marker, until="now")[0].closed is None
            third.hangs_up()
            record = (await upstream.wait_closed(marker))[0]

    assert record.closed_by == "peer"
    await check_asked_once(line, upstream, marker)


async def test_a_slow_listener_holds_nobody_up(line: Line, upstream: Upstream, marker: str) -> None:
    """The first caller reads nothing at all; the second hears the whole of a long reply meanwhile."""
    words = "word " * 50
    long = script.events(script.role(), *([script.text(words)] * 800), script.finish(), script.done())
    body = body_of(marker, long)
    async with line.caller.dials(body) as first:
        first.reader._limit = 1  # type: ignore[attr-defined]  # what is not read stays in the kernel
        await upstream.wait_asked(marker)
        second = await asyncio.wait_for(line.caller.hears(body), 5)
        assert second.text == words * 800 and second.done
        first.reader._limit = 65536  # type: ignore[attr-defined]
        heard = await rest_of(first)

    assert heard.text == second.text
    await check_asked_once(line, upstream, marker)


async def test_what_is_kept_for_a_slow_listener_is_bounded(line: Line) -> None:
    """A very long reply: who reads it has all of it, who does not is told so, and what is kept stays small."""

    async def let_go() -> None:
        while len(line.app._built.server._repeats._running) != 1 or len(_runs(line.app)[0]._listeners) != 2:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        line.go_on.set()

    body = body_of("s1", model="talks")
    sizes = []
    async with line.caller.dials(body) as first, line.caller.dials(body) as second:
        first.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.to_thread(line.served.run, let_go)
        heard = b""  # as fast as can be: it must not be the slow one
        while not heard.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            heard += await second.reader.read(MAX_REPLY)
            sizes.append(line.app._built.server._repeats.size)  # type: ignore[union-attr]
        assert heard.count(LONG.encode()) == COUNT
        first.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await rest_of(first)

    assert max(sizes) < MAX_REPLY + AHEAD
    assert first.heard.error["code"] == "too_slow"
    assert await asyncio.to_thread(line.served.left_open) == NOTHING and line.began == len(line.over) == 1


async def test_a_lone_caller_who_reads_slowly_is_waited_for(line: Line) -> None:
    """The same reply, and nobody else hears it: the model waits, as without the rule."""

    async def held_back() -> None:
        while not any(run.chunks and not run._is_near() for run in _runs(line.app)):
            await asyncio.sleep(0.001)

    line.go_on.set()
    async with line.caller.dials(body_of("s1", model="talks")) as first:
        first.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.to_thread(line.served.run, held_back)
        assert line.app._built.server._repeats.size < MAX_REPLY  # type: ignore[union-attr]
        first.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard = await rest_of(first)

    assert heard.text == LONG * COUNT and heard.done


@pytest.mark.parametrize("breaks", [BROKEN, FAILS], ids=["after words", "before words"])
async def test_all_hear_of_a_failure(line: Line, upstream: Upstream, marker: str, breaks: script.Script) -> None:
    """The model fails, and each of the two is told in the same way."""
    body = body_of(marker, breaks)
    async with line.caller.dials(body) as first:
        await upstream.wait_asked(marker)
        second = await line.caller.hears(body)
        heard = await rest_of(first)

    assert heard.status == second.status and heard.error == second.error
    assert heard.error["code"] in ("upstream_truncated", "not_like_this")
    await check_asked_once(line, upstream, marker)


async def test_a_revised_turn_supersedes_all_who_hear_the_older(line: Line, upstream: Upstream, marker: str) -> None:
    """The same number with other words is no repeat: nobody hears on, and the model is let go of first."""
    body = body_of(marker, script.stalls_after("It is"), SLOWLY)
    async with line.caller.dials(body) as first, line.caller.dials(body) as second:
        await first.hears_word('" is"')
        await second.hears_word('" is"')
        third = await line.caller.hears({**body, "messages": turn("Hello again")["messages"]})
        older = [await rest_of(each) for each in (first, second)]

    assert [(each.text, each.finish_reasons) for each in older] == [("It is", ["stop"])] * 2
    assert third.text == STORY and third.done
    records = await upstream.wait_asked(marker, 2)
    assert records[0].closed_by == "peer" and records[0].closed <= records[1].requested + 0.25  # type: ignore[operator]
    assert await asyncio.to_thread(line.served.left_open) == NOTHING


async def test_a_mistake_in_a_hook_is_told_to_all_and_logged_once(
    upstream: Upstream, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook fails while two listen."""
    app = App(base_url=upstream.base_url, resent="join")
    go_on = asyncio.Event()
    loops = []

    @app.before_turn
    async def breaks(turn: Turn) -> None:
        loops.append(asyncio.get_running_loop())
        await go_on.wait()
        raise LookupError("a secret")

    served = Served(app)
    caller = Caller(served.url)
    body = body_of(marker, SLOWLY)

    async def joined() -> None:
        while app._built is None or not any(len(run._listeners) > 1 for run in _runs(app)):
            await asyncio.sleep(0.001)
        go_on.set()

    try:
        replies = asyncio.gather(caller.hears(body), caller.hears(body))
        await asyncio.to_thread(served.run, joined)
        first, second = await replies
    finally:
        served.stop()

    assert first.status == second.status == 500 and "secret" not in f"{first.body!r}{second.body!r}"
    assert sum("mistake" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("streams", [(True, False), (False, True)])
async def test_each_gets_tokens_counted_only_when_asked_for(
    line: Line, upstream: Upstream, marker: str, streams: tuple[bool, bool]
) -> None:
    """One wants the reply in one piece, which counts tokens; the other streamed, without a count."""
    counted = script.events(script.role(), script.wait(1.0), script.words(STORY), script.finish(), script.usage())
    body = body_of(marker, counted)
    async with line.caller.dials({**body, "stream": streams[0]}) as first:
        await upstream.wait_asked(marker)
        second = await line.caller.hears({**body, "stream": streams[1]})
        heard = await rest_of(first)

    streamed = heard if streams[0] else second
    assert streamed.text == STORY and all(chunk["choices"] for chunk in streamed.chunks)
    await check_asked_once(line, upstream, marker)
