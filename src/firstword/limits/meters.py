"""What counts for limits, behind one small protocol: in this process (`local.py`), or in a store that many share.

A turn asks for several things at once, and gets all of them or none. What it did not use after all, it gives back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

RATE, HELD, SPENT = "rate", "held", "spent"
STORE = "store"  # the name of what refuses a turn when nothing can be counted, and nobody may speak without


class Ask(NamedTuple):
    """What a turn asks of one meter: `amount` more, of which there may be `limit`.

    name: of the limit, as "requests_per_minute_per_key". whose: what tells the meters of one limit apart: a client's
        name or address, or a digest of its key or session; of money, with the period, as "key shop 2026-11".
    kind: what the limit means.
        "rate": `limit` may be had at once, and as much again in every `seconds` (a token bucket, kept as in GCRA). What
            is larger than the limit is let through when the bucket is full, and the next one waits for longer.
        "held": `limit` at the same time; each is given back when the turn is over, or is free by itself after
            `seconds`, when whoever held it is gone.
        "spent": there is more as long as less than `limit` is spent: who comes last may go beyond. It begins anew in
            `seconds`; None = never.
    """

    name: str
    whose: str
    kind: str
    amount: int
    limit: int
    seconds: float | None


class Refusal(NamedTuple):
    """Why nothing was taken: the first ask that there is not enough for, and in how many seconds there will be.

    None: nobody knows, or never.
    """

    ask: Ask
    retry_after: float | None


class Meters(Protocol):
    """Takes and gives back. `lease` names one turn: what it holds is found again by that name."""

    def take(self, asks: Sequence[Ask], lease: str) -> Refusal | Awaitable[Refusal | None] | None:
        """Take all of it, or nothing and say why. No two asks are of the same meter.

        One that has to ask elsewhere begins at once, and returns what to await: other work is done meanwhile. It never
        raises, and answers soon, whatever happened to the store; a turn that is cancelled cancels it.
        """

    def give_back(self, asks: Sequence[Ask], lease: str) -> None:
        """Take back `amount` of each; what is below zero was used beyond what was taken. Never waits, never raises.

        A turn that ends before `take` has answered gives back what it may hold. So this comes behind that, and what was
        never taken under this lease is passed over.
        """
