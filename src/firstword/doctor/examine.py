"""The tour: reach the server, then make the checks, a few at a time, and tell each finding as it comes."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import calling, form_checks, mistakes, pace, reach, shapes
from .findings import Check, Finding, Level, merged, worst
from .patient import Patient

AT_ONCE = 3  # checks
CHECKS: tuple[Check, ...] = (
    reach.CHECK,
    *form_checks.CHECKS,
    *mistakes.CHECKS[:3],
    *shapes.CHECKS,
    *mistakes.CHECKS[3:],
    *pace.CHECKS,
    *calling.CHECKS,
)


@dataclass
class Examination:
    """All that was found at one server. `reached` says whether there is a custom LLM at all."""

    url: str
    reached: bool = False
    requests: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code: 0 without errors, 1 with some, 2 when nothing could be examined."""
        if not self.reached:
            return 2
        return 1 if worst(self.findings) is Level.ERROR else 0

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level is level for finding in self.findings)


def chosen(names: Iterable[str] = (), *, is_quick: bool = False) -> list[Check]:
    """Return the checks of these names, all without names, or the quick ones; reaching comes first in any case.

    Raises ValueError that names what is unknown.
    """
    wanted = set(names)
    if unknown := wanted - {check.name for check in CHECKS}:
        name = sorted(unknown)[0]
        near = difflib.get_close_matches(name, [check.name for check in CHECKS], 1)
        hint = f"did you mean {near[0]}?" if near else "firstword check --list names them"
        raise ValueError(f"There is no check {name!r}.\nhint: {hint}")
    kept = [check for check in CHECKS if (check.name in wanted or not wanted) and (check.is_quick or not is_quick)]
    return [reach.CHECK, *(check for check in kept if check is not reach.CHECK)]


def cost(checks: Sequence[Check]) -> int:
    """Return how many requests the checks make."""
    return sum(check.requests for check in checks)


async def examine(
    patient: Patient,
    checks: Sequence[Check] | None = None,
    *,
    is_insecure: bool = False,
    progress: Callable[[Check], None] | None = None,
) -> Examination:
    """Examine one server, and return what was found, each fault once. `progress` is told each check that is over."""
    examination = Examination(patient.shown)
    checks = chosen() if checks is None else checks
    reached = await reach.reach(patient, is_insecure=is_insecure)
    found = [replace(finding, check=reach.CHECK.name) for finding in reached.findings]
    examination.reached, examination.requests = reached.is_found, reached.requests
    if progress:
        progress(reach.CHECK)
    if reached.patient is not None:
        patient = reached.patient
        rest = [check for check in checks if check is not reach.CHECK]
        for findings in await _all(patient, rest, progress):
            found += findings
        examination.requests += cost(rest)
    examination.findings = merged(found)
    return examination


async def _all(
    patient: Patient, checks: Sequence[Check], progress: Callable[[Check], None] | None
) -> list[list[Finding]]:
    """Make the checks that need no quiet a few at a time, then the others one by one; return the findings in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def make(check: Check) -> list[Finding]:
        assert check.run is not None
        async with gate:
            found = await check.run(patient)
        if progress:
            progress(check)
        return [replace(finding, check=check.name) for finding in found]

    results: dict[str, list[Finding]] = {}
    beside = [check for check in checks if not check.is_alone]
    await _gather([_keep(make, check, results) for check in beside])
    for check in checks:
        if check.is_alone:
            results[check.name] = await make(check)
    return [results[check.name] for check in checks]


async def _keep(
    make: Callable[[Check], Awaitable[list[Finding]]], check: Check, results: dict[str, list[Finding]]
) -> None:
    results[check.name] = await make(check)


async def _gather(calls: Sequence[Awaitable[None]]) -> None:
    """Await all; when one fails, or we are cancelled, none is left running."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
