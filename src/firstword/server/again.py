"""The same turn sent again: what becomes of the reply that is under way, or that was just made.

Voice engines speculate, and clients ask again. Rules:
- A session's turn is the same when it has the same number or, without numbers, the same body. Another number, body,
  session or key is another turn, and none touches it.
- A reply is given to a further request only when that has the very content of the first.
- While the first is answered, the platform's rule says what a further one does: it supersedes it, it joins it, or
  neither knows of the other.
- All is in memory, within bounds, for seconds. Other processes hear of a newer request only (`elsewhere`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from .. import clock
from ..chunk import Chunk
from ..platforms import of
from ..turn import CallNext, Send, Turn
from ..who import caller_of, digest
from .run import Cut, Run

JOIN, NONE = "join", "none"
JOINED, REPLAYED = "joined", "replayed"

KEPT = 5.0  # seconds that a whole reply waits for the turn to come again; the SDKs ask again within two
MAX_KEPT = 1_000  # whole replies
MAX_BYTES = 32 * 1024 * 1024  # of frames: of all replies that are kept, and of those under way

# What says that a request is not the first one, and from which number on.
# Sources: `_base_client` of openai-python, `client.ts` of openai-node; Envoy's `include_request_attempt_count`.
RETRY_MARKS = {"x-stainless-retry-count": 1, "x-envoy-attempt-count": 2}

Key: TypeAlias = tuple[str, str]


def rule(resent: str) -> Callable[[Turn], str]:
    """Return what says by which rule a turn may be sent again: by `resent` or, if that is "auto", by its platform's."""
    return lambda turn: of(turn).resent if resent == "auto" else resent


def content_of(turn: Turn) -> str:
    """Return what requests have in common that one reply can answer. How words are written does not count."""
    asked = {name: value for name, value in turn.request.items() if name not in ("stream", "stream_options")}
    sound = [turn.is_audio, turn.stream] if turn.is_audio or turn.wants_audio else None  # it has another format each
    return digest([asked, sound])


def is_retry(headers: Mapping[str, str]) -> bool:
    """True when a request says that it was sent before."""
    counts = ((headers.get(name, ""), least) for name, least in RETRY_MARKS.items())
    return any(len(count) < 10 and count.isdecimal() and int(count) >= least for count, least in counts)


@dataclass(frozen=True, slots=True)
class Sending:
    """One request of a turn that may be sent again. It is a `CallNext`.

    how: "" for the one for which the models are asked; "joined" or "replayed" for one that hears another's reply.
    """

    run: Run
    handler: CallNext
    how: str = ""

    async def __call__(self, turn: Turn, send: Send) -> None:
        """Answer the request."""
        if self.how:
            await self.run.hear(turn, send)
        else:
            await self.run.answer(turn, send, self.handler)

    @property
    def keep(self) -> Callable[[Chunk], None] | None:
        """What takes the chunks that are written; None when they are kept already."""
        return None if self.how or self.run.joins else self.run.keep

    def on_cut(self, cut: Callable[[Cut], None]) -> None:
        """Take what ends the request."""
        if not self.how:
            self.run.cut = cut

    def unhear(self) -> Callable[[], None]:
        """Return what to call when it shows that the reply did not arrive; it keeps no reply from being let go of."""
        found = weakref.ref(self.run)

        def unhear() -> None:
            run = found()
            if run is not None:
                run.was_heard = False

        return unhear


class Elsewhere(Protocol):
    """The other processes that may be asked for the same turn."""

    def begin(self, of: Key, overtaken: Callable[[], None]) -> None:
        """Take a request; `overtaken` is called when another process has a newer one."""

    def end(self, of: Key, overtaken: Callable[[], None]) -> None:
        """Forget it."""


class Repeats:
    """The turns of sessions that are under way, and the replies that were just made.

    handler: answers turns. rule: says what is done with one that comes again: "supersede", "join" or "none".
    elsewhere: the other processes that answer; None when there are none that we know of.
    size: bytes of all that is kept.
    """

    def __init__(self, handler: CallNext, rule: Callable[[Turn], str], elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
        self._handler = handler
        self._rule = rule
        self._running: dict[Key, Run] = {}  # the newest of each turn
        self._kept: dict[Key, Run] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self.size = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._kept)

    def begin(self, turn: Turn) -> Sending | None:
        """Take a request; whom it supersedes is cancelled at once. None when nothing is shared."""
        found = self._key_of(turn)
        if found is None:
            return None
        key, content, rule = found
        older, kept = self._running.get(key), self._kept.get(key)
        if older is not None and older.content == content:
            if older.is_whole or (rule == JOIN and older.may_be_joined):
                return self._further(older, turn)
        elif kept is not None and _may_hear(turn, kept, content):
            return self._further(kept, turn)
        self._forget(key)
        run = Run(key, content, joins=rule == JOIN, weigh=self._weigh)
        if older is not None:
            run.olders = older.busy()
            if not older.is_whole:  # else an engine has all of it, and goes on at once with what it was told to call
                older.supersede()
                run.olders += [] if older.over.done() else [older]
        self._running[key] = run
        if self._elsewhere is not None and not run.joins:
            run.overtaken = partial(_overtaken, run)
            self._elsewhere.begin(key, run.overtaken)
        return Sending(run, self._handler)

    def is_again(self, turn: Turn) -> bool:
        """True when the turn is under way, or was just answered and hears that reply."""
        found = self._key_of(turn)
        if found is None:
            return False
        kept = self._kept.get(found[0])
        return found[0] in self._running or (kept is not None and _may_hear(turn, kept, found[1]))

    def _key_of(self, turn: Turn) -> tuple[Key, str, str] | None:
        """Return what a turn is known by, its content, and its rule; None when nothing is shared."""
        caller = caller_of(turn)
        if caller is None:
            return None
        rule = self._rule(turn)
        if rule == NONE:
            return None
        try:
            content = content_of(turn)
        except RecursionError:
            return None  # the provider's dialect will refuse it
        return (caller, content if turn.number is None else f"number {turn.number}"), content, rule

    def _further(self, run: Run, turn: Turn) -> Sending:
        turn.again = REPLAYED if run.over.done() else JOINED
        return Sending(run, self._handler, turn.again)

    def end(self, sending: Sending, turn: Turn, cut: Cut | None) -> None:
        """Note the end of a request, why ever it ended. A whole reply is kept for a while."""
        run = sending.run
        if cut is None and turn.error is None:
            run.was_heard = True
        if sending.how:
            return
        run.close()
        if self._elsewhere is not None and run.overtaken is not None:
            self._elsewhere.end(run.key, run.overtaken)
            run.overtaken = None  # the two know each other
        run.cut = None
        run.ended = clock.now()
        if self._running.get(run.key) is run:
            # Who comes next has to wait also for the superseded ones that take their time to let go of their models.
            busy = run.busy()
            if busy:
                self._running[run.key] = busy[-1]
            else:
                del self._running[run.key]
                # Sound is played as it is heard; all of it at once would be of no use.
                if turn.error is None and run.is_whole and turn.aloud is None:
                    self._keep(run)
                    return
        self.size -= run.size

    def close(self) -> None:
        """Let go of everything."""
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._kept):
            self._forget(key)

    def _keep(self, run: Run) -> None:
        self._forget(run.key)
        self._kept[run.key] = run
        if len(self._kept) > MAX_KEPT:
            self._forget(next(iter(self._kept)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT, self._tidy)

    def _tidy(self) -> None:
        """Let go of what has waited for long enough, and come again for the next."""
        self._timer = None
        for key, run in list(self._kept.items()):
            left = (run.ended or 0.0) + KEPT - clock.now()
            if left > 0:
                self._timer = asyncio.get_running_loop().call_later(left, self._tidy)
                return
            self._forget(key)

    def _weigh(self, size: int) -> bool:
        """Add so many bytes of a reply. False when that is too much, also without those that wait."""
        self.size += size
        while self.size > MAX_BYTES and self._kept:
            self._forget(next(iter(self._kept)))
        return self.size <= MAX_BYTES

    def _forget(self, key: Key) -> None:
        run = self._kept.pop(key, None)
        if run is not None:
            self.size -= run.size


def _may_hear(turn: Turn, kept: Run, content: str) -> bool:
    """True when a turn is answered with the whole reply that is kept: nobody asks twice for what was heard."""
    return kept.content == content and (not kept.was_heard or is_retry(turn.headers))


def _overtaken(run: Run) -> None:
    """Let another process answer; one that is whole but for its end mark has been heard."""
    if not run.is_whole:
        run.supersede()
