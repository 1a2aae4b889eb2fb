"""What one turn was like for who listened: when each thing happened, how much came, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import clock

DIGITS = 3  # of a second that are shown


@dataclass(slots=True)
class Marks:
    """One turn. Times are seconds since its request was sent; None = it did not happen.

    said: the user's words. text: what the server sent to be spoken. heard: how much of it was.
    connect: how long the connection took, 0 for one that was kept. first_byte: the response's head.
    first_event, first_word, first_sentence: of the text. longest_gap: between two pieces of it. total: the reply ended.
    held_on: the user wanted to interrupt, and the reply was not interruptable.
    requests: more than one when tools of the engine were called. audio: seconds of sound. filler: the engine's own.
    error, hint: why there was no whole answer. faults: what a strict engine stumbles over.
    """

    turn: int = 0
    said: str = ""
    source: str = "asr"
    text: str = ""
    heard: str = ""
    status: int = 0
    requests: int = 0
    connect: float | None = None
    first_byte: float | None = None
    first_event: float | None = None
    first_word: float | None = None
    first_sentence: float | None = None
    longest_gap: float | None = None
    total: float | None = None
    chunks: int = 0
    finish_reason: str | None = None
    done: bool = False
    interrupted: bool = False
    interrupted_at: float | None = None
    interruptable: bool = True
    held_on: bool = False
    filler: str | None = None
    audio: float = 0.0
    tts_params: dict[str, Any] | None = None
    tools: list[str] = field(default_factory=list)
    error: str | None = None
    hint: str | None = None
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        """Note once what a strict engine stumbles over."""
        if what not in self.faults:
            self.faults.append(what)

    def fail(self, error: str, hint: str | None = None) -> None:
        """Note why there is no whole answer; the first reason counts."""
        if self.error is None:
            self.error, self.hint = error, hint

    @property
    def failed(self) -> bool:
        """True when the answer did not come, or not whole."""
        return self.error is not None


class Stopwatch:
    """Tells the seconds since it was made."""

    def __init__(self) -> None:
        self._began = clock.now()

    def read(self) -> float:
        """Return the seconds, to a microsecond."""
        return round(clock.now() - self._began, 6)


def summary(turns: Sequence[Marks]) -> str:
    """Return the line at the end of a call: how long the first words took; empty without any."""
    waits = sorted(each.first_word for each in turns if each.first_word is not None)
    if not waits:
        return ""
    figures = (("p50", percentile(waits, 50)), ("p95", percentile(waits, 95)), ("max", waits[-1]))
    of = f"{len(waits)} turn{'s' if len(waits) > 1 else ''}"
    return f"first word of {of}: " + " · ".join(f"{name} {seconds:.{DIGITS}f} s" for name, seconds in figures)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value under which so many percent lie, one of the values itself (the nearest rank)."""
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]
