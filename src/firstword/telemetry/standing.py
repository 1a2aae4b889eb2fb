"""What others keep, as a tally takes it: connections, breakers and queues as they are now, refusals and cost so far."""

from __future__ import annotations

from collections.abc import Mapping

from .tally import Labels, Values, name_of

CONNECTIONS = ("idle", "in_use", "dialling")
STATES = ("closed", "half-open", "open")


def standing(hosts: Mapping[str, tuple[int, int, int]], states: Mapping[str, str], queue: Mapping[str, int]) -> Values:
    """Return it all. hosts: the connections to each, in the order of CONNECTIONS; states: of the models' breakers."""
    connections: dict[Labels, float] = {
        (host, state): count for host, counts in hosts.items() for state, count in zip(CONNECTIONS, counts, strict=True)
    }
    breaker: dict[Labels, float] = {
        (name_of(model), each): float(state == each) for model, state in states.items() for each in STATES
    }
    return {"connections": connections, "breaker": breaker, "queue": {(name,): count for name, count in queue.items()}}


def kept_elsewhere(
    *, gate: Mapping[str, int], limits: Mapping[str, int], cost: Mapping[str, int], lag: float, held: float
) -> Values:
    """Return what the gate and the limits count: refusals by reason and by limit, cost by model, in millionths.

    lag: seconds by which the event loop is late. held: those for which code has held it.
    """
    return {
        "gate_refused": {(name_of(reason),): count for reason, count in gate.items()},
        "limits_refused": {(name_of(limit),): count for limit, count in limits.items()},
        "cost": {(name_of(model),): millionths / 1_000_000 for model, millionths in cost.items()},
        "loop_lag_seconds": {(): lag},
        "loop_held_seconds": {(): held},
    }
