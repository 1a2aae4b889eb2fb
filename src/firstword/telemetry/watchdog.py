"""Says which code holds the event loop: while it does, all callers of this process hear nothing.

The loop gives signs of life. When none has come for a while, a thread looks at the loop's stack twice: the frames that
are there both times belong to who holds it. A loop that is only busy has others by then, and is a matter of
`firstword_loop_lag_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import NamedTuple

import msgspec

log = logging.getLogger("firstword")

EVERY = 0.25  # seconds from one sign of life to the next, and between two looks whether there was one
AFTER = 0.5  # seconds without one, after which somebody may hold the loop
BETWEEN = 0.2  # seconds between the two looks at who: what holds it for a second is surely seen
PAUSE = 0.75  # seconds by which the thread that looks may be late itself
AGAIN = 60.0  # seconds in which a place is not told of again
_OURS = f"{Path(__file__).parent.parent}{os.sep}"
_LIBRARIES = (
    "<",
    str(Path(msgspec.__file__).parent.parent),  # packages may have been installed anywhere
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)


class Place(NamedTuple):
    """A line of code, as "custom_llm.py:12", and the name of the function that it is in."""

    line: str
    function: str


STILL = Place("", "")  # where nothing could be seen


class Watchdog:
    """Watches the loop that it is made in, until it is closed.

    seconds: for which the loop was held, so far, a second or more at a time.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._runs_in = threading.get_ident()
        self._below = 0  # frames that are below whatever the loop calls
        self._beaten = monotonic()  # when the loop gave its last sign of life
        self._beats = self._loop.call_later(0, self._beat)
        self._is_over = False
        self._told: dict[Place, float] = {}  # when
        threading.Thread(target=self._watch, name="firstword-watchdog", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._is_over = True
        self._beats.cancel()

    def _beat(self) -> None:
        """Give a sign of life, over and over."""
        self._beaten = monotonic()
        self._below = self._below or len(stack(sys._getframe(1)))
        self._beats = self._loop.call_later(EVERY, self._beat)

    def _watch(self) -> None:
        """Look for signs, in a thread."""
        while self._rest(EVERY):
            beaten = self._beaten
            if monotonic() - beaten > AFTER:
                place = self._look(beaten)
                if place is not None:
                    self._tell(place, beaten)

    def _rest(self, seconds: float) -> bool:
        """Do nothing for so long. False when there is nothing to watch any more."""
        began = monotonic()
        sleep(seconds)
        late = monotonic() - began - seconds
        if late > PAUSE:  # not the loop alone: nothing here has run
            self.seconds += late
            self._beaten = monotonic()
            if self._is_new(STILL):
                log.warning(
                    "event loop stood still seconds=%.1f hint: a call into C lets no thread run, or the machine froze",
                    late,
                )
        return not (self._is_over or self._loop.is_closed())

    def _look(self, beaten: float) -> Place | None:
        """Return which code holds the loop; None when none does after all, or nobody knows."""
        first = self._called()
        if not self._rest(BETWEEN) or self._beaten != beaten or not (self._below and self._loop.is_running()):
            return None
        # A frame is the same one only while the other is kept.
        both = [one for one, other in zip(first, self._called(), strict=False) if one is other]
        return place_of(both) if both else None

    def _called(self) -> list[FrameType]:
        """Return the frames of what the loop has called, the innermost last."""
        frame = sys._current_frames().get(self._runs_in)
        return [] if frame is None else stack(frame)[self._below :]

    def _tell(self, place: Place, beaten: float) -> None:
        """Say who holds the loop, and for how long, when it is over."""
        said = f"in={place.function} at={place.line}"
        is_new = self._is_new(place)
        if is_new:
            log.warning(
                "event loop held %s seconds=%.1f hint: nobody is answered meanwhile; "
                "write a plain def, which runs in a thread, or await what it waits for",
                said,
                monotonic() - beaten,
            )
        before, seconds = self.seconds, 0.0
        while self._beaten == beaten:  # it is counted while it lasts: it may last until the process is killed
            seconds = monotonic() - beaten
            self.seconds = before + seconds
            if not self._rest(EVERY):
                return
        if is_new:
            log.warning("event loop goes on %s seconds=%.1f", said, seconds)

    def _is_new(self, place: Place) -> bool:
        """True when a place was not told of lately."""
        now = monotonic()
        if now - self._told.get(place, -AGAIN) < AGAIN:
            return False
        self._told[place] = now
        return True


def stack(frame: FrameType | None) -> list[FrameType]:
    """Return a frame and those that led to it, the innermost last."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def place_of(frames: Sequence[FrameType]) -> Place:
    """Return the line of code to look at: the user's innermost behind our last one.

    Where that is a library only, it is the library's first line; where nothing is behind ours, it is ours.
    """
    last = max((at for at, frame in enumerate(frames) if _file(frame).startswith(_OURS)), default=-1)
    behind = frames[last + 1 :]
    users = [frame for frame in behind if not _file(frame).startswith(_LIBRARIES)]
    frame = users[-1] if users else behind[0] if behind else frames[-1]
    return Place(f"{Path(_file(frame)).name}:{frame.f_lineno}", frame.f_code.co_name)


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename
