"""One alarm for everything on a connection that may last too long: a wait, idleness, a drain.

It is set once, and moved only when it would ring too late: most of what it guards ends long before it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from ..errors import UpstreamTimeout

LATE = 0.02  # seconds; a loop that is as late has been held by something
MOMENT = 0.01  # seconds in which it reads what lies there


class Alarm:
    """Calls `ring` when `due` has come, on the loop's clock. `due` may be moved later by setting it."""

    __slots__ = ("_handle", "_is_second", "_loop", "_ring", "_rings_at", "due")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._is_second = False  # look at a time that has gone by
        self.due = math.inf

    def set(self, within: float) -> None:
        """Ring in `within` seconds, and not before."""
        self.due = due = self._loop.time() + within
        if due < self._rings_at:
            if self._handle is not None:
                self._handle.cancel()
            self._rings_at = due
            self._handle = self._loop.call_at(due, self._look)

    def stop(self) -> None:
        """Never ring."""
        self.due = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._rings_at = math.inf

    def _look(self) -> None:
        """Ring, or look again later when what is guarded began since."""
        self._handle = None
        self._rings_at = math.inf
        now = self._loop.time()
        left = self.due - now
        if left < -LATE and not self._is_second:
            # The loop was held, and may ring before it has read what came in time.
            self._is_second = True
            self._rings_at = now + MOMENT
            self._handle = self._loop.call_at(self._rings_at, self._look)
            return
        self._is_second = False
        if left <= 0:
            self._ring()
        elif left < math.inf:
            self.set(left)


def late(phase: str) -> UpstreamTimeout:
    """Return the error of a model that was silent for too long: before its "first token", or in a "stall"."""
    setting = "FIRSTWORD_STALL_TIMEOUT" if phase == "stall" else "FIRSTWORD_FIRST_TOKEN_TIMEOUT"
    return UpstreamTimeout(
        f"The model was silent for too long ({phase}).", phase=phase, hint=f"{setting} is what it may take"
    )
