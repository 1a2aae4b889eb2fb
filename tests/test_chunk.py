"""A chunk is raw until someone looks, and both faces always say the same."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword.chunk import Chunk
from firstword.wire import frame

steady = settings(deadline=None, derandomize=True)


def raw(data: dict[str, Any]) -> Chunk:
    """Return the chunk as it comes from a provider."""
    return Chunk.from_frame(frame(msgspec.json.encode(data)))


def both(delta: Any, **fields: Any) -> list[Chunk]:
    """Return a chunk with this delta twice: raw and made."""
    data = {"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}
    return [raw(data), Chunk(data)]


# --- raw = made -----------------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
parts = st.lists(st.fixed_dictionaries({}, optional={"type": st.just("text") | anything, "text": anything}) | anything)
words = st.text(max_size=8) | st.sampled_from(["", " ", "\n\t", "\u2028", "\u00a0"])
delta_fields = {"content": words | parts | anything, "refusal": words | anything, "tool_calls": anything}
delta_fields |= {"function_call": anything, "audio": anything, "role": anything, "reasoning_content": anything}
delta = st.none() | st.fixed_dictionaries({}, optional=delta_fields)
choice = st.fixed_dictionaries(
    {}, optional={"index": anything, "delta": delta, "finish_reason": anything, "x": anything}
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": anything,
        "choices": st.none() | st.lists(choice, max_size=3),
        "usage": anything,
        "error": anything,
        "created": anything,
    },
)


@steady
@given(chunks)
def test_a_raw_chunk_says_what_a_made_one_says(data: dict[str, Any]) -> None:
    """Whoever looks cannot tell whether a chunk came from the wire or was made by a stage."""
    data = msgspec.json.decode(msgspec.json.encode(data))  # what JSON can hold
    wire, made = raw(data), Chunk(copy.deepcopy(data))

    assert wire.look() == made.look()
    assert (wire.text, wire.speaks, wire.finish_reason) == (made.text, made.speaks, made.finish_reason)
    assert wire.data == made.data == data
    # Now that both faces of both are there, they still agree.
    again = Chunk.from_frame(made.frame)
    assert (again.data, again.look(), again.speaks) == (data, wire.look(), wire.speaks)


@steady
@given(chunks, st.dictionaries(st.text(max_size=5), anything, max_size=3), st.text(max_size=8))
def test_changing_a_chunk_leaves_it_alone(data: dict[str, Any], fields: dict[str, Any], text: str) -> None:
    """The same object may be on its way to others: memory, the console, a second stage."""
    before = copy.deepcopy(data)
    chunk, frame_before = Chunk(data), Chunk(copy.deepcopy(data)).frame

    changed, spoken = chunk.changed(**fields), chunk.with_text(text)

    assert changed.data == {**before, **fields}
    assert spoken.text == text and msgspec.json.decode(spoken.frame[6:]) == spoken.data
    assert (chunk.data, chunk.frame) == (before, frame_before)


# --- the two faces --------------------------------------------------------------------------------


def test_a_frame_goes_through_untouched_even_when_it_was_looked_at() -> None:
    """Spaces, the order of keys, escapes and numbers of a provider are its own."""
    odd = b'data: { "choices" : [{"delta":{"content":"\\u00e9"},"index":0}], "created":1.0e3, "id":"a" }\n\n'
    chunk = Chunk.from_frame(odd)

    assert (chunk.text, chunk.speaks, chunk.data["created"]) == ("é", True, 1000.0)
    assert chunk.frame is odd


def test_a_made_chunk_is_encoded_once_in_one_line() -> None:
    """Line breaks and non-ASCII words stay within the one line of the frame."""
    chunk = Chunk({"id": "a", "choices": [{"index": 0, "delta": {"content": "Grüße\r\n\u2028你好"}}]})

    assert chunk.frame == chunk.frame and chunk.frame is chunk.frame
    assert chunk.frame.count(b"\n") == 2 and b"\r" not in chunk.frame and chunk.frame.endswith(b"}]}\n\n")
    assert "Grüße".encode() in chunk.frame


def test_may_hold_is_false_only_when_the_key_is_surely_absent() -> None:
    """A cheap look at the bytes; a key may hide behind an escape."""
    data: dict[str, Any] = {"choices": [{"delta": {"tool_calls": []}}]}

    assert raw(data).may_hold(b"tool_calls") and not raw(data).may_hold(b"audio")
    assert Chunk.from_frame(b'data: {"\\u0061udio": 1}\n\n').may_hold(b"audio")
    assert Chunk({}).may_hold(b"audio")


@pytest.mark.parametrize("junk", [b"{", b'{"id":"a"} x', b'{"id":"\xff"}', b"[DONE]"])
def test_what_is_no_json_is_told_by_the_errors_of_decoding(junk: bytes) -> None:
    """The decoder that made the chunk decides what becomes of it."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        Chunk.from_frame(frame(junk)).look()
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        assert Chunk.from_frame(frame(junk)).data is None


# --- what speaks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "Hi"},
        {"role": "assistant", "content": "."},
        {"content": [{"type": "text", "text": "Hi"}]},
        {"content": [{"text": "Hi"}]},
        {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]},
        {"refusal": "I cannot."},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f", "arguments": ""}},
        {"audio": {"id": "a", "data": "AAAA"}},
        {"content": None, "audio": {"transcript": "Hi"}},
        {"content": "\n- a"},
        {"content": "\u200b👩\u200d🚀"},
    ],
)
def test_words_calls_and_sound_speak(delta: dict[str, Any]) -> None:
    """A caller hears it, or the engine acts on it: the reply begins."""
    assert [chunk.speaks for chunk in both(delta)] == [True, True]


@pytest.mark.parametrize(
    "delta",
    [
        None,
        {},
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
        {"content": None},
        {"content": " \n\t"},
        {"content": "\u3000\u2028"},
        {"content": 7},
        {"content": {"text": "Hi"}},
        {"content": []},
        {"content": [None, "Hi", 7, {"type": "text"}, {"type": "text", "text": None}, {"type": "text", "text": 7}]},
        {"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "reasoning", "text": "Hm"}]},
        {"content": "", "refusal": ""},
        {"refusal": None, "tool_calls": None, "function_call": None, "audio": None},
        {"tool_calls": [], "audio": {}},
        {"reasoning_content": "Let me think."},
        {"reasoning": "Let me think.", "reasoning_details": [{"text": "Hm"}]},
        {"content": "\u200b"},
        {"content": "\ufeff \u2060\n"},
        {"refusal": "\u200b"},
    ],
)
def test_a_role_silence_and_thought_do_not_speak(delta: Any) -> None:
    """Nothing of it may end the wait for the first word, nor start the reply."""
    assert [chunk.speaks for chunk in both(delta)] == [False, False]
    assert all(chunk.text.strip(" \n\t\u2028\u2060\u200b\u3000\ufeff") == "" for chunk in both(delta))


@pytest.mark.parametrize(
    "data", [{}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"usage": {"total_tokens": 1}, "choices": []}]
)
def test_a_chunk_without_words_is_silent_and_has_no_ending(data: dict[str, Any]) -> None:
    """Azure's filter results, a count of tokens, an empty object."""
    for chunk in (raw(data), Chunk(data)):
        assert (chunk.text, chunk.speaks, chunk.finish_reason) == ("", False, None)
        assert chunk.with_text("Hi").text == "Hi"


def test_the_first_choice_has_the_word_and_any_choice_speaks() -> None:
    """`n=2`: text is the first one's; the second alone starts the reply as well."""
    data = {"choices": [{"index": 0, "delta": {"content": ""}}, {"index": 1, "delta": {"content": "Hi"}}]}

    for chunk in (raw(data), Chunk(data)):
        assert (chunk.text, chunk.speaks) == ("", True)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "whatever_is_new"])
def test_a_finish_reason_is_what_the_provider_says(reason: str) -> None:
    """Also one that nobody knows yet; null and numbers are none."""
    data = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": reason}]}

    assert raw(data).finish_reason == Chunk(data).finish_reason == reason
    assert raw({"choices": [{"finish_reason": 7}, {"finish_reason": None}]}).finish_reason is None


def test_with_text_keeps_everything_else() -> None:
    """A stage that rewrites words must not lose log probabilities, a role or a second choice."""
    first = {"index": 0, "delta": {"role": "assistant", "content": "Hi", "y": 1}, "logprobs": None}
    second = {"index": 1, "delta": {"content": "Ho"}}

    spoken = raw({"id": "a", "x": None, "choices": [first, second]}).with_text("Hello").data

    assert spoken["choices"] == [{**first, "delta": {"role": "assistant", "content": "Hello", "y": 1}}, second]
    assert (spoken["id"], spoken["x"]) == ("a", None)


def test_a_repr_never_shows_words() -> None:
    """A chunk in a log line or a failed assertion must not tell what was said."""
    for chunk in both({"content": "my secret illness"}, user="Jane"):
        shown = [repr(chunk), str(chunk), f"{chunk}", repr([chunk])]
        assert not any("secret" in each or "Jane" in each for each in shown)
        assert chunk.data  # and no more once it was decoded
        assert "secret" not in repr(chunk)


def test_a_chunk_whose_words_are_known_has_no_ending_and_is_not_decoded_for_that() -> None:
    """The usual chunk of a reply: whoever waits for the ending asks each of them."""
    chunk = Chunk.from_frame(b"data: {this is no JSON}\n\n", "Hello")
    assert (chunk.finish_reason, chunk.calls, chunk.text) == (None, False, "Hello")
