"""The local upstream does on the wire what a script says: each step is read with a raw socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from firstword.testing import Upstream, script

PATIENCE = 10.0  # seconds; only a broken upstream takes as long


@pytest.fixture
def marker(request: pytest.FixtureRequest) -> str:
    """A marker of the test's own: one process serves all tests."""
    return str(request.node.nodeid)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def request_of(headers: dict[str, str] | None = None, **body: Any) -> bytes:
    data = json.dumps(body).encode()
    named = {"host": "upstream", "content-length": str(len(data)), **(headers or {})}
    rows = [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *rows, "", ""]).encode() + data


def ask(upstream: Upstream, marker: str, steps: script.Script) -> socket.socket:
    line = connect(upstream.port)
    line.sendall(request_of(user=marker, script=steps))
    return line


def hear(line: socket.socket, until: bytes | None = None) -> bytes:
    """Return what comes up to `until`, or up to the end of the connection."""
    heard = b""
    while until is None or not heard.endswith(until):
        piece = line.recv(65_536)
        if not piece:
            line.close()
            break
        heard += piece
    return heard


LENGTH_2 = b"content-length: 2\r\n\r\n"
HALF = b'100\r\ndata: {"id":"chatcmpl-script"'
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


# --- each step on the wire ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "wire"),
    [
        ([script.head(), script.send("hé"), script.end()], HEAD + b"3\r\nh\xc3\xa9\r\n0\r\n\r\n"),
        ([script.head(201, {"a": "b"}, body="length", length=2)], b"HTTP/1.1 201 Created\r\na: b\r\n" + LENGTH_2),
        ([script.head(body="close"), script.send("x"), script.end()], b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx"),
        ([script.send(b"\xff\x00\n"), script.send("b", times=3)], b"\xff\x00\nbbb"),
        ([script.head(), script.send("abcde", pieces=2)], HEAD + b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n"),
        ([script.head(), script.send("a", raw=True), script.half_a_chunk()], HEAD + b"a" + HALF),
        ([script.repeat(script.send("ab"), script.send("c"), times=2)], b"abcabc"),
        ([script.early_hints()], b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"),
        ([script.head(599)], b"HTTP/1.1 599 Unknown\r\ntransfer-encoding: chunked\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_script_is_on_the_wire_byte_by_byte(
    upstream: Upstream, marker: str, steps: script.Script, wire: bytes
) -> None:
    """The bytes are compared whole, and the connection ends with FIN."""
    assert hear(ask(upstream, marker, [*steps, script.close()])) == wire
    assert upstream.seen(marker)[0].closed_by == "us"


def test_pieces_are_writes_of_their_own(upstream: Upstream, marker: str) -> None:
    """A drip of one byte a write, chunk framing included, with 2 ms between them."""
    hear(ask(upstream, marker, [script.send(HEAD + b"1\r\na\r\n", pieces=1, pause=0.002), script.close()]))

    writes = upstream.seen(marker)[0].writes
    assert [size for _, size in writes] == [1] * (len(HEAD) + 6)
    assert all(late - early >= 0.002 for (early, _), (late, _) in itertools.pairwise(writes))


def test_a_wait_is_as_long_as_it_says_on_the_clock_of_the_test(upstream: Upstream, marker: str) -> None:
    """A first token after 50 ms; all times can be compared with our own clock."""
    before = time.monotonic()
    hear(ask(upstream, marker, [script.wait(0.05), script.send("x"), script.close()]))

    record = upstream.seen(marker)[0]
    times = [before, record.connected, record.requested, record.writes[0][0], record.closed or 0.0, time.monotonic()]
    assert times == sorted(times)
    assert 0.05 <= record.writes[0][0] - record.requested < 0.5
    assert record.sent == 1


def test_a_reset_arrives_as_one_after_the_bytes_before_it(upstream: Upstream, marker: str) -> None:
    """The provider crashes in mid-chunk."""
    line = ask(upstream, marker, script.resets_after("Hello"))

    heard = hear(line, b'"chatcmpl-script"')
    assert b'"content":"Hello"' in heard
    with pytest.raises(ConnectionResetError):
        hear(line)
    line.close()
    assert upstream.seen(marker)[0].closed_by == "us"


def test_a_flood_has_no_newline_and_waits_for_a_slow_reader(upstream: Upstream, marker: str) -> None:
    """64 MiB are promised; nobody reads them while another request makes as many turns of the loop."""
    slow = ask(upstream, marker, script.floods(67_108_864))
    hear(ask(upstream, f"{marker} 2", [script.repeat(script.send("x"), times=2_000), script.close()]))

    assert 65_536 < upstream.seen(marker, until="now")[0].sent < 33_554_432
    heard = slow.recv(1_000_000, socket.MSG_WAITALL)
    slow.close()
    body = heard.partition(b"6\r\ndata: \r\n")[2].replace(b"10000\r\n", b"").replace(b"x\r\n", b"x")
    assert set(body) == {ord("x")}


def test_a_body_that_is_never_read_makes_the_peer_wait(upstream: Upstream, marker: str) -> None:
    """16 MiB of request; the script came in the headers, so it starts before the body."""
    body = b"x" * 16_777_216
    rows = [
        b"POST / HTTP/1.1",
        b"host: a",
        b"content-length: %d" % len(body),
        b"x-script: %b",
        b"x-marker: %b",
        b"",
        b"",
    ]
    silent, reading = (
        b"\r\n".join(rows) % tuple(value.encode() for value in script.in_headers(steps, name).values())
        for steps, name in ((script.never_answers(), marker), ([script.read(), script.close()], f"{marker} 2"))
    )
    read = connect(upstream.port)
    read.sendall(reading + body)
    assert hear(read) == b""

    with connect(upstream.port) as unread:
        unread.settimeout(0.2)
        with pytest.raises(TimeoutError):
            unread.sendall(silent + body)
        assert upstream.seen(marker, until="now")[0].body is None


# --- connections ----------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_turn_on_one_connection(upstream: Upstream, marker: str) -> None:
    """Two requests leave in one write; the second asks for the end, and one more is chunked."""
    data = json.dumps({"user": marker, "script": [script.head(body="length"), script.end()]}).encode()
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        len(data),
        data,
    )
    last = request_of({"connection": "close"}, user=marker, script=script.refuses(500))
    line = connect(upstream.port)
    line.sendall(chunked + last)

    assert [part[:3] for part in hear(line).split(b"HTTP/1.1 ")[1:]] == [b"200", b"500"]
    first, second = upstream.seen(marker)
    assert first.connection == second.connection
    assert (first.headers[0], first.header("host"), first.path) == (("Host", "a"), "a", "/")
    assert first.ended is not None and second.closed_by == "us"


def test_a_kept_connection_goes_stale_without_a_word(upstream: Upstream, marker: str) -> None:
    """The provider closes after a response that promised nothing of the kind."""
    heard = hear(ask(upstream, marker, [*script.events(script.says("Hi.")), script.close()]))

    assert heard.endswith(b"0\r\n\r\n") and b"connection:" not in heard
    assert upstream.seen(marker)[0].ended is not None


def test_a_connection_that_is_idle_too_long_is_closed() -> None:
    """`idle` is what makes a pool's connections stale."""
    with Upstream.start(idle=0.05) as upstream:
        used, unused = connect(upstream.port), connect(upstream.port)
        used.sendall(request_of(script=script.refuses(500)))
        assert hear(used).startswith(b"HTTP/1.1 500")
        assert hear(unused) == b""
        assert upstream.connections(open=0).total == 2


def test_open_and_idle_connections_are_counted() -> None:
    """Of three connections one waits for an answer; questions are not counted."""
    with Upstream.start() as upstream:
        lines = [connect(upstream.port) for _ in range(2)] + [ask(upstream, "a", script.never_answers())]
        upstream.seen("a", until="asked", count=1)
        counted = upstream.connections(open=3)
        assert (counted.open, counted.idle, counted.total) == (3, 2, 3)
        for line in lines:
            line.close()
        assert upstream.connections(open=0).total == 3


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "steps",
    [
        script.never_answers(),
        script.stalls_after("Hello"),
        [script.wait(60)],
        [script.head(), script.repeat(script.send("x"), script.wait(30))],
        script.comments_for_ever(0.0),
        [script.repeat(times=None)],
    ],
)
async def test_the_peers_close_is_noticed_at_once(
    upstream: Upstream, marker: str, steps: script.Script, how: str
) -> None:
    """Barge-in: whatever the script is busy with, it is over within 50 ms in the best of five."""
    noticed = []
    for count in range(1, 6):
        line = ask(upstream, marker, steps)
        await upstream.wait_asked(marker, count=count)
        if how == "rst":
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        before = time.monotonic()
        line.close()
        record = (await upstream.wait_closed(marker, count=count))[-1]
        assert (record.closed_by, record.ended) == ("peer", None)
        noticed.append((record.closed or 0.0) - before)
    assert 0 <= min(noticed) < 0.05


async def test_a_wait_that_is_not_met_raises_and_shows_what_was_seen(upstream: Upstream, marker: str) -> None:
    """The test's mistake, or the finding it was written for."""
    line = ask(upstream, marker, script.never_answers())

    with pytest.raises(TimeoutError, match=r"not within 0\.02 s.*never|not within 0\.02 s.*POST"):
        await upstream.wait_closed(marker, within=0.02)
    assert [record.closed for record in upstream.seen(marker, until="now")] == [None]
    assert upstream.seen("nobody") == []
    line.close()


async def test_five_hundred_streams_run_at_once(upstream: Upstream, marker: str) -> None:
    """Each has a connection of its own and ends whole."""
    sent = request_of({"connection": "close"}, user=marker, script=script.events(script.says("One two.", every=0.05)))

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(sent)
        heard = await reader.read()
        writer.close()
        return heard

    heard = await asyncio.gather(*(talk() for _ in range(500)))
    assert all(b"[DONE]" in one and one.endswith(b"0\r\n\r\n") for one in heard)
    assert len(await upstream.wait_settled(marker, count=500)) == 500


def test_two_models_are_listed_and_other_paths_are_not_found(upstream: Upstream) -> None:
    """A client warms its connection up with GET /v1/models."""
    line = connect(upstream.port)
    line.sendall(
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\nGET /v1/nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )

    models, missing = hear(line).split(b"HTTP/1.1 ")[1:]
    assert [model["id"] for model in json.loads(models.split(b"\r\n\r\n")[1])["data"]] == ["scripted", "scripted-mini"]
    assert missing.startswith(b"404 Not Found\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET  /v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxyz",
    ],
)
def test_bad_http_is_refused_and_the_connection_closed(upstream: Upstream, sent: bytes) -> None:
    """Our own client is the one that would send it."""
    line = connect(upstream.port)
    line.sendall(sent)
    assert hear(line).startswith(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n")


# --- the process ----------------------------------------------------------------------------------


async def test_a_reset_and_a_barge_in_work_under_tls(marker: str, tmp_path: Path) -> None:
    """Real providers are TLS; the certificate is the test's own."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    with Upstream.start(tls=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as upstream:
        assert upstream.base_url == f"https://127.0.0.1:{upstream.port}/v1"
        with context.wrap_socket(connect(upstream.port), server_hostname="127.0.0.1") as line:
            line.sendall(request_of(user=marker, script=script.events(script.says("Hello " * 5_000))))
            assert hear(line, b"0\r\n\r\n").count(b"Hello") == 5_000
            line.sendall(request_of(user=marker, script=script.resets_after("Hello")))
            hear(line, b'"chatcmpl-script"')
            with pytest.raises(ConnectionResetError):
                socket.socket.recv(line, 1)  # below TLS: OpenSSL calls a reset an end
        with context.wrap_socket(connect(upstream.port), server_hostname="127.0.0.1") as line:
            line.sendall(request_of(user=f"{marker} 2", script=script.stalls_after("Hello")))
            hear(line, b"\r\n\r\n")
        assert (await upstream.wait_closed(f"{marker} 2"))[0].closed_by == "peer"


def test_a_process_ends_with_the_one_that_started_it() -> None:
    """The test run is killed; nothing may stay behind. Their common stderr ends when both have ended."""
    start = "import os; from firstword.testing import Upstream; print(Upstream.start().port, flush=True); os._exit(1)"
    starter = subprocess.run([sys.executable, "-c", start], capture_output=True, timeout=PATIENCE, check=False)

    assert starter.stderr == b""
    with pytest.raises(ConnectionRefusedError):
        connect(int(starter.stdout))


def test_a_process_that_cannot_start_says_so() -> None:
    """The certificate is not there."""
    with pytest.raises(RuntimeError, match="ended with 1 before it served"):
        Upstream.start(tls=("/no/cert.pem", "/no/key.pem"))


def test_importing_the_package_brings_neither_pytest_nor_the_server() -> None:
    """It ships to users, who import it in their own tests."""
    program = "import sys, firstword.testing\nprint({'pytest', 'firstword.testing.upstream'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"set()\n"
