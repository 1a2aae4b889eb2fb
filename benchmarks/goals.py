"""The goals that this project set itself, and whether a run reached them.

Rules: a figure is firstword's with its default configuration; `x nginx` is divided by nginx's of the same run. What a
run did not measure is neither reached nor missed. Nothing is rounded before it is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .rows import Run, middle, number, values

Value = Callable[[Run], "float | None"]

OURS, OURS_TLS, LIMIT = "firstword", "firstword-tls", "nginx"


@dataclass(frozen=True)
class Goal:
    """One figure, the most that it may be, and the most that would be better still."""

    figure: str
    value: Value
    most: float | None = None
    stretch: float | None = None


def _figure(what: str, key: str, streams: int | None = None, *, server: str = OURS) -> Value:
    return lambda run: middle(run.of(server, what, streams), key)


def _times(over: str, under: str, what: str, key: str, streams: int | None = None) -> Value:
    """Return how many times the figure of `under` that of `over` is."""

    def value(run: Run) -> float | None:
        ours = _figure(what, key, streams, server=over)(run)
        theirs = _figure(what, key, streams, server=under)(run)
        return ours / theirs if ours is not None and theirs is not None and theirs > 0 else None

    return value


def _errors(streams: int) -> Value:
    """Return the turns that did not arrive whole, in all rounds together."""

    def value(run: Run) -> float | None:
        errors = values(run.of(OURS, "voice", streams), "errors")
        return sum(errors) if errors else None

    return value


def _growth(streams: int) -> Value:
    """Return what `streams` streams add to the memory of the server at rest, in MB."""

    def value(run: Run) -> float | None:
        rest, busy = _figure("start", "memory_mb")(run), _figure("voice", "memory_mb", streams)(run)
        return busy - rest if rest is not None and busy is not None else None

    return value


CPU = "cpu_us_per_turn"
GOALS = (
    Goal("added TTFT p50, one client, x nginx", _times(OURS, LIMIT, "ttft", "added_p50_us"), 1.3, 1.0),
    Goal("added TTFT p99, one client, x nginx", _times(OURS, LIMIT, "ttft", "added_p99_us"), 2.0, 1.5),
    Goal("CPU per one-chunk turn, x nginx", _times(OURS, LIMIT, "ttft", CPU), 2.2, 1.2),
    Goal("CPU per voice turn, 200 streams, x nginx", _times(OURS, LIMIT, "voice", CPU, 200), 1.8, 1.4),
    Goal("500 streams: errors", _errors(500), 0),
    Goal("500 streams: chunk delay p50, ms", _figure("voice", "delay_p50_ms", 500), 0.5),
    Goal("500 streams: chunk delay p99, ms", _figure("voice", "delay_p99_ms", 500), 8),
    Goal("500 streams: chunk delay p99, x nginx", _times(OURS, LIMIT, "voice", "delay_p99_ms", 500), stretch=1.5),
    Goal("1000 streams: errors", _errors(1000), 0),
    Goal("1000 streams: chunk delay p50, ms", _figure("voice", "delay_p50_ms", 1000), stretch=0.5),
    Goal("TLS upstream: CPU per one-chunk turn, x plain", _times(OURS_TLS, OURS, "ttft", CPU), 1.3),
    *(
        Goal(f"TLS upstream: CPU per voice turn, {streams} streams, x plain",
             _times(OURS_TLS, OURS, "voice", CPU, streams), 1.3)
        for streams in (200, 500, 1000)
    ),
    Goal("memory at rest, MB", _figure("start", "memory_mb"), 45),
    Goal("memory that 1000 streams add, MB", _growth(1000), 30, 10),
    Goal("`import firstword`, ms", _figure("import", "import_ms"), 150),
    Goal("first turn after the command, s", _figure("start", "first_turn_after_s"), 0.6),
    Goal("barge-in to the upstream's close, p99, ms", _figure("cancel", "closed_p99_ms"), 5),
)  # fmt: skip


def _reached(value: float | None, most: float | None) -> str:
    if value is None or most is None:
        return "-"
    return "yes" if value <= most else "**no**"


def write(run: Run) -> str:
    """Return the goals as a table of Markdown: a line for each, with a dash for what was not measured."""
    lines = ["| figure | here | goal, at most | reached | stretch | reached |", "| --- | --- | --- | --- | --- | --- |"]
    for goal in GOALS:
        value = goal.value(run)
        cells = (
            goal.figure,
            number(value),
            f"{goal.most:g}" if goal.most is not None else "-",
            _reached(value, goal.most),
            f"{goal.stretch:g}" if goal.stretch is not None else "-",
            _reached(value, goal.stretch),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
