"""What the OpenAI dialect reads: bytes in, chunks or an error out, whatever real servers get wrong.

Rules:
- Each body is fed whole and one byte at a time; the chunks must be the same.
- What comes out from the first choice on is the strict form: one id, all fields, one `finish_reason` a choice.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword.chunk import Chunk
from firstword.errors import UpstreamError, UpstreamStatusError, UpstreamTruncated
from firstword.providers.openai import Decoder
from firstword.wire import DONE, frame

ROLE = {"role": "assistant", "content": ""}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def chunk(delta: Any = None, finish: Any = None, **fields: Any) -> dict[str, Any]:
    """Return one chunk as OpenAI sends it; `fields` replace its own, and None drops one."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "gpt", "choices": [choice]}
    return {name: value for name, value in {**named, **fields}.items() if value is not ...}


def says(words: str, **fields: Any) -> dict[str, Any]:
    return chunk({"content": words}, **fields)


def body(*events: dict[str, Any] | bytes) -> bytes:
    """Return the events of a response, each JSON or bytes as they are."""
    return b"".join(each if isinstance(each, bytes) else frame(msgspec.json.encode(each)) for each in events)


class Read:
    """One body, decoded: the chunks' data, and how it ended."""

    def __init__(self, body: bytes, *, pieces: int, usage: bool, secret: str | None = None) -> None:
        self.decoder = Decoder(turn_id="chatcmpl-ours", model="m1", wants_usage=usage, secret=secret)
        self.chunks: list[Chunk] = []
        pieces = pieces or len(body) or 1
        for start in range(0, len(body), pieces):
            if self.decoder.done or self.decoder.failure:
                break
            self.chunks += self.decoder.feed(body[start : start + pieces])
        if not self.decoder.done and not self.decoder.failure:
            self.chunks += self.decoder.end()
        self.failure: UpstreamError | None = self.decoder.failure

    @property
    def data(self) -> list[dict[str, Any]]:
        return [each.data for each in self.chunks]

    @property
    def text(self) -> str:
        return "".join(each.text for each in self.chunks)

    @property
    def finish_reasons(self) -> list[tuple[int, str]]:
        choices = [choice for data in self.data for choice in data["choices"]]
        return [(each["index"], each["finish_reason"]) for each in choices if each.get("finish_reason")]


def read(*events: dict[str, Any] | bytes, usage: bool = False, secret: str | None = None) -> Read:
    """Decode the events; asserts that cutting makes no difference and that what comes out is strict."""
    whole = Read(body(*events), pieces=0, usage=usage, secret=secret)
    for pieces in (1, 7):
        cut = Read(body(*events), pieces=pieces, usage=usage, secret=secret)
        assert [each.frame for each in cut.chunks] == [each.frame for each in whole.chunks]
        assert repr(cut.failure) == repr(whole.failure) and cut.decoder.skipped == whole.decoder.skipped
    first = next((at for at, data in enumerate(whole.data) if data["choices"]), len(whole.data))
    ids = {data["id"] for data in whole.data[first:]}
    assert len(ids) <= 1 and all(isinstance(each, str) and each for each in ids)
    for data in whole.data[first:]:
        assert {"id", "object", "created", "model", "choices"} <= data.keys(), data
        assert all(isinstance(choice["delta"], dict) for choice in data["choices"])
    assert len({index for index, _ in whole.finish_reasons}) == len(whole.finish_reasons)
    return whole


def fails(*events: dict[str, Any] | bytes) -> UpstreamError:
    """Decode the events and return how they failed."""
    failure = read(*events).failure
    assert failure is not None
    return failure


# --- whole answers --------------------------------------------------------------------------------


def test_an_answer_in_good_form_keeps_its_very_bytes() -> None:
    """Role, words, ending, `[DONE]`: nothing is decoded, nothing changes."""
    events = [chunk(ROLE), says("Hello"), says(" 你好\u2028"), chunk(finish="stop")]

    heard = read(*events, DONE)

    assert [each.frame for each in heard.chunks] == [body(each) for each in events]
    assert (heard.failure, heard.decoder.done, heard.decoder.finished) == (None, True, True)


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \r\n\r\n", b"data: [DONE]"])
def test_the_end_mark_is_known_in_every_spelling(done: bytes) -> None:
    """A trailing space kills openai-node; the last blank line may never come."""
    heard = read(says("Hi"), chunk(finish="stop"), done)

    assert (heard.text, heard.failure, heard.decoder.done) == ("Hi", None, True)


def test_an_answer_is_whole_without_the_end_mark() -> None:
    """TrueFoundry's fault S11: a finish_reason and a clean end."""
    heard = read(says("Hi"), chunk(finish="length"))

    assert (heard.finish_reasons, heard.failure, heard.decoder.finished) == ([(0, "length")], None, True)


@pytest.mark.parametrize(
    ("events", "reasons"),
    [
        ([chunk(ROLE), says("Hi")], [(0, "stop")]),
        ([chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]})], [(0, "tool_calls")]),
        ([], [(0, "stop")]),
        ([{"id": "", "choices": [], "prompt_filter_results": []}], [(0, "stop")]),
        ([says("Hi"), chunk(choices=[{"index": 1, "delta": {"content": "Ho"}}])], [(0, "stop"), (1, "stop")]),
        ([chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}]), says("Hi")], [(1, "stop"), (0, "stop")]),
    ],
)  # fmt: skip
def test_the_end_mark_alone_ends_what_has_no_finish_reason(events: list[Any], reasons: list[Any]) -> None:
    """vllm-mlx#628 leaves it null; a client that waits for tool calls needs the word."""
    heard = read(*events, DONE)

    assert (heard.finish_reasons, heard.failure) == (reasons, None)


@pytest.mark.parametrize("events", [[], [chunk(ROLE)], [says("Hi")], [says("Hi"), b": ping\n\n", b"data: {\n\n"]])
def test_an_answer_with_neither_is_cut_off(events: list[Any]) -> None:
    """Never a made-up `stop`: words are missing."""
    heard = read(*events)

    assert isinstance(heard.failure, UpstreamTruncated)
    assert (heard.finish_reasons, heard.decoder.finished) == ([], False)
    assert heard.text == ("Hi" if says("Hi") in events else "")


def test_one_of_two_choices_without_an_ending_is_cut_off() -> None:
    """`n=2`: both begin, one ends."""
    both = chunk(choices=[{"index": at, "delta": {"content": "Hi"}, "finish_reason": None} for at in (0, 1)])

    assert isinstance(fails(both, chunk(finish="stop")), UpstreamTruncated)
    heard = read(both, chunk(finish="stop"), chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "length"}]))
    assert (heard.finish_reasons, heard.failure) == ([(0, "stop"), (1, "length")], None)


@pytest.mark.parametrize("again", ["stop", "length", "", 7, {}])
def test_a_choice_ends_once(again: Any) -> None:
    """Servers repeat the finish_reason on the usage chunk, or put `""` on every delta."""
    heard = read(says("Hi"), chunk(finish="stop"), chunk({"content": "!"}, finish=again), DONE)

    assert (heard.finish_reasons, heard.text) == ([(0, "stop")], "Hi!")


def test_a_blank_finish_reason_on_every_chunk_is_no_ending() -> None:
    """It would end the answer after its first word, and hide that the rest was cut off."""
    assert isinstance(fails(chunk({"content": "Hi"}, finish="")), UpstreamTruncated)


def test_nothing_after_the_end_mark_counts() -> None:
    """The reply is over."""
    heard = read(says("Hi"), chunk(finish="stop"), DONE, says("more"), {"error": "late"}, DONE, b"data: {\n\n")

    assert (heard.text, heard.failure, heard.decoder.skipped) == ("Hi", None, 0)


# --- names ----------------------------------------------------------------------------------------


def test_azures_first_chunk_waits_for_the_reply_to_get_its_id() -> None:
    """Azure sends filter results with `choices: []` and an empty id before anything else."""
    azure = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"index": 0}]}

    heard = read(azure, chunk(ROLE), says("Hi"), chunk(finish="stop"), DONE)

    assert [each["id"] for each in heard.data] == ["chatcmpl-1"] * 4
    assert heard.data[0] == {**chunk(), "choices": [], "prompt_filter_results": [{"index": 0}]}
    assert heard.chunks[1].frame == body(chunk(ROLE))  # only the odd one was rewritten


def test_metadata_for_the_engine_comes_first_and_untouched() -> None:
    """Agora reads `chat.completion.custom_metadata` from the first event; it shapes no chunk behind it."""
    metadata = {"id": "m", "object": "chat.completion.custom_metadata", "choices": [], "metadata": {"x": 1}}

    heard = read(metadata, chunk(ROLE), says("Hi"), chunk(finish="stop"), DONE)

    assert heard.chunks[0].frame == body(metadata)
    assert [each.frame for each in heard.chunks[1:3]] == [body(chunk(ROLE)), body(says("Hi"))]


@pytest.mark.parametrize("id", [..., None, "", 7, ["a"]])
def test_a_server_without_ids_gets_ours(id: Any) -> None:
    """LiveKit's client fails on a chunk without an id; the first word waits for none."""
    decoder = Decoder(turn_id="chatcmpl-ours", model="m1", wants_usage=False, secret=None)
    assert [each.text for each in decoder.feed(body(says("Hi", id=id)))] == ["Hi"]

    heard = read(says("Hi", id=id), says("!", id=id), chunk(finish="stop", id=id), chunk(id=id, choices=[]), DONE)
    assert {each["id"] for each in heard.data} == {"chatcmpl-ours"}


def test_an_id_that_changes_in_mid_stream_stays_what_it_was() -> None:
    """Clients put chunks together by id; the last one, with usage, has often none."""
    heard = read(says("Hi"), says("!", id="other"), chunk(finish="stop", id=None), chunk(choices=[], id=...), DONE)

    assert [each["id"] for each in heard.data] == ["chatcmpl-1"] * 4
    assert heard.data[1] == says("!")


@pytest.mark.parametrize("missing", ["object", "created", "model"])
@pytest.mark.parametrize("value", [..., None])
def test_a_server_that_leaves_out_fields_gets_them_in_every_chunk(missing: str, value: Any) -> None:
    """Every chunk has an object, a time and a model, the same ones from first to last."""
    odd = {missing: value}
    heard = read(chunk(ROLE, x=None, **odd), says("Hi", **odd), chunk(finish="stop", **odd), DONE)

    ours = {"object": "chat.completion.chunk", "model": "m1"}
    found = {each[missing] for each in heard.data}
    assert len(found) == 1 and all(found)
    assert missing == "created" or found == {ours[missing]}
    assert heard.data[0]["x"] is None  # what else it says, it says


# --- odd chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [None, ..., 7, "none", {}, [None, 7]])
def test_a_chunk_without_a_list_of_choices_gets_an_empty_one(choices: Any) -> None:
    """Vapi dies of a chunk without `choices`, LiveKit of null; the rest of the chunk stays."""
    heard = read(says("Hi"), chunk(choices=choices, x={"y": 1}), chunk(finish="stop"), DONE)

    assert heard.data[1] == {**chunk(choices=[]), "x": {"y": 1}}
    assert (heard.text, heard.decoder.skipped) == ("Hi", 0)


@pytest.mark.parametrize("delta", [None, ..., 7, "Hi", []])
def test_a_choice_without_a_delta_gets_an_empty_one(delta: Any) -> None:
    """Azure's asynchronous filter results have none; clients read `delta.content` unasked."""
    choice = {"index": 0, "finish_reason": "stop", "content_filter_offsets": {"check_offset": 1}}
    odd = choice if delta is ... else {**choice, "delta": delta}

    heard = read(says("Hi"), chunk(choices=[odd]))

    assert heard.data[1] == chunk(choices=[{**choice, "delta": {}}])
    assert (heard.finish_reasons, heard.failure) == ([(0, "stop")], None)


@pytest.mark.parametrize("choices", [[], None, ...])
def test_a_count_of_tokens_is_passed_to_who_asked_for_it(choices: Any) -> None:
    """Some servers send it unasked, some without `choices`."""
    events: list[Any] = [says("Hi"), chunk(finish="stop"), chunk(choices=choices, usage=USAGE), DONE]

    assert [each.get("usage") for each in read(*events, usage=True).data] == [None, None, USAGE]
    assert [each.get("usage") for each in read(*events).data] == [None, None]


def test_usage_beside_words_and_null_fields_stay() -> None:
    """Groq and vLLM send `usage` on every chunk, others every field they know; a null error is none."""
    events = [
        says("Hi", usage=None, error=None),
        says("!", usage=USAGE),
        chunk(choices=[], usage=None),
        chunk(finish="stop"),
    ]

    heard = read(*events, DONE)

    assert [each.frame for each in heard.chunks] == [body(each) for each in events]


JUNK = [
    b'data: {"choices": [{"delta\n\n',
    b"data: {}}\n\n",
    b"data: hello\n\n",
    b"data: 7\n\n",
    b"data: null\n\n",
    b'data: [{"choices":[]}]\n\n',
    b'data: {"choices": 5, junk}\n\n',
    b'data: {"choices":[{"delta": 5 oops}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n',
    b'data: {"id":"chatcmpl-1","x":"\xc3\x28","choices":[]}\n\n',
    b'data: {"id":"other","x":1e999,"choices":[]}\n\n',
    b'data: {"id":1e999}\n\n',
    b"data: {" + b'"a":{' * 100_000 + b"}" * 100_001 + b"\n\n",
    b'data: {"id":"\\ud800","choices":[]}\n\n',
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_an_event_that_is_no_chunk_is_skipped_and_counted(junk: bytes) -> None:
    """Fault S10: one broken event in mid-answer; the caller hears the rest."""
    if len(junk) > 100_000:
        heard = Read(body(says("Hi"), junk, chunk(finish="stop"), DONE), pieces=0, usage=False)
    else:
        heard = read(says("Hi"), junk, junk, chunk(finish="stop"), DONE)

    assert (heard.text, heard.failure, heard.finish_reasons) == ("Hi", None, [(0, "stop")])
    assert heard.decoder.skipped == (1 if len(junk) > 100_000 else 2)


# --- errors within the stream ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ({"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}, 429, "Slow down."),
        ({"message": "Who?", "type": "authentication_error"}, 401, "Who?"),
        ({"message": "Too long.", "code": "context_length_exceeded"}, 400, "Too long."),
        ({"message": "Busy.", "code": "503"}, 503, "Busy."),
        ({"message": "Busy.", "code": 503, "status": "UNAVAILABLE"}, 503, "Busy."),
        ({"message": "Busy.", "status": 529, "type": "overloaded_error"}, 529, "Busy."),
        ({"message": "Odd.", "code": 200, "type": "nobody_knows"}, 502, "Odd."),
        ({"message": "Odd.", "code": "٤٠٤٤", "type": None}, 502, "Odd."),
        ({"code": "server_error"}, 500, "The model's server reported an error."),
        ({"message": {"text": "x"}}, 502, "The model's server reported an error."),
        ("broken pipe", 502, "broken pipe"),
        (7, 502, "The model's server reported an error."),
        (True, 502, "The model's server reported an error."),
    ],
)
def test_an_error_event_has_the_status_that_its_words_mean(error: Any, status: int, message: str) -> None:
    """There is no HTTP status of its own: an object, a string, whatever it is."""
    for event in ({"error": error}, chunk(error=error), b"event: error\n" + frame(json.dumps(error).encode())):
        heard = read(says("Hi"), event, says("never"))

        assert isinstance(heard.failure, UpstreamStatusError)
        assert (heard.failure.status, heard.failure.message, heard.text) == (status, message, "Hi")
        told = heard.failure.body()["error"]
        assert told["message"] == message and isinstance(told["type"], str) and {"param", "code"} <= told.keys()


def test_the_unknown_fields_of_an_error_are_kept() -> None:
    """OpenRouter says in `metadata` which provider broke."""
    error = {"message": "Broke.", "code": 502, "metadata": {"provider_name": "X", "raw": None}}

    assert fails({"error": error}).body()["error"] == {**error, "type": "upstream_error", "param": None}


def test_openrouters_finish_reason_error_is_an_error() -> None:
    """With and without the error object beside it; the words before it were heard."""
    beside = {"code": "server_error", "message": "Provider disconnected"}
    for event, status in ((chunk(finish="error"), 502), (chunk(finish="error", error=beside), 500)):
        heard = read(says("Hi"), event, DONE)

        assert isinstance(heard.failure, UpstreamStatusError) and heard.failure.status == status
        assert (heard.text, heard.finish_reasons) == ("Hi", [])


def test_a_key_or_a_traceback_in_an_error_event_goes_no_further() -> None:
    """LiteLLM sends its stack; others echo the key that they did not like, in any field and at any depth."""
    trace = 'Traceback (most recent call last):\n  File "/srv/app.py"'
    key = "sk-secret-123"
    error = {"message": f"Bad {key}", "type": key, "code": key, "param": key, "x": [{"y": key}], "stack": trace}

    for event in ({"error": error}, {"error": trace}, {"error": {"message": trace}}, {"error": key}):
        failure = read(says("Hi"), event, secret=key).failure
        assert failure is not None
        told = json.dumps(failure.body()) + str(failure) + repr(failure)
        assert key not in told and "Traceback" not in told and "/srv" not in told


# --- any bytes at all -----------------------------------------------------------------------------

EVENTS = [body(chunk(ROLE)), body(says("Hi")), body(says("!", id="b")), body(chunk(finish="stop")), DONE, *JUNK[:10]]
EVENTS += [
    body({"id": "", "choices": []}),
    body(chunk(choices=None)),
    body(chunk(choices=[], usage=USAGE)),
    b"\r\n",
    b"\n",
]
EVENTS += [body(chunk(choices=[{"delta": None}])), b": ping\n\n", b"data", b"event: error\n", body(says("Hi", id=None))]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(EVENTS) | st.binary(max_size=9), max_size=9).map(b"".join), st.integers(1, 40))
def test_whatever_comes_and_however_it_is_cut_the_reply_is_strict(data: bytes, pieces: int) -> None:
    """No bytes of an upstream are a mistake of ours: chunks, an error of the tree, or an ending."""
    whole = read(data)
    cut = Read(data, pieces=pieces, usage=False)

    assert [each.frame for each in cut.chunks] == [each.frame for each in whole.chunks]
    assert repr(cut.failure) == repr(whole.failure)
    assert whole.failure is not None or whole.decoder.finished
