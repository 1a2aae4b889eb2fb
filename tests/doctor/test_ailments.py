"""A server with one fault, and the doctor finds it and nothing else; a server without one, and it finds nothing."""

from __future__ import annotations

import pytest
from ailments import FAULTS
from sick import KEY, Fault, Sick, well

from firstword.doctor import CHECKS, Level, Patient, chosen, cost, examine

# A server on this machine is on this machine.
ALWAYS = {"private-address"}


async def names(server: Sick, only: str = "") -> list[str]:
    """Return the faults that are found."""
    patient = Patient(server.url, key=KEY, model="m1", timeout=3.0)
    found = await examine(patient, chosen([only] if only else []))
    return [each.fault.name for each in found.findings if each.fault and each.fault.name not in ALWAYS]


async def test_a_server_in_order_has_no_fault() -> None:
    """The server of these tests itself: nothing but what is seen of any server on this machine."""
    async with Sick(well) as server:
        found = await examine(Patient(server.url, key=KEY, model="m1"))

    assert [each for each in found.findings if each.level not in (Level.OK, Level.ADVICE)] == []
    assert [each.fault.name for each in found.findings if each.fault] == ["private-address"]
    assert (found.code, found.reached) == (0, True)
    assert found.requests == len(server.requests) == cost(CHECKS)


@pytest.mark.parametrize(("name", "fault", "only"), FAULTS, ids=[name for name, _, _ in FAULTS])
async def test_a_server_with_one_fault_has_that_one(name: str, fault: Fault, only: str) -> None:
    """Each row of the table of faults is played by a server that has it and is in order otherwise."""
    async with Sick(fault) as server:
        assert await names(server, only) == [name]
