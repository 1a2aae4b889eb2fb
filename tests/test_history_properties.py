"""Whatever a conversation holds: no rule loses a word, tears a call from its result, or does a thing a second time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_history import BLANK, CALL, IMAGE, WORDS

from firstword.calls import mended
from firstword.history import (
    SILENT,
    alternating,
    joined,
    with_known_fields,
    with_note,
    with_one_system,
    with_roles,
    without_empty,
)
from firstword.message import words
from firstword.providers._accepts import MESSAGES

Json = dict[str, Any]

TEXTS = st.sampled_from(["", " ", "Hi", "Hi there", "Hi there Bob", "你好", "你好吗", "No"])
CONTENTS = TEXTS | st.none() | st.lists(st.sampled_from([WORDS, IMAGE, BLANK]), max_size=3)
CALLS = st.lists(st.sampled_from(["c1", "c2"]).map(lambda id: {**CALL, "id": id}), max_size=2)
ANYONE = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": CONTENTS}),
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENTS}, optional={"name": st.just("Ann")}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": CONTENTS}, optional={"tool_calls": CALLS}),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": TEXTS, "tool_call_id": st.sampled_from(["c1", "c2", "c3"])}
    ),
)
CONVERSATIONS = st.lists(ANYONE, min_size=1, max_size=8).map(mended).filter(bool)
RULES: dict[str, Callable[[list[Json]], list[Json]]] = {
    "joined": joined,
    "with_note": lambda messages: with_note(messages, max(len(messages) - 2, 0)),
    "with_roles": lambda messages: with_roles(messages, {"developer": "system"}),
    "without_empty": without_empty,
    "with_one_system": with_one_system,
    "alternating": alternating,
    "with_known_fields": lambda messages: with_known_fields(messages, MESSAGES),
}
MAY_MOVE = ("system", "developer")


def spoken(messages: list[Json]) -> list[str]:
    """The words of caller, model and tools in their order, without signs and blanks."""
    said = [words(each.get("content")) for each in messages if each.get("role") not in MAY_MOVE]
    return [word for text in said for word in text.split() if word != SILENT]


def instructions(messages: list[Json]) -> list[str]:
    said = [words(each.get("content")) for each in messages if each.get("role") in MAY_MOVE]
    return [word for text in said for word in text.split()]


def pairs(messages: list[Json]) -> list[tuple[Any, ...]]:
    """The calls and results in their order."""
    return [
        (each["role"], each.get("tool_call_id"), *(call["id"] for call in each.get("tool_calls") or ()))
        for each in messages
        if each.get("tool_calls") or each["role"] == "tool"
    ]


@pytest.mark.parametrize("name", RULES)
@given(messages=CONVERSATIONS)
def test_a_rule_loses_no_word_and_does_nothing_a_second_time(name: str, messages: list[Json]) -> None:
    """Whatever stands in whatever order: words keep their order, calls their results, and no message is changed."""
    rule, before = RULES[name], copy.deepcopy(messages)
    made = rule(messages)

    assert messages == before and rule(made) is made
    assert (made is messages) == (made == messages)
    assert pairs(made) == pairs(messages) and pairs(mended(made)) == pairs(made)
    if name == "joined":
        whole = iter(spoken(messages))
        assert all(word in whole for word in spoken(made))  # fewer, in their order
    else:
        assert spoken(made) == spoken(messages)
    if name != "with_note":
        assert instructions(made) == instructions(messages)


@given(messages=CONVERSATIONS)
def test_what_is_joined_was_said_by_the_message_that_stays(messages: list[Json]) -> None:
    """Whatever went is the beginning of what stands behind it, or the same."""
    kept = joined(messages)
    rest = list(messages)
    for each in kept:
        while rest[0] is not each:
            gone = rest.pop(0)
            mine, theirs = gone["content"], each["content"]
            assert mine == theirs or theirs.startswith(mine)
        rest.pop(0)
    assert rest == []


@given(messages=CONVERSATIONS)
def test_turns_are_turns(messages: list[Json]) -> None:
    """After one system message at most: caller, model, caller; results behind their calls."""
    roles = [each["role"] for each in alternating(messages)]
    system = [role for role in roles if role in MAY_MOVE]
    assert len(system) <= 1 and roles[: len(system)] == system

    spoken_roles = roles[len(system) :]
    follows = {"": "user", "user": "assistant", "assistant": "user tool", "tool": "tool assistant"}
    for before, role in zip(["", *spoken_roles], spoken_roles, strict=False):
        assert role in follows[before].split()
    assert spoken_roles[-1] in ("user", "tool")


@given(messages=CONVERSATIONS)
def test_nothing_is_empty_that_may_not_be(messages: list[Json]) -> None:
    """Every message says something, or calls something."""
    for each in without_empty(messages):
        content = each["content"]
        if content is None:
            assert each["tool_calls"]
        elif isinstance(content, str):
            assert content.strip()
        else:
            assert content and BLANK not in content
