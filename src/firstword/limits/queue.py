"""How long new connections have waited to be let in: the event loop takes few at a time, and the kernel keeps the rest.

Under uvloop a step of the loop lets one in. A flood of them makes no step late, so that `Lag` sees nothing; but each
waits for all before it. The rule is that of controlled delay (CoDel, RFC 8289): a queue that is short now and then is
only a burst; one that never is gets no shorter by waiting, and who has waited in it for long is refused.
"""

from __future__ import annotations

from typing import Protocol

SHORT = 0.2  # of what is too long: who has waited less than that shows that the queue is short


class Arrival(Protocol):
    """A request that can say how long it has waited."""

    def waited(self) -> float | None:
        """Return the seconds that it lay in the kernel; None when it is not the first of its connection, or unknown."""


class Queue:
    """Tells who has waited too long in a queue that does not get short.

    after: seconds. When everybody has waited for more than `SHORT` of that for so long, the queue is full, until nobody
        has for so long; and while it is, who has is refused.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._is_full = False
        self._since: float | None = None  # when it began to be long, while it has not been short
        self._last = 0.0  # when somebody last came who had waited long

    def is_too_long(self, waited: float, now: float) -> bool:
        """Take note of a request that is let in `now`, and return whether it should be refused."""
        if now - self._last > self._after:
            self._is_full, self._since = False, None
        if waited <= self._after * SHORT:
            self._since = None
            return False
        self._last = now
        if self._since is None:
            self._since = now
        self._is_full = self._is_full or now - self._since >= self._after
        return self._is_full
