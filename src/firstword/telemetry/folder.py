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
import threading
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
                    self._life = _lock(self._file(self.name, "lock"), wait=False)
                    self._take_in()
            if self._life is not None:
                self._put(self.name, snapshot)

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
        """
        tally = Tally()
        self.write(own)
        with self._alone():
            self._take_in()
            tally.merge(self._get(GONE), runs=False)
            names = self._names()
            for name in names:
                tally.merge(self._get(name))
        return tally, sorted({int(name.partition("-")[0]) for name in names})

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
        return sorted(stem for stem in stems if stem.partition("-")[0].isdecimal())

    def _lives(self, name: str) -> bool:
        if name == self.name:
            return True
        try:
            os.close(_lock(self._file(name, "lock"), wait=False))
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

    def _file(self, name: str, kind: str) -> Path:
        return self._path / f"{name}.{kind}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        gate = _lock(self._path / GATE, wait=True)
        try:
            yield
        finally:
            os.close(gate)


def _lock(path: Path, *, wait: bool) -> int:
    """Return a descriptor that holds the lock of a file until it is closed. Raises BlockingIOError when it is held."""
    found = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(found)
        raise
    return found
