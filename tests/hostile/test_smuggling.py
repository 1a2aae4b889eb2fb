"""Two readers never see different requests in the same bytes: the corpus at our own port, and behind a real nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostile.corpus import ROWS, Row
from hostile.front import NGINX, Front, front
from hostile.smuggling import at_our_port, through_nginx
from hostile.victim import CAN_BE_SEEN, Victim, victim

pytestmark = pytest.mark.skipif(not CAN_BE_SEEN, reason="needs Linux's account of connections and memory")

EACH = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that waits for nothing for long."""
    folder = tmp_path_factory.mktemp("victim")
    with victim(folder, is_watched=True, FIRSTWORD_BODY_TIMEOUT="0.5", HEAD_TIMEOUT="0.5") as running:
        yield running


@pytest.fixture(scope="module", params=[False, True], ids=["as they come", "whole"])
def nginx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: Victim) -> Iterator[Front]:
    """nginx in front of it, which passes bodies on as they come, or whole."""
    if NGINX is None:
        pytest.skip("needs nginx")
    with front(tmp_path_factory.mktemp("nginx"), server.port, buffering=request.param) as running:
        yield running


@EACH
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
def test_a_row_is_answered_once_as_it_is_to_be_read_or_refused_and_closed(row: Row, cut: bool, server: Victim) -> None:
    """However the bytes come; and bytes of a body are never read as a request."""
    finding = at_our_port(row, server, cut=cut)

    assert finding.stands, finding


@EACH
def test_we_see_what_nginx_has_seen(row: Row, nginx: Front, server: Victim) -> None:
    """One who gets a request past nginx that nginx has not seen speaks as somebody else."""
    finding = through_nginx(row, server, nginx)

    assert finding.stands, finding


def test_the_corpus_has_no_row_twice() -> None:
    """Their names are what a table shows."""
    assert len({row.name for row in ROWS}) == len(ROWS) > 200
