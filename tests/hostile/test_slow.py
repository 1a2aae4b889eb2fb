"""Who takes his time costs us a connection, for as long as we say, and nobody else anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from firstword.testing import Upstream
from hostile import slow
from hostile.finding import Finding
from hostile.victim import CAN_BE_SEEN, Victim, victim

pytestmark = pytest.mark.skipif(not CAN_BE_SEEN, reason="needs Linux's account of connections and memory")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Victim]:
    """A server that waits for half a second where it waits."""
    names = ["FIRSTWORD_BODY_TIMEOUT", "HEAD_TIMEOUT", "WRITE_TIMEOUT", "LINGER"]
    times = {**dict.fromkeys(names, "0.5"), "FIRSTWORD_KEEP_ALIVE": "3", "SMALL_BUFFERS": "yes"}
    with victim(tmp_path_factory.mktemp("victim"), upstream.base_url, **times) as running:
        yield running


@pytest.mark.parametrize("attack", slow.ATTACKS, ids=lambda attack: attack.__name__)
async def test_who_is_slow_is_let_go(attack: Callable[[Victim], Finding], server: Victim) -> None:
    """What is waited for has a time of its own, and a good turn beside it is answered."""
    finding = attack(server)

    assert finding.stands, finding
    assert (await server.caller.says("Hello there.")).text == "Hello there."


@pytest.mark.skipif(slow.SLOWHTTPTEST is None, reason="needs slowhttptest")
def test_a_well_known_tool_does_no_harm(server: Victim) -> None:
    """slowhttptest's slow heads; the others of its modes are for the report."""
    finding = slow.slowhttptest(server, "-H", connections=100, seconds=3)

    assert finding.stands, finding
