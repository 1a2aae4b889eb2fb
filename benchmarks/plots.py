"""The report's three pictures, made with matplotlib: first token by server, chunk delay by streams, CPU by server.

Rules: words stand beside what they name, not in a legend. Where servers differ by thousands the axis is logarithmic,
and then there are dots, not bars: a bar would need a zero. matplotlib is imported here only, and without a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from .rows import Run, middle, number, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ours are warm, all others cold; one with a TLS upstream has the colour of the same server without, and dashes.
COLORS = {
    "direct": "#b6bfca",
    "nginx": "#111827",
    "firstword": "#c2410c",
    "firstword-full": "#e07b39",
    "firstword-2": "#a8780f",
    "plain": "#d1495b",
    "naive": "#7c8794",
    "litellm": "#2f6690",
    "portkey": "#6b5b95",
}
TEXT, FAINT = "#3f4a5a", "#d5dae1"
USUAL_STREAMS = 200  # at which the CPU of servers is compared, if they came so far
WIDTH, DPI = 9.0, 150  # inches, dots per inch
LINE = 0.042  # height of a line of text, as a share of the picture of curves


class Place(NamedTuple):
    """A server's name, and the two ends of what is drawn in its line."""

    name: str
    low: float
    high: float
    note: str = ""


def missing() -> str | None:
    """Say in one line why there are no pictures here; None if there can be."""
    return None if find_spec("matplotlib") else "matplotlib is not installed; `make bench` installs it"


def draw(run: Run, folder: Path, stem: str) -> dict[str, Path]:
    """Write the pictures into `folder`, and return their paths by their titles; one without figures is not made."""
    pictures = {
        "first-token": ("Time added to the first token", _first_token(run)),
        "streams": ("Chunk delay against the number of streams", _streams(run)),
        "cpu": ("CPU of a voice turn", _cpu(run)),
    }
    drawn = {}
    for name, (title, figure) in pictures.items():
        if figure is None:
            continue
        drawn[title] = folder / f"{stem}-{name}.png"
        figure.savefig(drawn[title], dpi=DPI, facecolor="white")
    return drawn


def _color(name: str) -> str:
    return COLORS.get(name.removesuffix("-tls"), TEXT)


def paper(height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a picture `height` inches high, and its empty panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right", "left"]].set_visible(False)
        each.grid(axis="both", color=FAINT, linewidth=0.6)
        each.set_axisbelow(True)
        each.tick_params(length=0, labelsize=9, colors=TEXT)
        each.tick_params(which="minor", length=0, labelleft=False, labelbottom=False)
    return figure, axes


def headline(axes: Axes, title: str, below: str) -> None:
    """Write a panel's title, and what it shows."""
    axes.set_title(f"{title}\n", loc="left", fontsize=12, fontweight="bold")
    axes.text(0, 1.01, below, transform=axes.transAxes, fontsize=9, color=TEXT, va="bottom")


# ---- a line for each server ----


def _first_token(run: Run) -> Figure | None:
    places = []
    for name in run.servers():
        rows = run.of(name, "ttft")
        low, high = middle(rows, "added_p50_us"), middle(rows, "added_p99_us")
        if name != "direct" and low and high and low > 0:
            places.append(Place(name, low / 1e3, max(low, high) / 1e3))
    if not places:
        return None
    below = "one client; ms, logarithmic; full dot: p50, hollow: p99; less the same without a server"
    return _lines(places, "Time added to the first token", below, "ms")


def _cpu(run: Run) -> Figure | None:
    places = []
    for name in run.servers():
        streams = _whole_streams(run, name)
        figure = middle(run.of(name, "voice", streams), "cpu_us_per_turn") if streams else None
        if figure:
            note = "" if streams == USUAL_STREAMS else f" at {streams} streams"
            places.append(Place(name, figure / 1e3, figure / 1e3, note))
    if not places:
        return None
    below = f"ms of one core, logarithmic; a turn: 50 chunks in 1.2 s; {USUAL_STREAMS} streams unless it says otherwise"
    return _lines(places, "CPU of a voice turn", below, "ms")


def _whole_streams(run: Run, name: str) -> int | None:
    """Return the number of streams, next to the usual one, at which no turn was lost: a lost one costs little."""
    whole = [
        streams
        for streams in run.streams()
        if (rows := run.of(name, "voice", streams)) and not any(values(rows, "errors"))
    ]
    return min(whole, key=lambda streams: abs(streams - USUAL_STREAMS), default=None)


def _lines(places: list[Place], title: str, below: str, unit: str) -> Figure:
    """Draw each server's low and high figure as two dots in a line of its own, the lowest on top."""
    places = sorted(places, key=lambda place: -place.low)
    figure, (axes,) = paper(1.3 + 0.36 * len(places))
    axes.set_xscale("log")
    for line, (name, low, high, note) in enumerate(places):
        color = _color(name)
        axes.plot([low, high], [line, line], color=color, linewidth=1.5)
        axes.plot(high, line, "o", markerfacecolor="white", color=color, markersize=7)
        axes.plot(low, line, "o", color=color, markersize=7)
        if high > low:
            _beside(axes, number(low), (low, line), -8, color)
        _beside(axes, f"{number(high)} {unit}{note}", (high, line), 8, color)
    axes.set_yticks(range(len(places)), [place.name for place in places], fontsize=10)
    for label, place in zip(axes.get_yticklabels(), places, strict=True):
        label.set_color(_color(place.name))
    axes.set_ylim(-0.6, len(places) - 0.4)
    # Room for the figures beside the outermost dots.
    axes.set_xlim(min(place.low for place in places) / 2.2, max(place.high for place in places) * 3.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", visible=False)
    headline(axes, title, below)
    return figure


def _beside(axes: Axes, text: str, dot: tuple[float, float], points: int, color: str) -> None:
    """Write `text` so many points to the right of `dot`, or to its left if they are negative."""
    side: Literal["left", "right"] = "left" if points > 0 else "right"
    axes.annotate(
        text, dot, xytext=(points, 0), textcoords="offset points", va="center", ha=side, fontsize=9, color=color
    )


# ---- a curve for each server ----


class End(NamedTuple):
    """Where a server's curve ends."""

    y: float
    name: str


def _streams(run: Run) -> Figure | None:
    if not run.streams():
        return None
    figure, panels = paper(5.2, columns=2)
    ends = []
    for axes, share in zip(panels, ("p50", "p99"), strict=True):
        ends.append(_curves(axes, run, f"delay_{share}_ms"))
        headline(axes, f"Chunk delay, {share}", "ms, logarithmic; x: turns were lost; dashes, hollow: TLS upstream")
        axes.set_xlabel("voice streams at a time", loc="left", fontsize=9, color=TEXT)
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes, ends_here in zip(panels, ends, strict=True):
        axes.set_ylim(low, high)
        for x, group in ends_here.items():
            _name_ends(axes, x, sorted(group))
    return figure


def _curves(axes: Axes, run: Run, key: str) -> dict[int, list[End]]:
    """Draw one percentile of every server against the number of streams, and return the curves' ends by their place.

    The numbers of streams stand evenly, as names do.
    """
    steps = {streams: place for place, streams in enumerate(run.streams())}
    ends: dict[int, list[End]] = {}
    axes.set_yscale("log")
    for name in run.servers():
        points = {streams: middle(run.of(name, "voice", streams), key) for streams in steps}
        curve = [(steps[streams], point, streams) for streams, point in points.items() if point]
        if not curve:
            continue
        dashes, color = "--" if name.endswith("-tls") else "-", _color(name)
        axes.plot([x for x, _, _ in curve], [y for _, y, _ in curve], dashes, color=color, linewidth=1.6)
        for x, y, streams in curve:
            lost = any(values(run.of(name, "voice", streams), "errors"))
            dot = axes.plot(x, y, "x" if lost else "o", color=color, markersize=7 if lost else 4, markeredgewidth=1.6)
            if dashes == "--":
                dot[0].set_markerfacecolor("white")
        ends.setdefault(curve[-1][0], []).append(End(curve[-1][1], name))
    axes.set_xticks(range(len(steps)), [f"{streams:,}" for streams in steps])
    axes.set_xlim(-0.2, len(steps) - 1 + 0.62 * max(1, len(steps) - 1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return ends


def _name_ends(axes: Axes, x: int, ends: Sequence[End]) -> None:
    """Write each curve's name beside its end at `x`, far enough from the next to be read; the lowest first."""
    low, high = axes.get_ylim()
    wanted = [log(end.y / low) / log(high / low) for end in ends]
    for end, place in zip(ends, spread(wanted, LINE), strict=True):
        axes.annotate(
            end.name,
            (x, end.y),
            xytext=(x + 0.12, low * (high / low) ** place),
            va="center",
            fontsize=9,
            color=_color(end.name),
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4},
        )


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """Return places near the `wanted` ones (rising), none nearer to the next than `apart`.

    Neighbours that would touch become a block around the middle of what they wanted.
    """
    blocks: list[list[float]] = []
    for place in wanted:
        blocks.append([place])
        while len(blocks) > 1 and _lowest(blocks[-1], apart) - _highest(blocks[-2], apart) < apart:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_lowest(block, apart) + index * apart for block in blocks for index in range(len(block))]


def _lowest(block: Sequence[float], apart: float) -> float:
    return sum(block) / len(block) - (len(block) - 1) * apart / 2


def _highest(block: Sequence[float], apart: float) -> float:
    return _lowest(block, apart) + (len(block) - 1) * apart
