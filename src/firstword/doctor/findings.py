"""What a doctor says: a fault that can be found, the finding of one, and the check that looks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from .patient import Patient


class Level(str, Enum):
    """How bad a finding is; the worst comes last."""

    SKIPPED = "skipped"  # it could not be told, and the finding says why
    OK = "ok"
    ADVICE = "advice"  # nothing breaks; it could be better
    WARNING = "warning"  # some engines, some clients or some turns break
    ERROR = "error"  # the caller hears silence, or a client fails

    def __str__(self) -> str:
        return self.value


ORDER = tuple(Level)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that may be wrong with a server: in one line, why that matters, and how it is mended."""

    name: str
    level: Level
    says: str
    why: str
    mend: str

    def seen(self, what: str = "") -> Finding:
        """Return the finding of this fault; `what` is what was seen, in short."""
        return Finding(self.level, what, self)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to. `also` are further checks in which the same fault was seen."""

    level: Level
    seen: str = ""
    fault: Fault | None = None
    check: str = ""
    also: tuple[str, ...] = ()


def ok(seen: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(Level.OK, seen)


def skipped(why: str) -> Finding:
    """Return the finding that nothing can be said."""
    return Finding(Level.SKIPPED, why)


Run = Callable[[Patient], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One look at a server: what it tries, how many requests that takes, and what it may find.

    run: None for the one that comes before all others, and finds the server.
    is_quick: it belongs to the handful of `--quick`.
    is_alone: it measures times, or makes several calls at once, so nothing else runs beside it.
    """

    name: str
    tries: str
    run: Run | None = field(repr=False)
    faults: tuple[Fault, ...] = ()
    requests: int = 1
    is_quick: bool = False
    is_alone: bool = False


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with each fault once, where it was seen first; a check that says nothing else says `ok` once.

    The same fault in twenty requests is one thing to mend.
    """
    kept: dict[object, Finding] = {}
    for finding in findings:
        key: object = finding.fault.name if finding.fault else (finding.check, finding.level, finding.seen)
        first = kept.get(key)
        if first is None:
            kept[key] = finding
        elif finding.check not in (first.check, *first.also):
            kept[key] = replace(first, also=(*first.also, finding.check))
    return list(kept.values())


def worst(findings: Sequence[Finding]) -> Level:
    """Return the worst level among findings."""
    return max((finding.level for finding in findings), key=ORDER.index, default=Level.OK)
