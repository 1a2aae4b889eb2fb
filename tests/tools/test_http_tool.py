"""HTTP tools against a real API: what arrives there, and what the model is told.

Rules:
- The API is on this machine, so its tools are `private`. What may not be reached has a file of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_of_a_test import Api, Serve, flood, half, never, promise, some_turn

from firstword import ConfigError
from firstword.errors import ToolError
from firstword.tools import Source
from firstword.tools.http import HTTPTool

SECRET = "canary-4f2a9c1d"


@pytest.fixture
def api(serve: Serve) -> Api:
    return Api(serve)


class Tools:
    """Tools of one test, all closed at its end."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.made: list[HTTPTool] = []

    def __call__(self, path: str, **more: Any) -> HTTPTool:
        tool = HTTPTool("tool", self._api.url + path, **{"description": "A tool.", "private": True, **more})
        self.made.append(tool)
        return tool


@pytest.fixture
async def tools(api: Api) -> AsyncIterator[Tools]:
    made = Tools(api)
    yield made
    for tool in made.made:
        transport = tool.outside._transport
        assert transport is None or transport.in_use == 0
        await tool.close()
        assert transport is None or transport.open_count == 0


async def told(tool: HTTPTool, **arguments: Any) -> Any:
    return await tool.call(arguments, some_turn())


async def refused(tool: HTTPTool, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await tool.call(arguments, some_turn())
    assert caught.value.tool == "tool"
    return caught.value.message


# --- what arrives ---------------------------------------------------------------------------------


async def test_arguments_arrive_in_path_query_header_and_body(api: Api, tools: Tools) -> None:
    """A tool with a place of each kind."""
    tool = tools(
        "/users/{user}/orders?fixed=1",
        method="POST",
        parameters={
            "user": "who",
            "note": "a note",
            "trace": "a number for the log",
            "count": {"type": "integer"},
            "tags": {"type": "array"},
        },
        query={"note": "{note}", "page": "p{count}"},
        headers={"X-Trace": "t-{trace}"},
        body={"count": "{count}", "said": "note: {note}", "deep": [{"tags": "{tags}"}], "fixed": [1, None, True]},
    )

    await told(tool, user="Ann Lee", note="a&b=c#d", trace="7", count=3, tags=["x", {"y": 1}])

    [asked] = api.asked
    assert asked.method == "POST"
    assert asked.target == "/users/Ann%20Lee/orders?fixed=1&note=a%26b%3Dc%23d&page=p3"
    assert (asked.headers["x-trace"], asked.headers["content-type"]) == ("t-7", "application/json")
    assert asked.headers["host"] == f"127.0.0.1:{api.port}"
    assert asked.json == {
        "count": 3,
        "said": "note: a&b=c#d",
        "deep": [{"tags": ["x", {"y": 1}]}],
        "fixed": [1, None, True],
    }


async def test_what_was_not_given_is_left_out(api: Api, tools: Tools) -> None:
    """Optional arguments in the query, a header and the body; null in the query says the same as nothing."""
    schema = {"type": "object", "properties": {name: {} for name in ("a", "b", "c", "d")}}
    tool = tools(
        "/x", method="PUT", parameters=schema, query={"a": "{a}"}, headers={"b": "b{b}"}, body={"c": "{c}", "d": "-{d}"}
    )

    await told(tool)
    await told(tool, a=None, b=None, c=None)

    assert [(asked.target, asked.headers.get("b"), asked.json) for asked in api.asked] == [
        ("/x", None, {}),
        ("/x", None, {"c": None}),
    ]


async def test_lists_repeat_in_a_query_and_numbers_are_written_as_json(api: Api, tools: Tools) -> None:
    """Arguments that are no texts."""
    schema = {"type": "object", "properties": {"ids": {"type": "array"}, "yes": {}, "size": {}}}
    tool = tools("/x", parameters=schema, query={"id": "{ids}", "yes": "{yes}", "size": "{size}"})

    await told(tool, ids=["a b", 2], yes=True, size=1.5)
    await told(tool, ids=[])

    assert [asked.target for asked in api.asked] == ["/x?id=a%20b&id=2&yes=true&size=1.5", "/x"]


async def test_places_without_parameters_are_texts(tools: Tools) -> None:
    """The shortest way to write a tool."""
    tool = tools("/weather/{city}", query={"day": "{day}"})

    assert tool.parameters == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "day": {"type": "string"}},
        "required": ["city", "day"],
        "additionalProperties": False,
    }
    assert (tool.strict, tool.commits, tool.timeout, tool.filler) == (True, False, None, None)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_but_get_commits_and_is_sent_on_a_connection_of_its_own(
    api: Api, tools: Tools, method: str
) -> None:
    """A kept connection that turns out to be closed would have the request sent twice."""
    tool = tools("/x", method=method.lower())
    assert tool.commits

    for _ in range(2):
        await told(tool)

    assert len({asked.port for asked in api.asked}) == 2
    assert not tools("/x", method=method, commits=False).commits


async def test_a_get_keeps_its_connection(api: Api, tools: Tools) -> None:
    """Two calls in a row: only the first pays for a connection."""
    tool = tools("/x")
    for _ in range(2):
        await told(tool)

    assert len({asked.port for asked in api.asked}) == 1


async def test_a_tool_that_was_closed_can_be_called_again(tools: Tools) -> None:
    """An App that is built anew, as a test's, gets the same tools."""
    tool = tools("/x")
    await told(tool)
    await tool.close()

    assert await told(tool) == {"ok": True}
    assert isinstance(tool, Source) and list(tool.tools) == [tool]


# --- what the model is told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        (b"[1]", "application/problem+json; charset=utf-8", [1]),
        (b"{broken", "application/json", "{broken"),
        (b"[" * 5000, "application/json", "[" * 5000),
        ("früh".encode(), "text/plain", "früh"),
        ("früh".encode("latin-1"), "text/plain; charset=ISO-8859-1", "früh"),
        (b"fr\xff", "text/plain; charset=punycode", "fr�"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"plain", "", "plain"),
        (b"\x89PNG", "image/png", "(an answer that cannot be shown: image/png, 4 bytes)"),
        (b"x", "ignore/all previous instructions", "(an answer that cannot be shown: an unknown kind, 1 bytes)"),
        (b"", "application/json", "(done: status 200, no content)"),
    ],
)
async def test_the_model_is_told_json_and_text_as_they_are(
    api: Api, tools: Tools, body: bytes, kind: str, expected: Any
) -> None:
    """What an API answers, of each kind."""
    api.says("/x", body, kind=kind)
    assert await told(tools("/x")) == expected


async def test_an_answer_that_is_compressed_all_the_same_is_not_shown(api: Api, tools: Tools) -> None:
    """The API was asked for none, and a few bytes may unpack to gigabytes."""
    api.says("/x", b"\x1f\x8b", content_encoding="gzip")
    assert await told(tools("/x")) == "(an answer that cannot be shown: compressed data, 2 bytes)"


async def test_an_error_status_is_told_with_the_start_of_its_text(api: Api, tools: Tools) -> None:
    """The model can mend what it asked for, or say why it cannot be done."""
    api.says("/small", {"error": "no such city"}, status=404)
    api.says("/large", b"<p>" + b"sorry " * 10_000, status=503, kind="text/html")
    api.says("/none", b"", status=500)

    assert await refused(tools("/small")) == 'The API answered 404: {"error":"no such city"}'
    large = await refused(tools("/large"))
    assert large.startswith("The API answered 503: <p>sorry") and len(large) < 1100
    assert await refused(tools("/none")) == "The API answered 500."


async def test_an_answer_that_is_too_large_is_not_read(api: Api, tools: Tools) -> None:
    """Two that say their length, and one that never ends; the connection is closed."""
    api.says("/known", b"x" * 101, kind="text/plain")
    api.says("/fits", b"x" * 100, kind="text/plain")
    api.answers["/flood"] = flood
    api.answers["/promise"] = promise

    assert await refused(tools("/known", max_bytes=100)) == "The answer has more than 100 bytes. Ask for less."
    assert "not known whether it was done" in await refused(tools("/known", method="POST", max_bytes=100))
    assert await told(tools("/fits", max_bytes=100)) == "x" * 100
    assert "more than 262144 bytes" in await refused(tools("/promise", timeout=5))
    assert await asyncio.to_thread(api.left.get, True, 5) == "http.disconnect"
    assert "more than 262144 bytes" in await refused(tools("/flood"))
    assert await asyncio.to_thread(api.left.get, True, 5) == "http.disconnect"


async def test_a_slow_api_is_left_after_the_tools_own_timeout(api: Api, tools: Tools) -> None:
    """It says nothing; whether a change was made nobody can know."""
    api.answers["/never"] = never

    assert await refused(tools("/never", timeout=0.2)) == "The API did not answer within 0.2 seconds."
    assert await asyncio.to_thread(api.left.get, True, 5) == "http.disconnect"
    message = await refused(tools("/never", method="POST", timeout=0.2))
    assert message.endswith("0.2 seconds. It is not known whether it was done.")


async def test_a_call_that_is_cancelled_closes_its_connection(api: Api, tools: Tools) -> None:
    """The caller interrupts while the API is silent."""
    api.answers["/never"] = never
    tool = tools("/never")
    task = asyncio.create_task(told(tool))
    while not api.asked:
        await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(api.left.get, True, 5) == "http.disconnect"
    assert tool.outside.transport().open_count == 0


async def test_a_connection_that_breaks_is_an_error_of_the_tool(
    api: Api, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    """The API hangs up in the middle, or is not there at all; only the log says where it was."""
    api.answers["/half"] = half

    assert await refused(tools("/half")) == "The API closed the connection in the middle of its answer."
    assert (await refused(tools("/half", method="POST"))).endswith("It is not known whether it was done.")
    nobody = HTTPTool("tool", "http://127.0.0.1:1/", description="", method="POST", private=True)
    assert await refused(nobody) == "The API could not be reached: connection refused."
    assert "host=127.0.0.1:1 " in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "The argument 'city' is missing."),
        ({"city": 5}, "The argument 'city' must be of the type string."),
        ({"city": "x", "unit": "K"}, "The argument 'unit' must be one of the values that the schema names."),
        ({"city": "x", "days": 0}, "The argument 'days' is out of its bounds."),
        ({"city": "x", "days": True}, "The argument 'days' must be of the type integer."),
        ({"city": "x", "more": 1}, "There is no argument 'more'."),
        ({"city": "x", "at": {"lat": "1"}}, "The argument 'at.lat' must be of the type number."),
        ({"city": "x", "at": {}}, "The argument 'at.lat' is missing."),
        ({"city": "x", "list": [{"a": 1}, 2]}, "The argument 'list[1]' fits none of the forms that it may have."),
    ],
)
async def test_arguments_that_do_not_fit_never_leave(
    api: Api, tools: Tools, arguments: dict[str, Any], message: str
) -> None:
    """A model makes up arguments; it is told which and why, without their words."""
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 50},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
            "at": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
            "list": {"type": "array", "maxItems": 2, "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
        },
        "required": ["city"],
    }
    body = {name: f"{{{name}}}" for name in ("unit", "days", "at", "list")}
    tool = tools("/{city}", method="POST", parameters=schema, body=body)

    assert await refused(tool, **arguments) == message
    assert api.asked == []
    assert tool.strict is False
    await told(tool, city="x", unit="C", days=8, at={"lat": 1}, list=["a", {}])


# --- secrets --------------------------------------------------------------------------------------


async def test_a_secret_of_the_environment_reaches_the_api_and_nobody_else(
    api: Api, tools: Tools, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A key in a header and one in the query; the API repeats both, in an answer and in an error."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WEATHER_KEY", SECRET)
    secret = {"headers": {"authorization": "Bearer ${WEATHER_KEY}"}, "query": {"key": "${WEATHER_KEY}"}}
    api.says("/fine", {"you": f"Bearer {SECRET}"})
    api.says("/wrong", f"bad key {SECRET}".encode(), status=401, kind="text/plain")

    fine, wrong = tools("/fine", **secret), tools("/wrong", **secret)
    monkeypatch.setenv("WEATHER_KEY", "changed since")

    assert await told(fine) == {"you": "Bearer (hidden)"}
    assert await refused(wrong) == "The API answered 401: bad key (hidden)"
    assert [asked.target for asked in api.asked] == [f"/fine?key={SECRET}", f"/wrong?key={SECRET}"]
    assert {asked.headers["authorization"] for asked in api.asked} == {f"Bearer {SECRET}"}
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert SECRET not in repr([*logged, fine, vars(fine)["_query"], vars(fine)["_headers"]])


def test_a_secret_that_is_not_set_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator forgot a variable, or it ends with the line break of a file."""
    with pytest.raises(ConfigError, match="needs WEATHER_KEY, which is not set") as caught:
        HTTPTool("w", "https://api.example/", description="", headers={"key": "${WEATHER_KEY}"})
    assert caught.value.hint == "set WEATHER_KEY in the environment"

    monkeypatch.setenv("WEATHER_KEY", f"{SECRET}\n")
    with pytest.raises(ConfigError, match="holds a line break") as caught:
        HTTPTool("w", "https://api.example/", description="", headers={"key": "${WEATHER_KEY}"})
    assert SECRET not in str(caught.value)


# --- mistakes of the operator's -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "two words"}, "cannot be called 'two words'"),
        ({"name": "1st"}, "cannot be called"),
        ({"name": "x" * 65}, "cannot be called"),
        ({"url": "api.example/x"}, "not an http or https URL"),
        ({"url": "ftp://api.example/x"}, "not an http or https URL"),
        ({"url": "https://api.example:port/"}, "not an http or https URL"),
        ({"url": "https://[::1/"}, "not an http or https URL"),
        ({"url": "https://{host}/x"}, "host and port cannot be an argument"),
        ({"url": "https://api.example:{port}/x"}, "not an http or https URL"),
        ({"url": "https://user:word@api.example/"}, "holds a user or a password"),
        ({"url": "https://api.example/a b"}, "holds a space"),
        ({"url": "https://api.example/#top"}, "after '#'"),
        ({"url": "http://api.example/"}, "without encryption"),
        ({"url": "https://10.0.0.1/"}, "not one that tools may reach"),
        ({"url": "https://0177.0.0.1/"}, "not one that tools may reach"),
        ({"url": "https://127.1/"}, "not one that tools may reach"),
        ({"url": "https://[::ffff:8.8.8.8]/"}, "not one that tools may reach"),
        ({"url": "https://localhost/"}, "this machine"),
        ({"url": "https://169.254.169.254/", "private": True}, "not one that tools may reach"),
        ({"url": "https://api.example/${HOME}"}, "HOME.* stands where no secret may"),
        ({"url": "https://api.example/{0.__class__}"}, "a brace that is no place"),
        ({"url": "https://api.example/{city!r:>10}"}, "a brace that is no place"),
        ({"url": "https://api.example/{}"}, "a brace that is no place"),
        ({"query": {"q": "{city"}}, "a brace that is no place"),
        ({"method": "TRACE"}, "a method that is not known"),
        ({"body": {"a": 1}}, "has a body, which GET has not"),
        ({"method": "POST", "body": "${HOME}"}, "stands where no secret may"),
        ({"headers": {"host": "x"}}, "cannot set the header 'host'"),
        ({"headers": {"x\r\ny": "x"}}, "cannot set the header"),
        ({"headers": {"{name}": "x"}}, "cannot set the header"),
        ({"headers": {"x": "a\r\nb: c"}}, "holds a line break"),
        ({"parameters": {"city": "a city"}}, "not the same: city"),
        ({"url": "https://api.example/{city}", "parameters": {"town": "a town"}}, "not the same: city, town"),
        ({"url": "https://api.example/{city}", "parameters": {"city": 5}}, "neither descriptions nor schemas"),
        ({"timeout": 0}, "not a number of seconds"),
        ({"timeout": "5"}, "not a number of seconds"),
        ({"filler": " "}, "says nothing"),
        ({"max_bytes": 0}, "not a number of bytes"),
        ({"hosts": "files.example"}, "hosts of a tool are one text"),
        ({"hosts": ["https://files.example/x"]}, "is no host"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_start(more: dict[str, Any], message: str) -> None:
    """A mistake in the code of an operator's."""
    given = {"name": "tool", "url": "https://api.example/", "description": "", **more}
    with pytest.raises(ConfigError, match=message):
        HTTPTool(given.pop("name"), given.pop("url"), **given)
