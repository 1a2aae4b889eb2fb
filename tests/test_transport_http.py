"""Odd HTTP, large bodies and slow peers: each is an error of the upstream or none at all, and memory stays small."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from caller import Caller, turn
from requests_of_a_test import OK, Line, raw, until
from served import Served

from firstword import App
from firstword.errors import (
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTruncated,
)
from firstword.testing import Upstream, script
from firstword.transport.alarm import Alarm
from firstword.wire import HttpRequest

HEAD = "HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + "transfer-encoding: chunked\r\n\r\n"

NOT_HTTP = {
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "http/2": raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    "a flood of headers": [script.send(HEAD, raw=True), script.send("x: y\r\n", raw=True, times=20_000)],
    "one endless header": [script.send(HEAD + "x: ", raw=True), script.send("y", raw=True, times=100_000)],
    "endless early hints": [script.repeat(script.early_hints())],
    "another protocol is switched to": raw(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n"
    ),
    "two lengths": raw(HEAD + "content-length: 2\r\ncontent-length: 4\r\n\r\nok"),
    "a length and chunks": raw(HEAD + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok"),
    "a bad length": raw(HEAD + "content-length: -2\r\n\r\nok"),
    "a bad chunk size": raw(CHUNKED + "zz\r\nok\r\n"),
    "a chunk size too large": raw(CHUNKED + "fffffffffffffffff\r\nok\r\n"),
    "a chunk too long": raw(CHUNKED + "1\r\nokok\r\n"),
}
NO_ANSWER = {
    "nothing": [script.close()],
    "half a status line": [script.send("HTTP/1.1 2", raw=True), script.close()],
    "half a head": [script.send(HEAD + "x: y\r\n", raw=True), script.reset()],
    "early hints alone": [script.early_hints(), script.close()],
}
CUT = {
    "less than its length": [script.head(body="length", length=9), script.send("ok"), script.close()],
    "no last chunk": [script.head(), script.send("ok"), script.close()],
    "half a chunk": [script.head(), script.half_a_chunk(), script.reset()],
    "a reset until close": [script.head(body="close"), script.send("ok"), script.reset()],
}
BROKEN = [
    pytest.param(steps, kind, id=name)
    for kind, cases in ((UpstreamProtocolError, NOT_HTTP), (UpstreamConnectError, NO_ANSWER), (UpstreamTruncated, CUT))
    for name, steps in cases.items()
]


@pytest.mark.parametrize(("steps", "kind"), BROKEN)
async def test_broken_http_is_an_error_of_the_upstream(
    line: Line, steps: script.Script, kind: type[UpstreamError]
) -> None:
    """Never a hang, never an exception of the parser's, never a connection that is used again."""
    with pytest.raises(kind):
        await line.hears(steps)
    assert line.transport.open_count == 0
    assert (await line.upstream.wait_closed(line.marker))[0].closed is not None


# --- large bodies and slow peers ------------------------------------------------------------------


async def test_a_large_request_is_whole_when_the_upstream_reads_late(line: Line) -> None:
    """An image of 5 MB; the upstream starts to read it after it was busy with something else."""
    image = b'"' + b"x" * 5_000_000 + b'"'

    assert await line.hears([script.wait(0.05), script.read(), *OK], body=image) == b"ok"
    (record,) = line.upstream.seen(line.marker)
    assert record.body == image.decode().strip('"')
    assert await line.hears([script.read(), *OK], body=b"{}") == b"ok"
    assert await line.connections(2) == [0, 0]


async def test_a_request_that_nobody_reads_is_given_up_in_time(line: Line) -> None:
    """The time for the first word counts from the first byte of the request."""
    began = asyncio.get_running_loop().time()

    with pytest.raises(UpstreamTimeout):
        await line.hears([script.wait()], body=b"x" * 32_000_000, within=0.1)
    assert asyncio.get_running_loop().time() - began < 1.0
    assert line.transport.open_count == 0


@pytest.mark.parametrize("steps", [[*OK], [*OK, script.close()]], ids=["kept", "closed"])
async def test_an_answer_before_the_body_was_read_is_heard_at_once(line: Line, steps: script.Script) -> None:
    """413 or 401 comes while the image is still on its way: its rest must not stand before the next request."""
    steps = [{**steps[0], "status": 413}, *steps[1:], script.wait()]
    connection = await line.asks(steps, OK, body=b"x" * 32_000_000)
    assert (connection.status, await connection.read(5)) == (413, b"ok")
    await until(lambda: connection.ended)
    connection.release()

    assert line.transport.open_count == 0
    assert await line.hears(steps, OK) == b"ok"
    assert await line.connections(2) == [0, 1]


async def test_a_response_that_nobody_reads_makes_the_upstream_wait(line: Line) -> None:
    """256 kB wait for a slow caller, and what the kernel holds; the rest stays where it is, and nothing is lost."""
    size = 64 * 1024 * 1024
    steps = [script.head(body="length", length=size), script.send("x", times=size, pieces=65_536), script.end()]
    connection = await line.asks(steps)
    sent = -1
    while sent != (sent := line.upstream.seen(line.marker, until="now")[0].sent) or connection._unread < 262_144:
        await asyncio.sleep(0.05)

    assert sent < size / 2 and connection._unread <= 2 * 262_144
    heard = 0
    while data := await connection.read(5):
        assert len(data) < 2 * 262_144
        heard += len(data)
    connection.release()
    assert heard == size


async def test_an_error_page_is_not_read_whole(upstream: Upstream, serve_plain: Served, line: Line) -> None:
    """Some gateways show 10 MB where a sentence would do."""
    page = [
        script.head(500, {"content-type": "text/html"}, body="length", length=10_000_000),
        script.send("x", times=10_000_000, pieces=65_536),
    ]

    heard = await Caller(serve_plain.url).says(user=line.marker, script=page)

    assert (heard.status, heard.error["message"]) == (500, "The model's server answered with status 500.")
    records = await upstream.wait_closed(line.marker, count=2)  # a 500 is asked a second time
    assert [(record.closed_by, record.ended) for record in records] == [("peer", None)] * 2


# --- what we send ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["key\r\nx-evil: 1", "key\nx-evil: 1", "key\rx", "key\0"])
async def test_a_header_value_cannot_add_a_header(upstream: Upstream, line: Line, value: str) -> None:
    """Not through a key, not through a name."""
    for header in (("authorization", value), (value, "x")):
        with pytest.raises(ValueError, match="line break"):
            await line.transport.request(HttpRequest("POST", upstream.base_url, (header,)), within=5)
    assert line.transport.open_count == 0


async def test_a_callers_key_cannot_add_a_header(upstream: Upstream, serve_plain: Served, line: Line) -> None:
    """What could is no key, and nothing reaches the upstream."""
    for key in ("Bearer a\tb", "Bearer a\x7fb", "Bearer a b"):
        heard = await Caller(serve_plain.url).says(user=line.marker, headers={"authorization": key})
        assert heard.status in (400, 401)
    assert upstream.seen(line.marker, until="now") == []


async def test_a_request_says_what_http_asks_for(upstream: Upstream, line: Line) -> None:
    """One Host with its port, one length, in one piece with the body when it is small."""
    await line.hears([script.read(), *OK], body=b'{"a":1}')

    (record,) = upstream.seen(line.marker)
    names = [name for name, _ in record.headers]
    assert names[0] == "host" and record.header("host") == f"127.0.0.1:{upstream.port}"
    assert names.count("host") == names.count("content-length") == 1 and record.header("content-length") == "7"
    assert (record.method, record.path, record.body) == ("POST", "/v1/chat/completions", {"a": 1})


# --- whole turns, on either loop ------------------------------------------------------------------


@pytest.fixture(scope="module")
def serve_plain(upstream: Upstream) -> Iterator[Served]:
    """A server on plain asyncio, as it runs on Windows and PyPy."""
    served = Served(App(base_url=upstream.base_url, stall_timeout=0.15), loop="asyncio")
    yield served
    served.stop()


@pytest.fixture(scope="module")
def serve_uvloop(upstream: Upstream) -> Iterator[Served]:
    served = Served(App(base_url=upstream.base_url, stall_timeout=0.15), loop="uvloop")
    yield served
    served.stop()


@pytest.mark.parametrize("loop", ["serve_plain", "serve_uvloop"])
async def test_whole_turns_are_the_same_on_either_loop(
    request: pytest.FixtureRequest, upstream: Upstream, line: Line, loop: str
) -> None:
    """Good, shredded, refused, reset, stalled and in one piece, twice over on kept connections."""
    served: Served = request.getfixturevalue(loop)
    caller = Caller(served.url)
    for _ in range(2):
        heard = await caller.says("Grüße, 你好 👋", user=line.marker)
        assert (heard.text, heard.done) == ("Grüße, 你好 👋", True)
        heard = await caller.says(user=line.marker, script=script.shreds())
        assert (heard.text, heard.done) == ("Grüße, 你好 👋", True)
        assert (await caller.says(user=line.marker, script=script.refuses(429))).status == 429
        heard = await caller.says(user=line.marker, script=script.resets_after("Hello"))
        assert (heard.text, heard.done, heard.error["code"]) == ("Hello", False, "upstream_truncated")
        heard = await caller.says(user=line.marker, script=script.stalls_after("Hello"))
        assert (heard.text, heard.error["code"]) == ("Hello", "upstream_timeout")
        whole = await caller.says("Hi", user=line.marker, stream=False)
        assert whole.json["choices"][0]["message"]["content"] == "Hi"
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_words_that_came_in_time_are_heard_when_the_loop_is_late(
    upstream: Upstream, marker: str, loop: str
) -> None:
    """The model speaks before its time is over, and other code holds the loop until after that."""
    served = Served(App(base_url=upstream.base_url, first_token_timeout=1.0), loop=loop)
    assert served._loop is not None
    try:
        more = [script.wait(2.0), script.finish(), script.done(), script.end()]
        steps = [script.wait(0.5), script.head(200, script.EVENT_STREAM), script.text("In time."), *more]
        async with Caller(served.url).dials(turn(user=marker, script=steps)) as call:
            await upstream.wait_asked(marker)
            served._loop.call_soon_threadsafe(time.sleep, 1.5)
            await call.hears_word("In time")
            assert call.heard.status == 200
    finally:
        await asyncio.to_thread(served.stop)


def test_an_alarm_of_a_late_loop_lets_it_read_first() -> None:
    """The loop was held beyond the time; what has come since, and moves the time, is read in its next rounds."""

    async def main() -> list[str]:
        loop, rung = asyncio.get_running_loop(), []
        alarm = Alarm(loop, lambda: rung.append("rung"))
        alarm.set(0.01)
        time.sleep(0.1)
        loop.call_soon(loop.call_soon, loop.call_soon, loop.call_soon, alarm.set, 0.2)
        await asyncio.sleep(0.1)
        assert rung == []
        await asyncio.sleep(0.3)
        return rung

    assert asyncio.run(main()) == ["rung"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "flood", [": ping\n\n", 'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":"x"}}]}\n\n']
)
async def test_a_flood_that_says_nothing_is_over_in_time(upstream: Upstream, loop: str, flood: str) -> None:
    """Comments or thoughts without a pause: there is always something to read before the alarm rings."""
    served = Served(App(base_url=upstream.base_url, first_token_timeout=0.3), loop=loop)
    try:
        steps = [
            script.head(200, {"content-type": "text/event-stream"}),
            script.repeat(script.send(flood * 200)),
        ]
        heard = await Caller(served.url).says(script=steps, stream=False)
        assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    finally:
        served.stop()


@pytest.mark.parametrize("flood", ["0\r\nX-Trailer: ", "5;"])
async def test_framing_without_end_is_cut_off(line: Line, flood: str) -> None:
    """A trailer, or a chunk extension, that goes on and on."""
    head = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{flood}"
    steps = [script.send(head, raw=True), script.send("a" * 1000, times=500, raw=True), script.wait()]
    with pytest.raises(UpstreamProtocolError, match="framing"):
        await line.hears(steps)
