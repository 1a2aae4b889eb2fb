"""The meters of this process: a few numbers in dicts, nothing to wait for, gone with the process.

Each limit remembers the meters that were used last. One that is forgotten is as good as new: a full bucket, nothing
spent. What is held is never forgotten, as it is bounded by the turns in progress.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from .. import clock
from .meters import HELD, RATE, Ask, Refusal

MAX_METERS = 50_000  # of one limit, about 250 bytes each
MOMENT = 1e-6  # seconds; two ways to add up the same times differ by less


class LocalMeters:
    """Counts in this process. Of a rate it keeps when the bucket is full again, in seconds on the monotonic clock."""

    def __init__(self, most: int = MAX_METERS, *, now: Callable[[], float] = lambda: clock.now()) -> None:
        self._most = most
        self._now = now
        self._held: dict[tuple[str, str], int] = {}
        self._others: dict[str, OrderedDict[str, float]] = {}  # by limit, then by whose; used last is last

    def __len__(self) -> int:
        return len(self._held) + sum(map(len, self._others.values()))

    def take(self, asks: Sequence[Ask], lease: str) -> Refusal | None:
        """Take all of it, or nothing and say why."""
        for ask in asks:
            refusal = self._refuse(ask)
            if refusal is not None:
                return refusal
        for ask in asks:
            self._add(ask, ask.amount)
        return None

    def give_back(self, asks: Sequence[Ask], lease: str) -> None:
        """Take back `amount` of each."""
        for ask in asks:
            self._add(ask, -ask.amount)

    def _refuse(self, ask: Ask) -> Refusal | None:
        if ask.kind == HELD:
            held = self._held.get((ask.name, ask.whose), 0)
            return Refusal(ask, None) if held + ask.amount > ask.limit else None
        meters = self._others.get(ask.name)
        meter = 0.0 if meters is None else meters.get(ask.whose, 0.0)
        if ask.kind == RATE:
            if ask.limit <= 0:
                return Refusal(ask, None)
            assert ask.seconds is not None
            # Of the bucket so many seconds are empty; of one that is full, more than there is may be had.
            empty = max(meter - self._now(), 0.0)
            late = min(empty + _worth(ask, ask.amount) - ask.seconds, empty)
            return Refusal(ask, late) if late > MOMENT else None
        return Refusal(ask, ask.seconds) if meter >= ask.limit else None

    def _add(self, ask: Ask, amount: int) -> None:
        if ask.kind == HELD:
            key = (ask.name, ask.whose)
            left = self._held.get(key, 0) + amount
            if left > 0:
                self._held[key] = left
            else:
                self._held.pop(key, None)
            return
        meters = self._others.setdefault(ask.name, OrderedDict())
        meter = meters.get(ask.whose, 0)
        if ask.kind == RATE:
            meters[ask.whose] = max(meter, self._now()) + _worth(ask, amount)
        else:
            meters[ask.whose] = max(meter + amount, 0)  # it may have forgotten what was taken
        meters.move_to_end(ask.whose)
        if len(meters) > self._most:
            meters.popitem(last=False)


def _worth(ask: Ask, amount: int) -> float:
    """Return the seconds in which a bucket gets so much."""
    assert ask.seconds is not None
    return amount * ask.seconds / ask.limit
