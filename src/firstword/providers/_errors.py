"""What a provider's error says: its status and its own words, without keys or tracebacks."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from ..errors import UpstreamError, UpstreamProtocolError, UpstreamStatusError

MAX_MESSAGE = 2000  # characters; what is longer is a page, not a sentence
UNEXPLAINED = "The model's server reported an error."
TRACEBACK = "Traceback (most recent call last)"
SHORTEST_SECRET = 8  # characters; `test` and `EMPTY` are keys that people use with servers that need none
PASSED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")

# Errors within a 200 name no status; these are the `type` and `code` words that OpenAI and its likenesses use.
STATUS_OF = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "timeout": 504,
}


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, secret: str | None) -> UpstreamError:
    """Return the error of a whole response that is no event stream."""
    forms = _forms(secret)
    passed = {name: said for name in PASSED_HEADERS if (said := headers.get(name)) and _hidden(said, forms) == said}
    status = status if status < 600 else 502  # HTTP has none above, and a server refuses to send one
    value = _error_in(body)
    if value is not None:
        return read_error(value, secret=secret, status=status if status >= 400 else None, passed=passed)
    if status >= 400:
        hint = "check that LLM_BASE_URL is the API's root, as in https://api.openai.com/v1"
        return UpstreamStatusError(
            f"The model's server answered with status {status}.",
            status=status,
            passed=passed,
            hint=hint if status in (404, 405) else None,
        )
    if status >= 300:
        return UpstreamProtocolError(
            "The model's server answered with a redirect.",
            hint="set LLM_BASE_URL to where it leads; keys do not follow",
        )
    return UpstreamProtocolError(
        "The model's server answered with a page where an event stream was asked for.",
        hint="check that LLM_BASE_URL is the API's root, as in https://api.openai.com/v1",
    )


def read_error(
    value: Any, *, secret: str | None, status: int | None = None, passed: Mapping[str, str] | None = None
) -> UpstreamStatusError:
    """Return the error that an `error` value means: an object, or a bare string. Its unknown fields are kept."""
    raw = value if isinstance(value, dict) else {"message": value}
    try:
        said = _cleaned(raw, _forms(secret))
    except RecursionError:
        said = {}
    message, kind = said.get("message"), said.get("type")
    error = {
        "param": None,
        "code": None,
        **said,
        "message": message[:MAX_MESSAGE] if message and isinstance(message, str) else UNEXPLAINED,
        "type": kind if isinstance(kind, str) else "upstream_error",
    }
    return UpstreamStatusError(error["message"], status=status or _status(raw), error=error, passed=passed)


def _error_in(body: bytes) -> Any:
    """Return what a JSON body says went wrong, or None."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:  # Gemini's compatible endpoint puts it into a list
        value = value[0]
    if not isinstance(value, dict):
        return None
    # FastAPI's servers say `detail`; a few say only `message`.
    return value.get("error") or value.get("detail") or (value.get("message") and value)


def _status(error: Mapping[str, Any]) -> int:
    for name in ("status", "code", "type"):
        word = error.get(name)
        if isinstance(word, str) and word in STATUS_OF:
            return STATUS_OF[word]
        number = int(word) if isinstance(word, str) and word.isdecimal() and len(word) == 3 else word
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return 502


def _forms(secret: str | None) -> tuple[str, ...]:
    """Return the ways in which a server echoes a key: as it is, as in a URL, and in base64; none for no secret."""
    # A short key is no secret, and would be found within ordinary words.
    if not secret or len(secret) < SHORTEST_SECRET:
        return ()
    return (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("="))


def _hidden(text: str, forms: Sequence[str]) -> str:
    for form in forms:
        text = text.replace(form, "***")
    return text


def _cleaned(value: Any, forms: Sequence[str]) -> Any:
    """Return a JSON value without tracebacks, and with the key, should the server have echoed it, made unreadable."""
    if isinstance(value, str):
        return "" if TRACEBACK in value else _hidden(value, forms)
    if isinstance(value, list):
        if any(isinstance(each, str) and TRACEBACK in each for each in value):
            return []
        return [_cleaned(each, forms) for each in value]
    if isinstance(value, dict):
        return {_cleaned(name, forms): _cleaned(each, forms) for name, each in value.items()}
    return value
