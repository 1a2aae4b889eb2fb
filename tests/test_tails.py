"""The simulation of real models' times: its lots are the published figures, and it says what hedging is worth."""

from __future__ import annotations

import random
from statistics import quantiles

import pytest
from benchmarks.tails import PAGE, PICTURE, TAILS, WAYS, Tail, table, wait

TURNS = 400


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_the_lots_have_the_published_figures(tail: Tail) -> None:
    """Half of the answers come by the median, nineteen of twenty by the p95, none after the longest."""
    chance = random.Random(1)
    times = [tail.draw(chance) for _ in range(20_000)]
    cuts = quantiles(times, n=20)
    assert cuts[9] == pytest.approx(tail.median, rel=0.02)
    assert cuts[18] == pytest.approx(tail.p95, rel=0.04)
    assert tail.longest * 0.8 < max(times) <= tail.longest


async def test_hedging_cuts_the_tail_for_a_bounded_share_of_requests() -> None:
    """The same answers of the first model, in each way."""
    found = {way.name: await wait(way, TURNS) for way in WAYS}
    alone, hedged = found["one model, no deadline"], found["hedged after 1.2 s"]
    filled, failover = found["hedged after 1.2 s, and a filler"], found["failover only"]

    assert alone.extra == 0.0 and alone.at(1.0) > 3.0
    assert hedged.at(0.5) == pytest.approx(alone.at(0.5), rel=0.01)
    assert hedged.at(0.99) < 0.75 * failover.at(0.99)
    assert hedged.errors == filled.errors == 0
    assert 0.01 < hedged.extra <= 0.1 + 2 / TURNS
    assert filled.at(1.0) == 1.5


async def test_the_table_has_a_row_for_each_way() -> None:
    """Somebody adds a way, or renames one, and does not make the page anew."""
    page = PAGE.read_text("utf-8")
    made = table([await wait(way, 20) for way in WAYS])
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    for line in made.splitlines():
        assert f"\n{line.split('|')[0]}|{line.split('|')[1]}|" in page
