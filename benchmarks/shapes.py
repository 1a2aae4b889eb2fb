"""The Apps whose cost is compared: the default one, and the same with one thing more on each chunk or turn.

Run as a server: `python -m benchmarks.shapes NAME PORT`, with its model at LLM_BASE_URL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import uvicorn

from firstword import App, CallNext, Chunk, Model, Send, Turn
from firstword.serving import options

URL = os.environ.get("LLM_BASE_URL", "http://127.0.0.1:1/v1")


def default() -> App:
    """Nothing but the default."""
    return App(base_url=URL)


def gate() -> App:
    """A key of the server's own behind a gate key."""
    return App(base_url=URL, api_key="held", keys=["bench"])


def before() -> App:
    """A before_turn hook that puts a message in front."""
    app = default()

    @app.before_turn
    async def add(turn: Turn) -> None:
        turn.messages = [{"role": "system", "content": "The guest's name is Ada."}, *turn.messages]

    return app


def after() -> App:
    """An after_turn hook that takes the whole reply."""
    app = default()

    @app.after_turn
    async def remember(turn: Turn) -> None:
        turn.state["reply"] = turn.reply.text

    return app


def looks() -> App:
    """An on_chunk hook that reads the text of every chunk."""
    app = default()

    @app.on_chunk
    def count(turn: Turn, chunk: Chunk) -> None:
        turn.state["signs"] = turn.state.get("signs", 0) + len(chunk.text)

    return app


def changes() -> App:
    """An on_chunk hook that puts another text into every chunk."""
    app = default()

    @app.on_chunk
    def shout(turn: Turn, chunk: Chunk) -> Chunk:
        return chunk.with_text(chunk.text) if chunk.text else chunk

    return app


def stage() -> App:
    """A stage that passes every chunk on, for which the turn's task has to wake."""
    app = default()

    @app.stage
    async def relay(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def pass_on(chunk: Chunk) -> None:
            await send(chunk)

        await call_next(turn, pass_on)

    return app


def silence() -> App:
    """An apology, fillers, and a second model: the race and the filler stand between the model and the caller."""
    models = [Model(name, base_url=URL) for name in ("bench", "other")]
    return App(models=models, fillers=["One moment."], fill_after=30, apology="I am sorry.")


def tools() -> App:
    """A tool that the model does not call."""
    app = default()

    @app.tool
    def hours(day: str) -> str:
        """Say when the shop is open."""
        return "from nine to six"

    return app


def plain() -> App:
    """The default under uvicorn's own HTTP protocol."""
    return default()


SHAPES: dict[str, Callable[[], App]] = {
    shape.__name__: shape for shape in (default, plain, gate, before, after, looks, changes, stage, silence, tools)
}

if __name__ == "__main__":
    more = {"http": "httptools"} if sys.argv[1] == "plain" else {}
    uvicorn.run(SHAPES[sys.argv[1]](), host="127.0.0.1", port=int(sys.argv[2]), **{**options(), **more})
