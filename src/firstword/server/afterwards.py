"""What comes when a turn is over: it is counted and logged, and the user's hooks are called, off the reply's path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from .. import clock
from ..console import Console
from ..errors import Error, Superseded
from ..mistakes import log_mistake
from ..telemetry import Counts
from ..telemetry.lines import Lines
from ..trace import passed_on
from ..turn import Turn
from .tasks import Tasks
from .webhook import Webhook

if TYPE_CHECKING:
    from ..telemetry.traces import Traces  # whose library is loaded only when traces are kept

AfterTurn: TypeAlias = Callable[[Turn], Awaitable[None]]


class Actions(Protocol):
    """What lets a turn ask to end or transfer its call."""

    def begin(self, turn: Turn) -> None:
        """Take a turn that begins."""

    async def finish(self, turn: Turn) -> None:
        """Do what is left to do of the `deed` of a turn whose reply was sent."""


class Afterwards:
    """Notes the end of turns. Each of `after` hears of it; `webhook` and `actions` of those that concern them.

    lines: what each leaves in the log. console: what shows the last ones, if somebody may look. traces: what keeps
    their spans; None: a trace is only passed on.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        after: Sequence[AfterTurn] = (),
        lines: Lines | None = None,
        console: Console | None = None,
        traces: Traces | None = None,
        actions: Actions | None = None,
        webhook: Webhook | None = None,
        debug: bool = False,
    ) -> None:
        self._counts = counts
        self._after = list(after)
        self._lines = lines or Lines()
        self._console = console
        self._traces = traces
        if traces is not None and traces.keeps_content:
            self._after.append(traces.end_with_content)
        self.keeps_replies = bool(self._after)  # somebody reads what was sent, once the turn is over
        self._actions = actions
        self._webhook = webhook
        self._debug = debug
        self._jobs = Tasks()

    def expect(self, turn: Turn) -> None:
        """Take a turn that begins."""
        self._counts.begin()
        if self._traces is not None:
            turn.trace = self._traces.begin(turn.headers)
        elif "traceparent" in turn.headers:
            turn.trace = passed_on(turn.headers)
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
        await self._jobs.drain()

    def log_bug(self, turn: Turn | None, error: BaseException) -> None:
        """Log where a mistake was made; what it says may be a caller's words, so only on request."""
        log_mistake(f"mistake id={turn.id if turn is not None else ''}", error, debug=self._debug)

    def end(self, turn: Turn, status: int, *, hung_up: bool) -> None:
        """Note the end of a turn, and start what comes after it. status: of the reply; 0 when none has begun."""
        turn.timeline.ended = clock.now()
        error = turn.error
        outcome = "hung_up" if hung_up else "answered" if error is None else error.code or error.type
        if isinstance(error, Superseded) and not turn.again:
            turn.again = "superseded"
        self._counts.note(turn, outcome)
        if self._webhook is not None:
            self._webhook.note(turn)
        self._lines.write(turn, status, outcome)
        if self._console is not None:
            self._console.note(self._lines.fields(turn, status, outcome))
        turn.judge = None
        if turn.trace is not None:
            turn.trace.status, turn.trace.outcome = status, outcome
            if self._traces is not None and (turn.is_repeat or not self._traces.keeps_content):
                self._traces.end(turn)
        for after in () if turn.is_repeat else self._after:
            self._start(after, turn)
        if turn.deed is not None and self._actions is not None and outcome == "answered":
            self._start(self._actions.finish, turn)

    def _start(self, after: AfterTurn, turn: Turn) -> None:
        self._jobs.start(self._run_after(after, turn))

    async def _run_after(self, after: AfterTurn, turn: Turn) -> None:
        try:
            await after(turn)
        except Exception as error:
            self.log_bug(turn, error)
