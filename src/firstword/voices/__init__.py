"""Voices, one file each: what turns words into sound, for engines that want sound of us."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError
from ..turn import Turn
from . import _pcm
from ._pcm import RATE_HZ

__all__ = ["RATE_HZ", "Hear", "Sound", "Voice", "Word"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is heard: from `start` to `end`, in seconds from the beginning of the text that was said."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of sound: 16-bit little-endian PCM of one channel, 16,000 samples a second; and the words in it.

    `words` are those whose times are known, in order; they may come with a sound before their own.
    """

    pcm: bytes
    words: tuple[Word, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.pcm) / 2 / RATE_HZ

    @classmethod
    def from_pcm(cls, pcm: bytes, *, rate_hz: int = RATE_HZ) -> Sound:
        """Return a sound of 16-bit little-endian PCM of one channel, at any rate. Raises ValueError."""
        return cls(_pcm.resampled(pcm, rate_hz))

    @classmethod
    def from_wav(cls, wav: bytes) -> Sound:
        """Return the sound of a WAV file: any rate, 8 to 32 bits, channels mixed. Raises ValueError."""
        return cls(_pcm.resampled(*_pcm.read_wav(wav)))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, rate_hz: int = RATE_HZ) -> Sound:
        """Return the sound of a file: WAV by what it holds, else PCM of `rate_hz`. Raises ConfigError.

        For greetings and the like: read it where the App is made, not in the middle of a turn.
        """
        try:
            data = Path(path).read_bytes()
            return cls.from_wav(data) if _pcm.is_wav(data) else cls.from_pcm(data, rate_hz=rate_hz)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"The sound {os.fspath(path)!r} cannot be read: {said}.", hint="a WAV file, or 16-bit PCM"
            ) from None


Hear = Callable[[Sound], Awaitable[None]]


class Voice(Protocol):
    """Says a text. In a file of ours or an entry point, `voice(rest, ...)` makes one out of `"kind:rest"`."""

    async def say(self, text: str, hear: Hear, *, turn: Turn) -> None:
        """Give the sound of `text`, one piece of a reply, to `hear` as it is made; `hear` waits when it is early.

        `turn.aloud` has what the engine asked of the voice. Raises VoiceError. It may be cancelled at any moment, and
        has let go of everything when it returns.
        """

    async def open(self) -> None:
        """Make ready what would cost the first caller time. Never raises for what is away: `say` tells that."""

    async def close(self) -> None:
        """Let go of everything; what is said after that makes it anew."""
