"""What the machine tells: its name and parts, its cores, and the time and memory that a server takes. Reads /proc."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Usage(NamedTuple):
    """What a server and all its children took so far: seconds of CPU (user + system), bytes of memory now."""

    cpu_seconds: float
    memory_bytes: int


def usage(session: int) -> Usage:
    """Add up the processes of `session`, the children they already buried included.

    Pages that two processes share are counted twice.
    """
    ticks = pages = 0
    for path in PROC.glob("[0-9]*/stat"):
        try:
            # The command's name stands in parentheses and may hold anything; what follows the last one is numbers.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(int(field) for field in fields[11:15])
            pages += int(fields[21])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def stolen() -> tuple[int, int]:
    """Return the clock ticks that the hypervisor gave to others, and all ticks, since the machine started."""
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n")[0].split()[1:]]
    return fields[7], sum(fields[:8])


def busy_seconds(core: int) -> float:
    """Return how long `core` has worked for anybody, since the machine started."""
    line = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, line.split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """Which cores are whose: a server takes as many of `server` as it has, from the first."""

    server: tuple[int, int]
    tools: int


def share_cores() -> Cores:
    """Return cores for the server and one for the instruments.

    The first is not another thread of the tools' core if that can be avoided; with two cores the second is the tools'.
    """
    cores = sorted(os.sched_getaffinity(0))
    siblings = Path(f"/sys/devices/system/cpu/cpu{cores[0]}/topology/thread_siblings_list")
    beside = _core_list(siblings.read_text()) if siblings.exists() else {cores[0]}
    apart = [core for core in cores if core not in beside]
    first, tools = cores[0], (apart or cores[1:] or cores)[0]
    second = next((core for core in cores if core not in (first, tools)), tools)
    return Cores(server=(first, second), tools=tools)


def _core_list(text: str) -> set[int]:
    """Read a kernel's list of cores, such as `0-3,8`."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Run on `cores` meanwhile; processes started meanwhile stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def settings(given: Mapping[str, str]) -> Iterator[None]:
    """Have these settings meanwhile."""
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]
        os.environ.update(before)


def describe(packages: Sequence[str]) -> dict[str, str]:
    """Name the machine, the software, and the state of the sources."""
    return {
        "machine": platform.node(),
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in packages),
        "commit": _commit(),
    }


def _cpu_model() -> str:
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the commit of the checkout, and whether files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
