"""Count what became of turns, for those who look after the server: shown at /metrics in Prometheus' format.

Counting is a few additions at the end of a turn, off the caller's path; the format is the library's, which is loaded
when somebody asks. Each worker counts for itself. No label holds what a caller said or is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from ..events import Event
from ..turn import Turn

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABELS = 1000  # names of models and outcomes that are told apart; providers make up error codes
MAX_NAME = 100  # signs of a model's name; without a list of models it is whatever the caller wrote
MAX_TOKENS = 100_000_000  # of one attempt; a server that counts more, or less than none, is not believed
OTHER = "other"
# Seconds up to which the engine's latencies are counted together; 0.7 is where people notice a silence.
BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
STATES = ("closed", "half-open", "open")


class Spread:
    """How often a time was within each of the bounds, and over all of them; and the sum of them all, in seconds."""

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


class Counts:
    """What this process has counted since it began."""

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()  # by outcome: "answered", "hung_up" or an error's code
        self.attempts: Counter[tuple[str, str, str]] = Counter()  # by model, why and outcome
        self.unheard: Counter[tuple[str, str]] = Counter()  # by model and unit: what attempts that lost have cost
        self.tool_calls: Counter[tuple[str, str]] = Counter()  # by tool and outcome
        self.again: Counter[str] = Counter()  # turns that were sent again, by what became of them
        self.events: Counter[str] = Counter()  # what an engine told by webhook, by name
        self.heard: Counter[str] = Counter()  # turns that it told of: answered "here" or "elsewhere"
        self.latencies: dict[tuple[str, str], Spread] = {}  # of those turns, by event and part
        self.fillers = 0
        self.apologies = 0
        self.truncated = 0
        self.stalls = 0

    def note(self, turn: Turn, outcome: str) -> None:
        """Count a turn that is over."""
        turns = self.turns
        turns[outcome if outcome in turns else _known(turns, outcome)] += 1
        if turn.is_plain:
            return
        if turn.again:
            self.again[turn.again] += 1
        if turn.is_repeat:
            return  # what else is to be counted belongs to the turn whose reply it heard
        self.fillers += turn.filled
        self.apologies += turn.apologised
        self.truncated += turn.reply.truncated
        self.stalls += turn.stalls
        for each in turn.called:
            name = "" if each.outcome == "unknown" else each.name  # else it is the model's own words
            self.tool_calls[_known(self.tool_calls, (name, each.outcome))] += 1
        for attempt in turn.attempts:
            model = attempt.model[:MAX_NAME]
            self.attempts[_known(self.attempts, (model, attempt.why, attempt.outcome))] += 1
            if attempt.spoke is None and attempt.chunks:
                self.unheard[_known(self.unheard, (model, "chunks"))] += attempt.chunks
            tokens = (attempt.usage or {}).get("total_tokens")
            if type(tokens) is int and 0 < tokens <= MAX_TOKENS:
                self.unheard[_known(self.unheard, (model, "tokens"))] += tokens

    def note_event(self, event: Event) -> None:
        """Count an event of an engine's, and the times in it."""
        self.events[event.name] += 1
        for turn in event.turns:
            self.heard["elsewhere" if turn.id is None else "here"] += 1
            for part, seconds in turn.latencies.items():
                key = (event.name, part)
                if key not in self.latencies and len(self.latencies) >= MAX_LABELS:
                    key = (event.name, OTHER)
                self.latencies.setdefault(key, Spread()).note(seconds)

    def page(self, states: Mapping[str, str]) -> bytes:
        """Return all of it as text, with the breakers' `states` by model."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        counts = self

        class Page(Collector):
            def collect(self) -> Iterator[Any]:
                return _families(counts, states)

        registry = CollectorRegistry()
        registry.register(Page())
        return generate_latest(registry)


def _known(counted: Counter[Any], labels: Any) -> Any:
    """Return the labels, or those of all the rest when there are too many already."""
    if labels in counted or len(counted) < MAX_LABELS:
        return labels
    return OTHER if isinstance(labels, str) else (OTHER,) * len(labels)


def _families(counts: Counts, states: Mapping[str, str]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    def counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> Any:
        family = CounterMetricFamily(f"firstword_{name}", text, labels=labels)
        for key, value in sorted(values.items()):
            family.add_metric([key] if isinstance(key, str) else list(key), value)
        return family

    yield counter("turns", "Turns that are over, by how they ended.", ("outcome",), counts.turns)
    yield counter(
        "attempts",
        "Requests to models, of turns that could cost several.",
        ("model", "why", "outcome"),
        counts.attempts,
    )
    yield counter(
        "unheard",
        "What came from models of which the caller heard nothing: chunks, and tokens where they were counted.",
        ("model", "unit"),
        counts.unheard,
    )
    yield counter(
        "tool_calls", "Calls of tools that run here, by what came of them.", ("tool", "outcome"), counts.tool_calls
    )
    yield counter(
        "again",
        "Turns that were sent again: superseded, joined to the first one, or replayed.",
        ("how",),
        counts.again,
    )
    for name, text in (
        ("fillers", "Fillers that were said."),
        ("apologies", "Apologies that were said instead of an error, or behind words that were cut off."),
        ("truncated", "Replies of which words are missing."),
        ("stalls", "Times that words came for stall_timeout without the end of a sentence."),
    ):
        yield CounterMetricFamily(f"firstword_{name}", text, value=getattr(counts, name))
    yield counter("events", "What an engine told by webhook.", ("event",), counts.events)
    yield counter(
        "heard", "Turns that an engine told of, and whether they were answered here.", ("where",), counts.heard
    )
    spread = HistogramMetricFamily(
        "firstword_engine_latency_seconds", "How long the parts of turns took the engine.", labels=("event", "part")
    )
    for (event, part), times in sorted(counts.latencies.items()):
        spread.add_metric([event, part], times.buckets(), times.sum)
    yield spread
    breaker = GaugeMetricFamily(
        "firstword_breaker", "1 for the state of each model's breaker.", labels=("model", "state")
    )
    for model, state in sorted(states.items()):
        for each in STATES:
            breaker.add_metric([model, each], float(state == each))
    yield breaker
