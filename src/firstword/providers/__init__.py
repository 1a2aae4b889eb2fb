"""The dialects of LLM APIs, one pure file each: what to send for a turn, and what the bytes that come back mean.

A provider that is reached over HTTP has `request`, `streams`, `refuse` and `decoder` (see `openai.py`); one that
answers in the process has `answer` (see `demo/`); one whose model runs beside the server has `command` and `order` (see
`local.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from ..chunk import Chunk
from ..errors import UpstreamError
from ..local.lines import Order
from ..turn import Turn
from ..wire import HttpRequest


class Decoder(Protocol):
    """What one response says, read as its bytes come. One decoder a response."""

    failure: UpstreamError | None  # set once the response has failed; what was fed before it still counts
    done: bool  # the response said that it is over
    skipped: int  # events that could not be understood
    usage: (
        Any  # the tokens as the model's server has counted them so far, as its usage object; None as long as it has not
    )

    @property
    def finished(self) -> bool:
        """The answer is whole, though more (usage, the end mark) may follow."""

    @property
    def calling(self) -> bool:
        """A call of a tool has begun, and its answer has not ended: what was passed on may be half a call."""

    def words(self, data: bytes) -> Chunk | None:
        """Return the chunk that `data` is, when that is seen without reading it: the quick way; else None."""

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that end in `data`."""

    def end(self) -> list[Chunk]:
        """Take the end of the body; sets `failure` when words are missing."""


@runtime_checkable
class Remote(Protocol):
    """A provider that is reached over HTTP."""

    base_url: str  # where it is when nobody says otherwise

    def request(self, turn: Turn, *, model: str, base_url: str, key: str | None) -> HttpRequest:
        """Return what to send for a turn."""

    def models(self, *, base_url: str, key: str | None) -> HttpRequest:
        """Return the request for the list of models."""

    def streams(self, headers: Mapping[str, str]) -> bool:
        """True when a 200 with these headers (names in lower case) is an event stream."""

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes, *, secret: str | None) -> UpstreamError:
        """Return the error that any other response means; `secret` never stands in it."""

    def decoder(self, turn: Turn, *, secret: str | None, thinks: bool = False) -> Decoder:
        """Return the reader of one response. `thinks`: its answer begins with reasoning, although nothing says so."""


@runtime_checkable
class Embedded(Protocol):
    """A provider that answers in the process, at once: what it says costs no time to find."""

    def answer(self, request: Mapping[str, Any], *, id: str, created: int) -> Iterator[tuple[float, dict[str, Any]]]:
        """Yield the reply as (seconds to wait before it, one chunk)."""


@runtime_checkable
class Housed(Protocol):
    """A provider whose model runs on this machine, in a process of its own that `firstword.local` describes."""

    def command(self) -> list[str]:
        """Return the command that starts it. Raises ConfigError when it is not installed."""

    def order(self, request: Mapping[str, Any]) -> Order:
        """Return what to ask for, as number 0. Raises BadRequest, which names the field."""


Provider = Remote | Embedded | Housed
