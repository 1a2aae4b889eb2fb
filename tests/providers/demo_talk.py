"""Ask the demo model and hear it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from firstword.providers.demo import provider

LINE = "This is the demo model of firstword; name another model to hear a real one."


@dataclass
class Heard:
    """What a caller got."""

    chunks: list[dict[str, Any]]
    waits: list[float]

    def text(self, index: int = 0) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas(index))

    def deltas(self, index: int = 0) -> list[dict[str, Any]]:
        return [choice["delta"] for choice in self.choices(index)]

    def choices(self, index: int = 0) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in chunk["choices"] if choice["index"] == index]

    @property
    def finish(self) -> str:
        return str(self.choices()[-1]["finish_reason"])

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """Each call as its name and its decoded arguments."""
        calls = [call for delta in self.deltas() for call in delta.get("tool_calls", [])]
        return [(call["function"]["name"], msgspec.json.decode(call["function"]["arguments"])) for call in calls]


def ask(said: Any, **fields: Any) -> Heard:
    """Ask the demo model; `said` is the user's content or a whole list of messages."""
    whole = isinstance(said, list) and said and isinstance(said[0], Mapping) and "role" in said[0]
    messages = said if whole else [{"role": "user", "content": said}]
    played = list(provider.answer({"messages": messages, **fields}, id="chatcmpl-1234", created=7))
    return Heard([chunk for _, chunk in played], [wait for wait, _ in played])
