"""How lines of the log are shaped and written: for people or for programs, each in one write, and none for ever.

A turn does not wait for its log. Where a full disk, a closed pipe or a reader that has stopped takes no line, it is
lost, and the next one that is taken says how many were.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import select
import stat
import sys
import time
from datetime import datetime, timezone
from typing import Any

import msgspec

JSON = "json"
PATIENCE = 0.01  # seconds that a reader who is a little behind gets; one who has stopped holds up nobody again
RARELY = 1.0  # seconds in which that is so once: one who is always behind would hold up every turn a little
PIECE = 4096  # bytes: of a write of so many to a pipe the whole arrives in one piece, or nothing (POSIX, PIPE_BUF)


class HumanLine(logging.Formatter):
    """The shape of uvicorn's own lines, made for a tenth of their price: a turn pays for one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `INFO:     what happened`."""
        if record.exc_info or record.stack_info:
            return f"{record.levelname + ':':<9} {super().format(record)}"
        return f"{record.levelname + ':':<9} {record.getMessage()}"


class JsonLine(logging.Formatter):
    """One JSON object a record, on one line: the record's `fields` if it has some, else its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in plain ASCII where any sign of it could break or colour a line."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        fields = getattr(record, "fields", None)
        line.update({"message": record.getMessage()} if fields is None else fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return as_json(line)


def as_json(value: Any) -> str:
    """Return a value as one line of JSON. Whatever is in it, there is no line break, no ANSI and no half character."""
    try:
        data = msgspec.json.encode(value)
        if data.isascii() and b"\x7f" not in data:
            return data.decode()
    except (TypeError, ValueError, RecursionError):
        pass
    return json.dumps(_cleaned(value)).replace("\x7f", "\\u007f")


def _cleaned(value: Any) -> Any:
    """Return a value that JSON can say: half characters, which no reader takes, are replaced; the unknown is text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_cleaned(str(name)): _cleaned(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(each) for each in value]
    if isinstance(value, float):
        return value if abs(value) <= sys.float_info.max else None
    return value if value is None or isinstance(value, (bool, int)) else _cleaned(str(value))


class Out(logging.Handler):
    """Writes each line to a stream (standard error) in one write, and waits for nobody. `lost` counts lines."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__()
        self.lost = 0
        self._stream = sys.stderr if stream is None else stream
        self._is_torn = False  # half a line was written
        self._file = _file_of(self._stream)
        self._impatient_until = 0.0
        self._room: Any = None
        if self._file is not None and hasattr(select, "poll") and not stat.S_ISREG(os.fstat(self._file).st_mode):
            self._room = select.poll()
            self._room.register(self._file, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Never raises."""
        try:
            line = self.format(record)
        except Exception as error:
            # Not what the record holds: that may be the very words that must not be shown.
            line = f"ERROR:    a line of the log could not be made logger={record.name} type={type(error).__name__}"
        if self.lost:
            lost = logging.LogRecord(
                "firstword", logging.WARNING, "", 0, "lines of the log were lost count=%d", (self.lost,), None
            )
            line = f"{self.format(lost)}\n{line}"
        if self._write(f"{line}\n"):
            self.lost = 0
        else:
            self.lost += 1

    def _write(self, text: str) -> bool:
        """Write a text; False when it was not taken, or not whole."""
        try:
            if self._file is None:
                self._stream.write(text)
                self._stream.flush()
                return True
            data = ("\n" * self._is_torn + text).encode("utf-8", "backslashreplace")
            while data:
                if self._room is not None and not self._has_room():
                    return False
                # At once where it fits; a longer one in pieces, each of which has room.
                written = os.write(self._file, data[:PIECE] if self._room is not None else data)
                data = data[written:]
                self._is_torn = bool(data)
            return True
        except (OSError, ValueError):
            return False

    def _has_room(self) -> bool:
        """True when a piece can be written at once, or after a little patience."""
        if self._room.poll(0):
            return True
        at = time.monotonic()
        if self.lost or at < self._impatient_until:
            return False
        self._impatient_until = at + RARELY
        return bool(self._room.poll(PATIENCE * 1e3))


def _file_of(stream: Any) -> int | None:
    """Return the file that a stream writes to; None for one that is no file, as under a test."""
    try:
        number = stream.fileno()
        os.fstat(number)
        return int(number)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def log_config(form: str, level: str) -> dict[str, Any]:
    """Return how the log is set up under our own server, as `logging.config` takes it: `form` is "human" or "json"."""
    from uvicorn.config import LOGGING_CONFIG

    config = copy.deepcopy(LOGGING_CONFIG)
    is_json = form == JSON
    config["formatters"]["firstword"] = {"()": JsonLine if is_json else HumanLine}
    config["handlers"]["firstword"] = {"()": Out, "formatter": "firstword"}
    config["handlers"]["default"] = {"()": Out, "formatter": "firstword" if is_json else "default"}
    config["loggers"]["firstword"] = {"handlers": ["firstword"], "level": level.upper(), "propagate": False}
    for name in ("uvicorn", "uvicorn.error"):
        config["loggers"][name]["level"] = level.upper()
    # The MCP SDK writes what a server said into its errors, OpenTelemetry the URL it sends to; ours say what happened.
    for name in ("mcp", "opentelemetry"):
        config["loggers"][name] = {"handlers": [], "level": "CRITICAL", "propagate": False}
    if is_json:
        config["root"] = {"handlers": ["firstword"], "level": "WARNING"}
    return config
