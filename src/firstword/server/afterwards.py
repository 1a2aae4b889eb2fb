"""What comes when a turn is over: it is counted and logged, and the user's hooks are called, off the reply's path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from .. import clock
from ..errors import Error, Superseded
from ..mistakes import log_mistake
from ..telemetry import Counts
from ..turn import Turn
from .webhook import Webhook

log = logging.getLogger("firstword")

AfterTurn: TypeAlias = Callable[[Turn], Awaitable[None]]

LINE = "turn ended id=%s status=%d outcome=%s first_word=%.4f seconds=%.4f%s"
MAX_NAME = 100  # signs of a model's name in the log
JOBS_TIMEOUT = 10.0  # seconds that the jobs of turns that are over get when the server stops


class Actions(Protocol):
    """What lets a turn ask to end or transfer its call."""

    def begin(self, turn: Turn) -> None:
        """Take a turn that begins."""

    async def finish(self, turn: Turn) -> None:
        """Do what is left to do of the `deed` of a turn whose reply was sent."""


class Afterwards:
    """Notes the end of turns. `after` hears of each one; `webhook` and `actions` of those that concern them."""

    def __init__(
        self,
        counts: Counts,
        *,
        after: AfterTurn | None = None,
        actions: Actions | None = None,
        webhook: Webhook | None = None,
        debug: bool = False,
    ) -> None:
        self._counts = counts
        self._after = after
        self._actions = actions
        self._webhook = webhook
        self._debug = debug
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def keeps_replies(self) -> bool:
        """True when somebody reads what was sent, once the turn is over."""
        return self._after is not None

    def expect(self, turn: Turn) -> None:
        """Take a turn that begins."""
        self._counts.begin()
        if self._actions is not None:
            self._actions.begin(turn)

    @property
    def running(self) -> int:
        """How many jobs are being done."""
        return len(self._jobs)

    def refused(self, error: Error) -> None:
        """Note a request that was refused before it was a turn."""
        self._counts.note_refusal(error)

    async def drain(self) -> None:
        """Wait for what is still done for turns that are over, and end what takes too long."""
        if self._jobs:
            _, late = await asyncio.wait(self._jobs, timeout=JOBS_TIMEOUT)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def log_bug(self, turn: Turn | None, error: BaseException) -> None:
        """Log where a mistake was made; what it says may be a caller's words, so only on request."""
        log_mistake(f"mistake id={turn.id if turn is not None else ''}", error, debug=self._debug)

    def end(self, turn: Turn, status: int, *, hung_up: bool) -> None:
        """Note the end of a turn, and start what comes after it. status: of the reply; 0 when none has begun."""
        timeline = turn.timeline
        timeline.ended = clock.now()
        spoke = -1.0 if timeline.spoke is None else timeline.spoke - timeline.received
        error = turn.error
        outcome = "hung_up" if hung_up else "answered" if error is None else error.code or error.type
        if isinstance(error, Superseded) and not turn.again:
            turn.again = "superseded"
        self._counts.note(turn, outcome)
        if self._webhook is not None:
            self._webhook.note(turn)
        level = logging.INFO if error is None or turn.again == "superseded" else logging.WARNING
        if log.isEnabledFor(level):
            seconds = timeline.ended - timeline.received
            facts = (turn.id, status, outcome, spoke, seconds, "" if turn.is_plain else _more_facts(turn))
            # Made by hand: to look up which line of which file logs, as `log.log` does, costs as much as all the rest.
            log.handle(log.makeRecord(log.name, level, "", 0, LINE, facts, None))
        turn.judge = None
        if self._after is not None and not turn.is_repeat:
            self._start(self._after, turn)
        if turn.deed is not None and self._actions is not None and outcome == "answered":
            self._start(self._actions.finish, turn)

    def _start(self, after: AfterTurn, turn: Turn) -> None:
        job = asyncio.create_task(self._run_after(after, turn))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _run_after(self, after: AfterTurn, turn: Turn) -> None:
        try:
            await after(turn)
        except Exception as error:
            self.log_bug(turn, error)


def _more_facts(turn: Turn) -> str:
    """Return what else the log says of a turn that was not plain: who was asked, what was said by us, what failed."""
    facts = [f"asked={','.join(_one_word(attempt.model) for attempt in turn.attempts)}"] if turn.attempts else []
    facts += [f"model={_one_word(turn.answered_by)}"] if turn.answered_by else []
    facts += [f"tools={len(turn.called)}"] if turn.called else []
    facts += ["aloud"] if turn.aloud is not None else []
    facts += [name for name in ("filled", "apologised") if getattr(turn, name)]
    facts += [turn.again] if turn.is_repeat else []
    facts += ["truncated"] if turn.reply.truncated else []
    facts += [f"stalls={turn.stalls}"] if turn.stalls else []
    facts += [f"host={turn.error.detail}"] if turn.error is not None and turn.error.detail else []
    return "".join(f" {fact}" for fact in facts)


def _one_word(name: str) -> str:
    """Return a model's name as one word of a line: without a list of models it is whatever the caller wrote."""
    return "".join(sign if sign.isprintable() and sign not in " ,=" else "?" for sign in name[:MAX_NAME])
