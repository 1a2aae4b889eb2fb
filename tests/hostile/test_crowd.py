"""Many connections that only stand there: bounded, cheap, and no reason for a turn to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from firstword.testing import Upstream
from hostile import crowd
from hostile.victim import CAN_BE_SEEN, Victim, victim

pytestmark = pytest.mark.skipif(not CAN_BE_SEEN, reason="needs Linux's account of connections and memory")

Start = Callable[..., AbstractContextManager[Victim]]


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    """What starts a server with settings of the test's own."""

    def begin(workers: int = 1, **environment: str) -> AbstractContextManager[Victim]:
        return victim(tmp_path, upstream.base_url, workers=workers, **environment)

    return begin


async def test_ten_thousand_idle_connections_are_in_nobody_s_way(start: Start) -> None:
    """As many callers who listen and say nothing, or as many as the system's hard limit gives."""
    with start(FIRSTWORD_MAX_CONNECTIONS="12000") as server:
        finding = await crowd.idle_connections(server)

    assert finding.stands, finding


def test_a_server_without_descriptors_neither_dies_nor_spins(start: Start) -> None:
    """The operator's bound is above what the system grants, and somebody has put it out of our sight."""
    with start(DESCRIPTORS="60", UNBOUNDED="yes") as server:
        finding = crowd.no_descriptors(server)

    assert finding.stands, finding


async def test_a_quarter_of_the_descriptors_is_kept_for_models(start: Start) -> None:
    """Whoever opens all the connections that he may does not keep turns from reaching their model."""
    with start(DESCRIPTORS="80") as server:
        finding = crowd.too_many(server, 60)
        assert finding.stands, finding
        with crowd.crowd(server, 50):
            assert (await server.caller.says("Hello there.")).text == "Hello there."


def test_further_connections_than_the_bound_are_told_so(start: Start) -> None:
    """The operator's own number."""
    with start(FIRSTWORD_MAX_CONNECTIONS="20") as server:
        finding = crowd.too_many(server, 20)

    assert finding.stands, finding


async def test_each_of_two_workers_serves_beside_a_crowd(start: Start) -> None:
    """The kernel deals connections out, so that both hold idle ones, and both get turns."""
    with start(workers=2, FIRSTWORD_MAX_CONNECTIONS="400") as server:
        with crowd.crowd(server, 300):
            for _ in range(20):
                assert (await server.caller.says("Hello there.")).text == "Hello there."
