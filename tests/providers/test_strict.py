"""Calls leave the relay in the form that every client reads, however a provider streams them.

Rules:
- Each answer is fed whole and one byte at a time; the calls must be the same.
- What is in good form already must keep its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_streams import MEANS, PARIS, STREAMS, TWO, answer, call, delta

from firstword.calls import MAX_CALLS
from firstword.errors import UpstreamTruncated
from firstword.providers.openai import Decoder
from firstword.testing import script

Json = dict[str, Any]
OLDER = "the older function_call"  # whoever asks with `functions` reads just that
MODERN = [name for name in STREAMS if name != OLDER]
OPENS = call("weather", "", index=0, id="c1", type="function")


def body(*deltas: Json, reason: str | None = "tool_calls", **more: Any) -> bytes:
    """Return the events of an answer: its deltas, its ending, and the end mark."""
    chunks = [script.chunk(each, **more) for each in deltas]
    chunks += [] if reason is None else [script.chunk({}, reason, **more)]
    return b"".join(event(each) for each in chunks) + b"data: [DONE]\n\n"


def event(data: Json) -> bytes:
    return str(script.event(data)["text"]).encode()


class Read:
    """What leaves of an answer."""

    def __init__(self, body: bytes, pieces: int = 0) -> None:
        self.decoder = Decoder(turn_id="t", model="m", wants_usage=True, secret=None)
        pieces = pieces or len(body)
        chunks = [each for at in range(0, len(body), pieces) for each in self.decoder.feed(body[at : at + pieces])]
        chunks += [] if self.decoder.done else self.decoder.end()
        self.frames = b"".join(each.frame for each in chunks)
        self.chunks = [each.data for each in chunks]
        self.choices = [choice for each in self.chunks for choice in each["choices"]]
        self.reasons = [each["finish_reason"] for each in self.choices if each["finish_reason"]]
        self.words = "".join(each["delta"].get("content") or "" for each in self.choices)


def strict(choices: Sequence[Json]) -> list[tuple[str, Any]]:
    """Return the calls of one choice, once they are found to be in the strict form."""
    whole: list[list[str]] = []
    ids: set[str] = set()
    for choice in choices:
        said = choice["delta"]
        if not said.get("tool_calls"):
            continue
        assert not said.get("content"), "words beside a call"
        [item] = said["tool_calls"]
        name, id = item["function"].get("name"), item.get("id")
        if name is not None:
            assert item["index"] == len(whole) and item["type"] == "function" and id.strip() and id not in ids
            ids.add(id)
            whole.append([name, ""])
        assert item["index"] == len(whole) - 1 and (name is not None or not id)
        whole[-1][1] += item["function"].get("arguments") or ""
    return [(name, json.loads(arguments)) for name, arguments in whole]


@pytest.mark.parametrize("reason", ["tool_calls", "stop", "length"])
@pytest.mark.parametrize("name", MODERN)
def test_every_deviation_leaves_in_the_strict_form(name: str, reason: str) -> None:
    """Indexes missing or the same, ids missing, names repeated, whole objects, two calls in a chunk, a wrong ending."""
    sent = "".join(step.get("text", "") for step in answer(name, reason=reason)).encode()
    for pieces in (0, 1):
        heard = Read(sent, pieces)
        explicit = [{**each, "delta": without_nulls(each["delta"])} for each in heard.choices]
        assert strict(explicit) == MEANS.get(name, TWO)
        assert heard.reasons == ["tool_calls"]
        assert [each["usage"] for each in heard.chunks if each.get("usage")] == [script.tokens(10, 1)]


def without_nulls(value: Any) -> Any:
    """Return a delta without what is null, which no client reads."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


GOOD = {
    "arguments in pieces": [delta(OPENS), *(delta(call(arguments=part, index=0)) for part in ('{"a', '":', "1}"))],
    "who speaks, in the same chunk": [
        {"role": "assistant", "content": None, **delta(OPENS)},
        delta(call(arguments=PARIS, index=0)),
    ],
    "an empty object in one piece": [delta(call("clock", "{}", index=0, id="c1", type="function"))],
    "an empty object in a piece of its own": [delta(OPENS), delta(call(arguments="{}", index=0))],
    "two of them": [
        delta(call("clock", "{}", index=0, id="c1", type="function")),
        delta(call("clock", "{}", index=1, id="c2", type="function")),
    ],
    "words before and behind": [
        {"content": "Let me see."},
        delta(call("weather", PARIS, index=0, id="c1", type="function")),
        {"content": "One moment."},
    ],
    "reasoning beside a call": [{"reasoning_content": "Hm.", **delta(OPENS)}, delta(call(arguments=PARIS, index=0))],
    "what its provider wants to see again": [
        delta({**call("weather", PARIS, index=0, id="c1", type="function"), "extra_content": {"signature": "x"}})
    ],
    "a null where nothing is meant": [
        delta(OPENS),
        delta({"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": PARIS}}),
    ],
    "blanks around the arguments": [
        delta(OPENS),
        *(delta(call(arguments=part, index=0)) for part in (" ", " {", "} ")),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_in_good_form_keeps_its_bytes(name: str) -> None:
    """OpenAI's own way, and what other servers do that no client minds."""
    sent = body({"role": "assistant", "content": ""}, *GOOD[name])
    for pieces in (0, 1):
        assert Read(sent, pieces).frames + b"data: [DONE]\n\n" == sent


def test_an_ending_in_the_chunk_of_the_last_call_keeps_its_bytes() -> None:
    """A call and its ending are one event."""
    whole = delta(call("weather", PARIS, index=0, id="c1", type="function"))
    sent = event(script.chunk(whole, "tool_calls"))

    assert Read(sent).frames == sent
    assert strict(Read(event(script.chunk(whole, "stop"))).choices) == TWO[:1]
    assert Read(event(script.chunk(whole, "stop"))).reasons == ["tool_calls"]


def test_what_was_begun_in_good_form_goes_on_without_a_word_said_twice() -> None:
    """The first call is half sent, as it came, when the server says its name and id again."""
    opens = delta(call("weather", '{"city": ', index=0, id="c1", type="function"))
    again = delta(call("weather", '"Paris"}', index=0, id="c1", type="function"))
    heard = Read(body(opens, again))
    assert heard.frames.startswith(event(script.chunk(opens))) and strict(heard.choices) == TWO[:1]


def test_words_beside_a_call_are_said_before_it() -> None:
    """Pipecat reads the call of such a chunk, and not the words."""
    heard = Read(body({"role": "assistant", "content": "Let me see.", **delta({**OPENS, "function": TWO_IN_ONE})}))

    assert [each["delta"].get("content") for each in heard.choices[:1]] == ["Let me see."]
    assert heard.words == "Let me see." and strict(heard.choices) == TWO[:1]
    assert [each["delta"]["role"] for each in heard.choices if "role" in each["delta"]] == ["assistant"]


TWO_IN_ONE = {"name": "weather", "arguments": PARIS}


def test_who_speaks_is_said_once_by_a_server_that_says_it_in_each_chunk() -> None:
    """Ollama does."""
    each = {"role": "assistant", "content": ""}
    heard = Read(body(*({**each, **delta} for delta in STREAMS["the index 0 for all, as Ollama"])))

    assert [choice["delta"]["role"] for choice in heard.choices if "role" in choice["delta"]] == ["assistant"]


def test_what_a_provider_wants_to_see_again_survives_the_mending() -> None:
    """Gemini's signature stands beside the call; without it the next turn is a 400."""
    signed = {**call("weather", PARIS, index=0, id="c1"), "extra_content": {"google": {"thought_signature": "x"}}}
    heard = Read(body(delta(signed), delta(call("clock", "{}", index=0, id="c2")), system_fingerprint="f"))

    items = [each["delta"]["tool_calls"][0] for each in heard.choices[:-1]]
    assert items[0]["extra_content"] == {"google": {"thought_signature": "x"}}
    assert "extra_content" not in items[1] and all(each["system_fingerprint"] == "f" for each in heard.chunks)


@pytest.mark.parametrize("arguments", ['{"city": "Pa', "Paris", '["Paris"]'])
@pytest.mark.parametrize("type", ["function", None])
def test_a_call_that_broke_off_keeps_its_ending(arguments: str, type: str | None) -> None:
    """The model ran out of tokens within a call: a client that trusts `length` does not run it."""
    piece = call("weather", arguments, index=0, id="c1", **({"type": type} if type else {}))
    heard = Read(body(delta(piece), reason="length"))

    assert heard.reasons == ["length"]
    sent = "".join(each["delta"]["tool_calls"][0]["function"]["arguments"] for each in heard.choices[:-1])
    assert sent == arguments


@pytest.mark.parametrize("calls", ["clock", [None], [7, "x"], 1])
def test_what_is_no_call_at_all_is_taken_out(calls: Any) -> None:
    """The server sends something else under that name; the words beside it are said."""
    ends = script.chunk({"content": "Hi.", "tool_calls": calls}, "stop")
    heard = Read(event(ends) + b"data: [DONE]\n\n")

    assert heard.words == "Hi." and heard.reasons == ["stop"]


def test_a_filtered_answer_keeps_its_ending() -> None:
    """What was called is not to be done."""
    assert Read(body(*GOOD["arguments in pieces"], reason="content_filter")).reasons == ["content_filter"]


@pytest.mark.parametrize("name", MODERN)
def test_an_answer_that_is_cut_off_gets_no_ending(name: str) -> None:
    """The server goes away before it said that the calls are whole: nothing is made up for them."""
    cut = b"".join(event(script.chunk(each)) for each in STREAMS[name])
    heard = Read(cut)

    assert isinstance(heard.decoder.failure, UpstreamTruncated) and heard.reasons == []


def test_an_ending_that_is_missing_is_made_up_behind_the_calls() -> None:
    """Only `[DONE]` says that the answer is whole, and a call waits."""
    heard = Read(body(delta(call("weather", PARIS)), delta(call("clock", "{}")), reason=None))

    assert strict(heard.choices) == TWO
    assert (heard.choices[-1]["finish_reason"], heard.reasons) == ("tool_calls", ["tool_calls"])


def test_two_choices_are_mended_apart() -> None:
    """`n` is 2, and both choices stand in each event."""
    both = [
        {"index": index, "delta": delta(call("weather", PARIS, index=0, id=f"c{index}")), "finish_reason": None}
        for index in (0, 1)
    ]
    ends = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]
    last = script.chunk({}, choices=ends, usage=script.tokens())
    heard = Read(event(script.chunk({}, choices=both)) + event(last) + b"data: [DONE]\n\n")

    for index in (0, 1):
        assert strict([each for each in heard.choices if each["index"] == index]) == TWO[:1]
    assert heard.reasons == ["tool_calls", "tool_calls"]
    assert [each["usage"] for each in heard.chunks if each.get("usage")] == [script.tokens()]


def test_the_calls_of_a_flood_are_as_many_as_may_be() -> None:
    """A server that calls without end, or whose arguments are blanks without end."""
    calls = [delta(call("clock", "{}", index=at, id=f"c{at}", type="function")) for at in range(3 * MAX_CALLS)]
    blanks = [delta(call(arguments=" ", index=0))] * 20_000

    assert len(strict(Read(body(*calls)).choices)) == MAX_CALLS
    assert strict(Read(body(delta(OPENS), *blanks)).choices) == [("weather", {})]
    assert strict(Read(body(delta(call("weather", " ")), *blanks)).choices) == [("weather", {})]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[Json]]:
    """Calls, and one way to stream them: their arguments cut anywhere, indexes and names by the server's habits."""
    has_index, has_id = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    says_again, first = draw(st.booleans()), draw(st.integers(0, 2))
    meant: list[tuple[str, Any]] = []
    pieces: list[Json] = []
    for number in range(draw(st.integers(1, 4))):
        name, arguments = draw(st.sampled_from(["a", "b"])), draw(st.dictionaries(st.text(max_size=3), st.integers()))
        meant.append((name, arguments))
        text = json.dumps(arguments)
        cuts = sorted({0, *draw(st.lists(st.integers(1, len(text) - 1), max_size=3)), len(text)})
        for start, end in pairwise(cuts):
            more: Json = {"index": number + first} if has_index else {}
            if has_id and (start == 0 or says_again):
                more["id"] = f"c{number}"
            pieces.append(delta(call(name if start == 0 else None, text[start:end], **more)))
    return meant, pieces


@settings(max_examples=300, deadline=None, derandomize=True)
@given(streams())
def test_any_cutting_of_the_same_calls_means_the_same(made: tuple[list[tuple[str, Any]], list[Json]]) -> None:
    """Servers cut arguments where they like."""
    meant, pieces = made
    heard = Read(body(*pieces, reason="stop"))

    assert strict(heard.choices) == meant and heard.reasons == ["tool_calls"]
