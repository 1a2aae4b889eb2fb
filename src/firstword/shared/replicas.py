"""All that replicas share, made of one store: the only file of this room that knows the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..telemetry import Values
from .address import read
from .failures import Failures
from .meters import GIVE_BACK, TAKE, SharedMeters, Without
from .sessions import SharedEvents, SharedImages
from .store import Store
from .turns import COUNT, Turns


class Replicas:
    """What this process shares with others. Raises ConfigError for a URL that cannot be read."""

    def __init__(self, url: str, *, prefix: str, budget: float, without: Without) -> None:
        self.store = Store(read(url), budget=budget, prefix=prefix, scripts=[TAKE, GIVE_BACK, COUNT])
        self.meters = SharedMeters(self.store, without)
        self.turns = Turns(self.store)
        self.failures = Failures(self.store)
        self.images = SharedImages(self.store)
        self.events = SharedEvents(self.store)

    @property
    def opened(self) -> Callable[[str], None]:
        """What is to be told the name of a model that begins to fail here."""
        return self.failures.tell

    @property
    def state(self) -> Callable[[], str]:
        """What says how the store is."""
        return self.store.state

    async def close(self) -> None:
        """Let go of the store."""
        await self.store.close()

    def reading(self) -> Values:
        """Return what /metrics tells of the store."""
        return {"store": {("there",): float(self.store.is_there), ("away",): float(not self.store.is_there)}}

    def open(self, models: Iterable[str], warn: Callable[[str], None]) -> None:
        """Connect, in the background; `warn` hears of those of our models that fail elsewhere."""
        self.failures.warn(models, warn)
        self.store.open()
