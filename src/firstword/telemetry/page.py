"""Write a tally as Prometheus reads it, in its own format or as OpenMetrics. The format is prometheus-client's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .catalogue import METRICS, Kind
from .tally import Spread, Tally, families

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text"


def render(tally: Tally, *, accept: str = "", pids: Iterable[int] = ()) -> tuple[str, bytes]:
    """Return the content type and the page, with memory, CPU and descriptors of the processes `pids`.

    accept: the request's header; OpenMetrics is for who names it.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.openmetrics import exposition
    from prometheus_client.registry import Collector

    class Page(Collector):
        def collect(self) -> Iterator[Any]:
            yield from map(_family, *zip(*families(tally), strict=True))
            yield from _processes(pids)

    registry = CollectorRegistry()
    registry.register(Page())
    if OPEN in accept.lower():
        return str(exposition.CONTENT_TYPE_LATEST), exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return PLAIN, generate_latest(registry)


def _family(name: str, values: Iterable[tuple[tuple[str, ...], float | Spread]]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kind, labels, text = METRICS[name]
    shapes = {Kind.COUNTER: CounterMetricFamily, Kind.SPREAD: HistogramMetricFamily}
    family: Any = shapes.get(kind, GaugeMetricFamily)(f"firstword_{name}", text, labels=labels)
    for names, value in values:
        if isinstance(value, Spread):
            family.add_metric(names, value.buckets(), value.sum)
        else:
            family.add_metric(names, value)
    return family


def _processes(pids: Iterable[int]) -> Iterator[Any]:
    """Yield what the system knows of each process, by the label `worker`; nothing where there is no /proc."""
    from prometheus_client.metrics_core import Metric
    from prometheus_client.process_collector import ProcessCollector

    found: dict[str, Metric] = {}
    for pid in pids:
        for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            kept = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.add_sample(sample.name, {"worker": str(pid)}, sample.value)
    yield from found.values()
