"""The way to scripted models on a clock that jumps: the App's own pool of connections, on wires within the loop.

Rules:
- Above the socket all is real: the pool, the connection, HTTP. Names, TCP, proxies and TLS are left out.
- A request carries a header `x-marker` more than it would, by which its script and its turn are found.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from firstword import ConfigError, Turn, clock
from firstword.testing import script
from firstword.testing.clock import JumpingLoop
from firstword.testing.exchange import converse, echo
from firstword.testing.models import Scripted, Unreachable, drawn
from firstword.testing.witness import Ledger, Line, Record
from firstword.transport import Connection, Origin, Transport, split
from firstword.transport.dial import dial
from firstword.wire import HttpRequest


@dataclass
class Call:
    """One turn as its models see it: who was asked, and when, in seconds of the jumping clock."""

    began: float
    turn: Turn | None = None
    asked: list[tuple[float, str]] = field(default_factory=list)
    seen: list[Record] = field(default_factory=list)
    held: list[tuple[Origin, Connection, int]] = field(default_factory=list)  # with the how-many-th use this one was
    mistake: Exception | None = None  # of a model that is a function

    def check(self) -> None:
        """Raise what a model that is a function has raised; ValueError when a script was wrong."""
        if self.mistake is not None:
            raise self.mistake
        wrong = [record.mistake for record in self.seen if record.mistake]
        if wrong:
            raise ValueError(f"a script is wrong: {wrong[0]}")


@dataclass(frozen=True)
class _Asked:
    """One request on its way, and what is done with it."""

    call: Call | None
    attempt: int
    does: script.Script | Unreachable


CALL: ContextVar[Call | None] = ContextVar("call", default=None)  # that of this task
_ASKED: ContextVar[_Asked | None] = ContextVar("asked", default=None)  # the request that this task dials for


class Wires(Transport):
    """Leads each request to the scripted model of the name that its body says; one without a name, to `rest`."""

    def __init__(self, models: Mapping[str, Scripted], rest: Scripted, *, connect_timeout: float) -> None:
        super().__init__(connect_timeout=connect_timeout)
        self.ledger = Ledger()
        self._models = models
        self._rest = rest
        self._attempts: Counter[str] = Counter()
        self._markers = itertools.count(1)
        self._on_the_way: dict[str, _Asked] = {}

    async def request(self, request: HttpRequest, *, within: float, fresh: bool = False) -> Connection:
        """Decide what is done with `request`, then send it as ever."""
        marker = str(next(self._markers))
        asked = self._draw(request, marker)
        self._on_the_way[marker] = asked
        _ASKED.set(asked)
        try:
            marked = replace(request, headers=(*request.headers, ("x-marker", marker)))
            connection = await super().request(marked, within=within, fresh=fresh)
            if asked.call is not None:
                asked.call.held.append((split(request.url)[0], connection, connection.uses))
            return connection
        finally:
            del self._on_the_way[marker]

    def left_open(self, call: Call) -> int:
        """Count the connections that still answer a request of this turn."""
        return sum(
            not connection.closed and connection.uses == use and connection not in self._idle[origin]
            for origin, connection, use in call.held
        )

    def _draw(self, request: HttpRequest, marker: str) -> _Asked:
        body = msgspec.json.decode(request.body) if request.body else None
        name = body.get("model") if isinstance(body, dict) else None
        model = self._models.get(name, self._rest) if isinstance(name, str) else echo
        call, at = CALL.get(), clock.now()
        self._attempts[str(name)] += 1
        record = Record(
            connection=0,
            method=request.method,
            path=split(request.url)[1],
            headers=list(request.headers),
            body=body,
            marker=marker,
            attempt=self._attempts[str(name)],
            connected=at,
            requested=at,
        )
        if call is not None:
            call.asked.append((at, str(name)))
        try:
            return _Asked(call, record.attempt, drawn(model, record))
        except Exception as error:
            if call is not None:
                call.mistake = error
            raise

    def _answer(self, record: Record) -> script.Script:
        asked = self._on_the_way.get(record.marker)
        if asked is None:
            return []  # who asked has left, and will close
        record.attempt = asked.attempt
        if asked.call is not None:
            asked.call.seen.append(record)
        # A kept connection to a server that is not there any more: it is closed, and the next one is not made.
        return [script.close()] if isinstance(asked.does, Unreachable) else asked.does

    async def _reach_out(self, origin: Origin, make: Callable[[], Connection], within: float) -> Connection:
        plain = replace(origin, scheme="http")  # no TLS
        return await dial(plain, make, within=within, proxy=None, resuming=self._resuming, plug=self._plug)

    async def _plug(self, host: str, port: int) -> socket.socket:
        """Return our end of a new wire, at the other end of which the models are."""
        loop, asked = asyncio.get_running_loop(), _ASKED.get()
        assert isinstance(loop, JumpingLoop)
        if asked is not None and isinstance(asked.does, Unreachable):
            after = asked.does.after
            await (loop.create_future() if math.isinf(after) else asyncio.sleep(after))
            raise ConnectionRefusedError
        ours, theirs = loop.wire()
        try:
            await loop.create_connection(lambda: Line(self._converse, self.ledger), sock=theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return ours

    async def _converse(self, line: Line) -> None:
        await converse(line, self.ledger, None, self._answer)


def as_models(given: Any) -> list[Scripted]:
    """Return the models that `models=` says: one, or a list of them; a list of steps is one. Raises ConfigError."""
    if isinstance(given, Unreachable) or callable(given):
        return [given]
    if isinstance(given, Sequence) and all(isinstance(step, dict) for step in given):
        return [list(given)]
    if isinstance(given, str) or not all(isinstance(each, (list, Unreachable)) or callable(each) for each in given):
        raise ConfigError("`models` is no list of scripted models.", hint="write models=[silent(), says('hello')]")
    return list(given)
