"""What replicas know of each other, by way of a Valkey or Redis server: hints, never orders.

Used only when FIRSTWORD_REDIS_URL is set. Rules:
- No turn waits for the store longer than its budget; when the store is away or slow, no turn waits for it at all.
- Whatever is asked of the store may come to nothing (`AWAY`), and whoever asks says what is done then.
- Every key has a lifetime. Names in the store are digests: no key, session, number or word of anybody stands in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from .replicas import Replicas


class Alone:
    """Stands where `Replicas` stands, in a process that shares nothing."""

    meters = turns = images = events = opened = state = None

    def open(self, models: Iterable[str], warn: Callable[[str], None]) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def reading(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


def share(url: str | None, **more: Any) -> Replicas | Alone:
    """Return what this process shares with others; `more` is as in `Replicas`. Raises ConfigError."""
    if url is None:
        return Alone()
    try:
        from .replicas import Replicas
    except ImportError:
        raise ConfigError(
            "FIRSTWORD_REDIS_URL is set, and hiredis is not installed.", hint="pip install 'firstword[redis]'"
        ) from None
    return Replicas(url, **more)
