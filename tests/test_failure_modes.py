"""Failures that real gateways were seen with, one test each, through a real server and a scripted model.

Rules:
- A docstring names the failure and, where there is one, the public issue that tells of it.
- Before the first word a failure is a true HTTP status; after it an error event and no `[DONE]`.
- After each failure the next turn is served, and nothing is left of the one before.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from caller import Caller, Heard, turn
from served import Served

from firstword import App
from firstword.testing import Upstream, script
from firstword.turn import CallNext, Send, Turn

FRIEND = "Hello there, friend."


@pytest.fixture(scope="module")
def served(upstream: Upstream) -> Iterator[Served]:
    app = App(base_url=upstream.base_url, first_token_timeout=0.2, stall_timeout=0.2, hedge_share=0)

    @app.model("breaks")
    async def breaks(_: Turn) -> AsyncIterator[str]:
        yield "Hello"
        raise RuntimeError("Traceback: sk-secret at https://user:password@db.example/srv")

    running = Served(app)
    yield running
    running.stop()


@pytest.fixture
async def caller(served: Served) -> AsyncIterator[Caller]:
    """A caller whose server must be as good as new when the test is over."""
    yield Caller(served.url)
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}
    heard = await Caller(served.url).says(FRIEND)
    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, FRIEND, ["stop"], True)


def check_cut(heard: Heard, words: str, code: str | None = None) -> None:
    """Assert that a reply broke off after `words`, and says so in the one way that clients understand."""
    assert (heard.status, heard.whole, heard.text) == (200, True, words)
    assert heard.finish_reasons == [] and b"[DONE]" not in heard.body
    assert [each for each in heard.chunks if "error" in each] == heard.chunks[-1:]
    assert (
        isinstance(heard.error, dict)
        and heard.error["message"]
        and heard.error["code"] == (code or heard.error["code"])
    )


def check_whole(heard: Heard, words: str = FRIEND, reason: str = "stop") -> None:
    assert (heard.status, heard.whole, heard.text, heard.finish_reasons, heard.done) == (
        200,
        True,
        words,
        [reason],
        True,
    )


def frames_of(steps: script.Script) -> bytes:
    return "".join(step.get("text", "") for step in steps if step["do"] == "send").encode()


# --- stream start ---------------------------------------------------------------------------------


async def test_01_the_first_event_is_an_error_within_a_200(caller: Caller) -> None:
    """LiteLLM#6957: nothing was sent yet, so the caller gets the true status, not 200."""
    heard = await caller.says(script=script.fails_at_once())
    assert (heard.status, heard.error["message"], heard.error["code"]) == (500, "The model crashed.", None)

    limited = script.events(script.role(), script.error_event("Slow down.", code="rate_limit_exceeded"))
    assert (await caller.says(script=limited)).status == 429


async def test_02_the_upstream_never_sends_headers(caller: Caller, upstream: Upstream, marker: str) -> None:
    """Bifrost#7034: the time for the first token ends it, and the silent route is not asked again."""
    began = time.monotonic()
    heard = await caller.says(user=marker, script=script.never_answers())

    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    assert 0.2 <= time.monotonic() - began < 1.5
    (record,) = await upstream.wait_closed(marker)
    assert record.closed_by == "peer"


@pytest.mark.parametrize(
    "steps", [script.sends_only_the_role(), script.comments_for_ever(), script.sends_only_headers()]
)
async def test_03_headers_and_comments_are_no_first_token(caller: Caller, steps: script.Script) -> None:
    """Headers came at once: neither they nor a role nor `: comment` may end the wait for a word."""
    heard = await caller.says(script=steps)
    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")


async def test_06_a_reset_on_a_kept_connection(caller: Caller, upstream: Upstream, marker: str) -> None:
    """One transparent retry on a fresh connection; two requests in all, of which one was heard."""
    scripts = [script.events(script.says("One.")), [script.reset()], script.events(script.says("Two."))]

    heard = [await caller.says(user=marker, scripts=scripts) for _ in range(2)]

    assert [each.text for each in heard] == ["One.", "Two."]
    first, second, third = await upstream.wait_settled(marker, count=3)
    assert first.connection == second.connection != third.connection and second.sent == 0


async def test_07_a_hang_up_before_the_first_token(caller: Caller, upstream: Upstream, marker: str) -> None:
    """LiteLLM#31499: the upstream sees it, and nobody is asked again."""
    async with caller.dials(turn(user=marker, script=script.never_answers())) as call:
        await upstream.wait_asked(marker)
        hung_up = call.hangs_up()
        (record,) = await upstream.wait_closed(marker)
    assert record.closed_by == "peer" and record.closed is not None and record.closed - hung_up < 0.1


@pytest.mark.parametrize(
    "steps", [script.json_document({"choices": [{"message": {"content": "Hi"}}]}), script.shows_a_page(200)]
)
async def test_10_a_page_where_a_stream_was_asked_for(caller: Caller, steps: script.Script) -> None:
    """Both SDKs take it for an empty stream; it is a failure of the upstream."""
    heard = await caller.says(script=steps)
    assert heard.status == 502 and "event stream" in heard.error["message"]


# --- mid-stream -----------------------------------------------------------------------------------

TRUNCATED = {
    "fin between chunks": script.closes_after("Hello"),
    "fin that http takes for the end": script.closes_after("Hello", body="close"),
    "a proper end of the body": script.ends_after("Hello"),
    "rst": script.resets_after("Hello"),
    "a wrong chunk size": script.miscounts_after("Hello"),
}


@pytest.mark.parametrize("steps", TRUNCATED.values(), ids=TRUNCATED.keys())
async def test_11_the_stream_is_cut_between_two_chunks(caller: Caller, steps: script.Script) -> None:
    """Bifrost#5546, open-webui#29628: neither finish_reason nor `[DONE]` came, so words are missing."""
    check_cut(await caller.says(script=steps), "Hello")


@pytest.mark.parametrize("steps", TRUNCATED.values(), ids=TRUNCATED.keys())
async def test_12_no_success_is_ever_made_up(caller: Caller, steps: script.Script) -> None:
    """LiteLLM's fabricated `stop`: half a tool call would be run, half an answer be taken for all."""
    call = [
        script.tool_call("transfer", '{"amount": 1', id="call_1"),
        *[step for step in steps if "Hello" not in str(step)],
    ]
    for stream in (True, False):
        heard = await caller.says(script=[steps[0], *call[:1], *call[2:]], stream=stream)
        assert b"[DONE]" not in heard.body and b'"finish_reason":"' not in heard.body
        assert b'"error"' in heard.body and (stream or heard.status == 502)


async def test_13_a_finish_reason_and_no_end_mark(
    caller: Caller, serve: Callable[[App], Served], upstream: Upstream
) -> None:
    """Fault S11: the reply is finished promptly, even when the upstream keeps the line open and babbles on."""
    began = time.monotonic()
    check_whole(await caller.says(script=script.forgets_done(FRIEND)))
    assert time.monotonic() - began < 0.4

    patient = Caller(serve(App(base_url=upstream.base_url)).url)
    open_line = [*script.forgets_done(FRIEND)[:-1], *script.comments_for_ever()[1:]]
    check_whole(await patient.says(script=open_line))
    assert time.monotonic() - began < 2.0


async def test_14_usage_after_the_end_and_a_finish_reason_beside_words(caller: Caller) -> None:
    """hermes#91373: neither is a truncation."""
    heard = await caller.says(script=script.counts_after(FRIEND), stream_options={"include_usage": True})
    check_whole(heard)
    assert heard.chunks[-1]["usage"] == script.tokens()

    last = script.event(script.chunk({"content": " friend."}, "length"))
    check_whole(await caller.says(script=script.events(script.words("Hello there,"), last)), reason="length")


async def test_15_an_end_mark_and_no_finish_reason(caller: Caller) -> None:
    """vllm-mlx#628: `[DONE]` suffices; the caller gets `stop`."""
    check_whole(await caller.says(script=script.forgets_to_finish(FRIEND)))


async def test_16_a_stall_with_an_open_line(caller: Caller, upstream: Upstream, marker: str) -> None:
    """Fault S09: silence within an answer is bounded, and so are comments that say nothing."""
    for steps in (script.stalls_after("Hello"), [*script.stalls_after("Hello"), *script.comments_for_ever()[1:]]):
        check_cut(await caller.says(user=marker, script=steps), "Hello", "upstream_timeout")
    assert {record.closed_by for record in await upstream.wait_closed(marker, count=2)} == {"peer"}


async def test_17_one_event_is_no_json(caller: Caller) -> None:
    """Fault S10: it is skipped, and the rest is heard."""
    check_whole(await caller.says(script=script.babbles_within(FRIEND)))


async def test_18_an_error_in_a_chunk_with_choices(caller: Caller) -> None:
    """OpenRouter: `finish_reason: "error"`, with and without the error beside it."""
    beside = {"error": {"code": 502, "message": "Provider disconnected"}}
    for others, message in (({}, "The model's server reported an error."), (beside, "Provider disconnected")):
        broken = script.event(script.chunk({"content": ""}, "error", **others))
        heard = await caller.says(script=script.events(script.words("Hello"), broken, script.done()))
        check_cut(heard, "Hello")
        assert heard.error["message"] == message


@pytest.mark.parametrize(
    "event", ["event: error\ndata: {}\n\n", 'data: {{"error": {}}}\n\n', "event: error\r\ndata:{}\r\n\r\n"]
)
@pytest.mark.parametrize("error", ['"It broke."', '{"message": "It broke."}', '{"message": "It broke.", "code": 503}'])
async def test_19_an_error_event_of_another_shape(caller: Caller, event: str, error: str) -> None:
    """Without an `error` key openai-python would swallow it; a string becomes an object."""
    heard = await caller.says(script=script.events(script.words("Hello"), script.send(event.format(error))))
    check_cut(heard, "Hello")
    assert heard.error["message"] == "It broke." and isinstance(heard.error["type"], str)


async def test_20_a_mistake_of_ours_after_the_first_word(caller: Caller) -> None:
    """any-llm#847, llm-rosetta#481: an error event, and the HTTP message still has its proper end."""
    check_cut(await caller.says(model="breaks"), "Hello")


async def test_21_what_an_error_tells(caller: Caller) -> None:
    """LiteLLM#39964: a constant sentence and the request's id; no traceback, no URL, no key."""
    trace = 'Traceback (most recent call last):\n File "/srv/llm.py", line 1'
    replies = [await caller.says(model="breaks")]
    replies += [
        await caller.says(script=script.refuses(500, trace)),
        await caller.says(script=script.fails_after("Hi")),
    ]
    for secret in (b"sk-secret", b"password", b"Traceback", b"/srv", b"db.example", b".py", b"127.0.0.1"):
        assert not any(secret in heard.body for heard in replies)
    assert replies[0].headers["x-request-id"] in replies[0].error["message"]


async def test_22_the_teardown_fails_after_a_success(serve: Callable[[App], Served], upstream: Upstream) -> None:
    """llm-rosetta#483: whatever fails after the last word, there is one ending and never two."""
    app = App(base_url=upstream.base_url)

    @app.stage
    async def tear_down(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)
        raise RuntimeError("closing the database failed")

    @app.after_turn
    async def remember(_: Turn) -> None:
        raise RuntimeError("storing failed")

    caller = Caller(serve(app).url)
    heard = await caller.says("Hello")
    assert heard.whole and heard.body.count(b'"error"') + heard.body.count(b"[DONE]") == 1
    assert (await caller.says("Hello", stream=False)).status == 500
    assert (await caller.says(script=script.refuses(429))).status == 429


async def test_26_an_attempt_shares_nothing_with_the_one_before(caller: Caller) -> None:
    """Bifrost#4911: the `closed` of a failed attempt must not end the next one."""
    failing = [script.fails_after("Hello"), script.closes_after("Hello"), script.refuses(500), [script.close()]]
    for steps in failing:
        await caller.says(script=steps)
        check_whole(await caller.says(FRIEND))
    mixed = [caller.says(FRIEND, script=None if at % 2 else failing[at // 2 % 4]) for at in range(24)]
    for heard in (await asyncio.gather(*mixed))[1::2]:
        check_whole(heard)


# --- bytes and parsing ----------------------------------------------------------------------------


async def test_27_a_character_is_split_between_reads(caller: Caller) -> None:
    """aisix#111, claude-code-router#1672: one byte a chunk comes out byte by byte the same."""
    for pieces in (1, 2, 5):
        heard = await caller.says(script=script.shreds(pieces=pieces))
        assert heard.body == frames_of(script.says("Grüße, 你好 👋"))


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
async def test_28_an_event_is_split_anywhere(caller: Caller, end: str) -> None:
    """higress#4620: between CR and LF, within `data:`, which has no space behind it."""
    said = frames_of(script.says(FRIEND)).decode()
    odd = script.send(said.replace("data: ", "data:").replace("\n", end), pieces=1)
    assert (await caller.says(script=script.events(odd))).body == said.encode()


async def test_29_a_line_without_an_end(caller: Caller, upstream: Upstream, marker: str) -> None:
    """hermes#58471: an event has a cap, and little more than it is ever taken."""
    heard = await caller.says(user=marker, script=script.floods(256 * 1024 * 1024))

    assert (heard.status, heard.error["code"]) == (502, "upstream_protocol_error")
    (record,) = await upstream.wait_closed(marker)
    assert record.closed_by == "peer" and record.sent < 32 * 1024 * 1024


async def test_30_many_events_in_one_read_and_no_blank_line_at_the_end(caller: Caller) -> None:
    """All are delivered, the last one at the end of the body."""
    said = frames_of(script.says(FRIEND)).decode()
    for body in (said, said.rstrip("\n"), said.rstrip("\n") + "\n"):
        assert (await caller.says(script=script.events(script.send(body)))).body == said.encode()


async def test_31_taking_out_usage_leaves_its_neighbours_alone(caller: Caller) -> None:
    """gpustack#6155: nobody asked for it; the events around it, in the same read, keep their bytes."""
    before, after = frames_of(script.words("Hello")), frames_of([script.finish(), script.done()])
    counted = frames_of([script.usage()])
    heard = await caller.says(script=script.events(script.send(before + counted + after)))
    assert heard.body == before + after


async def test_32_fields_that_kill_clients(caller: Caller) -> None:
    """A BOM, `id:`, `retry:`, `event: ping`, comments, empty events, data over two lines: normalised away."""
    said = frames_of(script.says(FRIEND)).decode()
    odd = "\ufeff: hi\n\nid: 1\nretry: 5\n\nevent: ping\n\ndata:\n\n" + said.replace(
        "data: {", "id: 2\ndata: {\ndata: "
    )
    heard = await caller.says(script=script.events(script.send(odd)))
    check_whole(heard)
    assert all(re.fullmatch(rb"data: [^\r\n]+\n\n", frame) for frame in heard.frames)


async def test_33_unknown_fields_and_nulls(caller: Caller) -> None:
    """opencode#35187: what we do not know is not ours to drop, in any place, in a stream and in one piece."""
    delta = {"content": "Hi", "reasoning_content": None, "extra_content": {"google": {"thought_signature": "x"}}}
    odd = script.chunk(delta, service_tier=None, provider={"a": [1, None]})
    odd["choices"][0] |= {"logprobs": None, "native_finish_reason": None}
    steps = [script.event(odd), script.finish(), script.done()]

    assert (await caller.says(script=script.events(steps))).body == frames_of(steps)
    whole = (await caller.says(script=script.events(steps), stream=False)).json
    assert whole["service_tier"] is None and whole["provider"] == {"a": [1, None]}
    assert whole["choices"][0]["message"]["extra_content"] == delta["extra_content"]


async def test_34_nothing_is_compressed(caller: Caller, upstream: Upstream, marker: str) -> None:
    """starlette#2753: a compressed stream is a late one, on either side."""
    heard = await caller.says(FRIEND, user=marker, headers={"accept-encoding": "gzip, br"})
    assert "content-encoding" not in heard.headers and heard.headers["cache-control"] == "no-cache, no-transform"
    assert heard.headers["x-accel-buffering"] == "no"
    assert (await upstream.wait_settled(marker))[0].header("accept-encoding") == "identity"

    head = script.head(200, {**script.EVENT_STREAM, "content-encoding": "gzip"})
    assert (await caller.says(script=[head, script.send(b"\x1f\x8b\x08\x00junk"), script.end()])).status == 502


async def test_35_every_token_leaves_when_it_comes(caller: Caller, upstream: Upstream, marker: str) -> None:
    """Bifrost, granian#709: a word is heard before the next one is made; the best of three, on a busy machine."""
    late = []
    for attempt in range(1, 4):
        name = f"{marker} {attempt}"
        heard = await caller.says(
            user=name, script=script.events(script.says("One two three four five six.", every=0.03))
        )
        (record,) = await upstream.wait_settled(name)
        made = [when for when, _ in record.writes[2:8]]  # behind the head and the role
        reads = [when for when, data in heard.reads if b'"content":"' in data][-6:]
        late.append(
            [at for at, (when, following) in enumerate(zip(reads, made[1:], strict=False)) if when >= following]
        )
        if len(reads) == 6 and not late[-1]:
            return
    raise AssertionError(late)
