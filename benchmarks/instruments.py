"""The C programs that measure: compiled on first use, started, and asked for their figures.

Rules: nothing is timed in Python. There is no substitute for a C compiler, because a load generator in Python
would be slower than the servers that it measures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPConnection
from pathlib import Path

import msgspec

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")
LOOK_EVERY = 0.1  # seconds between two looks at a server under load


class InstrumentError(Exception):
    """The benchmark cannot be run here; the message says what is missing."""


class Figures(msgspec.Struct):
    """What the load generator counted and timed in one run; times in nanoseconds."""

    turns: int
    whole: int
    dropped: int
    refused: int
    broken: int
    wrong: int
    unfinished: int
    chunks: int
    connections: int
    first_ns: list[int]
    beside_ns: list[int]
    delay_ns: list[int]
    drops: list[int]

    @property
    def errors(self) -> int:
        """Turns that neither arrived whole nor were dropped on purpose."""
        return self.refused + self.broken + self.wrong + self.unfinished


class Stats(msgspec.Struct):
    """What the upstream saw since it was last reset: `ended` holds id, moment in ns, and 1 if spoken to the end."""

    speaking: int
    sent: int
    late_mean_ns: int
    late_max_ns: int
    ended: list[tuple[int, int, int]]


def compilers() -> list[str]:
    """Return the names a C compiler may have here: the one in CC, else the usual ones."""
    return [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]


def find_compiler() -> str | None:
    """Return the first compiler that is installed."""
    return next((name for name in compilers() if shutil.which(name)), None)


def missing() -> str | None:
    """Say in one line what keeps the instruments from running here; None if nothing does."""
    if not sys.platform.startswith("linux"):
        return f"the load generator needs Linux (epoll): this is {sys.platform}"
    if find_compiler() is None:
        return f"the load generator needs a C compiler: {' or '.join(compilers())} was not found"
    return None


@lru_cache(maxsize=1)
def missing_tls() -> str | None:
    """Say in one line what keeps the upstream from speaking TLS here; None if nothing does."""
    if reason := missing():
        return reason
    look = [find_compiler() or compilers()[0], "-fsyntax-only", "-include", "openssl/ssl.h", "-x", "c", os.devnull]
    if subprocess.run(look, capture_output=True, check=False).returncode:
        return "the upstream's TLS needs OpenSSL's headers: apt-get install libssl-dev"
    return None


def build(folder: Path = BUILD, *, flags: Sequence[str] = FLAGS) -> None:
    """Compile `load`, `upstream`, and `upstream-tls` where that can be, unless they are newer than their sources."""
    if reason := missing():
        raise InstrumentError(f"{reason}\nhint: apt-get install gcc libc6-dev, or name a compiler in CC")
    folder.mkdir(parents=True, exist_ok=True)
    changed = max(path.stat().st_mtime for path in FOLDER.glob("*.[ch]"))
    programs: dict[str, tuple[str, ...]] = {"load": ("load.c",), "upstream": ("upstream.c",)}
    if missing_tls() is None:
        programs["upstream-tls"] = ("upstream.c", "-DTLS", "-lssl", "-lcrypto")
    for name, (source, *more) in programs.items():
        program = folder / name
        if program.exists() and program.stat().st_mtime > changed:
            continue
        command = [find_compiler() or compilers()[0], *flags, "-o", str(program), str(FOLDER / source), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstrumentError(f"{source} does not compile: {done.stderr.strip()}")


def make_certificate(folder: Path) -> Path:
    """Write a new root, and a certificate by it for this machine, with its key; return the root's file."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "root.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    return folder / "root.pem"


@dataclass(frozen=True)
class Upstream:
    """The running mock upstream. Where it speaks TLS it has another port, and a root that vouches for it."""

    port: int
    tls_port: int | None = None
    root: Path | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def tls_address(self) -> str:
        """Host and port where it speaks TLS."""
        assert self.tls_port is not None
        return f"127.0.0.1:{self.tls_port}"

    def ask(self, path: str) -> bytes:
        """GET `path` from it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def reset(self) -> None:
        """Let it forget what it saw."""
        self.ask("/reset")

    def stats(self) -> Stats:
        """Return what it saw since the last reset."""
        return msgspec.json.decode(self.ask("/stats"), type=Stats)


@contextmanager
def run_upstream(folder: Path = BUILD, *, tls: bool = False) -> Iterator[Upstream]:
    """Run the mock upstream on a free port; with `tls` also on one where it speaks TLS, under a root of its own."""
    command, root = [str(folder / "upstream")], None
    if tls:
        root = make_certificate(folder)
        command = [str(folder / "upstream-tls"), "0", str(folder / "chain.pem"), str(folder / "key.pem")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port, *tls_port = map(int, process.stdout.readline().split())
        yield Upstream(port=port, tls_port=tls_port[0] if tls_port else None, root=root)
    finally:
        process.kill()
        process.communicate()


def run_load(
    words: Mapping[str, str | float], *, folder: Path = BUILD, look: Callable[[], None] | None = None
) -> Figures:
    """Run the load generator with `words` (the top of load.c lists them) and return its figures.

    `look` is called a few times a second while it runs.
    """
    command = [str(folder / "load"), *(f"{name}={value}" for name, value in words.items())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output = None
        while output is None:
            with suppress(subprocess.TimeoutExpired):
                output, complaint = process.communicate(timeout=LOOK_EVERY if look else None)
            if look:
                look()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        raise InstrumentError(complaint.decode().strip())
    return msgspec.json.decode(output, type=Figures)
