"""What the settings say that this process shares with other replicas, and what is made of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .images import Images
from .shared import Alone, share
from .stages.tidy import tidy
from .turn import Turn

if TYPE_CHECKING:
    from .shared.replicas import Replicas


def replicas_of(settings: Any) -> Replicas | Alone:
    """Return what this process shares with others. Raises ConfigError."""
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    without = settings.limits_without_store
    return share(url, prefix=settings.redis_prefix, budget=settings.redis_timeout, without=without)


def tidy_of(settings: Any, shared: Replicas | Alone) -> Callable[[Turn], Awaitable[None] | None]:
    """Return what puts an engine's history right."""
    images = Images(settings.keep_images, shared.images) if settings.keep_images else None
    return tidy(notes=settings.note_interruptions, images=images)
