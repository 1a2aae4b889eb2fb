"""Our own server before an ill model: what the doctor finds at the model, it does not find at the server."""

from __future__ import annotations

import pytest
from ailments import CALLS, CHUNKS, FORM
from served import Served
from sick import KEY, PATH, Fault, Sick, well

from firstword import App
from firstword.doctor import Patient, chosen, examine

# What passes as it came: what the model meant is not known, or it is the model's to say.
PASSES = {
    *("line-separator", "chunk-object", "chunk-changes", "choices-missing", "choices-empty", "content-type"),
    *("role-missing", "role-again", "finish-twice", "finish-unknown", "finish-erased", "usage-missing"),
    *("call-name", "call-arguments", "tool-not-called"),
}
# What is no reply, or half of one: the caller gets a status, an error event, or the apology.
FAILS = {
    *("compressed", "error-swallowed", "truncated", "stalled", "error-in-stream", "error-event-shape"),
    *("not-a-stream", "no-answer", "refuses-plain", "refuses-tools"),
}
HEALED = [(name, fault) for name, fault, _ in [*FORM, *CHUNKS, *CALLS] if name not in PASSES | FAILS]


@pytest.mark.timeout(120)
async def test_our_server_heals_what_can_be_healed() -> None:
    """Thirty ways in which a provider's stream is odd: the engine behind our server sees none of them."""
    async with Sick(well) as sick:
        served = Served(App(base_url=sick.url.removesuffix(PATH)))
        try:
            patient = Patient(f"{served.url}{PATH}", key=KEY, model="m1", timeout=10.0)
            found = {name: await left(patient, sick, fault) for name, fault in HEALED}
        finally:
            served.stop()
    assert len(found) > 25
    assert {name: faults for name, faults in found.items() if faults} == {}


async def left(patient: Patient, sick: Sick, fault: Fault) -> list[str]:
    """Return what the doctor finds at the server while the model has this fault."""
    sick.fault = fault
    found = await examine(patient, chosen(["form", "tool-call"]))
    return [each.fault.name for each in found.findings if each.fault and each.fault.name != "private-address"]
