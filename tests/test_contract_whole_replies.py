"""What a client gets that asked for the reply in one piece: one `chat.completion`, put together from the stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from caller import ABOUT, Caller, Heard
from served import Served

from firstword import App, Chunk, Turn
from firstword.collect import completion
from firstword.testing import Upstream, script

Json = dict[str, Any]

METADATA = {"id": "chatcmpl-script", "object": "x.metadata", "choices": [], "metadata": {"interruptable": False}}
ENDING = {"index": 0, "delta": {}, "finish_reason": "stop"}


async def answers(turn: Turn) -> AsyncIterator[str]:
    """Say two words."""
    yield "Hello"
    yield " there."


@pytest.fixture(scope="module")
def caller(upstream: Upstream) -> Iterator[Caller]:
    """Somebody who calls a server with one function of its own and the scripted model behind it."""
    app = App(base_url=upstream.base_url)
    app.model("answers")(answers)
    server = Served(app)
    yield Caller(server.url)
    server.stop()


def whole(heard: Heard) -> Json:
    """Assert that the reply is one good object, and return it."""
    own = {name: value for name, value in heard.headers.items() if name != "date" and name not in ABOUT}
    assert set(heard.headers) >= set(ABOUT)
    length = str(len(heard.body))
    kept = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    assert (heard.status, own) == (200, {"content-type": "application/json", "content-length": length, **kept})
    assert heard.headers["x-request-id"].startswith("chatcmpl-")
    reply: Json = heard.json
    assert (reply["object"], type(reply["created"])) == ("chat.completion", int)
    assert all(isinstance(reply[name], str) and reply[name] for name in ("id", "model"))
    for place, choice in enumerate(reply["choices"]):
        assert (choice["index"], choice["message"]["role"]) == (place, "assistant")
        assert isinstance(choice["finish_reason"], str)
        assert "delta" not in choice
        assert {"content", "refusal"} <= set(choice["message"])
    return reply


async def hears(caller: Caller, *events: script.Step | script.Script, **fields: Any) -> Json:
    """Ask the scripted model, which answers with `events`, for one piece."""
    return whole(await caller.says(stream=False, script=script.events(*events), **fields))


async def test_a_reply_in_one_piece_is_the_stream_put_together(caller: Caller) -> None:
    """Role, words, ending and usage, of which the caller asked for none but the words."""
    assert await hears(caller, script.counts_after("Hello there.")[1:-1]) == {
        "id": "chatcmpl-script",
        "object": "chat.completion",
        "created": script.chunk({})["created"],
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there.", "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": script.tokens(),
    }


@pytest.mark.parametrize("model", ["demo", "answers"])
async def test_whoever_answers_the_reply_has_one_form(caller: Caller, model: str) -> None:
    """A model in the process and a function; only who counts tokens tells of them."""
    reply = whole(await caller.says("Hello", stream=False, model=model))

    assert (reply["model"], reply["choices"][0]["finish_reason"]) == (model, "stop")
    assert reply["choices"][0]["message"]["content"].split()
    assert ("usage" in reply) == (model == "demo")
    assert model != "demo" or reply["usage"]["total_tokens"] > reply["usage"]["prompt_tokens"] > 0


async def test_unknown_fields_are_kept_where_they_stood(caller: Caller) -> None:
    """At the root, in a choice and in a message; a thought that must come back with the next turn as well."""
    reply = await hears(
        caller,
        script.event(METADATA),
        script.event(script.chunk({"role": "assistant", "content": ""}, system_fingerprint="fp", tier=None)),
        script.event(script.chunk({"reasoning_content": "Let me"}, provider={"name": "p"}, usage=None)),
        script.event(script.chunk({"reasoning_content": " think.", "extra_content": {"google": {"sig": "=="}}})),
        script.event(script.chunk({"content": "Hi"}, tier="gold")),
        script.event(script.chunk({}, choices=[{**ENDING, "native_finish_reason": "STOP", "odd": None}])),
        script.event(script.chunk({}, usage=script.tokens(), system_fingerprint=None)),
        script.done(),
    )

    assert {name: reply[name] for name in ("system_fingerprint", "provider", "tier", "metadata", "usage")} == {
        "system_fingerprint": "fp",
        "provider": {"name": "p"},
        "tier": "gold",
        "metadata": {"interruptable": False},
        "usage": script.tokens(),
    }
    [choice] = reply["choices"]
    assert (choice["native_finish_reason"], choice["odd"], choice["finish_reason"]) == ("STOP", None, "stop")
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "reasoning_content": "Let me think.",
        "extra_content": {"google": {"sig": "=="}},
    }


async def test_tool_calls_are_put_together(caller: Caller) -> None:
    """Two calls at once, their arguments interleaved; one server repeats id and name in every delta."""
    reply = await hears(
        caller,
        script.role(),
        script.tool_call("get_weather", '{"city":', id="call_1"),
        script.tool_call("get_time", "", id="call_2", index=1),
        script.tool_call("get_weather", '"Paris"}', id="call_1"),
        script.tool_call("get_time", "{}", id="call_2", index=1),
        script.finish("tool_calls"),
        script.done(),
    )

    [choice] = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
        ],
    }


async def test_two_choices_are_kept_apart(caller: Caller) -> None:
    """`n: 2`, the second one first, in chunks of their own and in one."""

    def says(*choices: tuple[int, str, str | None]) -> script.Step:
        made = [{"index": index, "delta": {"content": said}, "finish_reason": end} for index, said, end in choices]
        return script.event(script.chunk({}, choices=made))

    reply = await hears(
        caller, says((1, "Good", None)), says((0, "Hi", None), (1, "bye", "length")), says((0, "!", "stop")), n=2
    )

    told = [(each["index"], each["message"]["content"], each["finish_reason"]) for each in reply["choices"]]
    assert told == [(0, "Hi!", "stop"), (1, "Goodbye", "length")]


async def test_the_demo_gives_as_many_choices_as_asked_for(caller: Caller) -> None:
    """`n: 2` without any model; tokens are counted for both."""
    one, two = [whole(await caller.says(stream=False, model="demo", n=n)) for n in (1, 2)]

    assert [choice["message"] for choice in two["choices"]] == [one["choices"][0]["message"]] * 2
    assert two["usage"]["completion_tokens"] == 2 * one["usage"]["completion_tokens"]


async def test_logprobs_are_put_together(caller: Caller) -> None:
    """One token's worth in each chunk, null in the last."""
    tokens: list[Json] = [
        {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []} for token in ("Hi", " you")
    ]
    chunks = [
        script.chunk({}, choices=[{"index": 0, "delta": {"content": each["token"]}, "logprobs": {"content": [each]}}])
        for each in tokens
    ]
    last = script.chunk({}, choices=[{**ENDING, "logprobs": None}])

    [choice] = (await hears(caller, *(script.event(chunk) for chunk in [*chunks, last])))["choices"]
    assert (choice["message"]["content"], choice["logprobs"]) == ("Hi you", {"content": tokens})


async def test_a_refusal_is_no_content(caller: Caller) -> None:
    """The model will not say it."""
    refusals = [script.event(script.chunk({"refusal": words})) for words in ("I can", "not.")]

    [choice] = (await hears(caller, script.role(), *refusals, script.finish()))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": "I cannot."}


async def test_audio_is_put_together(caller: Caller) -> None:
    """Its data and transcript come in pieces, its id in each."""
    pieces = [{"id": "audio_1", "data": data, "transcript": said} for data, said in (("AAAA", "Hi"), ("BBBB", " you"))]
    events = [script.event(script.chunk({"audio": piece})) for piece in pieces]

    [choice] = (await hears(caller, *events, script.finish()))["choices"]
    assert choice["message"]["audio"] == {"id": "audio_1", "data": "AAAABBBB", "transcript": "Hi you"}


async def test_an_answer_without_a_word_is_an_answer(caller: Caller) -> None:
    """The model had nothing to say, or says so only with `[DONE]`."""
    for events in ([script.finish()], [script.role(), script.done()], [script.done()]):
        [choice] = (await hears(caller, *events))["choices"]
        assert (choice["message"]["content"] or "", choice["finish_reason"]) == ("", "stop")


def test_a_long_reply_is_put_together_in_a_straight_line() -> None:
    """Four times the words cost about four times the time: words were once added one to the other."""

    def cost(count: int) -> float:
        chunks = [Chunk({"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 200}}]}) for _ in range(count)]
        started = time.process_time()
        whole = completion(chunks)
        assert len(whole["choices"][0]["message"]["content"]) == 200 * count
        return time.process_time() - started

    assert min(cost(40_000) for _ in range(3)) < 12 * min(cost(10_000) for _ in range(3))
