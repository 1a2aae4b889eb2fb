"""What is true only now, as a tally takes it: connections, breakers, queues."""

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
