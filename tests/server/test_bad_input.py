"""Whatever is sent to the server: a clear error with a true status, no secret in reply or log, and the next turn works.

The checks that follow every test stand in the fixture `door`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from caller import Caller, Heard
from served import Served

from firstword import App
from firstword.testing import Upstream

SECRETS = ("words-of-the-caller", "sk-of-the-caller")
KEY = {"authorization": "Bearer sk-of-the-caller"}
SAID = {"role": "user", "content": "words-of-the-caller"}
LIMIT = 300_000  # bytes of body


class Log(logging.Handler):
    """Everything that is logged by anybody, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line, and its traceback."""
        self.text += self.format(record) + "\n"


class Door:
    """The server's door, to be knocked at with anything."""

    def __init__(self, server: Served, log: Log) -> None:
        self.server = server
        self.log = log
        self.caller = Caller(server.url)

    async def hears(self, body: Any = None, **more: Any) -> Heard:
        """Send one well-formed HTTP request, and check that its reply, if it is an error, is one that clients read."""
        heard = await self.caller.hears(body, **{"headers": KEY, **more})
        if heard.status != 200 and more.get("method") != "HEAD":
            assert set(heard.json) == {"error"}
            assert set(heard.error) == {"message", "type", "param", "code"}
            assert heard.headers["content-type"] == "application/json"
        assert not any(secret.encode() in heard.body for secret in SECRETS)
        assert b"Traceback" not in heard.body
        return heard

    async def refuses(self, body: Any, status: int = 400, **more: Any) -> Heard:
        """Send a request that must be refused."""
        heard = await self.hears(body, **more)
        assert heard.status == status, heard.body
        return heard

    async def answers_raw(self, *pieces: bytes) -> bytes:
        """Send bytes as they are, and return all that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.transport.abort()


@pytest.fixture(scope="module")
def _served(upstream: Upstream) -> Iterator[Served]:
    server = Served(App(base_url=upstream.base_url, max_body=LIMIT, body_timeout=0.2))
    yield server
    server.stop()


@pytest.fixture
async def door(_served: Served) -> AsyncIterator[Door]:
    """The door of a server; afterwards nothing was told and nothing is broken."""
    root, log = logging.getLogger(), Log()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    door = Door(_served, log)
    try:
        yield door
        assert (await door.caller.says("Still there?", headers=KEY)).text == "Still there?"
        assert _served.left_open() == {"in_use": 0, "turns": 0}
    finally:
        root.removeHandler(log)
        root.setLevel(level)
    assert not [secret for secret in SECRETS if secret in log.text]
    assert "Traceback" not in log.text


# --- bodies that are no request -----------------------------------------------------------------------

GOOD = json.dumps({"model": "m1", "messages": [SAID]}).encode()
OPEN = b'{"model":"m1","messages":[' + json.dumps(SAID).encode() + b'],"x":'  # and a value and `}` to make it whole


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is not JSON"),
        (b"words-of-the-caller", "The body is not JSON"),
        (GOOD[:-5], "The body is not JSON"),
        (GOOD + b"}", "The body is not JSON: trailing characters"),
        (b"\xef\xbb\xbf" + GOOD, "The body is not JSON"),
        (GOOD.decode().encode("utf-16"), "The body is not JSON"),
        (GOOD.replace(b'"', b"'"), "The body is not JSON"),
        (OPEN + b'"\xff words-of-the-caller"}', "The body is not UTF-8."),
        (OPEN + b'"\xed\xa0\x80"}', "The body is not UTF-8."),
        (OPEN + b'"\\ud800 words-of-the-caller"}', "The body is not JSON"),
        (OPEN + b'"a\nb"}', "The body is not JSON"),
        (OPEN + b"NaN}", "The body is not JSON"),
        (OPEN + b"Infinity}", "The body is not JSON"),
        (OPEN + b"-Infinity}", "The body is not JSON"),
        (OPEN + b"1e400}", "The body is not JSON: number out of range"),
        (OPEN + b"9" * 5000 + b"}", "The body is not JSON: integer value out of range"),
        (OPEN + b"[" * 90_000 + b"]" * 90_000 + b"}", "The body is nested too deeply."),
        (OPEN + b'{"a":' * 40_000 + b"1" + b"}" * 40_001, "The body is nested too deeply."),
        (OPEN + b"[" * 90_000, "The body is nested too deeply."),
        (OPEN + b"[" * 140_000 + b"]" * 140_000 + b"}", "The body holds more than 100000 objects and lists."),
        (OPEN + b"[" + b"[]" * 140_000, "The body holds more than 100000 objects and lists."),
        *((scalar, "The body is not a JSON object.") for scalar in (b"null", b"1", b'"a"', b"true", b"[]", b"[{}]")),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(door: Door, body: bytes, message: str) -> None:
    """The message says what is wrong, and repeats nothing of it."""
    heard = await door.refuses(body)

    assert heard.error["message"].startswith(message)
    assert (heard.error["type"], heard.headers["x-should-retry"]) == ("invalid_request_error", "false")


@pytest.mark.parametrize(
    "body",
    [
        GOOD[:-1] + b',"model":"m2"}',
        GOOD[:-1] + b' , "model" :\n"m2"}',
        b'{"model" : "m1", "messages" : [{"role" : "user", "content" : "a", "content" : "words-of-the-caller"}]}',
        OPEN + b'[[{"a":1,"\\u0061":2}]]}',
        OPEN + b'{"":1,"":1},"long":"' + b'\\":' * 100 + b'"}',
    ],
    ids=["root", "spaces", "nested", "escaped", "empty"],
)
async def test_a_key_that_is_said_twice_is_refused(door: Door, body: bytes) -> None:
    """Which of the two counts, a filter before us and a model behind us may see differently."""
    assert (await door.refuses(body)).error["message"] == "The body says a key twice in one object."


async def test_text_that_looks_like_a_key_is_no_key(door: Door) -> None:
    """Quotes and colons within strings, and the same key in two objects."""
    body = {"model": "m1", "a": {"x": '":":"'}, "b": {"x": '"x":'}, '":': 1, "messages": [SAID]}

    assert (await door.caller.hears(body)).status == 200


@pytest.mark.parametrize("model", ["m1", "demo"])
@pytest.mark.parametrize("field", ["x", "tools", "response_format", "content"])
async def test_nesting_that_can_be_read_never_breaks_a_turn(door: Door, model: str, field: str) -> None:
    """900 levels are about what a Python stack can take: an answer or a refusal, never a mistake of ours."""
    deep: Any = {"type": "object", "properties": {}}
    for _ in range(450):
        deep = {"properties": [deep]}
    fields: dict[str, Any] = {
        "x": {"x": deep},
        "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]},
        "response_format": {"response_format": {"type": "json_schema", "json_schema": {"schema": deep}}},
        "content": {"messages": [{"role": "user", "content": [deep]}]},
    }[field]
    heard = await door.hears({"model": model, "messages": [{"role": "user", "content": "call f"}], **fields})

    assert heard.status in (200, 400)
    assert heard.status == 200 or heard.error["message"] == "The body is nested too deeply."


# --- fields of the wrong type ---------------------------------------------------------------------------


def each(*values: Any) -> tuple[Any, ...]:
    """Values of any type."""
    return values


def one(part: Any) -> dict[str, Any]:
    """A request whose only message has one part."""
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *(({"model": value}, "model") for value in each(1, True, [], {}, ["m1"])),
        *(({"stream": value}, "stream") for value in each(1, 0, "true", [], {})),
        *(({"stream_options": value}, "stream_options") for value in each(True, "include_usage", [])),
        *(({"tools": value}, "tools") for value in each(True, "f", {}, {"type": "function"})),
        *(({"messages": value}, "messages") for value in each(None, "Hi", {}, 1, [])),
        *(({"messages": [SAID, value]}, "messages[1]") for value in each(None, "Hi", 1, [])),
        *(({"messages": [{"role": value, "content": ""}]}, "messages[0].role") for value in each(None, 1, ["user"])),
        ({"messages": [SAID, {"content": "words-of-the-caller"}]}, "messages[1].role"),
        *(({"messages": [{"role": "user", "content": value}]}, "messages[0].content") for value in each(1, True, {})),
        *((one(value), "messages[0].content[0]") for value in each("words-of-the-caller", 1, None, [])),
        *(
            (one({"type": kind, **image}), "messages[0].content[0].image_url.url")
            for kind in ("image", "image_url")
            for image in each({}, {"image_url": ""}, {"image_url": 1}, {"image_url": {}}, {"image_url": {"url": None}})
        ),
    ],
)
async def test_a_field_of_the_wrong_type_is_named(door: Door, fields: dict[str, Any], param: str) -> None:
    """A caller, or the log of one, must see at once what to mend."""
    heard = await door.refuses({"model": "m1", "stream": True, "messages": [SAID], **fields})

    assert (heard.error["param"], heard.error["code"]) == (param, "bad_request")
    assert f"`{param}`" in heard.error["message"]


async def test_a_request_without_messages_is_refused(door: Door) -> None:
    """The field is not even there."""
    heard = await door.refuses({"model": "m1"})

    assert (heard.error["param"], heard.error["message"].splitlines()[0]) == ("messages", "`messages` is missing.")


@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": None}])
async def test_a_request_without_a_model_is_told_what_to_do(door: Door, fields: dict[str, Any]) -> None:
    """Nobody said which one, neither the caller nor the operator."""
    heard = await door.refuses({"messages": [SAID], **fields})

    assert (heard.error["param"], "LLM_MODEL" in heard.error["message"]) == ("model", True)


@pytest.mark.parametrize(
    "model", ["m\r\nx-evil: 1\nforged log line", "m" * 10_000, "../../etc/passwd", "\0", "🦜", " "]
)
async def test_an_absurd_model_is_the_providers_to_judge(door: Door, upstream: Upstream, model: str) -> None:
    """It goes on within the JSON, and nowhere else: not into a header, a URL or the log."""
    heard = await door.hears({"model": model, "messages": [{"role": "user", "content": "Hi"}], "user": repr(model)})

    [record] = await upstream.wait_settled(repr(model))
    assert (heard.status, record.body["model"], record.path) == (200, model, "/v1/chat/completions")
    assert "forged" not in door.log.text
    assert "m" * 100 not in door.log.text


# --- sizes and times --------------------------------------------------------------------------------------

HEAD = b"POST /chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-of-the-caller\r\n"


async def test_a_body_of_just_the_limit_is_read_and_one_more_byte_is_not(door: Door) -> None:
    """The limit is counted in bytes of JSON."""
    body = GOOD + b" " * (LIMIT - len(GOOD))

    assert (await door.caller.hears(body)).status == 200
    heard = await door.refuses(body + b" ", 413)
    assert (heard.error["code"], heard.headers["connection"]) == ("payload_too_large", "close")


@pytest.mark.parametrize("length", [LIMIT + 1, 10**18])
async def test_a_length_over_the_limit_is_refused_before_the_body_comes(door: Door, length: int) -> None:
    """Only the head is sent."""
    answer = await door.answers_raw(HEAD + b"content-length: %d\r\n\r\n" % length)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"payload_too_large"' in answer


async def test_a_body_that_does_not_say_its_length_is_cut_at_the_limit(door: Door) -> None:
    """Chunked, and without an end."""
    chunks = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    answer = await door.answers_raw(HEAD + b"transfer-encoding: chunked\r\n\r\n", chunks * 40)

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", [b"", b'{"messages":[{"role":"user","content":"words-of-the-caller'])
async def test_a_body_that_does_not_come_is_not_waited_for(door: Door, sent: bytes) -> None:
    """The head promises a body; some of it comes or none, and then nothing."""
    answer = await door.answers_raw(HEAD + b"content-length: 1000\r\n\r\n" + sent)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert b"connection: close" in answer
    assert b"x-should-retry" not in answer  # a client's network may be better the next time


@pytest.mark.parametrize(
    "sent", [HEAD, HEAD + b"content-length: 1000\r\n\r\n", HEAD + b'content-length: 1000\r\n\r\n{"messages":']
)
async def test_a_caller_who_leaves_in_mid_request_leaves_nothing_behind(door: Door, sent: bytes) -> None:
    """In the head, after it, in the body; `door` looks for what is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    writer.write(sent)
    await writer.drain()
    writer.close()
    assert await reader.read() == b""


# --- the rest of HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_hot_path_takes_post_only(door: Door, method: str) -> None:
    """A browser that looks, a health check that was pointed at the wrong URL, a preflight."""
    heard = await door.refuses(None, 405, method=method)

    assert (heard.headers["allow"], bool(heard.body)) == ("POST", method != "HEAD")


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/chat", "/chat/completions/x", "/v2/chat/completions", "/%00"])
async def test_an_unknown_path_is_told_where_to_go(door: Door, path: str) -> None:
    """A typo in the URL that somebody pasted."""
    assert "/chat/completions" in (await door.refuses(GOOD, 404, path=path)).error["message"]


async def test_a_page_takes_no_post(door: Door) -> None:
    """POST where GET belongs."""
    assert (await door.refuses(GOOD, 405, path="/health")).headers["allow"] == "GET, HEAD"


async def test_a_compressed_body_is_refused_with_a_hint(door: Door) -> None:
    """No engine does; and a small body may unfold to gigabytes."""
    heard = await door.refuses(gzip.compress(GOOD), headers={**KEY, "content-encoding": "gzip"})

    assert "content-encoding" in heard.error["message"]
    assert (await door.caller.hears(GOOD, headers={"content-encoding": "identity"})).status == 200


@pytest.mark.parametrize(
    "value", ["Basic c2stb2YtdGhlLWNhbGxlcg==", "Bearer two words", "Bearer k\u00e9y", "Bearer a\tb"]
)
async def test_a_key_that_is_none_is_refused(door: Door, value: str) -> None:
    """It could not be sent on as it is; a provider's 401 would tell less."""
    heard = await door.refuses(GOOD, 401, headers={"authorization": value.encode("latin-1")})

    assert (heard.error["code"], value in heard.body.decode()) == ("invalid_api_key", False)


async def test_of_two_keys_one_goes_on(door: Door, upstream: Upstream) -> None:
    """A proxy added its own header instead of replacing the caller's."""
    body = GOOD[:-1] + b',"user":"two-keys"}'
    rest = b"authorization: Bearer sk-second\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = await door.answers_raw(HEAD + rest + body)

    [record] = await upstream.wait_settled("two-keys")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [value for name, value in record.headers if name == "authorization"] == ["Bearer sk-second"]


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"BREW /chat/completions HTTP/1.1\r\nhost: a\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"x-odd: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(door: Door, junk: bytes) -> None:
    """Scanners, and requests that two readers would cut differently."""
    assert (await door.answers_raw(junk)).startswith(b"HTTP/1.1 400 ")


async def test_a_websocket_is_refused(door: Door) -> None:
    """An engine that was told the wrong kind of URL; under a server that knows websockets it is closed at once."""
    ask = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    head = HEAD.replace(b"POST", b"GET") + ask + b"sec-websocket-version: 13\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    writer.write(head)
    assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
    writer.transport.abort()

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await App(warm=False)({"type": "websocket", "path": "/chat/completions"}, receive, send)
    assert sent == ["websocket.close"]
