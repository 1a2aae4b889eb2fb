"""What tools reach over HTTP: connections under the address policy, and answers of bounded size.

A tool's address was written by the operator, but where its name leads is for a name server to say, and what it
answers for whoever runs it. So each address is looked at before it is connected (docs/decisions/0014-remote-tools.md),
no proxy is used, because a proxy would look the name up again, and no answer is read to its end unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from ..addresses import may_reach
from ..errors import ToolError, UpstreamError, UpstreamTimeout
from ..transport import Origin, Transport
from ..wire import HttpRequest

UNKNOWN = "It is not known whether it was done."
LONGEST_WAIT = (
    300.0  # seconds, for a byte and for a whole answer; a tool's own timeout, or the App's, comes long before
)

log = logging.getLogger("firstword")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; the names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Outside:
    """The connections of one tool or of several, made when the first is called and kept between calls.

    `private` are hosts that the operator named as their own network's; of all others only public addresses are
    connected.
    """

    def __init__(self, *, private: Collection[str] = ()) -> None:
        self._private = frozenset(private)
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def transport(self) -> Transport:
        """Return the pool of the running loop."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._loop is not loop:
            self._loop = loop
            self._transport = Transport(check=self._check)
        return self._transport

    async def ask(self, request: HttpRequest, *, max_bytes: int, fresh: bool) -> Answer:
        """Return the answer to `request`. `fresh` means a new connection, so that it is surely sent only once.

        Raises ToolError: no address that may be reached, no answer, or one of more than `max_bytes`.
        """
        try:
            connection = await self.transport().request(request, within=LONGEST_WAIT, fresh=fresh)
            try:
                length = connection.headers.get("content-length", "")
                if length.isdecimal() and int(length[:20]) > max_bytes:
                    raise _too_large(max_bytes, once=fresh)
                body = bytearray()
                while data := await connection.read(LONGEST_WAIT):
                    body += data
                    if len(body) > max_bytes:
                        raise _too_large(max_bytes, once=fresh)
                return Answer(connection.status, dict(connection.headers), bytes(body))
            finally:
                connection.release()
        except UpstreamError as error:
            raise as_tool_error(error, once=fresh) from None

    async def close(self) -> None:
        """Close all connections. They are made anew when a tool is called after that."""
        transport, self._transport = self._transport, None
        if transport is not None and self._loop is asyncio.get_running_loop():
            await transport.close()

    def _check(self, origin: Origin, address: str) -> None:
        if not may_reach(address, private=origin.host in self._private):
            log.warning(
                "address of a tool is not public host=%s hint: private=True, if it is a host of your own network",
                origin.authority,
            )
            raise ToolError("The API has an address that may not be reached.")


def _too_large(max_bytes: int, *, once: bool) -> ToolError:
    # Who is told to ask for less asks again; what changes something would be done twice.
    return ToolError(f"The answer has more than {max_bytes} bytes. {UNKNOWN if once else 'Ask for less.'}")


def as_tool_error(error: UpstreamError, *, once: bool = False) -> ToolError:
    """Return what a model is told of an error of the transport's; the log has the host.

    `once` says that the request changes something: then the model must know when it may have been done all the same.
    """
    log.warning("tool failed host=%s reason=%r", error.detail, error.message)
    message = error.message.replace("The model's server", "The API")
    if isinstance(error, UpstreamTimeout):
        message = "The API did not answer in time."
    unreached = "could not be reached" in message or getattr(error, "phase", None) == "connect"
    return ToolError(f"{message} {UNKNOWN}" if once and not unreached else message)
