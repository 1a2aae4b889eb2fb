"""A flood of what is no body is refused or cut off, early, and costs next to no memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firstword.testing import Upstream
from hostile import floods
from hostile.victim import CAN_BE_SEEN, Victim, victim

pytestmark = pytest.mark.skipif(not CAN_BE_SEEN, reason="needs Linux's account of connections and memory")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Victim]:
    """A server as it is."""
    with victim(tmp_path_factory.mktemp("victim"), upstream.base_url) as running:
        yield running


@pytest.mark.parametrize("name", floods.FLOODS)
async def test_a_flood_is_refused_early(name: str, server: Victim) -> None:
    """With a true status where it can still be read, and a good turn beside it is answered."""
    finding = floods.attack(name)(server)

    assert finding.stands, finding
    assert (await server.caller.says("Hello there.")).text == "Hello there."


def test_a_trailer_does_not_become_a_header(server: Victim) -> None:
    """It would be one that a proxy before us has not seen; this one would have the turn refused."""
    finding = floods.trailer_that_is_a_header(server)

    assert finding.stands, finding
