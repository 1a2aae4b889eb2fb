"""A turn that comes again to another replica: whoever answers the older request hears of the newer one.

The store counts the requests of each turn, so that all replicas agree which one is the newest. Only a turn that was
counted before is told to the others; as a rule that is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .script import Script
from .store import Store

LASTS = 600.0  # seconds for which a turn's requests are counted; none is answered for that long
KIND = "turn"
MAX_DIGITS = 15

# KEYS: the turn. ARGV: milliseconds to keep it, the channel, and what is told there if it was counted before.
COUNT = Script("""
local n = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if n > 1 then redis.call('PUBLISH', ARGV[2], ARGV[3] .. ' ' .. n) end
return n
""")


@dataclass(slots=True, eq=False)
class Begun:
    """One request that is being answered here. overtaken: is called when another replica has a newer one.

    order: its place among all requests of the turn, once the store has said so. newest: the highest told so far.
    """

    overtaken: Callable[[], None]
    order: int | None = None
    newest: int = 0

    def compare(self) -> None:
        """Call `overtaken` if it was."""
        if self.order is not None and self.newest > self.order:
            self.overtaken()


class Turns:
    """The turns that are being answered here, and may come again elsewhere."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begun: dict[str, Begun] = {}
        store.hear(KIND, self._hear)

    def begin(self, of: tuple[str, str], overtaken: Callable[[], None]) -> None:
        """Take a request of a turn. Nobody waits for the store; when it is away, nobody else hears of it."""
        name = self._store.name(KIND, *of)
        begun = self._begun[name] = Begun(overtaken)
        told = f"{KIND} {self._store.replica} {name}"
        count = self._store.run(COUNT, [name], int(LASTS * 1000), self._store.channel, told)
        count.add_done_callback(partial(self._counted, begun))

    def end(self, of: tuple[str, str], overtaken: Callable[[], None]) -> None:
        """Forget a request, unless a newer one of the turn has taken its place."""
        name = self._store.name(KIND, *of)
        begun = self._begun.get(name)
        if begun is not None and begun.overtaken is overtaken:
            del self._begun[name]

    def _counted(self, begun: Begun, count: asyncio.Future[Any]) -> None:
        order = count.result()
        if isinstance(order, int):
            begun.order = order
            begun.compare()

    def _hear(self, said: list[str]) -> None:
        if len(said) != 2 or not (said[1].isdecimal() and len(said[1]) <= MAX_DIGITS):
            return
        begun = self._begun.get(said[0])
        if begun is not None:
            begun.newest = max(begun.newest, int(said[1]))
            begun.compare()
