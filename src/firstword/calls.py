"""The tool calls of one answer, however its provider streams them; the strict form they leave in; histories mended.

Pure. Providers leave out indexes and ids or give two calls the same ones, repeat names, send arguments whole or not at
all. What is given back from here has an id of its own, one name, and arguments that are a JSON object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from .chunk import Chunk
from .collect import Growing

MAX_CALLS = 32  # of one answer; what is called beyond is not heard
MAX_ARGUMENTS = 256 * 1024  # bytes of one call's
NOTHING = "{}"
INTERRUPTED = "The call was interrupted before it had a result."

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. `item` is how it stands in a message, with whatever its provider wants to see again.

    arguments: the JSON object; None when there is none, and `fault` says why, for the model.
    """

    id: str
    name: str
    arguments: Json | None
    fault: str | None
    item: Json


class Calls:
    """Collects the calls of one answer from its deltas. `taken` are ids that calls had already; none has one twice."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = set() if taken is None else taken
        self._calls: list[Begun] = []
        self._by_index: dict[int | str, Begun] = {}
        self._by_id: dict[str, Begun] = {}
        self._last: Begun | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, position: int) -> Begun:
        return self._calls[position]

    def add(self, delta: Mapping[str, Any]) -> None:
        """Take one delta: its `tool_calls`, or the `function_call` of older servers."""
        items = delta.get("tool_calls")
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, dict):
                self._add(item)
        if isinstance(delta.get("function_call"), dict):
            self._add({"function": delta["function_call"]})

    def whole(self) -> list[Call]:
        """Return the calls in the order in which they began; ask once."""
        calls = []
        for begun in self._calls:
            if begun.id is None or begun.id in self._taken:
                begun.id = new_id()
            self._taken.add(begun.id)
            calls.append(begun.whole())
        return calls

    def _add(self, item: Json) -> None:
        function = item["function"] if isinstance(item.get("function"), dict) else item
        index = item.get("index")
        index = index if isinstance(index, (int, str)) else None
        id = item.get("id")
        id = str(id) if isinstance(id, (int, str)) and str(id).strip() else None
        name = function.get("name")
        name = name if isinstance(name, str) and name.strip() else None
        call = self._find(index, id, name, function.get("arguments"))
        if call is None:
            call = Begun(index)
            if len(self._calls) < MAX_CALLS:
                self._calls.append(call)
        if call.id is None and id not in self._by_id:
            call.id = id
        call.name = call.name or name
        call.add(item, function)
        self._last = call
        if index is not None:
            self._by_index[index] = call
        if id is not None:
            self._by_id.setdefault(id, call)

    def _find(self, index: int | str | None, id: str | None, name: str | None, arguments: Any) -> Begun | None:
        """Return the call that a piece belongs to; None when it begins another.

        An id decides, then the index, then the order. A name begins a call, unless it is said again over arguments
        that are not whole yet.
        """
        known = None if id is None else self._by_id.get(id)
        if known is not None:
            is_other = name is not None and None not in (index, known.index) and index != known.index
            return None if is_other else known
        if index is None:
            call = self._last
        else:
            call = self._by_index.get(index)
            if call is None and name is None and id is None:
                return self._last  # some count pieces where calls are meant
        if call is None or name is None:
            return call
        if call.id is not None and id is not None:
            return None  # two ids: two calls, as of those who give each the index 0
        if call.name not in (None, name) or call.is_followed_by(arguments):
            return None
        return call


class Begun:
    """One call that is still growing. `pieces` are its arguments as text, in the order in which they came."""

    def __init__(self, index: int | str | None) -> None:
        self.index = index
        self.id: str | None = None
        self.name: str | None = None
        self.pieces: list[str] = []
        self.is_blank = True  # no arguments yet
        self._object: Any = None  # the arguments, of a server that sends them as an object
        self._size = 0
        self._extras = Growing()  # what else stands beside the call: Gemini's signature has to come back

    def add(self, item: Json, function: Json) -> None:
        """Take one piece."""
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            self._size += len(arguments)
            if self._size <= MAX_ARGUMENTS:
                self.pieces.append(arguments)
                self.is_blank = self.is_blank and not arguments.strip()
        elif arguments is not None:
            self._object = arguments
            self.is_blank = False
        known = ("index", "id", "type", "function", "name", "arguments")
        extras: Json = {name: value for name, value in item.items() if name not in known}
        within = {name: value for name, value in function.items() if name not in known}
        if within and function is not item:
            extras["function"] = within
        if extras:
            self._extras.add(extras)

    def is_followed_by(self, arguments: Any) -> bool:
        """True when this call has its arguments, and `arguments` are those of another one."""
        if not arguments or arguments == self._object:
            return False
        if self._object is not None:
            return True
        text = "".join(self.pieces).strip()
        return text not in ("", "{}") and _read(text)[1] is None

    def whole(self) -> Call:
        """Return the call."""
        assert self.id is not None
        arguments, fault = self._understood()
        text = self._text()
        if self._object is not None or fault is not None or not isinstance(_decoded(text), dict):
            text = msgspec.json.encode(arguments or {}).decode()
        item = self.item(self.id, text)
        return Call(self.id, item["function"]["name"], arguments, fault, item)

    def item(self, id: str, arguments: str) -> Json:
        """Return the call as it stands in a message, with these arguments."""
        extras = {key: value for key, value in self._extras.whole().items() if value is not None}
        function = {**(extras.get("function") or {}), "name": self.name or "", "arguments": arguments}
        return {**extras, "id": id, "type": "function", "function": function}

    @property
    def is_whole(self) -> bool:
        """True when its arguments are a JSON object, or there are none."""
        return self._understood()[1] is None

    @property
    def arguments(self) -> str:
        """The arguments as a JSON object; as they came when they are none."""
        arguments, fault = self._understood()
        text = self._text()
        if fault is None and isinstance(_decoded(text), dict):
            return text
        return text if fault is not None and text else msgspec.json.encode(arguments or self._object or {}).decode()

    def _text(self) -> str:
        text = "".join(self.pieces)
        # Some begin with an empty object, and send the true one behind it.
        return text[len(NOTHING) :] if text.startswith(NOTHING) else text

    def _understood(self) -> tuple[Json | None, str | None]:
        """Return the arguments, and what is wrong with them."""
        text = self._text()
        arguments, fault = (self._object, None) if self._object is not None and not text else _read(text)
        if self._size > MAX_ARGUMENTS:
            return None, f"The arguments are longer than {MAX_ARGUMENTS} bytes."
        if fault is None and not isinstance(arguments, dict):
            return None, "The arguments are not a JSON object."
        return arguments, fault


def _read(text: str) -> tuple[Any, str | None]:
    """Return the value of arguments as text, and what is wrong with them."""
    if not text.strip():
        return {}, None
    value = _decoded(text)
    if isinstance(value, str):  # JSON within JSON
        value = _decoded(value) if value.strip() else {}
    if value is _WRONG:
        return None, "The arguments are not valid JSON."
    return ({} if value is None else value), None


_WRONG = object()


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _WRONG


def new_id() -> str:
    """Return an id for a call: nine letters and digits, which is what Mistral takes, and all others do."""
    return os.urandom(5).hex()[:9]


def renamed(call: Call) -> Call:
    """Return a call of what nobody has under a name that a provider takes back."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", call.name)[:64] or "unnamed"
    return replace(call, item={**call.item, "function": {**call.item["function"], "name": name}})


# --- messages ---------------------------------------------------------------------------------------


def message(chunks: Iterable[Chunk], calls: Sequence[Call]) -> Json:
    """Return the message that an answer was, to be sent back.

    What came beside the calls is kept as it came: DeepSeek's reasoning has to come back with the results, or it is a
    400.
    """
    grown = Growing()
    for chunk in chunks:
        for choice in (chunk.data.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            grown.add({name: value for name, value in delta.items() if name not in ("tool_calls", "function_call")})
    kept = {name: value for name, value in grown.whole().items() if value is not None}
    return {"content": None, **kept, "role": "assistant", "tool_calls": [call.item for call in calls]}


def result(call: Call, text: str) -> Json:
    """Return the message that tells a call's result."""
    return {"role": "tool", "tool_call_id": call.id, "content": text}


def deltas(calls: Sequence[Call]) -> list[Json]:
    """Return calls in the strict form: one a chunk, counted from 0, each with its whole arguments."""
    return [{"tool_calls": [{"index": index, **call.item}]} for index, call in enumerate(calls)]


def mended(messages: list[Json]) -> list[Json]:
    """Return a conversation in which each call has one result behind it, and each result a call before it.

    After an interruption the engine's history has calls without results, and a trimmed one results without calls; a
    provider answers either with a 400, in every turn from then on. What is right already is returned as it is.
    """
    for each in messages:
        if isinstance(each, dict) and (each.get("role") == "tool" or "tool_calls" in each):
            break
    else:
        return messages
    mended: list[Json] = []
    for position, each in enumerate(messages):
        if each.get("role") == "tool":
            continue  # it stands behind its call already, or there is none
        calls = each.get("tool_calls")
        if not isinstance(calls, list) or each.get("role") != "assistant":
            mended.append(each)
        elif not calls:
            rest = {name: value for name, value in each.items() if name != "tool_calls"}
            mended.append({**rest, "content": rest.get("content") or ""})
        else:
            mended += _answered(each, calls, _results(messages, position + 1))
    return mended


def _results(messages: Sequence[Json], start: int) -> dict[Any, list[Json]]:
    """Return the results that stand before the next message that calls, by the ids of their calls."""
    found: dict[Any, list[Json]] = {}
    for each in messages[start:]:
        if each.get("role") == "tool":
            id = each.get("tool_call_id")
            found.setdefault(id if isinstance(id, str) else None, []).append(each)
        elif each.get("tool_calls"):
            break
    return found


def _answered(message: Json, calls: Sequence[Any], results: dict[Any, list[Json]]) -> list[Json]:
    """Return a message that calls, and one result for each of its calls."""
    items: list[Any] = []
    answers: list[Json] = []
    taken: set[str] = set()
    for item in calls:
        if not isinstance(item, dict):
            continue
        id = item.get("id")
        waiting = results.get(id if isinstance(id, str) else None) or results.get(None)
        answer = waiting.pop(0) if waiting else {"role": "tool", "content": INTERRUPTED}
        if not isinstance(id, str) or not id or id in taken:
            id = new_id()
            item = {**item, "id": id}
        taken.add(id)
        items.append(item)
        answers.append(answer if answer.get("tool_call_id") == id else {**answer, "tool_call_id": id})
    same = len(items) == len(calls) and all(mine is theirs for mine, theirs in zip(items, calls, strict=True))
    return [message if same else {**message, "tool_calls": items}, *answers]


# --- chunks -----------------------------------------------------------------------------------------


def without_calls(chunk: Chunk) -> Chunk | None:
    """Return what a chunk holds beside calls, an ending and a count of tokens; None when that is nothing."""
    kept = []
    for choice in chunk.data["choices"]:
        whole = choice.get("delta") or {}
        delta = {key: value for key, value in whole.items() if key not in ("tool_calls", "function_call")}
        if any(value for key, value in delta.items() if key != "role"):
            kept.append({**choice, "delta": delta, "finish_reason": None})
    fields = {key: value for key, value in chunk.data.items() if key != "usage"}
    return Chunk({**fields, "choices": kept}) if kept else None


def going_on(chunk: Chunk, head: Mapping[str, Any], before: str = "") -> Chunk | None:
    """Return a chunk as a part of a reply that has begun, with its root fields `head`, and `before` before its words.

    Nobody says again who speaks. None when nothing is left.
    """
    choices = []
    for choice in chunk.data.get("choices") or ():
        delta = {key: value for key, value in (choice.get("delta") or {}).items() if key != "role"}
        if before and isinstance(delta.get("content"), str):
            delta["content"] = before + delta["content"]
        if choice.get("finish_reason") or any(value for value in delta.values()):
            choices.append({**choice, "delta": delta})
    if not choices and chunk.data.get("choices"):
        return None
    return chunk.changed(**head, choices=choices)


def added(usage: Any, more: Any) -> Any:
    """Return two counts of tokens as one: numbers are added, whatever else there is is the later one's."""
    if isinstance(usage, dict) and isinstance(more, dict):
        return {**usage, **{key: added(usage.get(key), value) for key, value in more.items()}}
    if isinstance(usage, (int, float)) and isinstance(more, (int, float)) and not isinstance(more, bool):
        return usage + more
    return usage if more is None else more
