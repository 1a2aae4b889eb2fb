"""What a model, a name server or an API may try with an HTTP tool: none of it gets anywhere.

Rules:
- A refused argument is a ToolError, and nothing has arrived; an escaped one arrives as the very text that it is.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import pytest
from api_of_a_test import Api, Serve, some_turn

from firstword.errors import ToolError
from firstword.tools._outside import Outside
from firstword.tools.http import HTTPTool

SECRET = "canary-4f2a9c1d"
Make = Callable[..., HTTPTool]


@pytest.fixture
def api(serve: Serve) -> Api:
    return Api(serve)


@pytest.fixture
async def make(api: Api) -> AsyncIterator[Make]:
    """Make tools, on this machine's API unless told otherwise; each is closed."""
    made = []

    def build(url: str, **more: Any) -> HTTPTool:
        url = api.url + url if url.startswith("/") else url
        made.append(HTTPTool("tool", url, **{"description": "", "private": True, **more}))
        return made[-1]

    yield build
    for tool in made:
        await tool.close()


async def refused(tool: HTTPTool, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await tool.call(arguments, some_turn())
    return caught.value.message


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "..",
        ".",
        "../admin",
        "a/../../admin",
        "..\\admin",
        "%2e%2e",
        "%2E%2e/admin",
        "..%2fadmin",
        "%252e%252e%252fadmin",
        "%2525252525252e",
        "..;/admin",
        "..;x=1",
        " ../x",
        "a/.. /b",
        "",
        "a\0b",
        "a\r\nb",
        "\x7f",
        "\ud800",
        "x" * 1_000_000,
        "ü" * 3_000,
    ],
)
async def test_a_path_cannot_be_left(api: Api, make: Make, value: str) -> None:
    """A model was talked into another path than the tool's."""
    message = await refused(make("/files/{name}/text"), name=value)
    assert api.asked == [] and len(message) < 100


@pytest.mark.parametrize(
    "value",
    [
        "a/b",
        "?admin=1",
        "#top",
        "x&y=z",
        "@evil.example",
        "//evil.example/",
        "https://evil.example/",
        "{0.__class__}",
        "{name}",
        "${HOME}",
        "%s%n",
        "{{7*7}}",
        "%2f",
        "...",
        "..a",
        "früh 早い 🙂",
        "' OR 1=1 --",
        "\u2028",
    ],
)
async def test_what_is_escaped_arrives_as_the_very_text(api: Api, make: Make, value: str) -> None:
    """Signs that mean something in a URL or a template mean nothing in an argument."""
    tool = make(
        "/files/{name}/text",
        method="POST",
        parameters={"name": "a name", "name2": "another"},
        query={"q": "{name}"},
        body={"name": "{name}", "both": "{name}{name2}"},
    )

    await tool.call({"name": value, "name2": "${PATH}"}, some_turn())

    [asked] = api.asked
    path, _, query = asked.target.partition("?")
    assert path.count("/") == 3 and path.startswith("/files/") and path.endswith("/text")
    assert (unquote(path.split("/")[2]), unquote(query)) == (value, f"q={value}")
    assert asked.json == {"name": value, "both": value + "${PATH}"}
    assert asked.headers["host"] == f"127.0.0.1:{api.port}"


@pytest.mark.parametrize(
    ("path", "value"), [("/files/.{name}", "."), ("/files/..{name}", ";x"), ("/files/a{name}", "../x")]
)
async def test_text_beside_an_argument_does_not_help(api: Api, make: Make, path: str, value: str) -> None:
    """Text and argument together would be `..`, or the text would hide it."""
    assert "would lead elsewhere" in await refused(make(path), name=value)
    assert api.asked == []


@pytest.mark.parametrize(
    "value", ["a\r\nx-admin: 1", "a\nb", "a\rb", "a\0b", "\x1b[0m", "früh", "a\u0100b", "x" * 1_000_000]
)
async def test_a_header_cannot_be_broken(api: Api, make: Make, value: str) -> None:
    """An argument with a line break would be a header of the model's own."""
    assert "'x-city'" in await refused(make("/x", headers={"X-City": "{city}"}), city=value)
    assert api.asked == []


async def test_a_megabyte_is_refused_in_a_query_and_is_just_long_in_a_body(api: Api, make: Make) -> None:
    """A model that repeats itself without end."""
    assert "longer than" in await refused(make("/x", query={"q": "{text}"}), text="x" * 1_000_000)
    schema = {"type": "object", "properties": {"many": {"type": "array"}}}
    long = ["x" * 4096] * 8
    assert "too long" in await refused(make("/x", query={"q": "{many}"}, parameters=schema), many=long)
    assert api.asked == []

    await make("/x", method="POST", body="{text}").call({"text": "x" * 1_000_000}, some_turn())
    assert api.asked[0].json == "x" * 1_000_000


@pytest.mark.parametrize("value", [{"a": 1}, ["x"], None, float("nan"), float("inf")])
async def test_a_place_in_a_path_takes_texts_and_numbers_only(api: Api, make: Make, value: Any) -> None:
    """The schema allows anything, the place does not."""
    schema = {"type": "object", "properties": {"name": {}}}
    await refused(make("/files/{name}", parameters=schema), name=value)
    assert api.asked == []


async def test_half_a_character_is_refused_everywhere(api: Api, make: Make) -> None:
    """JSON can hold one, UTF-8 cannot."""
    assert "half of a character" in await refused(make("/x", query={"q": "{text}"}), text="\ud800")
    assert "half of a character" in await refused(make("/x", method="POST", body={"a": "-{text}"}), text="\ud800")
    assert "cannot be written" in await refused(make("/x", method="POST", body={"a": "{text}"}), text="\ud800")
    assert api.asked == []


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0x7f.1", "0x7f000001", "localhost.", "LOCALHOST."])
async def test_another_spelling_of_this_machine_is_found_out(make: Make, host: str) -> None:
    """Resolvers read more forms of an address than people do; it is the answer that is looked at."""
    message = await refused(make(f"https://{host}:1/", private=False))
    assert message in ("The API has an address that may not be reached.", UNKNOWN_NAME)


UNKNOWN_NAME = "The API could not be reached: its name is unknown."


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server of the test's own: what it knows, and nothing else."""
    known: dict[str, list[str]] = {}

    def look_up(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        found = [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in known.get(host, [])
        ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["8.8.8.8", "127.0.0.1"],
        ["2606:4700::1", "fd00:ec2::254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["fe80::1%1"],
    ],
)
async def test_a_name_with_one_private_address_is_not_connected(
    api: Api, make: Make, names: dict[str, list[str]], answers: list[str]
) -> None:
    """A name server answers with a host within, alone or among public ones; nobody is connected at all."""
    names["api.example"] = answers
    tool = make(f"https://api.example:{api.port}/", private=False)

    assert await refused(tool) == "The API has an address that may not be reached."
    assert tool.outside.transport().open_count == 0 and api.asked == []


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected(
    api: Api, make: Make, names: dict[str, list[str]]
) -> None:
    """A name server that answers well the first time and badly the second is asked once a connection."""
    names["inside.example"] = ["127.0.0.1"]
    tool = make(f"http://inside.example:{api.port}/x")
    await tool.call({}, some_turn())
    names["inside.example"] = ["169.254.169.254"]

    await tool.call({}, some_turn())  # the connection is kept, and with it its address
    await tool.close()

    assert await refused(tool) == "The API has an address that may not be reached."
    assert [asked.headers["host"] for asked in api.asked] == [f"inside.example:{api.port}"] * 2


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "location"),
    [
        ([], "http://169.254.169.254/latest/meta-data/"),
        (["169.254.169.254:80"], "http://169.254.169.254/latest/meta-data/"),
        ([], "http://localhost:{port}/secret"),
        (["localhost:{port}"], "http://localhost:{port}/secret"),
        (["127.0.0.2:{port}"], "http://127.0.0.2:{port}/secret"),
        ([], "http://127.0.0.1:1/secret"),
        (["evil.example"], "http://user:word@evil.example/"),
        ([], "//evil.example/"),
        ([], "https://evil.example/"),
        ([], "file:///etc/passwd"),
        ([], "http://[::1/"),
        ([], "/a b"),
        ([], "/" + "x" * 10_000),
        ([], ""),
    ],
)
async def test_a_redirect_cannot_lead_elsewhere(api: Api, make: Make, hosts: list[str], location: str) -> None:
    """The API sends the tool on: to a cloud's metadata, to this machine by another name, to a stranger."""
    api.says("/x", b"", status=302, location=location.replace("{port}", str(api.port)))
    tool = make("/x", hosts=[host.replace("{port}", str(api.port)) for host in hosts])

    message = await refused(tool)

    followed = "The API has an address that may not be reached."
    assert message in ("The API answered 302, a redirect that is not followed.", followed)
    assert (message == followed) == bool(hosts and "evil" not in location)
    assert [asked.target for asked in api.asked] == ["/x"]


async def test_a_redirect_within_the_origin_is_followed_with_the_headers(
    api: Api, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slash at the end was forgotten, as it is so often."""
    monkeypatch.setenv("KEY", SECRET)
    api.says("/x", b"", status=307, location="/x/?a=1#part")
    tool = make("/x", headers={"authorization": "${KEY}"})

    assert await tool.call({}, some_turn()) == {"ok": True}
    assert [asked.target for asked in api.asked] == ["/x", "/x/?a=1"]
    assert api.asked[1].headers["authorization"] == SECRET


async def test_a_redirect_to_another_origin_takes_no_header_with_it(
    api: Api, serve: Serve, make: Make, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is kept elsewhere, at a host that the operator named; it must not get the key."""
    monkeypatch.setenv("KEY", SECRET)
    elsewhere = Api(serve)
    names["127.0.0.1"] = names["files.example"] = ["127.0.0.1"]
    api.says("/x", b"", status=302, location=f"http://files.example:{elsewhere.port}/file")
    outside = Outside(private=["127.0.0.1", "files.example"])
    hosts = [f"files.example:{elsewhere.port}"]
    tool = make("/x", headers={"authorization": "${KEY}"}, hosts=hosts, outside=outside)

    assert await tool.call({}, some_turn()) == {"ok": True}
    [asked] = elsewhere.asked
    assert SECRET not in repr(asked) and asked.headers["host"] == f"files.example:{elsewhere.port}"


async def test_a_redirect_of_what_commits_is_not_followed(api: Api, make: Make) -> None:
    """A POST would become a GET, or be sent again elsewhere."""
    for status in (301, 302, 303, 307, 308):
        api.says("/x", b"", status=status, location="/y")
        assert (await refused(make("/x", method="POST", commits=False))).endswith("not followed.")
        assert (await refused(make("/x", method="POST"))).endswith("not known whether it was done.")
    assert {asked.target for asked in api.asked} == {"/x"}


async def test_redirects_in_a_circle_end(api: Api, make: Make) -> None:
    """The API sends the tool round and round."""
    api.says("/x", b"", status=302, location="/x")
    assert await refused(make("/x")) == "The API redirects without end."
    assert len(api.asked) == 4


async def test_an_answer_that_drips_without_end_is_left(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, and a tool that commits, without a time of its own: nobody else would ever end it."""

    async def drips(api: Api, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.wait({gone}, timeout=0.05)

    monkeypatch.setattr("firstword.tools.http.LONGEST_WAIT", 0.4)
    api.answers["/drips"] = drips

    message = await refused(make("/drips", method="POST"))

    assert message == "The API did not answer within 0.4 seconds. It is not known whether it was done."
