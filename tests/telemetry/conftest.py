"""What the tests of this folder ask for: `firstword serve` as a process of its own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Process, Run

from firstword.testing import Upstream

SERVE = (str(Path(sys.executable).parent / "firstword"), "serve", "--host", "127.0.0.1", "--port", "0")


@pytest.fixture
def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.fixture
def run(tmp_path: Path, upstream: Upstream) -> Iterator[Run]:
    """Run `firstword serve` in an empty folder."""
    running: list[Process] = []

    def start(*more: str, **environment: str) -> Process:
        known = {**os.environ, "LLM_BASE_URL": upstream.base_url, "PYTHONUNBUFFERED": "1", **environment}
        running.append(Process([*SERVE, *more], tmp_path, known))
        return running[-1]

    yield start
    for process in running:
        process.kill()
