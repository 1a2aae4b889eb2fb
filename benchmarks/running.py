"""A server that runs: how it is started, found ready, asked and stopped.

Rules: a server is ready when it served a whole turn, so no server needs a check of its own. It is started anew for
every round; the next one starts when it is gone. Settings and proxies of the user's shell do not reach it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from . import machine
from .instruments import BUILD, FOLDER, Figures, InstrumentError, Upstream, run_load
from .servers import Server, find_program, lacks

READY_TIMEOUT = 60.0  # seconds; a large gateway imports for half of that
STOP_TIMEOUT = 3.0  # seconds between asking a server to stop and making it
OURS = ("LLM_", "FIRSTWORD_", "OPENAI_", "LITELLM_")  # variables that a user's shell may hold for other servers


class Taken(NamedTuple):
    """Seconds on the server's cores up to `moment`: the server's own, and those of everybody else."""

    moment: float
    own: float
    others: float


@dataclass(frozen=True)
class Running:
    """A server that runs and is ready. Without a server there is no `session`, and nothing that it takes."""

    server: Server
    address: str
    cores: Sequence[int]
    headers: str = ""
    session: int | None = None
    first_turn_after: float | None = None

    def taken(self) -> Taken | None:
        """Return the time that it and its children took so far, and others from it."""
        if self.session is None:
            return None
        own = machine.usage(self.session).cpu_seconds
        busy = sum(machine.busy_seconds(core) for core in self.cores)
        return Taken(moment=time.monotonic(), own=own, others=busy - own)

    def memory_mb(self) -> float | None:
        """Return the memory that it and its children have now, in MiB."""
        return round(machine.usage(self.session).memory_bytes / 2**20, 1) if self.session else None

    def load(self, words: Mapping[str, str | float], *, look: Callable[[], None] | None = None) -> Figures:
        """Run the load generator against it."""
        return run_load({"to": self.address, "path": self.server.path, "headers": self.headers, **words}, look=look)


@contextmanager
def run(server: Server, upstream: Upstream, *, cores: Sequence[int]) -> Iterator[Running]:
    """Run `server` on as many of `cores` as it has, until it served a turn, and stop it afterwards.

    Raises `InstrumentError` with the end of its log if it does not get that far.
    """
    if not server.command:
        yield Running(server, upstream.address, cores)
        return
    if reason := lacks(server):
        raise InstrumentError(f"{server.name}: {reason}")
    cores = cores[: server.cores]
    words = _words(server, upstream)
    process = _start(server, words, cores)
    try:
        running = Running(server, f"127.0.0.1:{words['port']}", cores, _filled(server.headers, words), process.pid)
        yield _wait_until_ready(running, process)
    finally:
        _stop(process)


def _words(server: Server, upstream: Upstream) -> dict[str, str]:
    """Return what the words in an entry stand for in this run."""
    return {
        "port": str(free_port()),
        "scheme": "https" if server.tls else "http",
        "upstream": upstream.tls_address if server.tls else upstream.address,
        "program": find_program(server) or "",
        "config": str(BUILD / f"{server.name}-{server.config}"),
        "root": str(upstream.root),
    }


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def _environment(server: Server, words: Mapping[str, str]) -> dict[str, str]:
    usual = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OURS) and not name.lower().endswith("_proxy")
    }
    # Only a TLS upstream needs another root, and without one its file does not exist.
    own = {name: value for name, value in server.environment.items() if server.tls or "{root}" not in value}
    return usual | {name: _filled(value, words) for name, value in own.items()}


def _start(server: Server, words: Mapping[str, str], cores: Sequence[int]) -> subprocess.Popen[bytes]:
    if server.config:
        Path(words["config"]).write_text(_filled((FOLDER / server.config).read_text(), words))
    with _log(server).open("wb") as output, machine.on_cores(cores):
        try:
            return subprocess.Popen(
                [_filled(word, words) for word in server.command],
                env=_environment(server, words),
                stdout=output,
                stderr=output,
                cwd=FOLDER.parent,
                start_new_session=True,  # one session a server: its children are found, and stopped, by it
            )
        except OSError as error:
            raise InstrumentError(f"{server.name} does not start: {error}") from None


def _log(server: Server) -> Path:
    return BUILD / f"{server.name}.log"


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(running: Running, process: subprocess.Popen[bytes]) -> Running:
    """Ask for turns until one is served whole, and note how many seconds that took."""
    started = time.monotonic()
    while time.monotonic() < started + READY_TIMEOUT and process.poll() is None:
        if running.load({"mode": "ttft", "turns": 1}).whole:
            return replace(running, first_turn_after=time.monotonic() - started)
        time.sleep(0.01)
    name, log = running.server.name, _log(running.server)
    ended = "did not serve a turn" if process.poll() is None else f"ended with status {process.returncode}"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise InstrumentError(f"{name} {ended}; the end of its log:\n{last}\nhint: all of it is in {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop, then make what is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
