"""The staggered race: ask several models, each a little later than the one before, and pass on the first that speaks.

The next model is asked when the last one was silent for `hedge_after`, or at once when one has failed. When all have
failed and there is still time, one of them is asked once more; then those that are left alone for earlier failures.
Speech decides: what comes before it (a role, a blank, reasoning) is held back. Who lost is cancelled and awaited. After
the first spoken word nobody is replaced. Only an UpstreamError counts as failing: a bug is raised, never hedged. Source
of the shape: RFC 8305, happy eyeballs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from . import clock
from .chunk import Chunk, Unspoken
from .errors import AllModelsFailed, UpstreamError, UpstreamSilent
from .health import Budget, Health
from .policy import P95, Policy
from .turn import Attempt, CallNext, Send, Timeline, Turn, nothing

HEDGE_AFTER = 1.2  # seconds, for "p95" while too few answers are known
LEAST = 0.001  # seconds; a sleep may take longer than it should
WITHHELD = "content_filter"  # the finish_reason of an answer that a content policy has taken away


@dataclass(frozen=True, slots=True)
class Runner:
    """One of the models, and what is known of it from earlier turns."""

    name: str
    answer: CallNext
    health: Health = field(default_factory=Health)


async def race(turn: Turn, send: Send, runners: Sequence[Runner], extra: Budget) -> None:
    """Let one of `runners`, best first, answer the turn; those that fail just now are asked only when all do.

    `extra` is what hedges and second tries are paid from; going on to the next model after a failure is free.
    Raises what the winner raises; the first error when no other model could mend any of them; else AllModelsFailed.
    """
    course = _Race(turn, send, runners, extra, clock.now())
    try:
        course.begin()
        await course.run()
    finally:
        await course.clear()


async def once_more(
    turn: Turn, send: Send, answer: CallNext, failed: UpstreamError, *, asked: float, extra: Budget
) -> None:
    """Let a model that stands alone, and `failed` before it began to speak, try a second time, if there is any use.

    Raises what `failed` when there is not, else what the second try ends with.
    """
    course = _Race(turn, send, (), extra, asked)
    try:
        await course.fall_back(Runner(failed.model, answer), failed, asked)
        await course.run()
    finally:
        await course.clear()


class _Race:
    """One turn's race."""

    def __init__(self, turn: Turn, send: Send, runners: Sequence[Runner], extra: Budget, began: float) -> None:
        self.turn = turn
        self.send = send
        self.at_once: Callable[[Chunk], bool] | None = getattr(send, "at_once", None)
        self.winner: Lane | None = None
        self._waiting = list(runners)
        self._is_alone = len(runners) < 2
        self._extra = extra
        self._lanes: dict[asyncio.Task[None], Lane] = {}
        self._failed: list[tuple[Runner, UpstreamError]] = []
        self._hedge_at: float | None = None  # when the next model is asked as well
        self._last_at = began + turn.policy.first_token_timeout  # a second try must have spoken by then
        self._may_repeat = True

    def begin(self) -> None:
        """Ask the first model. When all fail just now it is asked all the same: perhaps it is back."""
        self._start(self._fit() or self._waiting[0], "first")

    async def fall_back(self, runner: Runner, failed: UpstreamError, asked: float) -> None:
        """Begin with a model that was asked without a race, and has failed."""
        code = failed.code or failed.type
        self.turn.attempts.append(Attempt(runner.name, "first", asked, None, clock.now(), "failed", code))
        self._failed.append((runner, failed))
        await self._repeat()

    async def run(self) -> None:
        """Go on until one has spoken to its end, or all have failed."""
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
            if fit is not None and (ended or self._extra.spend()):
                self._start(fit, "failover" if ended else "hedge")
            elif ended and not self._lanes:
                await self._repeat()
            else:
                self._hedge_at = None

    def _fit(self) -> Runner | None:
        """Return the best model that was not asked yet, and does not fail just now."""
        at = clock.now()
        return next((each for each in self._waiting if each.health.breaker(self.turn.key).may_ask(at)), None)

    def _start(self, runner: Runner, why: str) -> None:
        if runner in self._waiting:
            self._waiting.remove(runner)
        policy = self.turn.policy
        if why == "retry":
            left = max(self._last_at - clock.now(), LEAST)
            policy = replace(policy, first_token_timeout=left)
        lane = Lane(self, runner, why, policy)
        self._lanes[lane.task] = lane
        after = policy.hedge_after
        if after == P95:
            after = runner.health.p95() or HEDGE_AFTER
        self._hedge_at = lane.attempt.asked + float(after) if after is not None and self._waiting else None

    async def _take_down(self, lane: Lane) -> None:
        """Note how a model that has not spoken ended: it failed, or wins if silence is meant. Raises what is a bug."""
        error = lane.task.exception()
        if error is None:
            if self.turn.silent:
                await lane.deliver()
                return
            error = UpstreamSilent(withheld=lane.is_withheld())
        if not isinstance(error, UpstreamError):
            raise error
        error.model = error.model or lane.runner.name
        self._failed.append((lane.runner, error))
        lane.failed(error)
        if not error.retryable:
            self._waiting.clear()  # nobody else would take it either; who was asked already may prove us wrong
            self._may_repeat = False

    async def _repeat(self) -> None:
        """Ask the model that may soonest be well again once more, else one that was left alone.

        Raises what is to be told when there is neither.
        """
        at = clock.now()
        left = self._last_at - at
        again = [
            (error.again_after, position)
            for position, (runner, error) in enumerate(self._failed)
            if error.again_after is not None
            and error.again_after < left
            and runner.health.breaker(self.turn.key).may_ask(at + error.again_after)
        ]
        if not again or not self._may_repeat or not self._extra.spend():
            if not self._waiting:
                raise self._failure()
            self._start(self._waiting[0], "failover")  # one that was left alone: perhaps it is back
            return
        pause, position = min(again)
        self._may_repeat = False
        await asyncio.sleep(pause)
        self._start(self._failed[position][0], "retry")

    def _failure(self) -> UpstreamError:
        """Return what is to be told when nobody has spoken."""
        causes = [error for _, error in self._failed]
        if self._is_alone:
            return causes[-1]
        return AllModelsFailed(causes) if any(cause.retryable for cause in causes) else causes[0]

    def decide(self, winner: Lane) -> None:
        """Let `winner` have the turn: the others are cancelled, those that were asked before it as too slow."""
        self.winner = winner
        for lane in self._lanes.values():
            if lane is not winner and not lane.task.done():
                lane.task.cancel()
                lane.lost(was_overtaken=lane.attempt.asked < winner.attempt.asked)

    async def clear(self) -> None:
        """End every model that is still being asked, and wait until its connection is closed."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.leave()
        await asyncio.gather(*lanes, return_exceptions=True)
        if self.winner is not None:
            self.turn.is_calling = self.winner.turn.is_calling
        self.winner = None  # the race and its lanes know each other: all is let go of at once, without the collector


class Lane:
    """One model's way: the `send` of an attempt, which holds back what comes before the first word."""

    def __init__(self, course: _Race, runner: Runner, why: str, policy: Policy) -> None:
        self._course = course
        self.runner = runner
        self._breaker = runner.health.breaker(course.turn.key)
        self.attempt = Attempt(runner.name, why, clock.now())
        course.turn.attempts.append(self.attempt)
        course.turn.asked.append(runner.name)
        outer, trace = course.turn.timeline, course.turn.trace
        self.turn = replace(
            course.turn,
            timeline=Timeline(outer.received, outer.admitted, outer.prepared),
            policy=policy,
            flush=self._flush,
            stalls=0,  # those of an answer before this one are counted already
            trace=None if trace is None else trace.of(self.attempt),
        )
        self._unspoken = Unspoken()
        self._is_probe = self._breaker.asked(self.attempt.asked)
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        """Ask the model. A SystemExit, of a hook or of a stage's `send`, would end the loop and all other calls."""
        try:
            await self.runner.answer(self.turn, self)
        except SystemExit as error:
            raise RuntimeError("a hook or a stage has called sys.exit()") from error

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
            self.attempt.chunks += 1
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
        self.attempt.spoke = clock.now()
        self.runner.health.spoke_after(self.attempt.spoke - self.attempt.asked)
        self._course.decide(self)

    def is_withheld(self) -> bool:
        """True when a content policy has taken the answer away."""
        return any(chunk.finish_reason == WITHHELD for chunk in self._unspoken)

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
        self._end("failed" if self.attempt.spoke is None else "cut")
        self.attempt.error = error.code or error.type
        error.is_second = self.attempt.why == "retry"
        if error.retryable:
            self._breaker.failed(clock.now(), error.retry_after)
        elif self.attempt.spoke is not None:
            self._breaker.spoke()
        else:
            self._say_nothing()

    def lost(self, *, was_overtaken: bool) -> None:
        """Note that another model spoke sooner; one that was asked before it was slow."""
        self._end("lost")
        if was_overtaken:
            # It would have taken at least so long: without its slow answers a model would look ever faster.
            self.runner.health.spoke_after(clock.now() - self.attempt.asked)
            self._breaker.overtaken(clock.now())
        else:
            self._say_nothing()

    def leave(self) -> None:
        """End the attempt, wherever it is; a model that spoke has done well, also when the caller did not wait."""
        self.task.cancel()
        if not self.attempt.outcome:
            has_spoken = self.attempt.spoke is not None
            self._end("answered" if has_spoken else "left")
            if has_spoken:
                self._breaker.spoke()
            else:
                self._say_nothing()
        self._course.turn.stalls += self.turn.stalls
        if self.attempt.spoke is not None:
            self._course.turn.longest_gap = self.turn.longest_gap
        self.turn.flush = nothing

    def _say_nothing(self) -> None:
        """Say neither good nor bad of the model; who was to find out whether it is back has not."""
        if self._is_probe:
            self._breaker.left()

    def _end(self, outcome: str) -> None:
        attempt = self.attempt
        attempt.outcome, attempt.ended = outcome, clock.now()
        if attempt.spoke is None:
            attempt.usage = self._unspoken.usage

    async def _flush(self) -> None:
        if self._course.winner is self:
            await self._course.turn.flush()
