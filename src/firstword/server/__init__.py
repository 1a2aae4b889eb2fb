"""The server: a bare ASGI application with one hot route, and the ordinary pages beside it.

One task per turn. Whatever ends first, the turn or the caller's patience, ends the other; a turn that is
cancelled has closed its upstream connection before its task is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .. import clock
from ..admission import Gate
from ..admission.hosts import Hosts
from ..clock import Timer, timeout, was_cancelled
from ..errors import Error, MethodNotAllowed, Overloaded, RequestError, UpstreamSilent
from ..limits import Lease, Limits
from ..limits.sizes import Sizes
from ..platforms import Asked, of
from ..turn import CallNext, Seen, Send, Turn, nothing
from .admitting import admitted, bound, check_model
from .afterwards import Afterwards
from .again import Elsewhere, Repeats, Sending, rule
from .apology import left_to_say, said_instead
from .pages import Pages
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

# The ASGI extension of our own protocol: its exchange, which a turn may write to and hear of a hang-up from.
EXCHANGE = "firstword.exchange"

END_TIMEOUT = 3.0  # seconds that turns get to end when the server is closed
LOOK = 0.02  # seconds between two looks whether they have
FAIL_TIMEOUT = 1.0  # seconds to tell a caller that the turn failed; one who does not read is left


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may take: bytes of body, seconds for it, and what else may be in it."""

    max_body: int
    body_timeout: float
    sizes: Sizes | None = None


class Server:
    """The ASGI application. `handler` answers turns, `pages` all else; `afterwards` hears of each turn that is over.

    hosts: the names that it answers to; None = any.
    limits: how many turns there may be, and how much each caller may take.
    resent: what a turn that is sent again does, "supersede", "join" or "none"; "auto" is the platform's own rule.
    elsewhere: the other processes that may be asked for the same turn.
    """

    def __init__(
        self,
        handler: CallNext,
        *,
        reader: Reader,
        gate: Gate,
        bounds: Bounds,
        pages: Pages,
        afterwards: Afterwards,
        webhook: Webhook | None = None,
        hosts: Hosts | None = None,
        tidy: Callable[[Turn], Awaitable[None] | None] | None = None,
        resent: str = "auto",
        limits: Limits | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._repeats = None if resent == "none" else Repeats(self._ask, rule(resent), elsewhere)
        self._gate = gate
        self._bounds = bounds
        self._pages = pages
        self._afterwards = afterwards
        self._webhook = webhook
        self._hosts = hosts
        self._tidy = tidy
        self.limits = limits or Limits()

    async def drain(self) -> None:
        """Wait for turns that were ended, and the jobs of those that are over; end what takes too long.

        Code of the user's may take a moment to let go of a turn, and what comes after it needs all that is closed next.
        """
        now = asyncio.get_running_loop().time
        end = now() + END_TIMEOUT
        while self.limits.turns and now() < end:
            await asyncio.sleep(LOOK)
        if self._repeats is not None:
            self._repeats.close()
        self.limits.close()
        await self._afterwards.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
            if "//" in path:  # a base URL that ends with a slash, and a path that begins with one
                path = "/" + "/".join(part for part in path.split("/") if part)
            if self._hosts is not None and not self._pages.is_inside(scope):
                try:
                    self._hosts.check(path, scope["headers"])
                except RequestError as error:
                    self._afterwards.refused(error)
                    await refuse(send, error)
                    return
            where = PLAIN if path in CHAT_PATHS else route(path, self._reader.is_platform)
            if where is not None and where.is_turn and not self._pages.is_inside(scope):
                await self._chat_completions(scope, receive, send, where, clock.now())
            elif self._webhook is not None and path == EVENTS and not self._pages.is_inside(scope):
                await self._webhook.answer(scope, receive, send)
            else:
                await self._pages.answer(path, scope, send, where)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def _ask(self, turn: Turn, send: Send) -> Awaitable[None]:
        return self._handler(turn, send)  # looked up now: tests put another around it

    async def _chat_completions(
        self, scope: Scope, receive: Receive, send: ASGISend, where: Route, received: float
    ) -> None:
        exchange: Exchange | None = scope.get("extensions", {}).get(EXCHANGE)
        full = self.limits.shed(exchange)
        self.limits.turns += 1
        held: list[Lease] = []  # given back below, and nowhere else
        try:
            try:
                turn = await self._read_turn(scope, receive, exchange, where, full, held)
                turn.timeline.received = received
            except (RequestError, Overloaded) as error:
                self._afterwards.refused(error)
                await refuse(send, error)
            except Gone:
                pass
            except Exception as error:
                # A platform of somebody else's; what it says may hold a caller's words.
                self._afterwards.log_bug(None, error)
                mistake = Error("The server made a mistake.", hint="its operator finds it in the log")
                self._afterwards.refused(mistake)
                await send_json(send, mistake.status, mistake.body(), {})
            else:
                await self._take(turn, receive, send, exchange, held)
        finally:
            self.limits.turns -= 1
            for lease in held:
                lease.release()

    async def _take(
        self, turn: Turn, receive: Receive, send: ASGISend, exchange: Exchange | None, held: Sequence[Lease]
    ) -> None:
        """Answer one turn, and note its end."""
        if exchange is None:
            send = _heard_by_somebody(send)
        # One that is refused is no later request of the turn: the older one is answered.
        sending = None if self._repeats is None or turn.error is not None else self._repeats.begin(turn)
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
        for lease in held:
            lease.settle()
        self._afterwards.end(turn, writer.status, hung_up=cut is Cut.LEFT)

    def _writer(self, turn: Turn, send: ASGISend, exchange: Exchange | None, sending: Sending | None) -> Writer:
        keep = None if sending is None else sending.keep
        if not turn.stream:
            return ObjectWriter(turn, send, keep=keep)
        if self._afterwards.keeps_replies:
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
                if reason is Cut.LEFT:
                    turn.timeline.left = clock.now()
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
        if why is Cut.LEFT and not answer.done():
            turn.timeline.left = clock.now()
        late.stop()
        turn.adjusted.clear()
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
        return why if answer.cancelled() else answer.result()

    async def _read_turn(
        self,
        scope: Scope,
        receive: Receive,
        exchange: Exchange | None,
        where: Route,
        refusal: Error | None,
        held: list[Lease],
    ) -> Turn:
        """Return the turn that is asked for, and what it holds; its `error` is a refusal that has to be heard.

        Any other refusal is raised, and at once: the less is done for it, the better for the turns in progress.
        """
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{CHAT} takes POST.", allow=["POST"])
        if refusal is not None and not (self.limits.may_speak and self._reader.must_speak(where)):
            raise refusal
        headers, query = read_headers(scope["headers"]), read_query(scope.get("query_string", b""))
        grant = await admitted(self._gate, headers, scope.get("client"), query=query, session=where.session)
        at = clock.now()
        lease = None if refusal is not None else self.limits.lease(grant)
        if lease is not None:
            held.append(lease)
            refusal = lease.enter(grant, self._gate.address_of(headers, scope.get("client")))
            if refusal is not None and not self._reader.must_speak(where):
                raise refusal
        bounds = self._bounds
        here = None if exchange is None else exchange.take_body()
        body = await read_body(receive, headers, here, limit=bounds.max_body, within=bounds.body_timeout)
        turn = self._reader.read(Asked(read_json(body), headers, query, scope["path"], grant.key), bound(where, grant))
        turn.grant = grant
        check_model(turn)
        if bounds.sizes is not None:
            bounds.sizes.check(turn)
        if turn.platform != "openai" and self._tidy is not None:  # an engine's history, not what a plain client means
            tidied = self._tidy(turn)
            if tidied is not None:
                await tidied
        if lease is not None and refusal is None:
            refusal = await lease.hold(turn, None if self._repeats is None else self._repeats.is_again)
        if refusal is not None and of(turn).apology is None:
            raise refusal
        turn.error = refusal
        turn.timeline.admitted = at
        turn.timeline.prepared = clock.now()
        self._afterwards.expect(turn)
        return turn

    async def _answer(self, turn: Turn, writer: Writer, sending: Sending | None) -> Cut | None:
        """Answer one turn: exactly one ending, whatever happens."""
        try:
            if turn.error is not None:
                raise turn.error
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
            self._afterwards.log_bug(turn, error)
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
        except (asyncio.TimeoutError, TimeoutError, Gone):
            log.info("caller does not read id=%s", turn.id)
        except Exception as error:
            self._afterwards.log_bug(turn, error)


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
