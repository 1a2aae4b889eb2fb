"""How much machine so many calls take: the arithmetic of docs/capacity.md, from what was measured and what you assume.

    python -m benchmarks.capacity [--calls 1000,100000] [--every 12] [--first-word 0.7] [--chunks 50] ... [--write]

Rules: what was measured stands in `Measured`, with its source; what is assumed is an option with a default. A call is
not a stream: between two turns its caller listens and speaks, and the server only keeps a connection for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "capacity.md"
BEGIN, END = "<!-- made by `make capacity` -->", "<!-- end of capacity -->"

HOUR, DAY = 3600, 86_400  # seconds
MB, GB = 1_000_000, 1_000_000_000  # bytes

# An address's connections to one other address and port: Linux' `net.ipv4.ip_local_port_range`, 32768 to 60999.
PORTS = 60_999 - 32_768 + 1


@dataclass(frozen=True)
class Measured:
    """What one core did, of the table "Speed" in the README: `firstword-tls`, a model behind TLS.

    A stream there is a turn of 50 chunks, 20 ms apart, the first after 200 ms: 1.18 s.
    """

    streams: int = 200  # at once on a core, at a delay of a chunk of 0.13 ms (median) and 0.93 ms (p99)
    chunks: int = 50
    seconds: float = 1.18
    rest: float = 48 * MB  # of memory, a process
    thousand: float = (114 - 48) * MB  # that a thousand streams add

    @property
    def chunk_rate(self) -> float:
        """Chunks a second, on one core."""
        return self.streams * self.chunks / self.seconds


@dataclass(frozen=True)
class Assumed:
    """What the reader knows better: each is an option of the command."""

    every: float = field(default=12.0, metadata={"help": "seconds from one turn of a call to its next"})
    first_word: float = field(default=0.7, metadata={"help": "seconds that the model takes to its first word"})
    chunks: int = field(default=50, metadata={"help": "chunks of a reply: about as many tokens"})
    chunk_every: float = field(default=0.02, metadata={"help": "seconds from one chunk to the next"})
    event: int = field(default=250, metadata={"help": "bytes of one chunk as an event"})
    request: int = field(default=8_000, metadata={"help": "bytes of a request: the conversation so far"})
    prompt: int = field(default=1_500, metadata={"help": "tokens of it"})
    line: int = field(default=150, metadata={"help": "bytes that a turn's line in the log has"})
    commands: int = field(
        default=4, metadata={"help": "commands of a turn to a store that machines share, if there is one"}
    )
    series: int = field(default=600, metadata={"help": "time series of a process at /metrics"})
    price_in: float = field(default=0.25, metadata={"help": "what a million tokens of a prompt cost"})
    price_out: float = field(default=2.0, metadata={"help": "what a million tokens of replies cost"})


@dataclass(frozen=True)
class Need:
    """What so many calls take. Times are seconds, sizes bytes; rates are of a second unless they say otherwise."""

    calls: int
    turns: float  # a second
    streams: float  # turns in progress at once
    cores: int  # that are busy, and
    processes: int  # that are run: one more in twenty, and two at least, so that one may go
    memory: float  # of all processes
    connections: int  # of a process, at most: callers' and the model's
    ports: float  # addresses of ours that the connections to one address of the provider take
    traffic: float  # each way
    logs: float  # a day
    commands: float
    series: int
    requests_a_minute: float  # of the provider
    tokens_a_minute: float
    money_an_hour: float


def need(calls: int, assumed: Assumed | None = None, measured: Measured | None = None) -> Need:
    """Return what `calls` at once take."""
    told, known = assumed or Assumed(), measured or Measured()
    turns = calls / told.every
    streams = min(turns * (told.first_word + told.chunks * told.chunk_every), calls)
    cores = max(1, math.ceil(turns * told.chunks / known.chunk_rate))
    processes = max(2, cores + math.ceil(cores / 20))
    connections = calls + streams  # a caller keeps one, and each turn in progress has one to the model
    return Need(
        calls=calls,
        turns=turns,
        streams=streams,
        cores=cores,
        processes=processes,
        memory=processes * known.rest + max(calls, streams) * known.thousand / 1000,
        connections=math.ceil(connections / (processes - 1)),  # when one is away
        ports=streams / PORTS,
        traffic=turns * (told.chunks * told.event + told.request),
        logs=turns * told.line * DAY,
        commands=turns * told.commands,
        series=processes * told.series,
        requests_a_minute=turns * 60,
        tokens_a_minute=turns * 60 * (told.prompt + told.chunks),
        money_an_hour=turns * HOUR * (told.prompt * told.price_in + told.chunks * told.price_out) / 1_000_000,
    )


def table(needs: Sequence[Need]) -> str:
    """Return a table of Markdown, a column for each."""
    rows: list[tuple[str, list[str]]] = [
        ("turns a second", [_told(each.turns) for each in needs]),
        ("turns in progress at once", [_told(each.streams) for each in needs]),
        ("cores that are busy", [_told(each.cores) for each in needs]),
        ("processes, one a core, with some to spare", [_told(each.processes) for each in needs]),
        ("memory of all of them, GB", [_told(each.memory / GB) for each in needs]),
        ("connections of one, at most", [_told(each.connections) for each in needs]),
        ("addresses that reach one address of a provider, at least", [_told(math.ceil(each.ports)) for each in needs]),
        ("traffic each way, MB/s", [_told(each.traffic / MB) for each in needs]),
        ("lines of the log, GB a day", [_told(each.logs / GB) for each in needs]),
        ("commands to the shared store a second", [_told(each.commands) for each in needs]),
        ("time series", [_told(each.series) for each in needs]),
        ("requests a minute to the provider", [_told(each.requests_a_minute) for each in needs]),
        ("tokens a minute, millions", [_told(each.tokens_a_minute / 1_000_000) for each in needs]),
        ("money an hour", [_told(each.money_an_hour) for each in needs]),
    ]
    head = ["calls at once", *(f"{each.calls:,}" for each in needs)]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _told(value: float) -> str:
    """Return a number with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def main() -> None:
    """Print the table; with `--write`, put it into the documentation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", default="1000,100000,1000000", help="how many at once, separated by commas")
    for each in fields(Assumed):
        kind = int if isinstance(each.default, int) else float
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=each.default, help=f"{each.metadata['help']} ({each.default})")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    given = {each.name: getattr(options, each.name) for each in fields(Assumed)}
    if options.every <= 0 or min(given.values()) < 0:
        raise SystemExit("A number is below zero, or a call has its next turn at once.\nhint: see --help")
    made = table([need(int(calls), replace(Assumed(), **given)) for calls in options.calls.split(",")])
    print(made)
    if options.write:
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
