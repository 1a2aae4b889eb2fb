"""Counts the instructions of a turn and of a chunk: `python -m benchmarks.cost`, a guard that no clock disturbs.

A server runs under valgrind's callgrind, with the mock upstream and the load generator beside it. What 100 one-chunk
turns take is dumped, then what 10 turns of 51 chunks take; the difference is the price of a chunk. Counts are
of user code only, and the same on any machine with the same Python, within about 2 %. They do not count the kernel.

Another build of the same Python has other counts. So each is also told in steps: how often a fixed piece of Python
(`REFERENCE`) could have run instead. The guard compares steps.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from .instruments import BUILD, FOLDER, InstrumentError, Upstream, build, run_load, run_upstream
from .running import free_port
from .shapes import SHAPES

KNOWN = FOLDER / "cost.json"  # steps by Python version: the figures that must not be exceeded
MARGIN = 0.15  # share by which a figure may exceed the known one; two builds of one Python differ by 0.11
TURNS, LONG_TURNS, CHUNKS, GAP_MS = 100, 10, 51, 12  # the gap is long enough for a server that is fifty times as slow
READY_TIMEOUT = 120.0  # seconds

# Calls, attributes, dicts and strings: what a turn is made of. Run `1000` times it is one unit of a thousand steps.
REFERENCE = """
class Thing:
    __slots__ = ("a", "b")
    def __init__(self, a): self.a = a; self.b = None
    def step(self, data):
        self.b = data.get("key") or data
        return self.a + len(data)
def run(times):
    data = {"key": "value", "other": [1, 2]}
    total = 0
    for number in range(times):
        total += Thing(number).step(data)
        data["key"] = f"value {number & 7}"
    return total
import sys
run(int(sys.argv[1]))
"""


class Cost(NamedTuple):
    """Thousands of instructions."""

    turn: float
    chunk: float


def count_reference() -> float:
    """Return the instructions of one step of REFERENCE."""
    few, many = (_total([sys.executable, "-S", "-c", REFERENCE, str(times)]) for times in (1_000, 11_000))
    return (many - few) / 10_000


def _total(command: Sequence[str]) -> int:
    output = BUILD / "callgrind.reference"
    _valgrind(command, output, {}).wait()
    return _read(output)


def _valgrind(command: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--quiet", *command]
    variables = {**os.environ, "PYTHONHASHSEED": "0", **environment}
    return subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _read(output: Path) -> int:
    found = re.search(r"^totals: (\d+)", output.read_text(), re.MULTILINE)
    if found is None:
        raise InstrumentError(f"callgrind wrote no total to {output.name}")
    return int(found[1])


def count(shape: str, upstream: Upstream) -> Cost:
    """Return what one turn with one chunk costs, and what one chunk more."""
    output = BUILD / f"callgrind.{shape}"
    for old in BUILD.glob(f"{output.name}*"):
        old.unlink()
    port = free_port()
    url = {"LLM_BASE_URL": f"http://{upstream.address}/v1"}
    process = _valgrind([sys.executable, "-m", "benchmarks.shapes", shape, str(port)], output, url)
    words: dict[str, str | float] = {"to": f"127.0.0.1:{port}", "mode": "ttft", "seconds": 600, "patience": 60}
    words["headers"] = "Authorization: Bearer bench\r\n"
    try:
        _wait_until_ready(process, words)
        run_load({**words, "turns": 50, "chunks": 5, "gap_ms": GAP_MS})  # what is made once is made
        _dump(process)
        run_load({**words, "turns": TURNS})
        short = _dump(process, output) / TURNS
        run_load({**words, "turns": LONG_TURNS, "chunks": CHUNKS, "gap_ms": GAP_MS})
        long = _dump(process, output) / LONG_TURNS
    finally:
        process.terminate()
        process.wait()
    return Cost(short / 1000, (long - short) / (CHUNKS - 1) / 1000)


def _wait_until_ready(process: subprocess.Popen[bytes], words: Mapping[str, str | float]) -> None:
    until = time.monotonic() + READY_TIMEOUT
    while process.poll() is None and time.monotonic() < until:
        if run_load({**words, "turns": 1}).whole:
            return
        time.sleep(0.5)
    raise InstrumentError("the server did not serve a turn under valgrind")


def _dump(process: subprocess.Popen[bytes], output: Path | None = None) -> int:
    """Let callgrind write what it counted since the last dump, and return it."""
    done = subprocess.run(
        ["callgrind_control", "--dump", str(process.pid)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InstrumentError(f"callgrind_control failed: {done.stderr.strip() or done.stdout.strip()}")
    if output is None:
        return 0
    parts = sorted(BUILD.glob(f"{output.name}.*"), key=lambda path: int(path.suffix[1:]))
    return _read(parts[-1])


def compare(steps: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    """Return a sentence for each figure over its known one, or so far under it that it should be written anew."""
    said = []
    for name, value in steps.items():
        if value > known[name] * (1 + MARGIN):
            said.append(f"a {name} costs {value:.0f} steps; {known[name]:.0f} are known, and {MARGIN:.0%} more allowed")
        elif value < known[name] * (1 - 2 * MARGIN):
            said.append(f"a {name} costs only {value:.0f} steps of the {known[name]:.0f} that are known: write it down")
    return said


def main(words: Sequence[str]) -> int:
    """Count, print a table, and compare; the status is 1 when a turn or a chunk of the default costs too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description="Count the instructions of a turn.")
    parser.add_argument("--all", action="store_true", help="every shape and not only the default; some minutes")
    parser.add_argument("--write", action="store_true", help=f"write the default's figures to {KNOWN.name}")
    arguments = parser.parse_args(words)
    version = "{}.{}".format(*sys.version_info[:2])
    try:
        build()
        reference = count_reference()
        with run_upstream() as upstream:
            costs = {name: count(name, upstream) for name in (SHAPES if arguments.all else ["default"])}
    except (InstrumentError, FileNotFoundError) as error:
        print(f"benchmarks: {error}\nhint: it needs Linux, a C compiler and valgrind", file=sys.stderr)
        return 1
    print(table(costs))
    steps = {name: round(1000 * value / reference, 2) for name, value in costs["default"]._asdict().items()}
    print(f"\nPython {sys.version.split()[0]}: a step is {reference:.0f} instructions; in steps the default is {steps}")
    known = msgspec.json.decode(KNOWN.read_bytes())
    if arguments.write:
        KNOWN.write_bytes(msgspec.json.format(msgspec.json.encode({**known, version: steps}), indent=2) + b"\n")
        return 0
    if version not in known:
        print(f"no figures are known for Python {version}; --write makes them")
        return 0
    wrong = compare(steps, known[version])
    print("\n".join(wrong) or "as it was")
    return 1 if wrong else 0


def table(costs: Mapping[str, Cost]) -> str:
    """Return the costs as Markdown, in thousands of instructions."""
    lines = ["| shape | what it is | a turn | a chunk more | than the default |", "|---|---|---|---|---|"]
    for name, cost in costs.items():
        about = (SHAPES[name].__doc__ or "").rstrip(".")
        more = "" if name == "default" else f"{cost.chunk - costs['default'].chunk:+.1f}"
        lines.append(f"| {name} | {about} | {cost.turn:.0f} k | {cost.chunk:.1f} k | {more} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
