"""OpenAI's own Node SDK as the caller, in a process of its own; `node/talk.mjs` is the app that uses it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from framework import NODE, node
from served import Served

from firstword import App
from firstword.testing import Upstream, script

HELLO = {"model": "m1", "messages": [{"role": "user", "content": "Hello there, my friend."}]}
TWO_CALLS = script.events(
    script.role(),
    script.tool_call("get_weather", "", id="call_1", index=0),
    script.tool_call(arguments='{"city": "Pa', index=0),
    script.tool_call(arguments='ris"}', index=0),
    script.tool_call("get_time", '{"city": "Oslo"}', id="call_2", index=1),
    script.finish("tool_calls"),
    script.done(),
)


@pytest.fixture(scope="module")
def server(upstream: Upstream) -> Iterator[Served]:
    """One server for all: none of the tests changes the App."""
    # The SDK shall be the one that tries again.
    served = Served(App(base_url=upstream.base_url, hedge_share=0))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def app(server: Served) -> Iterator[subprocess.Popen[str]]:
    """The app: a Node process that lives as long as the tests."""
    command = [node(), str(NODE / "talk.mjs"), f"{server.url}/v1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def talk(app: subprocess.Popen[str]) -> Callable[..., Any]:
    """Return the call that lets the app send a request in one of its ways and tells what it heard."""

    def talk(way: str, steps: script.Script | None = None, **fields: Any) -> Any:
        body = {**HELLO, **fields, **({} if steps is None else {"script": steps})}
        assert app.stdin is not None and app.stdout is not None
        print(json.dumps({"way": way, "body": body}), file=app.stdin, flush=True)
        return json.loads(app.stdout.readline())

    return talk


def test_a_stream_says_what_the_model_says(talk: Callable[..., Any]) -> None:
    """An app iterates over a stream and asks for usage."""
    heard = talk("iterates", stream_options={"include_usage": True})

    assert (heard["words"], heard["chunks"]) == ("Hello there, my friend.", 7)
    assert heard["usage"] == script.tokens(completion=4)
    assert "error" not in heard


def test_a_reply_in_one_piece_is_whole(talk: Callable[..., Any]) -> None:
    """`stream` is left out."""
    whole = talk("asks_once")["whole"]

    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello there, my friend.",
        "refusal": None,
    }
    assert whole["usage"] == script.tokens(completion=4)


def test_the_helper_puts_the_words_together(talk: Callable[..., Any]) -> None:
    """`.stream()` and `finalChatCompletion()`: the strictest reader of the SDK."""
    heard = talk("uses_the_helper")

    assert heard["whole"]["choices"][0]["message"]["content"] == heard["words"] == "Hello there, my friend."
    assert heard["whole"]["choices"][0]["finish_reason"] == "stop"


def test_two_parallel_calls_arrive_whole(talk: Callable[..., Any]) -> None:
    """The engine owns the tools; the model calls two of them, one in pieces."""
    names = ("get_weather", "get_time")
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]
    heard = talk("uses_the_helper", TWO_CALLS, tools=tools)

    calls = heard["whole"]["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("call_1", "get_weather", '{"city": "Paris"}'),
        ("call_2", "get_time", '{"city": "Oslo"}'),
    ]
    assert [call["name"] for call in heard["calls"]] == ["get_weather", "get_time"]
    assert heard["whole"]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_demo_speaks_through_the_helper(talk: Callable[..., Any]) -> None:
    """A new user has no key yet."""
    heard = talk("uses_the_helper", model="demo", pace=0)

    assert "Hello" in heard["words"]
    assert heard["whole"]["choices"][0]["message"]["content"] == heard["words"]


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (401, "authentication_error", "AuthenticationError"),
        (404, "not_found_error", "NotFoundError"),
    ],
)
def test_a_refusal_is_the_right_class_and_asked_once(
    talk: Callable[..., Any], upstream: Upstream, status: int, kind: str, raised: str
) -> None:
    """The provider refuses for good; the SDK throws its class and does not ask again."""
    marker = uuid4().hex
    error = talk("iterates", script.refuses(status, "Not like this.", type=kind, code="c"), user=marker)["error"]

    assert (error["class"], error["status"], error["type"], error["code"]) == (raised, status, kind, "c")
    assert "Not like this." in error["message"]
    assert len(upstream.seen(marker)) == 1


def test_a_rate_limit_is_waited_out(talk: Callable[..., Any], upstream: Upstream) -> None:
    """The provider answers 429 once and says when to come back."""
    marker = uuid4().hex
    limits = script.refuses(429, "Rate limit reached.", headers={"retry-after-ms": "30"})
    heard = talk("iterates", scripts=[limits, script.events(script.says("Here I am."))], user=marker)

    first, second = upstream.seen(marker)
    assert heard["words"] == "Here I am."
    assert 0.03 <= second.requested - first.requested < 0.3  # the SDK's own pause would be 0.4 s and more


@pytest.mark.parametrize("breaks", [script.fails_after("One two"), script.closes_after("One two")])
def test_a_break_in_mid_answer_is_thrown(talk: Callable[..., Any], breaks: script.Script) -> None:
    """The model breaks after two words: the app has them, and then an error instead of a false end."""
    heard = talk("iterates", breaks)

    assert heard["words"] == "One two"
    assert heard["error"]["api"] is True


def test_leaving_the_loop_closes_the_upstream(talk: Callable[..., Any], server: Served, upstream: Upstream) -> None:
    """The caller interrupts: the app breaks out of its loop at the first word, and lives on."""
    marker = uuid4().hex
    heard = talk("hangs_up", script.stalls_after("Once upon a time"), user=marker)

    (record,) = upstream.seen(marker, until="closed", count=1)
    assert heard["words"] == "Once"
    assert record.closed_by == "peer"
    assert server.left_open() == {"in_use": 0, "turns": 0}


def test_the_list_of_models_holds_ours_and_the_upstreams(talk: Callable[..., Any]) -> None:
    """A dashboard asks which models there are."""
    assert talk("lists_models")["words"].split() == ["demo", "scripted", "scripted-mini"]
