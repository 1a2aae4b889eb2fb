"""What a server has counted, read from its page by Prometheus' own parser."""

from __future__ import annotations

import asyncio

from caller import Caller
from prometheus_client.parser import text_string_to_metric_families
from served import Served

from firstword.telemetry.catalogue import METRICS

Samples = dict[tuple[str, tuple[str, ...]], float]


def read(page: str) -> Samples:
    """Return every sample by its name, without `firstword_`, and the values of its labels, in the catalogue's order."""
    found = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation
        name = family.name.removeprefix("firstword_")
        for sample in family.samples:
            labels = [*METRICS[name].labels, "le"] if name in METRICS else ["worker"]
            assert set(sample.labels) <= set(labels)
            values = tuple(sample.labels[each] for each in labels if each in sample.labels)
            found[sample.name.removeprefix("firstword_"), values] = sample.value
    return found


async def counted(served: Served) -> Samples:
    """Return what a server has counted, its last turn included: a caller has heard the end before it is counted."""
    await asyncio.to_thread(served.left_open)
    heard = await Caller(served.url).hears(method="GET", path="/metrics")
    assert heard.status == 200 and heard.headers["content-type"].startswith("text/plain; version=")
    return read(heard.body.decode())


def moved(before: Samples, after: Samples) -> Samples:
    """Return what has changed: counters, and how many times were noted; not the times, nor what is true only now."""
    apart = ("process_", "turns_in_progress", "connections", "queue", "loop_lag_seconds", "breaker")
    return {
        (name.removesuffix("_total"), labels): value - before.get((name, labels), 0.0)
        for (name, labels), value in after.items()
        if value != before.get((name, labels), 0.0)
        and not name.startswith(apart)
        and not name.endswith(("_bucket", "_sum"))
    }
