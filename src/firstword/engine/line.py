"""The line to a server: one POST to exactly the URL, read as it arrives, closed in the step that ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .. import __version__
from ..errors import ConfigError, UpstreamConnectError, UpstreamError, UpstreamTimeout
from ..transport import Origin, Proxy, Transport, split
from ..wire import HttpRequest
from .marks import Stopwatch
from .reply import PATIENCE, Reply
from .setup import URL, Setup

CONNECT_TIMEOUT = 10.0  # seconds


class Unreached(ConfigError):
    """There is nobody at the URL."""


class Line(Protocol):
    """A way to a server."""

    async def post(self, body: bytes, reply: Reply) -> None:
        """Send one request, and have `reply` read the response until it is whole. A cancellation closes it at once.

        Raises Unreached.
        """


class Wire:
    """The line by HTTP, with a connection that is kept from turn to turn. Raises ConfigError for a wrong URL or key."""

    def __init__(self, setup: Setup, *, proxy_for: Callable[[Origin], Proxy | None] = lambda _: None) -> None:
        self._url = setup.url
        try:
            origin, _ = split(setup.url)
        except ConfigError:
            hint = f"write it like {URL}; a file of yours wants --serve"
            raise ConfigError("That is not an http or https URL.", hint=hint) from None
        named = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "user-agent": f"firstword-engine/{__version__}",
            **{name.lower(): value for name, value in setup.headers.items()},
        }
        if setup.api_key:
            named["authorization"] = f"Bearer {setup.api_key}"  # the engine's own header wins a conflict
        for name, value in named.items():
            if not (f"{name}{value}".isprintable() and f"{name}{value}".isascii()):
                raise ConfigError(f"The header {name} cannot be sent.", hint="no line breaks, and ASCII only")
        self._headers = tuple(named.items())
        self._authority = origin.authority
        self._transport = Transport(connect_timeout=CONNECT_TIMEOUT, proxy_for=proxy_for)
        self._connecting = 0.0  # seconds that the connection of the next request took

    async def reach(self) -> None:
        """Make sure that there is somebody. Raises Unreached."""
        watch = Stopwatch()
        had_one = self._transport.open_count > 0
        try:
            await self._transport.reach(self._url)
        except UpstreamError as error:
            raise self._unreached(error) from None
        if not had_one:
            self._connecting = watch.read()

    async def post(self, body: bytes, reply: Reply) -> None:
        """Send one request; see Line."""
        await self.reach()
        reply.connected(self._connecting)
        self._connecting = 0.0
        request = HttpRequest("POST", self._url, self._headers, body)
        try:
            connection = await self._transport.request(request, within=PATIENCE)
        except UpstreamTimeout:
            reply.broke(f"The server was silent for {PATIENCE:g} s.")
            return
        except UpstreamError as error:
            reply.broke(_of_the_server(error))
            return
        try:
            reply.begin(connection.status, connection.headers)
            woke = await connection.listen(reply.feed, PATIENCE)
            if woke and reply.done:
                connection.drain()
        except UpstreamTimeout:
            reply.broke(f"The server was silent for {PATIENCE:g} s within its answer.")
        except UpstreamError as error:
            reply.broke(_of_the_server(error))
        finally:
            connection.release()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    def _unreached(self, error: UpstreamError) -> Unreached:
        reason = "it does not take the connection" if isinstance(error, UpstreamTimeout) else ""
        if isinstance(error, UpstreamConnectError):
            reason = error.message.partition(": ")[2].rstrip(".") or "it closed the connection"
        hint = "check the URL, and the network between here and there"
        if self._url == URL:
            hint = "start a server with `firstword serve`, or talk to one in here with `firstword engine --serve`"
        return Unreached(f"There is no server at {self._authority}: {reason}.", hint=hint)


def _of_the_server(error: UpstreamError) -> str:
    """Return what happened; the transport's words are of a model's server, and this one is nobody's model."""
    return error.message.replace("The model's server", "The server").replace("The model", "The server")
