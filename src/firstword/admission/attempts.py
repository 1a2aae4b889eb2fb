"""How often an address has failed to come in: whoever guesses is slowed, whoever holds a key is not.

Two facts tell them apart without asking anybody to wait. A guess is another key each time; a client sends the same.
And a key that we made, or another long one, cannot be guessed, at whatever speed, so that looking at it gives nothing
away. So when an address has failed too often, only a short key that was never good from there is refused unseen: an
engine or an office behind one address keeps working while somebody else there guesses. Nobody sleeps: a refusal is a
429 at once.
"""

from __future__ import annotations

from collections import OrderedDict

from .. import clock
from .callers import household

BURST = 10  # failures of an address that are only refused
EVERY = 6.0  # seconds until it has one more: ten a minute
MOST = 10_000  # addresses, and keys that were good from one, which are remembered; about 2 MB


class Attempts:
    """The failures of the last minute by address, and which keys were good from where."""

    def __init__(self) -> None:
        self._paid: OrderedDict[str, float] = OrderedDict()  # when each address will have made up for its failures
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return the seconds until this address may fail again; 0 when it may now."""
        paid = self._paid.get(household(address)) if self._paid else None
        return 0.0 if paid is None else max(0.0, paid - clock.now() - (BURST - 1) * EVERY)

    def note_failure(self, address: str) -> None:
        """Count one more."""
        house, now = household(address), clock.now()
        self._paid[house] = max(self._paid.get(house, now), now) + EVERY
        self._paid.move_to_end(house)
        if len(self._paid) > MOST:
            self._paid.popitem(last=False)

    def note_good(self, address: str, digest: bytes) -> None:
        """Remember that this key was good from there."""
        self._good[address, digest] = None
        if len(self._good) > MOST:
            self._good.popitem(last=False)

    def was_good(self, address: str, digest: bytes) -> bool:
        """True when it was."""
        return (address, digest) in self._good
