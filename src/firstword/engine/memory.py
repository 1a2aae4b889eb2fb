"""What the engine remembers of a call, and the request that it makes of it. Pure.

Source: Agora's short-term memory documentation. A message's `content` is what was spoken, `original` what was
generated, where these differ. Images are sent once and not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .setup import Setup

MESSAGE_FIELDS = ("turn_id", "timestamp", "metadata")

Json = dict[str, Any]


class Memory:
    """The messages of one call, oldest first, without the system's; `turn` is the number of the last turn."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.messages: list[Json] = []
        self.turn = 0

    def add(self, role: str, content: str, *, at: float, source: str, **metadata: Any) -> Json:
        """Remember one message of this turn, said `at` seconds since 1970, and return it."""
        marks = {"source": source, **metadata}
        message = {"role": role, "content": content, "turn_id": self.turn, "timestamp": _milliseconds(at)}
        self.messages.append({**message, "metadata": marks})
        return self.messages[-1]

    def hear(self, words: str, *, at: float, source: str) -> Json:
        """Begin a turn with what a person said, blank when nothing was understood."""
        self.turn += 1
        who: Json = {"user": self._setup.user} | ({"vpids": self._setup.vpids} if self._setup.vpids else {})
        return self.add("user", words, at=at, source=source, **who)

    def called(self, content: str | None, calls: Sequence[Json]) -> None:
        """Remember that the model called tools of the engine, and what they gave back."""
        self.messages.append({"role": "assistant", "content": content or None, "tool_calls": list(calls)})
        for call in calls:
            result = self._setup.results.get(call["function"]["name"], "{}")
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    def request(self, *, images: Sequence[str] = (), spoken: str | None = None, at: float) -> Json:
        """Return the body of the next request.

        images: URLs that go out with the last message. spoken: text that the server is to synthesise, as the last
        message. at: when, in seconds since 1970, if no message tells.
        """
        setup = self._setup
        kept = list(self.messages[-setup.max_history :]) if setup.max_history else []
        while kept and kept[0]["role"] == "tool":  # half an exchange would be refused
            del kept[0]
        if images and kept:
            kept[-1] = {**kept[-1], "content": self._parts(kept[-1]["content"], images)}
        if spoken is not None:
            kept.append({"role": "assistant", "content": spoken})
        if not setup.is_custom:
            kept = [{name: value for name, value in each.items() if name not in MESSAGE_FIELDS} for each in kept]
        body: Json = {**setup.params, "stream": True}
        if setup.output_modalities != ["text"]:
            body["modalities"] = setup.output_modalities
        if setup.presence:
            body["context"] = {"presence": setup.presence}
        if setup.tools:
            body["tools"] = setup.tools
        if setup.is_custom:
            times = [each["timestamp"] for each in kept if "timestamp" in each]
            body |= {"turn_id": self.turn, "timestamp": times[-1] if times else _milliseconds(at)}
            body["interruptable"] = True
        return {**body, "messages": [*setup.system_messages, *kept]}

    def _parts(self, words: str, images: Sequence[str]) -> list[Json]:
        said: list[Json] = [{"type": "text", "text": words}] if words else []
        if self._setup.image_form == "agora":
            return [*said, *({"type": "image", "image_url": url} for url in images)]
        return [*said, *({"type": "image_url", "image_url": {"url": url}} for url in images)]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
