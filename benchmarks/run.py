"""Runs the benchmark and prints its report: `python -m benchmarks.run --help`.

Rules: the server stands alone on one core, the mock upstream and the load generator share another. Every round starts
every server anew and measures all of them, in another order each time. No round is dropped.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from . import machine, measure, report, servers
from .instruments import FOLDER, InstrumentError, Upstream, build, run_upstream
from .measure import Row
from .servers import SERVERS, Server

RESULTS = FOLDER / "results"


@dataclass(frozen=True)
class Pace:
    """How long and how often to measure; times in seconds."""

    rounds: int
    first_token: float
    voice: float
    barge_in: float
    streams: tuple[int, ...]


DEFAULT = Pace(rounds=5, first_token=3, voice=3, barge_in=4, streams=(50, 200, 500))
QUICK = Pace(rounds=2, first_token=1.5, voice=1.5, barge_in=2, streams=(50,))


def measure_server(server: Server, upstream: Upstream, pace: Pace, *, core: int) -> Iterator[Row]:
    """Start `server`, take every measurement once, and yield a row of figures for each."""
    with servers.run(server, upstream, core=core) as running:
        yield {"what": "start", **measure.warm_up(running)}
        yield {"what": "ttft", **measure.first_token(running, upstream, seconds=pace.first_token)}
        for streams in pace.streams:
            row = measure.voice(running, upstream, streams=streams, seconds=pace.voice)
            yield {"what": "voice", **row}
            if row["errors"] > row["turns"] / 2:
                break  # more streams would only be lost too
        else:
            yield {"what": "cancel", **measure.barge_in(running, upstream, seconds=pace.barge_in)}


def measure_all(names: Sequence[str], pace: Pace, *, core: int) -> Iterator[Row]:
    """Take all rounds, and yield their rows."""
    with run_upstream() as upstream:
        for number in range(1, pace.rounds + 1):
            turned = number % len(names)
            for name in [*names[turned:], *names[:turned]]:
                print(f"round {number} of {pace.rounds}: {name}", file=sys.stderr)
                for row in measure_server(SERVERS[name], upstream, pace, core=core):
                    yield {"round": number, "server": name, **row}


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them."""
    return tuple(int(number) for number in text.split(","))


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Time the relay beside other servers."
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: good for seeing that it runs")
    parser.add_argument("--rounds", type=int, help=f"default {DEFAULT.rounds}")
    parser.add_argument("--only", default=",".join(SERVERS), help="servers, with commas: %(default)s")
    usual = ",".join(map(str, DEFAULT.streams))
    parser.add_argument("--streams", type=numbers, help=f"voice streams at a time, with commas; default {usual}")
    parser.add_argument("--reference", default="firstword", help="whose figures are 1 in the ratios: %(default)s")
    arguments = parser.parse_args(words)
    arguments.only = arguments.only.split(",")
    if unknown := [name for name in [*arguments.only, arguments.reference] if name not in SERVERS]:
        parser.error(f"no such server: {', '.join(unknown)}; known: {', '.join(SERVERS)}")
    return arguments


def choose_pace(arguments: argparse.Namespace) -> Pace:
    """Return the pace that the command line asks for."""
    pace = QUICK if arguments.quick else DEFAULT
    if arguments.rounds:
        pace = replace(pace, rounds=arguments.rounds)
    if arguments.streams:
        pace = replace(pace, streams=arguments.streams)
    return pace


def run(arguments: argparse.Namespace, command: str) -> str:
    """Measure, keep the rows and the report, and return the report."""
    build()
    pace = choose_pace(arguments)
    server_core, tools_core = machine.two_cores()
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / datetime.now().strftime("%Y%m%d-%H%M%S.jsonl")
    packages = dict.fromkeys(package for name in arguments.only for package in SERVERS[name].packages)
    facts = machine.describe(list(packages)) | {
        "command": f"`{command}`",
        "rounds": str(pace.rounds),
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "pinned": f"server on core {server_core}, upstream and load generator on core {tools_core}",
    }
    stolen_before, ticks_before = machine.stolen()
    rows = []
    with machine.on_core(tools_core), kept.open("wb") as output:
        output.write(msgspec.json.encode(facts) + b"\n")
        for row in measure_all(arguments.only, pace, core=server_core):
            rows.append(row)
            output.write(msgspec.json.encode(row) + b"\n")
            output.flush()  # rounds that were measured are not lost with one that fails
    stolen, ticks = machine.stolen()
    facts["time taken by other guests"] = f"{100 * (stolen - stolen_before) / max(1, ticks - ticks_before):.1f} %"
    text = report.write(report.Run(facts=facts, rows=rows, reference=arguments.reference))
    kept.with_suffix(".md").write_text(text)
    return f"{text}\nkept in {os.path.relpath(kept)}, and this page beside it"


def main(words: Sequence[str]) -> int:
    """Run the benchmark that `words` ask for; return the status for the shell."""
    arguments = read_arguments(words)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536, most))
    try:
        print(run(arguments, shlex.join(["python", "-m", "benchmarks.run", *words])))
    except InstrumentError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
