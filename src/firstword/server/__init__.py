"""The server: a bare ASGI application with one hot route, and the ordinary pages beside it.

One task per turn. Whatever ends first, the turn or the caller's patience, ends the other; a turn that is
cancelled has closed its upstream connection before its task is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from .. import clock
from ..admission import Gate
from ..clock import Timer, timeout, was_cancelled
from ..errors import Error, MethodNotAllowed, RequestError, Superseded, UpstreamSilent
from ..mistakes import log_mistake
from ..platforms import Asked
from ..telemetry import Counts
from ..turn import CallNext, Seen, Send, Turn, nothing
from .again import Repeats, Sending, rule
from .apology import left_to_say, said_instead
from .pages import Info, Pages
from .reading import Reader
from .request import Gone, read_body, read_headers, read_json, read_query
from .routes import CHAT, CHAT_PATHS, EVENTS, PLAIN, Route, route
from .run import Cut, error_of
from .webhook import Webhook
from .writers import ASGISend, EventWriter, Exchange, ObjectWriter, both, refuse, send_json

log = logging.getLogger("firstword")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Writer: TypeAlias = EventWriter | ObjectWriter
AfterTurn: TypeAlias = Callable[[Turn], Awaitable[None]]

LINE = "turn ended id=%s status=%d outcome=%s first_word=%.4f seconds=%.4f%s"

# The ASGI extension of our own protocol: its exchange, which a turn may write to and hear of a hang-up from.
EXCHANGE = "firstword.exchange"

MAX_NAME = 100  # signs of a model's name in the log

JOBS_TIMEOUT = 10.0  # seconds that the jobs of turns that are over get when the server stops
FAIL_TIMEOUT = 1.0  # seconds to tell a caller that the turn failed; one who does not read is left


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may take: bytes of body, and seconds for it."""

    max_body: int
    body_timeout: float


class Actions(Protocol):
    """What lets a turn ask to end or transfer its call."""

    def begin(self, turn: Turn) -> None:
        """Take a turn that begins."""

    async def finish(self, turn: Turn) -> None:
        """Do what is left to do of the `deed` of a turn whose reply was sent."""


class Server:
    """The ASGI application. `handler` answers turns; `after` hears of each one that is over; `tidy`: see there.

    resent: what a turn that is sent again does, "supersede", "join" or "none"; "auto" is the platform's own rule.
    """

    def __init__(
        self,
        handler: CallNext,
        *,
        reader: Reader,
        gate: Gate,
        bounds: Bounds,
        info: Info,
        counts: Counts,
        after: AfterTurn | None = None,
        actions: Actions | None = None,
        webhook: Webhook | None = None,
        tidy: Callable[[Turn], None] | None = None,
        resent: str = "auto",
        debug: bool = False,
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._repeats = None if resent == "none" else Repeats(self._ask, rule(resent))
        self._gate = gate
        self._bounds = bounds
        self._after = after
        self._actions = actions
        self._webhook = webhook
        self._tidy = tidy
        self._debug = debug
        self._counts = counts
        self._pages = Pages(gate, info, counts)
        self._jobs: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
            if "//" in path:  # a base URL that ends with a slash, and a path that begins with one
                path = "/" + "/".join(part for part in path.split("/") if part)
            where = PLAIN if path in CHAT_PATHS else route(path, self._reader.is_platform)
            if where is not None and where.is_turn:
                await self._chat_completions(scope, receive, send, where, clock.now())
            elif self._webhook is not None and path == EVENTS:
                await self._webhook.answer(scope, receive, send)
            else:
                await self._pages.answer(path if where is None else where.tail, scope, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def _ask(self, turn: Turn, send: Send) -> Awaitable[None]:
        return self._handler(turn, send)  # looked up now: tests put another around it

    async def drain(self) -> None:
        """Wait for the jobs of turns that are over, and end those that take too long."""
        if self._repeats is not None:
            self._repeats.close()
        if self._jobs:
            _, late = await asyncio.wait(self._jobs, timeout=JOBS_TIMEOUT)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _chat_completions(
        self, scope: Scope, receive: Receive, send: ASGISend, where: Route, received: float
    ) -> None:
        try:
            exchange: Exchange | None = scope.get("extensions", {}).get(EXCHANGE)
            turn = await self._read_turn(scope, receive, exchange, where)
            turn.timeline.received = received
        except RequestError as error:
            await refuse(send, error)
            return
        except Gone:
            return
        except Exception as error:
            # A platform of somebody else's; what it says may hold a caller's words.
            self._log_bug(None, error)
            mistake = Error("The server made a mistake.", hint="its operator finds it in the log")
            await send_json(send, mistake.status, mistake.body(), {})
            return
        if exchange is None:
            send = _heard_by_somebody(send)
        sending = None if self._repeats is None else self._repeats.begin(turn)
        writer = self._writer(turn, send, exchange, sending)
        if exchange is None:
            cut = await self._answer_beside(receive, turn, writer, sending)
        else:
            cut = await self._answer_here(exchange, turn, writer, sending)
        failure = error_of(cut, turn)
        turn.error = failure or turn.error
        if sending is not None and self._repeats is not None:
            self._repeats.end(sending, turn, cut)
            if exchange is not None:
                exchange.on_loss(sending.unhear())
        if failure is not None:
            await self._fail(turn, writer)
        turn.flush = nothing  # the writer knows the turn: all is let go of at once, without the collector
        self._end(turn, writer.status, hung_up=cut is Cut.LEFT)

    def _writer(self, turn: Turn, send: ASGISend, exchange: Exchange | None, sending: Sending | None) -> Writer:
        keep = None if sending is None else sending.keep
        if not turn.stream:
            return ObjectWriter(turn, send, keep=keep)
        if self._after is not None:
            keep = both(turn.reply.chunks.append, keep)
        return EventWriter(turn, send, exchange, keep=keep)

    async def _answer_here(self, exchange: Exchange, turn: Turn, writer: Writer, sending: Sending | None) -> Cut | None:
        """Answer in this very task, which our own protocol lets us cancel as soon as the caller leaves."""
        task = asyncio.current_task()
        assert task is not None
        why: Cut | None = None

        def cut(reason: Cut) -> None:
            nonlocal why
            if why is None:
                why = reason
                task.cancel()

        if sending is not None:
            sending.on_cut(cut)
        late = _timer(turn, lambda: cut(Cut.LATE))
        exchange.on_leave(lambda: cut(Cut.LEFT))
        try:
            return await self._answer(turn, writer, sending)
        except asyncio.CancelledError:
            return why or Cut.STOPPED
        finally:
            late.stop()
            turn.adjusted.clear()
            exchange.on_leave(None)

    async def _answer_beside(self, receive: Receive, turn: Turn, writer: Writer, sending: Sending | None) -> Cut | None:
        """Answer under any ASGI server: two tasks, so that the turn and the caller's patience can end each other."""
        answer = asyncio.create_task(self._answer(turn, writer, sending))
        gone = asyncio.create_task(_hang_up(receive))
        over: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()

        def cut(reason: Cut) -> None:
            if not over.done():
                over.set_result(reason)

        if sending is not None:
            sending.on_cut(cut)
        late = _timer(turn, lambda: cut(Cut.LATE))
        why = Cut.LEFT
        try:
            ended, _ = await asyncio.wait((answer, gone, over), return_when=asyncio.FIRST_COMPLETED)
            if over in ended:
                why = over.result()
        except asyncio.CancelledError:
            why = Cut.STOPPED  # whoever runs us was told to stop, and has no more patience
        late.stop()
        turn.adjusted.clear()
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
        return why if answer.cancelled() else answer.result()

    async def _read_turn(self, scope: Scope, receive: Receive, exchange: Exchange | None, where: Route) -> Turn:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{CHAT} takes POST.", allow=["POST"])
        headers = read_headers(scope["headers"])
        key = self._gate.admit(headers, scope.get("client"))
        admitted = clock.now()
        bounds = self._bounds
        here = None if exchange is None else exchange.take_body()
        body = await read_body(receive, headers, here, limit=bounds.max_body, within=bounds.body_timeout)
        query = read_query(scope.get("query_string", b""))
        turn = self._reader.read(Asked(read_json(body), headers, query, scope["path"], key), where)
        if turn.platform != "openai" and self._tidy is not None:  # an engine's history, not what a plain client means
            self._tidy(turn)
        turn.timeline.admitted = admitted
        turn.timeline.prepared = clock.now()
        if self._actions is not None:
            self._actions.begin(turn)
        return turn

    async def _answer(self, turn: Turn, writer: Writer, sending: Sending | None) -> Cut | None:
        """Answer one turn: exactly one ending, whatever happens."""
        try:
            answer = self._handler if sending is None else sending
            await answer(turn, _echoing(turn, writer) if turn.echo else writer)
            if not (writer.has_spoken or turn.silent or turn.policy.apology is None):
                raise UpstreamSilent(model=turn.model)
            await writer.close()
            return None
        except Gone:
            return Cut.LEFT
        except Error as error:
            turn.error = error
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # A cancellation that nobody asked of this turn is somebody else's, as of a search in a hook.
            if isinstance(error, asyncio.CancelledError) and was_cancelled():
                raise
            self._log_bug(turn, error)
            hint = f"its operator finds it in the log as {turn.id}"
            turn.error = Error("The server made a mistake.", hint=hint)
        await self._fail(turn, writer)
        return None

    async def _fail(self, turn: Turn, writer: Writer) -> None:
        assert turn.error is not None
        try:
            async with timeout(FAIL_TIMEOUT):
                words = said_instead(turn, writer)
                if turn.aloud is not None:
                    words = left_to_say(turn, writer, words)
                turn.apologised = turn.apologised or bool(words)
                turn.reply.truncated = bool(writer.status) and turn.timeline.spoke is not None
                if words is None:
                    await writer.fail(turn.error)
                else:
                    await writer.conclude(words)
        except (Exception, Gone):
            log.info("caller does not read id=%s", turn.id)

    def _end(self, turn: Turn, status: int, *, hung_up: bool) -> None:
        """Note the end of a turn, and start what comes after it, off the reply's path."""
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
            self._log_bug(turn, error)

    def _log_bug(self, turn: Turn | None, error: BaseException) -> None:
        """Log where a mistake was made; what it says may be a caller's words, so only on request."""
        log_mistake(f"mistake id={turn.id if turn is not None else ''}", error, debug=self._debug)


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


def _echoing(turn: Turn, send: Send) -> Send:
    """Return a `send` that puts what the engine wants back into every chunk."""
    return Seen(turn, lambda chunk: chunk.changed(**turn.echo), send)


def _timer(turn: Turn, call: Callable[[], None]) -> Timer:
    """Return the timer that calls when the turn's time is over, also when `turn.adjust` has given it another."""
    timer = Timer(lambda: turn.timeline.received + turn.policy.turn_timeout, call)
    turn.adjusted.append(timer.wind)
    return timer


def _heard_by_somebody(send: ASGISend) -> ASGISend:
    """Return a `send` that ends the turn when the caller is gone, which some servers tell by an OSError.

    Once a part was lost on its way nothing more is sent: what comes behind a gap would not be understood.
    """
    lost = False

    async def tell(message: MutableMapping[str, Any]) -> None:
        nonlocal lost
        if lost:
            return
        try:
            await send(message)
        except OSError:
            lost = True
            raise Gone from None
        except BaseException:
            lost = True
            raise

    return tell


async def _hang_up(receive: Receive) -> None:
    """Return when the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
