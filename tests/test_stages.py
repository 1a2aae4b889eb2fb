"""A stage of the user's: a function around the rest of the turn, which may change, hold, add or answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, CallNext, Chunk, ConfigError, Forbidden, Send, Turn, UpstreamError
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]


@pytest.fixture
def app(upstream: Upstream) -> App:
    """An App for a test to put its stages on."""
    return App(base_url=upstream.base_url)


async def test_the_first_stage_is_the_outermost(app: App, serve: Serve) -> None:
    """Each puts its mark before and after; hooks have changed the request before any stage sees it."""
    marks: list[str] = []

    @app.stage
    async def outer(turn: Turn, send: Send, call_next: CallNext) -> None:
        marks.append(f"outer {turn.text}")
        await call_next(turn, send)
        marks.append("outer is over")

    @app.stage
    async def inner(turn: Turn, send: Send, call_next: CallNext) -> None:
        marks.append("inner")
        await call_next(turn, send)
        marks.append("inner is over")

    @app.before_turn
    async def change(turn: Turn) -> None:
        turn.messages[-1]["content"] = "sees the change"

    assert (await Caller(serve(app).url).says()).done
    assert marks == ["outer sees the change", "inner", "inner is over", "outer is over"]


async def test_a_stage_changes_words_on_their_way(app: App, serve: Serve) -> None:
    """Chunk by chunk, each as it comes; all else of a chunk is kept, and what is not changed keeps its bytes."""
    passed: list[bytes] = []

    @app.stage
    async def shout(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def relay(chunk: Chunk) -> None:
            if chunk.text:
                chunk = chunk.with_text(chunk.text.upper())
            else:
                passed.append(chunk.frame)
            await send(chunk)

        await call_next(turn, relay)

    heard = await Caller(serve(app).url).says("Hello there.")
    assert (heard.text, heard.finish_reasons, heard.done) == ("HELLO THERE.", ["stop"], True)
    assert {chunk["model"] for chunk in heard.chunks} == {"scripted"}
    assert len(passed) == 2 and all(frame in heard.body for frame in passed)


async def test_chunks_that_a_stage_swallows_are_not_heard(app: App, serve: Serve) -> None:
    """A stage takes out what must not be spoken."""

    @app.stage
    async def hush(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def relay(chunk: Chunk) -> None:
            if "secret" not in chunk.text:
                await send(chunk)

        await call_next(turn, relay)

    heard = await Caller(serve(app).url).says("The secret number is secret seven")
    assert (heard.text, heard.finish_reasons, heard.done) == ("The number is seven", ["stop"], True)


async def test_a_stage_may_speak_while_the_model_is_silent(app: App, serve: Serve) -> None:
    """A filler: the stage says something of its own before the model has answered."""

    @app.stage
    async def fill(turn: Turn, send: Send, call_next: CallNext) -> None:
        await send(Chunk(script.chunk({"role": "assistant", "content": "One moment. "})))
        await call_next(turn, send)

    caller = Caller(serve(app).url)
    async with caller.dials(turn(script=script.sends_only_the_role())) as call:
        await call.hears_word("One moment. ")
    assert (await caller.says("Hello.")).text == "One moment. Hello."


async def test_a_stage_may_answer_without_the_model(app: App, serve: Serve, upstream: Upstream) -> None:
    """The stage knows the answer: `call_next` is never called, and nothing goes upstream."""

    @app.stage
    async def know(turn: Turn, send: Send, call_next: CallNext) -> None:
        await send(Chunk(script.chunk({"role": "assistant", "content": "Four."}, "stop")))

    heard = await Caller(serve(app).url).says("Two and two?", user="stage-knows")
    assert (heard.text, heard.finish_reasons, heard.done) == ("Four.", ["stop"], True)
    assert upstream.seen("stage-knows") == []


async def test_a_stage_may_ask_again_when_the_model_fails(app: App, serve: Serve) -> None:
    """The model refuses before any word: the stage lets another one answer, and the caller hears nothing of it."""

    @app.stage
    async def try_the_parrot(turn: Turn, send: Send, call_next: CallNext) -> None:
        try:
            await call_next(turn, send)
        except UpstreamError as error:
            turn.model, turn.state["failed"] = "parrot", error.status
            await call_next(turn, send)

    @app.model("parrot")
    async def parrot(turn: Turn) -> str:
        return f"Polly, after a {turn.state['failed']}."

    heard = await Caller(serve(app).url).says(script=script.refuses(503))
    assert (heard.status, heard.text, heard.done) == (200, "Polly, after a 503.", True)


async def test_a_stage_may_refuse(app: App, serve: Serve) -> None:
    """A stage raises: what it raises is told as if a hook had."""

    @app.stage
    async def guard(turn: Turn, send: Send, call_next: CallNext) -> None:
        raise Forbidden("Not you.")

    heard = await Caller(serve(app).url).says()
    assert (heard.status, heard.error["message"]) == (403, "Not you.")


async def test_a_stages_timeout_means_what_it_always_means(app: App, serve: Serve, upstream: Upstream) -> None:
    """`wait_for` around the rest of the turn: the model is silent, its connection is closed, the stage answers."""

    @app.stage
    async def patience(turn: Turn, send: Send, call_next: CallNext) -> None:
        try:
            await asyncio.wait_for(call_next(turn, send), 0.1)
        except asyncio.TimeoutError:
            await send(Chunk(script.chunk({"content": "Sorry."}, "stop")))

    served = serve(app)
    heard = await Caller(served.url).says(script=script.sends_only_headers(), user="stage-waits")
    (record,) = await upstream.wait_closed("stage-waits")
    assert (heard.text, heard.done, record.closed_by) == ("Sorry.", True, "peer")
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_a_mistake_in_a_stage_ends_the_turn_and_closes_the_upstream(
    app: App, serve: Serve, upstream: Upstream
) -> None:
    """A stage breaks on the second word: the caller is told, and the model is not left talking to nobody."""
    slowly = [*script.stalls_after("One"), script.wait(0.05), script.text(" two"), script.text(" three")]

    @app.stage
    async def breaks(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def relay(chunk: Chunk) -> None:
            if chunk.text == " two":
                raise ValueError("a bug")
            await send(chunk)

        await call_next(turn, relay)

    served = serve(app)
    heard = await Caller(served.url).says(script=slowly, user="stage-breaks")
    (record,) = await upstream.wait_closed("stage-breaks")
    assert (heard.text, heard.done, heard.error["type"]) == ("One", False, "server_error")
    assert record.closed_by == "peer"
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_an_object_can_be_a_stage(app: App, serve: Serve) -> None:
    """A stage with settings of its own is an object whose `__call__` is async."""

    class Says:
        async def __call__(self, turn: Turn, send: Send, call_next: CallNext) -> None:
            turn.messages[-1]["content"] = "Changed."
            await call_next(turn, send)

    app.stage(Says())
    assert (await Caller(serve(app).url).says()).text == "Changed."


def plain(turn: Turn, send: Send, call_next: CallNext) -> None:
    """A stage that is not async."""


async def takes_two(turn: Turn, send: Send) -> None:
    """A stage that cannot call the rest."""


class Class:
    """A class where its instance was meant."""


@pytest.mark.parametrize("wrong", [plain, takes_two, Class, 42], ids=str)
def test_what_is_no_stage_is_refused_at_once(app: App, wrong: Any) -> None:
    """A mistake in the code is told when the App is written, not in the first call."""
    with pytest.raises(ConfigError) as caught:
        app.stage(wrong)
    assert "(turn, send, call_next)" in str(caught.value)


def test_the_decorators_give_back_what_they_decorate(app: App) -> None:
    """A decorated function can still be called and tested by its own name."""

    async def stage(turn: Turn, send: Send, call_next: CallNext) -> None:
        """A stage."""

    async def hook(turn: Turn) -> None:
        """A hook, or a model."""

    assert app.stage(stage) is stage and inspect.iscoroutinefunction(stage)
    assert app.before_turn(hook) is app.after_turn(hook) is app.model("mine")(hook) is hook
