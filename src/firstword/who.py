"""Whose turn it is, and when: what a session's turns have in common, and what a turn has with itself sent again.

Pure. What is kept from one turn to the next is kept under these: jobs, and all else that a session has a memory of.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from .turn import Turn


def caller_of(turn: Turn) -> str | None:
    """Return what a session's turns have in common; None for a turn without a session."""
    if turn.session is None and turn.channel is None:
        return None
    # With the client, because a session's name is the caller's own word. Who has no name is told by the key; a token is
    # renewed in the middle of a call, and a signed URL may come with any key.
    keys = [turn.headers.get(name) for name in ("authorization", "api-key", "x-api-key")]
    whose = [turn.grant.name] if turn.grant.is_known else keys
    # Several agents may be in one channel, and each counts its turns by itself.
    uids = [turn.engine.get(name) for name in ("app_id", "agent_uid", "user_uid")]
    return digest([turn.session, turn.channel, uids, whose])


def moment_of(turn: Turn) -> str:
    """Return what a turn has in common with itself when it is sent again: its number, else what was said so far."""
    if caller_of(turn) is None:
        return turn.id
    if turn.number is not None:
        return f"number {turn.number}"
    # Without system messages: hooks put the time of day there.
    said = [(each.get("role"), each.get("content")) for each in turn.messages]
    return digest([each for each in said if each[0] not in ("system", "developer")])


def digest(value: Any) -> str:
    """Return a short name for a value, the same for the same one: text is kept by nobody for the sake of a key."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
