"""One connection to the store: calls leave as they are made, and replies come in the same order.

Nothing in a reply says whose it is: its place does. So every command that is sent is a call that waits for its reply,
and a connection on which a place may be wrong is closed at once.

The protocol is RESP3, so that what others tell comes by the same connection. Source: the Redis serialization protocol
specification. hiredis reads and writes the bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import hiredis

MAX_REPLY = 32 * 1024 * 1024  # bytes of one reply; none of ours is longer, and a store need not be one
END_TIMEOUT = 1.0  # seconds for a connection that was cut off to be over

Word: TypeAlias = "str | bytes | int | float"

_NO_MORE = object()


@dataclass(slots=True, eq=False)
class Call:
    """One command. future: who waits for its reply, if anybody. asked: when, in monotonic seconds.

    is_patient: who waits does so for as long as the connection lasts, and not for the budget only.
    again: the same in the form that a store understands that does not know its script; None when it has none.
    """

    words: tuple[Word, ...]
    asked: float
    future: asyncio.Future[Any] | None = None
    again: tuple[Word, ...] | None = None
    is_patient: bool = False


class Line(asyncio.Protocol):
    """Sends calls, and hands each to `answered` with its reply; `told` takes what comes unasked, `lost` the end."""

    def __init__(
        self,
        *,
        answered: Callable[[Call, Any], None],
        told: Callable[[list[Any]], None],
        lost: Callable[[Line], None],
    ) -> None:
        self.waiting: deque[Call] = deque()  # the oldest first
        self._answered = answered
        self._told = told
        self._lost = lost
        self._reader = hiredis.Reader(notEnoughData=_NO_MORE)
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_aborted = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, call: Call) -> None:
        """Send a call, in one write with all others of this step of the loop."""
        self.waiting.append(call)
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        self._unsent.append(_packed(call.words))

    def _write(self) -> None:
        assert self._transport is not None
        unsent, self._unsent = self._unsent, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def abort(self) -> None:
        """Close at once; what is not sent yet is not sent, and what still comes is for nobody."""
        self._is_aborted = True
        if self._transport is not None:
            self._transport.abort()

    async def end(self) -> None:
        """Close at once, and wait until that is done; uvloop may never say so of one that was still being made."""
        self.abort()
        if self._transport is not None:
            await asyncio.wait([self._over], timeout=END_TIMEOUT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, as asyncio gives it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end of the connection."""
        self._over.set_result(None)
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes: each reply goes to the call that has waited for longest."""
        self._reader.feed(data)
        while not self._is_aborted and (reply := self._next()) is not _NO_MORE:
            if isinstance(reply, hiredis.PushNotification) and not self._is_subscribed(reply):
                self._told(reply)
            elif self.waiting:
                self._answered(self.waiting.popleft(), reply)
            else:
                self.abort()  # a reply that nobody has asked for: what comes next would be somebody else's
                return
        if self._reader.len() > MAX_REPLY:
            self.abort()

    def _is_subscribed(self, push: list[Any]) -> bool:
        """True for the one push that is a reply: it says, in its place among the replies, that SUBSCRIBE was done."""
        return push[:1] == [b"subscribe"] and bool(self.waiting) and self.waiting[0].words[0] == "SUBSCRIBE"

    def _next(self) -> Any:
        """Return the next reply that has come whole; what is none ends the connection."""
        try:
            return self._reader.gets()
        except Exception:  # no protocol of ours, a map whose names are lists, a list for which there is no memory
            self.abort()
            return _NO_MORE


def _packed(words: tuple[Word, ...]) -> bytes:
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type] # it says that there is one word only
