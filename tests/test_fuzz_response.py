"""The reader of responses: whatever an upstream sends, however it is cut, is an answer or an error of the upstream.

Rules:
- Whole responses are made together with what must be heard of them, so that no second parser is needed.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from feeding import NEXT, Heard, cut, dialled, hears
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firstword.errors import UpstreamConnectError, UpstreamProtocolError, UpstreamTruncated
from firstword.transport.connection import MAX_HEAD

steady = settings(deadline=None, derandomize=True)
_loop: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(scope="module", autouse=True)
def _one_loop() -> Iterator[None]:
    """Thousands of short cases share a loop: to make one costs more than a case."""
    _loop.append(asyncio.new_event_loop())
    yield
    _loop.pop().close()


def run(case: Coroutine[Any, Any, Heard]) -> Heard:
    return _loop[-1].run_until_complete(case)


# --- whole responses, however they are cut --------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One whole response: its bytes, and what must be heard of it."""

    wire: bytes
    status: int
    body: bytes
    closes: bool = False  # its end is the end of the connection
    keeps: bool = False  # the connection may be used again
    head: int = 0  # how many of the bytes come before the body


names = st.sampled_from([b"x-a", b"X-Request-ID", b"sErVeR", b"x_b", b"date", b"keep-alive", b"set-cookie"])
values = st.sampled_from([b"", b"1", b"a b\t c", b"timeout=5", b"caf\xe9", b"\xff\x80", b'"a:b;c,d"', b"x" * 300])
fields = st.lists(st.tuples(names, values, st.sampled_from([b":", b": ", b":\t ", b":  "])), max_size=4)
interims = st.lists(st.tuples(st.sampled_from([100, 102, 103, 199]), fields), max_size=3)
extensions = st.sampled_from([b"", b";a", b";a=b", b";a=b;c=d", b';a="b c"', b";" + b"a" * 40 + b"=" + b"b" * 40])
parts = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), extensions, st.booleans(), st.integers(0, 3)), max_size=6
)
bodies = st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", NEXT, b'data: {"a":1}\n\n']))


def lines(rows: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return b"".join(name + colon + value + b"\r\n" for name, value, colon in rows)


def chunks(pieces: list[tuple[bytes, bytes, bool, int]], last: bytes, trailers: bytes) -> bytes:
    """Return a chunked body: sizes in either case, with zeros before them; extensions; trailers."""
    wire = b""
    for data, extension, upper, zeros in pieces:
        size = b"%X" % len(data) if upper else b"%x" % len(data)
        wire += b"0" * zeros + size + extension + b"\r\n" + data + b"\r\n"
    return wire + b"0" + last + b"\r\n" + trailers + b"\r\n"


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """A response as RFC 9112 allows it."""
    before = b"".join(b"HTTP/1.1 %d Wait\r\n%b\r\n" % (status, lines(rows)) for status, rows in draw(interims))
    old = draw(st.booleans())
    status = draw(st.sampled_from([200, 200, 201, 204, 304, 400, 429, 500, 503, 599]))
    said = draw(st.sampled_from([b"", b"close", b"keep-alive", b"Keep-Alive", b"Close"]))
    framing = draw(st.sampled_from(["length", "close"] if old else ["length", "chunked", "chunked", "close"]))
    rows = lines(draw(fields)) + (b"Connection: " + said + b"\r\n" if said else b"")
    body = draw(bodies)
    if status in (204, 304):
        framing, body, wire = "none", b"", b""
    elif framing == "length":
        rows, wire = rows + b"Content-Length: %d\r\n" % len(body), body
    elif framing == "chunked":
        pieces = draw(parts)
        body = b"".join(data for data, *_ in pieces)
        rows, wire = rows + b"transfer-encoding: chunked\r\n", chunks(pieces, draw(extensions), lines(draw(fields)))
    else:
        wire = body
    head = before + b"HTTP/1.%d %d Said\r\n%b\r\n" % (not old, status, rows)
    keeps = framing != "close" and (said.lower() == b"keep-alive" if old else said.lower() != b"close")
    return Reply(head + wire, status, body, framing == "close", keeps, len(head))


@st.composite
def cut_replies(draw: st.DrawFn) -> tuple[Reply, list[bytes]]:
    reply = draw(replies())
    return reply, cut(reply.wire, draw(st.lists(st.integers(1, len(reply.wire)), max_size=12)))


@steady
@given(cut_replies())
def test_a_whole_response_is_heard_however_it_is_cut(case: tuple[Reply, list[bytes]]) -> None:
    """By length, in chunks with extensions and trailers, until close; after early hints; HTTP/1.0 and 1.1."""
    reply, pieces = case

    heard = run(hears(pieces, closes=reply.closes))
    assert heard == Heard(reply.status, reply.body, None, True, reply.keeps)


@settings(steady, max_examples=25)
@given(replies())
def test_a_whole_response_is_heard_byte_by_byte(reply: Reply) -> None:
    """The slowest upstream there can be."""
    heard = run(hears(cut(reply.wire, range(len(reply.wire))), closes=reply.closes))
    assert heard == Heard(reply.status, reply.body, None, True, reply.keeps)


@steady
@given(cut_replies(), st.sampled_from([NEXT, b"\r\n", b"\n"]) | st.binary(min_size=1, max_size=20), st.booleans())
@example((Reply(NEXT, 200, b"next"), [NEXT]), b"\r\n", False)
@example((Reply(NEXT, 200, b"next"), [NEXT]), NEXT, True)
def test_what_follows_a_response_is_never_part_of_it_nor_of_the_next(
    case: tuple[Reply, list[bytes]], more: bytes, glued: bool
) -> None:
    """A second answer, or junk: in the same read, or in one of its own. (`hears` listens to the next response.)"""
    reply, pieces = case
    if reply.closes:
        return  # there, all that comes is the body

    async def later() -> Heard:
        async with dialled() as peer:
            heard = await peer.answers(pieces)
            if heard.kept:
                peer.connection.data_received(more)
                assert peer.connection.closed
        return heard

    heard = run(hears([*pieces[:-1], pieces[-1] + more]) if glued else later())
    assert heard.body == reply.body or (heard.failure is UpstreamProtocolError and reply.body.startswith(heard.body))
    # Only line breaks may stand between two responses, and even they are no reason to keep it.
    assert not (glued and heard.kept and more.strip(b"\r\n"))


def test_a_second_answer_in_the_same_read_is_not_what_the_first_one_said() -> None:
    """200 and words, then 500: the turn has failed, but its status was 200."""
    assert run(hears([NEXT + NEXT.replace(b"200", b"500")])).status == 200


# --- the upstream closes after any byte -----------------------------------------------------------

RECORDED = {
    "length": Reply(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello", 200, b"Hello", head=38),
    "chunked": Reply(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nHel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\n",
        200, b"Hello", head=47,
    ),
    "early hints": Reply(
        b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello",
        200, b"Hello", head=75,
    ),
    "until close": Reply(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nHello", 200, b"Hello", closes=True, head=38),
    "http/1.0": Reply(b"HTTP/1.0 200 OK\r\nserver: a\r\n\r\nHello", 200, b"Hello", closes=True, head=30),
}  # fmt: skip


@pytest.mark.parametrize("reply", RECORDED.values(), ids=RECORDED.keys())
def test_the_upstream_closes_after_its_nth_byte(reply: Reply) -> None:
    """Every byte is the last one once: no answer, or the start of one, and the error says which."""
    for size in range(len(reply.wire)):
        heard = run(hears([reply.wire[:size]] if size else [], closes=True))

        assert not heard.kept and reply.body.startswith(heard.body)
        if size < reply.head:
            assert heard.failure is UpstreamConnectError, size
        elif reply.closes:
            assert (heard.failure, heard.body) == (None, reply.wire[reply.head : size])
        else:
            assert heard.failure is UpstreamTruncated, size
    assert run(hears([reply.wire], closes=True)).failure is None


# --- any bytes at all -----------------------------------------------------------------------------

TOKENS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/2 200\r\n",
    b"HTTP/1.1 101 X\r\nupgrade: a\r\n",
]
TOKENS += [b"content-length: 2\r\n", b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n"]
TOKENS += [b"transfer-encoding: gzip, chunked\r\n", b"transfer-encoding: identity\r\n", b"connection: close\r\n"]
TOKENS += [
    b"connection: upgrade\r\n",
    b" folded\r\n",
    b"x : y\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"ok",
    b"2\r\nok\r\n",
    b"0\r\n\r\n",
]
TOKENS += [b"2;a\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"\0", b"\xff", b":", b"x: y\r\n", NEXT]
soup = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=6), max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good response in which a part was replaced, left out or said twice."""
    wire = draw(replies()).wire
    start, end = sorted(draw(st.tuples(st.integers(0, len(wire)), st.integers(0, len(wire)))))
    middle = draw(st.one_of(st.just(b""), st.just(wire[start:end] * 2), st.binary(max_size=4), st.sampled_from(TOKENS)))
    return wire[:start] + middle + wire[end:]


@settings(steady, max_examples=150)
@given(st.one_of(soup, damaged(), st.binary(max_size=80)), st.lists(st.integers(1, 200), max_size=6), st.booleans())
@example(b"HTTP/1.1 101 X\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n", [10], True)
def test_any_bytes_are_an_answer_or_an_error_of_the_upstream(data: bytes, places: list[int], closes: bool) -> None:
    """Never another exception, never a wait without end, never a byte that reaches the next response."""
    whole = run(hears([data] if data else [], closes=closes))
    pieces = run(hears(cut(data, places), closes=closes))

    if (whole.failure, pieces.failure) != (UpstreamProtocolError, None):
        status = pieces.status if pieces.failure else whole.status
        assert replace(whole, status=status, kept=pieces.kept) == pieces
    else:  # what came behind the end spoils it only when both came in one read
        assert pieces.body.startswith(whole.body) and pieces.ended


# --- what has no end ------------------------------------------------------------------------------

ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
    "a header's name": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "the reason": (b"HTTP/1.1 200 ", b"OK "),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"),
    "line breaks": (b"", b"\r\n"),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"a"),
    "zeros of a chunk's size": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"0"),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
    "one trailer": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", b"y"),
}


@pytest.mark.parametrize("size", [700, 65_536])
@pytest.mark.parametrize(("head", "piece"), ENDLESS.values(), ids=ENDLESS.keys())
def test_framing_without_end_is_given_up_and_takes_little(head: bytes, piece: bytes, size: int) -> None:
    """64 kB without a word are enough, and no more than a few times that is ever held."""
    piece *= max(size // len(piece), 1)
    count = 16 * MAX_HEAD // len(piece)
    tracemalloc.start()
    try:
        heard = run(hears([head, *[piece] * count] if head else [piece] * count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert heard.failure is UpstreamProtocolError and not heard.kept
    assert peak < 8 * MAX_HEAD
