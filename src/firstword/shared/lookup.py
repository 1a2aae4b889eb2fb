"""Look the store's name up, in one thread at a time that nobody has to wait for.

A resolver that is away may take a minute for each question. Asked anew by each try to connect, in the threads that all
share, it would have taken all of them after a few tries: functions of the user's would wait for a store that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any, TypeAlias

Found: TypeAlias = "list[Any]"  # as `socket.getaddrinfo` returns it


class Lookup:
    """Looks one name up, again and again. host, port: what is looked for."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._asked: asyncio.Future[Found] | None = None

    async def addresses(self) -> Found:
        """Return the addresses. Whoever comes while a question has no answer waits for that one.

        Raises OSError for a name that is not known, UnicodeError for one that cannot be.
        """
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._ask, args=(self._asked,), daemon=True, name="firstword-store").start()
        return await asyncio.shield(self._asked)

    def _ask(self, asked: asyncio.Future[Found]) -> None:
        found: Found | None = None
        wrong: Exception = OSError("the name could not be looked up")
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except Exception as error:
            wrong = error

        def answer() -> None:
            if asked.done():
                return
            if found is None:
                asked.set_exception(wrong)
                asked.exception()  # it may be that nobody waits any more
            else:
                asked.set_result(found)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            asked.get_loop().call_soon_threadsafe(answer)
