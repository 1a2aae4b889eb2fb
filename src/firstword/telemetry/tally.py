"""What was counted, by metric and labels: added to, taken together with others', and written down.

Bounded: labels beyond the first thousand of a metric are counted together, as "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

import msgspec

from .catalogue import METRICS, Kind

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = Mapping[str, Mapping[Labels, float]]  # by metric

MAX_LABELS = 1000  # names of models and outcomes that are told apart; providers make up error codes
MAX_SPREADS = 100  # the same for histograms, which are many lines each
MAX_NAME = 100  # signs of a label; without a list of models a model's name is whatever the caller wrote
OTHER = "other"
# Seconds up to which times are counted together, the same for all: a voice is judged between 25 ms and 30 s, 0.7 is
# where people notice a silence. The two below are for what the server adds by itself.
BOUNDS = (0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Spread:
    """How often a time was within each of the bounds, and over all of them; and the sum of them all, in seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many were at most as long as each bound, as Prometheus counts."""
        names = [*(str(bound) for bound in BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


def note_in(spreads: Iterable[Spread], seconds: float) -> None:
    """Count one time in several."""
    place = bisect_left(BOUNDS, seconds)
    for spread in spreads:
        spread.counts[place] += 1
        spread.sum += seconds


class Snapshot(msgspec.Struct):
    """A tally at one moment, as it is written down. `holds`: the names of others that it was taken together from."""

    counters: dict[str, list[tuple[list[str], float]]] = {}
    spreads: dict[str, list[tuple[list[str], list[int], float]]] = {}
    gauges: dict[str, list[tuple[list[str], float]]] = {}
    holds: list[str] = []


class Tally:
    """Counters, histograms and gauges, by metric and labels."""

    def __init__(self) -> None:
        self.counters: defaultdict[str, dict[Labels, float]] = defaultdict(dict)
        self.spreads: defaultdict[str, dict[Labels, Spread]] = defaultdict(dict)
        self.gauges: defaultdict[str, dict[Labels, float]] = defaultdict(dict)

    def add(self, name: str, labels: Labels = (), value: float = 1) -> None:
        """Add to a counter."""
        counter = self.counters[name]
        if labels not in counter and len(counter) >= MAX_LABELS:
            labels = (OTHER,) * len(labels)
        counter[labels] = counter.get(labels, 0) + value

    def spread(self, name: str, labels: Labels = ()) -> Spread:
        """Return a histogram, to note a time in."""
        spreads = self.spreads[name]
        found = spreads.get(labels)
        if found is None:
            if len(spreads) >= MAX_SPREADS:
                labels = (OTHER,) * len(labels)
            found = spreads.setdefault(labels, Spread())
        return found

    def take(self, values: Values) -> None:
        """Add counters that somebody else keeps, and take over what is true only now."""
        for name, each in values.items():
            for labels, value in each.items():
                if METRICS[name].kind is Kind.COUNTER:
                    self.add(name, labels, value)
                else:
                    self._gauge(name, labels, value)

    def merge(self, other: Snapshot, *, runs: bool = True) -> None:
        """Take another tally's in; what is true only now counts only if its process `runs`.

        What this version does not know, or counts in another way, is left out.
        """
        for name, counted in other.counters.items():
            for names, value in counted if _is_like(name, Kind.COUNTER) else ():
                self.add(name, tuple(names), value)
        for name, noted in other.spreads.items():
            for names, counts, total in noted if _is_like(name, Kind.SPREAD) else ():
                mine = self.spread(name, tuple(names))
                if len(counts) == len(mine.counts):
                    mine.counts = [one + more for one, more in zip(mine.counts, counts, strict=True)]
                    mine.sum += total
        for name, now in other.gauges.items() if runs else ():
            for names, value in now if _is_like(name, Kind.GAUGE, Kind.PEAK) else ():
                self._gauge(name, tuple(names), value)

    def _gauge(self, name: str, labels: Labels, value: float) -> None:
        gauge = self.gauges[name]
        before = gauge.get(labels, 0.0)
        gauge[labels] = max(before, value) if METRICS[name].kind is Kind.PEAK else before + value

    def snapshot(self) -> Snapshot:
        """Return all of it."""
        return Snapshot(
            {name: [(list(labels), value) for labels, value in each.items()] for name, each in self.counters.items()},
            {
                name: [(list(labels), list(one.counts), one.sum) for labels, one in each.items()]
                for name, each in self.spreads.items()
            },
            {name: [(list(labels), value) for labels, value in each.items()] for name, each in self.gauges.items()},
        )


Reading: TypeAlias = Callable[[], Values]  # what somebody else counts, or what is true only now


def name_of(label: str) -> str:
    """Return what may stand in a label: short, and text that can be sent."""
    return label[:MAX_NAME].encode("utf-8", "replace").decode()


def _is_like(name: str, *kinds: Kind) -> bool:
    return name in METRICS and METRICS[name].kind in kinds


def families(tally: Tally) -> Iterator[tuple[str, list[tuple[Labels, float | Spread]]]]:
    """Yield each metric's name, and its values in order; a counter without labels is there from the start, as 0."""
    for name, metric in METRICS.items():
        kept: Mapping[Labels, float | Spread] = tally.gauges[name]
        if metric.kind is Kind.SPREAD:
            kept = tally.spreads[name]
        elif metric.kind is Kind.COUNTER:
            kept = tally.counters[name] or ({} if metric.labels else {(): 0})
        yield name, sorted(kept.items(), key=lambda each: each[0])
