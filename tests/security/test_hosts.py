"""Whose name a request may say, and that nothing is decided by it, or by any other word on where it came from."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, Heard, turn
from conftest import ROOT
from served import Served

from firstword import App, ConfigError, Forbidden
from firstword.admission import Gate
from firstword.admission.hosts import Hosts
from firstword.errors import MisdirectedRequest
from firstword.hostnames import read_host
from firstword.testing import Upstream

Serve = Callable[[App], Served]


def says(*values: str, path: str = "/chat/completions") -> bool:
    """Return whether a server of these names takes a request with these Host headers."""
    hosts = Hosts(["voice.example.com", "*.example.org", "10.0.0.5", "[::1]"])
    try:
        hosts.check(path, [(b"host", value.encode("latin-1")) for value in values])
    except MisdirectedRequest as error:
        assert error.status == 421 and error.hint and not any(value and value in str(error) for value in values)
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "voice.example.com",
        "VOICE.example.com:8443",
        "voice.example.com.",
        "a.example.org",
        "a.b.example.org:1",
        "10.0.0.5:80",
        "[::1]:8000",
        "[0:0::1]",
    ],
)
def test_a_server_answers_to_its_names(host: str) -> None:
    """In any case, with a port and with the dot at the end."""
    assert says(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "example.com",
        "example.org",
        "evilexample.org",
        "voice.example.com.evil.example",
        "voice.example.com@evil.example",
        "evil.example/voice.example.com",
        "voice.example.com/x",
        "voice.example.com?x",
        "voice.example.com#x",
        "voice.example.com:80:80",
        "voice.example.com:http",
        "voice.example.com, evil.example",
        "voice.example.com evil.example",
        "voice.example.com\t",
        "*.example.org",
        ".example.org",
        "a..example.org",
        "10.0.0.05",
        "10.0.5",
        "[::1%eth0]",
        "[::1",
        "::1",
        "v\xf6ice.example.com",
        "localhost",
        "127.0.0.1",
    ],
)
def test_a_server_answers_to_no_other_name(host: str) -> None:
    """Rebound names, and whatever two readers could see differently."""
    assert not says(host)


def test_one_host_header_is_one() -> None:
    """With two, a proxy may have looked at the other one; HTTP/1.0 may have none."""
    assert not says() and not says("voice.example.com", "voice.example.com")


def test_probes_come_by_address() -> None:
    """What looks whether the server lives knows it by its address only, and learns nothing."""
    assert says("10.1.2.3:8000", path="/health") and says(path="/ready") and not says("10.1.2.3", path="/metrics")


@pytest.mark.parametrize("written", ["", "https://a.example", "a.example:8000", "a b", "*.", "a.*"])
def test_a_name_that_is_none_is_told_at_start(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL was pasted, or a comma is one too many."""
    monkeypatch.setenv("FIRSTWORD_HOSTS", f"fine.example,{written}")
    with pytest.raises(ConfigError, match="FIRSTWORD_HOSTS"):
        App()


@pytest.mark.parametrize("authority", ["a.b:80", "A.B", "[::1]", "10.0.0.1"])
def test_a_host_that_was_read_reads_the_same_again(authority: str) -> None:
    """What is compared has one form."""
    host = read_host(authority)
    assert host is not None and read_host(f"[{host}]" if ":" in host else host) == host


# --- over the wire --------------------------------------------------------------------------------


async def raw(port: int, data: bytes) -> Heard:
    """Send bytes as they are, and return the reply; the server is asked to close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    return Heard(status=int(head.split(b" ")[1]), body=body)


@pytest.fixture
def named(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("FIRSTWORD_HOSTS", "voice.example.com")
    return serve(App(base_url=upstream.base_url))


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/s/x/chat/completions", "/models", "/metrics", "/docs", "/", "/x"]
)
async def test_every_route_but_the_probes_is_closed_to_other_names(named: Served, path: str) -> None:
    """Turns, pages and what is not there; also where another header says a good name."""
    caller = Caller(named.url)
    method = "POST" if "chat" in path else "GET"
    for more in (
        {},
        {"x-forwarded-host": "voice.example.com"},
        {"forwarded": "host=voice.example.com"},
        {"x-host": "voice.example.com"},
    ):
        heard = await caller.hears(
            turn(model="demo", stream=False), path=path, method=method, headers={"host": "evil.example", **more}
        )
        assert (heard.status, heard.error["code"]) == (421, "misdirected_request")
    heard = await caller.hears(
        turn(model="demo", stream=False), path=path, method=method, headers={"host": "voice.example.com"}
    )
    assert heard.status != 421
    for probe in ("/health", "/ready"):
        assert (await caller.hears(path=probe, method="GET")).status == 200


async def test_a_target_with_a_name_in_it_is_no_way_round(named: Served) -> None:
    """`GET http://voice.example.com/metrics` with another name in the Host header, and the other way round."""
    for target, host, status in (
        ("http://voice.example.com/models", "evil.example", 400),
        ("http://evil.example/models", "voice.example.com", 400),
        ("http://evil.example/models", "evil.example", 421),
        ("http://voice.example.com/health", "evil.example", 400),
        ("//voice.example.com/models", "evil.example", 421),
    ):
        head = f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        assert (await raw(named.port, head.encode())).status == status, (target, host)


# --- nothing else is decided by names -------------------------------------------------------------

GUARDED = ["/chat/completions", "/v1/chat/completions", "/s/x/chat/completions", "/models", "/metrics"]


def spellings(path: str) -> list[str]:
    """Return other ways to write a path, as attackers do to get past a rule that reads it otherwise."""
    return [
        path.upper(),
        path.replace("/", "//"),
        path + "/",
        path + "//",
        path + ";x=1",
        path + "%00",
        path + "%20",
        path + "/.",
        path + "/../health",
        path.replace("m", "%6d"),
        path.replace("/", "%2f"),
        path.replace("/", "\\"),
        path.replace("m", "%256d"),
        "/." + path,
        "/health/.." + path,
        "/health/%2e%2e" + path,
        "/health;/.." + path,
        "/health%2f.." + path,
        "/health?" + path,
        "/health#" + path,
        "http://health/health/.." + path,
        path + "?x=/health",
    ]


@pytest.mark.parametrize("path", GUARDED)
async def test_no_spelling_of_a_path_gets_round_the_key(
    serve: Serve, upstream: Upstream, marker: str, path: str
) -> None:
    """BadHost and its like: the gate and the routes read one and the same path, and it is not a rebuilt URL."""
    served = serve(App(base_url=upstream.base_url, api_key="sk-held-by-the-server", keys=["gate"]))
    body = b'{"model":"m1","user":"%b","messages":[{"role":"user","content":"x"}]}' % marker.encode()
    for spelling in [path, *spellings(path)]:
        for method in ("POST", "GET"):
            for host in ("localhost", "localhost/health?", "localhost/health#", "a/../health"):
                head = f"{method} {spelling} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
                head += f"content-length: {len(body)}\r\nx-forwarded-prefix: /health\r\n"
                head += "x-original-url: /health\r\nx-rewrite-url: /health\r\n\r\n"
                heard = await raw(served.port, head.encode() + body)
                is_open = spelling.startswith("/health?") and method == "GET"
                assert heard.status in ((200,) if is_open else (400, 401, 404, 405)), (method, spelling, heard.status)
                if is_open:
                    assert heard.body.endswith(b'{"status":"ok"}')
    assert upstream.seen(marker) == []


def readers_of(*names: str) -> set[str]:
    """Return our files that have one of these texts, as a string or bytes, in their code."""
    wanted = {*names, *(name.encode() for name in names)}
    return {
        str(path.relative_to(ROOT / "src" / "firstword"))
        for path in (ROOT / "src" / "firstword").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and node.value in wanted
    }


def test_nobody_else_reads_where_a_request_says_that_it_goes() -> None:
    """Only the rooms that may refuse by it: no answer is ever made of a Host header, nor is a URL rebuilt."""
    # They send requests of their own; and what is told to an operator has a field of that name.
    callers = ("doctor/", "commands/", "engine/", "testing/", "tools/", "telemetry/")
    assert {each for each in readers_of("host") if not each.startswith(callers)} == {
        "admission/callers.py",
        "admission/hosts.py",
        "server/head.py",
    }
    assert (
        readers_of("x-forwarded-host", "x-original-url", "x-rewrite-url", "x-forwarded-prefix", "x-forwarded-proto")
        == set()
    )


# --- pages in a browser ---------------------------------------------------------------------------

SITE = {"origin": "https://evil.example", "content-type": "text/plain", "sec-fetch-site": "cross-site"}
LOCAL = ("127.0.0.1", 50000)


async def test_a_page_of_another_site_gets_no_leave_to_read(serve: Serve, upstream: Upstream) -> None:
    """A browser asks first whether the page may send a key, and hears no; no reply says who may read it."""
    caller = Caller(serve(App(base_url=upstream.base_url, keys=["gate"])).url)
    preflight = {**SITE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    heard = await caller.hears(method="OPTIONS", headers=preflight)
    assert heard.status == 405
    good = await caller.hears(turn(model="demo", stream=False), headers={**SITE, "authorization": "Bearer gate"})
    assert good.status == 200  # who has the key may use it: a page has it only from its own site
    for reply in (heard, good, await caller.hears(path="/models", method="GET", headers=SITE)):
        assert [name for name in reply.headers if name.startswith("access-control-")] == []


async def test_a_page_of_another_site_cannot_ask_in_the_name_of_this_machine(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """A browser posts plain text without asking. The server holds a key; or there is none, and tools would run."""
    for app in (App(base_url=upstream.base_url, api_key="sk-held-by-the-server"), App(base_url=upstream.base_url)):
        caller = Caller(serve(app).url)
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            heard = await caller.hears(turn(user=marker), headers={**SITE, "origin": origin})
            assert heard.status == 403, origin
        assert (await caller.hears(turn(model="demo", stream=False), headers={"origin": caller.url})).status == 200
    assert upstream.seen(marker) == []


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"host": "localhost:8000"}, LOCAL),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, LOCAL),
        ({"host": "voice.example.com"}, ("203.0.113.9", 1)),
        ({"host": "voice.example.com", "origin": "https://evil.example", "authorization": "Bearer sk-1"}, LOCAL),
    ],
)
def test_a_server_without_keys_serves_engines_and_its_own_pages(headers: dict[str, str], client: Any) -> None:
    """Engines have no Origin; a page that brings a key was allowed to, or is no page."""
    Gate([], holds_key=False, open_to_all=False).admit(headers, client)


def test_a_rebound_name_is_found_out_without_keys() -> None:
    """The page's name was made to lead to 127.0.0.1: its Origin is then the server's own name."""
    with pytest.raises(Forbidden, match="without a key"):
        Gate([], holds_key=False, open_to_all=False).admit(
            {"host": "evil.example", "origin": "http://evil.example"}, LOCAL
        )
    Gate([], holds_key=False, open_to_all=True).admit({"host": "evil.example", "origin": "http://evil.example"}, LOCAL)


async def test_replies_are_kept_by_nobody_and_read_as_what_they_are(serve: Serve, upstream: Upstream) -> None:
    """A cache, or a browser that guesses what a body is."""
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    for path in ("/health", "/ready", "/metrics", "/models", "/docs", "/openapi.json", "/x"):
        headers = (await caller.hears(path=path, method="GET")).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff"), path
    whole = await caller.hears(turn(model="demo", stream=False))
    assert (whole.headers["cache-control"], whole.headers["x-content-type-options"]) == ("no-store", "nosniff")
    streamed = await caller.says("Hello")
    assert streamed.headers["cache-control"] == "no-cache, no-transform"  # the reply to a POST, which no cache keeps
