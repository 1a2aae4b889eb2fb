"""The servers that are measured: one entry each, and how one is started, found ready and stopped.

Rules: a server is ready when it served a whole turn, so no server needs a check of its own. It is started anew for
every round and runs alone on its core; the next one starts when it is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import machine
from .instruments import BUILD, FOLDER, Figures, InstrumentError, Upstream, run_load

READY_TIMEOUT = 60.0  # seconds; a large gateway imports for half of that
STOP_TIMEOUT = 3.0  # seconds between asking a server to stop and making it


@dataclass(frozen=True)
class Server:
    """How to run one server. In `command` and `environment`, {port} is where it listens and {upstream} its model."""

    name: str
    about: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    packages: tuple[str, ...] = ()


SERVERS = {
    server.name: server
    for server in (
        Server(name="direct", about="no server: the load generator asks the mock upstream itself"),
        Server(
            name="firstword",
            about="this project, as `firstword serve` runs it by default",
            command=(sys.executable, "-m", "firstword", "serve", str(FOLDER / "app.py"), "--port", "{port}"),
            environment={"LLM_BASE_URL": "http://{upstream}/v1"},
            packages=("firstword", "uvicorn", "uvloop", "httptools", "msgspec"),
        ),
        Server(
            name="plain",
            about="this project under uvicorn's own HTTP protocol",
            command=(sys.executable, str(FOLDER / "plain.py"), "{port}"),
            environment={"LLM_BASE_URL": "http://{upstream}/v1"},
            packages=("firstword", "uvicorn", "uvloop", "httptools", "msgspec"),
        ),
        Server(
            name="naive",
            about="FastAPI + the openai SDK, a new client for every turn",
            command=(sys.executable, str(FOLDER / "naive.py"), "{port}"),
            environment={"LLM_BASE_URL": "http://{upstream}/v1"},
            packages=("fastapi", "openai", "uvicorn"),
        ),
    )
}


class Taken(NamedTuple):
    """Seconds on the server's core up to `moment`: the server's own, and those of everybody else."""

    moment: float
    own: float
    others: float


@dataclass(frozen=True)
class Running:
    """A server that runs and is ready. Without a server there is no `session`, and nothing that it takes."""

    server: Server
    address: str
    core: int
    session: int | None = None
    first_turn_after: float | None = None

    def taken(self) -> Taken | None:
        """Return the time that it and its children took so far, and others from it."""
        if self.session is None:
            return None
        own = machine.usage(self.session).cpu_seconds
        return Taken(moment=time.monotonic(), own=own, others=machine.busy_seconds(self.core) - own)

    def memory_mb(self) -> float | None:
        """Return the memory that it and its children have now, in MiB."""
        return round(machine.usage(self.session).memory_bytes / 2**20, 1) if self.session else None

    def load(self, words: Mapping[str, str | float], *, look: Callable[[], None] | None = None) -> Figures:
        """Run the load generator against it."""
        return run_load({"to": self.address, "path": self.server.path, **words}, look=look)


@contextmanager
def run(server: Server, upstream: Upstream, *, core: int) -> Iterator[Running]:
    """Run `server` on `core` until it served a turn, and stop it afterwards.

    Raises `InstrumentError` with the end of its log if it does not get that far.
    """
    if not server.command:
        yield Running(server, upstream.address, core)
        return
    port = _free_port()
    log = BUILD / f"{server.name}.log"
    with log.open("wb") as output, machine.on_core(core):
        process = subprocess.Popen(
            [_filled(word, port, upstream) for word in server.command],
            env=os.environ | {name: _filled(value, port, upstream) for name, value in server.environment.items()},
            stdout=output,
            stderr=output,
            cwd=FOLDER.parent,
            start_new_session=True,  # one session a server: its children are found, and stopped, by it
        )
    try:
        ready_after = _wait_until_ready(server, process, port, log)
        yield Running(server, f"127.0.0.1:{port}", core, session=process.pid, first_turn_after=ready_after)
    finally:
        _stop(process)


def _filled(text: str, port: int, upstream: Upstream) -> str:
    return text.replace("{port}", str(port)).replace("{upstream}", upstream.address)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], port: int, log: Path) -> float:
    """Ask for turns until one is served whole, and return how many seconds that took."""
    started = time.monotonic()
    while time.monotonic() < started + READY_TIMEOUT and process.poll() is None:
        tried = run_load({"mode": "ttft", "to": f"127.0.0.1:{port}", "path": server.path, "turns": 1})
        if tried.whole:
            return time.monotonic() - started
        time.sleep(0.01)
    ended = "did not serve a turn" if process.poll() is None else f"ended with status {process.returncode}"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise InstrumentError(f"{server.name} {ended}; the end of its log:\n{last}\nhint: all of it is in {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop, then make what is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
