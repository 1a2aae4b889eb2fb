"""OpenAI's own Python SDK as the caller: what an app that uses it hears, catches and may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from served import Served

from firstword import App
from firstword.testing import Upstream, script

HELLO: list[Any] = [{"role": "user", "content": "Hello there, my friend."}]


class Weather(BaseModel):
    """What a tool takes, and what a form asks for."""

    city: str
    days: int


class Clock(BaseModel):
    """A second tool."""

    city: str


TOOLS: list[Any] = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
TWO_CALLS = script.events(
    script.role(),
    script.tool_call("Weather", "", id="call_1", index=0),
    script.tool_call(arguments='{"city": "Pa', index=0),
    script.tool_call(arguments='ris", "days": 2}', index=0),
    script.tool_call("Clock", "", id="call_2", index=1),
    script.tool_call(arguments='{"city": "Oslo"}', index=1),
    script.finish("tool_calls"),
    script.done(),
)


@pytest.fixture(scope="module")
def server(upstream: Upstream) -> Iterator[Served]:
    """One server for all: each test has a client of its own, and none changes the App."""
    # The SDK shall be the one that tries again.
    served = Served(App(base_url=upstream.base_url, hedge_share=0))
    yield served
    served.stop()


@pytest.fixture
async def client(server: Served) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as an app sets it up: our URL where OpenAI's was."""
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-caller", timeout=5) as client:
        yield client


@pytest.fixture
def plain(server: Served) -> Iterator[OpenAI]:
    """The SDK without asyncio."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="sk-caller", timeout=5) as client:
        yield client


@pytest.fixture
def marker() -> str:
    """The name under which the upstream keeps this test's requests."""
    return uuid4().hex


def says(client: AsyncOpenAI, steps: script.Script | list[script.Script], marker: str = "", **more: Any) -> Any:
    """Ask for a stream that the upstream plays as `steps`."""
    key = "scripts" if steps and isinstance(steps[0], list) else "script"
    return client.chat.completions.create(
        model="m1", messages=HELLO, stream=True, user=marker, extra_body={key: steps}, **more
    )


async def heard(stream: Any) -> str:
    """Return all the words of a stream."""
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


# --- words ----------------------------------------------------------------------------------------


async def test_a_stream_says_what_the_model_says(client: AsyncOpenAI) -> None:
    """An app iterates over a stream; the upstream echoes its words, one a chunk."""
    stream = await client.chat.completions.create(model="m1", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there, my friend."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert len(chunks) == 6 and len({chunk.id for chunk in chunks}) == 1


def test_the_plain_client_hears_the_same(plain: OpenAI) -> None:
    """An app without asyncio iterates over a stream."""
    with plain.chat.completions.create(model="m1", messages=HELLO, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there, my friend."


async def test_a_reply_in_one_piece_has_its_words_and_its_usage(client: AsyncOpenAI) -> None:
    """`stream` is left out: the SDK wants one object, with a count of tokens."""
    reply = await client.chat.completions.create(model="m1", messages=HELLO)

    assert reply.object == "chat.completion"
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Hello there, my friend.", "stop")
    assert reply.usage is not None and reply.usage.model_dump(exclude_none=True) == script.tokens(completion=4)


async def test_usage_comes_when_it_is_asked_for(client: AsyncOpenAI) -> None:
    """`include_usage` asks for one more chunk, without choices."""
    stream = await client.chat.completions.create(
        model="m1", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [11]
    assert chunks[-1].choices == []


async def test_the_stream_helper_tells_words_and_the_whole(client: AsyncOpenAI) -> None:
    """`.stream()` puts the chunks together: it is the strictest reader of them all."""
    async with client.chat.completions.stream(model="m1", messages=HELLO) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_completion()

    assert "".join(event.delta for event in events if event.type == "content.delta") == "Hello there, my friend."
    assert [event.content for event in events if event.type == "content.done"] == ["Hello there, my friend."]
    assert whole.choices[0].message.content == "Hello there, my friend."


async def test_the_raw_response_tells_the_request_id(client: AsyncOpenAI) -> None:
    """`with_raw_response` shows the headers; the id is the one in the operator's log."""
    raw = await client.chat.completions.with_raw_response.create(model="m1", messages=HELLO)

    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"].startswith("chatcmpl-")
    assert raw.parse()._request_id == raw.headers["x-request-id"]


async def test_the_streaming_response_gives_the_lines(client: AsyncOpenAI) -> None:
    """`with_streaming_response` reads the wire itself."""
    request = client.chat.completions.with_streaming_response.create(model="m1", messages=HELLO, stream=True)
    async with request as response:
        lines = [line async for line in response.iter_lines() if line]

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert len(lines) == 7 and lines[-1] == "data: [DONE]"


async def test_the_list_of_models_holds_ours_and_the_upstreams(client: AsyncOpenAI) -> None:
    """A dashboard asks which models there are."""
    assert [model.id async for model in client.models.list()] == ["demo", "scripted", "scripted-mini"]


# --- tools and forms ------------------------------------------------------------------------------


async def test_two_parallel_calls_arrive_whole(client: AsyncOpenAI) -> None:
    """The engine owns the tools; the model calls two of them, their arguments in pieces."""
    async with client.chat.completions.stream(
        model="m1", messages=HELLO, tools=TOOLS, extra_body={"script": TWO_CALLS}
    ) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_completion()

    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.name, event.index, event.arguments) for event in done] == [
        ("Weather", 0, '{"city": "Paris", "days": 2}'),
        ("Clock", 1, '{"city": "Oslo"}'),
    ]
    calls = whole.choices[0].message.tool_calls or []
    assert [call.id for call in calls] == ["call_1", "call_2"]
    assert calls[0].function.parsed_arguments == Weather(city="Paris", days=2)
    assert whole.choices[0].finish_reason == "tool_calls"


async def test_calls_in_one_piece_are_put_together(client: AsyncOpenAI) -> None:
    """The same two calls without a stream: `.parse()` reads their arguments."""
    whole = await client.chat.completions.parse(
        model="m1", messages=HELLO, tools=TOOLS, extra_body={"script": TWO_CALLS}
    )

    message = whole.choices[0].message
    assert [call.function.parsed_arguments for call in message.tool_calls or []] == [
        Weather(city="Paris", days=2),
        Clock(city="Oslo"),
    ]
    assert message.content is None


async def test_the_demo_calls_the_tools_that_are_named(client: AsyncOpenAI) -> None:
    """Without any key the demo model calls both tools that the words name."""
    whole = await client.chat.completions.parse(
        model="demo",
        messages=[{"role": "user", "content": "Tell me the weather in Paris, and the clock in Paris."}],
        tools=TOOLS,
    )

    calls = whole.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["Weather", "Clock"]
    assert isinstance(calls[0].function.parsed_arguments, Weather)
    assert calls[1].function.parsed_arguments == Clock(city="Paris")


async def test_the_demo_takes_a_tools_result(client: AsyncOpenAI) -> None:
    """The second leg: the engine ran the tool and sends its result."""
    call = {"id": "call_1", "type": "function", "function": {"name": "Clock", "arguments": '{"city":"Oslo"}'}}
    messages: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "half past nine"},
    ]
    reply = await client.chat.completions.create(model="demo", messages=messages, tools=TOOLS)

    assert "half past nine" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_demo_fills_a_form(client: AsyncOpenAI, streamed: bool) -> None:
    """`response_format` is a pydantic class: the reply parses as one."""
    asked: dict[str, Any] = {"model": "demo", "messages": HELLO, "response_format": Weather, "extra_body": {"pace": 0}}
    if streamed:
        async with client.chat.completions.stream(**asked) as stream:
            whole = await stream.get_final_completion()
    else:
        whole = await client.chat.completions.parse(**asked)

    assert isinstance(whole.choices[0].message.parsed, Weather)


async def test_the_demo_speaks_without_a_key(client: AsyncOpenAI) -> None:
    """A new user streams from the demo and asks for usage."""
    stream = await client.chat.completions.create(
        model="demo",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"pace": 0},
    )
    chunks = [chunk async for chunk in stream]

    assert "Hello" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


# --- errors ---------------------------------------------------------------------------------------

# status, the error's type, what the SDK raises
REFUSALS = [
    (400, "invalid_request_error", openai.BadRequestError),
    (401, "authentication_error", openai.AuthenticationError),
    (403, "permission_error", openai.PermissionDeniedError),
    (404, "not_found_error", openai.NotFoundError),
    (422, "invalid_request_error", openai.UnprocessableEntityError),
]


@pytest.mark.parametrize(("status", "kind", "raised"), REFUSALS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_the_right_class_and_asked_once(
    client: AsyncOpenAI, upstream: Upstream, marker: str, status: int, kind: str, raised: Any, stream: bool
) -> None:
    """The provider refuses for good: the caller learns its own words, and the SDK does not ask again."""
    refusal = script.refuses(status, "Not like this.", type=kind, code="some_code")
    with pytest.raises(raised) as caught:
        await client.chat.completions.create(
            model="m1", messages=HELLO, stream=stream, user=marker, extra_body={"script": refusal}
        )

    assert (caught.value.status_code, caught.value.type, caught.value.code) == (status, kind, "some_code")
    assert "Not like this." in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.seen(marker)) == 1


@pytest.mark.parametrize("waits", [{"retry-after-ms": "30"}, {"retry-after": "0.03"}])
async def test_a_rate_limit_is_waited_out(
    client: AsyncOpenAI, upstream: Upstream, marker: str, waits: dict[str, str]
) -> None:
    """The provider answers 429 and says when to come back: the SDK does, and the second reply is heard."""
    limits = script.refuses(429, "Rate limit reached.", code="rate_limit_exceeded", headers=waits)
    words = await heard(await says(client, [limits, script.events(script.says("Here I am."))], marker))

    first, second = upstream.seen(marker)
    assert words == "Here I am."
    assert 0.03 <= second.requested - first.requested < 0.3  # the SDK's own pause would be 0.4 s and more


async def test_a_rate_limit_that_lasts_is_raised(client: AsyncOpenAI, upstream: Upstream, marker: str) -> None:
    """The provider answers 429 for ever: after its two retries the SDK gives up."""
    with pytest.raises(openai.RateLimitError) as caught:
        await says(client, script.refuses(429, "Slow down.", headers={"retry-after-ms": "5"}), marker)

    assert caught.value.response.headers["retry-after-ms"] == "5"
    assert len(upstream.seen(marker)) == 3


async def test_a_provider_that_says_no_retry_is_obeyed(client: AsyncOpenAI, upstream: Upstream, marker: str) -> None:
    """A 503 is retried by habit; the provider's own `x-should-retry: false` reaches the SDK and stops it."""
    with pytest.raises(openai.InternalServerError):
        await says(client, script.refuses(503, headers={"x-should-retry": "false"}), marker)

    assert len(upstream.seen(marker)) == 1


async def test_an_upstream_that_is_away_is_a_502(serve: Callable[[App], Served]) -> None:
    """Nothing listens where the model should be."""
    served = serve(App(base_url="http://127.0.0.1:9/v1", warm=False))
    async with AsyncOpenAI(base_url=served.url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="m1", messages=HELLO, stream=True)

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
    assert "127.0.0.1" not in caught.value.message


async def test_a_silent_model_is_a_504(serve: Callable[[App], Served], upstream: Upstream) -> None:
    """The model takes the request and says nothing."""
    served = serve(App(base_url=upstream.base_url, first_token_timeout=0.2))
    async with AsyncOpenAI(base_url=served.url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await says(client, script.sends_only_the_role())

    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_a_bad_request_names_its_field(client: AsyncOpenAI, upstream: Upstream, marker: str) -> None:
    """The app sends no messages: we refuse, the provider is not asked."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m1", messages=[], user=marker)

    assert caught.value.param == "messages"
    assert upstream.seen(marker) == []


async def test_what_we_do_not_serve_is_not_found(client: AsyncOpenAI) -> None:
    """An app asks for embeddings."""
    with pytest.raises(openai.NotFoundError) as caught:
        await client.embeddings.create(model="m1", input="Hello")

    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (script.fails_after("One two"), None),
        (script.closes_after("One two"), "upstream_truncated"),
        (script.ends_after("One two"), "upstream_truncated"),
        (script.resets_after("One two"), "upstream_truncated"),
    ],
    ids=["says so", "closes", "ends", "resets"],
)
async def test_a_break_in_mid_answer_is_raised(client: AsyncOpenAI, breaks: script.Script, code: str | None) -> None:
    """The model breaks after two words: the app has them, and then an exception instead of a false end."""
    words = ""
    with pytest.raises(openai.APIError) as caught:
        async for chunk in await says(client, breaks):
            words += chunk.choices[0].delta.content or ""

    assert (words, caught.value.code) == ("One two", code)


async def test_closing_a_stream_closes_the_upstream(
    client: AsyncOpenAI, server: Served, upstream: Upstream, marker: str
) -> None:
    """The caller interrupts: the app closes its stream after the first word."""
    stream = await says(client, script.stalls_after("Once upon a time"), marker)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()

    (record,) = await upstream.wait_closed(marker)
    assert record.closed_by == "peer"
    assert server.left_open() == {"in_use": 0, "turns": 0}


def test_closing_a_plain_stream_closes_the_upstream(plain: OpenAI, upstream: Upstream, marker: str) -> None:
    """The same without asyncio: leaving the `with` block is enough."""
    with plain.chat.completions.create(
        model="m1",
        messages=HELLO,
        stream=True,
        user=marker,
        extra_body={"script": script.stalls_after("Once upon a time")},
    ) as stream:
        next(iter(stream))

    (record,) = upstream.seen(marker, until="closed", count=1)
    assert record.closed_by == "peer"
