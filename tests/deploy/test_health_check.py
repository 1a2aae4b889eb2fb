"""The Dockerfile's health check, run as it stands: it asks the port that answers, and waits for nobody."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import Process
from conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
CHECK: list[str] = json.loads(re.findall(r"HEALTHCHECK .*\\\n\s*CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)[0])
FIRSTWORD = str(Path(sys.executable).parent / "firstword")


@pytest.fixture
def free_ports() -> list[str]:
    """Two ports that were free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return [str(each.getsockname()[1]) for each in (one, other)]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start the server with these settings, and wait until it answers."""
    running: list[Process] = []

    def start(**settings: str) -> None:
        running.append(Process([FIRSTWORD, "serve"], tmp_path, {**os.environ, "PYTHONUNBUFFERED": "1", **settings}))
        running[-1].caller()

    yield start
    for process in running:
        process.kill()


def healthy(**settings: str) -> bool:
    """Run the check with the settings of the container."""
    assert CHECK[0] == "python"
    return subprocess.run([sys.executable, *CHECK[1:]], env={**os.environ, **settings}, timeout=10).returncode == 0


def test_it_asks_the_port_that_is_set(serve: Callable[..., None], free_ports: list[str]) -> None:
    """Another port than 8000; a proxy that is set for the way to the provider is not asked."""
    told = {"FIRSTWORD_PORT": free_ports[0], "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    assert not healthy(**told)
    serve(FIRSTWORD_PORT=free_ports[0])
    assert healthy(**told)


def test_it_asks_the_operators_port_when_there_is_one(serve: Callable[..., None], free_ports: list[str]) -> None:
    """`/health` is then no more on the other."""
    told = {"FIRSTWORD_PORT": free_ports[0], "FIRSTWORD_OPERATOR_PORT": free_ports[1]}
    serve(**told)
    assert healthy(**told)
    assert not healthy(FIRSTWORD_PORT=free_ports[0])


def test_a_server_that_hangs_is_not_waited_for() -> None:
    """Something takes the connection, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not healthy(FIRSTWORD_PORT=str(silent.getsockname()[1]))
