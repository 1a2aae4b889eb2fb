"""A command as a process of its own: what it says, where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from caller import Caller


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port of this machine; whoever calls it next finds out if nobody does."""
    for _ in range(2000):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.005)


class Process:
    """A running command: its output as it comes, and where it listens."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that the processes it starts can be ended with it
        )
        self.pid = self._process.pid
        self.output = ""
        self._grew = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._grew:
                    self.output += line
                    self._grew.notify_all()

    def says(self, pattern: str, within: float = 30) -> re.Match[str]:
        """Wait until the output matches, and return the match."""
        with self._grew:
            found = self._grew.wait_for(lambda: re.search(pattern, self.output), within)
        assert found, f"never said {pattern!r}: {self.output}"
        return found

    def caller(self) -> Caller:
        """Wait until it can be called, and return somebody who calls it."""
        port = int(self.says(r"Uvicorn running on http://[\d.]+:(\d+) ")[1])
        self.says("Application startup complete")
        wait_for(port)  # a worker says that it has started before it listens
        return Caller(f"http://127.0.0.1:{port}")

    def tell(self, signal: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(signal)

    def ends(self, within: float = 30) -> int:
        """Wait for the end, and return the exit code."""
        code = self._process.wait(within)
        self._reader.join(within)
        return code

    def kill(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.ends()


Run = Callable[..., Process]


async def is_there(caller: Caller, pause: float = 0.02) -> bool:
    """Return whether somebody listens there; when nobody does, after a moment."""
    try:
        return (await caller.hears(method="GET", path="/health")).status == 200
    except OSError:
        await asyncio.sleep(pause)
        return False
