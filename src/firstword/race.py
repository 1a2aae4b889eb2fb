"""The staggered race: ask several models, each a little later than the one before, and pass on the first that speaks.

The next model is asked when the last one was silent for `hedge_after`, or at once when one has failed; each is asked
once. Speech decides: what comes before it (a role, a blank, reasoning) is held back. Who lost is cancelled and
awaited. After the first spoken word nobody is replaced. Only an UpstreamError counts as failing: a bug is raised,
never hedged. Source of the shape: RFC 8305, happy eyeballs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from . import clock
from .chunk import Chunk, Unspoken
from .errors import AllModelsFailed, UpstreamError, UpstreamSilent
from .health import Budget, Health
from .policy import P95
from .turn import CallNext, Send, Timeline, Turn, nothing

HEDGE_AFTER = 1.2  # seconds, for "p95" while too few answers are known


@dataclass(frozen=True, slots=True)
class Runner:
    """One of the models, and what is known of it from earlier turns."""

    name: str
    answer: CallNext
    health: Health = field(default_factory=Health)


async def race(turn: Turn, send: Send, runners: Sequence[Runner], hedges: Budget) -> None:
    """Let one of `runners`, best first, answer the turn; those that fail just now are asked only when all do.

    Raises what the winner raises; the first error when no other model could mend any of them; else AllModelsFailed.
    """
    hedges.earn()
    course = _Race(turn, send, runners, hedges)
    try:
        await course.run()
    finally:
        await course.clear()


class _Race:
    """One turn's race."""

    def __init__(self, turn: Turn, send: Send, runners: Sequence[Runner], hedges: Budget) -> None:
        self.turn = turn
        self.send = send
        self.at_once: Callable[[Chunk], bool] | None = getattr(send, "at_once", None)
        self.winner: Lane | None = None
        self._waiting = list(runners)
        self._hedges = hedges
        self._lanes: dict[asyncio.Task[None], Lane] = {}
        self._causes: list[UpstreamError] = []
        self._hedge_at: float | None = None  # when the next model is asked as well

    async def run(self) -> None:
        # When all fail just now the first one is asked: perhaps it is back, and nothing is lost.
        self._start(self._fit() or self._waiting[0])
        while True:
            within = None if self._hedge_at is None else max(self._hedge_at - clock.now(), 0.0)
            ended, _ = await asyncio.wait(self._lanes, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if self.winner is not None:
                await self.winner.finish()
                return
            for task in ended:
                lane = self._lanes.pop(task)
                try:
                    await self._take_down(lane)
                finally:
                    lane.leave()
            if self.winner is not None:
                return
            fit = self._fit()
            if fit is not None and (ended or self._hedges.spend()):
                self._start(fit)
            elif ended and not self._lanes:
                raise self._failure()
            else:
                self._hedge_at = None

    def _fit(self) -> Runner | None:
        """Return the best model that was not asked yet, and does not fail just now."""
        at = clock.now()
        return next((each for each in self._waiting if each.health.breaker(self.turn.key).may_ask(at)), None)

    def _start(self, runner: Runner) -> None:
        self._waiting.remove(runner)
        self.turn.asked.append(runner.name)
        lane = Lane(self, runner)
        self._lanes[lane.task] = lane
        after = self.turn.policy.hedge_after
        if after == P95:
            after = runner.health.p95() or HEDGE_AFTER
        self._hedge_at = lane.asked + float(after) if after is not None and self._waiting else None

    async def _take_down(self, lane: Lane) -> None:
        """Note how a model that has not spoken ended: it failed, or wins if silence is meant. Raises what is a bug."""
        error = lane.task.exception()
        if error is None:
            if self.turn.silent:
                await lane.deliver()
                return
            error = UpstreamSilent("The model ended its answer without a word.", model=lane.runner.name)
        if not isinstance(error, UpstreamError):
            raise error
        error.model = error.model or lane.runner.name
        self._causes.append(error)
        lane.failed(error)
        if not error.retryable:
            self._waiting.clear()  # nobody else would take it either; who was asked already may prove us wrong

    def _failure(self) -> UpstreamError:
        """Return what is to be told when nobody has spoken."""
        if any(cause.retryable for cause in self._causes):
            return AllModelsFailed(self._causes)
        return self._causes[0]

    def decide(self, winner: Lane) -> None:
        """Let `winner` have the turn: the others are cancelled, those that were asked before it as too slow."""
        self.winner = winner
        for lane in self._lanes.values():
            if lane is not winner:
                lane.task.cancel()
                if lane.asked < winner.asked and not lane.task.done():
                    lane.overtaken()

    async def clear(self) -> None:
        """End every model that is still being asked, and wait until its connection is closed."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.leave()
        await asyncio.gather(*lanes, return_exceptions=True)
        self.winner = None  # the race and its lanes know each other: all is let go of at once, without the collector


class Lane:
    """One model's way: the `send` of an attempt, which holds back what comes before the first word."""

    def __init__(self, course: _Race, runner: Runner) -> None:
        self._course = course
        self.runner = runner
        self._breaker = runner.health.breaker(course.turn.key)
        self.asked = clock.now()
        self._is_judged = False  # its breaker knows how this attempt ended
        outer = course.turn.timeline
        self.turn = replace(
            course.turn,
            timeline=Timeline(outer.received, outer.admitted, outer.prepared),
            flush=self._flush,
        )
        self._unspoken = Unspoken()
        self._breaker.asked(self.asked)
        self.task: asyncio.Task[None] = asyncio.ensure_future(runner.answer(self.turn, self))

    async def __call__(self, chunk: Chunk) -> None:
        """Send one chunk on if this model has the turn; hold it back, or drop it, if not."""
        for each in self._passed(chunk):
            await self._course.send(each)

    @property
    def at_once(self) -> Callable[[Chunk], bool] | None:
        """What sends without waiting; None when that cannot be."""
        return None if self._course.at_once is None else self._at_once

    def _at_once(self, chunk: Chunk) -> bool:
        assert self._course.at_once is not None
        has_room = True
        for each in self._passed(chunk):
            has_room = self._course.at_once(each)
        return has_room

    def _passed(self, chunk: Chunk) -> Sequence[Chunk]:
        """Return what is to be sent now: nothing until this model speaks, then all that was held back."""
        if self._course.winner is None:
            self._unspoken.add(chunk)
            if not chunk.speaks:
                return ()
            self._win()
            self._course.turn.corked = self.turn.corked
            return self._unspoken.take()
        if self._course.winner is not self:
            return ()
        self._course.turn.corked = self.turn.corked
        return (chunk,)

    def _win(self) -> None:
        mine, outer = self.turn.timeline, self._course.turn.timeline
        outer.asked, outer.answered, outer.spoke = mine.asked, mine.answered, mine.spoke
        self._course.turn.answered_by = self.runner.name
        self.runner.health.spoke_after(clock.now() - self.asked)
        self._course.decide(self)

    async def deliver(self) -> None:
        """Send what was held back of an answer that is meant to be silent."""
        self._win()
        for each in self._unspoken.take():
            await self._course.send(each)

    async def finish(self) -> None:
        """Wait for the end of the answer. Raises what it ends with."""
        await asyncio.wait((self.task,))
        error = self.task.exception()
        if isinstance(error, UpstreamError):
            self.failed(error)
        if error is not None:
            raise error

    def failed(self, error: UpstreamError) -> None:
        """Note that the model failed; what another one would have refused as well says nothing of it."""
        if error.retryable:
            self._is_judged = True
            self._breaker.failed(clock.now(), error.retry_after)

    def overtaken(self) -> None:
        """Note that another model, asked later, spoke sooner."""
        self._is_judged = True
        self._breaker.overtaken(clock.now())

    def leave(self) -> None:
        """End the attempt, wherever it is; a model that spoke has done well, also when the caller did not wait."""
        self.task.cancel()
        if not self._is_judged:
            self._is_judged = True
            if self._course.winner is self:
                self._breaker.spoke()
            else:
                self._breaker.left()
        self.turn.flush = nothing

    async def _flush(self) -> None:
        if self._course.winner is self:
            await self._course.turn.flush()
