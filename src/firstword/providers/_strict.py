"""The tool calls of one answer in the form that every client reads, however its provider streams them. Pure.

A chunk whose call is in that form already keeps its bytes. From the first one that is not, the calls leave in chunks
of our own: one call in each, counted from 0, one after the other, an id and a name once, no words beside it, arguments
that are a JSON object in the end, and a `finish_reason` that says so. Clients merge, lose or crash on anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..calls import MAX_CALLS, NOTHING, Begun, Calls, new_id
from ..chunk import Choice, Chunk, Delta

MAX_TRIES = 64  # times that a call is read to see whether it is whole, while another one waits behind it
FIRST_PIECES = 8  # of arguments, to see how they begin

Json = dict[str, Any]


class Strict:
    """The calls of all choices of one answer."""

    def __init__(self) -> None:
        self._choices: dict[int, _Calling] = {}

    def mend(self, chunk: Chunk) -> list[Chunk]:
        """Return what leaves of a chunk: the same one when its form is good."""
        choices = chunk.look().choices or []
        if not choices:
            return [chunk]
        if len(choices) > 1:
            return [each for position in range(len(choices)) for each in self.mend(_alone(chunk, position))]
        index = choices[0].index if isinstance(choices[0].index, int) else 0
        return self._choices.setdefault(index, _Calling()).mend(chunk, choices[0])


class _Calling:
    """The calls of one choice. What was read and what has left are counted apart."""

    def __init__(self) -> None:
        self._calls = Calls()
        self._is_strict = True  # all that came was in good form
        self._kept: Chunk | None = None  # one with `{}`: some send the true arguments behind it
        self._at = 0  # the call that leaves now
        self._is_open = False  # its beginning has left
        self._flows = False  # so have arguments of it that are not blank
        self._pieces = 0  # of its arguments that have left
        self._tries = 0
        self._has_role = False  # who speaks was said, or waits in
        self._role: Json = {}

    def mend(self, chunk: Chunk, choice: Choice) -> list[Chunk]:
        items = _items(choice.delta)
        reason = choice.finish_reason if isinstance(choice.finish_reason, str) else None
        calls = choice.delta is not None and bool(choice.delta.tool_calls)
        if not calls and (reason is None or not self._calls):
            return [chunk]
        is_strict = self._is_strict and (not calls or self._goes_on(choice.delta, items))
        count = len(self._calls)
        for item in items:
            self._calls.add({"tool_calls": [item]})
        if is_strict and (reason is None or self._ends_well(reason, items)):
            return self._as_it_came(chunk, items, has_begun=len(self._calls) > count, ends=reason is not None)
        self._is_strict = False
        return self._mended(chunk, reason)

    # --- in good form -----------------------------------------------------------------------------------

    def _goes_on(self, delta: Delta | None, items: list[Json]) -> bool:
        """True when a delta goes on with what has left, in the form that every client reads."""
        if delta is None or not isinstance(delta.tool_calls, list) or len(delta.tool_calls) != 1 or len(items) != 1:
            return False
        item, count = items[0], len(self._calls)
        function, index, id = item.get("function"), item.get("index"), item.get("id")
        if delta.content or delta.refusal or delta.audio or type(index) is not int or not isinstance(function, dict):
            return False
        name, arguments = function.get("name"), function.get("arguments") or ""
        if not isinstance(arguments, str):
            return False
        is_object = not arguments.strip() or arguments.lstrip().startswith("{")
        if not name:
            return index == count - 1 and not id and self._kept is None and (self._flows or is_object)
        is_named = isinstance(name, str) and isinstance(id, str) and id.strip() != "" and item.get("type") == "function"
        is_new = index == count < MAX_CALLS and all(self._calls[position].id != id for position in range(count))
        return is_named and is_new and is_object and (not count or self._is_over())

    def _is_over(self) -> bool:
        """True when the last call has its arguments."""
        return (self._flows or self._kept is not None) and self._calls[-1].is_whole

    def _ends_well(self, reason: str, items: list[Json]) -> bool:
        """True when an ending says what it should, and nothing has to stand before it."""
        if items:
            return reason == "tool_calls" and not self._calls[-1].is_blank and self._calls[-1].is_whole
        return (self._flows or self._kept is not None) and reason == self._reason(reason)

    def _as_it_came(self, chunk: Chunk, items: list[Json], *, has_begun: bool, ends: bool) -> list[Chunk]:
        before, self._kept = self._kept, None
        chunks = [] if before is None else [before]
        if has_begun:
            self._go_to(len(self._calls) - 1)
        call = self._calls[-1]
        if items and not ends and not self._flows and _beginning(call) == NOTHING:
            self._kept = chunk
            return chunks
        self._is_open = True
        self._flows = self._flows or not call.is_blank
        self._pieces = len(call.pieces)
        return [*chunks, chunk]

    def _go_to(self, position: int) -> None:
        self._at = position
        self._is_open = self._flows = False
        self._pieces = self._tries = 0

    # --- mended -----------------------------------------------------------------------------------------

    def _mended(self, chunk: Chunk, reason: str | None) -> list[Chunk]:
        """Return what stands beside the calls of a chunk, then the calls, then the ending."""
        kept, self._kept = self._kept, None
        chunks = [] if kept is None else self._beside_calls(kept)
        chunks += self._beside_calls(chunk)
        for item in self._leaving(ends=reason is not None):
            chunks.append(_made(chunk, self._with_role({"tool_calls": [item]})))
        if reason is not None:
            counted = {"usage": chunk.data["usage"]} if chunk.data.get("usage") is not None else {}
            chunks.append(_made(chunk, {}, self._reason(reason), **counted))
        return chunks

    def _beside_calls(self, chunk: Chunk) -> list[Chunk]:
        """Return what a chunk says beside calls; who speaks waits for what is said, and is not said again."""
        choice = chunk.data["choices"][0]
        delta = {name: value for name, value in (choice.get("delta") or {}).items() if name != "tool_calls"}
        if delta.pop("role", None) and not self._has_role:
            self._role = {"role": "assistant"}
        self._has_role = True
        if not any(delta.values()):
            return []
        fields = {name: value for name, value in chunk.data.items() if name != "usage"}
        return [Chunk({**fields, "choices": [{**choice, "delta": self._with_role(delta), "finish_reason": None}]})]

    def _with_role(self, delta: Json) -> Json:
        role, self._role = self._role, {}
        return {**role, **delta}

    def _leaving(self, *, ends: bool) -> Iterator[Json]:
        """Yield what can leave of the calls that have not left yet."""
        while self._at < len(self._calls):
            call = self._calls[self._at]
            closes = ends or (self._at + 1 < len(self._calls) and self._may_close(call))
            if not call.name and not closes:
                return
            arguments = self._last_of(call) if closes else self._next_of(call)
            if not self._is_open:
                call.id = call.id or new_id()
                yield {"index": self._at, **call.item(call.id, arguments)}
                self._is_open = True
            elif arguments:
                yield {"index": self._at, "function": {"arguments": arguments}}
            if not closes:
                return
            self._go_to(self._at + 1)

    def _may_close(self, call: Begun) -> bool:
        """True when nothing more of a call is to come, now that another one has begun. Some send both in turn."""
        self._tries += 1
        return self._tries <= MAX_TRIES and not call.is_blank and call.is_whole

    def _next_of(self, call: Begun) -> str:
        """Return the arguments that came, if they can leave as they are: the beginning of an object."""
        if not self._flows:
            begins = _beginning(call)
            if not begins.startswith("{") or begins.startswith(NOTHING):
                return ""
            self._flows = True
        return self._left(call)

    def _last_of(self, call: Begun) -> str:
        """Return what is missing of the arguments."""
        return self._left(call) if self._flows else call.arguments

    def _left(self, call: Begun) -> str:
        left = "".join(call.pieces[self._pieces :])
        self._pieces = len(call.pieces)
        return left

    def _reason(self, reason: str) -> str:
        """Return the `finish_reason` of an answer that calls. One that broke off within a call keeps its own."""
        is_whole = all(self._calls[position].is_whole for position in range(len(self._calls)))
        return "tool_calls" if self._calls and is_whole and reason != "content_filter" else reason


def _items(delta: Delta | None) -> list[Json]:
    """Return the pieces of calls in a delta."""
    calls = None if delta is None else delta.tool_calls
    return [each for each in (calls if isinstance(calls, list) else [calls]) if isinstance(each, dict)]


def _beginning(call: Begun) -> str:
    """Return how the arguments of a call begin."""
    return "".join(call.pieces[:FIRST_PIECES]).strip()


def _alone(chunk: Chunk, position: int) -> Chunk:
    """Return a chunk with one of its choices. Tokens are counted in the last one."""
    choices = chunk.data["choices"]
    counted = ("usage",) if position < len(choices) - 1 else ()
    fields = {name: value for name, value in chunk.data.items() if name not in counted}
    return Chunk({**fields, "choices": [choices[position]]})


def _made(chunk: Chunk, delta: Json, reason: str | None = None, **more: Any) -> Chunk:
    """Return a chunk of our own, in place of `chunk`."""
    fields = {name: value for name, value in chunk.data.items() if name != "usage"}
    index = chunk.data["choices"][0].get("index") or 0
    return Chunk({**fields, "choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more})
