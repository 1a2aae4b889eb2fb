"""A function of the user's as a model: its shapes, its mistakes, and what becomes of it when the caller hangs up."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Chunk, ConfigError, Send, TooManyRequests, Turn
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]

END_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "end_call", "arguments": "{}"}}
CALL = [script.chunk({"role": "assistant", "tool_calls": [END_CALL]}), script.chunk({}, "tool_calls")]


async def yields(turn: Turn) -> AsyncIterator[str]:
    """The usual shape: words as they are found."""
    yield "You said: "
    yield turn.text


async def returns(turn: Turn) -> str:
    """An answer that is there at once."""
    return f"You said: {turn.text}"


def returns_plainly(turn: Turn) -> str:
    """A function that knows nothing of asyncio."""
    return f"You said: {turn.text}"


def yields_plainly(turn: Turn) -> Iterator[str]:
    """A generator that knows nothing of asyncio."""
    yield "You said: "
    yield turn.text


async def sends(turn: Turn, send: Send) -> None:
    """A function that makes its chunks itself."""
    for delta, reason in (({"content": "You said: "}, None), ({"content": turn.text}, None), ({}, "stop")):
        await send(Chunk(script.chunk(delta, reason)))


class Returns:
    """An object that can be called, as a model with settings of its own is."""

    async def __call__(self, turn: Turn) -> str:
        return f"You said: {turn.text}"


async def says_none(turn: Turn) -> None:
    """A function that says nothing."""


async def says_blank(turn: Turn) -> str:
    """A function that says an empty text."""
    return ""


async def calls_a_tool(turn: Turn) -> AsyncIterator[Chunk]:
    """A function that says more than words can."""
    for data in CALL:
        yield Chunk(data)


async def refuses(turn: Turn) -> str:
    """A function that raises one of our own errors."""
    raise TooManyRequests("Enough for today.", retry_after=1.5)


async def breaks(turn: Turn) -> AsyncIterator[str]:
    """A function with a bug; the caller's own words end up in the exception."""
    for word in turn.request.get("first", ()):
        yield word
    raise KeyError(f"secret {turn.text}")


async def says_a_number(turn: Turn) -> AsyncIterator[Any]:
    """A function that yields what cannot be said."""
    for word in turn.request.get("first", ()):
        yield word
    yield 42


def breaks_plainly(turn: Turn) -> Iterator[str]:
    """The same bug in a thread."""
    yield from turn.request.get("first", ())
    raise KeyError(f"secret {turn.text}")


def stops(turn: Turn) -> str:
    """A bug of its own kind: no future can hold a StopIteration."""
    return str(next(iter(())))


BUGS = [breaks, says_a_number, breaks_plainly, stops]
FUNCTIONS = [yields, returns, returns_plainly, yields_plainly, sends, says_none, says_blank, calls_a_tool, refuses]


@pytest.fixture(scope="module")
def caller(upstream: Upstream) -> Iterator[Caller]:
    """A caller of one server with all these models, each under its function's name."""
    app = App(base_url=upstream.base_url)
    for function in [*FUNCTIONS, *BUGS]:
        app.model(function.__name__)(function)
    app.model("Returns")(Returns())
    served = Served(app)
    yield Caller(served.url)
    served.stop()


# --- the shapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yields", "returns", "returns_plainly", "yields_plainly", "sends", "Returns"])
async def test_every_shape_says_its_words(caller: Caller, name: str) -> None:
    """One answer in each of the shapes that a user may write."""
    heard = await caller.says("Hello there.", model=name)

    assert (heard.status, heard.text, heard.done) == (200, "You said: Hello there.", True)
    assert heard.finish_reasons == ["stop"]


@pytest.mark.parametrize("name", ["yields", "returns", "returns_plainly", "yields_plainly"])
async def test_words_are_put_into_the_strict_form(caller: Caller, name: str) -> None:
    """Every client can read it: the role first and once, one id, one end, the model's name."""
    heard = await caller.says("Hello there.", model=name)

    deltas = [chunk["choices"][0]["delta"] for chunk in heard.chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert all(list(delta) == ["content"] for delta in deltas[1:-1])
    assert {(chunk["id"], chunk["model"]) for chunk in heard.chunks} == {(heard.headers["x-request-id"], name)}


@pytest.mark.parametrize("name", ["yields", "returns_plainly", "sends"])
async def test_a_reply_can_be_one_object(caller: Caller, name: str) -> None:
    """The caller did not ask for a stream."""
    heard = await caller.says("Hello there.", model=name, stream=False)

    choice = heard.json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You said: Hello there.", "stop")


@pytest.mark.parametrize("name", ["says_none", "says_blank"])
async def test_a_function_that_says_nothing_still_ends(caller: Caller, name: str) -> None:
    """There is no answer: the reply is empty and whole."""
    heard = await caller.says(model=name)

    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, "", ["stop"], True)


async def test_a_chunk_goes_out_as_it_is(caller: Caller) -> None:
    """A function calls a tool of the engine's and says itself why it ends: nothing is added."""
    heard = await caller.says(model="calls_a_tool")

    assert (heard.chunks, heard.done) == (CALL, True)


async def test_the_first_word_does_not_wait_for_the_second(serve: Serve, upstream: Upstream) -> None:
    """The function has one word and is then busy: the caller hears it at once."""
    app, go_on = App(base_url=upstream.base_url), threading.Event()

    @app.model("mine")
    async def busy(turn: Turn) -> AsyncIterator[str]:
        yield "One "
        await asyncio.to_thread(go_on.wait, 5)
        yield "two"

    async with Caller(serve(app).url).dials(turn(model="mine")) as call:
        await call.hears_word("One ")
        go_on.set()
        await call.hears_word("two")


@pytest.mark.parametrize("shape", ["function", "generator"])
async def test_a_plain_function_holds_up_nobody(serve: Serve, upstream: Upstream, shape: str) -> None:
    """A function blocks, as plain ones do; meanwhile another caller is served."""
    started, go_on = threading.Event(), threading.Event()

    def blocks(turn: Turn) -> str:
        if turn.text == "slow":
            started.set()
            go_on.wait(5)
        return "done"

    def blocks_within(turn: Turn) -> Iterator[str]:
        yield blocks(turn)

    app = App(base_url=upstream.base_url)
    app.model("mine")(blocks if shape == "function" else blocks_within)
    caller = Caller(serve(app).url)
    slow = asyncio.create_task(caller.says("slow", model="mine"))
    assert await asyncio.to_thread(started.wait, 5)
    assert (await caller.says("quick", model="mine")).text == "done"
    assert not slow.done()
    go_on.set()
    assert (await slow).text == "done"


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", BUGS)
async def test_a_mistake_before_the_first_word_is_a_500(
    caller: Caller, caplog: pytest.LogCaptureFixture, bug: Callable[[Turn], Any]
) -> None:
    """The user's function has a bug: the caller gets a true status, the operator a place, and nobody the words."""
    heard = await caller.says("my words", model=bug.__name__)

    assert (heard.status, heard.error["type"], heard.error["code"]) == (500, "server_error", None)
    assert heard.headers["x-request-id"] in heard.error["message"]
    log = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(log) == 1 and heard.headers["x-request-id"] in log[0]
    assert (__file__ in log[0]) is (bug is not says_a_number)  # it is we who notice what cannot be said
    assert not any(leak in text for leak in ("my words", "secret") for text in (heard.body.decode(), caplog.text))


@pytest.mark.parametrize("bug", [breaks, says_a_number, breaks_plainly])
async def test_a_mistake_after_a_word_is_told_in_the_stream(caller: Caller, bug: Callable[[Turn], Any]) -> None:
    """The bug strikes when the caller has heard a word: an error event ends the stream, never `[DONE]`."""
    heard = await caller.says("my words", model=bug.__name__, first=["One ", "two"])

    assert (heard.status, heard.text, heard.done, heard.whole) == (200, "One two", False, True)
    assert heard.error["type"] == "server_error" and heard.finish_reasons == []
    assert b"my words" not in heard.body


async def test_debug_shows_the_mistake_in_the_log(
    serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIRSTWORD_DEBUG=1: the operator reads the traceback; the caller still does not."""
    monkeypatch.setenv("FIRSTWORD_DEBUG", "1")
    app = App(base_url=upstream.base_url)
    app.model("mine")(breaks)
    heard = await Caller(serve(app).url).says("my words", model="mine")

    assert "secret my words" in caplog.text and "Traceback" in caplog.text
    assert heard.status == 500 and b"my words" not in heard.body


async def test_a_refusal_is_told_as_it_was_meant(caller: Caller) -> None:
    """A function raises one of our own errors: the caller gets its status, words and headers."""
    heard = await caller.says(model="refuses")

    assert (heard.status, heard.error["message"]) == (429, "Enough for today.")
    assert (heard.headers["retry-after"], heard.headers["retry-after-ms"]) == ("2", "1500")


@pytest.mark.parametrize(
    "wrong", [lambda: "none", lambda turn, send: "two, but not async", lambda turn, send, more: "three"]
)
def test_a_function_with_other_parameters_is_refused_at_once(wrong: Any) -> None:
    """A mistake in the code is told when the App is written, not in the first call."""
    with pytest.raises(ConfigError, match=r"does not take \(turn\) or \(turn, send\)"):
        App().model("mine")(wrong)


# --- hanging up -----------------------------------------------------------------------------------


async def test_a_hang_up_ends_the_function_in_its_own_task(serve: Serve, upstream: Upstream) -> None:
    """The caller interrupts: `finally` runs at once, and where the function ran."""
    seen: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    async def waits(turn: Turn) -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            yield "One "
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.put(("cancelled", task is asyncio.current_task()))
            raise
        finally:
            seen.put(("finally", task is asyncio.current_task()))

    async def waits_in_another_shape(turn: Turn, send: Send) -> None:
        async for word in waits(turn):
            await send(Chunk(script.chunk({"content": word})))

    app = App(base_url=upstream.base_url)
    app.model("mine")(waits)
    app.model("mine too")(waits_in_another_shape)
    served = serve(app)
    for name in ("mine", "mine too"):
        await _hang_up_after_one(Caller(served.url), name)
        assert [seen.get(timeout=2) for _ in range(2)] == [("cancelled", True), ("finally", True)]
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_a_generator_that_is_between_two_words_is_closed_in_its_own_task(
    serve: Serve, upstream: Upstream
) -> None:
    """The turn is cancelled while a stage holds a word: the generator is parked at its `yield`, not in an `await`."""
    seen: queue.SimpleQueue[bool] = queue.SimpleQueue()
    app = App(base_url=upstream.base_url)

    @app.model("mine")
    async def speaks(turn: Turn) -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            yield "One "
            yield "two "
        finally:
            seen.put(task is asyncio.current_task())

    @app.stage
    async def holds_the_second(turn: Turn, send: Send, call_next: Callable[[Turn, Send], Awaitable[None]]) -> None:
        async def relay(chunk: Chunk) -> None:
            if chunk.text == "two ":
                await asyncio.Event().wait()
            await send(chunk)

        await call_next(turn, relay)

    served = serve(app)
    await _hang_up_after_one(Caller(served.url), "mine")
    assert seen.get(timeout=2) is True
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_a_plain_generator_ends_when_its_thread_is_free(serve: Serve, upstream: Upstream) -> None:
    """The caller hangs up while a thread is busy: it cannot be stopped, but then its `finally` runs."""
    busy, go_on, cleaned = threading.Event(), threading.Event(), threading.Event()
    app = App(base_url=upstream.base_url)

    @app.model("mine")
    def waits(turn: Turn) -> Iterator[str]:
        try:
            yield "One "
            busy.set()
            go_on.wait(5)
            yield "two"
        finally:
            cleaned.set()

    served = serve(app)
    async with Caller(served.url).dials(turn(model="mine")) as call:
        await call.hears_word("One ")
        assert busy.wait(2)
        call.hangs_up()
        await call.writer.wait_closed()
    assert served.left_open() == {"in_use": 0, "turns": 0}
    assert not cleaned.is_set()
    go_on.set()
    assert cleaned.wait(2)


async def _hang_up_after_one(caller: Caller, model: str) -> None:
    async with caller.dials(turn(model=model)) as call:
        await call.hears_word("One ")
        call.hangs_up()
        await call.writer.wait_closed()  # the socket is closed by this loop, which the test is about to block
