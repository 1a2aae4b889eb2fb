"""What the gate knows and may change while we serve: the file of keys, and the keys of the issuer of tokens.

Both are looked at beside the turns, never in one. What was known stays known when the new cannot be had or read.
"""

from __future__ import annotations

import asyncio
import logging

from .. import clock
from ..admission import Gate
from ..admission.keys import KeyFile
from ..admission.tokens import Tokens
from ..errors import ConfigError, Error
from ..model import read_page
from ..threads import OwnThread
from ..transport import Transport
from ..wire import HttpRequest

log = logging.getLogger("firstword")

LOOK_EVERY = 1.0  # seconds until a change of the file of keys is seen
ASK_EVERY = 600.0  # seconds between two looks at an issuer's keys
ASK_AGAIN = 15.0  # seconds until it is asked again when it did not answer
UNKNOWN_EVERY = 60.0  # seconds between two looks because a token names a key that nobody knows: anybody can send one
ASK_TIMEOUT = 3.0  # seconds for it to answer; a turn may wait for this
MAX_SET = 256 * 1024  # bytes


class Watch:
    """Keeps a gate up to date, from `open` to `close`."""

    def __init__(self, gate: Gate, transport: Transport) -> None:
        self._gate = gate
        self._transport = transport
        self._asking: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None  # when a token may make us ask again
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = OwnThread("firstword-keys")  # a revoked key has to go, also when users' functions block

    async def open(self) -> None:
        """Ask the issuer for its keys, and look for changes from now on."""
        if self._gate.file is not None:
            self._tasks.append(asyncio.create_task(self._look(self._gate.file)))
        tokens = self._gate.tokens
        if tokens is not None and tokens.jwks is not None:
            self._tasks.append(asyncio.create_task(self._stay_asked(tokens)))
            await self._ask(tokens)
            tokens.learn = self._learn

    async def close(self) -> None:
        """Look no more."""
        tasks = [*self._tasks, *([self._asking] if self._asking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown()
        if self._again is not None:
            self._again.cancel()
        if self._gate.tokens is not None:
            self._gate.tokens.learn = None

    async def _look(self, file: KeyFile) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if await self._thread.call(file.look):
                    self._gate.renew()
                    log.info("keys read again keys=%d", len(file.grants))
            except ConfigError as error:
                log.error("keys not read again, those from before still count reason=%r", error.message)
            except Exception as error:  # no thread to be had, or no memory: a key that is revoked later still has to go
                log.error("keys not read again, those from before still count reason=%r", type(error).__name__)

    async def _stay_asked(self, tokens: Tokens) -> None:
        while True:
            await asyncio.sleep(ASK_AGAIN if tokens.is_blind else ASK_EVERY)
            await self._ask(tokens)

    async def _learn(self) -> None:
        """Ask because of a token: at most once in a while, and for all who want to know meanwhile."""
        tokens = self._gate.tokens
        assert tokens is not None
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_once(tokens))
        await asyncio.shield(self._asking)  # one who hangs up ends it for nobody

    async def _ask_once(self, tokens: Tokens) -> None:
        def let() -> None:
            tokens.learn = self._learn

        try:
            await self._ask(tokens)
        finally:
            tokens.learn = None
            self._again = asyncio.get_running_loop().call_later(UNKNOWN_EVERY, let)

    async def _ask(self, tokens: Tokens) -> None:
        assert tokens.jwks is not None
        request = HttpRequest("GET", tokens.jwks, (("accept", "application/json"), ("accept-encoding", "identity")))
        try:
            connection = await self._transport.request(request, within=ASK_TIMEOUT)
            try:
                document = await read_page(connection, clock.now() + ASK_TIMEOUT, MAX_SET)
            finally:
                connection.release()
            if connection.status != 200:  # a redirect as well: where it leads nobody has said that we may trust
                raise ValueError(f"it answered {connection.status}")
            log.info("issuer's keys read keys=%d", tokens.take_set(document))
        except (Error, ValueError, OSError) as error:  # whatever it is, it is asked again later
            log.error("issuer's keys not read, those from before still count reason=%r", str(error))


def watch(gate: Gate, transport: Transport) -> Watch | None:
    """Return what keeps a gate up to date; None when nothing of it can change."""
    may_change = gate.file is not None or (gate.tokens is not None and gate.tokens.jwks is not None)
    return Watch(gate, transport) if may_change else None
