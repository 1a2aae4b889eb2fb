"""The images of a session's last turns, for engines that forget them: put back beside the words that came with them.

All is in memory. Other processes know of it as far as there is an `elsewhere`. A turn without a session leaves nothing
here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import clock
from .message import words
from .turn import Turn
from .who import caller_of, moment_of

KEPT = 600.0  # seconds after the last turn of a session for which its images are kept: a call that long silent is over
MAX_SESSIONS = 1_000
MAX_BYTES = 64 * 1024 * 1024  # of all sessions' images
MAX_BYTES_OF_ONE = 20 * 1024 * 1024  # of one session's: what one request may bring

Json = dict[str, Any]
Place = tuple[str, str, int]


@dataclass(slots=True)
class Shown:
    """One message with images, as it came. `place` says which one it is where the engine counts no turns."""

    number: int | None
    place: Place
    content: list[Any]
    size: int
    age: int = 0  # turns since it came


@dataclass(slots=True)
class Session:
    """What one caller has shown. `used`: when, in monotonic seconds; `moment`: the last turn, see `moment_of`.

    at: the same by the wall clock, in seconds: of what two processes know, the later is right.
    """

    moment: str = ""
    used: float = 0.0
    at: float = 0.0
    shown: list[Shown] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(each.size for each in self.shown)


class Elsewhere(Protocol):
    """Where other processes look for what a session has shown here."""

    async def get(self, caller: str) -> Session | None:
        """Return what is known of a session there; None when that is nothing, or is not to be had at once."""

    def put(self, caller: str, session: Session) -> None:
        """Let others know of a session. Never waits."""


class Images:
    """Images of all sessions. `turns` is how many turns after it came an image is put back."""

    def __init__(self, turns: int, elsewhere: Elsewhere | None = None) -> None:
        self._turns = turns
        self._elsewhere = elsewhere
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the one unused for longest first
        self._size = 0

    @property
    def are_shared(self) -> bool:
        """True when other processes may know more."""
        return self._elsewhere is not None

    async def recall(self, turn: Turn) -> None:
        """Look what other processes know of a turn's session, before `restored`."""
        if self._elsewhere is None or sum(each.get("role") == "user" for each in turn.messages) < 2:
            return  # nothing was said before
        caller = caller_of(turn)
        there = None if caller is None else await self._elsewhere.get(caller)
        if caller is None or there is None:
            return
        here = self._sessions.get(caller)
        if here is None or here.at < there.at:
            there.used = clock.now()
            self._size -= 0 if here is None else self._sessions.pop(caller).size
            self._keep(caller, there)

    def restored(self, turn: Turn, messages: list[Json], numbers: Sequence[int | None]) -> list[Json]:
        """Return a turn's messages with the images that belong to them, and remember those that are new.

        numbers: the engine's number of the turn that each message is of, None where it says none.
        """
        caller = caller_of(turn)
        if caller is None:
            return messages
        was_known = caller in self._sessions
        session = self._take(caller, moment_of(turn))
        kept, fresh = list(messages), []
        for position, place in _places(messages):
            content, number = messages[position].get("content"), numbers[position]
            parts = [*_alone(messages, position), *_parts(content)]
            if _images(parts):
                fresh.append(Shown(number, place, parts, _size(parts)))
            elif (shown := _find(session.shown, number, place)) is not None:
                parts = [*content, *_images(shown.content)] if isinstance(content, list) else shown.content
                kept[position] = {**messages[position], "content": parts}
        session.shown += [each for each in fresh if not any(each.content == old.content for old in session.shown)]
        self._keep(caller, session)
        if self._elsewhere is not None and (was_known or session.shown):
            self._elsewhere.put(caller, session)
        return messages if all(mine is theirs for mine, theirs in zip(kept, messages, strict=True)) else kept

    def _take(self, caller: str, moment: str) -> Session:
        """Return a session, which is a turn older unless this turn was sent before."""
        now = clock.now()
        session = self._sessions.pop(caller, None) or Session(used=now)
        self._size -= session.size
        if now - session.used > KEPT:
            session = Session()
        if session.moment != moment:
            for each in session.shown:
                each.age += 1
            session.shown = [each for each in session.shown if each.age <= self._turns]
        session.moment, session.used, session.at = moment, now, time.time()
        return session

    def _keep(self, caller: str, session: Session) -> None:
        """Keep a session if it has images, and let go of those unused for longest when there is too much."""
        while session.size > MAX_BYTES_OF_ONE:
            del session.shown[0]
        if session.shown:
            self._sessions[caller] = session
            self._size += session.size
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            is_over = len(self._sessions) > MAX_SESSIONS or self._size > MAX_BYTES
            if not is_over and session.used - oldest.used <= KEPT:
                break
            self._size -= self._sessions.popitem(last=False)[1].size


def _places(messages: Sequence[Json]) -> Iterator[tuple[int, Place]]:
    """Yield the position of each message of the caller, and what tells it from the others.

    That is its text, the caller's words before it, and how many such pairs came before. Where an engine has cut off the
    beginning of a history, an image is rather missed than put beside other words. What is an image only, with words
    behind it, is left out: it is gone from a later history, and belongs to those words (`_alone`).
    """
    seen: dict[tuple[str, str], int] = {}
    before = ""
    for position, each in enumerate(messages):
        if each.get("role") != "user" or _is_alone(messages, position):
            continue
        text = words(each.get("content")).strip()
        count = seen[before, text] = seen.get((before, text), 0) + 1
        yield position, (before, text, count)
        before = text or before


def _is_alone(messages: Sequence[Json], position: int) -> bool:
    """True for a message of images only, with another one of the caller behind it."""
    content = messages[position].get("content")
    behind = messages[position + 1].get("role") if position + 1 < len(messages) else None
    return behind == "user" and bool(_images(content)) and not words(content).strip()


def _alone(messages: Sequence[Json], position: int) -> list[Any]:
    """Return the parts of the messages of images only that stand right before a message."""
    first = position
    while first > 0 and messages[first - 1].get("role") == "user" and _is_alone(messages, first - 1):
        first -= 1
    return [part for each in messages[first:position] for part in each["content"]]


def _find(shown: Sequence[Shown], number: int | None, place: Place) -> Shown | None:
    """Return what was shown with a message: by the turn's number and its words, where the engine counts turns."""
    for each in shown:
        if number is not None and each.number is not None:
            if number == each.number and place[1] == each.place[1]:
                return each
        elif place == each.place:
            return each
    return None


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _images(content: Any) -> list[Any]:
    if not isinstance(content, list):
        return []
    return [part for part in content if isinstance(part, dict) and part.get("type") == "image_url"]


def _size(content: list[Any]) -> int:
    return sum(len(str(part.get("image_url"))) for part in _images(content))
