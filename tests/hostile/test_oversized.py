"""A body that is too much is refused, and one that is much holds up nobody for long and leaves no memory taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firstword.testing import Upstream
from hostile import oversized
from hostile.victim import CAN_BE_SEEN, Victim, victim

pytestmark = pytest.mark.skipif(not CAN_BE_SEEN, reason="needs Linux's account of connections and memory")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Victim]:
    """A server as it is."""
    with victim(tmp_path_factory.mktemp("victim"), upstream.base_url) as running:
        yield running


@pytest.mark.parametrize(("name", "way"), oversized.ATTACKS)
async def test_a_body_costs_what_it_may_and_no_more(name: str, way: str, server: Victim) -> None:
    """Its status is true, its memory bounded, and a turn on the same worker goes on streaming meanwhile."""
    finding = await oversized.attack(name, way, server)

    assert finding.stands, finding
