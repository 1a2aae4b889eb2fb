"""What Agora's engine tells afterwards, by webhook: its events, who signed them, and the times of turns in them.

Pure. Sources: Agora, "Notification event types" (the body, and what an event's payload holds) and "Webhooks" (the
signature). A kind of event that is not known here is an event all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import BadRequest

SIGNATURE = "agora-signature-v2"
MAX_TURNS = 10_000  # of one event; Agora itself cuts them off (`is_truncated`) at a number that it does not tell
MAX_PARTS = 40  # of one turn
LONGEST = 3600.0  # seconds; what took longer is no latency, but a mistake

# By their numbers, in Agora's own words with a line between them.
NAMES = {
    101: "agent_joined",
    102: "agent_left",
    103: "agent_history",
    104: "agent_expire",
    110: "agent_error",
    111: "agent_metrics",
    112: "turns_finished",
    201: "inbound_call_state",
    202: "outbound_call_state",
}
FAILED, METRICS, TURNS = 110, 111, 112
WHOLE = "e2e"  # what we call the time of all parts together, which only 112 has

_is_signature = re.compile(r"[0-9a-f]{64}").fullmatch
_is_part = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Heard:
    """One turn as the engine heard it: its number, and how long each part took, in seconds, by the engine's names.

    id: ours of the same turn, as the log has it, and first_word: what it says there; None when it was not answered by
    this process, or too long ago.
    """

    number: int
    latencies: Mapping[str, float]
    id: str | None = None
    first_word: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the engine. `kind` is its number, and `name` a word for it; `payload` is all that it tells.

    id: the same for an event that is sent again. at: when it was sent, in seconds since 1970. turns: the times that a
    111 or 112 tells, with what we know of the same turns. What was not told is None.
    """

    kind: int
    name: str
    payload: Mapping[str, Any] = field(repr=False)  # a 103 holds what people said
    id: str | None = None
    at: float | None = None
    agent: str | None = None
    channel: str | None = None
    turns: tuple[Heard, ...] = ()


def may_be_signed(signature: str) -> bool:
    """True when this has the form of a signature: else the body need not be read at all."""
    return _is_signature(signature.lower()) is not None


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """True when `signature` is HMAC-SHA256 of the very bytes of `body`; compared in constant time."""
    right = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right.encode(), signature.lower().encode())


def read_event(body: bytes) -> Event:
    """Return the event in a body. Raises BadRequest when it holds none."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest("The event is not JSON.") from None
    kind = found.get("eventType") if isinstance(found, dict) else None
    if type(kind) is not int:
        raise BadRequest("The event has no number.", param="eventType")
    payload = found.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    sent = found.get("notifyMs")
    return Event(
        kind,
        NAMES.get(kind, "unknown"),
        payload,
        id=_text(found.get("noticeId")),
        at=sent / 1000 if type(sent) is int and 0 < sent < 1e15 else None,
        agent=_text(payload.get("agent_id")),
        channel=_text(payload.get("channel")) or _text(payload.get("channelName")),
        turns=tuple(_turns(kind, payload)),
    )


def _turns(kind: int, payload: Mapping[str, Any]) -> Iterable[Heard]:
    listed = payload.get({METRICS: "metrics", TURNS: "turns"}.get(kind, ""))
    for each in listed[:MAX_TURNS] if isinstance(listed, list) else ():
        number = each.get("turn_id") if isinstance(each, dict) else None
        if type(number) is int:
            yield Heard(number, _latencies(_parts_of_metrics(each) if kind == METRICS else _parts_of_turn(each)))


def _parts_of_metrics(turn: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """Return what 111 tells of a turn: the parts stand beside its number."""
    return ((name, value) for name, value in turn.items() if name != "turn_id")


def _parts_of_turn(turn: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """Return what 112 tells of a turn: the whole, and a list of parts."""
    metrics = turn.get("metrics")
    if not isinstance(metrics, dict):
        return
    yield WHOLE, metrics.get("e2e_latency_ms")
    listed = metrics.get("segmented_latency_ms")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            yield each.get("name"), each.get("latency")


def _latencies(parts: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Return the parts that have a name and a time, in seconds; the engine has milliseconds."""
    found: dict[str, float] = {}
    for name, value in parts:
        is_time = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST * 1000
        if is_time and isinstance(name, str) and _is_part(name) and len(found) < MAX_PARTS:
            found[name] = value / 1000
    return found


def _text(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) and value else None
