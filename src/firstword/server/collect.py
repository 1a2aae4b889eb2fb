"""Put the chunks of a streamed reply together into one `chat.completion`, unknown fields included. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..chunk import Chunk

# These name a thing; servers that repeat them in every delta mean the same one, not a longer name.
_SAID_ONCE = frozenset({"role", "id", "type", "name", "index"})


def completion(chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Return the whole reply as `stream: false` shows it."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for name, value in chunk.data.items():
            if name != "choices" and (value is not None or name not in whole):
                whole[name] = value
        for choice in chunk.data.get("choices") or ():
            index = choice.get("index") or 0
            into = choices.setdefault(index, {"index": index, "message": {}, "finish_reason": None})
            _merge(into["message"], choice.get("delta") or {})
            rest = {name: value for name, value in choice.items() if name not in ("index", "delta")}
            _merge(into, {name: value for name, value in rest.items() if name != "finish_reason"})
            into["finish_reason"] = rest.get("finish_reason") or into["finish_reason"]
    whole["object"] = "chat.completion"
    whole["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    return whole


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, **choice["message"]}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
        message["content"] = message["content"] or None
    return {**choice, "message": message}


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add one delta: strings and lists grow, objects are merged, anything else is replaced."""
    for name, value in delta.items():
        old = into.get(name)
        if value is None or old is None:
            into[name] = _copy(value) if value is not None else old
        elif isinstance(old, str) and isinstance(value, str):
            into[name] = value or old if name in _SAID_ONCE else old + value
        elif isinstance(old, list) and isinstance(value, list):
            _merge_items(old, value)
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        else:
            into[name] = value


def _merge_items(old: list[Any], new: list[Any]) -> None:
    """Add list items: those with an `index`, as tool calls have, go to the item of that index."""
    for item in new:
        same = None
        if isinstance(item, dict) and "index" in item:
            same = next((each for each in old if isinstance(each, dict) and each.get("index") == item["index"]), None)
        if same is not None:
            _merge(same, item)
        else:
            old.append(_copy(item))


def _copy(value: Any) -> Any:
    """Return a copy that can grow while the chunk that it came from stays as it is."""
    if isinstance(value, dict):
        return {name: _copy(each) for name, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value
