"""The measurements: each runs the instruments against one running server and returns one row of figures.

Rules: a row is a flat dict, written as it is to the results. Times have their unit in the name; a percentile of nothing
is None. A percentile is a time that was measured (nearest rank), never one between two.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from . import machine
from .instruments import Figures, Upstream
from .rows import Row
from .running import Running, Taken

# A voice turn: the first token after 200 ms, then a token every 20 ms, 50 in all.
FIRST_MS, CHUNKS, GAP_MS = 200, 50, 20
TURN: dict[str, str | float] = {"first_ms": FIRST_MS, "chunks": CHUNKS, "gap_ms": GAP_MS}
TURN_SECONDS = (FIRST_MS + (CHUNKS - 1) * GAP_MS) / 1000
IMPORTS = 7  # processes that import, and as many that do nothing
CANCEL_STREAMS = 20  # few, so that a slow server is late because it is slow to notice and not because it is full


def percentile(samples: Sequence[float], share: float) -> float | None:
    """Return the smallest sample that at least `share` of all samples do not exceed."""
    if not samples:
        return None
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def spread(name: str, unit: str, samples_ns: Sequence[float]) -> Row:
    """Sum `samples_ns` up as p50, p90, p99 and max in `unit` (us or ms)."""
    divisor = {"us": 1e3, "ms": 1e6}[unit]
    row: Row = {}
    for label, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        value = percentile(samples_ns, share)
        row[f"{name}_{label}_{unit}"] = None if value is None else round(value / divisor, 3)
    return row


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 3)


def _counts(figures: Figures) -> Row:
    names = ("turns", "refused", "broken", "wrong", "unfinished", "connections")
    return {name: getattr(figures, name) for name in names} | {"errors": figures.errors}


def _taken(running: Running, before: Taken | None, turns: int) -> Row:
    """Say what each turn took of the CPU since `before`, and what share of the server's core others took from it."""
    after = running.taken()
    if before is None or after is None:
        return {"cpu_us_per_turn": None, "others_percent": None}
    others = (after.others - before.others) / (after.moment - before.moment)
    return {
        "cpu_us_per_turn": round((after.own - before.own) / max(1, turns) * 1e6, 1),
        # A second core may be the instruments' own, whose work is not a disturbance.
        "others_percent": round(100 * max(0.0, others), 1) if len(running.cores) == 1 else None,
    }


def warm_up(running: Running) -> Row:
    """Serve some turns, so that what is made once is made; tell what the start took."""
    running.load({"mode": "ttft", "turns": 300, "seconds": 1})
    return {"first_turn_after_s": running.first_turn_after, "memory_mb": running.memory_mb()}


def first_token(running: Running, upstream: Upstream, *, seconds: float) -> Row:
    """Time the first token of one client's turns; every other turn goes past the server, straight to the upstream."""
    before = running.taken()
    figures = running.load({"mode": "ttft", "beside": upstream.address, "seconds": seconds})
    taken = _taken(running, before, (figures.turns + 1) // 2)
    through, direct = spread("ttft", "us", figures.first_ns), spread("direct", "us", figures.beside_ns)
    added = {
        f"added_{label}_us": _less(through[f"ttft_{label}_us"], direct[f"direct_{label}_us"])
        for label in ("p50", "p90", "p99")
    }
    return {**_counts(figures), **through, **direct, **added, **taken}


def voice(running: Running, upstream: Upstream, *, streams: int, seconds: float) -> Row:
    """Let `streams` turns be spoken at any time, and time every chunk from the upstream's write to our read.

    A first run, one turn long, is not counted: it leaves as many connections open as the second one needs, so that no
    handshake is charged to it. A call has many turns.
    """
    memory = [running.memory_mb()]
    words = {"mode": "voice", "streams": streams, **TURN}
    running.load({**words, "seconds": TURN_SECONDS})
    upstream.reset()
    before = running.taken()
    words["seconds"] = seconds + TURN_SECONDS
    figures = running.load(words, look=lambda: memory.append(running.memory_mb()))
    taken = _taken(running, before, figures.turns)
    stats = upstream.stats()
    return {
        "streams": streams,
        **_counts(figures),
        "chunks": figures.chunks,
        "timed_chunks": len(figures.delay_ns),
        **spread("delay", "ms", figures.delay_ns),
        **spread("late_first", "ms", [first - FIRST_MS * 1e6 for first in figures.first_ns]),
        **taken,
        "memory_mb": max((megabytes for megabytes in memory if megabytes), default=None),
        "upstream_late_mean_ms": round(stats.late_mean_ns / 1e6, 3),
        "upstream_late_max_ms": round(stats.late_max_ns / 1e6, 3),
    }


def barge_in(running: Running, upstream: Upstream, *, seconds: float) -> Row:
    """Drop every turn at a random moment, and time from the client's close to the upstream's seeing of it."""
    upstream.reset()
    figures = running.load({"mode": "cancel", "streams": CANCEL_STREAMS, "seconds": seconds, **TURN})
    stats = upstream.stats()
    patience = time.monotonic() + 2 * TURN_SECONDS
    while stats.speaking and time.monotonic() < patience:  # what nobody stops is spoken to its end
        time.sleep(0.05)
        stats = upstream.stats()
    ends = {turn: (moment, whole) for turn, moment, whole in stats.ended}
    drops = dict(zip(figures.drops[::2], figures.drops[1::2], strict=True))
    closed = [ends[turn][0] - moment for turn, moment in drops.items() if turn in ends and not ends[turn][1]]
    return {
        **_counts(figures),
        "dropped": len(drops),
        "never_asked": sum(turn not in ends for turn in drops),
        "spoken_to_the_end": sum(turn in ends and bool(ends[turn][1]) for turn in drops),
        **spread("closed", "ms", closed),
    }


def import_time(module: str, *, cores: Sequence[int]) -> Row:
    """Time `import module` as users meet it, in a process of its own, less what a bare interpreter takes; medians."""

    def milliseconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1e3

    with machine.on_cores(cores[:1]):
        milliseconds(f"import {module}")  # the first one may compile
        pairs = [(milliseconds(f"import {module}"), milliseconds("pass")) for _ in range(IMPORTS)]
    whole, bare = (median(times) for times in zip(*pairs, strict=True))
    return {"import_ms": round(whole - bare, 1), "bare_ms": round(bare, 1)}
