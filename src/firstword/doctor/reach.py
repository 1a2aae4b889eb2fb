"""Is there a custom LLM at this URL? The name, the connection, TLS, the path, and the simplest turn.

Judgement of errors and of odd replies is pure; `reach` makes the calls.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ..addresses import may_reach
from .answers import NO_ANSWER, status_and_body
from .findings import Check, Fault, Finding, Level, ok
from .heard import Heard, short
from .patient import CONNECT_TIMEOUT, Line, Patient

CHAT_PATHS = ("/chat/completions", "/v1/chat/completions")
EXPIRES_SOON = 14 * 86_400.0  # seconds
HELLO = {"role": "user", "content": "Hello, how are you?"}

PRIVATE = Fault(
    "private-address",
    Level.ADVICE,
    "The address is of this machine or of a private network.",
    "Voice engines run in the cloud and cannot reach it: the agent starts and never speaks. For a test it is fine.",
    "Give the engine a public address: a server with a public name, a tunnel, or a forwarded port that is public.",
)
PLAIN = Fault(
    "plain-http",
    Level.WARNING,
    "The URL is http, not https.",
    "Keys and the words of your callers cross the Internet in the clear, and some engines refuse such a URL.",
    "Put TLS before the server, and give the engine the https URL.",
)
NO_SUCH_HOST = Fault(
    "no-such-host",
    Level.ERROR,
    "The host's name has no address.",
    "The engine finds nobody to call.",
    "Look for a typing error; a tunnel's name changes when it is started anew.",
)
REFUSED = Fault(
    "connection-refused",
    Level.ERROR,
    "The connection is refused.",
    "Nothing listens on this port, so the caller hears silence.",
    "Start the server, look at its port, and let it listen on 0.0.0.0 if others are to reach it.",
)
UNREACHABLE = Fault(
    "unreachable",
    Level.ERROR,
    "No connection can be made.",
    "The engine waits and gives up.",
    "Look at the firewall and the network between: a silent drop is a firewall's as a rule.",
)
EXPIRED = Fault(
    "certificate-expired",
    Level.ERROR,
    "The server's certificate has expired, or is not valid yet.",
    "Engines refuse the connection.",
    "Renew it, and see that the server loads the new one; look at the server's clock.",
)
WRONG_NAME = Fault(
    "certificate-name",
    Level.ERROR,
    "The server's certificate is for another name.",
    "Engines refuse the connection.",
    "Call the server by a name that stands in its certificate, or get one for this name.",
)
SELF_SIGNED = Fault(
    "certificate-self-signed",
    Level.ERROR,
    "The server's certificate is signed by itself, or by an authority of its own.",
    "Engines trust public authorities only, and refuse the connection.",
    "Get a certificate of a public authority (Let's Encrypt costs nothing), or use a tunnel that has one.",
)
CHAIN = Fault(
    "certificate-chain",
    Level.ERROR,
    "The server's certificate leads to no known authority: as a rule an intermediate certificate is not sent.",
    "Browsers fetch what is missing, engines do not: they refuse the connection.",
    "Let the server send the full chain (fullchain.pem, not cert.pem).",
)
EXPIRES = Fault(
    "certificate-expires",
    Level.WARNING,
    "The server's certificate expires within two weeks.",
    "On that day every call falls silent.",
    "Renew it, and let it renew itself.",
)
NO_TLS = Fault(
    "no-tls",
    Level.ERROR,
    "The URL is https, and the port does not speak TLS.",
    "The engine's handshake fails.",
    "Write http://, or put a proxy with TLS before the server.",
)
TLS_FAILED = Fault(
    "tls-failed",
    Level.ERROR,
    "The TLS handshake fails.",
    "The engine's handshake fails as well.",
    "Allow TLS 1.2 or 1.3, and see that the server knows this host's name.",
)
WANTS_TLS = Fault(
    "wants-tls",
    Level.ERROR,
    "The URL is http, and the port speaks TLS.",
    "The engine gets no reply that it can read.",
    "Write https://.",
)
OLD_HTTP = Fault(
    "old-http",
    Level.WARNING,
    "The server answers with HTTP/1.0.",
    "It cannot say where a stream ends, so a cut reply looks like a whole one, and each turn needs a new connection.",
    "Serve HTTP/1.1; in nginx, proxy_http_version 1.1.",
)
REDIRECTS = Fault(
    "redirects",
    Level.ERROR,
    "The server redirects to another address.",
    "Engines do not follow a redirect of a POST, or follow it as a GET without the body.",
    "Give the engine the address that it leads to.",
)
PRIVATE_PORT = Fault(
    "private-port",
    Level.ERROR,
    "The forwarded port asks for a login.",
    "The port is private, so the engine sees a login page and the agent never speaks.",
    "Make it public: in Codespaces, Ports, then Port Visibility, then Public. Look again after each restart.",
)
TUNNEL_PAGE = Fault(
    "tunnel-page",
    Level.ERROR,
    "A page of the tunnel's answers, and not your server.",
    "The engine cannot click a warning away. Or the tunnel is up and nothing runs behind it.",
    "Start the server and the tunnel; for a warning page, send the header that skips it, or use another tunnel.",
)
PAGE = Fault(
    "web-page",
    Level.ERROR,
    "A web page answers, and not an API.",
    "The caller hears silence.",
    "Look at the host and the port, and at what a proxy does with this path.",
)
WRONG_PATH = Fault(
    "wrong-path",
    Level.ERROR,
    "Nothing answers at this path, but another one does.",
    "Engines post to exactly the URL that they are given.",
    "Give the engine the URL with the other path.",
)
NO_PATH = Fault(
    "no-path",
    Level.ERROR,
    "Nothing answers POST here, nor at /chat/completions or /v1/chat/completions.",
    "The caller hears silence.",
    "Look at the server's routes, and give the engine the whole URL.",
)
KEY_WANTED = Fault(
    "key-wanted",
    Level.ERROR,
    "The server refuses the call for its key.",
    "With the same key, the engine is refused too, and speaks its failure message.",
    "Give the key with --key or FIRSTWORD_CHECK_KEY, as the engine's `llm.api_key` has it.",
)
REFUSES_ALL = Fault(
    "refuses-the-simplest",
    Level.ERROR,
    "The simplest turn there is, one message, is refused.",
    "So is every other, and the caller hears the failure message.",
    "Read what the server says. If it wants a model, name it with --model; if a field, with --param.",
)
FAULTS = (
    PRIVATE,
    PLAIN,
    NO_SUCH_HOST,
    REFUSED,
    UNREACHABLE,
    EXPIRED,
    WRONG_NAME,
    SELF_SIGNED,
    CHAIN,
    EXPIRES,
    NO_TLS,
    TLS_FAILED,
    WANTS_TLS,
    OLD_HTTP,
    REDIRECTS,
    PRIVATE_PORT,
    TUNNEL_PAGE,
    PAGE,
    WRONG_PATH,
    NO_PATH,
    KEY_WANTED,
    REFUSES_ALL,
)
# OpenSSL's numbers for why a certificate is not accepted: X509_V_ERR_... in x509_vfy.h.
_CERTIFICATES = {9: EXPIRED, 10: EXPIRED, 62: WRONG_NAME, 64: WRONG_NAME, 18: SELF_SIGNED, 19: SELF_SIGNED}
_CHAIN = (2, 20, 21)
# A header or words that give away who answers in place of the server.
_TUNNELS = {
    "ngrok": ("ngrok-error-code", b"ngrok"),
    "localtunnel": ("x-localtunnel", b"loca.lt"),
    "Cloudflare": ("cf-mitigated", b"cloudflare"),
    "a development tunnel": ("x-ms-tunnel", b"devtunnels.ms"),
    "a Codespace": ("x-github-codespaces", b"app.github.dev"),
}
_LOGINS = ("pf-signin", "/login", "signin", "oauth", "/auth")


@dataclass
class Reached:
    """What reaching came to. `patient` is called at the path that answers; None when there is nothing to examine."""

    patient: Patient | None
    findings: list[Finding] = field(default_factory=list)
    is_found: bool = False  # a custom LLM is there, though it may refuse
    requests: int = 0


def judge_address(url: str, addresses: list[str]) -> list[Finding]:
    """Return what is to be said of a URL and the addresses of its host."""
    if any(may_reach(address) for address in addresses):
        return [PLAIN.seen()] if urlsplit(url).scheme == "http" else []
    return [PRIVATE.seen(", ".join(addresses[:2]))]


def judge_connection(error: Exception) -> Finding:
    """Return why there is no connection."""
    if isinstance(error, socket.gaierror):
        return NO_SUCH_HOST.seen(short(error.strerror or "no address"))
    # A name with several addresses that all refuse is an OSError that only tells of them in its text.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return REFUSED.seen()
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATES.get(error.verify_code) or (CHAIN if error.verify_code in _CHAIN else TLS_FAILED)
        return fault.seen(short(error.verify_message))
    if isinstance(error, ssl.SSLError):
        is_plain = (error.reason or "") in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
        return (NO_TLS if is_plain else TLS_FAILED).seen(short((error.reason or "").replace("_", " ").lower()))
    if isinstance(error, ConnectionError):  # who refuses was told above
        return TLS_FAILED.seen("the connection was reset")
    if isinstance(error, asyncio.TimeoutError):
        return UNREACHABLE.seen(f"nothing in {CONNECT_TIMEOUT:g} s")
    return UNREACHABLE.seen(short(getattr(error, "strerror", None) or type(error).__name__))


def judge_first(heard: Heard, secrets: tuple[str, ...] = ()) -> Finding | None:
    """Return why the reply to the simplest turn is none of a custom LLM; None when it is a 200 that may be one.

    A wrong path is not seen here: that takes more requests.
    """
    seen = status_and_body(heard, secrets)
    if heard.headed is None:
        return NO_ANSWER.seen(heard.trouble or "nothing")
    if 300 <= heard.status < 400:
        where = urlsplit(heard.headers.get("location", ""))
        place = f"{where.scheme}://{where.netloc}{where.path}" if where.netloc else where.path
        is_login = any(word in f"{where.netloc}{where.path}".lower() for word in _LOGINS)
        return (PRIVATE_PORT if is_login else REDIRECTS).seen(short(f"status {heard.status} to {place}", secrets))
    if tunnel := _tunnel(heard):
        return TUNNEL_PAGE.seen(f"{tunnel}, status {heard.status}")
    if heard.status in (404, 405):
        return NO_PATH.seen(seen)
    if heard.is_page:
        return (PRIVATE_PORT if heard.status == 401 else PAGE).seen(seen)
    if heard.status in (401, 403):
        return KEY_WANTED.seen(seen)
    if heard.status >= 400 and heard.status != 429:
        return REFUSES_ALL.seen(seen)
    return None


def judge_certificate(certificate: dict[str, object] | None, now: float) -> list[Finding]:
    """Return what is to be said of a certificate that was accepted; `now` is seconds since 1970."""
    until = (certificate or {}).get("notAfter")
    if isinstance(until, str) and ssl.cert_time_to_seconds(until) - now < EXPIRES_SOON:
        return [EXPIRES.seen(until)]
    return []


def _tunnel(heard: Heard) -> str:
    """Return whose page it is; empty when it is none of a tunnel's."""
    if not heard.is_page and "ngrok-error-code" not in heard.headers:
        return ""
    for name, (header, words) in _TUNNELS.items():
        if header in heard.headers or words in heard.body.lower():
            return name
    return ""


async def reach(patient: Patient, *, is_insecure: bool = False) -> Reached:
    """Find the custom LLM. A certificate that is not accepted ends it, unless `is_insecure`."""
    try:
        addresses = await _resolve(patient)
    except OSError as error:
        return Reached(None, [judge_connection(error)])
    except UnicodeError:  # a label of the name is empty or too long
        return Reached(None, [NO_SUCH_HOST.seen()])
    reached = Reached(None, judge_address(patient.url, addresses))
    line = await _connect(patient)
    if line.error is not None and isinstance(line.error, ssl.SSLCertVerificationError) and is_insecure:
        reached.findings.append(judge_connection(line.error))
        patient = unverified(patient)
        line = await _connect(patient)
    if line.error is not None:
        finding = judge_connection(line.error)
        if patient.has_tls and finding.fault in (UNREACHABLE, TLS_FAILED) and await _speaks_http(patient):
            finding = NO_TLS.seen()
        reached.findings.append(finding)
        return reached
    reached.findings += judge_certificate(line.certificate, time.time())
    line.cut()
    return await _first_turn(patient, reached, line.seconds_to_connect)


async def _resolve(patient: Patient) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(patient.host, patient.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _connect(patient: Patient) -> Line:
    line = patient.line()
    await line.connect()
    return line


def unverified(patient: Patient) -> Patient:
    """Return the same server with no look at its certificate."""
    trust = ssl.create_default_context()
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    return replace(patient, trust=trust)


async def _first_turn(patient: Patient, reached: Reached, seconds: float) -> Reached:
    heard = await patient.ask(patient.body(HELLO))
    reached.requests = 1
    finding = judge_first(heard, patient.secrets)
    if not patient.has_tls and heard.headed is None and await _speaks_tls(patient):
        finding = WANTS_TLS.seen()
    if finding is not None and finding.fault in (NO_PATH, PAGE):
        for path in CHAT_PATHS:
            if path == urlsplit(patient.url).path:
                continue
            other = await patient.at(path).ask(patient.body(HELLO))
            reached.requests += 1
            there = judge_first(other, patient.secrets)
            if there is None or there.fault in (KEY_WANTED, REFUSES_ALL):  # who refuses a turn is there
                finding, patient, heard = there, patient.at(path), other
                reached.findings.append(WRONG_PATH.seen(f"status {heard.status}; POST {path} answers"))
                break
    if finding is None or finding.fault in (KEY_WANTED, REFUSES_ALL):
        reached.is_found = True
    if heard.version == "1.0":
        reached.findings.append(OLD_HTTP.seen())
    if finding is not None:
        reached.findings.append(finding)
        return reached
    reached.patient = patient
    reached.findings.append(ok(f"connected in {seconds * 1000:.1f} ms, HTTP/{heard.version}, status {heard.status}"))
    return reached


async def _speaks_http(patient: Patient) -> bool:
    """True when a port that was called by https answers without it."""
    heard = await patient.without_tls().ask(patient.body(HELLO))
    return heard.headed is not None


async def _speaks_tls(patient: Patient) -> bool:
    """True when a handshake works on a port that was called without one."""
    line = await _connect(unverified(patient.over_tls()))
    line.cut()
    return line.error is None


CHECK = Check(
    "reach", "the name, the connection, TLS, the path, and the simplest turn", None, (*FAULTS, NO_ANSWER), is_quick=True
)
