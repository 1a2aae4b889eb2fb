"""What is counted, for those who look after the server: shown at /metrics, of all workers, whichever is asked.

Counting is a few additions at the end of a turn, off the caller's path. The format is the library's, which is loaded
when somebody asks. One process keeps its counts to itself; several write them down for each other in a folder
(docs/decisions/0030-what-several-workers-have-counted.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import clock
from ..clock import timeout
from ..errors import Error
from ..mistakes import log_mistake
from ..threads import OwnThread
from .counts import LEFT, Counts, status_of
from .folder import HAS_LOCKS, Folder
from .page import render
from .standing import kept_elsewhere, standing
from .tally import Reading, Snapshot, Tally, Values

__all__ = ["LEFT", "Counts", "Metrics", "Reading", "Values", "common_folder", "kept_elsewhere", "standing", "status_of"]

log = logging.getLogger("firstword")

FOLDER = "FIRSTWORD_METRICS_DIR"  # the variable that names the folder
EVERY = 1.0  # seconds after which what has changed is written down
LEAVE_TIMEOUT = 3.0  # seconds for a folder to take what is said at the end; it may be on a disk that hangs
AGAIN = 3600.0  # seconds after which it is written down in any case, so that nobody takes the file for forgotten


@contextlib.contextmanager
def common_folder() -> Iterator[None]:
    """Give the workers that are started meanwhile a folder for their counts, unless there is one."""
    if os.environ.get(FOLDER) or not HAS_LOCKS:
        yield
        return
    import tempfile  # here, because most servers are one process

    try:
        folder = tempfile.TemporaryDirectory(prefix="firstword-", ignore_cleanup_errors=True)
    except OSError:
        log.warning("no folder for counts, so each worker tells its own hint: set TMPDIR, or %s", FOLDER)
        yield
        return
    with folder as name:
        os.environ[FOLDER] = name
        try:
            yield
        finally:
            os.environ.pop(FOLDER, None)


class Metrics:
    """Tells what was counted. `folder`: where the workers of a server write it down; None = there is only this one."""

    def __init__(self, counts: Counts, *, folder: Path | None = None) -> None:
        self._counts = counts
        self._folder = Folder(folder) if folder is not None and HAS_LOCKS else None
        self._lag = 0.0  # seconds by which the loop was late lately
        self._writing: asyncio.Task[None] | None = None
        self._has_complained = False
        self._busy = asyncio.Lock()
        self._thread = OwnThread("firstword-metrics")
        counts.add("worker_starts")
        if self._folder is not None:
            self._writing = asyncio.ensure_future(self._write_on(self._folder))

    async def page(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and the page; accept: the request's header of that name."""
        began = clock.now()
        await asyncio.sleep(0)  # once round the loop
        self._lag = max(self._lag, clock.now() - began)
        pids = [os.getpid()]
        async with self._busy:
            now, self._lag = self._now(), 0.0
            if self._folder is not None:
                try:
                    now, pids = await self._thread.call(self._folder.read, now.snapshot())
                except OSError as error:
                    self._complain(error)
        page: tuple[str, bytes] = await self._thread.call(_rendered, now, accept, pids)
        return page

    def note_refusal(self, error: Error) -> None:
        """Count a request that was refused before it was a turn."""
        self._counts.note_refusal(error)

    async def close(self) -> None:
        """Write down what is left to be told, when all turns are over."""
        if self._writing is not None and self._folder is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            try:
                async with timeout(LEAVE_TIMEOUT):  # behind what is being written: it is the same thread
                    await self._thread.call(self._folder.leave, self._now().snapshot())
            except asyncio.TimeoutError:
                log.warning("counts of the end are not shared why=the folder hangs hint: check %s", FOLDER)
            except Exception as error:
                self._complain(error)
        self._thread.shutdown()

    def _now(self) -> Tally:
        tally = self._counts.now()
        tally.take({"workers": {(): 1.0}, "loop_lag_seconds": {(): self._lag}})
        return tally

    async def _write_on(self, folder: Folder) -> None:
        """Write down what has changed, over and over."""
        written, again = Snapshot(), 0.0
        while True:
            async with self._busy:
                try:
                    now = self._now().snapshot()
                    if now != written or clock.now() >= again:
                        await self._thread.call(folder.write, now)
                        written, again, self._has_complained = now, clock.now() + AGAIN, False
                except Exception as error:  # else what is counted later would be told by nobody
                    self._complain(error)
            due = clock.now() + EVERY
            await asyncio.sleep(EVERY)
            self._lag = round(max(clock.now() - due, 0.0), 3)

    def _complain(self, error: Exception) -> None:
        if self._has_complained:
            return
        self._has_complained = True
        if isinstance(error, OSError):
            log.warning("counts cannot be shared why=%s hint: check %s", error.strerror, FOLDER)
        else:
            log_mistake("counts cannot be shared", error, debug=False)


def _rendered(tally: Tally, accept: str, pids: list[int]) -> tuple[str, bytes]:
    from importlib import metadata

    try:
        version = metadata.version("firstword")
    except metadata.PackageNotFoundError:
        version = "unknown"
    tally.take({"build_info": {(version, "{}.{}.{}".format(*sys.version_info[:3])): 1.0}})
    return render(tally, accept=accept, pids=pids)
