"""Bytes sent as they are to a port, and what comes back: plain sockets, no HTTP library that would mend them."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass

PATIENCE = 10.0  # seconds for an end that has to come; on a good day it takes none
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Heard:
    """All that came back on one connection: its statuses in order, and whether the server closed it in the end."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each response; those of 100 Continue as well."""
        return [int(status) for status in _STATUS.findall(self.data)]


def dial(port: int, *, patience: float = PATIENCE) -> socket.socket:
    """Open a connection on which each `sendall` leaves at once."""
    line = socket.create_connection(("127.0.0.1", port), patience)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def send(line: socket.socket, *pieces: bytes) -> int:
    """Send pieces one by one; return how many bytes were taken before the server cut the line."""
    taken = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        for piece in pieces:
            line.sendall(piece)
            taken += len(piece)
    return taken


def hear(line: socket.socket) -> Heard:
    """Read until the server closes, or patience ends."""
    data, closed = bytearray(), False
    with contextlib.suppress(TimeoutError):
        try:
            while piece := line.recv(65536):
                data += piece
            closed = True
        except ConnectionError:
            closed = True
    return Heard(bytes(data), closed)


def talk(port: int, *pieces: bytes, patience: float = PATIENCE) -> Heard:
    """Send pieces on a connection of their own, and hear all that comes back."""
    with dial(port, patience=patience) as line:
        send(line, *pieces)
        return hear(line)
