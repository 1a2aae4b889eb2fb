"""What who came in may do: the name of the key, what it is good for, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a key may take; None is no limit.

    requests, tokens: a minute. concurrent: turns in progress. budget: money, in the unit of the user's price table.
    """

    requests: float | None = None
    tokens: float | None = None
    concurrent: int | None = None
    budget: float | None = None


UNLIMITED = Allowance()


@dataclass(frozen=True, slots=True)
class Grant:
    """What who came in may do.

    name: of the gate key, for logs, limits and metrics; empty when there is none.
    key: the caller's own key, which goes on to the provider; None when the server holds one.
    models: the only names that a request may ask for; None = all.
    session: the only session that it may speak for; None = any.
    """

    name: str = ""
    key: str | None = field(default=None, repr=False)
    models: frozenset[str] | None = None
    session: str | None = None
    allowance: Allowance = UNLIMITED


NOBODY = Grant()
