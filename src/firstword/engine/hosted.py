"""A server for one call: an App under uvicorn in this process, in a thread of its own, on a free port of loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType

from ..errors import ConfigError
from ..serving import Servable, options

START_TIMEOUT = 30.0  # seconds; tools of an App may have to be fetched first


class Hosted:
    """Serves an App within a `with` block; `url` is where. Raises ConfigError when it does not start."""

    def __init__(self, app: Servable) -> None:
        import uvicorn

        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/chat/completions"
        # Without a log: its lines would stand between the words of the call. Warnings are told all the same.
        self._server = uvicorn.Server(uvicorn.Config(app, **{**options(), "log_config": None}))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Hosted:
        self._thread.start()
        left = START_TIMEOUT
        while not self._server.started and self._thread.is_alive() and left > 0:
            self._thread.join(0.01)  # uvicorn says in no other way that it has started
            left -= 0.01
        if not self._server.started:
            self.__exit__(None, None, None)
            raise ConfigError("The server did not start.", hint="`firstword serve` says why")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(START_TIMEOUT)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._socket]))
