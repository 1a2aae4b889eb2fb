"""The chunks of a reply that is sound: what its frames, its calls and its ending look like. Pure.

`delta.audio` has the shape that Agora documents: `id`, `data` (base64 of 16-bit PCM of one channel, 16,000 samples a
second, 40 ms a chunk), `transcript` (put together it is the text, and enters the engine's memory), and `words` with
their times in ms from the beginning of the reply's sound, where the voice tells them.
"""

from __future__ import annotations

import os
import time
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from typing import Any

from ..chunk import Chunk
from ..turn import Turn
from ..voices import Word
from ..voices._frames import Frame
from ..voices._pcm import wav

_CALLS = ("tool_calls", "function_call")


class Shown:
    """Makes the chunks of one reply: they agree in id, time and model, and the first one says who speaks."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._id = f"audio_{os.urandom(12).hex()}"
        self._named: dict[str, Any] = {}
        self._has_role = False

    def agree(self, chunk: Chunk) -> None:
        """Take over what the answer's chunks agree in."""
        if not self._named and chunk.look().choices:
            data = chunk.data
            self._named = {name: data[name] for name in ("id", "created", "model") if data.get(name) is not None}

    def frame(self, frame: Frame) -> Chunk:
        """Return the chunk of a frame."""
        audio: dict[str, Any] = {"id": self._id, "data": _base64(frame.pcm), "transcript": frame.transcript}
        if frame.words:
            audio["words"] = [_timed(word) for word in frame.words]
        return self.chunk({"audio": audio})

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
        """Return a chunk of this reply."""
        if not self._has_role:
            self._has_role = True
            delta = {"role": "assistant", **delta}
        chunk = self._turn.chunk(delta, finish_reason, **self._named)
        if not self._named:
            self._named = {name: chunk.data[name] for name in ("id", "created", "model")}
        return chunk

    def whole(self, pcm: bytes, transcript: str) -> Chunk:
        """Return the chunk of a reply in one piece, in the format that was asked for."""
        aloud = self._turn.aloud
        data = pcm if aloud is not None and aloud.format == "pcm16" else wav(pcm)
        expires_at = int(time.time())  # nothing is kept: no later turn can name it
        audio = {"id": self._id, "expires_at": expires_at, "data": _base64(data), "transcript": transcript}
        return self.chunk({"content": None, "audio": audio})

    @staticmethod
    def refusal(chunk: Chunk) -> str:
        """Return the words of a refusal, which are said as all others."""
        deltas = [choice.delta for choice in chunk.look().choices or () if choice.delta is not None]
        refusal = deltas[0].refusal if deltas else None
        return refusal if isinstance(refusal, str) else ""

    @staticmethod
    def rest(chunk: Chunk) -> Chunk | None:
        """Return what of a chunk leaves behind the sound: calls, an ending, a count of tokens; None when it is none.

        Who speaks is said by the first sound, and what the model thinks is for nobody to hear.
        """
        look = chunk.look()
        if not look.choices:
            return chunk if look.usage is not None else None
        if chunk.finish_reason is None and not chunk.calls:
            return None
        choices = []
        for choice in chunk.data["choices"][:1]:
            delta = choice.get("delta") or {}
            choices.append({**choice, "delta": {name: delta[name] for name in _CALLS if delta.get(name)}})
        return chunk.changed(choices=choices)

    def ended(self, tail: Sequence[Chunk]) -> Iterable[Chunk]:
        """Return the last chunks; of a reply without a sound they are all there is."""
        if not self._has_role:
            yield self.chunk({"content": ""})
        yield from tail


def whole(shown: Shown, frames: Iterable[Frame]) -> Chunk:
    """Return the one chunk that all frames make."""
    frames = list(frames)
    return shown.whole(b"".join(each.pcm for each in frames), "".join(each.transcript for each in frames))


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _timed(word: Word) -> dict[str, Any]:
    start, end = round(word.start * 1000), round(word.end * 1000)
    return {"text": word.text, "start_ts": start, "end_ts": end, "duration": end - start}
