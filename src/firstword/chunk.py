"""A chunk: one piece of the reply, raw until someone looks.

A chunk has two faces, `frame` (bytes) and `data` (a dict). It holds the one it came with and makes the
other on first look. Passing a chunk on passes the same object. Neither face is ever changed in place:
to change a chunk, make a new one (`chunk.changed(...)`, `Chunk(data)`), which then has no frame yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from . import wire

# The shapes below read only what the relay itself asks of a chunk; every other field is skipped, and
# a field of an unexpected type is kept as it is: real providers send lists, nulls and numbers anywhere.


class Delta(msgspec.Struct, gc=False):
    """What a look sees of `choices[].delta`."""

    content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    """What a look sees of one of `choices`."""

    index: Any = 0
    delta: Delta | None = None
    finish_reason: Any = None


class Look(msgspec.Struct, gc=False):
    """What one typed look sees of a chunk: a third of the price of decoding it whole."""

    id: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


MAX_UNSPOKEN = 64 * 1024  # bytes of chunks before the first word that are kept for it

_look = msgspec.json.Decoder(Look).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Chunk:
    """One `chat.completion.chunk`."""

    __slots__ = ("_data", "_frame", "_seen", "_speaks", "_text")

    def __init__(self, data: dict[str, Any]) -> None:
        self._data: dict[str, Any] | None = data
        self._frame: bytes | None = None
        self._seen: Look | None = None
        self._speaks: bool | None = None
        self._text: str | None = None

    @classmethod
    def from_frame(cls, frame: bytes, text: str | None = None) -> Chunk:
        """Make a chunk of one frame, `data: {...}` and a blank line, without decoding it.

        `text` is given for one that is known to say these words and nothing else: no call, no ending.
        """
        chunk = cls.__new__(cls)
        chunk._data = None
        chunk._frame = frame
        chunk._seen = None
        chunk._speaks = None
        chunk._text = text
        return chunk

    @property
    def frame(self) -> bytes:
        """The bytes of the event, as they came when nobody changed the chunk."""
        if self._frame is None:
            self._frame = wire.frame(_encode(self._data))
        return self._frame

    @property
    def data(self) -> dict[str, Any]:
        """The chunk as a dict, to be read, not changed.

        Raises msgspec.DecodeError when the frame is not JSON.
        """
        if self._data is None:
            assert self._frame is not None
            self._data = _decode(self._frame[6:])
        return self._data

    def look(self) -> Look:
        """Return the few fields that the relay asks for.

        Raises msgspec.DecodeError when the frame is not JSON, its ValidationError when it is not shaped like a chunk.
        """
        if self._seen is None:
            if self._frame is not None:
                self._seen = _look(self._frame[6:])
            else:
                self._seen = msgspec.convert(self._data, Look)
        return self._seen

    def may_hold(self, key: bytes) -> bool:
        """Say False only when `key`, a JSON key without quotes, is surely absent."""
        return self._frame is None or key in self._frame or b"\\u" in self._frame

    @property
    def text(self) -> str:
        """The words of the first choice; empty when it has none."""
        if self._text is None:
            deltas = [choice.delta for choice in self.look().choices or () if choice.delta is not None]
            self._text = _words(deltas[0].content) if deltas else ""
        return self._text

    @property
    def transcript(self) -> str:
        """The words that are said in the sound of the first choice; empty when there are none."""
        if not self.may_hold(b"transcript"):
            return ""
        deltas = [choice.delta for choice in self.look().choices or () if choice.delta is not None]
        audio = deltas[0].audio if deltas else None
        words = audio.get("transcript") if isinstance(audio, dict) else None
        return words if isinstance(words, str) else ""

    @property
    def words(self) -> str | None:
        """Its text, if that was known before anybody looked: words of the first choice, and nothing else; else None."""
        return self._text if self._seen is None and self._data is None else None

    @property
    def finish_reason(self) -> str | None:
        """The first choice's `finish_reason`."""
        if self._seen is None and self._data is None and self._text is not None:
            return None  # its text was known before anybody looked: words and nothing else
        for choice in self.look().choices or ():
            if isinstance(choice.finish_reason, str):
                return choice.finish_reason
        return None

    @property
    def speaks(self) -> bool:
        """True when a caller hears it or an engine acts on it: words, a refusal, a tool call, audio.

        A role, an empty or blank delta, reasoning, and usage are not speech.
        """
        if self._speaks is None:
            self._speaks = False
            for choice in self.look().choices or ():
                self._speaks = self._speaks or _is_heard(choice.delta)
        return self._speaks

    @property
    def calls(self) -> bool:
        """True when it calls a tool, or goes on with a call."""
        if self._seen is None and self._data is None and self._text is not None:
            return False  # its text was known before anybody looked: words like those before it
        for choice in self.look().choices or ():
            delta = choice.delta
            if delta is not None and (delta.tool_calls or delta.function_call):
                return True
        return False

    @property
    def reasons(self) -> bool:
        """True when the model shows its reasoning in it: `reasoning_content`, `reasoning`, `reasoning_details`."""
        if not self.may_hold(b"reasoning"):
            return False
        deltas = (choice.get("delta") or {} for choice in self.data.get("choices") or () if isinstance(choice, dict))
        return any(name.startswith("reasoning") and delta[name] for delta in deltas for name in delta)

    def changed(self, **fields: Any) -> Chunk:
        """Return a new chunk with these root fields in place of its own."""
        return type(self)({**self.data, **fields})

    def with_text(self, text: str) -> Chunk:
        """Return a new chunk that says `text` in its first choice, all else kept."""
        choices = [dict(choice) for choice in self.data.get("choices") or [{"index": 0, "finish_reason": None}]]
        choices[0]["delta"] = {**(choices[0].get("delta") or {}), "content": text}
        return self.changed(choices=choices)

    def __repr__(self) -> str:
        # Never the words: a chunk in a log line or an assertion of the server must not tell what was said.
        face = "raw" if self._data is None else "made"
        return f"<Chunk {face}>"


class Aside(Chunk):
    """Words of ours beside those of a model, as a filler: they are complete, and are said as they are."""

    __slots__ = ()


class Unspoken:
    """The chunks of an answer before its first word, kept for as long as other words may go before them."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._size = 0

    def add(self, chunk: Chunk) -> None:
        """Keep one more. Of long reasoning the beginning is dropped; the first chunk, which says who speaks, stays."""
        self._chunks.append(chunk)
        self._size += len(chunk.frame)
        while self._size > MAX_UNSPOKEN and len(self._chunks) > 2:
            self._size -= len(self._chunks.pop(1).frame)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks)

    @property
    def usage(self) -> dict[str, Any] | None:
        """The tokens as they were counted last; some servers count with every chunk."""
        counted = (chunk.data["usage"] for chunk in reversed(self._chunks) if isinstance(chunk.look().usage, dict))
        return next(counted, None)

    def take(self) -> list[Chunk]:
        """Return them all, and keep none."""
        chunks, self._chunks, self._size = self._chunks, [], 0
        return chunks


def _is_heard(delta: Delta | None) -> bool:
    if delta is None:
        return False
    content, refusal = delta.content, delta.refusal
    if content is not None and _says(content if type(content) is str else _words(content)):
        return True
    if delta.tool_calls or delta.audio or delta.function_call:
        return True
    return refusal is not None and _says(_words(refusal))


def _says(text: str) -> bool:
    """True unless there are only blanks, and marks without width (U+200B, U+FEFF), of which nothing is heard either."""
    if text.isprintable():
        return bool(text) and not text.isspace()
    return any(sign.isprintable() and sign != " " for sign in text)


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # Mistral sends parts
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict) and _is_text(part))
    return ""


def _is_text(part: dict[str, Any]) -> bool:
    return part.get("type", "text") == "text" and isinstance(part.get("text"), str)
