"""How providers stream the same two calls: each deviation that was seen, as the deltas of one answer.

Every stream means `weather` of Paris and then `clock` without arguments, unless `MEANS` says otherwise.
"""

from __future__ import annotations

from typing import Any

from firstword.testing import script

PARIS = '{"city": "Paris"}'
TWO: list[tuple[str, Any]] = [("weather", {"city": "Paris"}), ("clock", {})]
ONE = TWO[:1]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "clock")
]


def call(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    """Return one piece of a call with just these fields."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"function": function, **more}


def delta(*pieces: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one delta of `tool_calls`."""
    return {"tool_calls": list(pieces), **more}


STREAMS: dict[str, list[dict[str, Any]]] = {
    "as OpenAI does": [
        delta(call("weather", "", index=0, id="c1", type="function")),
        *(delta(call(arguments=part, index=0)) for part in ('{"ci', 'ty": "Pa', 'ris"}')),
        delta(call("clock", "{}", index=1, id="c2", type="function")),
    ],
    "whole calls in one chunk": [
        delta(call("weather", PARIS, index=0, id="c1"), call("clock", "{}", index=1, id="c2")),
    ],
    "the index 0 for all, as Ollama": [
        delta(call("weather", PARIS, index=0, id="c1")),
        delta(call("clock", "{}", index=0, id="c2")),
    ],
    "the index 0 for all, in one chunk": [
        delta(call("weather", PARIS, index=0, id="c1"), call("clock", "{}", index=0, id="c2")),
    ],
    "the index 0 for all, in pieces": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call(arguments='"Paris"}', index=0)),
        delta(call("clock", "", index=0, id="c2")),
        delta(call(arguments="{}", index=0)),
    ],
    "no index": [
        delta(call("weather", '{"city": ', id="c1")),
        delta(call(arguments='"Paris"}')),
        delta(call("clock", "{}", id="c2")),
    ],
    "an index of null": [
        delta(call("weather", '{"city": ', id="c1", index=None)),
        delta(call(arguments='"Paris"}', index=None)),
        delta(call("clock", "{}", id="c2", index=None)),
    ],
    "counted from 1": [
        delta(call("weather", PARIS, index=1, id="c1")),
        delta(call("clock", "{}", index=2, id="c2")),
    ],
    "no id": [
        delta(call("weather", '{"city": ', index=0)),
        delta(call(arguments='"Paris"}', index=0)),
        delta(call("clock", "{}", index=1)),
    ],
    "neither index nor id": [delta(call("weather", PARIS)), delta(call("clock", "{}"))],
    "neither index nor id, in one chunk": [delta(call("weather", PARIS), call("clock", "{}"))],
    "a blank id on what goes on": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call(arguments='"Paris"}', index=0, id="")),
        delta(call("clock", "{}", index=1, id=" ")),
    ],
    "the id again in each piece": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call(arguments='"Paris"}', index=0, id="c1")),
        delta(call("clock", "{}", index=1, id="c2")),
    ],
    "another id in each piece": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call(arguments='"Paris"}', index=0, id="c8")),
        delta(call("clock", "{}", index=1, id="c9")),
    ],
    "the same id for both": [
        delta(call("weather", PARIS, index=0, id="same")),
        delta(call("clock", "{}", index=1, id="same")),
    ],
    "the name again in each piece": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call("weather", '"Paris"}', index=0, id="c1")),
        delta(call("weather", "", index=0)),
        delta(call("clock", "{}", index=1, id="c2")),
        delta(call("clock", "", index=1)),
    ],
    "a name of null in what goes on": [
        delta({"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city": '}}),
        delta({"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": '"Paris"}'}}),
        delta(call("clock", "{}", index=1, id="c2")),
    ],
    "pieces of both in turn": [
        delta(call("weather", "", index=0, id="c1")),
        delta(call("clock", "", index=1, id="c2")),
        delta(call(arguments='{"city": ', index=0)),
        delta(call(arguments="{", index=1)),
        delta(call(arguments='"Paris"}', index=0)),
        delta(call(arguments="}", index=1)),
    ],
    "an index that counts pieces": [
        delta(call("weather", '{"city": ', index=0, id="c1")),
        delta(call(arguments='"Paris"}', index=1)),
        delta(call("clock", "{}", index=2, id="c2")),
    ],
    "an object as arguments": [
        delta(call("weather", {"city": "Paris"}, index=0, id="c1")),
        delta(call("clock", {}, index=1, id="c2")),
    ],
    "the same object twice": [
        delta(call("weather", {"city": "Paris"}, index=0)),
        delta(call("weather", {"city": "Paris"}, index=0)),
        delta(call("clock", {}, index=1)),
    ],
    "JSON within JSON": [
        delta(call("weather", '"{\\"city\\": \\"Paris\\"}"', index=0, id="c1")),
        delta(call("clock", '""', index=1, id="c2")),
    ],
    "no arguments, or null": [
        delta(call("weather", PARIS, index=0, id="c1")),
        delta(call("clock", None, index=1, id="c2")),
    ],
    "the word null as arguments": [
        delta(call("weather", PARIS, index=0, id="c1")),
        delta(call("clock", "null", index=1, id="c2")),
    ],
    "an empty object before the true one": [
        delta(call("weather", "{}", index=0, id="c1")),
        delta(call(arguments=PARIS, index=0)),
        delta(call("clock", "", index=1, id="c2")),
    ],
    "name and arguments beside the id": [
        delta({"index": 0, "id": "c1", "name": "weather", "arguments": PARIS}),
        delta({"index": 1, "id": "c2", "name": "clock"}),
    ],
    "one object in place of a list": [
        {"tool_calls": call("weather", PARIS, index=0, id="c1")},
        {"tool_calls": call("clock", "{}", index=1, id="c2")},
    ],
    "Mistral's ids": [
        delta(call("weather", PARIS, index=0, id="D681PevKs")),
        delta(call("clock", "", index=1, id="a1B2c3D4e")),
    ],
    "numbers as ids": [delta(call("weather", PARIS, id=1)), delta(call("clock", "{}", id=2))],
    "what is no call between them": [
        delta(call("weather", PARIS, index=0, id="c1"), None, 7),  # type: ignore[arg-type]
        {"tool_calls": None},
        {"tool_calls": []},
        delta(call("clock", "{}", index=1, id="c2")),
    ],
    "the older function_call": [
        {"function_call": {"name": "weather", "arguments": '{"city": '}},
        {"function_call": {"arguments": '"Paris"}'}},
    ],
    "the same tool twice, with the index 0": [
        delta(call("clock", "", index=0, id="c1")),
        delta(call("clock", "", index=0, id="c2")),
    ],
    "the same tool twice, without ids": [
        delta(call("weather", PARIS, index=0)),
        delta(call("weather", '{"city": "Oslo"}', index=0)),
    ],
}
MEANS: dict[str, list[tuple[str, Any]]] = {
    "the same tool twice, with the index 0": [("clock", {}), ("clock", {})],
    "the older function_call": ONE,
    "the same tool twice, without ids": [*ONE, ("weather", {"city": "Oslo"})],
}


def answer(name: str, *, reason: str = "tool_calls") -> script.Script:
    """Return a stream as the events of an answer that ends for `reason`."""
    return script.events(
        script.role(),
        *(script.event(script.chunk(each)) for each in STREAMS[name]),
        script.finish(reason),
        script.usage(10, 1),
        script.done(),
    )
