"""Call what blocks without holding up the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function in a thread, so that it holds up nobody, and return what it returns."""

    def call() -> Any:
        try:
            return function(*arguments)
        except StopIteration as error:
            # No future can hold one: whoever awaits it would wait for ever.
            raise RuntimeError("the function raised StopIteration").with_traceback(error.__traceback__) from error

    return await asyncio.to_thread(call)
