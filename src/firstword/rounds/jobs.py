"""The jobs of tools that change something in the world: each is begun once a turn, and done whatever the caller does.

Engines send a turn again, and callers interrupt. A job that was begun for a turn is the same one for whoever sends that
turn again, and its result, when nobody was there to hear it, is kept for the session's next turn. All is in memory: a
process of its own (a worker) knows nothing of the others' jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from .. import clock
from ..action import Action
from ..calls import Call
from ..turn import Turn
from ..who import caller_of, digest, moment_of

ONCE = 60.0  # seconds in which a turn that is sent again gets the first one's result
KEPT = 600.0  # seconds for which a result waits for the session's next turn
MAX_JOBS = 1_000
MAX_BYTES = 8 * 1024 * 1024  # of their results
DRAIN_TIMEOUT = 10.0  # seconds that running jobs get when the server stops
END_TIMEOUT = 1.0  # seconds that one gets to end once it is cancelled


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call; see `Called`. `action` is what was asked for meanwhile."""

    text: str
    kind: str
    action: Action | None = None


class Job:
    """One job. `task` is done with its Outcome."""

    def __init__(self, call: Call, moment: str, task: asyncio.Task[Outcome]) -> None:
        self.call = call
        self.moment = moment
        self.task = task
        self.told: str | None = None  # the moment in which a model was told the result
        self.ended: float | None = None
        self.size = 0
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Outcome]) -> None:
        self.ended = clock.now()
        # A cancelled one is over with the server. To ask for the error of another keeps asyncio from complaining.
        if not task.cancelled() and task.exception() is None:
            self.size = len(task.result().text)


class Jobs:
    """All jobs of an App."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Job]] = {}  # by caller, and by turn, tool and arguments
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def running(self) -> int:
        """How many are being done."""
        return len(self._running)

    def begin(self, turn: Turn, call: Call, run: Callable[[], Coroutine[Any, Any, Outcome]]) -> Job:
        """Return the job of a call: the one that was begun for the same turn, else a new one that does `run`."""
        self._forget()
        moment = moment_of(turn)
        jobs = self._jobs.setdefault(caller_of(turn) or moment, {})
        key = digest([moment, call.name, call.arguments])
        if key not in jobs:
            jobs[key] = Job(call, moment, self.keep(asyncio.ensure_future(run())))
        return jobs[key]

    def keep(self, task: asyncio.Task[Any]) -> asyncio.Task[Any]:
        """Hold a task until it is done."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def untold(self, turn: Turn) -> list[Job]:
        """Return the jobs of the session's earlier turns whose results no model was told in a turn but this one."""
        jobs = self._jobs and self._jobs.get(caller_of(turn) or "")
        if not jobs:
            return []
        moment = moment_of(turn)
        return [job for job in jobs.values() if job.moment != moment and job.told in (None, moment)]

    async def drain(self) -> None:
        """Wait for the jobs that are running, and end those that take too long."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=END_TIMEOUT)

    def _forget(self) -> None:
        """Let go of what nobody asks for any more, and of the oldest results when there are too many."""
        now = clock.now()
        count, size = 0, 0
        # By when they ended: a session that is long on the line must not lose its newest result for an old one.
        for caller, key, job in sorted(self._all(), key=lambda each: each[2].ended or now, reverse=True):
            count += 1
            size += job.size
            if job.ended is None:
                continue
            kept = ONCE if job.told is not None else KEPT
            if now - job.ended > kept or count > MAX_JOBS or size > MAX_BYTES:
                del self._jobs[caller][key]
                if not self._jobs[caller]:
                    del self._jobs[caller]

    def _all(self) -> Iterator[tuple[str, str, Job]]:
        for caller, jobs in self._jobs.items():
            for key, job in jobs.items():
                yield caller, key, job
