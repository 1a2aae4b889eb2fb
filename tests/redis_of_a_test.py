"""A real Redis or Valkey server as a process of a test's own, which can be killed, revived, stopped and asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

PROGRAM = shutil.which("valkey-server") or shutil.which("redis-server")


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(is_so: Callable[[], bool], within: float = 10.0) -> None:
    """Wait until something is so."""
    at = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < at, "it never was"
        await asyncio.sleep(0.002)


class RedisServer:
    """A server on a port of its own; nothing of it is on the disk, so that it comes back empty."""

    def __init__(self, *more: str) -> None:
        if PROGRAM is None:
            assert "CI" not in os.environ, "CI has no redis-server"
            pytest.skip("redis-server or valkey-server is not installed")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had, and wait until it answers."""
        assert PROGRAM is not None and self._process is None
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self._more]
        self._process = subprocess.Popen([PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self.ask("PING")
                return
            time.sleep(0.005)
        raise AssertionError("the store did not start")

    def ask(self, *words: str | int) -> Any:
        """Return the reply to a command."""
        import hiredis

        reader = hiredis.Reader(notEnoughData=self)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(hiredis.pack_command(words))
            while (reply := reader.gets()) is self:
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError
                reader.feed(data)
        return reply

    def kill(self) -> None:
        """End it, as a machine that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let it answer nothing, although its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
