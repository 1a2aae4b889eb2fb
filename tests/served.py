"""An App under a real uvicorn, in a thread of its own, so that a test can be its caller and look inside."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from firstword import App
from firstword.serving import options


class _Server(uvicorn.Server):
    """uvicorn, but it looks every hundredth of a second whether it shall end: a hundred tests wait for that."""

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.01)


class Served:
    """A running server: `url`, and what it holds right now."""

    def __init__(self, app: App, **more: Any) -> None:
        self.app = app
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = _Server(uvicorn.Config(app, **{**options(), "log_config": None, **more}))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10), "the server did not start"

    def _run(self) -> None:
        factory = self._server.config.get_loop_factory() or asyncio.new_event_loop
        loop = factory()
        self._loop = loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self._started.set()
            loop.close()

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._started.set()
        await serving

    def stop(self) -> None:
        """Shut down as CTRL+C does."""
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive(), "the server did not stop"
        self._socket.close()

    def run(self, make: Callable[[], Awaitable[Any]], within: float = 5.0) -> Any:
        """Run a coroutine on the server's own loop and return its result."""
        assert self._loop is not None

        async def call() -> Any:
            return await make()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(within)

    def left_open(self) -> dict[str, int]:
        """Return how many upstream connections are in use and how many turns' tasks run, once that and hooks are over.

        A turn's last steps may still be on their way when its caller has seen the end: give them a moment.
        """

        async def look() -> dict[str, int]:
            found = {}
            for _ in range(800):
                transport = self.app._built.transport if self.app._built else None
                names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
                turns = [name for name in names if name.startswith(("Server.", "_hang_up", "RequestResponseCycle"))]
                turns = [name for name in turns if name != "Server.serve"]
                found = {"in_use": transport.in_use if transport else 0, "turns": len(turns)}
                after = self.app._built.server._afterwards.running if self.app._built else 0
                if not (any(found.values()) or after):
                    break
                await asyncio.sleep(0.01)
            return found

        result: dict[str, int] = self.run(look, within=20)
        return result
