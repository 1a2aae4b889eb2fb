"""A server that is attacked: `firstword serve` as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.soak import Server, running
from caller import Caller

CAN_BE_SEEN = Path("/proc/net/tcp").exists()  # Linux's account of connections, memory and time
OPEN = ("01", "08")  # established, and one that only the other side has closed: a descriptor of the server's

# Times are short here: a test waits for them. WITNESS is a file that gets a line for each request that the App sees.
OURS = """
import os
import resource
import socket
from firstword import App, serving
from firstword.server import protocol

if "DESCRIPTORS" in os.environ:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["DESCRIPTORS"]),) * 2)

for name in ("head_timeout", "write_timeout", "linger"):
    if name.upper() in os.environ:
        setattr(protocol.VoiceProtocol, name, float(os.environ[name.upper()]))

if "UNBOUNDED" in os.environ:
    serving.most_connections = lambda wanted: wanted


def with_small_buffers(self, transport, made=protocol.VoiceProtocol.connection_made):
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    made(self, transport)


if "SMALL_BUFFERS" in os.environ:
    protocol.VoiceProtocol.connection_made = with_small_buffers


class Watched(App):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and "WITNESS" in os.environ:
            with open(os.environ["WITNESS"], "a") as witness:
                witness.write(scope["method"] + " " + scope["path"] + "\\n")
        await super().__call__(scope, receive, send)


app = Watched(warm=False)
"""


@dataclass(frozen=True)
class Victim:
    """A running server. `seen` forgets what it has returned."""

    server: Server
    witness: Path
    model_port: int

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    @property
    def caller(self) -> Caller:
        """Somebody who calls it, and means well."""
        return Caller(f"http://127.0.0.1:{self.port}")

    def seen(self) -> list[str]:
        """Return the method and path of each request that its App has seen since."""
        lines = self.witness.read_text().splitlines()
        self.witness.write_text("")
        return lines

    def callers(self) -> int:
        """Count the connections that it has with callers."""
        return sum(state in OPEN for mine, _, state in _connections() if mine == self.port)

    def models(self) -> int:
        """Count the connections that it has with models."""
        return sum(state in OPEN for _, other, state in _connections() if other == self.model_port)

    def rests(self, within: float = 10.0) -> bool:
        """Wait until it has no caller; False when one stays."""
        until = time.monotonic() + within
        while self.callers():
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def grows(self) -> Callable[[], int]:
        """Return what tells how many bytes it has held at most since now, beyond what it holds now."""
        before = self.server.memory()
        self.server.forget_peak()
        return lambda: self.server.peak() - before

    def time_used(self) -> float:
        """Return the seconds of processor that it has used."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def victim(
    folder: Path,
    base_url: str = "http://127.0.0.1:9/v1",
    *,
    workers: int = 1,
    is_watched: bool = False,
    **environment: str,
) -> Iterator[Victim]:
    """Run one, with files in `folder`; `environment` are its settings, HEAD_TIMEOUT and WRITE_TIMEOUT among them.

    One that `is_watched` can say which requests its App has seen.
    """
    file, witness = folder / "victim.py", folder / "witness"
    file.write_text(OURS)
    witness.write_text("")
    watching = {"WITNESS": str(witness)} if is_watched else {}
    with running(base_url, str(file), "--workers", str(workers), **watching, **environment) as server:
        yield Victim(server, witness, int(urlsplit(base_url).port or 0))


def _connections() -> Iterator[tuple[int, int, str]]:
    """Yield the ports of both ends, and the state, of each of this machine's connections."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, mine, other, state, *_ = line.split()
        yield int(mine[-4:], 16), int(other[-4:], 16), state
