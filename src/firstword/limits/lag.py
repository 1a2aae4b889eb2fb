"""How late the event loop is: when it is late again and again, everybody's words come late, and new turns are refused.

A process with few turns is not looked at: what makes it late is code that blocks, and refusing turns mends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import clock

EVERY = 0.02  # seconds between two looks


class Lag:
    """Looks at the loop as long as `is_needed`.

    after: seconds that the loop is late in two looks running, from which on it is too late, until it is less than half
        of that in two looks. One look alone is a long step, as the garbage collector's, and no overload.
    seconds: how late it was, at the better of the last two looks.
    """

    def __init__(self, after: float, is_needed: Callable[[], bool]) -> None:
        self.seconds = 0.0
        self._after = after
        self._is_needed = is_needed
        self._is_late = False
        self._last = 0.0  # what the last look found
        self._due = 0.0  # when the next one should be
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_late(self) -> bool:
        """True when the loop is too late. A look that is overdue counts already: a late loop has few of them."""
        if self._is_late or self._timer is None or self._last <= self._after:
            return self._is_late
        return clock.now() - self._due > self._after

    def watch(self) -> None:
        """Begin to look, unless that is done already."""
        if self._timer is None and self._after > 0:
            self._set()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.seconds, self._last, self._is_late = 0.0, 0.0, False

    def _set(self) -> None:
        self._due = clock.now() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def _look(self) -> None:
        if not self._is_needed():
            self.close()
            return
        last, self._last = self._last, max(clock.now() - self._due, 0.0)
        self.seconds = min(last, self._last)
        if self.seconds > self._after:
            self._is_late = True
        elif max(last, self._last) < self._after / 2:
            self._is_late = False
        self._set()
