"""The report: rows of figures in, one page of Markdown out.

Rules: no row is left out. A figure is the median of the rounds, but a `max` is the worst of all rounds, and counts are
sums. What the rounds disagree about is shown beside the figure that matters most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from . import goals
from .measure import TURN_SECONDS
from .rows import Row, Run, middle, number, values
from .servers import SERVERS

# A round is named as disturbed when its direct p50 was this many times the usual one, or others had this share of the
# server's core. It is kept: leaving out what looks bad is how benchmarks lie.
DIRECT_TIMES = 2.0
OTHERS_PERCENT = 10.0

Cell = Callable[[Sequence[Row]], str]


def _median(*keys: str, between: str = " / ") -> Cell:
    return lambda rows: between.join(number(middle(rows, key)) for key in keys)


def _ranged(key: str) -> Cell:
    """Write the median, and the least and the most of the rounds."""

    def cell(rows: Sequence[Row]) -> str:
        found = values(rows, key)
        return f"**{number(median(found))}** ({number(min(found))} .. {number(max(found))})" if found else "-"

    return cell


def _worst(key: str) -> Cell:
    return lambda rows: number(max(values(rows, key), default=None))


def _total(key: str, out_of: str = "") -> Cell:
    def cell(rows: Sequence[Row]) -> str:
        total = f"{sum(values(rows, key)):,.0f}"
        return f"{total} of {sum(values(rows, out_of)):,.0f}" if out_of else total

    return cell


def _times(run: Run, what: str, key: str, streams: int | None = None) -> Cell:
    """Write how many times the reference's figure it is."""

    def cell(rows: Sequence[Row]) -> str:
        reference = run.of(run.reference_of(rows[0]["server"]), what, streams)
        ours, theirs = middle(rows, key), middle(reference, key)
        return number(ours / theirs) if ours is not None and theirs else "-"

    return cell


def _core_percent(rows: Sequence[Row]) -> str:
    """Write what share of one core one stream takes while it speaks."""
    each = middle(rows, "cpu_us_per_turn")
    return number(each / TURN_SECONDS / 1e4 if each is not None else None)


def _table(lines: Sequence[tuple[str, Sequence[Row]]], cells: Mapping[str, Cell]) -> str:
    """Write a line for each name with rows, a column for each cell."""
    head = ["server", *cells]
    text = [" | ".join(head), " | ".join("---" for _ in head)]
    text += [" | ".join([name, *(cell(rows) for cell in cells.values())]) for name, rows in lines if rows]
    return "\n".join(f"| {line} |" for line in text)


def _first_token(run: Run) -> str:
    cells = {
        "first token p50, us": _median("ttft_p50_us"),
        "**added** p50, us (rounds)": _ranged("added_p50_us"),
        f"x {run.reference}": _times(run, "ttft", "added_p50_us"),
        "added p90, us": _median("added_p90_us"),
        "added p99, us": _median("added_p99_us"),
        "max, us": _worst("ttft_max_us"),
        "CPU us per turn": _median("cpu_us_per_turn"),
        f"x {run.reference} ": _times(run, "ttft", "cpu_us_per_turn"),
        "errors": _total("errors", "turns"),
    }
    return _table([(name, run.of(name, "ttft")) for name in run.servers()], cells)


def _voice(run: Run, streams: int) -> str:
    cells = {
        "chunk delay p50 / p99, ms": _median("delay_p50_ms", "delay_p99_ms"),
        "max, ms": _worst("delay_max_ms"),
        "first token late p50 / p99, ms": _median("late_first_p50_ms", "late_first_p99_ms"),
        "CPU us per turn": _median("cpu_us_per_turn"),
        f"x {run.reference}": _times(run, "voice", "cpu_us_per_turn", streams),
        "a stream's share of a core, %": _core_percent,
        "memory, MB": _median("memory_mb"),
        "errors": _total("errors", "turns"),
        "upstream itself late, mean / max ms": _median("upstream_late_mean_ms", "upstream_late_max_ms"),
    }
    return _table([(name, run.of(name, "voice", streams)) for name in run.servers()], cells)


def _barge_in(run: Run) -> str:
    cells = {
        "p50 / p99, ms": _median("closed_p50_ms", "closed_p99_ms"),
        "max, ms": _worst("closed_max_ms"),
        "spoken to the end": _total("spoken_to_the_end", "dropped"),
        "never asked of the upstream": _total("never_asked", "dropped"),
        "errors": _total("errors", "turns"),
    }
    return _table([(name, run.of(name, "cancel")) for name in run.servers()], cells)


def _start(run: Run) -> str:
    cells = {
        "first turn served after, s": _ranged("first_turn_after_s"),
        "memory then, MB": _median("memory_mb"),
    }
    return _table([(name, run.of(name, "start")) for name in run.servers()], cells)


def _disturbed(run: Run) -> str:
    """Name the rounds in which the machine was not ours alone."""
    usual = middle(run.rows, "direct_p50_us") or 0.0
    places = [
        f"{row['server']} {row['round']}"
        for row in run.rows
        if (row.get("direct_p50_us") or 0.0) > DIRECT_TIMES * usual
        or (row.get("others_percent") or 0.0) > OTHERS_PERCENT
    ]
    return ", ".join(dict.fromkeys(places)) or "none"


def _import_time(run: Run) -> str:
    rows = [row for row in run.rows if row["what"] == "import"]
    if not rows:
        return ""
    return (
        f"`import firstword` takes {_ranged('import_ms')(rows)} ms: the median of processes that import it and end, "
        f"less the {_median('bare_ms')(rows)} ms of processes that do nothing."
    )


def _ratios(run: Run) -> str:
    with_tls = sorted({run.reference_of(name) for name in run.servers()} - {run.reference})
    return f"`x {run.reference}` is the figure divided by that of {run.reference}" + (
        f"; for a server with a TLS upstream, by that of {with_tls[0]}." if with_tls else "."
    )


def write(run: Run, pictures: Mapping[str, Path] | None = None) -> str:
    """Return the report as Markdown; it shows `pictures`, which lie beside it, under their titles."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in run.facts.items())
    parts = [
        "# firstword benchmarks",
        f"| | |\n| --- | --- |\n{facts}\n| disturbed rounds (kept) | {_disturbed(run)} |\n"
        f"| others on the server's core, % | {_ranged('others_percent')(run.rows)} |",
        "\n".join(f"- **{name}**: {SERVERS[name].about}" for name in run.servers()),
        "No round is dropped. Figures are medians of the rounds; `max` is the worst of all; counts are sums. "
        + _ratios(run),
        *(f"![{title}]({path.name})" for title, path in (pictures or {}).items()),
    ]
    if run.of(goals.OURS, "ttft"):
        parts += ["## Goals", goals.write(run)]
    parts += ["## First token, one client", _first_token(run)]
    for streams in run.streams():
        parts += [f"## Voice, {streams} streams", _voice(run, streams)]
    parts += ["## Barge-in: from the client's close to the upstream's seeing of it", _barge_in(run)]
    parts += ["## Start", _start(run), _import_time(run)]
    return "\n\n".join(part for part in parts if part) + "\n"
