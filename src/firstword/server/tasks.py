"""Work that goes on beside the replies: held until it is done, and waited for when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

DRAIN_TIMEOUT = 10.0  # seconds that it gets when the server stops


class Tasks:
    """What runs beside the replies. The length is how many are being done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this, and hold it until it is done."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self) -> None:
        """Wait for what is being done, and end what takes too long."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
