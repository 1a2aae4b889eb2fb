"""What came back from a server: the bytes of one reply and the moment of each, and the events that they hold.

Pure: nothing here waits. Times are seconds on the monotonic clock.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

LONGEST_SHOWN = 160  # characters of what was seen
MOST_UNZIPPED = 4 * 1024 * 1024  # bytes that one read may become
_EITHER = 47  # zlib's word for gzip or zlib, whichever it is
_BOM = b"\xef\xbb\xbf"


@dataclass
class Heard:
    """One reply, as far as it was read. `trouble` says in a few words why it is not whole."""

    sent: float = 0.0  # when the request had left
    headed: float | None = None  # when the status line and headers were there
    ended: float | None = None
    status: int = 0
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    reads: list[tuple[float, bytes]] = field(default_factory=list)  # the body, as it came, its coding taken off
    wire_size: int = 0  # bytes of the body on the wire
    is_whole: bool = False
    is_kept: bool = False  # the connection may be used again
    trouble: str = ""
    is_cut_by_us: bool = False  # it was not over in the time that we had for it
    _unzip: Any = None

    def take(self, at: float, data: bytes) -> None:
        """Take bytes of the body that came at this moment."""
        self.wire_size += len(data)
        if self.coding in ("gzip", "deflate", "x-gzip"):
            self._unzip = self._unzip or zlib.decompressobj(_EITHER)
            try:
                data = self._unzip.decompress(data, MOST_UNZIPPED)
            except zlib.error:
                self.trouble = self.trouble or f"the body is not {self.coding}"
                return
        if data:
            self.reads.append((at, data))

    @property
    def coding(self) -> str:
        """How the body is compressed; empty when it is not."""
        coding = self.headers.get("content-encoding", "").strip().lower()
        return "" if coding == "identity" else coding

    @property
    def body(self) -> bytes:
        """All that came of the body."""
        return b"".join(data for _, data in self.reads)

    @property
    def kind(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        """True for a 200 that calls itself an event stream."""
        return self.status == 200 and self.kind == "text/event-stream"

    @property
    def is_page(self) -> bool:
        """True when it is a page for a browser."""
        start = self.body[:256].lstrip().lower()
        return self.kind in ("text/html", "application/xhtml+xml") or start.startswith((b"<!doctype html", b"<html"))

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        return decoded(self.body)

    @property
    def stream(self) -> Stream:
        """The body as events."""
        return Stream(self)


def decoded(data: bytes) -> Any:
    """Return the JSON value in `data`; None when there is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def short(data: bytes | str, secrets: tuple[str, ...] = ()) -> str:
    """Return what was seen on one short line, without a secret."""
    text = data if isinstance(data, str) else data[: LONGEST_SHOWN * 16].decode("utf-8", "replace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text.strip())
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


@dataclass(frozen=True)
class Event:
    """One event: when its last byte came, its bytes without the blank line, and its fields in order."""

    at: float
    raw: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    @property
    def is_comment(self) -> bool:
        """True when there is nothing but comments in it."""
        return all(not name for name, _ in self.fields)

    @property
    def data(self) -> bytes | None:
        """Its data, as a client joins it; None when it has none."""
        lines = [value for name, value in self.fields if name == b"data"]
        return b"\n".join(lines) if lines else None

    @property
    def is_done(self) -> bool:
        """True for `[DONE]`, however it is written."""
        return (self.data or b"").strip().upper() == b"[DONE]"

    def named(self, name: bytes) -> bytes | None:
        """Return the value of a field; None when it is not there."""
        return next((value for field_name, value in self.fields if field_name == name), None)

    @cached_property
    def chunk(self) -> dict[str, Any] | None:
        """The JSON object that it holds; None when it holds none."""
        value = decoded(self.data or b"")
        return value if isinstance(value, dict) else None


class Stream:
    """The events of a reply. `rest` is what came behind the last blank line, `has_cr` whether lines end with CR."""

    def __init__(self, heard: Heard) -> None:
        self.has_bom = heard.body.startswith(_BOM)
        self.has_cr = b"\r" in heard.body
        self.events: list[Event] = []
        self.rest = b""
        for at, data in _folded(heard.reads):
            self.rest += data
            *whole, self.rest = self.rest.split(b"\n\n")
            self.events += [_event(at, raw) for raw in whole if raw.strip(b"\n")]
        if self.rest.strip():
            self.events.append(_event(heard.reads[-1][0], self.rest))
        self.rest = self.rest.strip()

    @property
    def chunks(self) -> list[tuple[float, dict[str, Any]]]:
        """Each chunk up to `[DONE]`, with the moment it came; an event named `error` is none."""
        end = next((at for at, event in enumerate(self.events) if event.is_done), len(self.events))
        found = [event for event in self.events[:end] if (event.named(b"event") or b"").strip() != b"error"]
        return [(event.at, event.chunk) for event in found if event.chunk is not None]

    @property
    def deltas(self) -> list[tuple[float, dict[str, Any]]]:
        """The delta of each chunk's first choice, with the moment it came."""
        found = [(at, choice.get("delta")) for at, chunk in self.chunks for choice in choices(chunk)[:1]]
        return [(at, delta if isinstance(delta, dict) else {}) for at, delta in found]

    @property
    def words(self) -> list[tuple[float, str]]:
        """What is spoken, piece by piece, with the moment it came."""
        said = [(at, delta.get("content")) for at, delta in self.deltas]
        return [(at, text) for at, text in said if isinstance(text, str) and text]

    @property
    def text(self) -> str:
        """All that is spoken."""
        return "".join(text for _, text in self.words)

    @property
    def calls(self) -> list[tuple[float, list[Any]]]:
        """The `tool_calls` of each delta that has some."""
        found = [(at, delta.get("tool_calls")) for at, delta in self.deltas]
        return [(at, calls) for at, calls in found if isinstance(calls, list) and calls]

    @property
    def reasons(self) -> list[str]:
        """Every finish_reason of the first choice."""
        found = [choice.get("finish_reason") for _, chunk in self.chunks for choice in choices(chunk)[:1]]
        return [str(reason) for reason in found if reason]

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last count of tokens."""
        counts = [chunk.get("usage") for _, chunk in self.chunks]
        return next((count for count in reversed(counts) if isinstance(count, dict)), None)

    @property
    def done_at(self) -> float | None:
        """When `[DONE]` came first."""
        return next((event.at for event in self.events if event.is_done), None)

    @property
    def spoke_at(self) -> float | None:
        """When the first word came, or the first piece of a call."""
        moments = [at for at, text in self.words if text.strip()] + [at for at, _ in self.calls]
        return min(moments, default=None)


def choices(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a chunk that are objects."""
    found = chunk.get("choices")
    return [choice for choice in found if isinstance(choice, dict)] if isinstance(found, list) else []


def _folded(reads: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """Yield the reads with LF for CRLF and CR, of which a pair may be split between two reads; the BOM goes."""
    ends_with_cr, is_first = False, True
    for at, data in reads:
        if is_first:
            data, is_first = data.removeprefix(_BOM), False
        if ends_with_cr and data[:1] == b"\n":
            data = data[1:]
        ends_with_cr = data[-1:] == b"\r" if data else ends_with_cr
        yield at, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(at: float, raw: bytes) -> Event:
    raw = raw.strip(b"\n")
    fields = []
    for line in raw.split(b"\n"):
        name, _, value = line.partition(b":")
        fields.append((name, value.removeprefix(b" ")))
    return Event(at, raw, tuple(fields))
