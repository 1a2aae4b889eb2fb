"""Odd replies that are in order, in which nothing is found, and rubbish, on which the doctor does not break."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sick import KEY, Reply, Request, Sick, error, events, healthy, piece
from test_ailments import names

from firstword.doctor import Patient, chosen, examine
from firstword.doctor.answers import judge_turn
from firstword.doctor.calling import judge_after
from firstword.doctor.findings import Fault, Level
from firstword.doctor.form_checks import wrong_whole
from firstword.doctor.heard import Heard, short
from firstword.doctor.mistakes import judge_error, judge_stranger
from firstword.doctor.pace import are_queued, judge_moments, told
from firstword.doctor.shapes import SHAPES, WEATHER

REFUSED = Fault("refused", Level.ERROR, "", "", "")
BODY = {"tools": [WEATHER]}
JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-9, 9) | some.text(max_size=3),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("id", "object", "created", "model", "choices", "usage", "error", "index", "delta", "finish_reason", "content")
MORE = ("role", "tool_calls", "function", "name", "arguments", "type", "reasoning_content", "message")
CHUNK = some.recursive(
    JSON,
    lambda inner: some.dictionaries(some.sampled_from(NAMES + MORE), inner | some.lists(inner, max_size=2), max_size=5),
)
LINE = some.sampled_from(
    [b"data: [DONE]", b"", b": x", b"id: 1", b"retry: 1", b"event: error", b"data:", b"\r", b"x", b"data: 1\r\ndata: 2"]
)


def heard(body: bytes, cuts: tuple[int, ...] = (), **more: Any) -> Heard:
    """Return a reply whose body came in pieces, one a second."""
    reply = Heard(
        **{"status": 200, "headers": {"content-type": "text/event-stream"}, "headed": 1.0, "is_whole": True, **more}
    )
    edges = sorted({0, *(cut % (len(body) + 1) for cut in cuts), len(body)})
    for at, (start, end) in enumerate(pairwise(edges)):
        reply.take(float(at + 2), body[start:end])
    reply.ended = len(edges) + 1.0
    return reply


def judged(reply: Heard) -> list[tuple[str, str]]:
    found = [*judge_turn(reply, BODY, REFUSED), *judge_error(reply), *judge_stranger(reply, "wrong")]
    return [(finding.fault.name, finding.seen) if finding.fault else ("", finding.seen) for finding in found]


@given(
    some.lists(
        CHUNK.map(lambda value: b"data: " + msgspec.json.encode(value)) | LINE | some.binary(max_size=9), max_size=8
    )
)
def test_no_reply_breaks_the_doctor(lines: list[bytes]) -> None:
    """Whatever a server sends, in or out of the form: the doctor has an opinion, and no exception."""
    reply = heard(b"\n\n".join(lines) + b"\n\n")
    judged(reply)
    judge_moments(reply)
    assert told(reply) and judge_after(reply, reply) == "" and are_queued([reply, reply]) in (None, True, False)
    wrong_whole(reply.json)
    assert len(short(reply.body)) <= 160


@given(
    some.lists(CHUNK.map(lambda value: b"data: " + msgspec.json.encode(value)) | LINE, max_size=5),
    some.lists(some.integers(0, 999), max_size=9),
)
def test_how_a_reply_is_cut_on_its_way_changes_nothing(lines: list[bytes], cuts: list[int]) -> None:
    """The network cuts where it likes, within characters and between CR and LF: the same findings."""
    body = b"\r\n\r\n".join(lines) + b"\n\n"
    whole, cut, shredded = heard(body), heard(body, tuple(cuts)), heard(body, tuple(range(len(body))))
    whole.ended = cut.ended = shredded.ended = 0.0
    assert judged(whole) == judged(cut) == judged(shredded)


def shredded(request: Request, reply: Reply) -> Reply:
    """Send a stream byte by byte, so that each character is torn."""
    whole = b"".join(reply.parts)
    return replace(reply, parts=[whole[at : at + 1] for at in range(len(whole))]) if reply.is_stream else reply


async def test_a_reply_that_comes_byte_by_byte_has_no_fault() -> None:
    """Chinese, torn within its characters by HTTP chunks of one byte: no client minds."""
    async with Sick(shredded) as server:
        assert await names(server, "speech") == []


async def test_an_early_hint_is_no_reply() -> None:
    """A proxy sends 103 before the true head."""

    def hinted(request: Request, reply: Reply) -> Reply:
        body = b"".join(reply.parts)
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        hint = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        true = f"HTTP/1.1 200 OK\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
        return replace(reply, raw=hint.encode(), raw_later=true)

    async with Sick(hinted) as server:
        assert await names(server, "form") == []


async def test_agora_s_metadata_as_the_first_event_is_in_order() -> None:
    """Its choices are empty, and only Agora's engine looks at it."""
    metadata = {
        "id": "c",
        "object": "chat.completion.custom_metadata",
        "choices": [],
        "metadata": {"interruptable": False},
    }

    def first(request: Request, reply: Reply) -> Reply:
        event = f"data: {json.dumps(metadata)}\n\n".encode()
        return replace(reply, parts=[event, *reply.parts]) if reply.is_stream else reply

    async with Sick(first) as server:
        assert await names(server, "form") == []


async def test_a_server_that_limits_its_callers_is_not_ill() -> None:
    """429 in the middle: what could not be seen is skipped, and says why."""

    def limited(request: Request, reply: Reply) -> Reply:
        return error(429) if request.number > 1 else reply

    async with Sick(limited) as server:
        found = await examine(Patient(server.url, key=KEY, model="m1"), chosen())
    assert found.code == 0
    assert {each.level for each in found.findings} == {Level.ADVICE, Level.OK, Level.SKIPPED}
    assert found.count(Level.SKIPPED) >= len(SHAPES)


@pytest.mark.parametrize("older", [error(409), events()], ids=["told", "ends"])
@pytest.mark.parametrize(("others", "said"), [(1, []), (0, ["resent-fails"])])
async def test_a_turn_sent_twice_may_be_answered_once(others: int, said: list[str], older: Reply) -> None:
    """The later one takes the place of the earlier, which stands back; when both do so, nobody is answered."""
    seen = 0

    def superseded(request: Request, reply: Reply) -> Reply:
        nonlocal seen
        seen += "session_id" in (request.body or {})
        return older if "session_id" in (request.body or {}) and seen > others else reply

    async with Sick(superseded) as server:
        assert await names(server, "resent") == said


async def test_an_answer_that_takes_long_is_not_called_broken() -> None:
    """Words still come when our own time is over: that says nothing against the server."""

    def slow(request: Request, reply: Reply) -> Reply:
        return replace(events(*[piece("word ")] * 99), pauses={-1: 0.02}) if "joke" in request.text else reply

    async with Sick(slow) as server:
        found = await examine(Patient(server.url, key=KEY, model="m1", timeout=0.5), chosen(["form"]))
    assert [each.level for each in found.findings if each.check == "form"] == [Level.SKIPPED]


@pytest.mark.parametrize("size", [300_000, 40_000_000])
async def test_a_flood_is_ended(size: int) -> None:
    """A head, or a body, without end: it is read up to a bound."""
    head = b"HTTP/1.1 200 OK\r\nx: " if size < 1_000_000 else b"HTTP/1.1 200 OK\r\n\r\ndata: "

    def flood(request: Request, reply: Reply) -> Reply:
        return replace(healthy(request), raw=head + b"x" * size)

    async with Sick(flood) as server:
        reply = await Patient(server.url, key=KEY).ask({})
    assert reply.trouble.startswith(("a head of more than", "more than"))
