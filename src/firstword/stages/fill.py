"""Say a filler when nothing was said for too long: once a turn, before the answer, as the beginning of its reply.

What comes of the answer before its first word is held back, so that a filler can still go before it; what follows a
filler gets its id, its time and its model. A chunk that needs no waiting goes on without any, as it would without this
stage.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..calls import going_on
from ..chunk import Aside, Chunk, Unspoken
from ..clock import Timer
from ..errors import UpstreamSilent
from ..message import words
from ..platforms import of
from ..turn import CallNext, Send, Stage, Turn

# Pipecat has the model begin each answer with one of these, and takes it off again.
# Source: https://docs.pipecat.ai/server/utilities/turn-management/filter-incomplete-turns
MARKS = frozenset("✓○◐")
DEMANDS_A_MARK = re.compile(r"first (character|symbol|sign)\b", re.IGNORECASE)


def fill() -> Stage:
    """Return the stage that says one of `turn.policy.fillers` when nothing was said by `turn.policy.fill_after`.

    The words get the form that the platform wants. They commit the reply: what fails from then on has no status of
    its own. Raises UpstreamSilent when a filler is all that was said.
    """

    async def wait_and_say(turn: Turn, send: Send, call_next: CallNext) -> None:
        if not turn.stream:
            await call_next(turn, send)
            return
        filler = _Filler(turn, send)
        try:
            await call_next(turn, filler)
            await filler.finish()
        except asyncio.CancelledError:
            filler.give_up()  # nobody waits any more for what the caller does not read
            raise
        finally:
            await filler.stop()

    return wait_and_say


def suits(turn: Turn) -> bool:
    """Return whether words may stand before the answer: a person hears it, and its first character is free."""
    return not (turn.silent or turn.wants_json or turn.wants_audio or any(map(_demands_a_mark, turn.messages)))


def _demands_a_mark(message: dict[str, Any]) -> bool:
    if message.get("role") not in ("system", "developer"):
        return False
    text = words(message.get("content"))
    return not MARKS.isdisjoint(text) or DEMANDS_A_MARK.search(text) is not None


class _Filler:
    """The `send` below this stage."""

    def __init__(self, turn: Turn, send: Send) -> None:
        self._turn = turn
        self._named: dict[str, Any] = {}  # what says that a chunk is a part of the reply which the filler has begun
        self._send = send
        self._has_answer = False  # the answer's own first word was spoken
        self._unspoken = Unspoken()
        self._saying: asyncio.Future[None] | None = None  # a filler that the caller's socket had no room for
        self._timer = Timer(self._due, self._say)
        turn.adjusted.append(self._timer.wind)
        self._flush_below, turn.flush = turn.flush, self._flush
        self._write: Callable[[Chunk], bool] | None = getattr(send, "at_once", None)

    def _due(self) -> float | None:
        policy = self._turn.policy
        return self._turn.timeline.received + policy.fill_after if policy.fillers else None

    def _say(self) -> None:
        turn = self._turn
        if self._has_answer or turn.filled or not (turn.policy.fillers and suits(turn)):
            return  # a hook in a thread may have taken the fillers out in this very moment
        turn.filled = True
        turn.corked = False
        chunk = Aside(turn.chunk({"role": "assistant", "content": of(turn).filler(_chosen(turn))}).data)
        self._named = {name: chunk.data[name] for name in ("id", "created", "model")}
        if self._write is None:
            self._saying = asyncio.ensure_future(self._send(chunk))
        elif not self._write(chunk):
            self._saying = asyncio.ensure_future(self._flush_below())

    async def __call__(self, chunk: Chunk) -> None:
        """Send one chunk of the answer on, behind the filler when there was one."""
        await self._said()
        for each in self._passed(chunk):
            await self._send(each)

    @property
    def at_once(self) -> Callable[[Chunk], bool] | None:
        """What sends without waiting; None when that cannot be."""
        return None if self._write is None else self._at_once

    def _at_once(self, chunk: Chunk) -> bool:
        assert self._write is not None
        if self._has_answer and not self._turn.filled:
            return self._write(chunk)
        has_room = True
        for each in self._passed(chunk):
            has_room = self._write(each)
        return has_room and self._saying is None

    def _passed(self, chunk: Chunk) -> list[Chunk]:
        """Return what is to be sent now: while a filler may go before it, nothing until the answer speaks."""
        chunks = [chunk]
        if not self._has_answer:
            self._has_answer = chunk.speaks
            self._unspoken.add(chunk)
            if not self._has_answer and (self._turn.filled or self._turn.policy.fillers):
                return []
            chunks = self._unspoken.take()
        return _joined(self._named, chunks) if self._turn.filled else chunks

    async def finish(self) -> None:
        """Take the end of the answer: without a filler, one that says nothing goes on as it is."""
        self._timer.stop()
        if self._has_answer:
            return
        if self._turn.filled and not self._turn.silent:
            raise UpstreamSilent(model=self._turn.model)
        chunks = self._unspoken.take()
        for chunk in _joined(self._named, chunks) if self._turn.filled else chunks:
            await self._send(chunk)

    def give_up(self) -> None:
        """End a filler that is being said."""
        if self._saying is not None:
            self._saying.cancel()

    async def stop(self) -> None:
        """Say no filler any more; one that is being said is said to its end."""
        self._timer.stop()
        if self._saying is not None:
            await asyncio.gather(self._saying, return_exceptions=True)
        self._turn.flush = self._flush_below

    async def _flush(self) -> None:
        await self._said()
        await self._flush_below()

    async def _said(self) -> None:
        if self._saying is not None:
            await self._saying
            self._saying = None


def _chosen(turn: Turn) -> str:
    """Return another filler in the next turn of a conversation, and the same one when an engine asks again."""
    fillers = turn.policy.fillers
    return fillers[len(turn.messages) // 2 % len(fillers)]


def _joined(named: dict[str, Any], chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return chunks as parts of a reply that has begun, so `named`."""
    return [joined for chunk in chunks if (joined := going_on(chunk, named)) is not None]
