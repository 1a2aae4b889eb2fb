"""Events as Agora's engine sends them, after its documents, and signed; and somebody who sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from caller import Caller, Heard

SECRET = "webhook-secret"
PATH = "/webhooks/agora"
AGENT, CHANNEL = "A42AC47H", "room-7"


def event(kind: int, payload: Any = None, **more: Any) -> bytes:
    """Return the body of an event that is sent now; each has an id of its own unless one is given."""
    body = {"noticeId": f"2000001428:{time.monotonic_ns()}:107", "productId": 17, "eventType": kind}
    body |= {"notifyMs": int(time.time() * 1000), "sid": "C866467GVJJ54687"}
    about = {"agent_id": AGENT, "channel": CHANNEL, "start_ts": 1767000000, "stop_ts": 1767000600}
    return json.dumps({**body, "payload": about if payload is None else {**about, **payload}, **more}).encode()


def metrics(*turns: Any) -> bytes:
    """Return a 111: what its documents show."""
    return event(111, {"metrics": list(turns)})


def finished(*turns: Any) -> bytes:
    """Return a 112."""
    return event(112, {"total_turn_count": len(turns), "is_truncated": False, "turns": list(turns)})


def a_turn(number: int, e2e: Any = 1799, **parts: Any) -> dict[str, Any]:
    """Return a turn as 112 has it."""
    listed = [{"name": name, "latency": value} for name, value in parts.items()]
    return {
        "turn_id": number,
        "start": {"start_at": 1767000000000, "type": "voice_input"},
        "end": {"end_at": 1767000002000, "type": "ok"},
        "metrics": {"e2e_latency_ms": e2e, "segmented_latency_ms": listed},
    }


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def tell(caller: Caller, body: bytes, *, signature: str | None = None) -> Heard:
    """Send an event, signed as Agora does unless a signature is given."""
    headers = {"agora-signature-v2": sign(body) if signature is None else signature, "agora-signature": "0" * 40}
    return await caller.hears(body, path=PATH, headers=headers)
