"""One time that the models are asked for a turn which may be sent again, and whoever hears the reply.

Rules:
- A run that cannot be joined is as if it were not there: its chunks go where they go, and are kept beside.
- A run that can be joined is asked in a task of its own, and its first caller is a listener like those who come later:
  each reads the chunks that are kept, at a pace of its own. It lasts as long as one of them does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from .. import clock
from ..action import Deed
from ..chunk import Chunk
from ..errors import Error, Stopping, Superseded, TooSlow, UpstreamTimeout, UpstreamTruncated
from ..turn import CallNext, Send, Turn

MAX_REPLY = 1024 * 1024  # bytes of frames of one reply: more than is spoken in ten minutes
AHEAD = 256 * 1024  # bytes that a model may be ahead of the fastest of its listeners
QUIET_TIMEOUT = 1.0  # seconds for a superseded turn to let go of its model; a stage may take its time over that
SENT_AGAIN, READ_THAT = "The same turn was sent again.", "read the reply to the later request"
LAST = 3  # chunks at the end of a reply, among which is the one with the finish_reason

# What of a turn is told before its first words, and what decides how a failure of it is told.
OPENING = ("interruptable", "voice")
ENDING = ("policy", "silent", "filled", "apologised", "is_calling", "aloud")


class Cut(Enum):
    """Why a turn was cancelled before its end."""

    LEFT = "the caller hung up"
    LATE = "its time was over"
    STOPPED = "the server was told to stop"
    SUPERSEDED = "it was sent again"


def error_of(cut: Cut | None, turn: Turn) -> Error | None:
    """Return what the caller is told of a turn that was cut off; None when it was not, or there is nobody to tell."""
    if cut is None or cut is Cut.LEFT:
        return None
    if cut is Cut.SUPERSEDED:
        return Superseded(SENT_AGAIN, hint=READ_THAT)
    if cut is Cut.STOPPED:
        return Stopping("The server is being stopped.", hint="ask again; another one may answer")
    said = f"The turn was not over within {turn.policy.turn_timeout:g} seconds."
    return UpstreamTimeout(said, phase="turn", hint="FIRSTWORD_TURN_TIMEOUT is what it may take")


@dataclass(slots=True, eq=False)
class _Place:
    """How far one listener has come in a reply: in chunks, and in bytes."""

    at: int = 0
    size: int = 0


class Run:
    """One time that the models are asked for a turn, and the reply as far as it has come.

    chunks: the reply's; the first `gone` of them are kept no more. size: bytes of those that are.
    over: done when the models are let go of. cut: ends the request for which they are asked.
    weigh: adds so many bytes to those of all runs; False when that is too much.
    """

    def __init__(self, key: tuple[str, str], content: str, *, joins: bool, weigh: Callable[[int], bool]) -> None:
        self.key = key
        self.content = content
        self.chunks: list[Chunk] = []
        self.gone = 0
        self.size = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cut: Callable[[Cut], None] | None = None
        self.olders: list[Run] = []  # those that this one supersedes
        self.overtaken: Callable[[], None] | None = None  # is called when another process has a newer request
        self.was_superseded = False
        self.was_heard = False  # somebody was sent all of it
        self.ended: float | None = None  # when its request was over, on the monotonic clock
        self.joins = joins
        self._weigh = weigh
        self._came_to_its_end = False
        self._can_tell_the_end = True
        self._deed: Deed | None = None
        self._turn: Turn | None = None  # until the models are let go of
        self._marks: dict[str, object] = {}  # what the others who hear the reply have to know of it
        self._has_answer = True  # a filler is none
        # Of a run that may be joined:
        self._error: BaseException | None = None
        self._work: asyncio.Future[None] | None = None
        self._listeners: list[_Place] = []
        self._sent = 0  # bytes of the whole reply so far
        self._news = asyncio.Event()

    @property
    def is_whole(self) -> bool:
        """True when every word of the reply is kept here."""
        if self.gone:
            return False
        return self._came_to_its_end or (
            self._can_tell_the_end and any(chunk.finish_reason for chunk in self.chunks[-LAST:])
        )

    @property
    def may_be_joined(self) -> bool:
        """True when somebody can still hear the reply from its beginning."""
        return self.joins and not (self.gone or self._error or self.was_superseded)

    async def answer(self, turn: Turn, send: Send, handler: CallNext) -> None:
        """Ask, once those that are superseded have let go of their models."""
        self._turn = turn
        self._can_tell_the_end = turn.request.get("n") in (None, 1)
        if self.joins:
            await self._host(turn, send, handler)
        else:
            await self._ask(turn, send, handler)

    async def _ask(self, turn: Turn, send: Send, handler: CallNext) -> None:
        try:
            if self.olders:
                await asyncio.wait([older.over for older in self.olders], timeout=QUIET_TIMEOUT)
                self.olders = self.busy()
            await handler(turn, send)
            self._came_to_its_end = True
        finally:
            self._turn, self._deed = None, turn.deed
            self._has_answer = turn.timeline.spoke is not None
            self._marks = {name: getattr(turn, name) for name in (*OPENING, *ENDING)}
            self.close()

    def busy(self) -> list[Run]:
        """Return those of the superseded that have not let go of their models yet."""
        return [older for older in self.olders if not older.over.done()]

    def supersede(self) -> None:
        """Cancel the run, and whoever hears it. One that has let go of its models only has to be written."""
        if self.over.done() or self.was_superseded:
            return
        self.was_superseded = True
        if self._work is not None:
            self._give_up(Superseded(SENT_AGAIN, hint=READ_THAT))
        if self.cut is not None:
            self.cut(Cut.SUPERSEDED)

    def close(self) -> None:
        """Note that the models are let go of."""
        if not self.over.done():
            self.over.set_result(None)
            self._wake()

    # --- the reply is kept --------------------------------------------------------------------------

    def keep(self, chunk: Chunk) -> None:
        """Keep one more chunk. Of a reply that is too long, or for which there is no room, none is."""
        if self.gone and not self.joins:
            return
        size = len(chunk.frame)
        self.chunks.append(chunk)
        self.size += size
        self._sent += size
        if not self._weigh(size) or self.size > MAX_REPLY:
            self._shorten()

    def _shorten(self) -> None:
        """Let go of what the fastest listener has heard already; of everything when there need not be any."""
        count = len(self.chunks)
        if self.joins:
            count = max((place.at for place in self._listeners), default=self.gone) - self.gone
        size = sum(len(chunk.frame) for chunk in self.chunks[:count])
        del self.chunks[:count]
        self.gone += count
        self.size -= size
        self._weigh(-size)

    # --- one that may be joined ---------------------------------------------------------------------

    async def _host(self, turn: Turn, send: Send, handler: CallNext) -> None:
        """Ask in a task of its own, and hear the reply; the request lasts as long as that task does."""
        turn.flush = self._flush
        work = self._work = asyncio.ensure_future(self._work_on(turn, handler))
        try:
            await self._hear(turn, send, own=True)
        finally:
            try:
                if self._listeners and not self.was_superseded:  # its own caller has left, and others are there
                    within = turn.timeline.received + turn.policy.turn_timeout - clock.now()
                    await asyncio.wait({work}, timeout=max(within, 0.0))
                    if not work.done():
                        self._give_up(UpstreamTimeout("The turn was not over in time.", phase="turn"))
            finally:
                if not work.done():
                    self._give_up(Stopping("The server is being stopped.", hint="ask again; another one may answer"))
                await asyncio.wait({work})
                self._work = None
                if self._came_to_its_end and not self.gone:
                    turn.reply.chunks = list(self.chunks)  # also when its own caller has not heard all of it

    async def _work_on(self, turn: Turn, handler: CallNext) -> None:
        try:
            await self._ask(turn, self, handler)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            self._error = self._error or error  # the listeners raise it
        finally:
            self.close()

    def _give_up(self, error: Error) -> None:
        """End the work; `error` is what its listeners are told."""
        assert self._work is not None
        self._error = self._error or error
        self._work.cancel()

    async def __call__(self, chunk: Chunk) -> None:
        """Take one chunk from the models; wait when they are far ahead of all listeners."""
        if not self.at_once(chunk):
            await self._flush()

    def at_once(self, chunk: Chunk) -> bool:
        """Take one chunk from the models. False when they are far ahead of all listeners."""
        self.keep(chunk)
        self._wake()
        return self._is_near()

    async def _flush(self) -> None:
        while not self._is_near():
            await self._news.wait()

    def _is_near(self) -> bool:
        fastest = max((place.size for place in self._listeners), default=self._sent)
        return self._sent - fastest <= AHEAD

    def _wake(self) -> None:
        """Wake all who wait, for a chunk or for one to be read."""
        self._news.set()
        self._news.clear()

    # --- the reply is heard -------------------------------------------------------------------------

    async def hear(self, turn: Turn, send: Send) -> None:
        """Send the reply to a further request: from its beginning, and as it comes. Raises what it ends with."""
        try:
            await self._hear(turn, send, own=False)
        finally:
            self._lend(turn, ENDING)
            if not self._has_answer:
                turn.timeline.spoke = None
        if self._deed is not None:
            # Somebody speaks again, so that an agent which was to leave has stayed. It has as long as it had before.
            late = 0.0 if self.ended is None else clock.now() - self.ended
            turn.deed = replace(self._deed, due=self._deed.due + late)

    async def _hear(self, turn: Turn, send: Send, *, own: bool) -> None:
        place = _Place()
        self._listeners.append(place)
        try:
            while True:
                while place.at < self.gone + len(self.chunks):
                    chunk = self._next(place)
                    turn.corked = place.at < self.gone + len(self.chunks)
                    if not own:
                        self._lend(turn, OPENING)
                        turn.hears(chunk)
                    if own or _suits(turn, chunk):
                        await send(chunk)
                    self._wake()
                if self.over.done():
                    break
                await self._news.wait()
            if self._error is not None or not (self._came_to_its_end or self.is_whole):
                raise self._told(own=own)
        finally:
            self._listeners.remove(place)
            if self._work is not None and not self._listeners:
                self._work.cancel()  # nobody is left

    def _lend(self, turn: Turn, names: Iterable[str]) -> None:
        """Let another turn have these of the one for which the models are asked."""
        for name in names:
            if name in self._marks or self._turn is not None:
                setattr(turn, name, self._marks[name] if name in self._marks else getattr(self._turn, name))

    def _next(self, place: _Place) -> Chunk:
        if place.at < self.gone:
            raise TooSlow("The reply was not read for too long.", hint="read it as it comes")
        chunk = self.chunks[place.at - self.gone]
        place.at += 1
        place.size += len(chunk.frame)
        return chunk

    def _told(self, *, own: bool) -> BaseException:
        """Return what a listener is told. A mistake in the code is logged once, for the first request."""
        if self._error is None:
            return UpstreamTruncated("The request whose reply this one was to hear was given up.")
        return self._error if own or isinstance(self._error, Error) else Error("The server made a mistake.")


def _suits(turn: Turn, chunk: Chunk) -> bool:
    """False for a chunk that only counts tokens, when the request has not asked for that."""
    options = turn.request.get("stream_options")
    wants_usage = not turn.stream or (isinstance(options, dict) and bool(options.get("include_usage")))
    return wants_usage or bool(chunk.look().choices) or not chunk.look().usage
