"""What the head of a reply tells a developer: which turn this is, who answers, and what took how long.

Built once a turn, when the head leaves, of what is known by then. No key, no session and no host of a model is in it.
"""

from __future__ import annotations

from functools import lru_cache

from .. import clock
from ..turn import Turn

MAX_NAME = 100  # signs of a model's name


def told(turn: Turn) -> dict[str, str]:
    """Return the headers of a turn's reply that is about to leave.

    `x-firstword-model` is who has spoken, else who was asked last; `x-firstword-attempts` how many requests to models
    there were so far. `server-timing` has milliseconds, as its standard wants (https://www.w3.org/TR/server-timing/).
    """
    asked = turn.asked if turn.asked_at is not None else ()
    headers = {
        "x-request-id": turn.id,
        "x-firstword-attempts": str(len(asked)),
        "server-timing": _timing(turn),
    }
    if asked:
        headers["x-firstword-model"] = in_a_header(turn.answered_by or asked[-1])
    return headers


def lines(turn: Turn) -> bytes:
    """Return the same as the lines of a head."""
    return "".join([f"{name}: {value}\r\n" for name, value in told(turn).items()]).encode("latin-1")


def pairs(turn: Turn) -> list[tuple[bytes, bytes]]:
    """Return the same as ASGI has it."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told(turn).items()]


def _timing(turn: Turn) -> str:
    """Return what took how long: the gate, reading the body, whatever comes before the model, and its first word."""
    timeline, now = turn.timeline, clock.now()
    received = timeline.received
    admitted = received if timeline.admitted is None else timeline.admitted
    prepared = admitted if timeline.prepared is None else timeline.prepared
    whole = f"gate;dur={(admitted - received) * 1e3:.2f}, read;dur={(prepared - admitted) * 1e3:.2f}"
    asked = turn.asked_at
    if asked is not None:
        spoke = now if timeline.spoke is None else timeline.spoke
        whole += f", ask;dur={(asked - prepared) * 1e3:.2f}, model;dur={(spoke - asked) * 1e3:.2f}"
    return f"{whole}, total;dur={(now - received) * 1e3:.2f}"


def in_a_header(name: str) -> str:
    """Return a model's name as a header can carry it: without a list of models it is whatever the caller wrote."""
    return _plain(str(name)[:MAX_NAME])


@lru_cache(maxsize=256)
def _plain(name: str) -> str:
    return "".join(sign if " " <= sign <= "~" else "?" for sign in name).strip() or "?"
