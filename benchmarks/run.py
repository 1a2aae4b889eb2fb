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

from . import machine, measure, plots, report, running
from .instruments import FOLDER, InstrumentError, Upstream, build, run_upstream
from .rows import Row, Run
from .servers import SERVERS, Server, lacks, program_version

RESULTS = FOLDER / "results"
REFERENCES = ("nginx", "firstword")  # whose figures are 1 in the ratios when nobody says otherwise: the first that ran


@dataclass(frozen=True)
class Pace:
    """How long and how often to measure; times in seconds."""

    rounds: int
    first_token: float
    voice: float
    barge_in: float
    streams: tuple[int, ...]


DEFAULT = Pace(rounds=5, first_token=3, voice=3, barge_in=4, streams=(50, 200, 500, 1000))
QUICK = Pace(rounds=1, first_token=1, voice=0.8, barge_in=1.2, streams=(50,))


def measure_server(server: Server, upstream: Upstream, pace: Pace, *, cores: Sequence[int]) -> Iterator[Row]:
    """Start `server`, take every measurement once, and yield a row of figures for each."""
    if server.module:
        yield {"what": "import", **measure.import_time(server.module, cores=cores)}
    with running.run(server, upstream, cores=cores) as ready:
        yield {"what": "start", **measure.warm_up(ready)}
        yield {"what": "ttft", **measure.first_token(ready, upstream, seconds=pace.first_token)}
        for streams in pace.streams:
            row = measure.voice(ready, upstream, streams=streams, seconds=pace.voice)
            yield {"what": "voice", **row}
            if row["errors"] > row["turns"] / 2:
                break  # more streams would only be lost too
        else:
            yield {"what": "cancel", **measure.barge_in(ready, upstream, seconds=pace.barge_in)}


def measure_all(names: Sequence[str], pace: Pace, *, cores: Sequence[int]) -> Iterator[Row]:
    """Take all rounds, and yield their rows."""
    with run_upstream(tls=any(SERVERS[name].tls for name in names)) as upstream:
        for number in range(1, pace.rounds + 1):
            turned = number % len(names)
            for name in [*names[turned:], *names[:turned]]:
                print(f"round {number} of {pace.rounds}: {name}", file=sys.stderr)
                for row in measure_server(SERVERS[name], upstream, pace, cores=cores):
                    yield {"round": number, "server": name, **row}


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them."""
    return tuple(int(number) for number in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Read names of servers with commas between them."""
    found = tuple(text.split(","))
    if unknown := [name for name in found if name not in SERVERS]:
        raise argparse.ArgumentTypeError(f"no such server: {', '.join(unknown)}; known: {', '.join(SERVERS)}")
    return found


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Time the relay beside other servers."
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: good for seeing that it runs")
    parser.add_argument("--rounds", type=int, help=f"default {DEFAULT.rounds}")
    parser.add_argument("--only", type=names, help=f"servers, with commas; known: {', '.join(SERVERS)}")
    usual = ",".join(map(str, DEFAULT.streams))
    parser.add_argument("--streams", type=numbers, help=f"voice streams at a time, with commas; default {usual}")
    parser.add_argument("--reference", choices=SERVERS, help="whose figures are 1 in the ratios; default nginx")
    return parser.parse_args(words)


def choose_pace(arguments: argparse.Namespace) -> Pace:
    """Return the pace that the command line asks for."""
    pace = QUICK if arguments.quick else DEFAULT
    if arguments.rounds:
        pace = replace(pace, rounds=arguments.rounds)
    if arguments.streams:
        pace = replace(pace, streams=arguments.streams)
    return pace


def choose_servers(only: Sequence[str] | None) -> list[str]:
    """Return the servers to measure: those asked for, else all usual ones that can run here.

    Raises InstrumentError when one that was asked for cannot.
    """
    chosen = []
    for name in only or [name for name, server in SERVERS.items() if server.usual]:
        reason = lacks(SERVERS[name])
        if reason and only:
            raise InstrumentError(f"{name}: {reason}")
        if reason:
            print(f"left out: {name}: {reason}", file=sys.stderr)
        else:
            chosen.append(name)
    return chosen


def choose_reference(asked: str | None, chosen: Sequence[str]) -> str:
    """Return whose figures are 1: who was asked for, else the first that runs of those that usually are."""
    return asked or next((name for name in REFERENCES if name in chosen), chosen[0])


def raise_limits(streams: int) -> None:
    """Let every program open the files that `streams` calls need, of a server two for each. Raises InstrumentError."""
    wanted = 2 * streams + 512
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = most if most != resource.RLIM_INFINITY else 65536
    if room < wanted:
        raise InstrumentError(
            f"{streams} streams need {wanted} open files, and this shell allows {room}\n"
            f"hint: raise it (`ulimit -Hn`), or ask for fewer with --streams"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(room, 65536), most))


def describe(chosen: Sequence[str], pace: Pace, cores: machine.Cores, command: str) -> dict[str, str]:
    """Return what the report says of the machine, the software and the command."""
    packages = dict.fromkeys(package for name in chosen for package in SERVERS[name].packages)
    programs = {server.program: server for server in map(SERVERS.__getitem__, chosen) if server.program}
    versions = [f"{program} {program_version(server)}" for program, server in programs.items()]
    return machine.describe(list(packages)) | {
        "other programs": ", ".join(versions) or "none",
        "command": f"`{command}`",
        "rounds": str(pace.rounds),
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "pinned": f"server on core {cores.server[0]} (a second one on core {cores.server[1]}), "
        f"upstream and load generator on core {cores.tools}",
    }


def run(arguments: argparse.Namespace, command: str) -> str:
    """Measure, keep the rows, the report and its pictures, and return the report."""
    build()
    pace, chosen, cores = choose_pace(arguments), choose_servers(arguments.only), machine.share_cores()
    raise_limits(max(pace.streams))
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / datetime.now().strftime("%Y%m%d-%H%M%S.jsonl")
    facts = describe(chosen, pace, cores, command)
    stolen_before, ticks_before = machine.stolen()
    rows = []
    with machine.on_cores([cores.tools]), kept.open("wb") as output:
        output.write(msgspec.json.encode(facts) + b"\n")
        for row in measure_all(chosen, pace, cores=cores.server):
            rows.append(row)
            output.write(msgspec.json.encode(row) + b"\n")
            output.flush()  # rounds that were measured are not lost with one that fails
    stolen, ticks = machine.stolen()
    facts["time taken by other guests"] = f"{100 * (stolen - stolen_before) / max(1, ticks - ticks_before):.1f} %"
    measured = Run(facts=facts, rows=rows, reference=choose_reference(arguments.reference, chosen))
    if reason := plots.missing():
        print(f"no pictures: {reason}", file=sys.stderr)
    pictures = {} if reason else plots.draw(measured, RESULTS, kept.stem)
    text = report.write(measured, pictures)
    kept.with_suffix(".md").write_text(text)
    return f"{text}\nkept in {os.path.relpath(kept)}, and this page beside it"


def main(words: Sequence[str]) -> int:
    """Run the benchmark that `words` ask for; return the status for the shell."""
    arguments = read_arguments(words)
    try:
        print(run(arguments, shlex.join(["python", "-m", "benchmarks.run", *words])))
    except InstrumentError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
