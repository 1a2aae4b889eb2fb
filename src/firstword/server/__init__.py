"""The server: a bare ASGI application with one hot route, and the ordinary pages beside it.

One task per turn. Whatever ends first, the turn or the caller's patience, ends the other; a turn that is
cancelled has closed its upstream connection before its task is over.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from ..admission import Gate
from ..clock import now, timeout, was_cancelled
from ..errors import Error, MethodNotAllowed, RequestError, Stopping, UpstreamTimeout
from ..platforms import Platform
from ..turn import CallNext, Turn
from .pages import Info, Pages
from .request import Gone, read_body, read_headers, read_json, read_query
from .writers import ASGISend, EventWriter, ObjectWriter, refuse, send_json

log = logging.getLogger("firstword")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Writer: TypeAlias = EventWriter | ObjectWriter
OnLeave: TypeAlias = Callable[[Callable[[], None] | None], None]
AfterTurn: TypeAlias = Callable[[Turn], Awaitable[None]]

# The last four are what comes of pasting a full URL where a base URL was asked for; users of Vapi and ElevenLabs do.
_TAIL = "/chat/completions"
CHAT_PATHS = frozenset(
    {_TAIL, f"/v1{_TAIL}", _TAIL + _TAIL, f"/v1{_TAIL}{_TAIL}", f"{_TAIL}/v1{_TAIL}", f"/v1{_TAIL}/v1{_TAIL}"}
)

# The ASGI extension of our own protocol: a function that takes what to call when the caller leaves.
ON_LEAVE = "firstword.on_leave"

JOBS_TIMEOUT = 10.0  # seconds that the jobs of turns that are over get when the server stops
FAIL_TIMEOUT = 1.0  # seconds to tell a caller that the turn failed; one who does not read is left


class Cut(Enum):
    """Why a turn was cancelled before its end."""

    LEFT = "the caller hung up"
    STOPPED = "the server was told to stop"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one turn may take: bytes of body, seconds for the body and for the whole turn."""

    max_body: int
    body_timeout: float
    turn_timeout: float


class Server:
    """The ASGI application. `handler` answers turns; `after` hears of each one when it is over."""

    def __init__(
        self,
        handler: CallNext,
        *,
        platform: Platform,
        gate: Gate,
        bounds: Bounds,
        info: Info,
        after: AfterTurn | None = None,
        debug: bool = False,
    ) -> None:
        self._handler = handler
        self._platform = platform
        self._gate = gate
        self._bounds = bounds
        self._after = after
        self._debug = debug
        self._pages = Pages(gate, info)
        self._jobs: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
            if "//" in path:  # a base URL that ends with a slash, and a path that begins with one
                path = "/" + "/".join(part for part in path.split("/") if part)
            if path not in CHAT_PATHS:
                await self._pages.answer(path, scope, send)
            else:
                await self._chat_completions(scope, receive, send, now())
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def drain(self) -> None:
        """Wait for the jobs of turns that are over, and end those that take too long."""
        if self._jobs:
            _, late = await asyncio.wait(self._jobs, timeout=JOBS_TIMEOUT)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _chat_completions(self, scope: Scope, receive: Receive, send: ASGISend, received: float) -> None:
        try:
            turn = await self._read_turn(scope, receive, received)
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
        on_leave: OnLeave | None = scope.get("extensions", {}).get(ON_LEAVE)
        if on_leave is None:
            send = _heard_by_somebody(send)
        writer = EventWriter(turn, send, keep=self._after is not None) if turn.stream else ObjectWriter(turn, send)
        if on_leave is None:
            cut = await self._answer_beside(receive, turn, writer)
        else:
            cut = await self._answer_here(on_leave, turn, writer)
        if cut is Cut.STOPPED:
            turn.error = Stopping("The server is being stopped.", hint="ask again; another one may answer")
            await self._fail(turn, writer)
        self._end(turn, writer.status, hung_up=cut is Cut.LEFT)

    async def _answer_here(self, on_leave: OnLeave, turn: Turn, writer: Writer) -> Cut | None:
        """Answer in this very task, which our own protocol lets us cancel as soon as the caller leaves."""
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave() -> None:
            nonlocal left
            left = True
            task.cancel()

        on_leave(leave)
        try:
            return await self._answer(turn, writer)
        except asyncio.CancelledError:
            return Cut.LEFT if left else Cut.STOPPED
        finally:
            on_leave(None)

    async def _answer_beside(self, receive: Receive, turn: Turn, writer: Writer) -> Cut | None:
        """Answer under any ASGI server: two tasks, so that the turn and the caller's patience can end each other."""
        answer = asyncio.create_task(self._answer(turn, writer))
        gone = asyncio.create_task(_hang_up(receive))
        stopped = False
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            stopped = True  # whoever runs us was told to stop, and has no more patience
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
        if not answer.cancelled():
            return answer.result()
        return Cut.STOPPED if stopped else Cut.LEFT

    async def _read_turn(self, scope: Scope, receive: Receive, received: float) -> Turn:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{_TAIL} takes POST.", allow=["POST"])
        headers = read_headers(scope["headers"])
        key = self._gate.admit(headers, scope.get("client"))
        admitted = now()
        bounds = self._bounds
        body = await read_body(receive, headers, limit=bounds.max_body, within=bounds.body_timeout)
        query = read_query(scope.get("query_string", b""))
        turn = self._platform.read(read_json(body), headers=headers, query=query, path=scope["path"], key=key)
        turn.timeline.received = received
        turn.timeline.admitted = admitted
        turn.timeline.prepared = now()
        return turn

    async def _answer(self, turn: Turn, writer: Writer) -> Cut | None:
        """Answer one turn: exactly one ending, whatever happens."""
        limit = self._bounds.turn_timeout
        try:
            async with timeout(limit - (now() - turn.timeline.received)):
                try:
                    await self._handler(turn, writer.send)
                    await writer.close()
                    return None
                except Gone:
                    return Cut.LEFT
                except Error as error:
                    turn.error = error
                except (Exception, SystemExit, asyncio.CancelledError) as error:
                    # A TimeoutError in here is somebody else's, as of a search in a hook; so is a cancellation that
                    # nobody asked of this turn.
                    if isinstance(error, asyncio.CancelledError) and was_cancelled():
                        raise
                    self._log_bug(turn, error)
                    hint = f"its operator finds it in the log as {turn.id}"
                    turn.error = Error("The server made a mistake.", hint=hint)
        except (TimeoutError, asyncio.TimeoutError):
            hint = "FIRSTWORD_TURN_TIMEOUT is what it may take"
            turn.error = UpstreamTimeout(f"The turn was not over within {limit:g} seconds.", phase="turn", hint=hint)
        await self._fail(turn, writer)
        return None

    async def _fail(self, turn: Turn, writer: Writer) -> None:
        assert turn.error is not None
        try:
            async with timeout(FAIL_TIMEOUT):
                await writer.fail(turn.error)
        except (Exception, Gone):
            log.info("caller does not read id=%s", turn.id)

    def _end(self, turn: Turn, status: int, *, hung_up: bool) -> None:
        """Note the end of a turn, and start what comes after it, off the reply's path."""
        timeline = turn.timeline
        timeline.ended = now()
        spoke = -1.0 if timeline.spoke is None else timeline.spoke - timeline.received
        error = turn.error
        log.log(
            logging.INFO if error is None else logging.WARNING,
            "turn ended id=%s status=%d outcome=%s first_word=%.4f seconds=%.4f%s",
            turn.id,
            status,
            "hung_up" if hung_up else "answered" if error is None else error.code or error.type,
            spoke,
            timeline.ended - timeline.received,
            f" host={error.detail}" if error is not None and error.detail else "",
        )
        if self._after is not None:
            job = asyncio.create_task(self._run_after(self._after, turn))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _run_after(self, after: AfterTurn, turn: Turn) -> None:
        try:
            await after(turn)
        except Exception as error:
            self._log_bug(turn, error)

    def _log_bug(self, turn: Turn | None, error: BaseException) -> None:
        """Log where a mistake was made; what it says may be a caller's words, so only on request."""
        name = "" if turn is None else turn.id
        if self._debug:
            log.error("mistake id=%s", name, exc_info=error)
            return
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        log.error(
            "mistake id=%s type=%s at=%s hint: FIRSTWORD_DEBUG=1 shows what it says",
            name,
            type(error).__name__,
            " > ".join(places[-4:]),
        )


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
