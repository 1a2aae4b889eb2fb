"""What a test of a voice agent holds: `talk()`, on a clock that jumps; a real upstream and proxy as processes.

Rules of the processes:
- Each is started by `start`, ended by `with` or `stop`, and ends by itself when the process that started it is gone.
- A wait is answered by the process the moment it is met, so a test never sleeps. One that is not met in time raises
  `TimeoutError`; a record that holds a `mistake` raises `ValueError`.
- `marker` is the `user` of a request's body, or its header `x-marker`; None means all requests.
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from firstword.testing import script
from firstword.testing.clock import run, run_here
from firstword.testing.models import (
    after,
    cuts,
    drips,
    fails,
    never_connects,
    refuses_connection,
    says,
    silent,
    stalls,
    then,
    thinks,
)
from firstword.testing.play import play
from firstword.testing.score import Score
from firstword.testing.talk import Phone, talk
from firstword.testing.witness import Connections, Record, Until

__all__ = [
    "Connections",
    "Phone",
    "Proxy",
    "Record",
    "Score",
    "Upstream",
    "after",
    "cuts",
    "drips",
    "fails",
    "never_connects",
    "play",
    "refuses_connection",
    "run",
    "run_here",
    "says",
    "script",
    "silent",
    "stalls",
    "talk",
    "then",
    "thinks",
]

ANSWER_MARGIN = 5.0  # seconds; what a busy machine may add to a wait before we give up the process
STOP_TIMEOUT = 5.0  # seconds

_Self = TypeVar("_Self", bound="_Process")
_Seen = TypeVar("_Seen")


class _Answer(msgspec.Struct, Generic[_Seen]):
    met: bool
    seen: _Seen


class _Ports(msgspec.Struct):
    port: int
    control: int


class _Process:
    """A process that plays its part on `port` and tells what it saw."""

    def __init__(self, module: str, *options: str) -> None:
        command = [sys.executable, "-m", module, *options]
        # The pipe to stdin is the leash: it breaks when we end, however we end.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first:
            self.stop()
            raise RuntimeError(f"{module} ended with {self._process.returncode} before it served; see its stderr")
        ports = msgspec.json.decode(first, type=_Ports)
        self.port, self._control = ports.port, ports.control

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; doing it twice is harmless."""
        self._process.kill()
        self._process.wait(STOP_TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def seen(
        self, marker: str | None = None, *, until: Until = "settled", count: int = 0, within: float = 1.0
    ) -> list[Record]:
        """Return the records of `marker`, in the order of arrival, once there are `count` and each is as `until` says.

        `now`: as they are; `asked`: the request is there; `settled`: answered in full, or its connection is closed;
        `closed`: its connection is closed. This blocks; on a loop that must go on, use the `wait_...` below.
        """
        asked = {"until": until, "count": count, "within": within} | ({} if marker is None else {"marker": marker})
        records = self._ask("/seen", asked, within, list[Record])
        mistakes = [record.mistake for record in records if record.mistake]
        if mistakes:
            raise ValueError(f"a request made a mistake: {mistakes[0]}")
        return records

    async def wait_asked(self, marker: str | None = None, count: int = 1, within: float = 1.0) -> list[Record]:
        """Wait until `count` requests arrived and return their records."""
        return await asyncio.to_thread(self.seen, marker, until="asked", count=count, within=within)

    async def wait_settled(self, marker: str | None = None, count: int = 1, within: float = 1.0) -> list[Record]:
        """Wait until `count` requests are answered in full or their connections closed, and none is still open."""
        return await asyncio.to_thread(self.seen, marker, until="settled", count=count, within=within)

    async def wait_closed(self, marker: str | None = None, count: int = 1, within: float = 1.0) -> list[Record]:
        """Wait until the connections of `count` requests, and of all that came, are closed."""
        return await asyncio.to_thread(self.seen, marker, until="closed", count=count, within=within)

    def connections(self, *, open: int | None = None, within: float = 1.0) -> Connections:
        """Count the connections; with `open`, wait until so many are open. This blocks."""
        asked = {} if open is None else {"open": open, "within": within}
        return self._ask("/connections", asked, within, Connections)

    async def wait_connections(self, *, open: int, within: float = 1.0) -> Connections:
        """Wait until so many connections are `open`."""
        return await asyncio.to_thread(self.connections, open=open, within=within)

    def _ask(self, path: str, asked: Mapping[str, str | int | float], within: float, kind: type[_Seen]) -> _Seen:
        # Not urllib: it would ask through the very proxy that a test put into the environment.
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=within + ANSWER_MARGIN)
        try:
            connection.request("GET", f"{path}?{urllib.parse.urlencode(asked)}")
            answer = msgspec.json.decode(connection.getresponse().read(), type=_Answer[kind])  # type: ignore[valid-type]
        finally:
            connection.close()
        if not answer.met:
            raise TimeoutError(f"not within {within} s: {asked}; seen so far: {answer.seen}")
        return answer.seen


class Upstream(_Process):
    """The local upstream: what a request's script says, it does; see `firstword.testing.script`."""

    base_url: str

    @classmethod
    def start(
        cls, *, address: str = "127.0.0.1", port: int = 0, idle: float | None = None, tls: tuple[str, str] | None = None
    ) -> Upstream:
        """Start it and return once it listens. `idle` seconds end an unused connection; `tls` is (certificate, key)."""
        options = ["--address", address, "--port", str(port)]
        options += [] if idle is None else ["--idle", str(idle)]
        options += [] if tls is None else ["--tls", *tls]
        upstream = cls("firstword.testing.upstream", *options)
        host = f"[{address}]" if ":" in address else address
        upstream.base_url = f"{'http' if tls is None else 'https'}://{host}:{upstream.port}/v1"
        return upstream


class Proxy(_Process):
    """The local proxy: it opens tunnels by CONNECT. The `path` of a record is the `host:port` asked for."""

    url: str

    @classmethod
    def start(cls, *, basic: str | None = None, refuse: int | None = None) -> Proxy:
        """Start it and return once it listens. `basic` is the `user:password` it wants, `refuse` its only answer."""
        options = ([] if basic is None else ["--basic", basic]) + ([] if refuse is None else ["--refuse", str(refuse)])
        proxy = cls("firstword.testing.proxy", *options)
        proxy.url = f"http://127.0.0.1:{proxy.port}"
        return proxy
