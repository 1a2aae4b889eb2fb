"""A mind that does as it is told, in the process of a local model: `python stand_in.py`, as the server starts one.

Its tokens are bytes, so that every character that is not ASCII comes in pieces. What it does is in the caller's words:
`say X`, `on and on`, `die`, `stall`, `spin`, `prompt` and `report`; the answer to the last is what was read and said.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from firstword.local.desk import work
from firstword.local.lines import Order
from firstword.local.mind import Unfit
from firstword.providers.local import provider as local

BEGIN, END = 256, 257


class StandIn:
    """A mind without a model."""

    window = 20_000
    slice = 100
    rules = "Be brief."

    def __init__(self) -> None:
        self._known: list[int] = []
        self.seen = {"pid": os.getpid(), "orders": 0, "read": 0, "said": 0}

    def tokens(self, words: str) -> list[int]:
        return list(words.encode())

    def wrapped(self, role: str, tokens: list[int]) -> list[int]:
        return [BEGIN, *role.encode(), 10, *tokens, END]

    def opening(self) -> list[int]:
        return [BEGIN, *b"assistant\n"]

    def recall(self, prompt: Sequence[int], *, afresh: bool) -> int:
        pairs = zip(self._known, prompt[:-1], strict=False)
        known = next((at for at, (old, new) in enumerate(pairs) if old != new), min(len(self._known), len(prompt) - 1))
        self._known = self._known[: 0 if afresh else known]
        self.seen["orders"] += 1
        return len(self._known)

    def read(self, tokens: Sequence[int]) -> None:
        self._known += tokens
        self.seen["read"] += len(tokens)
        if b"slowly" in bytes(token for token in self._known if token < BEGIN):
            threading.Event().wait(0.02)  # what reading costs

    def say(self, prompt: Sequence[int], order: Order) -> Iterator[int]:
        if order.schema == {"type": "impossible"}:
            raise Unfit("response_format")
        return self._say(prompt, order)

    def _say(self, prompt: Sequence[int], order: Order) -> Iterator[int]:
        deed, _, rest = order.messages[-1][1].partition(" ")
        before = dict(self.seen)
        for token in self._words(deed, rest, prompt, before):
            self.seen["said"] += 1
            yield token

    def _words(self, deed: str, rest: str, prompt: Sequence[int], before: Mapping[str, Any]) -> Iterator[int]:
        if deed == "say":
            yield from rest.encode()
        elif deed == "on":
            while True:
                yield from b"on and "
                threading.Event().wait(0.01)  # what a word costs
        elif deed == "die":
            yield from rest.encode()
            os._exit(7)
        elif deed == "spin":
            while True:
                sum(range(1000))
        elif deed == "stall":
            yield from rest.encode()
            threading.Event().wait()
        elif deed == "prompt":
            yield from b"".join(bytes([token]) if token < BEGIN else b"|" for token in prompt)
        elif deed == "report":
            yield from json.dumps(before).encode()

    def spelled(self, token: int) -> bytes:
        return bytes([token])


class Provider:
    """A model of another package that runs beside the server."""

    def command(self) -> list[str]:
        return [sys.executable, __file__]

    def order(self, request: Mapping[str, Any]) -> Order:
        return local.order(request)


class Hopeless(Provider):
    """One that cannot be loaded."""

    def command(self) -> list[str]:
        return [sys.executable, __file__, "hopeless"]


class Nowhere(Provider):
    """One that is not there."""

    def command(self) -> list[str]:
        return ["/nowhere/at/all"]


provider, hopeless, nowhere = Provider(), Hopeless(), Nowhere()


def load() -> StandIn:
    """Return the mind; a package that is broken prints much and raises anything."""
    print("loading, 1 of 3", flush=True)
    if sys.argv[1:]:
        raise OSError(8, "Exec format error: a secret place")
    return StandIn()


if __name__ == "__main__":
    work(load)
