"""How much callers may take: turns, requests, tokens and money; and what is refused when it is more than that.

Rules:
- A turn in progress is never cut off by a limit: what it uses beyond its share, the next ones wait for.
- What is off costs nothing. Without any limit a turn adds one to a number, and takes it away again.
- Too much for the machine is told before anything is done for a request (`shed`), too much for a caller when it is
  known who calls (`Lease.enter`), too much for a session, or of tokens and money, when the body is (`Lease.hold`).
"""

from __future__ import annotations

import random
from typing import Any

from .. import clock
from ..admission.grant import UNLIMITED, Grant
from ..errors import Overloaded
from .lag import Lag
from .lease import Lease, Terms
from .local import LocalMeters
from .meters import Meters
from .queue import Arrival, Queue

__all__ = ["Lease", "Limits", "Terms"]

CALM = 16  # turns in progress that no lateness refuses: so many are always answered
SPOKEN = 2  # times `most_turns`: so many are read, when they have to hear that they are refused
AGAIN = (0.5, 1.5)  # seconds after which who was refused may ask again; not all at the same moment


class Limits:
    """All limits of one process, and what became of them.

    most_turns: in progress at the same time; None = no bound. shed_after: seconds that the event loop may be late
    before new turns are refused, and that new connections may have to wait for it; 0 = for ever. meters: what counts;
    `terms` are those of Terms.

    turns: in progress. refused: requests that were, by the limit's name. cost: in millionths, by model.
    """

    def __init__(
        self, *, most_turns: int | None = None, shed_after: float = 0.0, meters: Meters | None = None, **terms: Any
    ) -> None:
        self._terms = Terms(LocalMeters() if meters is None else meters, **terms)
        self._are_any = self._terms.are_any
        self.turns = 0
        self.refused = self._terms.refused
        self.cost = self._terms.cost
        self._most_turns = most_turns
        # Below so many turns there is nothing to look at.
        self._calm = CALM if most_turns is None else min(CALM, most_turns)
        self._lag = Lag(shed_after, lambda: self.turns >= CALM)
        self._queue = Queue(shed_after) if shed_after > 0 else None

    @property
    def lag(self) -> float:
        """How late the event loop is, in seconds; 0 while there are few turns."""
        return self._lag.seconds

    def shed(self, arrival: Arrival | None = None) -> Overloaded | None:
        """Return why no turn can begin now; None, as a rule. `arrival`: the request, where it knows when it came."""
        return None if self.turns < self._calm else self._crowded(arrival)

    @property
    def may_speak(self) -> bool:
        """True when a turn that is refused may be read, to be told aloud. Of those, too, there can be too many."""
        return self._most_turns is None or self.turns <= SPOKEN * self._most_turns

    def _crowded(self, arrival: Arrival | None) -> Overloaded | None:
        if self._most_turns is not None and self.turns >= self._most_turns:
            limit, said = "max_turns", f"The server has {self._most_turns} turns in progress, and can have no more."
        elif self.turns >= CALM and (self._has_waited(arrival) or self._lag.is_late):
            limit, said = "shed_after", "The server cannot keep up with the turns in progress."
        else:
            self._lag.watch()
            return None
        self.refused[limit] += 1
        return Overloaded(said, retry_after=random.uniform(*AGAIN), hint="ask again soon")

    def _has_waited(self, arrival: Arrival | None) -> bool:
        """True when the request comes out of a queue that does not get short, and waited in it for long."""
        waited = None if arrival is None or self._queue is None else arrival.waited()
        return waited is not None and self._queue is not None and self._queue.is_too_long(waited, clock.now())

    def lease(self, grant: Grant) -> Lease | None:
        """Return what a turn takes its share by; None when there is nothing to take."""
        if self._are_any or (grant.allowance is not UNLIMITED and grant.allowance != UNLIMITED):
            return Lease(self._terms)
        return None

    def close(self) -> None:
        """Look at the loop no more."""
        self._lag.close()
