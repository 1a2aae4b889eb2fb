"""The OpenAI dialect around the stream: where a request goes, what is a stream, and what a refusal says."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from firstword.errors import BadRequest, UpstreamError, UpstreamProtocolError, UpstreamStatusError
from firstword.providers.openai import join, provider
from firstword.turn import Turn

KEY = "sk-secret-123"
SILENT = "The model's server reported an error."


def refuses(status: int, body: Any, headers: dict[str, str] | None = None) -> UpstreamError:
    """Return the error of a response; a body that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider.refuse(status, headers or {}, raw, secret=KEY)


# --- where a request goes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1//", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:11434", "http://localhost:11434/chat/completions"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/chat/completions/", "https://api.openai.com/v1/chat/completions"),
        ("https://a.example/d/gpt?api-version=1", "https://a.example/d/gpt/chat/completions?api-version=1"),
        ("https://a.example/d/gpt/?api-version=1", "https://a.example/d/gpt/chat/completions?api-version=1"),
        ("https://a.example/chat/completions?v=1/2&x=", "https://a.example/chat/completions?v=1/2&x="),
        ("https://a.example/v1/chat", "https://a.example/v1/chat/chat/completions"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_a_base_url_may_be_pasted_in_any_form(base_url: str, url: str) -> None:
    """With a slash, with Azure's query, with the path already on it."""
    assert join(base_url, "/chat/completions") == url
    assert join(base_url, "/models") == url.replace("/chat/completions", "/models")


def test_a_request_asks_for_a_stream_that_nobody_compresses() -> None:
    """A compressed stream is a late stream; the key stands in one header and in no URL."""
    turn = Turn(request={"model": "x", "messages": [], "temperature": None, "zeta": {"y": [1]}}, stream=True)

    asked = provider.request(turn, model="gpt", base_url="https://a.example/v1", key=KEY)

    assert json.loads(asked.body) == {**turn.request, "model": "gpt", "stream": True}
    headers = dict(asked.headers)
    assert (headers["accept-encoding"], headers["accept"]) == ("identity", "text/event-stream")
    assert headers["authorization"] == f"Bearer {KEY}" and KEY not in asked.url
    assert "authorization" not in dict(provider.request(turn, model="gpt", base_url="http://a", key=None).headers)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "x": 1}])
def test_a_reply_in_one_piece_is_asked_for_as_a_stream_with_usage(options: Any) -> None:
    """`stream: false` shows usage always; the turn's own body is not changed."""
    turn = Turn(request={"model": "x", "messages": [], "stream": False, "stream_options": options}, stream=False)

    body = json.loads(provider.request(turn, model="x", base_url="http://a", key=None).body)

    assert body["stream"] is True and body["stream_options"] == {**(options or {}), "include_usage": True}
    assert turn.request["stream_options"] == options and turn.request["stream"] is False


def test_a_body_that_is_nested_too_deeply_is_a_bad_request() -> None:
    """A hook put something endless into it."""
    deep: list[Any] = []
    deep.append(deep)

    with pytest.raises(BadRequest, match="too deeply"):
        provider.request(Turn(request={"messages": deep}), model="x", base_url="http://a", key=None)


# --- what is a stream -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "streams"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("Text/Event-Stream;charset=UTF-8", True),
        ("text/plain", True),
        ("application/octet-stream", True),
        ("", True),
        ("application/json", False),
        ("text/html; charset=utf-8", False),
        ("application/x-ndjson", False),
    ],
)
def test_json_and_pages_are_no_streams(kind: str, streams: bool) -> None:
    """Some servers forget the type; one that says JSON means it."""
    assert provider.streams({"content-type": kind}) is streams
    assert provider.streams({}) is True


# --- what a refusal says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "message", "kept"),
    [
        (401, {"error": {"message": "Who?", "type": "auth", "code": "bad_key", "x": 1}}, "Who?", {"x": 1}),
        (429, {"error": {"message": "Slow down."}}, "Slow down.", {"type": "upstream_error", "code": None}),
        (400, {"error": "bad model"}, "bad model", {"type": "upstream_error"}),
        (404, {"detail": "Not Found"}, "Not Found", {}),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, SILENT, {}),
        (500, {"object": "error", "message": "vLLM broke", "code": 50001}, "vLLM broke", {"code": 50001}),
        (400, [{"error": {"code": 400, "message": "Gemini", "status": "INVALID_ARGUMENT"}}], "Gemini", {"code": 400}),
        (503, b"<html><h1>Sorry</h1></html>", "The model's server answered with status 503.", {"param": None}),
        (500, b"", "The model's server answered with status 500.", {}),
        (500, b"\xff\xfe{", "The model's server answered with status 500.", {}),
        (500, b'{"error": {"message": "cut o', "The model's server answered with status 500.", {}),
        (500, b"[" * 100_000, "The model's server answered with status 500.", {}),
        (500, {}, "The model's server answered with status 500.", {}),
        (500, [], "The model's server answered with status 500.", {}),
        (500, "broken", "The model's server answered with status 500.", {}),
        (500, {"error": None}, "The model's server answered with status 500.", {}),
        (500, {"error": {"message": ""}}, SILENT, {}),
        (500, {"error": {"message": ["a"]}}, SILENT, {}),
    ],
)  # fmt: skip
def test_a_refusal_keeps_its_status_and_its_own_words(status: int, body: Any, message: str, kept: Any) -> None:
    """OpenAI, FastAPI, vLLM, Gemini's list, a balancer's page, a page cut off."""
    error = refuses(status, body)

    assert isinstance(error, UpstreamStatusError)
    assert (error.status, error.message) == (status, message)
    told = error.body()["error"]
    assert told["message"] == message and isinstance(told["type"], str) and {"param", "code"} <= told.keys()
    assert {name: told[name] for name in kept} == kept
    msgspec.json.encode(told)


@pytest.mark.parametrize("body", [b"", b"{}", {"error": {"message": "Denied."}}])
def test_a_status_that_http_does_not_have_is_a_bad_gateway(body: Any) -> None:
    """Some sites answer 999, which no server of ours could send on."""
    assert refuses(999, body).status == 502


@pytest.mark.parametrize("status", [200, 201, 204])
def test_an_error_that_calls_itself_a_success_has_the_status_of_its_words(status: int) -> None:
    """LiteLLM#6957; a stranger's words are a bad gateway."""
    limited = refuses(status, {"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}})

    assert (limited.status, limited.message) == (429, "Slow down.")
    assert refuses(status, {"error": "x"}).status == 502


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>Please log in</html>", "a page where an event stream was asked for"),
        (200, {"choices": [{"message": {"content": "Hi"}}]}, "a page where an event stream was asked for"),
        (204, b"", "a page where an event stream was asked for"),
        (301, b"<html>Moved</html>", "a redirect"),
        (307, b"", "a redirect"),
    ],
)
def test_a_page_or_a_redirect_is_told_with_a_mend(status: int, body: Any, words: str) -> None:
    """A captive portal; a base URL without its path. Keys do not follow a redirect."""
    error = refuses(status, body, {"location": "https://elsewhere.example"})

    assert isinstance(error, UpstreamProtocolError) and words in error.message
    assert error.status == 502 and "LLM_BASE_URL" in str(error)
    assert "elsewhere" not in str(error) and "Please log in" not in str(error)


def test_what_steers_retries_is_passed_on_and_nothing_else() -> None:
    """SDKs obey x-should-retry first, retry-after-ms before retry-after."""
    steering = {"retry-after": "7", "retry-after-ms": "6500", "x-should-retry": "true"}

    for body in ({"error": {"message": "x"}}, b""):
        assert refuses(429, body, {**steering, "set-cookie": "a=b", "server": "x"}).headers() == steering
    assert refuses(400, b"").headers() == {"x-should-retry": "false"}
    assert refuses(400, b"", {"x-should-retry": "true"}).headers() == {"x-should-retry": "true"}
    assert refuses(503, b"").headers() == {}


def test_another_model_may_answer_what_this_one_could_not() -> None:
    """Not what is wrong with the request itself."""
    statuses = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529)

    assert [status for status in statuses if refuses(status, b"").retryable] == [408, 409, 429, 500, 503, 529]


def test_keys_and_tracebacks_go_no_further() -> None:
    """In any field, at any depth, also where the message is cut at its greatest length."""
    trace = "Traceback (most recent call last):\n  File /srv/app.py"
    pages: list[Any] = [
        {"error": {"message": f"Incorrect API key provided: {KEY}.", "type": KEY, "code": KEY, "param": KEY}},
        {"error": {"message": "x" * 1995 + KEY}},
        {"error": {"message": "Broke.", "stack": [trace], "request": {"headers": {"authorization": f"Bearer {KEY}"}}}},
        {"error": {"message": trace}},
        {"detail": trace},
        {"detail": KEY},
        {"message": KEY, "detail": None},
        f"<html>{KEY}<pre>{trace}</pre></html>".encode(),
    ]

    for page in pages:
        error = refuses(500, page)
        told = json.dumps(error.body()) + str(error) + repr(error) + json.dumps(error.headers())
        assert KEY not in told and KEY[:5] not in told and "Traceback" not in told and "/srv" not in told


def test_a_long_message_is_cut() -> None:
    """What is longer is a page, not a sentence."""
    assert refuses(500, {"error": {"message": "x" * 60_000}}).message == "x" * 2000


def test_a_short_key_is_no_secret() -> None:
    """People send `test` or `k` to servers that need no key; ordinary words must not be cut for it."""
    body = b'{"error":{"message":"Incorrect API key provided","type":"auth","code":"invalid_api_key"}}'
    error = provider.refuse(401, {}, body, secret="k")
    assert error.body()["error"]["message"] == "Incorrect API key provided"
    assert error.code == "invalid_api_key"


def test_an_error_without_a_floor_is_told_by_its_status() -> None:
    """An error object nested 900 deep."""
    body = b'{"error":' + b'{"a":' * 900 + b"1" + b"}" * 901
    assert provider.refuse(400, {}, body, secret="sk-long-enough").status == 400


def test_a_page_that_is_not_there_says_where_to_look() -> None:
    """The base URL lacks its /v1."""
    error = provider.refuse(404, {"content-type": "text/html"}, b"<html>", secret=None)
    assert error.status == 404 and "LLM_BASE_URL" in (error.hint or "")
