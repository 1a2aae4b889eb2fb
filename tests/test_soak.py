"""A short soak: some hundred turns, a third of them dropped, leave nothing behind. `make soak` is the long one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from benchmarks import soak

pytestmark = pytest.mark.skipif(not soak.PROC.joinpath("self/statm").exists(), reason="needs Linux's /proc")


@pytest.mark.parametrize("run", [soak.soak_process, soak.soak_here])
async def test_turns_that_are_dropped_leave_nothing_behind(
    run: Callable[[int, int], Awaitable[dict[str, Any]]],
) -> None:
    """Each of the four moments of a turn is the last one for some of its callers."""
    figures = await run(180, 20)

    assert figures["whole"] == 120 and figures["dropped"] == 60
    assert all(figures[moment] for moment in ("before a word", "in mid-answer", "after the last word"))


async def test_a_turn_that_is_not_whole_is_no_soak() -> None:
    """Nobody listens at that port, or somebody who refuses: the figures must not look as if all went well."""
    tally = soak.Tally(whole=1)
    tally.broken["HTTP/1.1 503 "] += 1

    with pytest.raises(soak.Left, match="1 turns did not arrive whole"):
        soak._ended(tally, soak.Tally())
