"""The ready-made scripts, as an ordinary HTTP client hears them."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from firstword.testing import Upstream, script

PATIENCE = 10.0  # seconds; only a broken upstream takes as long


@pytest.fixture
def marker(request: pytest.FixtureRequest) -> str:
    """A marker of the test's own: one process serves all tests."""
    return str(request.node.nodeid)


def fetch(upstream: Upstream, marker: str, **body: Any) -> tuple[http.client.HTTPResponse, bytes]:
    """Return the answer as an ordinary client gets it."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", json.dumps({"user": marker, **body}))
    response = connection.getresponse()
    try:
        return response, response.read()
    finally:
        connection.close()


def events_in(body: bytes) -> list[Any]:
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_in(body: bytes) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in events_in(body) if chunk != "[DONE]" and chunk.get("choices")]
    return "".join(delta.get("content", "") for delta in deltas)


# --- without a script -----------------------------------------------------------------------------


def test_a_request_without_a_script_is_echoed_word_by_word(upstream: Upstream, marker: str) -> None:
    """A test wants a good model and does not care what it says."""
    said = [{"role": "user", "content": "no"}, {"role": "user", "content": [{"type": "text", "text": "Tell me more"}]}]
    response, body = fetch(upstream, marker, messages=said, stream=True, stream_options={"include_usage": True})

    first, *middle, finish, usage, done = events_in(body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in middle] == ["Tell", " me", " more"]
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 3, "[DONE]")
    assert {(chunk["id"], chunk["object"]) for chunk in (first, *middle, finish, usage)} == {
        ("chatcmpl-script", "chat.completion.chunk")
    }


def test_a_request_that_does_not_stream_gets_one_completion(upstream: Upstream, marker: str) -> None:
    """`stream` is false, and no usage was asked for in the stream."""
    _, body = fetch(upstream, marker, messages=[{"role": "user", "content": "Hello there"}], stream=False)

    completion = json.loads(body)
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "Hello there"}


# --- the ready-made answers -----------------------------------------------------------------------

STREAMS = {
    "slow drip": (script.events(script.says("Hello there.", every=0.005)), "Hello there.", ["stop"], True),
    "only reasoning": (script.only_thinks(), "", ["stop"], True),
    "no done": (script.forgets_done("Hello there."), "Hello there.", ["stop"], False),
    "no finish": (script.forgets_to_finish("Hello there."), "Hello there.", [], True),
    "usage last": (script.counts_after("Hello there."), "Hello there.", ["stop"], True),
    "ends early": (script.ends_after("Hello there."), "Hello there.", [], False),
    "closed, to the end of the connection": (script.closes_after("Hello.", body="close"), "Hello.", [], False),
    "torn characters": (script.shreds("Grüße 👋"), "Grüße 👋", ["stop"], True),
    "hints first": ([script.early_hints(100), *script.events(script.says("Hi."))], "Hi.", ["stop"], True),
    "error at once": (script.fails_at_once(), "", [], False),
    "error later": (script.fails_after("Hello there."), "Hello there.", [], False),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_and_leaves_out_what_its_name_says(upstream: Upstream, marker: str, name: str) -> None:
    """Each is a whole HTTP response to an ordinary client."""
    steps, said, reasons, done = STREAMS[name]
    response, body = fetch(upstream, marker, script=steps)

    events = events_in(body)
    choices = [event["choices"][0] for event in events if isinstance(event, dict) and event.get("choices")]
    assert response.status == 200
    assert text_in(body) == said
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == reasons
    assert ("[DONE]" in events) is done
    assert ("error" in events[-1]) is name.startswith("error")


@pytest.mark.parametrize(
    ("steps", "status", "kind", "code"),
    [
        (script.rate_limits(), 429, "application/json", "rate_limit_exceeded"),
        (script.refuses(500), 500, "application/json", None),
        (script.refuses(200, code="overloaded"), 200, "application/json", "overloaded"),
        (script.finds_it_too_long(), 400, "application/json", "context_length_exceeded"),
        (script.finds_it_improper(), 400, "application/json", "content_policy_violation"),
        (script.shows_a_page(503), 503, "text/html", None),
        (script.shows_a_page(200), 200, "text/html", None),
    ],
)
def test_a_refusal_is_a_whole_document(
    upstream: Upstream, marker: str, steps: script.Script, status: int, kind: str, code: str | None
) -> None:
    """Before the first event a provider has an HTTP status and a body."""
    response, body = fetch(upstream, marker, script=steps)

    assert (response.status, response.headers["content-type"]) == (status, kind)
    assert body.startswith(b"<html>") if kind == "text/html" else json.loads(body)["error"]["code"] == code


@pytest.mark.parametrize("steps", [script.closes_after("Hello."), script.miscounts_after("Hello.")])
def test_a_broken_body_is_one_to_an_ordinary_client(upstream: Upstream, marker: str, steps: script.Script) -> None:
    """FIN where a chunk should be, or chunks that are not as long as they say."""
    with pytest.raises(http.client.HTTPException):
        fetch(upstream, marker, script=steps)


def test_a_retry_after_and_a_tool_call_are_as_a_provider_sends_them(upstream: Upstream, marker: str) -> None:
    """The second request of a marker gets the second script, and so do all after it."""
    call = [script.tool_call("weather", id="call_1"), script.tool_call(arguments='{"city": "Oslo"}')]
    scripts = [script.rate_limits("2"), script.events(call, script.finish("tool_calls"), script.done())]

    answers = [fetch(upstream, marker, scripts=scripts) for _ in range(3)]
    assert [response.status for response, _ in answers] == [429, 200, 200]
    assert answers[0][0].headers["retry-after"] == "2"
    first, more = [event["choices"][0]["delta"]["tool_calls"][0] for event in events_in(answers[2][1])[:2]]
    assert first == {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert more == {"index": 0, "function": {"arguments": '{"city": "Oslo"}'}}
    assert [record.attempt for record in upstream.seen(marker)] == [1, 2, 3]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[{"do": "sing"}], {"do": "end"}, 5, [{"do": "wait", "second": 1}]])
def test_a_wrong_script_is_told_to_the_test(upstream: Upstream, marker: str, wrong: Any) -> None:
    """A test must not pass because its script was never played."""
    response, _ = fetch(upstream, marker, script=wrong)

    assert response.status == 500
    with pytest.raises(ValueError, match="a request made a mistake"):
        upstream.seen(marker)
