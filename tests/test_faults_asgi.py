"""The n-th send, receive or wait fails or is cancelled, for every n: one ending, and nothing left open.

Rules:
- The App is called as a server calls it, on the test's own loop, in front of the real upstream.
- Each loop goes on until the n-th step is not reached any more, so that a longer path is tested as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from caller import turn

from firstword import App
from firstword.model import remote
from firstword.providers.openai import provider
from firstword.testing import Upstream, script
from firstword.transport import Transport
from firstword.turn import Turn

TRANSCRIPT = script.events(script.says("Hello there, friend."))
ENDINGS = {"whole": TRANSCRIPT, "cut": script.closes_after("Hello there"), "refused": script.refuses(503)}
SLOWLY = [step for each in TRANSCRIPT for step in ([each, script.wait(0.003)] if each["do"] == "send" else [each])]


# --- the server below us fails --------------------------------------------------------------------


class Line:
    """An ASGI server's side of one request, on which the n-th `send` or `receive` is the one that fails."""

    def __init__(self, body: dict[str, Any], *, send_fails: int = 0, error: type[BaseException] = OSError) -> None:
        data = msgspec.json.encode(body)
        half = len(data) // 2
        self.incoming: list[dict[str, Any]] = [
            {"body": data[:half], "more_body": True},
            {"body": b"", "more_body": True},
            {"body": data[half:]},
        ]
        self.received = 0
        self.receive_fails = 0
        self.send_fails = send_fails
        self.error = error
        self.asked = 0
        self.sent: list[dict[str, Any]] = []
        self.stuck = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        if self.received == self.receive_fails:
            return {"type": "http.disconnect"}
        if self.incoming:
            return {"type": "http.request", **self.incoming.pop(0)}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.asked += 1
        if self.asked == self.send_fails:
            if self.error is asyncio.TimeoutError:  # never returns: the caller does not read
                self.stuck.set()
                await asyncio.Event().wait()
            raise self.error
        self.sent.append(message)

    async def ask(self, app: App) -> None:
        path = "/chat/completions"
        await app({"type": "http", "method": "POST", "path": path, "headers": []}, self.receive, self.send)  # type: ignore[arg-type]

    def check(self, *, whole: bool) -> None:
        """Assert that what was sent is the start of one reply, or all of it."""
        kinds = [message["type"] for message in self.sent]
        assert kinds == ["http.response.start", "http.response.body"][: len(kinds)] + ["http.response.body"] * (
            len(kinds) - 2
        )
        ends = [at for at, message in enumerate(self.sent) if at and not message.get("more_body")]
        assert ends == ([len(kinds) - 1] if whole else []), self.sent
        assert not self.send_fails or self.asked <= self.send_fails, "something was sent to a caller who is gone"


@asynccontextmanager
async def app_on(upstream: Upstream) -> AsyncIterator[App]:
    """An App on the test's own loop; asserts that no task and no connection is left."""
    app = App(base_url=upstream.base_url, warm=False)
    tasks = asyncio.all_tasks()
    yield app
    assert app._built is not None
    while app._built.transport.in_use:  # a response that ends is drained for a second at most
        await asyncio.sleep(0.005)
    assert asyncio.all_tasks() == tasks
    await app.close()
    assert app._built.transport.open_count == 0


@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("steps", [SLOWLY, *ENDINGS.values()], ids=["slowly", *ENDINGS])
async def test_the_nth_send_fails(
    upstream: Upstream, marker: str, error: type[BaseException], stream: bool, steps: script.Script
) -> None:
    """ASGI servers tell by an OSError that the caller is gone: the turn is over, and nothing more is sent."""
    async with app_on(upstream) as app:
        for count in range(1, 30):
            line = Line(turn(user=f"{marker} {count}", script=steps, stream=stream), send_fails=count, error=error)
            await line.ask(app)
            if line.asked < count:
                line.check(whole=True)
                break
            line.check(whole=False)
            await upstream.wait_settled(f"{marker} {count}")
        else:
            raise AssertionError("there is no end of it")
    assert count > 2


@pytest.mark.parametrize("steps", [SLOWLY, ENDINGS["cut"]], ids=["slowly", "cut"])
async def test_the_nth_send_never_returns_and_the_server_gives_up(
    upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """A caller who does not read, and a server that is told to stop: it cancels the turn."""
    async with app_on(upstream) as app:
        for count in range(1, 30):
            body = turn(user=f"{marker} {count}", script=steps)
            line = Line(body, send_fails=count, error=asyncio.TimeoutError)
            task = asyncio.create_task(line.ask(app))
            stuck = asyncio.create_task(line.stuck.wait())
            await asyncio.wait((task, stuck), return_when=asyncio.FIRST_COMPLETED)
            stuck.cancel()
            await asyncio.wait({stuck})
            if task.done():
                break
            task.cancel()
            await task  # it ends by itself: the caller was told, and nobody else has to hear of it
            line.check(whole=False)
            await upstream.wait_settled(f"{marker} {count}")
    assert 2 < count < 29


@pytest.mark.parametrize("stream", [True, False])
async def test_the_nth_receive_is_a_hang_up(upstream: Upstream, marker: str, stream: bool) -> None:
    """Before the body, twice within it, and behind it: nothing is sent; the model is asked for a whole body only."""
    async with app_on(upstream) as app:
        for count in range(1, 5):
            line = Line(turn(user=f"{marker} {count}", script=script.never_answers(), stream=stream))
            line.receive_fails = count
            await line.ask(app)
            assert line.sent == [] and line.received == count
            records = await upstream.wait_closed(f"{marker} {count}", count=0)
            assert len(records) <= (1 if count == 4 else 0)


# --- the turn is cancelled at its n-th step -------------------------------------------------------


class Steps:
    """A coroutine whose task is cancelled when it waits for the n-th time."""

    def __init__(self, coroutine: Any, cancel_at: int) -> None:
        self.coroutine, self.cancel_at, self.count = coroutine, cancel_at, 0

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731
        while True:
            try:
                future = resume()
            except StopIteration:
                return
            self.count += 1
            if self.count == self.cancel_at:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield future
                resume = lambda: self.coroutine.send(None)  # noqa: E731
            except BaseException as error:
                thrown = error
                resume = lambda: self.coroutine.throw(thrown)  # noqa: E731, B023


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
async def test_a_turn_is_cancelled_at_its_nth_wait(upstream: Upstream, marker: str, kept: bool) -> None:
    """While dialling, sending, waiting for the head, reading, and writing to the caller."""
    transport = Transport()
    ask = remote(provider, None, upstream.base_url, None, transport)

    async def send(chunk: Any) -> None:
        await asyncio.sleep(0)

    tasks = asyncio.all_tasks()
    for count in range(1, 200):
        if kept:
            await transport.reach(upstream.base_url)
        body = {"model": "m", "messages": [], "user": f"{marker} {count}", "script": SLOWLY}
        steps = Steps(ask(Turn(request=body), send), count)

        async def run(steps: Steps = steps) -> None:
            await steps

        task = asyncio.create_task(run())
        await asyncio.wait({task})
        assert task.cancelled() or task.exception() is None
        while transport.in_use and not task.cancelled():
            await asyncio.sleep(0.002)
        assert transport.in_use == 0 and asyncio.all_tasks() == tasks
        if not task.cancelled():
            break
        for record in await upstream.wait_settled(f"{marker} {count}", count=0):
            assert record.closed_by == "peer" or record.ended is not None
    assert 10 < count < 199
    await transport.close()
