"""Stop an agent of Agora's engine by its REST API, when what was said last has been heard.

Source: Agora, "Stop a conversational AI agent" and "Retrieve a list of agents". `leave` takes no body. An agent that
was started with `parameters.farewell_config.graceful_enabled` finishes what it is saying before it leaves; any other
stops at once, and no answer tells which kind it is. So we wait ourselves for about as long as the words take.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from . import clock
from .action import Agent
from .errors import Error, UpstreamError
from .transport import Transport, split
from .turn import Turn
from .who import caller_of
from .wire import HttpRequest

log = logging.getLogger("firstword")

AREAS = {"global": ("https://api.agora.io", ""), "cn": ("https://api.sd-rtn.com", "/cn")}
ANSWER_TIMEOUT = 5.0  # seconds for one request
PAUSES = (1.0, 2.0)  # seconds before a request that failed is sent again: the line stays open until one succeeds
MAX_ANSWER = 64 * 1024  # bytes
GONE = 404


class Refused(Error):
    """Agora's API did not do what it was asked. `again`: it may do it a second later."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Agents:
    """The agents of one Agora project; `key` and `secret` are its customer's for the REST API.

    area: "global" or "cn" (mainland China). base_url: another host, as a test's. pauses: seconds, before each further
    try of a request that failed. Raises ConfigError when `base_url` is no URL.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        app_id: str,
        key: str,
        secret: str,
        area: str = "global",
        base_url: str = "",
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        host, prefix = AREAS[area]
        root = (base_url or host).rstrip("/")
        split(root)
        self._transport = transport
        self._pauses = pauses
        self._url = f"{root}{prefix}/api/conversational-ai-agent/v2/projects/{quote(app_id, safe='')}/agents"
        self._headers = (("authorization", "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()),)
        self._waiting: dict[str, asyncio.Future[None]] = {}  # agents that leave before long, by their callers

    def stay(self, turn: Turn) -> None:
        """Keep the agent that was about to leave: its caller has gone on to speak."""
        waiting = self._waiting and self._waiting.get(caller_of(turn) or "")
        if waiting and not waiting.done():
            waiting.set_result(None)

    async def leave(self, agent: Agent, turn: Turn, *, due: float) -> None:
        """Have an agent leave at the moment `due`, unless it is to stay. What fails is logged.

        Of two turns of one caller that want this, as those who hear one reply do, the last one counts.
        """
        caller = caller_of(turn) or turn.id
        self.stay(turn)
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[caller] = waiting
        try:
            await asyncio.wait({waiting}, timeout=max(due - clock.now(), 0.0))
        finally:
            if self._waiting.get(caller) is waiting:
                del self._waiting[caller]
        if waiting.done():
            log.info("agent stays, its caller speaks id=%s", turn.id)
            return
        try:
            await self._leave(agent)
        except Error as error:
            log.error("agent does not leave id=%s reason=%r hint: check the AGORA_ settings", turn.id, error.message)

    async def _leave(self, agent: Agent) -> None:
        id = agent.id or await self._find(agent.channel or "")
        if id is not None:
            await self._ask("POST", f"/{quote(id, safe='')}/leave")

    async def _find(self, channel: str) -> str | None:
        """Return the one agent that runs in a channel; None when there is none any more."""
        answer = await self._ask("GET", "?" + urlencode({"channel": channel, "state": 2}))
        try:
            ids = [each["agent_id"] for each in answer["data"]["list"] or ()]
        except (LookupError, TypeError):
            raise Refused("Agora's API sent no list of agents.") from None
        if len(ids) > 1:
            raise Refused("There are several agents in the channel, and `llm.params` has no `agent_id`.")
        return str(ids[0]) if ids else None

    async def _ask(self, method: str, path: str) -> Any:
        """Return the answer to a request; it is sent again when that may help. Raises Refused or UpstreamError."""
        for pause in self._pauses:
            try:
                return await self._ask_once(method, path)
            except (Refused, UpstreamError) as error:
                if isinstance(error, Refused) and not error.again:
                    raise
            await asyncio.sleep(pause)
        return await self._ask_once(method, path)

    async def _ask_once(self, method: str, path: str) -> Any:
        request = HttpRequest(method, self._url + path, self._headers, b"")
        deadline = clock.now() + ANSWER_TIMEOUT
        connection = await self._transport.request(request, within=ANSWER_TIMEOUT)
        try:
            body = b""
            while data := await connection.read(deadline - clock.now()):
                body += data
                if len(body) > MAX_ANSWER:
                    raise Refused("Agora's API sent too long an answer.")
        finally:
            connection.release()
        status = connection.status
        if status == GONE and method == "POST":
            return None  # the agent has left already
        if status != 200:
            raise Refused(f"Agora's API answered {status}.", again=status == 429 or status >= 500)
        try:
            return msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeError):
            return None
