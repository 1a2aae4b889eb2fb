"""Calls of tools are read from whatever streams them, and a history is mended before a provider sees it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_streams import MEANS, STREAMS, TWO, call, delta

from firstword import Chunk
from firstword.calls import INTERRUPTED, MAX_ARGUMENTS, MAX_CALLS, Call, Calls, added, deltas, mended, message, new_id
from firstword.testing import script

Json = dict[str, Any]


def read(*stream: Json) -> list[Call]:
    """Return the calls of an answer."""
    calls = Calls()
    for each in stream:
        calls.add(each)
    return calls.whole()


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_the_same_calls_are_read_from_every_stream(name: str) -> None:
    """Each deviation that a provider was seen with: names once, arguments whole, an id for each."""
    calls = read(*STREAMS[name])

    assert [(each.name, each.arguments) for each in calls] == MEANS.get(name, TWO)
    assert len({each.id for each in calls}) == len(calls) and all(each.id.strip() for each in calls)
    for each in calls:
        assert each.item["id"] == each.id and each.item["type"] == "function" and "index" not in each.item
        assert each.item["function"]["name"] == each.name
        assert json.loads(each.item["function"]["arguments"]) == each.arguments


def test_ids_are_kept_as_they_came() -> None:
    """The engine's answer will name them; only what is missing is made up, in the form that Mistral takes."""
    calls = read(*STREAMS["Mistral's ids"])
    made = read(*STREAMS["no id"])

    assert [each.id for each in calls] == ["D681PevKs", "a1B2c3D4e"]
    assert all(len(each.id) == 9 and each.id.isalnum() for each in made)
    assert len({new_id() for _ in range(100)}) == 100


def test_an_id_of_an_earlier_answer_is_not_given_twice() -> None:
    """Some servers begin to count anew in each answer, and one reply holds the calls of several."""
    taken = {"c1"}
    calls = Calls(taken)
    calls.add(delta(call("weather", "{}", index=0, id="c1")))

    [each] = calls.whole()
    assert each.id not in ("c1", "") and taken == {"c1", each.id}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"city": "Pa', "not valid JSON"),
        ("{'city': 'Paris'}", "not valid JSON"),
        ('{"city": NaN}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["Paris"]', "not a JSON object"),
        (["Paris"], "not a JSON object"),
        ("7", "not a JSON object"),
        (7, "not a JSON object"),
        ('"Paris"', "not valid JSON"),
        ('{"city": "' + "x" * MAX_ARGUMENTS + '"}', "longer than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_arguments_that_are_no_object_are_said_to_be_wrong(arguments: Any, said: str) -> None:
    """The model is told; what goes back to the provider as its own words is JSON all the same."""
    [each] = read(delta(call("weather", arguments, index=0, id="c1")))

    assert each.arguments is None and each.fault is not None and said in each.fault
    assert each.item["function"]["arguments"] == "{}"


def test_more_calls_than_anybody_means_are_not_heard() -> None:
    """A model that has lost itself calls for ever; what goes on with a call that was not heard goes nowhere."""
    stream = [delta(call("clock", "{", index=at, id=f"c{at}"), call(arguments="}", index=at)) for at in range(500)]

    calls = read(*stream)

    assert len(calls) == MAX_CALLS
    assert all(each.arguments == {} for each in calls)


def test_what_a_provider_wants_to_see_again_is_kept() -> None:
    """Gemini signs a call, and DeepSeek thinks beside it: without either the next request is a 400."""
    signature = {"google": {"thought_signature": "abc=="}}
    stream: list[Json] = [
        {"role": "assistant", "content": None, "reasoning_content": "Let me"},
        {"reasoning_content": " look.", "content": ""},
        {"content": "Right.", "reasoning_details": [{"index": 0, "text": "a"}]},
        {"content": None, "reasoning_details": [{"index": 0, "text": "b"}]},
        delta(call("weather", '{"city"', index=0, id="c1", extra_content=signature), refusal=None),
        delta(call(arguments=': "Paris"}', index=0, extra_content=None)),
    ]
    sent = message([Chunk(script.chunk(each)) for each in stream], read(*stream))

    assert sent == {
        "role": "assistant",
        "content": "Right.",
        "reasoning_content": "Let me look.",
        "reasoning_details": [{"index": 0, "text": "ab"}],
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                "extra_content": signature,
            }
        ],
    }


@pytest.mark.parametrize(("came", "kept"), [([""], ""), ([None], None), ([], None), (["", None], "")])
def test_content_that_is_empty_goes_back_as_it_came(came: list[str | None], kept: str | None) -> None:
    """One provider takes null only, another one the empty string only: each takes what it sent."""
    chunks = [Chunk(script.chunk({"content": each})) for each in came]
    assert message(chunks, [])["content"] == kept


def test_the_strict_form_is_one_whole_call_a_chunk() -> None:
    """What every client reads: an index from 0, an id, a type and a name once, and arguments that are JSON."""
    calls = read(*STREAMS["the index 0 for all, in pieces"])

    assert deltas(calls) == [
        delta(call("weather", PARIS, index=0, id="c1", type="function")),
        delta(call("clock", "{}", index=1, id="c2", type="function")),
    ]


def test_tokens_are_added_at_every_depth() -> None:
    """Two answers are one bill; what is no number is the later one's."""
    first = {"total_tokens": 5, "details": {"cached": 2, "audio": None}, "tier": "a", "seconds": 0.5}
    later = {"total_tokens": 7, "details": {"cached": 1, "new": 1}, "tier": "b", "seconds": 1.0}

    assert added(first, later) == {
        "total_tokens": 12,
        "details": {"cached": 3, "audio": None, "new": 1},
        "tier": "b",
        "seconds": 1.5,
    }
    assert (added(None, later), added(first, None)) == (later, first)


PARIS = '{"city": "Paris"}'

PIECES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.none() | st.integers(-1, 3) | st.sampled_from(["0", 1.5, True]),
        "id": st.none() | st.sampled_from(["", "a", "b", 7]),
        "type": st.sampled_from(["function", None]),
        "function": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "name": st.none() | st.sampled_from(["", "f", "g"]),
                "arguments": st.none() | st.sampled_from(["", "{", "}", "{}", '{"a":1}', "[", 3]) | st.just({"a": 1}),
                "x": st.just("y"),
            },
        ),
        "extra": st.none() | st.just({"a": ["b"]}) | st.just("text"),
    },
)


@given(st.lists(st.lists(PIECES | st.none() | st.text(max_size=3), max_size=3), max_size=6))
def test_whatever_comes_is_read_as_calls_in_the_strict_form(stream: list[Any]) -> None:
    """No order and no lack of fields breaks it, or makes two calls with one id."""
    calls = read(*({"tool_calls": each} for each in stream))

    assert len({each.id for each in calls}) == len(calls)
    for each in calls:
        assert (each.arguments is None) == (each.fault is not None)
        assert isinstance(json.loads(each.item["function"]["arguments"]), dict)


# --- histories --------------------------------------------------------------------------------------

ASKED = {"role": "user", "content": "Weather?"}
MORE = {"role": "user", "content": "Stop. Something else."}


def calls_of(*ids: Any, **more: Any) -> Json:
    """Return an assistant's message that calls."""
    items = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": items, **more}


def result(id: Any, content: str = "sunny") -> Json:
    """Return the message that answers a call."""
    return {"role": "tool", "tool_call_id": id, "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [ASKED],
        [ASKED, calls_of("a"), result("a")],
        [ASKED, calls_of("a", "b"), result("a"), result("b"), MORE],
        [ASKED, calls_of("a"), result("a"), calls_of("a"), result("a")],
    ],
    ids=["no calls", "one", "two", "the same id later"],
)
def test_a_history_that_is_right_stays_as_it_is(messages: list[Json]) -> None:
    """The messages themselves are passed on, and none is made anew."""
    found = mended(messages)
    assert len(found) == len(messages) and all(mine is theirs for mine, theirs in zip(found, messages, strict=True))


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ([ASKED, calls_of("a"), MORE], [ASKED, calls_of("a"), result("a", INTERRUPTED), MORE]),
        ([ASKED, calls_of("a")], [ASKED, calls_of("a"), result("a", INTERRUPTED)]),
        (
            [calls_of("a", "b"), result("b"), MORE],
            [calls_of("a", "b"), result("a", INTERRUPTED), result("b"), MORE],
        ),
        ([result("a"), MORE], [MORE]),
        ([calls_of("a"), result("a"), result("a", "again"), result("z")], [calls_of("a"), result("a")]),
        ([calls_of("a"), MORE, result("a")], [calls_of("a"), result("a"), MORE]),
        (
            [calls_of("a", "b"), result("b", "2"), result("a", "1")],
            [calls_of("a", "b"), result("a", "1"), result("b", "2")],
        ),
        ([{"role": "assistant", "content": "Hi", "tool_calls": []}], [{"role": "assistant", "content": "Hi"}]),
        ([{"role": "assistant", "content": None, "tool_calls": []}], [{"role": "assistant", "content": ""}]),
        (
            [{**calls_of("a"), "tool_calls": [*calls_of("a")["tool_calls"], 7]}, result("a")],
            [calls_of("a"), result("a")],
        ),
    ],
    ids=[
        "interrupted",
        "ends with a call",
        "one of two has a result",
        "trimmed",
        "two results",
        "words between",
        "another order",
        "an empty list",
        "an empty list and no words",
        "what is no call",
    ],
)
def test_a_broken_history_is_mended(broken: list[Json], whole: list[Json]) -> None:
    """A provider would answer it with a 400, in this turn and all that follow."""
    before = copy.deepcopy(broken)

    assert mended(broken) == whole
    assert broken == before  # what hooks hold is not changed


@pytest.mark.parametrize("ids", [("", ""), (None, None), ("a", "a"), (1, 2)], ids=str)
def test_calls_without_an_id_of_their_own_get_one(ids: tuple[Any, Any]) -> None:
    """And so do their results, in the order in which they stand."""
    found = mended([calls_of(*ids), result(ids[0], "1"), result(ids[1], "2")])

    names = [each["id"] for each in found[0]["tool_calls"]]
    assert len(set(names)) == 2 and all(names)
    assert [(each["tool_call_id"], each["content"]) for each in found[1:]] == list(zip(names, ["1", "2"], strict=True))


MESSAGES = st.one_of(
    st.just(ASKED),
    st.just({"role": "system", "content": "Be brief."}),
    st.just({"role": "assistant", "content": "Hello."}),
    st.lists(st.sampled_from(["a", "b", "c", "", None]), max_size=3).map(lambda ids: calls_of(*ids)),
    st.sampled_from(["a", "b", "c", "", None]).map(result),
)


@given(st.lists(MESSAGES, max_size=12))
def test_in_every_mended_history_each_call_has_its_result_behind_it(messages: list[Json]) -> None:
    """However an engine has cut and mixed it; all other messages stay, in their order."""
    found = mended(messages)

    position = 0
    while position < len(found):
        ids = [each["id"] for each in found[position].get("tool_calls") or ()]
        assert found[position]["role"] != "tool" and len(set(ids)) == len(ids) and all(ids)
        results = found[position + 1 : position + 1 + len(ids)]
        assert [(each["role"], each["tool_call_id"]) for each in results] == [("tool", id) for id in ids]
        position += 1 + len(ids)
    plain = [each for each in messages if each["role"] in ("user", "system")]
    assert [each for each in found if each["role"] in ("user", "system")] == plain
    assert mended(found) == found
