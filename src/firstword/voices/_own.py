"""A function of the user's as a voice: what `@app.voice` takes.

It is `async def voice(text)`, or a plain `def`, which runs in a thread; both may yield. A piece of sound is a Sound,
the bytes of a WAV file, or bytes of 16-bit PCM at 16,000 samples a second. None means: let the other voice say it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ConfigError, VoiceError
from ..threads import in_thread
from ..turn import Turn
from . import Hear, Sound, Voice
from ._pcm import is_wav

_END = object()


class OwnVoice:
    """A Voice that asks a function, and `other` for what the function leaves to it.

    The function takes (text), or (text, turn). Raises ConfigError when it takes something else.
    """

    def __init__(self, function: Callable[..., Any], other: Voice) -> None:
        self._function = function
        self._other = other
        self._takes_turn = check_voice(function)

    def __repr__(self) -> str:
        return f"OwnVoice({getattr(self._function, '__name__', 'function')})"

    async def say(self, text: str, hear: Hear, *, turn: Turn) -> None:
        """Give the sound of `text` to `hear`. Raises VoiceError when the function returns what is no sound."""
        function = self._function
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        arguments = (text, turn) if self._takes_turn else (text,)
        result = function(*arguments) if is_async else await in_thread(function, *arguments)
        if inspect.isawaitable(result):
            result = await result
        pieces = _Pieces(hear)
        if result is None:
            await self._other.say(text, hear, turn=turn)
        elif hasattr(result, "__aiter__"):
            await _hear_all(pieces, result)
        elif isinstance(result, Iterator):
            await _hear_in_a_thread(pieces, result)
        else:
            await pieces.add(result)

    async def open(self) -> None:
        """Make the other voice ready."""
        await self._other.open()

    async def close(self) -> None:
        """Close the other voice."""
        await self._other.close()


def check_voice(function: Callable[..., Any]) -> bool:
    """Return whether a voice function takes the turn as well. Raises ConfigError when it takes no text."""
    wrong = ConfigError("A voice function does not take (text).", hint="write `async def voice(text: str) -> bytes`")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return False  # written in C, and does not say what it takes
    for arguments in (("text",), ("text", "turn")):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise wrong


async def _hear_all(pieces: _Pieces, results: Any) -> None:
    """Hear each piece, and close the generator in this very task: abandoned, it would clean up later, elsewhere."""
    try:
        async for result in results:
            await pieces.add(result)
    finally:
        close = getattr(results, "aclose", None)
        if close is not None:
            await close()


async def _hear_in_a_thread(pieces: _Pieces, results: Iterator[Any]) -> None:
    try:
        while (result := await in_thread(next, results, _END)) is not _END:
            await pieces.add(result)
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            # A thread cannot be interrupted: a generator that is running right now ends by itself.
            with contextlib.suppress(ValueError):
                close()


class _Pieces:
    """What a function gives, as sounds."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._odd = b""  # half a sample

    async def add(self, piece: Any) -> None:
        if isinstance(piece, Sound):
            await self._hear(piece)
            return
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise VoiceError(f"A voice function gave a {type(piece).__name__}, which is no sound.", hint="return bytes")
        data = bytes(piece)
        if is_wav(data):
            try:
                await self._hear(Sound.from_wav(data))
            except ValueError as error:
                raise VoiceError(f"A voice function gave a WAV file that cannot be read: {error}.") from None
            return
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        await self._hear(Sound(data[:whole]))
