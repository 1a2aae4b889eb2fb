"""Time: one monotonic clock, and one way to bound a wait."""

from __future__ import annotations

import sys
from time import monotonic as now

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["now", "timeout"]
