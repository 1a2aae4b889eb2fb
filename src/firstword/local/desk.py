"""Where the orders lie: taken in by one thread, carried out by the other, one at a time and in the order they came."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from .lines import Asked, Broken, Leave, Order, Ready, Refused, Told, line, read_asked
from .mind import Mind, Unfit, speak

NICE = 5  # the server's own work comes first


def work(load: Callable[[], Mind]) -> None:
    """Load a model and carry out orders until the input ends; then the whole process does, at once."""
    # Who stops the server stops us by closing our input: a signal to all of them would cut off the last answers.
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    desk = Desk(sys.stdin.buffer, _own_output())
    threading.Thread(target=desk.take_in, daemon=True).start()
    try:
        mind = load()
        if hasattr(os, "nice"):
            os.nice(NICE)
        desk.tell(Ready())
        while True:
            desk.carry_out(mind)
    except Exception as error:  # whatever it is, the operator wants to know; its own words may be a caller's
        desk.tell(Broken(type(error).__name__))


def _own_output() -> BinaryIO:
    """Return the output as ours alone: what a library prints would be read as a line."""
    sys.stdout.flush()
    ours = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return ours


class Desk:
    """The orders that wait, and whether somebody still waits for them."""

    def __init__(self, asked: BinaryIO, told: BinaryIO) -> None:
        self._asked = asked
        self._told = told
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._left = 0  # this order and all before it: nobody waits for them any more

    def take_in(self) -> None:
        """Take in what comes, until the input ends. Ends the process: nobody waits for anything any more."""
        try:
            for data in self._asked:
                self._put(read_asked(data))
        finally:
            os._exit(0)

    def _put(self, asked: Asked) -> None:
        if isinstance(asked, Leave):
            self._left = asked.number
        else:
            self._orders.put(asked)

    def tell(self, told: Told) -> None:
        """Say one line."""
        self._told.write(line(told))
        self._told.flush()

    def carry_out(self, mind: Mind) -> None:
        """Wait for an order, and answer it."""
        order = self._orders.get()
        try:
            for told in speak(mind, order, lambda: order.number <= self._left):
                self.tell(told)
        except Unfit as error:
            self.tell(Refused(order.number, error.field))
