"""What the tests of `firstword agent` share: Agora's API, and somebody who types commands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from agora_of_a_test import Agora, agora
from typing_of_a_test import Typed, typed


@pytest.fixture
def api() -> Iterator[Agora]:
    """Agora's API of the global area."""
    with agora() as running:
        yield running


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Somebody who types commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(typed, state=str(tmp_path / "state"))


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])
