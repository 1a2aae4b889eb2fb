"""uvicorn's server, told to stop without losing a turn.

CTRL+C (SIGINT) ends it as uvicorn does: turns in progress get their time. SIGTERM is a deployment's: the balancer has
to hear of it first. In this order: `/ready` says so, and for `drain_delay` seconds all is served as before; the
listening socket is closed; connections that are kept for a next turn may still bring one, and are closed behind it;
the turns in progress end, or are ended when `drain_timeout` is over. A worker whose successor listens already is told
by SIGHUP, and has no delay. A process without a supervisor has no successor: SIGHUP, which would kill it, is SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

LOOK = 0.05  # seconds between two looks at what is left
ONE = 1.5  # seconds in which a signal that comes again is the same one; a supervisor looks every half second
KEPT_SHARE = 0.5  # of drain_timeout: how long a connection may bring one more turn


class Draining(uvicorn.Server):
    """One process that serves. drain_delay: seconds in which a balancer learns that no more turns should come."""

    def __init__(self, config: uvicorn.Config, *, drain_delay: float = 0.0) -> None:
        super().__init__(config)
        self._drain_delay = drain_delay
        self._signal: int = signal.SIGINT
        self._told: tuple[int, float] | None = None  # the last signal, and when it came
        self._rounds = 0

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second."""
        self._rounds += 1
        return await super().on_tick(counter)

    @property
    def rounds(self) -> int | None:
        """How often the loop has come round since it serves; None when it is to end, which has times of its own."""
        return None if self.should_exit else self._rounds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; a second one ends what the first began.

        A terminal tells the workers as well as their supervisor, which tells them too: that is one, and not two.
        """
        told, self._told = self._told, (sig, time.monotonic())
        if told is not None and told[0] == sig and self._told[1] - told[1] < ONE:
            return
        is_hurried = self.should_exit or sig == signal.SIGINT
        self._signal = signal.SIGINT if is_hurried else signal.SIGTERM
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGHUP as well, unless somebody has it already: a worker, `nohup`, the host of a mounted App."""
        hang_up: int = getattr(signal, "SIGHUP", 0)
        is_ours = threading.current_thread() is threading.main_thread() and bool(hang_up)
        with super().capture_signals():
            if not is_ours or signal.getsignal(hang_up) is not signal.SIG_DFL:
                yield
                return
            signal.signal(hang_up, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(hang_up, signal.SIG_DFL)

    def retire(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal that a successor listens on the same socket. It is not this process' end by a signal."""
        if not self.should_exit:
            self._signal = sig
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as this file says."""
        if self._signal != signal.SIGINT:
            await self._drain(sockets)
        await super().shutdown(sockets)

    async def _drain(self, sockets: list[socket.socket] | None) -> None:
        loop = asyncio.get_running_loop()
        self.server_state.is_draining = True  # type: ignore[attr-defined]  # see VoiceProtocol
        retire: Any = getattr(self.config.loaded_app, "retire", None)
        if retire is not None:
            retire()
        if self._signal == signal.SIGTERM:
            await self._wait_until(loop.time() + self._drain_delay)
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        began, within = loop.time(), float(self.config.timeout_graceful_shutdown or 0)
        await self._wait_until(began + within * KEPT_SHARE, while_connected=True)
        # What is left of the time is for the turns in progress: uvicorn waits for them, and then ends them.
        left = max(began + within - loop.time(), 0.0)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]

    async def _wait_until(self, end: float, *, while_connected: bool = False) -> None:
        """Wait, but not when there is nobody left, and no longer than until a second signal."""
        loop = asyncio.get_running_loop()
        while loop.time() < end and self._signal != signal.SIGINT:
            if while_connected and not self.server_state.connections:
                return
            await asyncio.sleep(min(LOOK, max(end - loop.time(), 0.0)))
