"""The wire's own words: server-sent events cut out of bytes, and one HTTP request as plain data.

Pure: nothing here waits or knows what the events mean. A frame is the bytes of one event in the one
form that every client reads: `data: ` + one line + a blank line. An upstream event already in that
form keeps its very bytes; any other spelling that the standard allows is rewritten into it.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from .errors import UpstreamProtocolError

DONE = b"data: [DONE]\n\n"
_DONE_EVENT = DONE[:-2]
MAX_FRAME = 4 * 1024 * 1024  # bytes; an audio chunk is some kB, a boundary-less flood is without end
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to an upstream: the whole URL, header lines as (name, value), the whole body."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # one of them is the key
    body: bytes = field(default=b"", repr=False)


def frame(data: bytes) -> bytes:
    """Return the frame of one line of `data`."""
    return b"data: " + data + b"\n\n"


class FrameReader:
    """Cut bytes, however they were split on the way, into frames.

    Comments, `id:`, `retry:` and empty events are dropped: they kill some clients and tell us nothing.
    Events end at a blank line and nowhere else (U+2028 is an ordinary character of JSON).
    """

    __slots__ = ("_first", "_max_frame", "_skip_newline", "rest")

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.rest = bytearray()  # the event that has not ended yet
        self._skip_newline = False  # the last byte was CR: an LF that follows belongs to it
        self._first = True
        self._max_frame = max_frame

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that end in `data`.

        Raises UpstreamProtocolError when one event grows over `max_frame` bytes.
        """
        rest = self.rest
        if (
            not rest
            and data[:7] == b"data: {"
            and data.find(b"\n") == len(data) - 2
            and data[-1] == 10
            and 13 not in data
        ):
            self._first = self._skip_newline = False
            return [data]  # the usual read: one event in the usual form
        if self._skip_newline or b"\r" in data:
            data = self._fold(data)
        if rest:
            # Look only where a blank line can newly be, or one byte at a time would cost the square.
            seen = max(len(rest) - 1, 0)
            rest += data
            end = rest.rfind(b"\n\n", seen)
            if end < 0:
                return self._wait()
            whole = bytes(rest[: end + 2])
            del rest[: end + 2]
        else:
            end = data.rfind(b"\n\n")
            if end < 0:
                rest += data
                return self._wait()
            if end + 2 == len(data):
                whole = data
            else:
                whole = data[: end + 2]
                rest += data[end + 2 :]
        return self._cut(whole)

    def end(self) -> list[bytes]:
        """Return the last event when its blank line never came."""
        last = bytes(self.rest)
        self.rest.clear()
        return self._cut(last + b"\n\n") if last else []

    def _wait(self) -> list[bytes]:
        if len(self.rest) > self._max_frame:
            self.rest.clear()
            raise UpstreamProtocolError(f"The model's server sent an event of more than {self._max_frame} bytes.")
        return []

    def _fold(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF; a pair may be split between two reads."""
        if self._skip_newline and data[:1] == b"\n":
            data = data[1:]
            self._skip_newline = False
        if data:
            self._skip_newline = data[-1:] == b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _cut(self, whole: bytes) -> list[bytes]:
        frames = []
        for part in whole[:-2].split(b"\n\n"):
            if part[:7] != b"data: {" or b"\n" in part:
                if self._first:
                    part = part.removeprefix(_BOM)
                part = part.strip(b"\n")  # of three line breaks in a row, which two end the event depends on the reads
            if (part[:7] == b"data: {" or part == _DONE_EVENT) and b"\n" not in part:
                frames.append(part + b"\n\n")
            elif part and (data := _normalise(part)):
                frames.append(frame(data))
            self._first = False
        return frames


def _normalise(event: bytes) -> bytes:
    """Return an event's data as one line, or nothing; an event named `error` always says `error` in its data."""
    lines: list[bytes] = []
    name = b""
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
    # A line break between JSON tokens is white space, and within a JSON string it cannot stand raw.
    data = b" ".join(lines).strip()
    return _as_error(data) if name == b"error" else data


def _as_error(data: bytes) -> bytes:
    try:
        value = msgspec.json.decode(data)
        return data if isinstance(value, dict) and "error" in value else msgspec.json.encode({"error": value})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode({"error": data.decode("utf-8", "replace")})
