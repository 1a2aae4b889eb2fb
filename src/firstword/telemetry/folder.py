"""A folder in which the workers of one server write down what they have counted, so that any of them can tell it all.

Rules:
- Each worker has a file of its own, and replaces it whole. It holds a lock as long as it lives, which the system lets
  go of however it ends; so who is gone is known for sure.
- What a worker that is gone had counted is taken into one file, once, and its own file is removed.
- Who reads all files or takes some in is alone while he does. Every function here may block.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .tally import Snapshot, Tally

try:
    import fcntl
except ImportError:  # Windows
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

GATE = "gate.lock"  # who holds it is alone
GONE = "gone"  # the name of those that are gone, taken together
PATIENCE = 2.0  # seconds to wait for who is alone; a process that was stopped may never let go

_is_ours = re.compile(r"[0-9]+-[0-9a-f]{8}").fullmatch  # the name of a worker; all else here is somebody else's
_decode = msgspec.json.Decoder(Snapshot).decode
_encode = msgspec.json.Encoder().encode


class Folder:
    """The folder, as one worker sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._busy = threading.Lock()  # a scrape that was given up goes on in its thread
        self._life: int | None = None  # the lock that says that we live
        self._has_left = False

    def write(self, snapshot: Snapshot) -> None:
        """Write down what was counted here; who does so is one of the workers. Raises OSError."""
        with self._busy:
            if self._life is None and not self._has_left:
                self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._alone():
                    self._life = _lock(self._file(self.name, "lock"))
                    self._take_in()
            if self._life is not None:
                try:
                    self._put(self.name, snapshot)
                except FileNotFoundError:  # the folder was taken away: it is made anew the next time
                    os.close(self._life)
                    self._life = None
                    raise
                self._keep()

    def leave(self, last: Snapshot) -> None:
        """Write down what there is to be said at the end, and be gone. Raises OSError."""
        try:
            self.write(last)
        finally:
            with self._busy:
                self._has_left = True
                if self._life is not None:
                    os.close(self._life)
                    self._life = None

    def read(self, own: Snapshot) -> tuple[Tally, list[int]]:
        """Return what all have counted, and the process ids of those that run. Raises OSError.

        `own` is what was counted here. It is written down first: else who asks another worker next would see less.
        Where nothing can be written any more, what the others wrote before still counts: else it would seem to fall.
        """
        tally = Tally()
        try:
            self.write(own)
        except OSError:
            if self._life is None:
                raise
        with contextlib.ExitStack() as alone:
            with contextlib.suppress(OSError):
                alone.enter_context(self._alone())
                self._take_in()
            gone = self._get(GONE)
            tally.merge(gone, runs=False)
            names = [name for name in self._names() if name not in gone.holds]
            lives = [name for name in names if self._lives(name)]
            for name in names:
                is_own = name == self.name and self._life is not None
                tally.merge(own if is_own else self._get(name), runs=name in lives)
        return tally, sorted({int(name.partition("-")[0]) for name in lives})

    def _take_in(self) -> None:
        """Take those that are gone together in one file. Whoever is ended within it has lost and doubled nothing."""
        names = self._names()
        lost = [name for name in names if not self._lives(name)]
        gone = self._get(GONE)
        left = [name for name in gone.holds if name in names]  # taken in already, but not removed
        new = [name for name in lost if name not in left]
        if new:
            tally = Tally()
            tally.merge(gone, runs=False)
            for name in new:
                tally.merge(self._get(name), runs=False)
            whole = tally.snapshot()
            whole.holds = [*left, *new]
            self._put(GONE, whole)
        for name in lost:
            for kind in ("new", "json", "lock"):
                self._file(name, kind).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        """Return the workers of whom there is something here."""
        stems = {path.stem for path in self._path.iterdir() if path.suffix in (".json", ".lock", ".new")}
        return sorted(filter(_is_ours, stems))

    def _lives(self, name: str) -> bool:
        if name == self.name:
            return True
        try:
            os.close(_lock(self._file(name, "lock")))
        except BlockingIOError:
            return True
        return False

    def _get(self, name: str) -> Snapshot:
        """Return what stands in a file; nothing when it is not there, or another version has written it."""
        try:
            return _decode(self._file(name, "json").read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return Snapshot()

    def _put(self, name: str, snapshot: Snapshot) -> None:
        new = self._file(name, "new")
        new.write_bytes(_encode(snapshot))
        new.replace(self._file(name, "json"))

    def _keep(self) -> None:
        """Touch what is seldom written, which whoever tidies up temporary files would take for forgotten."""
        assert self._life is not None
        with contextlib.suppress(OSError):
            os.utime(self._life)
            os.utime(self._file(GONE, "json"))

    def _file(self, name: str, kind: str) -> Path:
        return self._path / f"{name}.{kind}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        gate = _lock(self._path / GATE, within=PATIENCE)
        try:
            yield
        finally:
            os.close(gate)


def _lock(path: Path, *, within: float = 0.0) -> int:
    """Return a descriptor that holds the lock of a file until it is closed. Raises BlockingIOError when it is held."""
    found, end = os.open(path, os.O_RDWR | os.O_CREAT, 0o600), time.monotonic() + within
    while True:
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return found
        except BaseException as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() >= end:
                os.close(found)
                raise
        time.sleep(0.002)
