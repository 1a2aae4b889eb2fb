"""The reader of replies: whatever JSON an upstream puts into whatever events, chunks come out, or an error of its own.

Rules:
- test_wire.py and providers/test_openai.py have the single cases; here is what nobody has thought of, and its cost.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from feeding import cut
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword.providers.openai import Decoder
from firstword.wire import DONE, frame

steady = settings(deadline=None, derandomize=True)
READ = 262_144  # bytes; the most that one read brings


@dataclass(frozen=True)
class Read:
    """What a decoder made of one body."""

    chunks: list[dict[str, Any]]
    failure: str
    done: bool
    skipped: int


def decoder() -> Decoder:
    return Decoder(turn_id="chatcmpl-ours", model="m1", wants_usage=False, secret="sk-secret-123")


def read(pieces: Sequence[bytes]) -> Read:
    """Feed a body as the model does: until it is done or has failed, then its end."""
    reader, chunks = decoder(), []
    for piece in pieces:
        if not reader.done and reader.failure is None:
            chunks += reader.feed(piece)
    if not reader.done and reader.failure is None:
        chunks += reader.end()
    for each in chunks:
        assert each.frame.startswith(b"data: {") and each.frame.endswith(b"\n\n") and each.frame.count(b"\n") == 2
        each.frame.decode()
    # Its time of arrival stands in a chunk that had none: two readers may differ by a second.
    seen = [{**msgspec.json.decode(each.frame[6:]), "created": 0} for each in chunks]
    return Read(seen, repr(reader.failure), reader.done, reader.skipped)


# --- events that nobody has thought of ------------------------------------------------------------

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(2**70), st.just(1.5), st.text(max_size=4),
    st.just([]), st.just({}), st.just([None]), st.just({"x": [1]}), st.just("\u2028"), st.just("sk-secret-123"),
)  # fmt: skip


def maybe(**usual: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these fields, each as usual or as odd as can be."""
    return st.fixed_dictionaries({}, optional={name: values | odd for name, values in usual.items()})


words = st.sampled_from(["Hi", "", " ", "Grüße", "你好", "a\nb"])
calls = st.lists(maybe(index=st.integers(0, 2), id=words, function=maybe(name=words, arguments=words)), max_size=2)
deltas = maybe(role=st.just("assistant"), content=words | st.lists(maybe(type=st.just("text"), text=words), max_size=2),
               tool_calls=calls, refusal=words, reasoning_content=words)  # fmt: skip
reasons = st.sampled_from(["stop", "length", "tool_calls", "error", ""])
choices = st.lists(maybe(index=st.integers(0, 2), delta=deltas, finish_reason=reasons, logprobs=odd), max_size=3)
errors = maybe(message=words, type=words, code=words, status=st.integers(0, 700), param=words)
counts = maybe(prompt_tokens=st.integers(0, 9), completion_tokens=st.integers(0, 9))
chunks = maybe(id=words, object=words, created=st.integers(0, 9), model=words, choices=choices, usage=counts, x=odd)
values = st.one_of(chunks, chunks, chunks, maybe(error=errors), errors, odd)
spellings = st.sampled_from(
    [
        b"data: %b\n\n",
        b"data: %b\n\n",
        b"data:%b\r\n\r\n",
        b": ping\n\ndata: %b\n\n",
        b"event: error\ndata: %b\n\n",
        b"%b",
    ]
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    said = [
        spelling.replace(b"%b", data) for spelling, data in draw(st.lists(st.tuples(spellings, written), max_size=8))
    ]
    return b"".join(said) + draw(st.sampled_from([DONE, DONE, b"", b"data: [DONE]", b"data: {"]))


written = st.one_of(
    values.map(msgspec.json.encode), st.binary(max_size=9), st.sampled_from([b"[" * 3000, b"{]", b"\xff"])
)


@settings(steady, max_examples=120)
@given(events(), st.lists(st.integers(1, 600), max_size=8))
def test_any_events_give_the_same_chunks_however_they_are_cut(body: bytes, places: list[int]) -> None:
    """Fields of any type, or none; errors of any shape; and every chunk is one line of JSON in UTF-8."""
    whole = read([body])

    assert read(cut(body, places)) == whole
    assert read(cut(body, range(len(body)))) == whole


@settings(steady, max_examples=80)
@given(events())
def test_a_reply_has_one_id_and_each_choice_one_ending(body: bytes) -> None:
    """From the first choice on, as a strict client wants it."""
    spoken = [each for each in read([body]).chunks if each.get("choices")]

    assert len({each["id"] for each in spoken}) <= 1
    ends = [
        choice.get("index", 0)
        for each in spoken
        for choice in each["choices"]
        if isinstance(choice.get("finish_reason"), str) and type(choice.get("index", 0)) is int
    ]
    assert len(ends) == len(set(ends))


def test_a_choice_whose_index_is_null_ends_once() -> None:
    """Seen as choice 0, as one without an index is."""
    ending = frame(b'{"id":"a","choices":[{"index":null,"delta":{},"finish_reason":"stop"}]}')

    chunks = read([ending * 2 + DONE]).chunks
    assert [choice["finish_reason"] for each in chunks for choice in each["choices"]].count("stop") == 1


# --- what it costs --------------------------------------------------------------------------------

WORD = frame(b'{"id":"a","object":"o","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}')
SILENT = {
    "comments": b": ping\n\n",
    "line breaks": b"\n",
    "names without data": b"event: ping\n\n",
    "what is no json": b"data: oh\n\n",
    "objects that are no chunks": frame(b'{"id":"a"}'),
    "objects without an id": frame(b"{}"),
    "counts": frame(b'{"usage":{"prompt_tokens":1}}'),
}


@pytest.mark.parametrize("event", SILENT.values(), ids=SILENT.keys())
def test_a_stream_that_says_nothing_leaves_nothing_behind(event: bytes) -> None:
    """It may go on until the time for the first word is over, at the speed of a loopback."""
    piece = event * (READ // 4 // len(event))
    reader = decoder()
    reader.feed(piece)
    tracemalloc.start()
    try:
        for _ in range(3):
            reader.feed(piece)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert left < len(piece)


def many(count: int, choice: str) -> bytes:
    return frame(b'{"choices":[' + b",".join([choice.encode()] * count) + b"]}") + DONE


HEAVY: dict[str, Callable[[int], bytes]] = {
    "one long word": lambda count: WORD.replace(b"Hi", b"x" * count * 40) + DONE,
    "many words": lambda count: WORD * (count // 4) + DONE,
    "choices": lambda count: many(count, '{"delta":{"content":"Hi"}}'),
    "choices without a delta": lambda count: many(count, "{}"),
    "choices with a blank ending": lambda count: many(count, '{"delta":{},"finish_reason":""}'),
    "choices that end twice": lambda count: many(count, '{"delta":{},"finish_reason":"stop"}'),
    "lines of one event": lambda count: b":x\n" * count * 10 + b"\n" + WORD + DONE,
    "data lines of one event": lambda count: b"data: 1\n" * count * 4 + b"\n" + WORD + DONE,
    "nested lists": lambda count: frame(b'{"choices":null,"x":[' + b",".join([b"[]"] * count * 10) + b"]}") + DONE,
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY.keys())
def test_the_price_of_an_event_does_not_grow_with_its_size_squared(body: Callable[[int], bytes]) -> None:
    """One event may have 4 MB, and all other calls wait while it is read."""

    def seconds(count: int) -> float:
        data = body(count)
        taken = []
        for _ in range(3):
            reader, began = decoder(), time.thread_time()
            reader.feed(data)
            taken.append(time.thread_time() - began)
        return min(taken)

    assert seconds(400) < 8 * max(seconds(100), 1e-4)  # 4 when linear, 16 when not
