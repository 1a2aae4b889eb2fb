"""Several processes on one port: each has a listening socket of its own, which outlives it.

On Linux the kernel deals new connections out evenly among sockets that are bound to one port. From one listening socket
for all workers the first to wake takes them, and under light load that is nearly always the same one
(docs/decisions/0008-workers.md). Elsewhere the workers share one socket.

The supervisor keeps every socket open. So what was dealt to a worker that dies waits for its successor, and a worker
that is replaced has its successor beside it on the same socket before it is told to go: no connection is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from .worker import Worker

log = logging.getLogger("uvicorn.error")

HANG_UP = getattr(signal, "SIGHUP", -1)  # Windows has none

LOOK = 0.1  # seconds between two looks at a successor that is waited for
RETRY_PAUSE = 5.0  # seconds before a worker is started again whose predecessor could not even load the App
SHARED_AFTER = 3.0  # seconds to come up, beyond which nobody should wait for a successor: the others have its share
LATE = "has not come up, and is killed"
SHORT = "give it more processes, memory or open files (ulimit -u, ulimit -n, a container's limits)"
# Seconds beyond the drain in which a worker that was told to end may do so; one that hangs never would.
END_WITHIN = 60.0


class Workers(Multiprocess):
    """The supervisor: starts `config.workers` processes, replaces those that die, and all of them on SIGHUP.

    aside: the operator's socket, if there is one; all workers share it, as whichever wakes may answer. hung_after: as
        in Worker.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        *,
        drain_delay: float = 0.0,
        hung_after: float = 0.0,
        aside: Sequence[socket.socket] = (),
    ) -> None:
        super().__init__(config, [listener])
        self._aside = aside
        self._drain_delay = drain_delay
        self._hung_after = hung_after
        self._has_own_sockets = sys.platform == "linux"
        self._listeners = [listener] * self.processes_num
        if self._has_own_sockets:
            share_port(listener)
            self._listeners[1:] = [beside(listener) for _ in self._listeners[1:]]
        self.has_failed = False  # nobody could start
        self._not_before = [0.0] * self.processes_num  # when a worker may be started again, if that had to be put off
        self._retired: list[tuple[Process, float]] = []  # those that have a successor, and until when they may go on

    @property
    def _workers(self) -> list[Worker]:
        return cast("list[Worker]", self.processes)

    def _begin(self, listener: socket.socket) -> Worker:
        sockets = [listener, *self._aside]
        worker = Worker(self.config, sockets, drain_delay=self._drain_delay, hung_after=self._hung_after)
        try:
            worker.start()
        except OSError:
            worker.parent_conn.close()
            worker.child_conn.close()
            raise
        return worker

    def _try(self, listener: socket.socket) -> Worker | None:
        """Begin one; None when the system has nothing left for it."""
        try:
            return self._begin(listener)
        except OSError as error:
            tell_of(error)
            return None

    def run(self) -> None:
        """Serve until told to stop. Whatever ends the supervisor ends its workers."""
        try:
            super().run()
        except BaseException:
            self.terminate_all()
            self.join_all()
            raise

    def init_processes(self) -> None:
        """Start all of them. Raises OSError when the system has not enough for that."""
        for listener in self._listeners:
            self.processes.append(self._begin(listener))

    def handle_signals(self) -> None:
        """Do what was asked for since; of several SIGHUPs one is enough."""
        while self.signal_queue.count(HANG_UP) > 1:
            self.signal_queue.remove(HANG_UP)
        super().handle_signals()

    def restart_all(self) -> None:
        """Put a new process beside each one, on the same socket, and let the old one end in its own time."""
        for index in range(self.processes_num):
            if self._is_to_stop():
                return
            new = self._try(self._listeners[index])
            if new is None:
                return
            if not self._comes_up(new):
                new.kill()
                new.join()
                if not self._is_to_stop():
                    log.error("The new worker [%s] did not come up: the old ones stay.", new.pid)
                return
            old = self.processes[index]
            self.processes[index] = new
            self._not_before[index] = 0.0
            self._retire(old)

    def _is_to_stop(self) -> bool:
        return self.should_exit.is_set() or any(sig in self.signal_queue for sig in (signal.SIGTERM, signal.SIGINT))

    def _comes_up(self, new: Worker) -> bool:
        """Wait until a successor serves; those that serve meanwhile are looked after."""
        while new.is_alive() and not self._is_to_stop():
            if new.has_served:
                return True
            self.keep_subprocess_alive()
            self.should_exit.wait(LOOK)
        return False

    def _retire(self, old: Process) -> None:
        assert isinstance(old, Worker)
        old.retire()
        self._retired.append((old, time.monotonic() + self._end_within()))

    def _end_within(self) -> float:
        return float(self.config.timeout_graceful_shutdown or 0) + END_WITHIN

    def keep_subprocess_alive(self) -> None:
        """Replace what has died; one that cannot load its App does not take those with it that could."""
        for old, end in self._retired:
            if old.exitcode is None and time.monotonic() >= end:
                _end(old)
        self._retired = [(each, end) for each, end in self._retired if each.exitcode is None]
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if self._not_before[index] > time.monotonic():
                continue
            if self._not_before[index] == 0.0:
                if process.is_alive():
                    continue
                is_late = process.exitcode is None and not self._workers[index].has_served
                if process.exitcode is None:
                    log.error("Child process [%s] %s.", process.pid, LATE if is_late else "hangs: it is replaced")
                process.kill()
                process.join()
                if is_late or process.exitcode == STARTUP_FAILURE:
                    self._put_off(index)
                    continue
                log.info("Child process [%s] died", process.pid)
                if self._workers[index].took > SHARED_AFTER:  # so long takes the next one too
                    self._give_share_away(index)
            new = self._try(self._listeners[index])
            self._not_before[index] = time.monotonic() + RETRY_PAUSE if new is None else 0.0
            self.processes[index] = new or process

    def _put_off(self, index: int) -> None:
        """Try later to start a worker that could not load its App; stop when nobody serves or may still come to it."""
        pid = self.processes[index].pid
        # One that served and has died since may come back: that is for its own place to find out.
        if not any(each.has_served or each.exitcode is None for each in self._workers):
            log.error("Child process [%s] failed to start, stopping the parent process.", pid)
            self.has_failed = True
            self.should_exit.set()
            return
        self._not_before[index] = time.monotonic() + RETRY_PAUSE
        self._give_share_away(index)
        log.error("Child process [%s] failed to start. The others stay; it is tried again.", pid)

    def _give_share_away(self, index: int) -> None:
        """Let the others have what would be dealt to a socket that nobody answers: a new one is none until it listens.

        What it has been dealt already is reset, and can be sent to somebody else.
        """
        if self._has_own_sockets:
            with contextlib.suppress(OSError):  # nothing is left for another: they have to wait
                old, self._listeners[index] = self._listeners[index], beside(self._listeners[index])
                old.close()

    def handle_ttin(self) -> None:
        """Add a worker, if the system has what it takes."""
        listener, is_own = self._listeners[0], self._has_own_sockets
        try:
            listener = beside(listener) if is_own else listener
        except OSError as error:
            tell_of(error)
            return
        worker = self._try(listener)
        if worker is None:
            if is_own:
                listener.close()
            return
        self._listeners.append(listener)
        self._not_before.append(0.0)
        self.processes.append(worker)
        self.processes_num += 1

    def handle_ttou(self) -> None:
        """Let one worker end, if it is not the last."""
        if self.processes_num > 1:
            self.processes_num -= 1
            listener = self._listeners.pop()
            self._not_before.pop()
            self._retire(self.processes.pop())
            if self._has_own_sockets:
                listener.close()

    def handle_int(self) -> None:
        """Stop as CTRL+C means it, which a terminal has told the workers as well: without a delay."""
        for process in self.processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        super().handle_int()

    def terminate_all(self) -> None:
        """Tell all of them to stop. Once they listen no more, nobody does."""
        for listener in (*self._listeners, *self._aside):
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for all of them, also for those that had been replaced; one that hangs is ended."""
        end = time.monotonic() + self._drain_delay + self._end_within()
        for each in (*(old for old, _ in self._retired), *self.processes):
            log.info("Waiting for child process [%s]", each.pid)
            each.process.join(max(end - time.monotonic(), 0.0))
            if each.exitcode is None:
                _end(each)


def tell_of(error: OSError) -> None:
    """Log that the system has nothing left for a worker."""
    log.error("No worker can be started: %s. hint: %s", error.strerror or error, SHORT)


def _end(worker: Process) -> None:
    log.error("Child process [%s] does not end: it is killed.", worker.pid)
    worker.kill()
    worker.process.join()


def share_port(bound: socket.socket) -> None:
    """Let this user's workers bind the port of a bound socket too.

    The port was bound alone, so nobody had it. Without SO_REUSEADDR it is taken also while no worker listens yet, for
    every server that binds its port alone as well.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def beside(bound: socket.socket) -> socket.socket:
    """Return a new socket that is bound to the same port."""
    own = socket.socket(bound.family)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended may still hold the port
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(bound.getsockname())
    return own
