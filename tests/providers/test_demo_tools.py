"""The demo model's tool calls and JSON answers, as a client gets them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from demo_talk import LINE, ask

from firstword.providers.demo import count_tokens


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


# --- tools ----------------------------------------------------------------------------------------

WEATHER = tool("get_weather", city={"type": "string"}, unit={"type": "string", "enum": ["celsius", "fahrenheit"]})
ADD = tool("addNumbers", first={"type": "integer"}, second={"type": "number"})


def test_a_tool_is_called_when_the_words_name_it() -> None:
    """The words hold the city and the unit."""
    heard = ask(
        "What's the weather in Paris, in Fahrenheit?", tools=[WEATHER, ADD], stream_options={"include_usage": True}
    )

    assert heard.calls == [("get_weather", {"city": "Paris", "unit": "fahrenheit"})]
    assert heard.finish == "tool_calls"
    (call,) = heard.deltas()[1]["tool_calls"]
    assert (call["index"], call["type"], list(heard.deltas()[1])) == (0, "function", ["tool_calls"])
    spoken = call["function"]["name"], call["function"]["arguments"]
    assert heard.chunks[-1]["usage"]["completion_tokens"] == sum(map(count_tokens, spoken))


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("add the numbers 2 and 3.5", {"first": 2, "second": 3.5}),
        ("numbers to add: seven, four", {"first": 7, "second": 4}),
        ("addnumbers 12 30", {"first": 12, "second": 30}),
    ],
)
def test_numbers_are_taken_from_the_words(said: str, arguments: dict[str, Any]) -> None:
    """The words of a camelCase name in any order, or the name itself."""
    assert ask(said, tools=[WEATHER, ADD]).calls == [("addNumbers", arguments)]


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("search the web for blue shoes, please", "blue shoes"),
        ('web search "red hats"', "red hats"),
        ("i want to web search shops in rome", "rome"),
        ("web search", "web search"),
    ],
)
def test_a_text_is_taken_from_the_words(said: str, query: str) -> None:
    """What follows a small word, else what is quoted, else all that was said."""
    assert ask(said, tools=[tool("web-search", query={"type": "string"})]).calls == [("web-search", {"query": query})]


def test_all_named_tools_are_called_one_a_chunk_unless_parallel_calls_are_off() -> None:
    """The words name both tools."""
    said = "get the weather in Rome and add the numbers 1 and 2"
    heard = ask(said, tools=[WEATHER, ADD])

    assert [name for name, _ in heard.calls] == ["get_weather", "addNumbers"]
    calls = [delta["tool_calls"] for delta in heard.deltas() if "tool_calls" in delta]
    assert [[call["index"] for call in chunk] for chunk in calls] == [[0], [1]]
    assert calls[0][0]["id"] != calls[1][0]["id"]
    assert len(ask(said, tools=[WEATHER, ADD], parallel_tool_calls=False).calls) == 1


def test_tool_choice_is_obeyed() -> None:
    """Never, at least one, and a certain one, whatever the words say; and one that is not offered."""
    tools = [WEATHER, ADD]
    certain = {"type": "function", "function": {"name": "get_weather"}}

    assert ask("weather", tools=tools, tool_choice="none").calls == []
    assert [name for name, _ in ask("some numbers", tools=tools, tool_choice="required").calls] == ["addNumbers"]
    assert [name for name, _ in ask("hello", tools=tools, tool_choice="required").calls] == ["get_weather"]
    assert [name for name, _ in ask("add numbers", tools=tools, tool_choice=certain).calls] == ["get_weather"]
    assert ask("weather", tools=[ADD], tool_choice=certain).text().endswith(LINE)
    assert ask("hello", tools=tools).calls == []


def test_a_tool_that_says_nothing_about_its_parameters_gets_an_empty_object() -> None:
    """One has no schema, one a broken one, one is no tool at all."""
    bare: dict[str, Any] = {"type": "function", "function": {"name": "lights"}}
    broken = {"type": "function", "function": {"name": "lights", "parameters": {"type": "array"}}}

    assert ask("lights", tools=[bare]).calls == ask("lights", tools=[broken]).calls == [("lights", {})]
    assert ask("lights", tools=[None, {}, {"function": {"name": ""}}, 3]).finish == "stop"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"temperature": 21, "wind_speed": {"now": 3}, "sky": ["clear"]}', "temperature 21, now 3, sky clear."),
        ("It is **sunny**.", "It is sunny."),
        ([{"type": "text", "text": "sunny"}], "sunny."),
        ("[" * 3_000, "nothing."),
        (None, "nothing."),
    ],
)
def test_the_result_of_a_tool_is_said_and_not_asked_for_again(content: Any, said: str) -> None:
    """The second leg of a call, with the tools still offered and required."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "weather in Paris"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    ]

    assert ask(messages, tools=[WEATHER], tool_choice="required").text() == f"The weather tool says: {said} {LINE}"


# --- JSON -----------------------------------------------------------------------------------------

FORM = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "mood": {"enum": ["sad", "happy"]}, "guests": {"type": "integer"}},
    "required": ["answer", "mood", "guests"],
}


def test_a_json_object_holds_the_answer_and_no_demo_line() -> None:
    """`response_format` asks for any JSON object."""
    heard = ask("what is 2 plus 3", response_format={"type": "json_object"})

    assert heard.text() == '{"answer":"2 plus 3 is 5.","model":"demo"}'


def test_a_schema_is_filled_from_the_words_in_many_chunks() -> None:
    """The words hold a number and one of an enum's values."""
    form = {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": FORM}}
    heard = ask("I am happy with 4 guests", response_format=form, stream_options={"include_usage": True})

    assert heard.text() == '{"answer":"I am happy with 4 guests","mood":"happy","guests":4}'
    assert len(heard.chunks) > 8
    assert heard.chunks[-1]["usage"]["completion_tokens"] == count_tokens(heard.text())
    assert ask("hi", response_format=form, max_tokens=3).finish == "length"


def test_a_form_without_a_schema_is_any_object() -> None:
    """The `json_schema` is missing, or no schema."""
    for broken in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": [1]}}):
        assert msgspec.json.decode(ask("hello", response_format=broken).text())["model"] == "demo"
    assert ask("hello", response_format={"type": "text"}).text().endswith(LINE)
