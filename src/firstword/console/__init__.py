"""The console: the last turns of this process on a page, for whoever runs the server. It shows and changes nothing.

The page itself holds nothing and is open to all; what it shows is asked for with the operator's key. Of a turn there is
what the log says of it: when, how long, who answered and how it ended, and no word that anybody said.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEPT = 200  # turns; a screen shows thirty
PAGE = Path(__file__).with_name("page.html")


class Console:
    """The last turns. `note` takes each one that is over; `data` is what the page asks for."""

    def __init__(self) -> None:
        self._turns: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._count = 0
        self._began = time.time()

    def note(self, fields: Mapping[str, Any]) -> None:
        """Keep what is known of a turn that is over."""
        self._count += 1
        self._turns.append({**fields, "number": self._count, "at": time.time()})

    def data(self, states: Mapping[str, str]) -> dict[str, Any]:
        """Return the last turns, the newest first, and the `states` of models by name. Times are Unix seconds."""
        return {
            "process": os.getpid(),
            "began": self._began,
            "now": time.time(),
            "count": self._count,
            "models": dict(states),
            "turns": list(reversed(self._turns)),
        }


def page() -> tuple[bytes, dict[str, str]]:
    """Return the page, and the headers that let its own script and style run and nothing else."""
    text = PAGE.read_text("utf-8")
    allowed = {kind: _digest(text, tag) for kind, tag in (("script-src", "script"), ("style-src", "style"))}
    policy = "; ".join(f"{kind} '{digest}'" for kind, digest in allowed.items())
    headers = {
        "content-security-policy": f"default-src 'none'; {policy}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return text.encode(), headers


def _digest(text: str, tag: str) -> str:
    """Return the digest of what stands in the one element of this name, as a content security policy names it."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert found is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
