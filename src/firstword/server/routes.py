"""Where a request goes, by its path: which turn's route it is, and what the path says of platform and session.

/chat/completions   /v1/chat/completions   /audio/chat/completions   a turn
/vapi/chat/completions                                              one of that platform's, whatever it looks like
/s/call-7/chat/completions                                          one of that session
/vapi/s/call-7/audio/chat/completions                               all of it; `/models` goes with each prefix too
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

CHAT = "/chat/completions"
AUDIO = "/audio/chat/completions"
# The last four are what comes of pasting a full URL where a base URL was asked for; users of Vapi and ElevenLabs do.
CHAT_PATHS = frozenset({CHAT, f"/v1{CHAT}", CHAT + CHAT, f"/v1{CHAT}{CHAT}", f"{CHAT}/v1{CHAT}", f"/v1{CHAT}/v1{CHAT}"})
AUDIO_PATHS = frozenset({AUDIO, f"/v1{AUDIO}"})
EVENTS = "/webhooks/agora"  # what Agora's engine tells of itself
LISTS = frozenset({"/models", "/v1/models"})  # what clients of a base URL ask for as well

_TAILS = sorted(CHAT_PATHS | AUDIO_PATHS | LISTS, key=len, reverse=True)


class Route(NamedTuple):
    """What a path says: `tail` is one of the paths above, the rest what stood before it."""

    tail: str
    platform: str | None = None
    session: str | None = None

    @property
    def is_turn(self) -> bool:
        """True for a turn, False for a list of models."""
        return self.tail not in LISTS


PLAIN = Route(CHAT)


def route(path: str, is_platform: Callable[[str], bool]) -> Route | None:
    """Return what a path means; None when it is none of a turn's. `is_platform` says what is a platform's name."""
    for tail in _TAILS:
        if path.endswith(tail):
            before = path[: -len(tail)].split("/")
            found = _prefix(before[1:], is_platform) if not before[0] else None
            if found is not None and (tail not in LISTS or any(found)):
                return Route(tail, *found)
    return None


def _prefix(parts: Sequence[str], is_platform: Callable[[str], bool]) -> tuple[str | None, str | None] | None:
    """Return the platform and the session that stand before a tail; None when it is something else."""
    platform = session = None
    if len(parts) in (1, 3) and is_platform(parts[0]):
        platform, parts = parts[0], parts[1:]
    if len(parts) == 2 and parts[0] == "s" and parts[1] not in ("", ".", ".."):
        session, parts = parts[1], parts[2:]
    return None if parts else (platform, session)
