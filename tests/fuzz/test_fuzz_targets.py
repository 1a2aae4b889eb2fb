"""The targets of `make fuzz` hold for their seeds, and for every input that once broke one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzz import targets

INPUTS = [
    pytest.param(target, data, id=f"{target.__name__} {number}")
    for target in targets.SEEDS
    for number, data in enumerate([*targets.SEEDS[target], *targets.BROKEN[target]])
]


@pytest.mark.parametrize(("target", "data"), INPUTS)
def test_a_seed_breaks_nothing(target: Callable[[bytes], None], data: bytes) -> None:
    """Whole, and cut after each of its bytes."""
    target(data)
    for size in range(1, len(data)):
        target(data[:size])
