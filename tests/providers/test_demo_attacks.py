"""Requests made to keep the demo model busy: it thinks on the event loop, where nobody else is served meanwhile.

Each cost seconds once. The bound is generous for a slow machine; a request takes a tenth of it or less.
"""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from demo_talk import LINE, ask

from firstword.providers.demo import COUNTED, provider
from firstword.providers.demo.instance import LONGEST_SCHEMA, instance

BOUND = 0.5  # seconds of the processor, for the whole answer
WORDS = "the weather in Rome, please"
USAGE = {"stream_options": {"include_usage": True}}


def form(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}, **USAGE}


def one_for_all(properties: int, shared: Any) -> dict[str, Any]:
    """Return a schema of which every property is the same definition."""
    names = [f"p{at}" for at in range(properties)]
    each = {name: {"$ref": "#/$defs/x"} for name in names}
    return {"type": "object", "$defs": {"x": shared}, "properties": each, "required": names}


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


HARD = one_for_all(200, {"enum": [f"no{at}" for at in range(1_000)], "pattern": ".*\x00"})
CAMERA = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8" + b"\xff" * 65_000).decode()
LONG_NAMES = [tool(f"{at} " + "weatherReport" * 10_769) for at in range(128)]

ATTACKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a large enum for many": (WORDS, form(one_for_all(1_500, {"enum": [f"v{at}" for at in range(60_000)]}))),
    "a smaller enum for many": (WORDS, form(one_for_all(1_500, {"enum": [f"v{at}" for at in range(5_000)]}))),
    "examples that match slowly": (
        WORDS,
        form({"type": "string", "examples": [f"{at:064}" for at in range(4_000)], "pattern": ".*.*.*\\x00"}),
    ),
    "fewer examples that match slowly": (
        WORDS,
        form(one_for_all(100, {"examples": [f"{at:064}" for at in range(150)], "pattern": ".*.{30}\\x00"})),
    ),
    "one text for many": (WORDS, form(one_for_all(400, {"type": "string", "minLength": 2_000}))),
    "one list for many": (WORDS, form(one_for_all(300, {"default": [0.5] * 1_400}))),
    "all tools named": ("weather", {"tools": [tool(f"weather{'-' * at}", HARD) for at in range(1, 129)], **USAGE}),
    "long names": (WORDS, {"tools": LONG_NAMES, "tool_choice": "required", **USAGE}),
    "a long conversation": ([{"role": "user", "content": "a, " * 6_667}] * 1_000, USAGE),
    "many tiny pictures": ([image("data:a/b,c")] * 200_000, USAGE),
    "pictures that begin slowly": ([image(CAMERA)] * 100, USAGE),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_request_made_to_keep_it_busy_does_not(attack: str) -> None:
    """The answer is heard to its end."""
    said, fields = ATTACKS[attack]
    started = time.process_time()
    heard = ask(said, **fields)

    assert time.process_time() - started < BOUND
    assert heard.finish in ("stop", "tool_calls")


def test_a_schema_that_is_too_long_asks_for_nothing() -> None:
    """One letter more makes it too long; another is nested too deep to be measured."""
    schema = {"type": "integer", "title": ""}
    schema["title"] = "x" * (LONGEST_SCHEMA - len('{"type":"integer","title":""}'))
    deep: Any = {"type": "integer"}
    for _ in range(100_000):
        deep = {"not": deep}

    assert instance(schema, words="hello") == 1
    assert instance(schema | {"title": schema["title"] + "x"}, words="hello") == "hello"
    assert instance(deep, words="hello") == "hello"
    while deep:  # a level at a time: all at once would be too deep for some interpreters
        deep = deep.get("not")


def test_at_most_eight_tools_are_called_and_each_gets_its_share() -> None:
    """Seventy are named, and the first cannot be filled in time."""
    good = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [tool("weather", HARD), *(tool(f"weather{'_' * at}", good) for at in range(1, 70))]
    heard = ask(WORDS, tools=tools)

    assert [name for name, _ in heard.calls] == ["weather" + "_" * at for at in range(8)]
    assert [arguments for _, arguments in heard.calls[1:]] == [{"city": "Rome"}] * 7


def test_only_the_first_tools_and_the_beginning_of_a_name_are_looked_at() -> None:
    """The tool that is named is the last of sixty-four, then one too many; then its name is too long."""
    others = [tool(f"other{at}") for at in range(64)]

    assert [name for name, _ in ask("weather", tools=[*others[:63], tool("weather")]).calls] == ["weather"]
    assert ask("weather", tools=[*others, tool("weather")]).text().endswith(LINE)
    long = {"type": "function", "function": {"name": "x" * 100}}
    assert [name for name, _ in ask("hi", tools=[tool("x" * 100)], tool_choice=long).calls] == ["x" * 64]


def test_of_many_pictures_the_first_are_looked_at_and_all_are_counted() -> None:
    """Sixteen, then one more, of which nobody has looked at the bytes."""
    assert ask([image("data:a/b,c")] * 16).text().endswith(f"and 12 more; 16 bytes in all. {LINE}")
    assert ask([image("data:a/b,c")] * 17).text().endswith(f"and 13 more. {LINE}")


def test_beyond_what_is_read_four_characters_are_a_token() -> None:
    """Two messages of signs, a token each; the second begins where the reading ends."""
    messages = [{"role": "user", "content": "," * COUNTED}, {"role": "user", "content": "," * 41}]
    *_, (_, last) = provider.answer({"messages": messages, **USAGE}, id="x", created=1)

    assert last["usage"]["prompt_tokens"] == COUNTED + 11
