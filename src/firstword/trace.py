"""The trace that a turn is a part of: W3C's `traceparent` read and written, what models and tools were asked in it.

Pure, and without any library: a trace is passed on also where nobody here keeps it. Ids are drawn when a turn, a
request and a tool begin, because they stand in what is sent on; spans are made of all this when the turn is over.
Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from . import clock
from .errors import Error

SAMPLED = 0x01  # the one flag that version 00 knows, beside "random", which says nothing to us
MAX_STATE = 512  # signs of a tracestate that everybody has to pass on
MAX_MEMBERS = 32
_running: ContextVar[str] = ContextVar("firstword_tool", default="")  # the span of the tool that this task runs
_parent = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII).fullmatch
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_member = re.compile(rf"({_KEY})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e])").fullmatch


class Parent(NamedTuple):
    """What a caller's headers say: the trace, the caller's own span in it, the flags, and the state as it came."""

    trace: str
    span: str
    flags: int
    state: str


class Fate(Protocol):
    """What a race knows of one request."""

    why: str
    outcome: str
    error: str


@dataclass(slots=True)
class Ask:
    """One request to a model, as the trace has it. Times are monotonic seconds; None when it did not come to that.

    provider: whose dialect. host, port: where it went; empty for what answers in the process.
    error: the code of what it ended with; "cancelled" when nobody waited for its end.
    """

    span: str
    model: str
    provider: str
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]  # what names its parent upstream
    fate: Fate | None
    began: float = field(default_factory=lambda: clock.now())
    answered: float | None = None
    spoke: float | None = None
    ended: float | None = None
    error: str = ""

    def end(self, answered: float | None, spoke: float | None, error: BaseException | None) -> None:
        """Note the end of the request, when its head came and when its first word."""
        self.answered, self.spoke, self.ended = answered, spoke, clock.now()
        if isinstance(error, Error):
            self.error = error.code or error.type
        elif isinstance(error, asyncio.CancelledError):
            self.error = "cancelled"
        elif error is not None:
            self.error = type(error).__name__


@dataclass(slots=True)
class Trace:
    """One turn's place in a trace. `asks` is shared by all who ask models for it.

    span: the turn's own; empty when the trace is only passed on. parent: the caller's, if there is one.
    status, outcome: how the turn ended, once it has.
    """

    id: str
    span: str
    parent: str
    flags: int
    state: str
    asks: list[Ask] = field(default_factory=list)
    fate: Fate | None = None
    status: int = 0
    outcome: str = ""

    @property
    def is_sampled(self) -> bool:
        """True when somebody wants to keep it."""
        return bool(self.flags & SAMPLED)

    def of(self, fate: Fate) -> Trace:
        """Return the same trace for one request of a race."""
        return replace(self, fate=fate)

    def ask(self, model: str, *, provider: str, host: str = "", port: int = 0) -> Ask:
        """Begin a request to a model."""
        span = new_id(8)
        ask = Ask(span, model, provider, host, port, self._headers(span), self.fate)
        self.asks.append(ask)
        return ask

    def tool(self) -> str:
        """Begin a tool in a task of its own, and return its span; empty when the trace is only passed on."""
        span = new_id(8) if self.span else ""
        _running.set(span)
        return span

    def onward(self) -> tuple[tuple[str, str], ...]:
        """Return the headers of a request that a tool makes."""
        return self._headers(_running.get() or self.span)

    def _headers(self, span: str) -> tuple[tuple[str, str], ...]:
        parent = f"00-{self.id}-{span if self.span else self.parent}-{self.flags:02x}"
        return (("traceparent", parent), ("tracestate", self.state)) if self.state else (("traceparent", parent),)


def read(headers: Mapping[str, str]) -> Parent | None:
    """Return the trace that a request belongs to; None when it names none, or not in the form that all understand."""
    found = _parent(headers.get("traceparent", "").strip(" \t"))
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (trace.strip("0") and span.strip("0")):
        return None
    return Parent(trace, span, int(flags, 16) & SAMPLED, read_state(headers.get("tracestate", "")))


def read_state(value: str) -> str:
    """Return a tracestate in one plain form; empty when any of it is not in the form that all understand."""
    members = [member.strip(" \t") for member in value.split(",")]
    found = [_member(member) for member in members if member]
    keys = {each[1] for each in found if each is not None}
    if None in found or len(keys) < len(found) or len(found) > MAX_MEMBERS:
        return ""
    state = ",".join(each[0] for each in found if each is not None)
    return state if len(state) <= MAX_STATE else ""


def passed_on(headers: Mapping[str, str]) -> Trace | None:
    """Return the trace of a request for which there is no span of ours: it goes upstream as it came."""
    parent = read(headers)
    return None if parent is None else Trace(parent.trace, "", parent.span, parent.flags, parent.state)


def new_id(size: int) -> str:
    """Return a new id of so many bytes; none is all zeros."""
    return f"{int.from_bytes(os.urandom(size), 'big') or 1:0{2 * size}x}"
