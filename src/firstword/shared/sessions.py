"""What a session leaves for its next turns, and a turn for the engine's events, wherever those arrive.

Words that were said are kept here only beside an image, for as long as the image is put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..images import KEPT, Session
from .store import AWAY, Store

MAX_SHARED = 128 * 1024  # bytes of a session; more would hold up what others ask (1 ms on a line of 1 Gbit/s)
MAX_NUMBERS = 1_000  # turns of one event that are asked for
CALL = 6 * 3600.0  # seconds after a call's last turn for which its turns are known
NOTICE = 600.0  # seconds for which an event that comes again does nothing: twice as long as it would be taken

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Session).decode


class SharedImages:
    """The images of sessions, each as one value that lives as long as an image would here."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, caller: str) -> Session | None:
        """Return what is known of a session there; None when that is nothing, or is not to be had at once.

        The value says whose it is: whatever happens to the connection, no session is given another's words.
        """
        name = self._store.name("images", caller)
        reply: Any = await self._store.ask("GET", name)
        if reply is None or reply is AWAY:
            return None
        whose, _, text = reply.partition(b" ") if isinstance(reply, bytes) else (b"", b"", b"")
        if whose != name.encode():
            if not isinstance(reply, bytes) or whose.startswith(name.rpartition(":")[0].encode() + b":"):
                self._store.doubt()  # it is another session's, or no reply to a GET at all
            return None
        if len(text) > MAX_SHARED:
            return None
        try:
            session: Session = _decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        are_parts = all(isinstance(part, dict) for shown in session.shown for part in shown.content)
        return session if are_parts else None

    def put(self, caller: str, session: Session) -> None:
        """Let others know of a session. One that is too large is known here only."""
        name = self._store.name("images", caller)
        if not session.shown or session.size > MAX_SHARED:
            self._store.tell("UNLINK", name)
            return
        text = _encode(session)
        if len(text) <= MAX_SHARED:
            self._store.tell("SET", name, name.encode() + b" " + text, "PX", int(KEPT * 1000))
        else:
            self._store.tell("UNLINK", name)


class SharedEvents:
    """Which events were taken, and what is known of the turns that they are about."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def is_new(self, notice: str) -> bool:
        """Return False when another process has taken the event with this id."""
        name = self._store.name("notice", notice)
        reply: Any = await self._store.ask("SET", name, 1, "NX", "PX", int(NOTICE * 1000))
        return reply is not None  # also when the store is away: better twice than never

    async def turns(self, kind: str, name: str, numbers: Sequence[int]) -> dict[int, tuple[str, float | None]]:
        """Return id and time to the first word, by number, of the turns of an agent or channel that are known."""
        asked = numbers[:MAX_NUMBERS]
        replies = await self._store.ask("HMGET", self._store.name(kind, name), *asked)
        if not isinstance(replies, list) or len(replies) != len(asked):
            return {}
        read = {number: _turn(reply) for number, reply in zip(asked, replies, strict=True)}
        return {number: turn for number, turn in read.items() if turn is not None}

    def note(self, kind: str, name: str, number: int, turn: tuple[str, float | None]) -> None:
        """Let others know of a turn. Never waits."""
        key = self._store.name(kind, name)
        self._store.tell("HSET", key, number, _encode(turn))
        self._store.tell("PEXPIRE", key, int(CALL * 1000))


def _turn(text: Any) -> tuple[str, float | None] | None:
    """Read what `note` has written; None for anything else."""
    if not isinstance(text, bytes):
        return None
    try:
        return msgspec.json.decode(text, type=tuple[str, float | None])
    except (msgspec.DecodeError, ValueError):
        return None
