"""The `on_chunk` hook, which sees every chunk on its way out, and may put another in its place."""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import Callable

import pytest
from caller import Caller
from served import Served

from firstword import App, CallNext, Chunk, ConfigError, Model, Send, Turn
from firstword.testing import says, script, talk

Serve = Callable[[App], Served]


@pytest.mark.parametrize("with_stage", [False, True])
async def test_a_hook_sees_what_leaves_and_may_put_another_in_its_place(
    app: App, serve: Serve, over: queue.SimpleQueue[Turn], with_stage: bool
) -> None:
    """One hook shouts, the next hears the shouting; both after a stage, and the reply is what was sent."""
    heard_by_hook: list[str] = []

    @app.on_chunk
    def shout(turn: Turn, chunk: Chunk) -> Chunk | None:
        return chunk.with_text(chunk.text.upper()) if chunk.text else None

    @app.on_chunk
    def listen(turn: Turn, chunk: Chunk) -> None:
        heard_by_hook.append(chunk.text)

    if with_stage:

        @app.stage
        async def answer(turn: Turn, send: Send, call_next: CallNext) -> None:
            async def relay(chunk: Chunk) -> None:
                await send(chunk.with_text(chunk.text.replace("there", "you")) if chunk.text else chunk)

            await call_next(turn, relay)

    heard = await Caller(serve(app).url).says("Hello there.")

    said = "HELLO YOU." if with_stage else "HELLO THERE."
    assert (heard.text, heard.done, "".join(heard_by_hook)) == (said, True, said)
    assert (await asyncio.to_thread(over.get, timeout=5)).reply.text == said


@pytest.mark.parametrize("at", ["first", "later"])
async def test_a_hook_that_fails_ends_the_reply(app: App, serve: Serve, at: str) -> None:
    """Its mistake is told without its words: by a status before the first word, by an error event after it."""

    @app.on_chunk
    def fail(turn: Turn, chunk: Chunk) -> None:
        if chunk.text == ("Hello" if at == "first" else " there."):
            raise ValueError("a secret")

    server = serve(app)
    steps = script.events(script.role(), script.words("Hello there.", 0.02), script.done())
    heard = await Caller(server.url).says(script=steps)

    if at == "first":
        assert heard.status == 500
    else:
        assert (heard.status, heard.text, heard.done) == (200, "Hello", False)
    assert "secret" not in str(heard.error) and heard.error["message"].startswith("The server made a mistake.")
    assert server.left_open() == {"in_use": 0, "turns": 0}


def test_a_hook_that_would_have_to_be_awaited_is_refused(app: App) -> None:
    """Told when it is written, with what to write instead."""
    with pytest.raises(ConfigError, match="async") as refused:

        @app.on_chunk
        async def wait(turn: Turn, chunk: Chunk) -> None: ...

    assert "stage" in str(refused.value)


@pytest.mark.parametrize("names", [["first"], ["first", "second"]], ids=["alone", "in a race"])
@pytest.mark.parametrize("where", ["a hook", "a stage"])
async def test_a_hook_that_exits_ends_its_turn_and_no_other(names: list[str], where: str) -> None:
    """`sys.exit()` in the middle of a reply, where it would end the event loop: a mistake like any other."""
    app = App([Model(name, base_url=f"http://{name}.test/v1", api_key="k") for name in names], apology="Sorry.")

    def leave(turn: Turn, chunk: Chunk) -> None:
        if chunk.speaks:
            sys.exit(3)

    async def leaves(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def look(chunk: Chunk) -> None:
            leave(turn, chunk)
            await send(chunk)

        await call_next(turn, look)

    if where == "a hook":
        app.on_chunk(leave)
    else:
        app.stage(leaves)
    assert await talk(app, models=[says("one two") for _ in names]) == [(0.0, "Sorry.")]
