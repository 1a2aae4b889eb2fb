"""The route that Agora's engine tells its events to: checked, answered at once, and joined to the turns they are about.

Nobody who has not the secret makes us do more than read a bounded body and hash it. What a hook does with an event is
off the answer's path: Agora sends again what is not answered soon.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from ..errors import Error, InvalidSignature, MethodNotAllowed, NotFound
from ..events import FAILED, SIGNATURE, Event, Heard, is_signed, may_be_signed, read_event
from ..mistakes import log_mistake
from ..telemetry import Counts
from ..threads import in_thread
from ..turn import Turn
from .request import Gone, read_body, read_headers
from .routes import EVENTS
from .tasks import Tasks
from .writers import ASGISend, refuse, send_json

log = logging.getLogger("firstword")

MAX_EVENT = 4 * 1024 * 1024  # bytes; the history of a long call, or its turns
BODY_TIMEOUT = 10.0  # seconds for a body to arrive
AT_ONCE = 64 * 1024  # bytes that are hashed on the loop; more would hold up somebody's first word
WINDOW = 300.0  # seconds that what was sent is taken: longer than clocks differ. Sent again, it has a time of its own
MAX_NOTICES = 10_000  # ids of events that were taken, so that one that is sent again does nothing
MAX_KEPT = 20_000  # names of turns; the engine tells of them when the call is over
MAX_WORD = 64  # signs of what a failure is called, in the log

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
OnEvent = Callable[[Event], Awaitable[None]]


class Kept(NamedTuple):
    """What is kept of a turn until the engine tells of it."""

    id: str
    first_word: float | None


class Elsewhere(Protocol):
    """What other processes know of events and turns; each wait is a short one, and may be in vain."""

    async def is_new(self, notice: str) -> bool:
        """Return False when another process has taken the event with this id."""

    async def turns(self, kind: str, name: str, numbers: Sequence[int]) -> dict[int, tuple[str, float | None]]:
        """Return id and time to the first word, by number, of the turns of an agent or channel that are known."""

    def note(self, kind: str, name: str, number: int, turn: tuple[str, float | None]) -> None:
        """Let others know of a turn. Never waits."""


class Webhook:
    """Takes the events that are signed with `secret`, and hands each to `hook`, once.

    elsewhere: the other processes that answer turns or take events; None when there are none that we know of.
    """

    def __init__(
        self,
        secret: str,
        *,
        hook: OnEvent | None,
        counts: Counts,
        debug: bool = False,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._secret = secret
        self._hook = hook
        self._counts = counts
        self._debug = debug
        self._turns: OrderedDict[tuple[str, str, int], Kept] = OrderedDict()
        self._notices: OrderedDict[str, None] = OrderedDict()
        self._jobs = Tasks()

    def note(self, turn: Turn) -> None:
        """Remember a turn that is over, by its agent and its channel, if it says whose it is."""
        if turn.number is None:
            return
        timeline = turn.timeline
        kept = Kept(turn.id, None if timeline.spoke is None else timeline.spoke - timeline.received)
        for kind, name in (("agent", turn.engine.get("agent_id")), ("channel", turn.channel)):
            if isinstance(name, str) and name:
                _put(self._turns, (kind, name, turn.number), kept, MAX_KEPT)
                if self._elsewhere is not None:
                    self._elsewhere.note(kind, name, turn.number, kept)

    async def answer(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Answer one request: 200 for an event that is ours, also when it was here before."""
        try:
            event = await self._read(scope, receive)
        except Gone:
            return
        except Error as error:
            self._counts.note_refusal(error)
            await refuse(send, error)
            return
        if event.id is None or event.id not in self._notices:
            if event.id is not None:
                _put(self._notices, event.id, None, MAX_NOTICES)
            if self._elsewhere is None or event.id is None or await self._elsewhere.is_new(event.id):
                self._take(replace(event, turns=await self._join(event)))
        await send_json(send, 200, {"status": "ok"}, {})

    @property
    def running(self) -> int:
        """How many jobs are being done."""
        return len(self._jobs)

    async def drain(self) -> None:
        """Wait for the hooks that run, and end those that take too long."""
        await self._jobs.drain()

    async def _read(self, scope: Scope, receive: Receive) -> Event:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{EVENTS} takes POST.", allow=["POST"])
        headers = read_headers(scope["headers"])
        signature = headers.get(SIGNATURE, "")
        if not may_be_signed(signature):
            what = "The signature is no HMAC-SHA256 in hex." if signature else "The event is not signed."
            raise InvalidSignature(what, hint="Agora signs it in the header Agora-Signature-V2")
        body = await read_body(receive, headers, None, limit=MAX_EVENT, within=BODY_TIMEOUT)
        check = (is_signed, body, signature, self._secret)
        if not (await in_thread(*check) if len(body) > AT_ONCE else is_signed(*check[1:])):
            raise InvalidSignature(
                "The event is signed with another secret.",
                hint="FIRSTWORD_AGORA_WEBHOOK_SECRET is the secret of the notifications in Agora's console",
            )
        event = read_event(body)
        if event.at is not None and abs(time.time() - event.at) > WINDOW:
            raise InvalidSignature(
                f"The event was sent {time.time() - event.at:.0f} seconds ago.", hint="check this machine's clock"
            )
        return event

    def _take(self, event: Event) -> None:
        """Count an event, and start the hook."""
        known = event.turns
        self._counts.note_event(event)
        level = logging.WARNING if event.kind == FAILED else logging.INFO
        agent, what = _word(event.agent), _what_failed(event) if event.kind == FAILED else f" turns={len(known)}"
        log.log(level, "event kind=%d name=%s agent=%s%s", event.kind, event.name, agent, what)
        for each in known:
            if each.id is not None:
                parts = "".join(f" {name}={value:.4f}" for name, value in each.latencies.items())
                first = -1.0 if each.first_word is None else each.first_word
                log.info(
                    "turn heard id=%s number=%d event=%d first_word=%.4f%s",
                    each.id, each.number, event.kind, first, parts,
                )  # fmt: skip
        if self._hook is not None:
            self._jobs.start(self._run(self._hook, event))

    async def _join(self, event: Event) -> tuple[Heard, ...]:
        """Return an event's turns with what we know of each."""
        known: dict[int, tuple[str, float | None]] = {}
        for kind, name in (("agent", event.agent), ("channel", event.channel)):
            if name is None:
                continue
            missing = []
            for number in {each.number for each in event.turns} - known.keys():
                kept = self._turns.get((kind, name, number))
                if kept is not None:
                    known[number] = kept
                else:
                    missing.append(number)
            if missing and self._elsewhere is not None:
                known.update(await self._elsewhere.turns(kind, name, missing))
        return tuple(
            replace(each, id=known[each.number][0], first_word=known[each.number][1]) if each.number in known else each
            for each in event.turns
        )

    async def _run(self, hook: OnEvent, event: Event) -> None:
        try:
            await hook(event)
        except Exception as error:
            log_mistake(f"mistake event={event.kind}", error, debug=self._debug)


def alone(webhook: Webhook) -> Callable[[Scope, Receive, ASGISend], Awaitable[None]]:
    """Return an ASGI application that takes events, and nothing else."""

    async def application(scope: Scope, receive: Receive, send: ASGISend) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await webhook.drain()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http" and scope["path"].rstrip("/") == EVENTS:
            await webhook.answer(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(send, NotFound("There is nothing at this path.", hint=f"Agora's events go to {EVENTS}"))

    return application


def _put(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Keep a value, and let go of what was kept longest when there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)


def _what_failed(event: Event) -> str:
    """Return which part of the agent has failed: `module=llm` is this server, as the engine sees it."""
    told = [(name, event.payload.get(name)) for name in ("module", "code")]
    return "".join(f" {name}={_word(str(value)[:MAX_WORD])}" for name, value in told if isinstance(value, (str, int)))


def _word(name: str | None) -> str:
    """Return a name as one word of a line."""
    return "".join(sign if sign.isprintable() and sign not in " ,=" else "?" for sign in name or "")
