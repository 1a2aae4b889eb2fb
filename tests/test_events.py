"""Events of Agora's engine are read: what its documents show, and everything else that a body may hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from events_of_a_test import AGENT, CHANNEL, a_turn, event, finished, metrics, sign
from hypothesis import given
from hypothesis import strategies as st

from firstword import BadRequest
from firstword.events import MAX_PARTS, MAX_TURNS, NAMES, is_signed, may_be_signed, read_event


def test_an_event_says_what_happened_to_whom() -> None:
    """Each documented kind, and one of tomorrow's."""
    for kind, name in {**NAMES, 999: "unknown"}.items():
        found = read_event(event(kind, {"labels": {"a": "b"}}, noticeId="n1", notifyMs=1611566412672))
        assert (found.kind, found.name, found.agent, found.channel) == (kind, name, AGENT, CHANNEL)
        assert (found.id, found.at, found.turns) == ("n1", 1611566412.672, ())
        assert found.payload["labels"] == {"a": "b"}


def test_the_times_of_111_and_112_are_seconds_by_the_engine_s_names() -> None:
    """The examples of Agora's documents."""
    first, second = read_event(
        metrics({"turn_id": 1, "tts_ttfb": 61}, {"turn_id": 2, "asr_ttlw": 141, "llm_ttfb": 270, "llm_ttfs": 482})
    ).turns
    assert (first.number, first.latencies) == (1, {"tts_ttfb": 0.061})
    assert (second.number, second.latencies) == (2, {"asr_ttlw": 0.141, "llm_ttfb": 0.27, "llm_ttfs": 0.482})
    assert second.id is None and second.first_word is None

    (turn,) = read_event(finished(a_turn(4, algorithm_processing=200, llm_ttft=281.5, transport=0))).turns
    assert (turn.number, turn.latencies) == (
        4,
        {"e2e": 1.799, "algorithm_processing": 0.2, "llm_ttft": 0.2815, "transport": 0.0},
    )


@pytest.mark.parametrize("value", [True, None, "7", -1, 1e12, 10**30, [], {}])
def test_what_is_no_time_is_left_out(value: Any) -> None:
    """The turn is told all the same."""
    for body in (metrics({"turn_id": 1, "llm_ttfb": value}), finished(a_turn(1, value, llm_ttft=value))):
        (turn,) = read_event(body).turns
        assert turn.latencies == {}


def test_names_that_are_none_are_left_out() -> None:
    """A part's name becomes a label of a metric and a word of the log."""
    names = {"": 1, "A": 1, "a b": 1, "a=1\n": 1, "x" * 41: 1, "_a": 1, "ok_1": 1}
    assert read_event(metrics({"turn_id": 1, **names})).turns[0].latencies == {"ok_1": 0.001}


def test_a_huge_event_is_read_in_part() -> None:
    """More turns, and more parts of one, than any call has."""
    many = read_event(metrics(*[{"turn_id": number} for number in range(MAX_TURNS + 5)]))
    assert len(many.turns) == MAX_TURNS
    wide = read_event(metrics({"turn_id": 1, **{f"part_{number}": number for number in range(200)}}))
    assert len(wide.turns[0].latencies) == MAX_PARTS


@pytest.mark.parametrize("listed", [None, {}, "x", 7, [None, 7, [], {}, {"turn_id": "1"}, {"turn_id": True}]])
def test_turns_of_another_form_are_none(listed: Any) -> None:
    """The API has changed: the event is one all the same."""
    assert read_event(event(111, {"metrics": listed})).turns == ()
    assert read_event(event(112, {"turns": listed})).turns == ()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"7", b"null", b"{}", b'{"eventType": "101"}', b'{"eventType": true}',
     b'{"eventType": 101.5}', b"[" * 100_000, b'{"eventType": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_event_is_refused(body: bytes) -> None:
    """Signed, and yet no event: a word about it, and none of what it holds."""
    with pytest.raises(BadRequest) as caught:
        read_event(body)
    assert "event" in str(caught.value) and len(str(caught.value)) < 100


WORDS = st.sampled_from(["turn_id", "metrics", "turns", "name", "latency", "segmented_latency_ms", "e2e_latency_ms"])
PLAIN = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.integers()
ANYTHING = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=30)


@given(ANYTHING, st.sampled_from([110, 111, 112]))
def test_no_payload_breaks_the_reader(anything: Any, kind: int) -> None:
    """Whatever stands where."""
    body = json.dumps({"eventType": kind, "payload": anything, "noticeId": anything, "notifyMs": anything})
    try:
        found = read_event(body.encode("utf-8", "surrogatepass"))
    except BadRequest:  # an integer of a thousand digits
        return
    assert all(0 <= value <= 3600 for turn in found.turns for value in turn.latencies.values())


def test_a_signature_is_of_these_very_bytes_and_this_secret() -> None:
    """One byte more, another secret, another form; upper case is the same number."""
    body = event(101)
    right = sign(body)
    assert may_be_signed(right) and is_signed(body, right, "webhook-secret")
    assert may_be_signed(right.upper()) and is_signed(body, right.upper(), "webhook-secret")
    for wrong_body, wrong_secret in ((body + b" ", "webhook-secret"), (body, "other"), (b"", "webhook-secret")):
        assert not is_signed(wrong_body, right, wrong_secret)
    for wrong in ("", right[:-1], right + "0", "g" * 64, f" {right}", "é" * 64):
        assert not may_be_signed(wrong) and not is_signed(body, wrong, "webhook-secret")
