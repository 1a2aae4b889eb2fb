"""Time: one monotonic clock, ways to bound a wait, and whether a wait was cut short on purpose.

Everybody asks for the time as `clock.now()`, by its full name, so that `firstword.testing` can put a clock that jumps
in its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import monotonic as now

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["Timer", "now", "timeout", "was_cancelled"]


class Timer:
    """Calls `call` on the loop at the moment that `at` returns, None being never, until it is stopped."""

    __slots__ = ("_at", "_call", "_handle", "_loop")

    def __init__(self, at: Callable[[], float | None], call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = at
        self._call = call
        self._handle: asyncio.TimerHandle | None = None
        self._set()

    def wind(self) -> None:
        """Ask `at` again; from any thread."""
        self._loop.call_soon_threadsafe(self._set)

    def stop(self) -> None:
        """Never call again."""
        self._at = self._call = _never  # also lets go of whose they are
        if self._handle is not None:
            self._handle.cancel()

    def _set(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        at = self._at()
        self._handle = None if at is None else self._loop.call_later(max(at - now(), 0.0), self._call)


def _never() -> None:
    return None


def was_cancelled() -> bool:
    """True when somebody cancelled the running task; False when it only awaited something that was cancelled.

    Python 3.10 cannot tell the two apart, and takes every cancellation for the task's own.
    """
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0
