"""Which models fail, as one replica tells the others: a hint, on which none of them stops asking.

What is heard makes a breaker quicker for one cool-down, and does not open it: the first failure here is then enough.
Only failures with the server's own key are told; a caller's key says nothing of the others'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from .. import clock
from ..who import digest
from .store import Store

KIND = "fails"
QUIET = 60.0  # seconds without a hint after which the log says it again

log = logging.getLogger("firstword")


class Failures:
    """Tells and hears of models by digests of their names, which are the same on every replica."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str, str] = {}
        self._warn: Callable[[str], None] | None = None
        self._quiet_until: dict[str, float] = {}
        store.hear(KIND, self._hear)

    def tell(self, name: str) -> None:
        """Tell the others that a model is left alone here."""
        self._store.say(KIND, digest(name))

    def warn(self, names: Iterable[str], warn: Callable[[str], None]) -> None:
        """Have `warn` hear of those of our models that fail elsewhere."""
        self._names = {digest(name): name for name in names}
        self._warn = warn

    def _hear(self, said: list[str]) -> None:
        name = self._names.get(said[0]) if len(said) == 1 else None
        if name is not None and self._warn is not None:
            if clock.now() >= self._quiet_until.get(name, 0.0):  # a hundred replicas say it, or somebody without end
                log.info("model fails elsewhere model=%s", name)
            self._quiet_until[name] = clock.now() + QUIET
            self._warn(name)
