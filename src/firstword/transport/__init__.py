"""The one pool of outbound connections: kept alive, connected before they are needed, never shared by two turns."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache

from .. import clock
from ..errors import UpstreamConnectError, UpstreamError
from ..wire import HttpRequest
from .alarm import late
from .connection import Connection
from .dial import Origin, Proxy, dial, read_proxy, split
from .tls import resumptions

__all__ = ["Connection", "Origin", "Proxy", "Transport", "late", "read_proxy", "split"]

log = logging.getLogger("firstword")

IDLE_TIMEOUT = 50.0  # seconds; under the 60 s after which common balancers drop a silent connection
STALE_WINDOW = 1.0  # seconds in which a kept connection that closes unheard was closed before it heard us
WARM_PAUSE = 1.0  # seconds before an upstream that hung up at once is called again; doubled each time
MAX_WARM_PAUSE = 60.0  # seconds between tries to stay connected with an upstream that is away


class Transport:
    """Send requests to upstreams over connections that are reused. Use it from one event loop.

    `connect_timeout` bounds names, TCP, proxy and TLS together; `idle_timeout` is how long an unused connection is
    kept; `proxy_for` says which proxy, if any, leads to an origin. `check` is shown each address that an origin's name
    has, before any is connected, and raises what `request` then raises; behind a proxy there is none to show.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        idle_timeout: float = IDLE_TIMEOUT,
        proxy_for: Callable[[Origin], Proxy | None] = lambda _: None,
        check: Callable[[Origin, str], None] | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._proxy_for = proxy_for
        self._check = check
        self._idle: dict[Origin, list[Connection]] = defaultdict(list)
        self._open: dict[Origin, set[Connection]] = defaultdict(set)
        self._dialling: Counter[Origin] = Counter()
        self._resuming = resumptions()
        self._closed_one: dict[Origin, asyncio.Event] = {}
        self._warmers: dict[Origin, asyncio.Task[None]] = {}

    async def request(self, request: HttpRequest, *, within: float, fresh: bool = False) -> Connection:
        """Send `request` and return its connection as soon as the response's head is there.

        The caller ends with `release()` or `drain()`. `within` seconds count for the head, dialling included.
        A kept connection that turns out to be closed is replaced once, by a new one; never when any byte came back.
        `fresh` means a new connection from the start: for what must not be sent twice.
        Raises UpstreamError.
        """
        origin, _ = split(request.url)
        head = _head(request.method, request.url, request.headers)
        if request.body or request.method == "POST":
            head += b"content-length: %d\r\n" % len(request.body)
        head += b"\r\n"
        deadline = clock.now() + within
        connection = None if fresh else self._take(origin)
        if connection is not None:
            started = clock.now()
            try:
                await self._exchange(connection, head, request.body, deadline)
                # A 408 that was on its way while the connection was idle is no answer to this request.
                if connection.status != 408 or clock.now() - started > STALE_WINDOW:
                    return connection
                connection.abort()
            except UpstreamConnectError:
                if connection.heard or clock.now() - started > STALE_WINDOW:
                    raise
        connection = await self._dial(origin, min(self._connect_timeout, deadline - clock.now()))
        return await self._exchange(connection, head, request.body, deadline)

    async def _exchange(self, connection: Connection, head: bytes, body: bytes, deadline: float) -> Connection:
        try:
            await connection.send(head, body, deadline - clock.now())
            await connection.head(deadline - clock.now())
        except BaseException:
            connection.abort()
            raise
        return connection

    async def reach(self, url: str) -> None:
        """Make sure that there is an open connection to `url`'s origin. Raises UpstreamError when there can be none."""
        origin, _ = split(url)
        if not self._open[origin]:
            self._keep(origin, await self._dial(origin, self._connect_timeout))

    def keep_warm(self, url: str) -> None:
        """From now on hold a connection to `url`'s origin ready, and make a new one when the last is lost."""
        origin, _ = split(url)
        if origin not in self._warmers:
            self._closed_one[origin] = asyncio.Event()
            self._warmers[origin] = asyncio.get_running_loop().create_task(self._stay_warm(origin, url))

    async def close(self) -> None:
        """Close everything, connections in use as well."""
        warmers = list(self._warmers.values())
        self._warmers.clear()
        for warmer in warmers:
            warmer.cancel()
        await asyncio.gather(*warmers, return_exceptions=True)
        for connections in list(self._open.values()):
            for connection in list(connections):
                connection.abort()

    def hosts(self) -> dict[str, tuple[int, int, int]]:
        """Return how many connections to each host are idle, in use, and being dialled."""
        found: dict[str, tuple[int, int, int]] = {}
        for origin in {*self._open, *self._dialling}:
            idle, held = len(self._idle.get(origin, ())), len(self._open.get(origin, ()))
            one, two, three = found.get(origin.authority, (0, 0, 0))
            found[origin.authority] = (one + idle, two + held - idle, three + self._dialling[origin])
        return found

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return sum(map(len, self._open.values()))

    @property
    def in_use(self) -> int:
        """How many connections are answering a turn, or ending one."""
        return self.open_count - sum(map(len, self._idle.values()))

    def _take(self, origin: Origin) -> Connection | None:
        """Return the idle connection that was used last: the likeliest to be alive."""
        idle = self._idle[origin]
        return idle.pop() if idle else None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        """Take an unused connection into the pool, until just before its peer would close it."""
        hint = connection.keep_alive_hint
        connection.evict_after(self._idle_timeout if hint is None else min(self._idle_timeout, max(hint - 1.0, 0.1)))
        self._idle[origin].append(connection)

    async def _dial(self, origin: Origin, within: float) -> Connection:
        def on_closed(connection: Connection) -> None:
            self._open[origin].discard(connection)
            if connection in self._idle[origin]:
                self._idle[origin].remove(connection)
            if origin in self._closed_one:
                self._closed_one[origin].set()

        def make() -> Connection:
            return Connection(lambda connection: self._keep(origin, connection), on_closed)

        self._dialling[origin] += 1
        try:
            connection = await self._reach_out(origin, make, within)
        finally:
            self._dialling[origin] -= 1
        if connection.closed:
            raise UpstreamConnectError("The model's server closed the connection at once.", detail=origin.authority)
        self._open[origin].add(connection)
        return connection

    async def _reach_out(self, origin: Origin, make: Callable[[], Connection], within: float) -> Connection:
        # By itself, because `firstword.testing` has models that are reached in another way.
        proxy = self._proxy_for(origin)
        return await dial(origin, make, within=within, proxy=proxy, resuming=self._resuming, check=self._check)

    async def _stay_warm(self, origin: Origin, url: str) -> None:
        pause = WARM_PAUSE
        closed_one = self._closed_one[origin]
        while True:
            closed_one.clear()
            began = clock.now()
            try:
                await self.reach(url)
            except UpstreamError as error:
                log.debug("upstream is not reachable host=%s reason=%r", error.detail, error.message)
            else:
                await closed_one.wait()
                if clock.now() - began > pause:
                    pause = WARM_PAUSE
                    continue
            # An upstream that is away, or that hangs up at once, is asked ever more rarely.
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_WARM_PAUSE)


@lru_cache(maxsize=64)
def _head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the request line and headers, all but the length.

    Values hold no line breaks: nobody may add headers of their own. From one turn to the next they are the same.
    """
    origin, target = split(url)
    lines = [f"{method} {target} HTTP/1.1", f"host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("a header value holds a line break")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
