"""What the head of a reply tells a developer: which turn this is, who answers, and what took how long.

Built once a turn, when the head leaves, of what is known by then. No key, no session and no host of a model is in it.
"""

from __future__ import annotations

from functools import lru_cache

from .. import clock
from ..turn import Turn

MAX_NAME = 100  # signs of a model's name


def lines(turn: Turn) -> str:
    """Return the lines of the head that tell of a turn whose reply is about to leave, each with its line break.

    `x-firstword-model` is who has spoken, else who was asked last; `x-firstword-attempts` how many requests to models
    there were so far. `server-timing` has milliseconds, as its standard wants (https://www.w3.org/TR/server-timing/):
    the gate, reading the body, whatever comes before the model, the model's first word, and all of it.
    """
    timeline, now = turn.timeline, clock.now()
    received = timeline.received
    admitted = received if timeline.admitted is None else timeline.admitted
    prepared = admitted if timeline.prepared is None else timeline.prepared
    gate, read, total = (admitted - received) * 1e3, (prepared - admitted) * 1e3, (now - received) * 1e3
    asked = turn.asked_at
    if asked is None or not turn.asked:
        return (
            f"x-request-id: {turn.id}\r\nx-firstword-attempts: 0\r\n"
            f"server-timing: gate;dur={gate:.2f}, read;dur={read:.2f}, total;dur={total:.2f}\r\n"
        )
    name = in_a_header((turn.attempts and turn.answered_by) or turn.asked[-1])
    spoke = now if timeline.spoke is None else timeline.spoke
    ask, model = (asked - prepared) * 1e3, (spoke - asked) * 1e3
    return (
        f"x-request-id: {turn.id}\r\nx-firstword-attempts: {len(turn.asked)}\r\nx-firstword-model: {name}\r\n"
        f"server-timing: gate;dur={gate:.2f}, read;dur={read:.2f}, ask;dur={ask:.2f}, model;dur={model:.2f}, "
        f"total;dur={total:.2f}\r\n"
    )


def told(turn: Turn) -> dict[str, str]:
    """Return the same by name."""
    return dict(line.split(": ", 1) for line in lines(turn).split("\r\n")[:-1])


def pairs(turn: Turn) -> list[tuple[bytes, bytes]]:
    """Return the same as ASGI has it."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told(turn).items()]


def in_a_header(name: str) -> str:
    """Return a model's name as a header can carry it: without a list of models it is whatever the caller wrote."""
    return _plain(str(name)[:MAX_NAME])


@lru_cache(maxsize=256)
def _plain(name: str) -> str:
    return "".join(sign if " " <= sign <= "~" else "?" for sign in name).strip() or "?"
