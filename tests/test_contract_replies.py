"""What a voice engine gets back: the strict form of a reply, whoever answers, and a true status when nobody does."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from caller import ABOUT, Caller, Heard, turn
from served import Served

from firstword import App, Chunk, Send, Turn
from firstword.testing import Upstream, script

Json = dict[str, Any]

METADATA = {
    "id": "chatcmpl-script",
    "object": "chat.completion.custom_metadata",
    "choices": [],
    "metadata": {"interruptable": False, "tts_params": {"params": {"speed": 1.2, "x": None}}},
}


async def answers(turn: Turn) -> AsyncIterator[str]:
    """Say two words and nothing between them."""
    yield "Hello"
    yield ""
    yield " there."


async def returns(turn: Turn) -> str:
    """Say all at once."""
    return "Hello there."


async def sets_the_voice(turn: Turn, send: Send) -> None:
    """Send metadata first, then words."""
    await send(Chunk(METADATA))
    await send(Chunk(script.chunk({"role": "assistant", "content": "Hello there."})))
    await send(Chunk(script.chunk({}, "stop")))


async def breaks(turn: Turn) -> AsyncIterator[str]:
    """Say a word, then fall over a secret."""
    yield "Hello"
    raise RuntimeError("sk-secret /home/me")


@pytest.fixture(scope="module")
def caller(upstream: Upstream) -> Iterator[Caller]:
    """Somebody who calls a server with functions of its own and the scripted model behind it."""
    app = App(base_url=upstream.base_url, hedge_share=0)  # each request is one try: second ones are told otherwise
    for function in (answers, returns, sets_the_voice, breaks):
        app.model(function.__name__)(function)
    server = Served(app)
    yield Caller(server.url)
    server.stop()


def strict(heard: Heard, choices: int = 1) -> list[Json]:
    """Assert what every client needs of a whole streamed reply, and return its chunks, metadata left out."""
    own = {name: value for name, value in heard.headers.items() if name != "date" and name not in ABOUT}
    assert set(heard.headers) >= set(ABOUT)
    assert (heard.status, own) == (
        200,
        {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            "transfer-encoding": "chunked",
        },
    )
    assert re.fullmatch("chatcmpl-[0-9a-f]{32}", heard.headers["x-request-id"])
    assert heard.whole
    assert heard.done
    assert "\r" not in heard.body.decode("utf-8")
    assert all(re.fullmatch(rb"data: [^\n]+\n\n", frame) for frame in heard.frames)  # no event:, id:, retry:, comment
    chunks = [chunk for chunk in heard.chunks if "metadata" not in chunk]
    [(name, kind, created, model)] = {tuple(chunk[k] for k in ("id", "object", "created", "model")) for chunk in chunks}
    assert (bool(name), kind, type(created), bool(model)) == (True, "chat.completion.chunk", int, True)
    for index in range(choices):
        said = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert [choice["delta"].get("role") for choice in said] == ["assistant"] + [None] * (len(said) - 1)
        assert [bool(choice["finish_reason"]) for choice in said] == [False] * (len(said) - 1) + [True]
    return chunks


def frames_of(*steps: script.Step) -> list[bytes]:
    """Return the very bytes that such steps send."""
    return [step["text"].encode() for step in steps]


# --- S1 to S6: replies that are whole -------------------------------------------------------------------


@pytest.mark.parametrize("model", ["relayed", "demo", "answers", "returns"])
async def test_words_come_in_the_strict_form_whoever_answers(caller: Caller, model: str) -> None:
    """S1: role, words, `stop`, `[DONE]`; one id, time and model throughout."""
    heard = await caller.says("Hello there.", model=model, pace=0)

    chunks = strict(heard)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert all(chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-1])  # an empty word is no chunk
    assert {chunk["model"] for chunk in chunks} == {"scripted" if model == "relayed" else model}
    assert heard.text == "Hello there." if model != "demo" else heard.text.split() != []


@pytest.mark.parametrize("model", ["relayed", "demo", "answers", "returns"])
async def test_the_end_leaves_with_the_last_event(caller: Caller, model: str) -> None:
    """A client that hangs up at `finish_reason` would meet a `[DONE]` on a closed line."""
    ending = script.send("".join(step["text"] for step in (script.finish(), script.done())))
    heard = await caller.says(model=model, pace=0, script=script.events(script.role(), script.text("Hi"), ending))

    assert heard.reads[-1][1].count(b"data: ") >= 2  # with the words as well, when they came in one read
    assert heard.finish_reasons == ["stop"]


async def test_a_relayed_event_keeps_its_very_bytes(caller: Caller) -> None:
    """Odd spaces, escapes, unknown fields at every level, nulls, big numbers, U+2028: none of it is ours to change."""
    head = 'data: {"id":"c1", "object" : "chat.completion.chunk","created":1,"model":"m","x":{"a":[null,1e5,1.0]},'
    tails = [
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"delta":{"content":"\\u4f60\u597d \u2028","x":{}},"finish_reason":null,"y":1}]}',
        f'"choices":[{{"index":0,"delta":{{"content":"a"}},"n":{10**30},"finish_reason":null}}],"usage":null}}',
        '"choices":[ {"index":0,"delta":{},"finish_reason":"stop","native":"STOP"} ]}',
    ]
    frames = [f"{head}{tail}\n\n" for tail in tails]
    heard = await caller.says(script=script.events(*map(script.send, frames), script.done()))

    assert heard.frames == [*(frame.encode() for frame in frames), b"data: [DONE]\n\n"]
    strict(heard)


async def test_metadata_comes_first_and_untouched(caller: Caller) -> None:
    """S2: the engine reads metadata in the first event only, so it must neither be mended nor overtaken."""
    steps = [script.event(METADATA), *script.says("Hello there.")]
    relayed = await caller.says(script=script.events(*steps))
    made = await caller.says(model="sets_the_voice")

    assert relayed.frames == frames_of(*steps)
    assert made.chunks[0] == METADATA
    for heard in (relayed, made):
        assert (strict(heard)[0]["choices"][0]["delta"]["role"], heard.text) == ("assistant", "Hello there.")
        assert heard.reads[0][1].count(b"data: ") >= 2  # held until the first words, then sent with them


async def test_metadata_says_nothing_about_the_chunks_behind_it(caller: Caller) -> None:
    """The model's server leaves `finish_reason` null, so the last chunk is ours to make."""
    heard = await caller.says(script=script.events(script.event(METADATA), *script.forgets_to_finish("Hi.")[1:-1]))

    assert (heard.chunks[0], heard.finish_reasons) == (METADATA, ["stop"])
    strict(heard)


async def test_an_engines_own_tool_call_is_streamed_as_it_comes(caller: Caller) -> None:
    """S4: two calls, their arguments in pieces."""
    steps = [
        script.role(),
        script.tool_call("get_weather", id="call_1"),
        script.tool_call(arguments='{"city":'),
        script.tool_call(arguments='"Paris"}'),
        script.tool_call("hang_up", "{}", id="call_2", index=1),
        script.finish("tool_calls"),
        script.done(),
    ]
    heard = await caller.says(script=script.events(*steps), tools=[{"type": "function", "function": {"name": "f"}}])

    assert heard.frames == frames_of(*steps)
    strict(heard)
    assert heard.finish_reasons == ["tool_calls"]


async def test_the_demo_calls_a_tool_in_the_strict_form(caller: Caller) -> None:
    """S4 without any model: one call a chunk, said once, whole JSON arguments, no text beside it."""
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": name, "parameters": city}} for name in ("weather", "news")]
    heard = await caller.says("Weather and news in Paris", model="demo", tools=tools)

    deltas = [choice["delta"] for chunk in strict(heard) for choice in chunk["choices"]]
    calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert [[(call["index"], call["type"], call["function"]["name"]) for call in each] for each in calls] == [
        [(0, "function", "weather")],
        [(1, "function", "news")],
    ]
    assert len({call["id"] for [call] in calls}) == 2
    assert all("city" in json.loads(call["function"]["arguments"]) for [call] in calls)
    assert (heard.text, heard.finish_reasons) == ("", ["tool_calls"])


async def test_audio_passes_as_it_comes(caller: Caller) -> None:
    """S5: 40 ms of PCM a chunk, and what it says."""
    words = [{"text": "Hi", "start_ts": 0, "end_ts": 40, "duration": 40}]
    audio = [{"id": "audio_1", "transcript": "Hi", "words": words}, {"id": "audio_1", "data": "AAAA" * 427}]
    spoken = [script.event(script.chunk({"audio": each})) for each in audio]
    steps = [script.role(), *spoken, script.finish(), script.done()]
    heard = await caller.says(script=script.events(*steps), modalities=["audio"])

    assert heard.frames == frames_of(*steps)
    strict(heard)


@pytest.mark.parametrize("model", ["relayed", "demo"])
@pytest.mark.parametrize("asked", [True, False])
async def test_usage_is_told_only_to_who_asks(caller: Caller, model: str, asked: bool) -> None:
    """S6: the scripted server counts whether asked or not; a usage chunk has no choices and erases no ending."""
    options = {"include_usage": True} if asked else {"include_usage": False}
    heard = await caller.says(model=model, pace=0, stream_options=options, script=script.counts_after("Hello there."))

    chunks = strict(heard)
    assert heard.finish_reasons == ["stop"]
    assert [chunk["choices"] == [] for chunk in chunks].count(True) == asked
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [asked]


async def test_usage_beside_the_last_words_erases_nothing(caller: Caller) -> None:
    """Some servers put usage, words and the ending into one chunk."""
    last = script.chunk({"content": " there."}, "stop", usage=script.tokens())
    heard = await caller.says(
        script=script.events(script.role(), script.text("Hello"), script.event(last), script.done())
    )

    assert (heard.text, heard.chunks[-1]) == ("Hello there.", last)
    strict(heard)


# --- S7 and S8: replies that fail -------------------------------------------------------------------------

FAILURES: list[tuple[script.Script, int, str]] = [
    (script.rejects("No such field.", "odd"), 400, "No such field."),
    (script.refuses(401, "Bad key."), 401, "Bad key."),
    (script.refuses(403, "Not you."), 403, "Not you."),
    (script.refuses(404, "No such model.", code="model_not_found"), 404, "No such model."),
    (script.refuses(422, "Odd."), 422, "Odd."),
    (script.rate_limits("7"), 429, "Rate limit reached."),
    (script.refuses(500, "Broken."), 500, "Broken."),
    (script.refuses(529, "Overloaded."), 529, "Overloaded."),
    (script.refuses(700, "What?"), 502, "What?"),
    (script.refuses(200, "Not really.", type="rate_limit_error"), 429, "Not really."),
    (script.refuses(500, "Traceback (most recent call last): /home"), 500, "The model's server reported an error."),
    (script.shows_a_page(503), 503, "The model's server answered with status 503."),
    (script.shows_a_page(200), 502, "The model's server answered with a page where an event stream was asked for."),
    (script.fails_at_once(), 500, "The model crashed."),
    (script.events(), 502, "The model's server ended its answer in the middle."),
    ([script.close()], 502, "The model's server closed the connection without an answer."),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("said", "status", "message"), FAILURES)
async def test_a_failure_before_the_first_word_has_a_true_status(
    caller: Caller, said: script.Script, status: int, message: str, stream: bool
) -> None:
    """S7: an OpenAI error body, and a word to the client on whether to come back."""
    heard = await caller.says(script=said, stream=stream)

    assert (heard.status, heard.whole, list(heard.json)) == (status, True, ["error"])
    assert heard.error["message"].startswith(message)
    assert {"message", "type", "param", "code"} <= set(heard.error)
    assert isinstance(heard.error["type"], str)
    assert b"Traceback" not in heard.body
    assert (heard.headers["content-type"], heard.headers["cache-control"]) == ("application/json", "no-store")
    retryable = status in (408, 409, 429) or status >= 500
    assert heard.headers.get("x-should-retry") == (None if retryable else "false")
    assert heard.headers.get("retry-after") == ("7" if said == script.rate_limits("7") else None)


@pytest.mark.parametrize(
    "prefix",
    [
        [script.role()],
        [script.comment(), script.comment()],
        [script.role(), script.text(""), script.text("  \n")],
        [script.role(), script.reasoning("Let me"), script.reasoning(" think.")],
        [script.event(METADATA), script.role()],
        [script.event(script.chunk({}, choices=[])), script.event(script.chunk({"tool_calls": []}))],
    ],
    ids=["role", "comment", "blank", "reasoning", "metadata", "empty"],
)
@pytest.mark.parametrize(
    ("failure", "status"),
    [([script.error_event("Busy.", type="rate_limit_error")], 429), ([], 502)],
    ids=["error", "truncated"],
)
async def test_what_nobody_hears_does_not_commit_us(
    caller: Caller, prefix: script.Script, failure: script.Script, status: int
) -> None:
    """The status is held until the first chunk that speaks: an error behind a mere prefix is still a true one."""
    heard = await caller.says(script=script.events(prefix, *failure))

    assert (heard.status, heard.headers["content-type"]) == (status, "application/json")


async def test_what_was_held_comes_before_the_first_word(caller: Caller) -> None:
    """Nothing of a prefix is lost when the words do come."""
    steps = [script.role(), script.reasoning("hm"), script.text(" "), script.text("Hi"), script.finish(), script.done()]
    heard = await caller.says(script=script.events(*steps))

    assert heard.frames == frames_of(*steps)


@pytest.mark.parametrize(
    "said",
    [
        script.fails_after("Hello there."),
        script.ends_after("Hello there."),
        script.closes_after("Hello there."),
        script.closes_after("Hello there.", body="close"),
        script.resets_after("Hello there."),
        script.miscounts_after("Hello there."),
        None,
    ],
    ids=["error", "end", "fin", "until close", "rst", "miscount", "function"],
)
async def test_a_failure_in_mid_answer_is_told_in_band(caller: Caller, said: script.Script | None) -> None:
    """S8: words came already, so the last event says `error`, and there is neither an ending nor a `[DONE]`."""
    heard = await caller.says(model="m1" if said else "breaks", script=said)

    assert (heard.status, heard.whole) == (200, True)
    assert "Hello there.".startswith(heard.text) and heard.text
    assert (heard.finish_reasons, heard.frames.count(b"data: [DONE]\n\n")) == ([], 0)
    assert list(heard.chunks[-1]) == ["error"]
    assert {"message", "type", "param", "code"} <= set(heard.error)
    assert not re.search(rb"Traceback|RuntimeError|sk-secret|/home|127\.0\.0\.1", heard.body)


@pytest.mark.parametrize(("model", "status"), [("m1", 502), ("breaks", 500)])
async def test_a_reply_in_one_piece_is_never_half_of_it(caller: Caller, model: str, status: int) -> None:
    """S8 with `stream: false`: nothing was sent yet, so the status is a true one."""
    heard = await caller.says(model=model, stream=False, script=script.ends_after("Hello there."))

    assert (heard.status, b"Hello" in heard.body, b"sk-secret" in heard.body) == (status, False, False)


# --- when an event arrives ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_no_event_waits_for_the_next(caller: Caller, count: int) -> None:
    """The model falls silent after some words, the line open; what it said has arrived all the same."""
    said = " ".join(["One", "two", "three"][:count])
    frames = "".join(step["text"] for step in [script.role(), *script.words(said)])
    for way in (script.stalls_after(said), [script.head(200, script.EVENT_STREAM), script.send(frames)]):
        async with caller.dials(turn(script=way)) as call:
            await call.hears_word(said.split()[-1])
            assert (call.heard.text, call.heard.whole) == (said, False)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "Hi"},
        {"refusal": "No."},
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f", "arguments": ""}},
        {"audio": {"id": "a", "transcript": "Hi"}},
    ],
    ids=lambda delta: "+".join(delta),
)
async def test_what_somebody_hears_or_acts_on_commits_us(caller: Caller, delta: Json) -> None:
    """The model falls silent after one such chunk; the caller has it, and the status."""
    said = [script.head(200, script.EVENT_STREAM), script.role(), script.event(script.chunk(delta))]
    async with caller.dials(turn(script=said)) as call:
        await call.hears_word(json.dumps(delta, separators=(",", ":")))
        assert (call.heard.status, call.heard.chunks[-1]["choices"][0]["delta"]) == (200, delta)


async def test_events_arrive_one_by_one_as_they_were_sent(caller: Caller, upstream: Upstream) -> None:
    """A word every 30 ms: each is here before the next one was written. A busy machine may be late for a few."""
    marker = uuid.uuid4().hex
    said = "one two three four five six seven eight nine ten"
    heard = await caller.says(user=marker, script=script.events(script.role(), script.words(said, 0.03), script.done()))

    [record] = await upstream.wait_settled(marker)
    written = [at for at, _ in record.writes][2:]  # after the head and the role, which are held
    read = [(at, frame.count(b"data: ")) for at, frame in heard.reads][:10]
    # The last word came in one read with the end, and leaves in one write with it.
    assert [count for _, count in read] in ([2] + [1] * 9, [2] + [1] * 8 + [3])
    in_time = [arrived < following for (arrived, _), following in zip(read, written[1:], strict=False)]
    assert in_time[:9].count(True) > 5
