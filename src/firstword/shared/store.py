"""The store: one connection that is kept, what is asked by it and within which time, and what is told to all replicas.

Nobody but `Store` waits for a store that is away. It connects again by itself, and tries by itself whether a slow one
is well again; a turn is never the one that finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohappyeyeballs
import hiredis

from .. import clock
from ..clock import timeout
from ..health import Breaker
from ..who import digest
from .address import Address
from .line import Call, Line, Word
from .lookup import Lookup
from .script import Script

CONNECT_TIMEOUT = 2.0  # seconds to connect and to be let in; no turn waits for it
HAPPY_EYEBALLS_DELAY = 0.25  # seconds until the next address is tried as well
RETRY_AFTER = 0.5  # seconds, and up to as much again, so that replicas do not come back all at once
COOL, MAX_COOL = 1.0, 8.0  # seconds for which a slow store is not asked; to try it costs no turn anything
GRACE = 0.001  # seconds; when this process itself was late, the reply may lie in the socket
STUCK = 1.0  # seconds without a reply after which the connection is given up
MAX_WAITING = 10_000  # calls without a reply; what is more is not sent
MAX_TOLD = 1_000  # bytes of what another replica says
MAX_WORD = 20  # letters of what a store's error is called
NO_RESP3 = "it does not speak RESP3"
NO_RIGHT = "NOPERM"

log = logging.getLogger("firstword")


class Away:
    """What is returned in place of a reply when there is none: the store is away or slow, or has refused."""

    def __repr__(self) -> str:
        return "AWAY"


AWAY: Final = Away()


class Refused(Exception):
    """The store has answered, and will not have us; the first word of its error says why."""


class Store:
    """A Valkey or Redis server. budget: seconds within which a reply is of use. prefix: of every name there.

    refused: how many calls were answered by an error; late: how often replies were not there in time. `replica` is
    this process among those that share the store.
    """

    def __init__(self, address: Address, *, budget: float, prefix: str, scripts: Sequence[Script] = ()) -> None:
        self.replica = os.urandom(8).hex()
        self.late = 0
        self.refused = 0
        self._address = address
        self._lookup = Lookup(address.host, address.port)
        self._tls = address.tls()
        self._budget = budget
        self._prefix = prefix
        self._scripts = scripts
        self._breaker = Breaker(cool=COOL, max_cool=MAX_COOL)
        self._heard: dict[str, Callable[[list[str]], None]] = {}
        self._returned: Callable[[], None] = lambda: None
        self._line: Line | None = None
        self._is_late = False
        self._why = ""  # it is away; empty while it is there
        self._was_there: bool | None = None  # as the log says
        self._has_lacked = False  # the log says so: a right that the store's user has to have
        self._trial: Call | None = None  # finds out whether it is well again
        self._watch: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[str] | None = None

    @property
    def is_there(self) -> bool:
        """True when what is asked now may be answered in time."""
        return self._line is not None and not self._is_late and self._breaker.state(clock.now()) == "closed"

    def state(self) -> str:
        """Return "there", or "away" and why, for /ready."""
        return "there" if self.is_there else f"away: {self._why or 'it is slow'}"

    # --- what the other rooms use --------------------------------------------------------------------

    def name(self, kind: str, *of: Any) -> str:
        """Return the name of a key: it tells nothing of what it is made of."""
        return f"{self._prefix}:{kind}:{digest(of)}"

    @property
    def channel(self) -> str:
        """The channel on which replicas tell each other."""
        return f"{self._prefix}:told"

    def ask(self, *words: Word) -> asyncio.Future[Any]:
        """Send a command, and return a future for its reply, or AWAY; it has one within the budget."""
        return self._ask(Call(words, clock.now()))

    def run(self, script: Script, keys: Sequence[str], *more: Word) -> asyncio.Future[Any]:
        """Run a script, as `ask`."""
        return self._ask(script.call(keys, more))

    def tell(self, *words: Word) -> None:
        """Send a command whose reply nobody waits for. It comes to nothing when the store is away."""
        self._tell(Call(words, clock.now()))

    def tell_run(self, script: Script, keys: Sequence[str], *more: Word) -> None:
        """Run a script, as `tell`."""
        self._tell(script.call(keys, more))

    def deliver(self, script: Script, keys: Sequence[str], *more: Word) -> asyncio.Future[Any]:
        """Run a script, however late, and return a future for its reply; AWAY: it may not have been run."""
        call = script.call(keys, more)
        call.is_patient, call.future = True, asyncio.get_running_loop().create_future()
        if not self._tell(call):
            call.future.set_result(AWAY)
        return call.future

    def when_there(self, call: Callable[[], None]) -> None:
        """Have `call` called each time when the store is there again."""
        self._returned = call

    def say(self, kind: str, *words: str) -> None:
        """Tell all other replicas something; the words have no blanks."""
        self.tell("PUBLISH", self.channel, " ".join((kind, self.replica, *words)))

    def hear(self, kind: str, call: Callable[[list[str]], None]) -> None:
        """Have `call` take the words that other replicas say of this kind. It must expect any words."""
        self._heard[kind] = call

    def doubt(self) -> None:
        """Connect anew, as a reply was none to what was asked: the next ones may be somebody else's too."""
        if self._line is not None:
            self._line.abort()

    def open(self) -> None:
        """Connect in the background, and stay connected."""
        self._task = asyncio.ensure_future(self._keep())

    async def close(self) -> None:
        """Let go of the connection; what was told before that still leaves."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        line, self._line = self._line, None
        if line is not None and line.waiting:
            last = Call(("PING",), clock.now(), asyncio.get_running_loop().create_future())
            line.send(last)
            assert last.future is not None
            await asyncio.wait([last.future], timeout=self._budget * 10)
        if line is not None:
            await line.end()
        for timer in (self._watch, self._probe):
            if timer is not None:
                timer.cancel()

    # --- one call ------------------------------------------------------------------------------------

    def _ask(self, call: Call) -> asyncio.Future[Any]:
        future = call.future = asyncio.get_running_loop().create_future()
        line = self._line
        if line is None or len(line.waiting) >= MAX_WAITING or not self.is_there:
            future.set_result(AWAY)
        else:
            self._send(line, call)
        return future

    def _tell(self, call: Call) -> bool:
        if self._line is None or len(self._line.waiting) >= MAX_WAITING:
            return False
        self._send(self._line, call)
        return True

    def _send(self, line: Line, call: Call) -> None:
        line.send(call)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._budget, self._look)

    def _answered(self, call: Call, reply: Any) -> None:
        line, is_trial = self._line, call is self._trial
        if is_trial:
            self._end_trial()
        if isinstance(reply, hiredis.ReplyError):
            if call.again is not None and line is not None and str(reply).startswith("NOSCRIPT"):
                call.words, call.again = call.again, None  # it was started anew, or told to forget all scripts
                self._send(line, call)
                return
            self.refused += 1
            self._fail(_reason(reply, call))
            reply = AWAY
            if is_trial and line is not None:
                line.abort()  # it may be another server by now that takes what we write, under the same name
        elif clock.now() - call.asked <= self._budget + GRACE:
            self._breaker.spoke()
        if call.future is not None and not call.future.done():
            call.future.set_result(reply)
        if self._is_late and (line is None or not line.waiting or not self._is_due(line.waiting[0])):
            self._is_late = False
            if self.is_there:
                self._returned()
        if line is not None:
            self._note()

    # --- one that is slow ----------------------------------------------------------------------------

    def _is_due(self, call: Call) -> bool:
        return clock.now() - call.asked >= self._budget

    def _give_up(self, line: Line) -> float:
        """Let nobody wait for what is due, and return when the next is, or when it is time to look again."""
        at = clock.now()
        for call in line.waiting:
            if call.future is not None and not call.future.done() and not call.is_patient:
                if call.asked + self._budget > at:
                    return call.asked + self._budget
                call.future.set_result(AWAY)
        return at + self._budget

    def _look(self, is_second: bool = False) -> None:
        """Look whether the call that waits for longest has waited for too long."""
        self._watch = None
        line, loop = self._line, asyncio.get_running_loop()
        if line is None or not line.waiting:
            return
        oldest = line.waiting[0]
        waited = clock.now() - oldest.asked
        if waited >= STUCK:
            line.abort()
        elif not self._is_due(oldest):
            self._watch = loop.call_later(self._budget - waited, self._look)
        elif not is_second and not self._is_late:
            self._watch = loop.call_later(GRACE, self._look, True)
        else:
            if not self._is_late:
                self._is_late = True
                self.late += 1
                self._fail("it is slow")
            due = self._give_up(line)
            self._watch = loop.call_later(max(due - clock.now(), GRACE), self._look)

    def _fail(self, why: str) -> None:
        self._breaker.failed(clock.now())
        if self._line is None:
            self._why = why
        elif self._breaker.state(clock.now()) != "closed":
            self._why = self._why or why
            self._try_later()

    def _try_later(self) -> None:
        if self._probe is None:
            self._probe = asyncio.get_running_loop().call_later(COOL, self._try)

    def _try(self) -> None:
        """Find out whether a store that was slow, or has refused, is well again."""
        self._probe = None
        line, at = self._line, clock.now()
        if self._breaker.state(at) == "closed":
            return
        self._try_later()
        if line is not None and not self._is_late and self._breaker.asked(at):
            self._trial = Call(self._proof(), at)
            self._send(line, self._trial)

    def _end_trial(self) -> None:
        """Let another trial find out what this one has not: its reply was late by our own fault, or never came."""
        self._trial = None
        self._breaker.left()

    def _proof(self) -> tuple[Word, ...]:
        """Return a call that a store answers well only when it takes what we write."""
        return ("SET", f"{self._prefix}:there", self.replica, "PX", 60_000)

    # --- one that is away ----------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect, and again whenever the connection is lost."""
        while True:
            try:
                gone = self._gone = asyncio.get_running_loop().create_future()
                line = Line(answered=self._answered, told=self._told, lost=self._lost)
                try:
                    async with timeout(CONNECT_TIMEOUT):
                        await self._connect(line)
                    if gone.done():  # lost behind the last reply: what is sent by it would be answered by nobody
                        raise Refused("the connection was lost")
                except BaseException:
                    await line.end()
                    raise
                self._is_late, self._line = False, line
                self._try_later()  # it has let us in; but it may have been too slow in that for a breaker that is open
                self._note()
                self._why = await gone
            except Refused as error:
                self._why = str(error)
            except (OSError, UnicodeError, asyncio.TimeoutError):  # the last is no OSError on Python 3.10
                self._why = "it cannot be reached"
            except Exception as error:  # whatever it is, the next try may do
                self._why = f"it cannot be connected to ({type(error).__name__})"
            self._note()
            await asyncio.sleep(RETRY_AFTER * (1 + random.random()))

    async def _connect(self, line: Line) -> None:
        """Connect, and be let in. Raises OSError, or Refused."""
        loop, where = asyncio.get_running_loop(), self._address
        if where.path:
            await loop.create_unix_connection(lambda: line, where.path)
        else:
            addresses = await self._lookup.addresses()
            sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)
            name = where.host if self._tls is not None else None
            try:
                await loop.create_connection(lambda: line, sock=sock, ssl=self._tls, server_hostname=name)
            except BaseException:
                with contextlib.suppress(OSError):
                    sock.close()
                raise
        login = ("AUTH", where.user or "default", where.password) if where.password else ()
        calls = [("HELLO", 3, *login, "SETNAME", "firstword"), ("SELECT", where.database), self._proof()]
        calls += [("SCRIPT", "LOAD", script.text) for script in self._scripts]
        for words in [*calls, ("SUBSCRIBE", self.channel)]:
            call = Call(words, clock.now(), loop.create_future())
            line.send(call)
            assert call.future is not None
            reply = await call.future
            if reply is AWAY:
                raise Refused(self._why or "it has refused")
        if not isinstance(reply, hiredis.PushNotification):  # what others tell would come in the place of replies
            raise Refused(NO_RESP3)

    def _lost(self, line: Line) -> None:
        """Take the end of a connection."""
        if self._line is line:
            self._line = None
        elif line.waiting:
            self._why = NO_RESP3
        for call in line.waiting:
            if call is self._trial:
                self._end_trial()
            if call.future is not None and not call.future.done():
                call.future.set_result(AWAY)
        line.waiting.clear()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result("the connection was lost")

    def _told(self, words: list[Any]) -> None:
        """Take what another replica has said; it may be anything."""
        if len(words) != 3 or words[0] != b"message" or not isinstance(words[2], bytes):
            return
        kind, _, rest = words[2][:MAX_TOLD].decode("ascii", "replace").partition(" ")
        replica, *said = rest.split(" ")
        call = self._heard.get(kind)
        if call is not None and replica != self.replica:
            call(said)

    def _note(self) -> None:
        """Say in the log when the store comes and goes, and once more when somebody has to give us a right."""
        is_there = self._line is not None and self._breaker.state(clock.now()) == "closed"
        lacks = not is_there and self._why.startswith(NO_RIGHT)
        if is_there == self._was_there and (self._has_lacked or not lacks):
            return
        self._was_there, self._has_lacked = is_there, lacks
        if is_there:
            self._why = ""
            log.info("store is there address=%s", self._address)
            self._returned()
            return
        hint = "limits are what FIRSTWORD_LIMITS_WITHOUT_STORE says"
        if lacks:
            rights = f"~{self._prefix}:* and &{self._prefix}:*"
            hint = f"give the store's user {rights}, and the commands that docs/many-machines.md names"
        log.warning("store is away address=%s why=%s hint: %s", self._address, self._why, hint)


def _reason(error: Exception, call: Call) -> str:
    """Return what a store's error is called, as READONLY; the rest of it may repeat what was sent."""
    word = str(error).partition(" ")[0]
    if word == NO_RIGHT:
        return f"{word} for {call.words[0]!s}"
    return word if word.isalpha() and word.isupper() and len(word) <= MAX_WORD else "ERR"
