"""W3C's trace headers: which are taken, which are not, and in what form they go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstword.trace import Trace, new_id, passed_on, read, read_state

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 1),  # flags that nobody knows yet
        (f"00-{TRACE}-{SPAN}-02", 0),
        (f" {GOOD}\t", 1),
        (f"cc-{TRACE}-{SPAN}-01", 1),  # a later version, which says at least the same
        (f"cc-{TRACE}-{SPAN}-01-what-comes", 1),
    ],
)
def test_a_good_traceparent_is_taken(value: str, flags: int) -> None:
    """A caller keeps traces; its version may be later than ours."""
    parent = read({"traceparent": value})
    assert parent == (TRACE, SPAN, flags, "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "-",
        GOOD + "-more",  # in version 00 nothing follows
        GOOD.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        GOOD + "\r\nx-evil: 1",
        GOOD.replace("0", "٠"),
        f"{GOOD},{GOOD}",
    ],
)
def test_a_traceparent_in_any_other_form_is_none(value: str) -> None:
    """It is cut off, forged, from a proxy that joined two, or in capitals: the trace begins anew."""
    assert read({"traceparent": value}) is None
    assert passed_on({"traceparent": value}) is None


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" rojo=1 ,\tcongo=2 ,, ", "rojo=1,congo=2"),
        ("1a@vendor=x y", "1a@vendor=x y"),
        ("", ""),
        ("rojo", ""),
        ("rojo=1,rojo=2", ""),
        ("Rojo=1", ""),
        ("rojo=a=b", ""),
        ("rojo=1\r\nx-evil: 1", ""),
        ("rojo=grün", ""),
        (",".join(f"k{number}=v" for number in range(33)), ""),
        (",".join(f"k{number}={'v' * 200}" for number in range(3)), ""),
        (f"k={'v' * 257}", ""),
    ],
)
def test_a_tracestate_goes_on_whole_or_not_at_all(value: str, taken: str) -> None:
    """One of its members is not in good form, or there are too many: half a state would be a lie."""
    assert read_state(value) == taken
    assert read({"traceparent": GOOD, "tracestate": value}) == (TRACE, SPAN, 1, taken)


@given(st.text(max_size=80), st.text(max_size=80))
def test_nothing_that_a_caller_sends_breaks_a_header(parent: str, state: str) -> None:
    """Whatever stands in the two headers, what goes on is plain and has no line break."""
    for value in (parent, GOOD):
        trace = passed_on({"traceparent": value, "tracestate": state})
        if trace is not None:
            for _, text in trace.ask("m", provider="openai").headers:
                assert text.isascii() and text.isprintable()


def test_a_trace_that_nobody_keeps_here_goes_on_as_it_came() -> None:
    """Without OpenTelemetry the caller's own span stays the parent of the model's."""
    trace = passed_on({"traceparent": GOOD, "tracestate": "rojo=1"})
    assert trace is not None
    assert trace.ask("m", provider="openai").headers == (("traceparent", GOOD), ("tracestate", "rojo=1"))


def test_each_request_of_a_kept_trace_is_a_parent_of_its_own() -> None:
    """Two attempts of a race: a model's server hangs its spans below the right one."""
    trace = Trace(TRACE, new_id(8), SPAN, 1, "")
    one, other = (trace.ask(name, provider="openai") for name in ("first", "second"))
    assert one.headers == (("traceparent", f"00-{TRACE}-{one.span}-01"),)
    assert one.span != other.span and trace.asks == [one, other]
    assert trace.is_sampled
