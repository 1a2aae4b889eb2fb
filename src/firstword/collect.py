"""Put the chunks of a streamed reply together into one `chat.completion`, or any JSON object of its deltas. Pure.

Each part of a message is gathered first and joined once: adding word to word would cost the square of the reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .chunk import Chunk

# These name a thing; servers that repeat them in every delta mean the same one, not a longer name.
_SAID_ONCE = frozenset({"role", "id", "type", "name", "index", "finish_reason"})


def completion(chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Return the whole reply as `stream: false` shows it."""
    whole: dict[str, Any] = {}
    choices: dict[int, Growing] = {}
    for chunk in chunks:
        for name, value in chunk.data.items():
            if name != "choices" and (value is not None or name not in whole):
                whole[name] = value
        for choice in chunk.data.get("choices") or ():
            parts = {("message" if name == "delta" else name): value for name, value in choice.items()}
            choices.setdefault(choice.get("index") or 0, Growing()).add(parts)
    whole["object"] = "chat.completion"
    whole["choices"] = [_finished(index, choices[index].whole()) for index in sorted(choices)]
    return whole


def _finished(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, **(choice.get("message") or {})}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
        message["content"] = message["content"] or None
    return {"finish_reason": None, **choice, "index": index, "message": message}


class Growing:
    """A JSON object that grows by deltas."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def add(self, delta: dict[str, Any]) -> None:
        """Add one delta: strings and lists grow, objects are merged, anything else is replaced."""
        for name, value in delta.items():
            old = self._fields.get(name)
            if value is None:
                self._fields.setdefault(name, None)
            elif isinstance(value, dict):
                if not isinstance(old, Growing):
                    old = self._fields[name] = Growing()
                old.add(value)
            elif isinstance(value, list):
                if not isinstance(old, _List):
                    old = self._fields[name] = _List()
                old.add(value)
            elif isinstance(value, str) and name not in _SAID_ONCE:
                if not isinstance(old, _Text):
                    old = self._fields[name] = _Text()
                old.append(value)
            elif value != "" or old is None:
                self._fields[name] = value

    def whole(self) -> dict[str, Any]:
        """Return the object."""
        return {name: _whole(value) for name, value in self._fields.items()}


class _List:
    """A JSON list that grows; items with an `index`, as tool calls have, go to the item of that index."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._by_index: dict[Any, Growing] = {}

    def add(self, items: list[Any]) -> None:
        """Add the items of one delta."""
        for item in items:
            if isinstance(item, dict) and isinstance(item.get("index"), (int, str)):
                index = item["index"]
                if index not in self._by_index:
                    self._by_index[index] = Growing()
                    self._items.append(self._by_index[index])
                self._by_index[index].add(item)
            else:
                self._items.append(item)

    def whole(self) -> list[Any]:
        """Return the list."""
        return [_whole(item) for item in self._items]


class _Text(list[str]):
    """The pieces of a string."""


def _whole(value: Any) -> Any:
    if isinstance(value, (Growing, _List)):
        return value.whole()
    return "".join(value) if isinstance(value, _Text) else value
