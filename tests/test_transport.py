"""Connections to upstreams: kept and used again when that is safe, never shared by two turns.

Rules:
- This runs on plain asyncio; test_transport_http.py has whole turns on either loop.
"""

from __future__ import annotations

import asyncio

import pytest
from requests_of_a_test import OK, Line, everything, raw, until

import firstword.transport
from firstword.errors import UpstreamConnectError, UpstreamTimeout
from firstword.testing import Upstream, script
from firstword.transport import Connection, Transport

# --- kept connections -----------------------------------------------------------------------------

HEAD = "HTTP/1.1 200 OK\r\n"
BODIES = {
    "length": OK,
    "chunked": [script.head(), script.send("o"), script.send("k"), script.end()],
    "trailers": raw(HEAD + "transfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Sum: 1\r\nstatus: 9\r\n\r\n"),
    "one byte a write": [script.send(HEAD + "Content-Length: 2\r\n\r\nok", raw=True, pieces=1), script.end()],
    "early hints": [script.early_hints(), script.early_hints(100), *OK],
    "empty": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "http/1.0 that keeps": raw(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"),
}  # fmt: skip


@pytest.mark.parametrize("steps", BODIES.values(), ids=BODIES.keys())
async def test_a_connection_is_used_again_after_a_whole_response(line: Line, steps: script.Script) -> None:
    """A new one would cost the caller a round trip, or three with TLS."""
    heard = [await line.hears(steps) for _ in range(3)]

    assert heard in ([b"ok"] * 3, [b""] * 3)
    assert await line.connections(3) == [0, 0, 0]


async def test_what_comes_after_the_body_is_no_header(line: Line) -> None:
    """A trailer that calls itself `connection: close` or `status` steers nothing."""
    connection = await line.asks(BODIES["trailers"])
    assert await everything(connection) == b"ok"
    connection.release()

    assert connection.headers == {"transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    "hint", ["timeout=²", "timeout=", "timeout=-1", "timeout", "=", "timeout=9999999999999999999999"]
)
async def test_an_odd_keep_alive_hint_hurts_nobody(line: Line, hint: str) -> None:
    """It is a stranger's header."""
    reply = f"{HEAD}keep-alive: {hint}\r\ncontent-length: 2\r\n\r\nok".encode("latin-1")

    assert [await line.hears(raw(reply)) for _ in range(2)] == [b"ok"] * 2
    assert await line.connections(2) == [0, 0]


ONCE = {
    "connection: close": raw(HEAD + "connection: close\r\ncontent-length: 2\r\n\r\nok"),
    "until close": [script.head(body="close"), script.send("ok"), script.end()],
    "until close, without a word": [*raw(HEAD + "\r\nok"), script.close()],
    "http/1.0": raw(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
}  # fmt: skip


@pytest.mark.parametrize("steps", ONCE.values(), ids=ONCE.keys())
async def test_a_connection_is_not_used_again_when_the_response_forbids_it(line: Line, steps: script.Script) -> None:
    """The upstream said that it closes, or the close is the end of the body."""
    assert [await line.hears(steps) for _ in range(2)] == [b"ok"] * 2
    assert await line.connections(2) == [0, 1]


async def test_a_response_left_in_the_middle_closes_its_connection(line: Line) -> None:
    """What is still to come would be taken for the next answer."""
    connection = await line.asks([script.head(), script.send("half"), script.wait()])
    assert await connection.read(5) == b"half"
    connection.release()

    (record,) = await line.upstream.wait_closed(line.marker)
    assert record.closed_by == "peer" and line.transport.open_count == 0


async def test_the_last_bytes_of_a_response_are_drained_so_that_it_can_be_used_again(line: Line) -> None:
    """`[DONE]` was heard; the end of the body comes a moment later, once; ending it twice changes nothing."""
    steps = [script.head(), script.send("ok"), script.wait(0.02), script.send("rest"), script.end()]
    for count in (1, 2):
        connection = await line.asks(steps)
        assert await connection.read(5) == b"ok"
        connection.drain()
        connection.release()
        assert line.transport.in_use == 1
        await until(lambda: line.transport.in_use == 0)
        connection.release()
        assert (line.transport.open_count, line.transport.in_use) == (1, 0)
        assert await line.connections(count) == [0] * count


@pytest.mark.parametrize("rest", [[script.wait()], [script.repeat(script.send("x" * 4096))]], ids=["silent", "endless"])
async def test_a_drain_has_an_end(line: Line, monkeypatch: pytest.MonkeyPatch, rest: script.Script) -> None:
    """Some servers never end the body; a kept connection is not worth more than a moment, or 64 kB."""
    monkeypatch.setattr("firstword.transport.connection.DRAIN_TIMEOUT", 0.05 if rest[0]["do"] == "wait" else 9.0)
    connection = await line.asks([script.head(), script.send("ok"), *rest])
    await connection.read(5)
    connection.drain()

    (record,) = await line.upstream.wait_closed(line.marker)
    assert record.closed_by == "peer" and line.transport.open_count == 0


async def test_two_turns_at_once_never_share_a_connection(line: Line) -> None:
    """Each of 40 gets its own words, on a connection that nobody else has at that time."""

    async def turn(number: int) -> None:
        word = f"word{number:02}"
        connection = await line.asks([script.head(), script.send(word, pieces=2, pause=0.001), script.end()])
        assert connection not in busy
        busy.add(connection)
        assert await everything(connection) == word.encode()
        busy.remove(connection)
        connection.release()

    busy: set[Connection] = set()
    for _ in range(3):
        await asyncio.gather(*map(turn, range(40)))
    assert line.transport.open_count <= 40


# --- connections that went stale ------------------------------------------------------------------


async def test_a_stale_connection_is_replaced_once_and_nobody_notices(line: Line) -> None:
    """The upstream closes a kept connection just as we write: it did not hear us."""
    heard = [await line.hears(OK, [script.close()], OK) for _ in range(2)]

    assert heard == [b"ok", b"ok"]
    assert await line.connections(3) == [0, 0, 1]


async def test_a_reset_of_a_stale_connection_is_replaced_as_well(line: Line) -> None:
    """As a balancer that forgot us answers."""
    assert [await line.hears(OK, [script.reset()], OK) for _ in range(2)] == [b"ok", b"ok"]
    assert await line.connections(3) == [0, 0, 1]


async def test_a_new_connection_that_closes_unheard_is_not_replaced(line: Line) -> None:
    """Twice in a row is no accident: no request is ever sent three times."""
    await line.hears(OK, [script.close()], [script.close()], OK)

    with pytest.raises(UpstreamConnectError):
        await line.hears(OK, [script.close()], [script.close()], OK)
    assert await line.connections(3) == [0, 0, 1]


@pytest.mark.parametrize("byte", ["H", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "])
async def test_a_request_that_was_heard_is_never_sent_again(line: Line, byte: str) -> None:
    """One byte of an answer is enough: the model may be at work, and is paid."""
    scripts = (OK, [script.send(byte, raw=True), script.close()], OK)
    await line.hears(*scripts)

    with pytest.raises(UpstreamConnectError):
        await line.hears(*scripts)
    assert await line.connections(2) == [0, 0]


async def test_a_request_that_was_at_work_for_long_is_never_sent_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashes after it took the request does not close at once."""
    monkeypatch.setattr(firstword.transport, "STALE_WINDOW", 0.02)
    scripts = (OK, [script.wait(0.05), script.close()], OK)
    await line.hears(*scripts)

    with pytest.raises(UpstreamConnectError):
        await line.hears(*scripts)
    assert await line.connections(2) == [0, 0]


async def test_a_kept_connection_that_is_silent_is_not_replaced(line: Line) -> None:
    """Silence is not deafness."""
    await line.hears(OK, [script.wait()], OK)

    with pytest.raises(UpstreamTimeout):
        await line.hears(OK, [script.wait()], OK, within=0.05)
    assert await line.connections(2) == [0, 0]


async def test_an_idle_connection_is_closed_before_its_peer_would(upstream: Upstream, line: Line) -> None:
    """By our own limit, and earlier where `keep-alive: timeout` says so."""
    line.transport = Transport(idle_timeout=0.03)
    await line.hears(OK)
    hint = {"keep-alive": "max=5, timeout=1"}
    other = Line(Transport(), upstream, line.marker)
    await other.hears([script.head(headers=hint, body="length", length=2), script.send("ok"), script.end()])

    records = await upstream.wait_closed(line.marker, count=2)
    kept = [(record.closed or 0) - (record.ended or 0) for record in records]
    assert [record.closed_by for record in records] == ["peer", "peer"]
    assert 0.02 < kept[0] < 0.5 and 0.08 < kept[1] < 0.6
    assert line.transport.open_count == other.transport.open_count == 0


async def test_a_connection_that_its_peer_closes_leaves_the_pool() -> None:
    """The upstream has less patience than we have."""
    with Upstream.start(idle=0.05) as upstream:
        transport = Transport()
        line = Line(transport, upstream, "a")
        await line.hears(OK)
        await until(lambda: transport.open_count == 0)
        await line.hears(OK)
        assert await line.connections(2) == [0, 1]
        await transport.close()


# --- bytes that nobody asked for ------------------------------------------------------------------

EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
DESYNC = {
    "in the same write": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + EVIL),
    "at once": [*OK, script.send(EVIL, raw=True)],
    "later": [*OK, script.wait(0.02), script.send(EVIL, raw=True)],
    "a line break": [*OK, script.wait(0.02), script.send(b"\r\n", raw=True)],
    "junk": [*OK, script.wait(0.02), script.send(b"\x00\xff", raw=True)],
}


@pytest.mark.parametrize("steps", DESYNC.values(), ids=DESYNC.keys())
async def test_a_second_response_never_reaches_another_turn(line: Line, steps: script.Script) -> None:
    """Whose it is nobody can know: the connection is closed, and the next turn gets one of its own."""
    connection = await line.asks(steps, OK)
    assert await connection.read(5) == b"ok"
    connection.release()
    await until(lambda: line.transport.open_count == 0)

    assert await line.hears(steps, OK) == b"ok"
    assert await line.connections(2) == [0, 1]
