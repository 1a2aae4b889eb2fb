"""What a user hangs on a turn, functions before it, on its chunks and after it: as stages, checked when written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..chunk import Chunk
from ..errors import ConfigError
from ..events import Event
from ..threads import in_thread
from ..turn import CallNext, Seen, Send, Stage, Turn

Hook = Callable[[Turn], Any]
EventHook = Callable[[Event], Any]
ChunkHook = Callable[[Turn, Chunk], "Chunk | None"]
TextHook = Callable[[Turn, str], str]


def before(hooks: Sequence[Hook]) -> Stage:
    """Return the stage that runs before_turn hooks in order, then the rest of the turn."""

    async def prepare(turn: Turn, send: Send, call_next: CallNext) -> None:
        for hook in hooks:
            await call(hook, turn)
        await call_next(turn, send)

    return prepare


def on_chunk(hooks: Sequence[ChunkHook]) -> Stage:
    """Return the stage that shows every chunk to on_chunk hooks, in order."""

    async def show(turn: Turn, send: Send, call_next: CallNext) -> None:
        def see(chunk: Chunk) -> Chunk:
            for hook in hooks:
                chunk = hook(turn, chunk) or chunk
            return chunk

        await call_next(turn, Seen(turn, see, send))

    return show


async def call(hook: Callable[[Any], Any], told: Turn | Event) -> None:
    """Call a hook: `async def` on the loop, `def` in a thread."""
    result = hook(told) if inspect.iscoroutinefunction(hook) else await in_thread(hook, told)
    if inspect.isawaitable(result):
        await result


def check_takes(function: Callable[..., Any], *names: str) -> None:
    """Raise ConfigError when `function` cannot be called with so many arguments."""
    try:
        inspect.signature(function).bind(*names)
    except TypeError:
        called = getattr(function, "__name__", repr(function))
        raise ConfigError(f"{called!r} does not take ({', '.join(names)}).", hint="change its parameters") from None
    except ValueError:
        pass  # written in C, and does not say what it takes
