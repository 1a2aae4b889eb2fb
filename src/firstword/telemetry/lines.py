"""The line that each turn leaves in the log: what it was, how it ended, who was asked, and what took how long.

For people it is one short sentence of fields, made at a price that a plain turn does not notice; for programs the same
record carries them all as `fields`. What people said, and who they are, is in neither, but for names, on request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from ..turn import Turn
from ..used import tokens_in

log = logging.getLogger("firstword")

LINE = "turn ended id=%s status=%d outcome=%s first_word=%.4f seconds=%.4f%s"
MAX_NAME = 100  # signs of a model's name in the log
NEVER = -1.0  # stands for the time of what did not happen
_sane = re.compile(r"[A-Za-z0-9._:\-]{1,64}").fullmatch  # a name that a proxy gives a request

Fields = dict[str, Any]


class Lines:
    """Writes the line of each turn. `as_json`: its record carries all that is known, for a formatter that writes it.

    redact: what the names of session, user and channel go through before they are written; None: they are not.
    """

    def __init__(self, *, as_json: bool = False, redact: Callable[[str], str] | None = None) -> None:
        self._as_json = as_json
        self._redact = redact

    def write(self, turn: Turn, status: int, outcome: str) -> None:
        """Write the line of a turn that is over. status: of the reply; 0 when none has begun."""
        level = logging.INFO if turn.error is None or turn.again == "superseded" else logging.WARNING
        if not log.isEnabledFor(level):
            return
        timeline = turn.timeline
        received = timeline.received
        spoke = NEVER if timeline.spoke is None else timeline.spoke - received
        more = _times(turn) if turn.is_plain else _times(turn) + _more(turn)
        if self._redact is not None or turn.trace is not None or turn.grant.name or "x-request-id" in turn.headers:
            more += "".join(f" {name}={one_word(text)}" for name, text in self._whose(turn).items())
        if turn.cost is not None:
            more += f" cost={turn.cost:f}"
        outcome = outcome if turn.error is None else one_word(outcome)  # a provider makes up codes
        facts = (turn.id, status, outcome, spoke, (timeline.ended or received) - received, more)
        # Made by hand: to look up which line of which file logs, as `log.log` does, costs as much as all the rest.
        record = log.makeRecord(log.name, level, "", 0, LINE, facts, None)
        if self._as_json:
            record.fields = self.fields(turn, status, outcome)
        log.handle(record)

    def _whose(self, turn: Turn) -> dict[str, str]:
        """Return whose turn it was: the names of client, request and trace, and of the caller where that is wanted."""
        found = {"client": turn.grant.name, "request": "", "trace": turn.trace.id if turn.trace is not None else ""}
        name = turn.headers.get("x-request-id", "")
        if _sane(name):
            found["request"] = name
        if self._redact is not None:
            whose = {"session": turn.session, "user": turn.user, "channel": turn.channel}
            found.update({kind: self._redact(name) for kind, name in whose.items() if name})
        return {kind: text for kind, text in found.items() if text}

    def fields(self, turn: Turn, status: int, outcome: str) -> Fields:
        """Return everything that the log may say of a turn."""
        error = turn.error
        fields: Fields = {
            "message": "turn ended",
            "id": turn.id,
            "status": status,
            "outcome": outcome,
            "error": None if error is None else error.code or error.type,
            "host": None if error is None else error.detail or None,
            "platform": turn.platform,
            "stream": turn.stream,
            "model": (turn.answered_by or (turn.asked[-1] if turn.asked else ""))[:MAX_NAME] or None,
            "requests": len(turn.asked),
            "seconds": _seconds(turn),
            "attempts": [_attempt(turn, each) for each in turn.attempts],
            "tools": [
                {
                    "name": "" if each.outcome == "unknown" else each.name,  # else it is the model's own words
                    "outcome": each.outcome,
                    "seconds": round(each.seconds, 6),
                }
                for each in turn.called
            ],
            "input_tokens": tokens_in(turn.reply.usage, "prompt_tokens"),
            "output_tokens": tokens_in(turn.reply.usage, "completion_tokens"),
            "cost": None if turn.cost is None else float(turn.cost),
            "stalls": turn.stalls,
            "longest_gap": None if turn.longest_gap is None else round(turn.longest_gap, 6),
            "again": turn.again,
            "aloud": turn.aloud is not None,
            "filled": turn.filled,
            "apologised": turn.apologised,
            "truncated": turn.reply.truncated,
            **self._whose(turn),
        }
        return {name: value for name, value in fields.items() if value not in (None, "", False, []) or name == "status"}


def _times(turn: Turn) -> str:
    """Return when the other things happened, in seconds since the request's head was read."""
    timeline = turn.timeline
    received, at = timeline.received, turn.asked_at
    gate = NEVER if timeline.admitted is None else timeline.admitted - received
    read = NEVER if timeline.prepared is None else timeline.prepared - received
    asked = NEVER if at is None else at - received
    answered = NEVER if timeline.answered is None else timeline.answered - received
    sent = NEVER if timeline.sent is None else timeline.sent - received
    return f" gate={gate:.4f} read={read:.4f} ask={asked:.4f} head={answered:.4f} sent={sent:.4f}"


def _seconds(turn: Turn) -> dict[str, float]:
    """Return the same for programs."""
    timeline = turn.timeline
    marks = {
        "gate": timeline.admitted,
        "read": timeline.prepared,
        "asked": turn.asked_at,
        "answered": timeline.answered,
        "first_word": timeline.spoke,
        "sent": timeline.sent,
        "heard": timeline.heard,
        "replied": timeline.replied,
        "sentence": timeline.sentence,
        "whole": timeline.ended,
    }
    return {name: round(at - timeline.received, 6) for name, at in marks.items() if at is not None}


def _attempt(turn: Turn, attempt: Any) -> Fields:
    received = turn.timeline.received
    marks = {"asked": attempt.asked, "first_word": attempt.spoke, "ended": attempt.ended}
    return {
        "model": attempt.model[:MAX_NAME],
        "why": attempt.why,
        "outcome": attempt.outcome,
        **({"error": attempt.error} if attempt.error else {}),
        **{name: round(at - received, 6) for name, at in marks.items() if at is not None},
    }


def _more(turn: Turn) -> str:
    """Return what else the log says of a turn that was not plain: who was asked, what was said by us, what failed."""
    facts = [f"asked={','.join(one_word(attempt.model) for attempt in turn.attempts)}"] if turn.attempts else []
    facts += [f"model={one_word(turn.answered_by)}"] if turn.answered_by else []
    facts += [f"tools={len(turn.called)}"] if turn.called else []
    facts += ["aloud"] if turn.aloud is not None else []
    facts += [name for name in ("filled", "apologised") if getattr(turn, name)]
    facts += [turn.again] if turn.is_repeat else []
    facts += ["truncated"] if turn.reply.truncated else []
    facts += [f"stalls={turn.stalls}"] if turn.stalls else []
    facts += [f"host={turn.error.detail}"] if turn.error is not None and turn.error.detail else []
    return "".join(f" {fact}" for fact in facts)


def one_word(name: str) -> str:
    """Return a model's name as one word of a line: without a list of models it is whatever the caller wrote."""
    return "".join(sign if sign.isprintable() and sign not in " ,=" else "?" for sign in name[:MAX_NAME])
