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

    name: of the client, for logs, limits and metrics: as the file of keys has it, `key-` and a digest for a key without
        a name, `jwt:` and the subject of a token; empty when there is none, also for a signed URL that names nobody.
    key: the caller's own key, which goes on to the provider; None when the server holds one.
    models: the only names that a request may ask for; None = all.
    session: the only session that it may speak for; None = any.
    """

    name: str = ""
    key: str | None = field(default=None, repr=False)
    models: frozenset[str] | None = None
    session: str | None = None
    allowance: Allowance = UNLIMITED

    @property
    def is_known(self) -> bool:
        """True when the gate knows whose request it is, or which session's: then no header need tell callers apart."""
        return bool(self.name) or self.session is not None


NOBODY = Grant()
