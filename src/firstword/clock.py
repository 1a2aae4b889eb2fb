"""Time: one monotonic clock, one way to bound a wait, and whether a wait was cut short on purpose."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic as now

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["now", "timeout", "was_cancelled"]


def was_cancelled() -> bool:
    """True when somebody cancelled the running task; False when it only awaited something that was cancelled.

    Python 3.10 cannot tell the two apart, and takes every cancellation for the task's own.
    """
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0
