"""How long a caller waits for the first word, with published tails of real models: `make tails`.

The server is the real one, on a clock that jumps (`firstword.testing`); only the models are drawn by lot. A model's
time to its first token is drawn from a curve through its published median, 95th percentile and longest time: lognormal
through the first two, and above them log-linear in the normal quantile up to the longest, which is taken for the time
of one answer in a thousand. A share of the requests fails, at once.
Source of the times: the table of providers in `docs/never-silent.md`.

    python -m benchmarks.tails [--turns 5000] [--write]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from firstword.testing import Phone, after, fails, run, says
from firstword.testing.models import Scripted

from .plots import COLORS, DPI, TEXT, headline, missing, paper
from .rows import number

FOLDER = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = FOLDER / "never-silent.md", FOLDER / "first-word.png"
BEGIN, END = "<!-- made by `make tails` -->", "<!-- end of tails -->"
SEED = 20261126
FAILING = 0.004  # share of requests that fail, as it was published
RARE = 0.001  # the share of answers that take the longest time
WORST = 60.0  # seconds: for the runs in which nobody looks at the clock


@dataclass(frozen=True)
class Tail:
    """One model's times to its first token, in seconds."""

    median: float
    p95: float
    longest: float

    def draw(self, chance: random.Random) -> float:
        """Return the time of one answer."""
        normal = NormalDist()
        z, z95, z_rare = normal.inv_cdf(chance.uniform(1e-9, 1 - 1e-9)), normal.inv_cdf(0.95), normal.inv_cdf(1 - RARE)
        if z <= z95:
            return self.median * math.exp(z / z95 * math.log(self.p95 / self.median))
        rise = math.log(self.longest / self.p95) / (z_rare - z95)
        return min(self.p95 * math.exp((z - z95) * rise), self.longest)


TAILS = {
    "gpt-4o": Tail(0.625, 1.222, 13.378),
    "gpt-4.1": Tail(0.683, 1.052, 3.860),
    "gemini-2.5-flash": Tail(0.594, 1.349, 2.104),
}
FIRST, SECOND = "gpt-4o", "gemini-2.5-flash"


@dataclass(frozen=True)
class Way:
    """One way to run the server: its settings, and whether there is a second model."""

    name: str
    has_second: bool
    settings: Mapping[str, Any]


FILLED = {"fillers": ["One moment. "], "fill_after": 1.5}
WAYS = (
    Way("one model, no deadline", False, {"first_token_timeout": WORST, "hedge_share": 0}),
    Way("failover only", True, {"hedge_after": None}),
    Way("hedged after 1.2 s", True, {"hedge_after": 1.2}),
    Way("hedged after its p95", True, {"hedge_after": "p95"}),
    Way("hedged after 1.2 s, and a filler", True, {"hedge_after": 1.2, **FILLED}),
)


@dataclass(frozen=True)
class Waits:
    """What the callers of one way waited for the first word, sorted, in seconds; those who heard an error apart."""

    way: Way
    times: Sequence[float]
    errors: int
    extra: float  # requests beyond one a turn, as a share of the turns

    def at(self, share: float) -> float:
        """Return the time within which `share` of the callers heard something."""
        return self.times[min(int(share * len(self.times)), len(self.times) - 1)]


def _model(tail: Tail, chance: random.Random) -> Scripted:
    return lambda record: fails(503) if chance.random() < FAILING else after(tail.draw(chance), says("Hello."))


async def wait(way: Way, turns: int) -> Waits:
    """Have `turns` turns one after the other, on one server."""
    names = [FIRST, SECOND] if way.has_second else [FIRST]
    # Each model has its own lots, so that all ways meet the same answers of the first.
    models = [_model(TAILS[name], random.Random(f"{SEED} {name}")) for name in names]

    async def calls() -> Waits:
        async with Phone(models=models, **way.settings) as phone:
            scores = [await phone.talk() for _ in range(turns)]
        times = sorted(score.first_word for score in scores if score.first_word is not None)
        asked = sum(len(score.asked) for score in scores)
        return Waits(way, times, turns - len(times), asked / turns - 1)

    return await run(calls)


def table(found: Sequence[Waits]) -> str:
    """Return what was found as a table."""
    rows = ["| | p50 | p95 | p99 | 99.9 % | longest | errors | extra requests |", "|---|---|---|---|---|---|---|---|"]
    for waits in found:
        times = [f"{number(waits.at(share))} s" for share in (0.5, 0.95, 0.99, 0.999, 1.0)]
        turns = len(waits.times) + waits.errors
        rows.append(f"| {waits.way.name} | {' | '.join(times)} | {waits.errors / turns:.2%} | {waits.extra:.1%} |")
    return "\n".join(rows)


def draw(found: Sequence[Waits], path: Path) -> None:
    """Draw the share of callers who have heard nothing yet against the time."""
    picture, (axes,) = paper(5.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    colors = [color for name, color in COLORS.items() if name not in ("direct", "nginx")]
    turns = len(found[0].times) + found[0].errors
    for waits, color in zip(found, colors, strict=False):
        shares = [1 - (place + 1) / turns for place in range(len(waits.times))]
        axes.step(waits.times, shares, where="post", color=color, linewidth=1.7, label=waits.way.name)
    axes.set_xlim(0.2, 20)
    axes.set_ylim(1.5 / turns, 1.1)
    axes.set_xticks([0.2, 0.5, 1, 1.5, 2, 4, 8, 15], ["0.2", "0.5", "1", "1.5", "2", "4", "8", "15"])
    axes.set_yticks([1, 0.1, 0.01, 0.001], ["all", "10 %", "1 %", "0.1 %"])
    axes.set_xlabel("seconds since the caller has spoken, logarithmic", loc="left", fontsize=9, color=TEXT)
    axes.legend(loc="upper right", fontsize=9, frameon=False, labelcolor="linecolor")
    below = f"share of {turns:,} turns; first model: {FIRST}, second: {SECOND}; published times, simulated"
    headline(axes, "Callers who have heard nothing yet", below)
    picture.savefig(path, dpi=DPI, facecolor="white")


def main() -> None:
    """Print the table; with `--write`, put it and the picture into the documentation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5000)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and {PICTURE.name}")
    options = parser.parse_args()
    logging.getLogger("firstword").addHandler(logging.NullHandler())  # each failure would be a line on the screen
    found = [asyncio.run(wait(way, options.turns)) for way in WAYS]
    made = table(found)
    print(made)
    if options.write:
        if reason := missing():
            raise SystemExit(f"no picture: {reason}")
        draw(found, PICTURE)
        page = PAGE.read_text("utf-8")
        head, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
