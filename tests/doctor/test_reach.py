"""Whether there is a custom LLM at a URL: names, ports, certificates, tunnels, paths. Real sockets, real handshakes."""

from __future__ import annotations

import asyncio
import datetime
import errno
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from sick import KEY, PATH, Fault, Reply, Request, Sick, document, error, well

from firstword.doctor import Examination, Patient, chosen, examine
from firstword.doctor.reach import judge_address, judge_certificate, judge_connection

NOW = datetime.datetime.now(datetime.timezone.utc)
PAGE = "<!DOCTYPE html><html><body>{}</body></html>"


async def reached(url: str, **more: Any) -> Examination:
    """Reach a server, and make no other check."""
    is_insecure = more.pop("is_insecure", False)
    return await examine(
        Patient(url, **{"key": KEY, "model": "m1", "timeout": 3.0, **more}), [], is_insecure=is_insecure
    )


def faults(found: Examination) -> list[str]:
    return [each.fault.name for each in found.findings if each.fault and each.fault.name != "private-address"]


def page(words: str, status: int = 200, **headers: str) -> Reply:
    """Show a page for a browser."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return document(PAGE.format(words), status, **{"content-type": "text/html; charset=utf-8", **named})


def moved(status: int, location: str) -> Reply:
    return Reply(status, {"location": location}, [], "length")


def always(reply: Reply | None) -> Fault:
    return lambda request, good: reply


def at(path: str) -> Fault:
    """Serve at another path only."""

    def fault(request: Request, reply: Reply) -> Reply:
        from sick import healthy

        return healthy(replace(request, path=PATH)) if request.path == path else error(404)

    return fault


NOBODY = [
    ("redirects", always(moved(307, "https://example.com/elsewhere?token=secret"))),
    ("private-port", always(moved(302, "https://github.dev/pf-signin?id=7"))),
    ("private-port", always(page("Sign in", 401))),
    ("tunnel-page", always(page("You are about to visit a site served by ngrok", 200))),
    ("tunnel-page", always(document("not found", 404, **{"ngrok-error-code": "ERR_NGROK_3200"}))),
    ("tunnel-page", always(page("cloudflare: error 1033", 530))),
    ("web-page", always(page("Welcome to nginx!"))),
    ("no-path", always(error(404))),
    ("no-path", always(error(405))),
    ("no-answer", always(None)),
    ("no-answer", always(Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"))),
]
REFUSED = [
    ("key-wanted", always(error(401))),
    ("refuses-the-simplest", always(error(400))),
    ("refuses-the-simplest", always(error(503))),
]


@pytest.mark.parametrize(("name", "fault"), NOBODY, ids=[f"{at}-{name}" for at, (name, _) in enumerate(NOBODY)])
async def test_what_is_no_custom_llm_ends_the_examination(name: str, fault: Fault) -> None:
    """Something answers, or hangs up, and it is no custom LLM: code 2, and no further request."""
    async with Sick(fault) as server:
        found = await examine(Patient(server.url, key=KEY, timeout=3.0), chosen())
        assert faults(found) == [name]
        assert (found.code, found.reached) == (2, False)
        assert found.requests == len(server.requests) <= 3
        assert "secret" not in str(found.findings)


@pytest.mark.parametrize(("name", "fault"), REFUSED)
async def test_a_server_that_refuses_the_simplest_turn_is_asked_nothing_else(name: str, fault: Fault) -> None:
    """It is there, so the code is 1; forty more refusals would tell nothing new."""
    async with Sick(fault) as server:
        found = await examine(Patient(server.url, key=KEY), chosen())
        assert (faults(found), found.code, len(server.requests)) == ([name], 1, 1)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_the_path_that_answers_is_found_and_examined(path: str) -> None:
    """The URL lacks its path, or has the wrong one: the doctor says which one is right, and goes on with it."""
    async with Sick(at(path)) as server:
        found = await examine(Patient(f"http://127.0.0.1:{server.port}/llm", key=KEY, model="m1"), chosen(["blank"]))
        assert faults(found) == ["wrong-path"]
        assert f"POST {path} answers" in next(
            each.seen for each in found.findings if each.fault and each.seen[:6] == "status"
        )
        assert [each.check for each in found.findings if each.fault is None] == ["reach", "blank"]
        assert server.requests[-1].path == path


@pytest.mark.parametrize(("refusal", "name"), [(401, "key-wanted"), (400, "refuses-the-simplest")])
async def test_a_path_that_refuses_the_turn_is_there_all_the_same(refusal: int, name: str) -> None:
    """The URL has no path, and the right one wants a key or a model's name: both faults are told."""

    def refuses(request: Request, reply: Reply) -> Reply:
        return error(refusal if request.path == "/chat/completions" else 404)

    async with Sick(refuses) as server:
        found = await examine(Patient(f"http://127.0.0.1:{server.port}", key=KEY), chosen())
        assert (faults(found), found.code, found.reached) == (["wrong-path", name], 1, True)


async def test_old_http_is_told() -> None:
    """A server of the last century."""

    def old(request: Request, reply: Reply) -> Reply:
        return replace(reply, version="1.0", framing="close", headers=dict(reply.headers))

    async with Sick(old) as server:
        assert faults(await reached(server.url)) == ["old-http"]


async def test_nobody_listens() -> None:
    """The server is not running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await reached(f"http://127.0.0.1:{taken.getsockname()[1]}{PATH}")
    assert (faults(found), found.code, found.requests) == (["connection-refused"], 2, 0)


@pytest.mark.parametrize("host", ["nobody.invalid", f"{'a' * 70}.example", "a..b"])
async def test_a_name_without_an_address_is_told(host: str) -> None:
    """A typing error, or a tunnel that was started anew."""
    assert faults(await reached(f"http://{host}{PATH}")) == ["no-such-host"]


@pytest.mark.parametrize(
    ("url", "addresses", "said"),
    [
        ("http://llm.example.com/x", ["93.184.215.14"], ["plain-http"]),
        ("https://llm.example.com/x", ["93.184.215.14"], []),
        ("https://llm.example.com/x", ["10.0.0.7"], ["private-address"]),
        ("http://localhost:8000/x", ["::1", "127.0.0.1"], ["private-address"]),
        ("https://llm.example.com/x", ["10.0.0.7", "2606:2800:21f:cb07::1"], []),
    ],
)
def test_an_engine_in_the_cloud_needs_a_public_address(url: str, addresses: list[str], said: list[str]) -> None:
    """What the name's addresses say; keys over plain http are told only where it is public."""
    assert [each.fault.name for each in judge_address(url, addresses) if each.fault] == said


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (asyncio.TimeoutError(), "unreachable"),
        (OSError(113, "No route to host"), "unreachable"),
        (OSError(f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] ('::1', 8000), ..."), "connection-refused"),
    ],
)
def test_a_network_that_says_nothing_is_told(error: Exception, name: str) -> None:
    """A firewall drops what it does not like; no test can make a real one do so."""
    finding = judge_connection(error)
    assert finding.fault and finding.fault.name == name


# --- TLS ------------------------------------------------------------------------------------------


class Certificates:
    """An authority that the doctor trusts, and certificates of many kinds."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    @property
    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def good(self) -> trustme.LeafCert:
        return self.authority.issue_cert("127.0.0.1")

    def soon(self) -> trustme.LeafCert:
        return self.authority.issue_cert("127.0.0.1", not_after=NOW + datetime.timedelta(days=3))

    def expired(self) -> trustme.LeafCert:
        old = NOW - datetime.timedelta(days=9)
        return self.authority.issue_cert("127.0.0.1", not_before=old, not_after=NOW - datetime.timedelta(days=2))

    def early(self) -> trustme.LeafCert:
        return self.authority.issue_cert("127.0.0.1", not_before=NOW + datetime.timedelta(days=2))

    def other(self) -> trustme.LeafCert:
        return self.authority.issue_cert("llm.example.com")

    def own(self) -> trustme.LeafCert:
        return trustme.CA().issue_cert("127.0.0.1")

    def incomplete(self) -> trustme.LeafCert:
        return self.authority.create_child_ca().issue_cert("127.0.0.1")


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def side(leaf: trustme.LeafCert, *, is_whole: bool = True) -> ssl.SSLContext:
    """Return a server's side of TLS; without the certificates between when it is not whole."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if is_whole:
        leaf.configure_cert(context)
    else:
        with leaf.private_key_pem.tempfile() as key, leaf.cert_chain_pems[0].tempfile() as certificate:
            context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("good", []),
        ("soon", ["certificate-expires"]),
        ("expired", ["certificate-expired"]),
        ("early", ["certificate-expired"]),
        ("other", ["certificate-name"]),
        ("own", ["certificate-chain"]),
        ("incomplete", ["certificate-chain"]),
    ],
)
async def test_each_kind_of_certificate_is_told(kind: str, said: list[str], certificates: Certificates) -> None:
    """What an engine's handshake would stumble over, with a real one."""
    leaf = getattr(certificates, kind)()
    async with Sick(well, tls=side(leaf, is_whole=kind != "incomplete")) as server:
        found = await reached(server.url, trust=certificates.trust)
        assert (faults(found), found.code) == (said, 2 if said and said != ["certificate-expires"] else 0)


async def test_a_certificate_signed_by_itself_is_told(certificates: Certificates) -> None:
    """The server's authority is its own, and it sends that one too."""
    leaf = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = leaf.issue_cert("127.0.0.1")
    with issued.private_key_pem.tempfile() as key, issued.cert_chain_pems[0].tempfile() as chain:
        with Path(chain).open("ab") as file:
            file.write(leaf.cert_pem.bytes())
        context.load_cert_chain(chain, key)
    async with Sick(well, tls=context) as server:
        assert faults(await reached(server.url, trust=certificates.trust)) == ["certificate-self-signed"]


async def test_insecure_tells_the_certificate_and_goes_on(certificates: Certificates) -> None:
    """The operator knows that the certificate is not valid yet, and wants to see the rest."""
    async with Sick(well, tls=side(certificates.expired())) as server:
        found = await reached(server.url, trust=certificates.trust, is_insecure=True)
        assert (faults(found), found.code, len(server.requests)) == (["certificate-expired"], 1, 1)


async def test_https_to_a_plain_port_and_http_to_one_with_tls(certificates: Certificates) -> None:
    """The scheme and the port do not go together."""
    async with Sick(well) as plain, Sick(well, tls=side(certificates.good())) as secure:
        to_plain = await reached(plain.url.replace("http:", "https:"), trust=certificates.trust)
        to_secure = await reached(secure.url.replace("https:", "http:"))
        sent = [request.headers for request in plain.requests if request.method == "POST"]
    assert (faults(to_plain), faults(to_secure)) == (["no-tls"], ["wants-tls"])
    assert sent and not any("authorization" in headers for headers in sent)  # a key for TLS is not sent without


async def test_a_handshake_that_fails_for_another_reason_is_told(certificates: Certificates) -> None:
    """The server speaks a version of TLS that we refuse."""
    context, trust = side(certificates.good()), certificates.trust
    context.maximum_version, trust.minimum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    async with Sick(well, tls=context) as server:
        assert faults(await reached(server.url, trust=trust)) == ["tls-failed"]


def test_a_certificate_that_nobody_looked_at_is_not_judged() -> None:
    """Without TLS there is none, and under --insecure it is empty."""
    assert judge_certificate(None, time.time()) == judge_certificate({}, time.time()) == []
