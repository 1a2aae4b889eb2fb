"""The quick way of words: what it takes for words in the middle of a reply is what the slow way takes for them."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firstword.providers._words import LESSONS, Likeness
from firstword.providers.openai import Decoder
from firstword.wire import frame

BEFORE = b'{"id":"c","object":"o","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"'
PLAIN = b'"},"finish_reason":null}]}'
PADDED = b'"},"logprobs":null,"finish_reason":null}],"obfuscation":"'
steady = settings(max_examples=300, deadline=None, derandomize=True)


def decoder() -> Decoder:
    """A reader of a reply that has begun."""
    reader = Decoder(turn_id="t", model="m", wants_usage=False, secret=None)
    for word in (b"Hi", b" you"):
        reader.feed(frame(BEFORE + word + PLAIN))
    return reader


@pytest.mark.parametrize(
    ("lesson", "another"),
    [
        (BEFORE + b"Hello" + PLAIN, BEFORE + b" there, you" + PLAIN),
        (BEFORE + "你好".encode() + PLAIN, BEFORE + "，世界".encode() + PLAIN),
        (BEFORE + b"Hello" + PADDED + b'aB3"}', BEFORE + b" you" + PADDED + b'x0"}'),
        (BEFORE + b"Hello" + PADDED + b'"}', BEFORE + b"a" + PADDED + b'123456"}'),
    ],
)
def test_words_like_those_before_are_known_at_sight(lesson: bytes, another: bytes) -> None:
    """The very bytes, as they came, in the way of OpenAI as well, with its padding of random length."""
    reader = decoder()
    (first,) = reader.feed(frame(lesson))
    chunk = reader.words(frame(another))

    assert chunk is not None and chunk.frame == frame(another)
    assert first.frame == frame(lesson) and chunk.text == msgspec.json.decode(another)["choices"][0]["delta"]["content"]


@pytest.mark.parametrize(
    "other",
    [
        BEFORE + b'","tool_calls":[{"index":0}],"x":"' + PLAIN,
        BEFORE + b"a\\" + PLAIN,
        BEFORE + b"a\\nb" + PLAIN,
        BEFORE + b"a\x00b" + PLAIN,
        BEFORE + b"a\xffb" + PLAIN,
        BEFORE + b'"},"finish_reason":"stop","x":{"y":"' + PLAIN,
        BEFORE.replace(b'"c"', b'"d"') + b"a" + PLAIN,
        BEFORE + PLAIN,
        BEFORE + b"  " + PLAIN,
        BEFORE + b"a" + PLAIN.replace(b"null", b'"stop"'),
        BEFORE + b"a" + PLAIN[:-1] + b',"error":{"message":"no"}}',
    ],
)
def test_anything_else_is_decoded(other: bytes) -> None:
    """An ending, a call, an error, another id, what is spelt out, what is not text."""
    reader = decoder()
    reader.feed(frame(BEFORE + b"Hello" + PLAIN))
    assert reader.words(frame(other)) is None


@pytest.mark.parametrize("piece", [b": ping\n\n", b"data: {", b"\n"])
def test_an_event_in_the_middle_of_another_is_no_event(piece: bytes) -> None:
    """Half an event has come: what looks whole belongs to it."""
    reader = decoder()
    reader.feed(frame(BEFORE + b"Hello" + PLAIN))
    reader.feed(piece)
    whole = piece.endswith(b"\n\n")
    assert (reader.words(frame(BEFORE + b"a" + PLAIN)) is not None) == whole


@pytest.mark.parametrize("join", [b"", b"\r", b"\n"])
def test_two_events_are_never_taken_for_one(join: bytes) -> None:
    """They came in one read."""
    reader = decoder()
    reader.feed(frame(BEFORE + b"Hello" + PLAIN))
    assert reader.words(frame(BEFORE + b"a" + PLAIN) + join + frame(BEFORE + b"b" + PLAIN)) is None


def test_a_reply_whose_chunks_are_never_alike_is_not_learnt_from_for_ever() -> None:
    """Each lesson has its price."""
    likeness = Likeness()
    for number in range(LESSONS + 1):
        likeness.learn(frame(b'{"number":%d,"content":"a"}' % number), "a")
    likeness.learn(frame(b'{"content":"a"}'), "a")
    assert likeness.read(frame(b'{"content":"b"}')) is None


def test_words_are_learnt_only_where_they_stand() -> None:
    """Another field of that name says the same at the moment."""
    reader = decoder()
    delta = b'{"id":"c","choices":[{"index":0,"delta":{"content": "a"},"logprobs":{"content":"'
    for _ in range(3):
        reader.feed(frame(delta + b'a"}}]}'))
    assert reader.words(frame(delta + b'b"}}]}')) is None


words = st.text(max_size=6) | st.sampled_from(["", "a", '"', "\\", "\n", "\u2028", "，"])


def spelt(data: dict[str, Any]) -> bytes:
    return frame(msgspec.json.encode(data))


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """Chunks that are usual, nearly usual, or not at all."""
    delta: dict[str, Any] = {"content": draw(words)}
    if draw(st.integers(0, 9)) == 0:
        delta["tool_calls"] = [{"index": 0}]
    choice = {"index": draw(st.sampled_from([0, 0, 0, 0, 1])), "delta": delta}
    choice["logprobs"] = {"content": draw(words)} if draw(st.integers(0, 4)) == 0 else None
    choice["finish_reason"] = draw(st.sampled_from([None, None, None, None, "stop"]))
    data: dict[str, Any] = {"id": draw(st.sampled_from(["c", "c", "c", "d"])), "choices": [choice]}
    if draw(st.booleans()):
        data["obfuscation"] = draw(words)
    return spelt(data)


def without_id(frame: bytes) -> bytes:
    """Return a frame without the id that each reader makes up for a call."""
    return re.sub(rb'"id":"[0-9a-f]{9}"', b'"id":""', frame)


@steady
@given(st.lists(chunks(), min_size=1, max_size=12))
@example([spelt({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in ("a", "b", "c")])
def test_the_quick_way_is_of_one_mind_with_the_slow_one(frames: list[bytes]) -> None:
    """Every event is read twice, by a reader that may take the quick way, and by one that never does."""
    quick, slow = decoder(), decoder()
    for each in frames:
        chunk = quick.words(each)
        found = [chunk] if chunk is not None else quick.feed(each)
        known = slow.feed(each)
        assert [(without_id(one.frame), one.text, one.speaks) for one in found] == [
            (without_id(one.frame), one.text, one.speaks) for one in known
        ]
        assert (quick.done, quick.finished, quick.failure is None) == (slow.done, slow.finished, slow.failure is None)


@pytest.mark.parametrize("nothing", [b"", b" "])
def test_a_padded_chunk_without_words_is_decoded(nothing: bytes) -> None:
    """Padding makes it as long as one with words; to whoever counts the silence it is none."""
    reader = decoder()
    reader.feed(frame(BEFORE + b"Hello" + PADDED + b'aB3"}'))
    assert reader.words(frame(BEFORE + nothing + PADDED + b'123456"}')) is None
