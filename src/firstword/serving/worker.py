"""One of several processes that serve, as the supervisor sees it: whether it has come up, and whether it gets on."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import wait

import uvicorn
from uvicorn.supervisors.multiprocess import Process

from .draining import Draining

log = logging.getLogger("uvicorn.error")

LONGEST_ANSWER = 100  # bytes
LONGEST_LOOK = 1.0  # seconds between two looks that count; after more the supervisor itself has stood still
READY_WITHIN = 300.0  # seconds that a worker gets until it serves: it may have a model to load, or to fetch


class Worker(Process):
    """One process. It is told by SIGHUP that its successor is there.

    hung_after: seconds after which one whose event loop is held does not count as alive any more; 0 = it always does.

    The supervisor looks at it every half second and never waits for an answer: code that holds the interpreter lets
    no thread speak either. What counts is for how long it has not got on while the supervisor could look; a machine
    that stood still is nobody's fault.
    """

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], *, drain_delay: float, hung_after: float
    ) -> None:
        self._drain_delay = drain_delay
        self._hung_after = hung_after
        self.has_served = False
        self._took = 0.0  # seconds until it served
        self._rounds = 0  # of its loop, when it last answered
        self._is_asked = False
        self._looked = time.monotonic()
        self._stood = 0.0  # seconds since it last got on
        super().__init__(config, sockets)

    @property
    def server(self) -> Draining:
        """What serves in it."""
        if not isinstance(self._server, Draining):
            self._server = Draining(self.config, drain_delay=self._drain_delay)
        return self._server

    def pong(self) -> None:
        """Answer the supervisor, from a thread."""
        self.child_conn.recv_bytes()
        rounds = self.server.rounds
        self.child_conn.send_bytes(b"%d %d" % (self.server.started, -1 if rounds is None else rounds))

    def look(self) -> None:
        """Take the answer to the last look, if there is one, and ask again."""
        now = time.monotonic()
        self._stood += min(now - self._looked, LONGEST_LOOK)
        self._looked = now
        try:
            if self._is_asked and not self.parent_conn.poll():
                return
            if self._is_asked:
                is_serving, rounds = map(int, self.parent_conn.recv_bytes(LONGEST_ANSWER).split())
                if is_serving and not self.has_served:
                    self.has_served, self._took = True, self._stood
                if rounds < 0 or rounds != self._rounds:  # below zero it has no loop to come round
                    self._stood = 0.0
                self._rounds = rounds
            self.parent_conn.send_bytes(b"")
            self._is_asked = True
        except (OSError, EOFError, ValueError):
            pass  # it has ended, or ends

    @property
    def took(self) -> float:
        """For how many seconds it has been coming up, until it served."""
        return self._took if self.has_served else self._stood

    def is_alive(self, timeout: float = 0.0) -> bool:
        """Look at it; False when it has ended, or has not got on for too long. `timeout` is not needed."""
        self.look()
        if self.exitcode is not None:
            return False
        most = self._hung_after if self.has_served else READY_WITHIN
        return not most or self._stood <= most

    def always_pong(self) -> None:
        """Answer until the end; a supervisor that was killed has told nobody that this is it."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        while parent.sentinel not in wait([self.child_conn, parent.sentinel]):
            self.pong()
        os.kill(os.getpid(), signal.SIGTERM)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; runs in the process itself."""
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self.server.retire)
        super().target(sockets)

    def retire(self) -> None:
        """Let it end, now that its successor listens on its socket."""
        if self.process.exitcode is None and self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)
            log.info("Retired child process [%s]", self.pid)
