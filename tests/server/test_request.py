"""The body of a request: what is said twice is found, however it is spelt."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from firstword.errors import BadRequest
from firstword.server.request import read_json

# What a text may hold to look like the end of a key, or to hide one.
WORDS = st.sampled_from(['"', ":", '":', '" :', "\\", '\\"', "a", "\n", "é", "\u2028", "{", "}"])
texts = st.lists(WORDS, max_size=4).map("".join)
blanks = st.sampled_from(["", "", " ", "\t", "\n", "\r", "  "])


@st.composite
def spelt(draw: st.DrawFn) -> str:
    """A JSON string, some of its characters spelt out."""
    inner = ""
    for sign in draw(texts):
        plain = json.dumps(sign, ensure_ascii=False)[1:-1]
        code = f"\\u{ord(sign):04x}"
        inner += draw(st.sampled_from([plain, plain, code, code.upper().replace("\\U", "\\u")]))
    return f'"{inner}"'


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A JSON object, with blanks where they may stand, its keys from a few so that they meet."""
    pair = st.builds("{}{}:{}{}".format, st.one_of(spelt(), st.just('"a"')), blanks, blanks, values)
    return st.builds("{{{}{}}}".format, blanks, st.lists(pair, max_size=4).map(",".join))


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A JSON list."""
    return st.builds("[{}]".format, st.lists(values, max_size=3).map(",".join))


values = st.recursive(st.one_of(spelt(), st.just("1")), lambda inner: st.one_of(objects(inner), lists(inner)))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(objects(values))
def test_a_body_is_refused_exactly_when_an_object_says_a_key_twice(body: str) -> None:
    """A slow reader, which sees all pairs, is of the same mind."""
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    expected = json.loads(body, object_pairs_hook=look)
    try:
        assert read_json(body.encode()) == expected and not twice
    except BadRequest as error:
        assert twice and "twice" in error.message
