"""How a server answers what is wrong: no key, a wrong key, broken JSON, a large body. A true status, and an error body.

Judgement of replies is pure.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .answers import no_reply, status_and_body
from .findings import Check, Fault, Finding, Level, Run, ok, skipped
from .heard import Heard, short
from .patient import Patient
from .shapes import said

WRONG_KEY = "wrong-key-of-firstword-check-7f3a"
PADDING = 1_200_000  # bytes; nginx refuses more than 1 MiB unless it is told otherwise

OPEN_TO_ALL = Fault(
    "open-to-all",
    Level.ADVICE,
    "A call with a wrong key, or none, is answered although you gave a key.",
    "Whoever finds the address spends your money.",
    "Check the key before the model is asked. If the server needs none, leave --key out.",
)
WRONG_KEY_STATUS = Fault(
    "wrong-key-status",
    Level.ERROR,
    "A wrong key, or a missing one, is not answered with 401 or 403.",
    "A 500 is tried again and again by the SDKs, and tells the operator nothing; a 200 with an error is silence.",
    "Answer 401 with an error body, also when it is the provider that refused the key.",
)
API_KEY_HEADER = Fault(
    "api-key-header",
    Level.ADVICE,
    "A key in the header `api-key` is refused.",
    "Azure's clients, and some engines, send it there.",
    "Take the key from `authorization`, `api-key` or `x-api-key`.",
)
MISTAKE_500 = Fault(
    "mistake-500",
    Level.WARNING,
    "A request with a mistake in it is answered with a 5xx.",
    "The SDKs try it again twice, in vain, and the log fills with errors that are none of yours.",
    "Check what is read, and answer 400 with an error body.",
)
MISTAKE_200 = Fault(
    "mistake-200",
    Level.WARNING,
    "A request that cannot be answered is answered with 200.",
    "The client takes it for an answer.",
    "Check what is read, and answer 400 with an error body.",
)
BODY_SHAPE = Fault(
    "error-shape",
    Level.WARNING,
    "The body of an error is not in OpenAI's shape.",
    "The SDKs find no message and no code in it, so nobody sees what was wrong.",
    'Answer `{"error":{"message":...,"type":...,"code":...}}` with each 4xx and 5xx.',
)
TRACEBACK = Fault(
    "traceback",
    Level.ERROR,
    "The body of an error holds a traceback.",
    "It shows strangers paths, versions and sometimes secrets.",
    "Turn debug mode off; log the traceback and answer a plain sentence.",
)
KEY_ECHOED = Fault(
    "key-echoed",
    Level.ERROR,
    "The reply to a wrong key holds the key.",
    "Errors are logged, by engines too: so the key stands in foreign logs.",
    "Say that the key is wrong, and not which one it was.",
)
BIG_REFUSED = Fault(
    "large-body",
    Level.WARNING,
    "A body of 1.2 MB is refused.",
    "An image as a `data:` URL is as large. nginx allows 1 MB unless it is told otherwise.",
    "Allow 10 MB or more: client_max_body_size in nginx, the limit of the framework else.",
)
_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\)|File \"[^\"]+\", line \d+|^\s+at .+\(.+:\d+:\d+\)|panic: |goroutine \d+",
    re.MULTILINE,
)


def judge_error(heard: Heard, secrets: tuple[str, ...] = ()) -> list[Finding]:
    """Return what is wrong with the reply to a request that has a mistake in it."""
    if early := no_reply(heard):
        return early
    seen = status_and_body(heard, secrets)
    found = judge_leaks(heard, secrets)
    if heard.status >= 500:
        found.append(MISTAKE_500.seen(seen))
    elif heard.status < 400:
        found.append(MISTAKE_200.seen(seen))
    if heard.status >= 400 and not is_error_body(heard.json):
        found.append(BODY_SHAPE.seen(seen))
    return found


def judge_leaks(heard: Heard, secrets: tuple[str, ...] = ()) -> list[Finding]:
    """Return what a reply gives away."""
    text = heard.body.decode("utf-8", "replace")
    if match := _TRACEBACK.search(text):
        return [TRACEBACK.seen(short(text[match.start() :][:80], secrets))]
    return []


def judge_stranger(heard: Heard, key: str, secrets: tuple[str, ...] = ()) -> list[Finding]:
    """Return what is wrong with the reply to a caller with a wrong `key`, or with none, "" """
    if early := no_reply(heard):
        return early
    if heard.is_stream and heard.stream.spoke_at is not None:
        return [OPEN_TO_ALL.seen("a wrong key" if key else "no key")]
    found = judge_leaks(heard, secrets)
    if key and key.encode() in heard.body:
        found.append(KEY_ECHOED.seen(f"status {heard.status}"))
    seen = status_and_body(heard, (*secrets, key))
    if heard.status not in (401, 403):
        found.append(WRONG_KEY_STATUS.seen(seen))
    elif not is_error_body(heard.json):
        found.append(BODY_SHAPE.seen(seen))
    return found


def is_error_body(body: Any) -> bool:
    """True for an error in OpenAI's shape."""
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str) and {"type", "code"} <= set(error)


def _stranger(key: str) -> Run:
    async def run(patient: Patient) -> list[Finding]:
        if not patient.key:
            return [skipped("no key was given, so the server is taken for one that needs none")]
        heard = await patient.ask(patient.body(said("Hello")), key=key)
        return judge_stranger(heard, key, patient.secrets) or [ok(f"status {heard.status}")]

    return run


async def _other_header(patient: Patient) -> list[Finding]:
    if not patient.key:
        return [skipped("no key was given")]
    heard = await patient.ask(patient.body(said("Hello")), key="", headers={"api-key": patient.key})
    if early := no_reply(heard):
        return early
    if heard.status in (401, 403):
        return [API_KEY_HEADER.seen(status_and_body(heard, patient.secrets))]
    return [ok(f"status {heard.status}")]


def _mistaken(make: bytes | dict[str, Any], method: str = "POST") -> Run:
    async def run(patient: Patient) -> list[Finding]:
        body = make if isinstance(make, bytes) else {**patient.body(), **make}
        content = (
            None
            if method == "GET"
            else {k: v for k, v in body.items() if v is not None}
            if isinstance(body, dict)
            else body
        )
        heard = await patient.ask(content, method=method)
        if method == "GET" and heard.status and heard.status < 400:
            return [ok(f"status {heard.status}")]
        return judge_error(heard, patient.secrets) or [ok(f"status {heard.status}")]

    return run


async def _large(patient: Patient) -> list[Finding]:
    # The padding is white space between two tokens of JSON: it costs no model's tokens.
    body = msgspec.json.encode(patient.body(said("Hello")))
    heard = await patient.ask(body[:-1] + b" " * PADDING + body[-1:])
    if early := no_reply(heard):
        return [BIG_REFUSED.seen(heard.trouble)] if heard.status != 429 else early
    if heard.status != 200:
        return [BIG_REFUSED.seen(status_and_body(heard, patient.secrets))]
    return [ok("status 200")]


CHECKS = (
    Check(
        "no-key",
        "a call without a key",
        _stranger(""),
        (OPEN_TO_ALL, WRONG_KEY_STATUS, KEY_ECHOED),
        is_quick=True,
    ),
    Check("wrong-key", "a call with a wrong key", _stranger(WRONG_KEY), ()),
    Check("api-key", "the key in the header `api-key`", _other_header, (API_KEY_HEADER,)),
    Check(
        "broken-json",
        "a body that is half a JSON",
        _mistaken(b'{"stream":true,"messages":['),
        (MISTAKE_500, MISTAKE_200, BODY_SHAPE, TRACEBACK),
        is_quick=True,
    ),
    Check("no-messages", "a body without messages", _mistaken({"messages": None}), ()),
    Check("wrong-types", "a body whose messages are a text", _mistaken({"messages": "Hello"}), ()),
    Check("get", "GET instead of POST", _mistaken(b"", "GET"), ()),
    Check("large-body", "a body of 1.2 MB, most of it white space", _large, (BIG_REFUSED,)),
)
