"""What is known of a model from earlier turns: whether it fails just now, and how soon it speaks.

Pure: time is passed in. The states are those of a circuit breaker (closed, open, half-open).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable

FAILURES = 3.0  # failures in a row after which a model is left alone; to be overtaken, for slowness, is half a one
SLOW = 0.5
COOL = 5.0  # seconds for which it is left alone; doubled each time a probe fails
MAX_COOL = 60.0
SAMPLES = 100  # times to the first word that are remembered
ENOUGH = 20  # samples that say something
MAX_KEYS = 1000  # callers' keys that are told apart; the one unused for longest is forgotten


class Breaker:
    """Leaves a failing model alone for a while, and lets one turn at a time find out whether it is back.

    cool, max_cool: seconds for which it is left alone, and the most of them; None: as usual. opened: is called when it
    begins to be.
    """

    def __init__(
        self, *, cool: float | None = None, max_cool: float | None = None, opened: Callable[[], None] | None = None
    ) -> None:
        self._failures = 0.0
        self._open_until = 0.0
        self._least = COOL if cool is None else cool
        self._most = MAX_COOL if max_cool is None else max_cool
        self._cool = self._least
        self._is_probed = False
        self._opened = opened
        self._warned_until = 0.0

    def state(self, at: float) -> str:
        """Return "closed" (it is asked), "open" (it is not) or "half-open" (one turn may try)."""
        if self._failures < FAILURES:
            return "closed"
        return "open" if at < self._open_until else "half-open"

    def may_ask(self, at: float) -> bool:
        """True when a turn may ask it now."""
        state = self.state(at)
        return state == "closed" or (state == "half-open" and not self._is_probed)

    def asked(self, at: float) -> bool:
        """Note that a turn asks it; True when it is the one that finds out whether the model is back.

        Every such turn ends with `spoke`, `failed` or `overtaken`; the one that finds out may end with `left` as well.
        """
        is_probe = not self._is_probed and self.state(at) == "half-open"
        self._is_probed = self._is_probed or is_probe
        return is_probe

    def spoke(self) -> None:
        """Note that it spoke in time, and was not cut off."""
        self._failures, self._cool, self._is_probed, self._warned_until = 0.0, self._least, False, 0.0

    def failed(self, at: float, retry_after: float | None = None) -> None:
        """Note that it failed; `retry_after` is when it said that it may be asked again, in seconds."""
        self._fail(at, FAILURES if retry_after or at < self._warned_until else 1.0, retry_after)

    def warn(self, at: float) -> None:
        """Take it that others have seen the model fail: for one cool-down, the first failure here is enough.

        It is asked as before. Whoever warns without a cause, and however often, can do no more than that.
        """
        self._warned_until = at + self._least

    def overtaken(self, at: float) -> None:
        """Note that another, asked later, spoke sooner."""
        self._fail(at, SLOW, None)

    def left(self) -> None:
        """Note that nobody waited for what was to be found out: another turn may."""
        self._is_probed = False

    def _fail(self, at: float, weight: float, retry_after: float | None) -> None:
        state = self.state(at)
        self._is_probed = False
        self._failures += weight
        if self._failures < FAILURES:
            return
        if state == "open":  # many turns were on their way when it opened: that they fail too is one failure, not many
            until = at if retry_after is None else at + min(retry_after, MAX_COOL)
            self._open_until = max(self._open_until, until)
            return
        self._cool = min(self._cool * 2, self._most) if state == "half-open" else self._least
        self._open_until = at + (self._cool if retry_after is None else min(retry_after, MAX_COOL))
        if self._opened is not None and state == "closed":
            self._opened()


class Health:
    """One model's breakers, one for each key that it is asked with, and its recent times to the first word.

    opened: is called when the breaker for the server's own key opens.
    """

    def __init__(self, opened: Callable[[], None] | None = None) -> None:
        self._opened = opened
        self._breakers: OrderedDict[str | None, Breaker] = OrderedDict()
        self._times: deque[float] = deque(maxlen=SAMPLES)

    def breaker(self, key: str | None) -> Breaker:
        """Return the breaker for a caller's own key; None is the server's."""
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker(opened=self._opened if key is None else None)
            if len(self._breakers) > MAX_KEYS:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return breaker

    def state(self, at: float) -> str:
        """Return the worst state of all keys'."""
        states = {breaker.state(at) for breaker in self._breakers.values()}
        return next((state for state in ("open", "half-open") if state in states), "closed")

    def spoke_after(self, seconds: float) -> None:
        """Remember how long it took from asking to the first word, or how long it was waited for in vain."""
        self._times.append(seconds)

    def p95(self) -> float | None:
        """Return the time within which nineteen of twenty answers began; None while too few are known."""
        if len(self._times) < ENOUGH:
            return None
        return sorted(self._times)[math.ceil(len(self._times) * 0.95) - 1]


class Budget:
    """Requests beyond one a turn, whatever for: at most `share` of all turns may cost one.

    `turns` counts the turns, and is added to by whoever begins one. `most` may be saved up.
    """

    def __init__(self, share: float, most: float = 10.0) -> None:
        self.turns = 0
        self._share = share
        self._most = max(most, share)
        self._left = 1.0 if share > 0 else 0.0
        self._counted = 0  # turns that `_left` knows of

    def spend(self) -> bool:
        """Take one request; False when there is none left."""
        self._left = min(self._left + (self.turns - self._counted) * self._share, self._most)
        self._counted = self.turns
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
