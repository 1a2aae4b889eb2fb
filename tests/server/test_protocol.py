"""Our protocol on the wire: what uvicorn's own does with a turn's request, ours must do as well, in fewer writes."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Chunk, Turn
from firstword.server.exchange import Exchange
from firstword.server.protocol import VoiceProtocol
from firstword.testing import Upstream, script

PROTOCOLS = pytest.mark.parametrize("http", ["ours", "httptools", "h11"])


def request(body: Any, *lines: str, path: str = "/chat/completions", version: str = "1.1") -> bytes:
    """Return the bytes of a POST with a content-length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(content)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


async def talk(server: Served, *pieces: bytes, until: int = 1, pause: float = 0.0) -> bytes:
    """Send pieces on one connection; read until there are `until` ends of a stream, or the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    heard = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)  # lets the pieces arrive apart; nothing depends on how long it is
        while heard.count(b"[DONE]\n\n\r\n0\r\n\r\n") < until:
            data = await asyncio.wait_for(reader.read(65536), 5)
            if not data:
                break
            heard += data
    finally:
        writer.transport.abort()
    return heard


@pytest.fixture
def start(upstream: Upstream) -> Any:
    """Serve under one of the protocols that uvicorn can be given."""
    running: list[Served] = []

    def begin(http: Any = "ours", **more: Any) -> Served:
        other = {} if http == "ours" else {"http": http}
        running.append(Served(App(base_url=upstream.base_url, **more), **other))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


Start = Callable[..., Served]


@PROTOCOLS
async def test_a_turn_is_the_same_under_every_protocol(start: Start, http: str) -> None:
    """The same words, the same events, the same headers, but for how uvicorn frames them."""
    server = start(http)
    heard = await Caller(server.url).says("Hello there.")
    whole = await Caller(server.url).says("Hello there.", stream=False)

    assert (heard.text, heard.done, heard.whole) == ("Hello there.", True, True)
    assert whole.json["choices"][0]["message"]["content"] == "Hello there."
    assert heard.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert server.left_open() == {"in_use": 0, "turns": 0}


async def test_the_head_and_the_first_words_leave_in_one_write(start: Start) -> None:
    """One packet, and not three: the first read of a caller who reads at once holds them all."""
    server = start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(turn("Hi", script=script.events(script.role(), script.text("Hello"), script.wait()))))
    first = await asyncio.wait_for(reader.read(65536), 5)
    writer.transport.abort()

    assert first.startswith(b"HTTP/1.1 200 OK\r\n") and b"Hello" in first


@PROTOCOLS
async def test_a_body_may_come_in_pieces(start: Start, http: str) -> None:
    """A slow line: the head, half a body, the rest."""
    data = request(turn("Hello there."))
    heard = await talk(start(http), data[:20], data[20:150], data[150:], pause=0.02)
    assert heard.count(b"there.") == 1


@PROTOCOLS
async def test_requests_that_come_at_once_are_answered_in_order(start: Start, http: str) -> None:
    """HTTP pipelining: three requests in one packet, the last one cut in two."""
    server = start(http)
    first, second, third = (request(turn(f"word{number}")) for number in (1, 2, 3))
    heard = await talk(server, first + second + third[:50], third[50:], until=3, pause=0.02)

    assert heard.count(b"HTTP/1.1 200 OK") == 3
    assert heard.index(b"word1") < heard.index(b"word2") < heard.index(b"word3")
    assert server.left_open() == {"in_use": 0, "turns": 0}


@PROTOCOLS
@pytest.mark.parametrize("how", ["chunked", "expect", "large", "old"])
async def test_unusual_requests_are_answered_as_well(start: Start, http: str, how: str) -> None:
    """They take uvicorn's ordinary way."""
    body = turn("Hello there.", padding="x" * 2_000_000 if how == "large" else "")
    content = json.dumps(body).encode()
    if how == "chunked":
        head = b"POST /chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    elif how == "expect":
        data = request(body, "Expect: 100-continue")
    else:
        data = request(body, version="1.0" if how == "old" else "1.1")
    heard = await talk(start(http), data)
    assert b" 200 OK\r\n" in heard and b"there." in heard


@PROTOCOLS
async def test_a_caller_who_wants_to_close_is_closed(start: Start, http: str) -> None:
    """`Connection: close` in the request: said back, and done."""
    heard = await talk(start(http), request(turn("Hello"), "Connection: close"), until=2)
    assert b"connection: close" in heard.lower() and heard.endswith(b"0\r\n\r\n")


@PROTOCOLS
async def test_a_body_that_stops_coming_gets_a_408(start: Start, http: str) -> None:
    """The head promises more than ever comes."""
    data = request(turn("Hello"))
    heard = await talk(start(http, body_timeout=0.2), data[:-10])
    assert heard.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in heard


@PROTOCOLS
async def test_a_body_over_the_limit_gets_a_413(start: Start, http: str) -> None:
    """The server is set to very small bodies."""
    heard = await talk(start(http, max_body=100), request(turn("Hello " * 50)))
    assert heard.startswith(b"HTTP/1.1 413 ")


@PROTOCOLS
async def test_the_next_request_on_the_connection_is_answered(start: Start, http: str) -> None:
    """Keep-alive, also after an error."""
    server = start(http)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for body, status in ((b"{", b"400"), (turn("one"), b"200"), (turn("two"), b"200")):
        writer.write(request(body))
        heard = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert heard.split(b" ")[1] == status
        end = b"}}" if status == b"400" else b"0\r\n\r\n"
        await asyncio.wait_for(reader.readuntil(end), 5)
    writer.transport.abort()


async def test_a_head_without_end_is_cut_off(start: Start) -> None:
    """A header value that goes on and on: uvicorn sets no limit."""
    server = start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /chat/completions HTTP/1.1\r\nHost: x\r\nX-Long: ")
    sent = 0
    try:
        while sent < 50_000_000:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    except ConnectionError:
        pass
    writer.transport.abort()
    assert sent < 20_000_000  # what fits into the sockets between us, and no more
    assert (await Caller(server.url).says("Hello")).text == "Hello"


def metrics() -> bytes:
    return b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_what_is_no_request_is_counted(start: Start) -> None:
    """Bytes that are none, and a head that is too large: the operator's page tells of both."""
    server = start()
    for sent in (b"Hello?\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000):
        assert b"HTTP/1.1 4" in await talk(server, sent)
    page = await talk(server, metrics())
    for reason in (b"bad_request", b"head_too_large"):
        assert b'firstword_refused_total{reason="%s"} 1.0' % reason in page


async def test_a_connection_too_many_is_counted(start: Start) -> None:
    """There is room for one: the second is told so, and the first can read of it."""
    server = start(http=partial(VoiceProtocol, max_connections=1))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert b" 503 " in await talk(server, b"")
    writer.write(metrics())
    page = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert b'firstword_refused_total{reason="too_many_connections"} 1.0' in page


async def test_a_connection_that_is_over_is_let_go_of_without_the_collector(start: Start) -> None:
    """Each caller who dials for every turn would else leave a circle of objects behind."""
    server = start()

    def kept() -> int:
        return sum(isinstance(each, (VoiceProtocol, Exchange)) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = kept()
        for number in range(20):
            await talk(server, request(turn(f"word{number}")))
        for _ in range(200):  # the last one closes a moment after its caller
            if kept() <= before:
                break
            await asyncio.sleep(0.01)
        assert kept() <= before
    finally:
        gc.enable()


async def test_a_late_loop_reads_before_it_loses_patience(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook on another's words holds the loop until the time for a head is over; it came in time, and lies there."""
    monkeypatch.setattr("firstword.server.protocol.VoiceProtocol.head_timeout", 0.3)
    app = App(base_url=upstream.base_url)
    held, go_on = threading.Event(), threading.Event()
    slowly = script.events(script.role(), script.words("One two three four five.", every=0.02), script.finish())

    @app.on_chunk
    def hold(turn: Turn, chunk: Chunk) -> None:
        if chunk.text.strip() == "four" and not held.is_set():
            held.set()
            go_on.wait(5)

    server = Served(app, loop="uvloop")  # which may ring before it reads
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        other = asyncio.create_task(Caller(server.url).says(script=slowly))
        await asyncio.to_thread(held.wait, 5)
        writer.write(request(turn("Hello.")))
        threading.Timer(0.4, go_on.set).start()
        assert b"Hello." in await asyncio.wait_for(reader.read(65536), 5)
        writer.close()
        assert (await other).text == "One two three four five."
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_connection_that_says_nothing_is_closed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps a socket of ours without a word."""
    monkeypatch.setattr("firstword.server.protocol.VoiceProtocol.head_timeout", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", start().port)
    assert await asyncio.wait_for(reader.read(1), 5) == b""
    writer.close()


async def test_a_caller_who_does_not_read_is_cut_off(start: Start, upstream: Upstream, marker: str) -> None:
    """A model that talks without end, and a caller who takes nothing: the turn's time is up, and so is the socket's."""
    server = start(turn_timeout=1.0)  # on a busy machine, the kernel's buffers hold what is said in less
    words = script.repeat(script.text("word " * 2000))
    line = socket.create_connection(("127.0.0.1", server.port))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    _, writer = await asyncio.open_connection(sock=line)
    writer.transport.pause_reading()
    writer.write(request(turn(user=marker, script=script.events(script.role(), words))))
    (record,) = await upstream.wait_closed(marker, within=5.0)
    assert record.closed_by == "peer"

    async def is_gone() -> bool:
        while server._server.server_state.connections:
            await asyncio.sleep(0.01)
        return True

    assert await asyncio.wait_for(asyncio.to_thread(server.run, is_gone), 5)
    writer.transport.abort()
