"""What two readers of HTTP may cut differently, and what becomes of it here: a table, one attempt a row.

Each row is the bytes of one connection, the statuses that answer them, and the requests that the App sees. After a row
that `stays`, the connection must answer one more request; after any other one it is closed. Where a row is answered at
all, it is as RFC 9112 reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

GOOD = b'{"model":"demo","messages":[{"role":"user","content":"Hi"}]}'
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"  # bytes of a body that must never be read as a request
TURN = "POST /chat/completions"
PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """One attempt."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    seen: tuple[str, ...] = ()
    stays: bool = False


def post(*lines: bytes, body: bytes = GOOD, target: bytes = b"/chat/completions", version: bytes = b"1.1") -> bytes:
    """Return a POST with these header lines, and a body as it is."""
    return b"\r\n".join([b"POST %b HTTP/%b" % (target, version), b"Host: localhost", *lines]) + b"\r\n\r\n" + body


def get(*lines: bytes) -> bytes:
    """Return a GET of /health with these header lines."""
    return b"\r\n".join([b"GET /health HTTP/1.1", b"Host: localhost", *lines]) + b"\r\n\r\n"


def chunked(body: bytes) -> bytes:
    """Return a body in one chunk."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


LENGTH = b"Content-Length: %d" % len(GOOD)
CHUNKED = b"Transfer-Encoding: chunked"
BODY = chunked(GOOD)


def answered(name: str, sent: bytes, *seen: str, status: int = 200) -> Row:
    """A row that is answered once, after which the connection goes on."""
    return Row(name, sent, (status,), seen or (TURN,), stays=True)


def refused(name: str, sent: bytes, status: int = 400) -> Row:
    """A row that is refused before any App hears of it."""
    return Row(name, sent, (status,))


def _lengths() -> list[Row]:
    size = len(GOOD)
    bad = {
        "a plus": b"+%d" % size,
        "a minus": b"-%d" % size,
        "hex": b"0x%x" % size,
        "a list of equals": b"%d, %d" % (size, size),
        "a list of others": b"%d, 0" % size,
        "a space within": b"%d %d" % (size // 10, size % 10),
        "a fraction": b"%d.0" % size,
        "an exponent": b"6e1",
        "an underscore": b"%d_%d" % (size // 10, size % 10),
        "nothing": b"",
        "a word": b"many",
        "2 to the 64th": b"18446744073709551616",
        "2 to the 64th and the true one": b"%d" % (2**64 + size),
        "a quote": b'"%d"' % size,
        "a NUL": b"%d\0" % size,
        "a vertical tab": b"\x0b%d" % size,
        "a form feed": b"%d\x0c" % size,
        "a superscript": "²".encode("latin-1"),
    }
    good = {
        "leading zeros": b"00%d" % size,
        "many zeros": b"0" * 30 + b"%d" % size,
        "blanks around": b" \t%d \t" % size,
    }
    return [
        *(refused(f"Content-Length: {name}", post(b"Content-Length: " + value)) for name, value in bad.items()),
        *(answered(f"Content-Length: {name}", post(b"Content-Length: " + value)) for name, value in good.items()),
        refused("Content-Length twice, different", post(LENGTH, b"Content-Length: 0")),
        refused("Content-Length twice, different, the other way", post(b"Content-Length: 0", LENGTH)),
        refused("Content-Length twice, equal", post(LENGTH, LENGTH)),
        answered("Content-Length: 0 and a request behind it", post(b"Content-Length: 0", body=b""), status=400),
        answered("no length: there is no body", post(body=b""), status=400),
        Row("a body that nobody announced", post(body=GOOD), (400, 400), (TURN,)),
        Row(
            "a length that is too short",
            post(b"Content-Length: %d" % (size - 3)),
            (400, 400),
            (TURN,),
        ),
        answered("a request within a body", post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN), status=400),
        answered(
            "GET with a body that is a request",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
            "GET /health",
        ),
    ]


def _encodings() -> list[Row]:
    names = {
        "xchunked": b"Transfer-Encoding: xchunked",
        "chunked in quotes": b'Transfer-Encoding: "chunked"',
        "chunked, identity": b"Transfer-Encoding: chunked, identity",
        "identity": b"Transfer-Encoding: identity",
        "gzip": b"Transfer-Encoding: gzip",
        "chunked;x=1": b"Transfer-Encoding: chunked;x=1",
        "nothing": b"Transfer-Encoding:",
        "chunked twice in a list": b"Transfer-Encoding: chunked, chunked",
        "a comma before": b"Transfer-Encoding: ,chunked",
        "a vertical tab before": b"Transfer-Encoding:\x0bchunked",
        "a vertical tab behind": b"Transfer-Encoding: chunked\x0b",
        "a form feed before": b"Transfer-Encoding:\x0cchunked",
        "a NUL behind": b"Transfer-Encoding: chunked\0",
        "a bare CR before": b"Transfer-Encoding:\rchunked",
        "a bare CR behind": b"Transfer-Encoding: chunked\r",
        "a space before the colon": b"Transfer-Encoding : chunked",
        "a tab before the colon": b"Transfer-Encoding\t: chunked",
        "a space before the name": b" Transfer-Encoding: chunked",
        "a NUL in the name": b"Transfer\0-Encoding: chunked",
        "obs-fold": b"Transfer-Encoding:\r\n chunked",
        "obs-fold with a tab": b"Transfer-Encoding:\r\n\tchunked",
        "obs-fold behind": b"Transfer-Encoding: chunked\r\n , identity",
        "no-break space": b"Transfer-Encoding: \xa0chunked",
        "gzip, chunked": b"Transfer-Encoding: gzip, chunked",
        "identity, chunked": b"Transfer-Encoding: identity, chunked",
    }
    two = {
        "chunked and identity": (CHUNKED, b"Transfer-Encoding: identity"),
        "identity and chunked": (b"Transfer-Encoding: identity", CHUNKED),
        "chunked and xchunked": (CHUNKED, b"Transfer-Encoding: xchunked"),
        "xchunked and chunked": (b"Transfer-Encoding: xchunked", CHUNKED),
        "chunked twice": (CHUNKED, CHUNKED),
        "chunked and nothing": (CHUNKED, b"Transfer-Encoding:"),
    }
    hidden = chunked(GOOD) + HIDDEN
    return [
        *(refused(f"Transfer-Encoding: {name}", post(line, body=BODY)) for name, line in names.items()),
        *(refused(f"Transfer-Encoding twice: {name}", post(*lines, body=BODY)) for name, lines in two.items()),
        Row(
            "Transfer_Encoding, which is another name",
            post(b"Transfer_Encoding: chunked", body=BODY),
            (400, 400),
            (TURN,),
        ),
        answered("Transfer-Encoding: CHUNKED", post(b"TRANSFER-encoding: CHUNKED", body=BODY)),
        answered("Transfer-Encoding: blanks around", post(b"Transfer-Encoding: \t chunked", body=BODY)),
        refused("CL.TE", post(b"Content-Length: %d" % len(hidden), CHUNKED, body=hidden)),
        refused("TE.CL", post(CHUNKED, b"Content-Length: 4", body=BODY)),
        refused("CL.TE, obfuscated", post(LENGTH, b"Transfer-Encoding: xchunked")),
        refused("CL.TE, a space before the colon", post(LENGTH, b"Transfer-Encoding : chunked")),
        refused("CL.TE, an equal length", post(b"Content-Length: %d" % len(BODY), CHUNKED, body=BODY)),
        refused("CL.TE of zero", post(b"Content-Length: 0", CHUNKED, body=BODY)),
        refused(
            "GET, CL.TE",
            get(b"Content-Length: 5", CHUNKED) + b"0\r\n\r\n",
        ),
    ]


def _chunks() -> list[Row]:
    size = len(GOOD)
    bad = {
        "a negative size": b"-%x\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "a plus": b"+%x\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "0x": b"0x%x\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "an overflow": b"1%016x\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "a size of 2 to the 64th": b"FFFFFFFFFFFFFFFFF\r\n" + GOOD,
        "a space before": b" %x\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "no size": b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
        "no size but an extension": b";x\r\n" + GOOD + b"\r\n0\r\n\r\n",
        "an underscore": b"3_c\r\n" + GOOD + b"\r\n0\r\n\r\n",
        "a bare LF behind the size": b"%x\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "a bare CR behind the size": b"%x\r" % size + GOOD + b"\r\n0\r\n\r\n",
        "a bare LF behind the data": b"%x\r\n" % size + GOOD + b"\n0\r\n\r\n",
        "a bare LF behind the last": b"%x\r\n" % size + GOOD + b"\r\n0\n\n",
        "a bare LF in an extension": b"%x;a\nb\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "a NUL in an extension": b"%x;a\0b\r\n" % size + GOOD + b"\r\n0\r\n\r\n",
        "more data than said": b"%x\r\n" % (size - 1) + GOOD + b"\r\n0\r\n\r\n",
        "less data than said": b"%x\r\n" % (size + 1) + GOOD + b"\r\n0\r\n\r\n",
        "the end without a line break": b"%x\r\n" % size + GOOD + b"0\r\n\r\n",
        "a trailer that says a length": b"%x\r\n" % size + GOOD + b"\r\n0\r\nContent-Length: 10\r\n\r\n",
        "a trailer that says an encoding": b"%x\r\n" % size + GOOD + b"\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
        "a trailer with a space before the colon": b"%x\r\n" % size + GOOD + b"\r\n0\r\nx : y\r\n\r\n",
    }
    return [
        *(Row(f"chunk: {name}", post(CHUNKED, body=body), (400,), (TURN,)) for name, body in bad.items()),
        answered("chunk: leading zeros", post(CHUNKED, body=b"000%x\r\n" % size + GOOD + b"\r\n000\r\n\r\n")),
        answered("chunk: capitals", post(CHUNKED, body=b"%X\r\n" % size + GOOD + b"\r\n0\r\n\r\n")),
        answered("chunk: an extension", post(CHUNKED, body=b'%x;a=b;c="d"\r\n' % size + GOOD + b"\r\n0;e\r\n\r\n")),
        answered("chunk: a trailer", post(CHUNKED, body=b"%x\r\n" % size + GOOD + b"\r\n0\r\nx-sum: 1\r\n\r\n")),
        answered("chunk: a request within", post(CHUNKED, body=chunked(HIDDEN)), status=400),
    ]


_HOST = b"Host: localhost"
_ASK = b"GET /health HTTP/1.1"


def raw(*lines: bytes, line: bytes = _ASK, end: bytes = b"\r\n") -> bytes:
    """Return a head without anything added to it."""
    return end.join([line, *lines]) + end + end


_BAD_HEADS = {
    "bare LF": raw(_HOST, end=b"\n"),
    "bare LF behind the request line": _ASK + b"\n" + _HOST + b"\r\n\r\n",
    "bare LF behind a header": _ASK + b"\r\n" + _HOST + b"\nx: y\r\n\r\n",
    "bare LF at the end": _ASK + b"\r\n" + _HOST + b"\r\n\n",
    "bare CR": raw(_HOST, end=b"\r"),
    "bare CR in a value": raw(_HOST, b"x: a\rb"),
    "NUL in a name": raw(_HOST, b"x\0y: a"),
    "NUL in a value": raw(_HOST, b"x: a\0b"),
    "space before the colon": raw(_HOST, b"x : y"),
    "space in a name": raw(_HOST, b"x y: z"),
    "no colon": raw(_HOST, b"x"),
    "an empty name": raw(_HOST, b": x"),
    "a control character in a name": raw(_HOST, b"x\x01: y"),
    "a byte over 127 in a name": raw(_HOST, b"x\xe9: y"),
    "obs-fold": raw(_HOST, b"x: a\r\n b"),
    "a first header that begins with a space": raw(b" x: y", _HOST),
    "no Host": raw(),
    "two Hosts": raw(_HOST, b"Host: example.com"),
    "two equal Hosts": raw(_HOST, _HOST),
    "HTTP/0.9 with a host": b"GET /health\r\nHost: localhost\r\n\r\n",
    "HTTP/1.2": raw(_HOST, line=b"GET /health HTTP/1.2"),
    "HTTP/2.0": raw(_HOST, line=b"GET /health HTTP/2.0"),
    "HTTP/11": raw(_HOST, line=b"GET /health HTTP/11"),
    "HTTP/1.10": raw(_HOST, line=b"GET /health HTTP/1.10"),
    "http/1.1": raw(_HOST, line=b"GET /health http/1.1"),
    "HTTP/1.1 and a word": raw(_HOST, line=b"GET /health HTTP/1.1 x"),
    "no version": raw(_HOST, line=b"GET /health "),
    "a tab behind the method": raw(_HOST, line=b"GET\t/health HTTP/1.1"),
    "a tab before the version": raw(_HOST, line=b"GET /health\tHTTP/1.1"),
    "a space before the method": raw(_HOST, line=b" GET /health HTTP/1.1"),
    "a method in small letters": raw(_HOST, line=b"get /health HTTP/1.1"),
    "a method that nobody knows": raw(_HOST, line=b"BREW /health HTTP/1.1"),
    "a target with a space": raw(_HOST, line=b"GET /he alth HTTP/1.1"),
    "a target with a NUL": raw(_HOST, line=b"GET /he\0alth HTTP/1.1"),
    "a target with a byte over 127": raw(_HOST, line=b"GET /h\xc3\xa9 HTTP/1.1"),
    "a target with a control character": raw(_HOST, line=b"GET /h\x01 HTTP/1.1"),
    "a target with a fragment": raw(_HOST, line=b"GET /health#x HTTP/1.1"),
    "a target without a slash": raw(_HOST, line=b"GET health HTTP/1.1"),
    "authority-form": raw(_HOST, line=b"GET localhost:80 HTTP/1.1"),
    "CONNECT": raw(_HOST, line=b"CONNECT localhost:80 HTTP/1.1"),
    "absolute-form of another scheme": raw(_HOST, line=b"GET ftp://localhost/health HTTP/1.1"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS": bytes.fromhex("16030102000100 01fc0303".replace(" ", "")) + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + raw(_HOST),
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "zeros": bytes(100),
}


def _heads() -> list[Row]:
    health = "GET /health"
    return [
        *(refused(f"head: {name}", sent) for name, sent in _BAD_HEADS.items()),
        answered("head: empty lines before", b"\r\n\r\n" + raw(_HOST), health),
        answered("head: obs-text in a value", raw(_HOST, b"x: \xe9\xff"), health),
        answered("head: an empty value", raw(_HOST, b"x:"), health),
        answered("head: tabs in a value", raw(_HOST, b"x:\ta\tb\t"), health),
        answered("head: an empty Host", raw(b"Host:"), health),
        answered("absolute-form", raw(_HOST, line=b"GET http://localhost/health HTTP/1.1"), health),
        answered("absolute-form without a path", raw(_HOST, line=b"GET http://localhost HTTP/1.1"), "GET /"),
        answered("absolute-form of a turn", post(LENGTH, target=b"http://localhost/chat/completions"), TURN),
        answered("OPTIONS *", raw(_HOST, line=b"OPTIONS * HTTP/1.1"), "OPTIONS *", status=404),
        answered("head: two spaces before the target", raw(_HOST, line=b"GET  /health HTTP/1.1"), health),
        Row("head: HTTP/0.9", b"GET /health\r\n", ()),
        Row("head: ICE/1.0", raw(_HOST, line=b"SOURCE /health ICE/1.0"), (405,), ("SOURCE /health",)),
        Row("head: RTSP/1.0", raw(_HOST, line=b"DESCRIBE /health RTSP/1.0"), (405,), ("DESCRIBE /health",)),
        Row("HTTP/1.0", raw(line=b"GET /health HTTP/1.0"), (200,), (health,)),
        Row(
            "HTTP/1.0 and keep-alive, two requests",
            raw(b"Connection: keep-alive", line=b"GET /health HTTP/1.0") * 2,
            (200,),
            (health,),
        ),
        Row("HTTP/1.0 with Transfer-Encoding", post(CHUNKED, body=BODY, version=b"1.0"), (400,)),
    ]


def _paths() -> list[Row]:
    turns = {
        b"//chat/completions": "//chat/completions",
        b"/chat//completions": "/chat//completions",
        b"/chat/completions/": "/chat/completions/",
        b"/chat%2fcompletions": "/chat/completions",
        b"/chat/completion%73": "/chat/completions",
        b"/chat/completions?": "/chat/completions",
        b"/chat/completions?a=/../b": "/chat/completions",
        b"/s/a+b/chat/completions": "/s/a+b/chat/completions",
        b"/s/%C3%A9/chat/completions": "/s/\u00e9/chat/completions",
        b"http://localhost/chat/completions?x=1": "/chat/completions",
        b"HTTP://LOCALHOST/chat/completions": "/chat/completions",
    }
    nothing = {
        b"/x/../chat/completions": "/x/../chat/completions",
        b"/s/../chat/completions": "/s/../chat/completions",
        b"/s/%2e%2e/chat/completions": "/s/../chat/completions",
        b"/chat/./completions": "/chat/./completions",
        b"/chat/completions;x=1": "/chat/completions;x=1",
        b"/chat/completions/..;/health": "/chat/completions/..;/health",
        b"/chat/completions%00": "/chat/completions\0",
        b"/chat%252fcompletions": "/chat%2fcompletions",
        b"/CHAT/COMPLETIONS": "/CHAT/COMPLETIONS",
        b"/chat/completions%zz": "/chat/completions%zz",
        b"/chat\\completions": "/chat\\completions",
        b"/s/a%2fb/chat/completions": "/s/a/b/chat/completions",
        b"//evil:80/chat/completions": "//evil:80/chat/completions",
        b"//evil@x/chat/completions": "//evil@x/chat/completions",
        b"/http://x/chat/completions": "/http://x/chat/completions",
    }
    refusals = [
        b"\\chat\\completions",
        b"chat/completions",
        b"*/chat/completions",
        b"?",
        b"/chat/completions#x",
        b"/nowhere#/chat/completions",
        b"/chat/completions?x#y",
        b"/s/\xc3\xa9/chat/completions",
        b"http://user@localhost/chat/completions",
        b"http://example.com/chat/completions",
        b"http://localhost:80/chat/completions",
        b"http:///chat/completions",
        b"http:/chat/completions",
        b"file:///chat/completions",
    ]
    rows = []
    for way, line, body in (
        ("", LENGTH, GOOD),
        (" in chunks", CHUNKED, BODY),
    ):  # of the first, our own protocol decides
        for target, path in turns.items():
            rows.append(answered(f"path: {target!r}{way}", post(line, body=body, target=target), f"POST {path}"))
        for target, path in nothing.items():
            sent = post(line, body=body, target=target)
            rows.append(answered(f"path: {target!r}{way}", sent, f"POST {path}", status=404))
        rows += [refused(f"path: {target!r}{way}", post(line, body=body, target=target)) for target in refusals]
    return rows


def _connections() -> list[Row]:
    h2c = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    websocket = (b"Connection: Upgrade", b"Upgrade: websocket")
    turn, health = post(LENGTH), ("GET /health", "GET /hidden")
    return [
        Row("two requests at once", turn + turn, (200, 200), (TURN, TURN), stays=True),
        Row("a request, and what is none", turn + b"\x16\x03\x01", (200, 400), (TURN,)),
        Row("a request, and one with two lengths", turn + post(LENGTH, LENGTH), (200, 400), (TURN,)),
        Row(
            "a bad body, and a request",
            post(b"Content-Length: 2", body=b"{]") + turn,
            (400, 200),
            (TURN, TURN),
            stays=True,
        ),
        Row("what is none, and a request", b"\x16\x03\x01\r\n\r\n" + turn, (400,)),
        Row("two lengths, and a request", post(LENGTH, LENGTH) + turn, (400,)),
        Row("a body in bad chunks, and a request", post(CHUNKED, body=b"oh\r\n") + turn, (400,), (TURN,)),
        Row("close, and a request", post(LENGTH, b"Connection: close") + HIDDEN, (200,), (TURN,)),
        Row("GET and close, and a request", get(b"Connection: close") + HIDDEN, (200,), ("GET /health",)),
        Row("Expect: 100-continue", post(LENGTH, b"Expect: 100-continue"), (100, 200), (TURN,), stays=True),
        answered("Expect: something else", post(LENGTH, b"Expect: 200-ok")),
        answered("Upgrade: h2c", post(*h2c, LENGTH)),
        answered("Upgrade: h2c, in chunks", post(*h2c, CHUNKED, body=BODY)),
        Row("Upgrade: h2c and no body, and a request", get(*h2c) + HIDDEN, (200, 404), health, stays=True),
        Row("Upgrade: websocket, and a request", get(*websocket) + HIDDEN, (200, 404), health, stays=True),
        refused("Upgrade: h2c and two lengths", post(*h2c, LENGTH, LENGTH)),
        refused("Upgrade: h2c and CL.TE", post(*h2c, LENGTH, CHUNKED)),
    ]


ROWS = [*_lengths(), *_encodings(), *_chunks(), *_heads(), *_paths(), *_connections()]
