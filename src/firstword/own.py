"""A function of the user's as a model: what `@app.model(name)` takes.

Four shapes, told apart by the function alone: `async def f(turn)` that yields or returns words, `def f(turn)`
that returns or yields them (it runs in a thread), and `async def f(turn, send)` that sends chunks itself.
Words are strings; whoever needs more yields whole Chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from . import clock
from .chunk import Chunk
from .errors import ConfigError
from .threads import in_thread
from .turn import CallNext, Send, Turn

_END = object()


def own(function: Callable[..., Any]) -> CallNext:
    """Return the model that `function` is. Raises ConfigError when its parameters are not (turn) or (turn, send)."""
    takes = len(inspect.signature(function).parameters)
    if takes not in (1, 2) or (takes == 2 and not inspect.iscoroutinefunction(function)):
        raise ConfigError(
            f"The model function {function.__name__!r} does not take (turn) or (turn, send).",
            hint="write `async def answer(turn): yield 'Hello.'`",
        )

    async def answer(turn: Turn, send: Send) -> None:
        turn.timeline.asked = turn.timeline.answered = clock.now()
        words = _Words(turn, send)
        if takes == 2:
            await function(turn, words.mark)
            return
        result = function(turn) if _is_async(function) else await in_thread(function, turn)
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            await _say_all(words, result)
        elif isinstance(result, Iterator):
            await _say_all(words, _in_a_thread(result))
        elif result is not None:
            await words.say(result)
        await words.end()

    return answer


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


async def _say_all(words: _Words, results: Any) -> None:
    """Say each result, and close the generator in this very task: abandoned, it would clean up later, elsewhere."""
    try:
        async for result in results:
            await words.say(result)
    finally:
        close = getattr(results, "aclose", None)
        if close is not None:
            await close()


async def _in_a_thread(results: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield from a plain generator without holding up the loop."""
    try:
        while (result := await asyncio.to_thread(next, results, _END)) is not _END:
            yield result
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            # A thread cannot be interrupted: a generator that is running right now ends by itself.
            with contextlib.suppress(ValueError):
                close()


class _Words:
    """The strict form of a reply made of plain strings: role, words, one `finish_reason`, usage never."""

    def __init__(self, turn: Turn, send: Send) -> None:
        self._turn = turn
        self._send = send
        self._created = int(time.time())
        self._began = False
        self._finished = False

    async def say(self, result: Any) -> None:
        """Send a string, or a Chunk as it is."""
        if isinstance(result, Chunk):
            self._began = True
            self._finished = self._finished or result.finish_reason is not None
            await self.mark(result)
        elif isinstance(result, str):
            await self._begin()
            if result:
                await self.mark(self._chunk({"content": result}))
        else:
            raise TypeError(f"a model function said a {type(result).__name__}; it must be a str or a Chunk")

    async def end(self) -> None:
        """Finish the reply, unless the function has."""
        await self._begin()
        if not self._finished:
            self._turn.corked = True  # `[DONE]` follows at once
            await self._send(self._chunk({}, "stop"))

    async def _begin(self) -> None:
        if not self._began:
            self._began = True
            await self._send(self._chunk({"role": "assistant", "content": ""}))

    async def mark(self, chunk: Chunk) -> None:
        """Send a Chunk, and note when the first word was said."""
        self._turn.hears(chunk)
        await self._send(chunk)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
        return self._turn.chunk(delta, finish_reason, created=self._created)
