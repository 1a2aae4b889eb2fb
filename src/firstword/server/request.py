"""Read one HTTP request: its headers, its body within bounds, its JSON with a clear word on what is wrong."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..clock import timeout
from ..errors import BadRequest, PayloadTooLarge, RequestTimeout

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_spaced_keys = re.compile(rb'"[ \t\r\n]+:').findall
_BLANK_AND_COLON = (b" :", b"\t:", b"\n:", b"\r:")
_SPELT_OUT = (b"\\u0022", b"\\u003a", b"\\u003A")  # a quote and a colon


# An image makes a body long, not manifold; each thing costs up to a hundred times its bytes, and time on the loop.
MAX_THINGS = 100_000  # objects and lists
MAX_KEYS = 200_000  # counted as colons, of which a text has some too
MAX_VALUES = 1_000_000  # counted as commas; the longest text that is allowed has fewer


class Gone(BaseException):
    """The caller hung up; there is nobody to answer. No `except Exception` of a stage may take it for a failure."""


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names, which ASGI gives in lower case; of repeated ones the last.

    Of two keys too: it is the one that a proxy before us has added. The lines of `x-forwarded-for` are one list.
    """
    lines = raw if isinstance(raw, list) else list(raw)
    headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in lines}
    if len(headers) < len(lines) and "x-forwarded-for" in headers:
        said = [str(value, "latin-1") for name, value in lines if name == b"x-forwarded-for"]
        headers["x-forwarded-for"] = ", ".join(said)
    return headers


def read_query(raw: bytes) -> dict[str, str]:
    """Return the query's values by name; of repeated ones the last."""
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}


async def read_body(
    receive: Receive, headers: Mapping[str, str], here: bytes | None, *, limit: int, within: float
) -> bytes:
    """Return the whole body: at most `limit` bytes, in at most `within` seconds; `here` if that is it already.

    Raises PayloadTooLarge, RequestTimeout, or Gone.
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        raise _too_large(limit)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest("The body is compressed.", hint="send it without a content-encoding")
    if here is not None:
        return here
    try:
        async with timeout(within):
            return await _read_all(receive, limit)
    except (TimeoutError, asyncio.TimeoutError):
        raise RequestTimeout(f"The body did not arrive within {within:g} seconds.") from None


async def _read_all(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(parts)
    raise Gone


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body is larger than {limit} bytes.", hint="send smaller images, or raise FIRSTWORD_MAX_BODY"
    )


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises BadRequest that says where it is wrong, never what it holds."""
    if len(body) > MAX_THINGS:
        _refuse_manifold(body)
    try:
        value = _decode(body)
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"The body is not JSON: {_place(error)}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body is not a JSON object.", hint='send {"messages": [...]}')
    try:
        if _may_say_a_key_twice(body, value):
            _refuse_duplicates(body)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    return value


def _refuse_manifold(body: bytes) -> None:
    """Raise BadRequest for a body of more things than anybody says."""
    if body.count(b"{") + body.count(b"[") > MAX_THINGS:
        raise BadRequest(f"The body holds more than {MAX_THINGS} objects and lists.")
    if body.count(b":") > MAX_KEYS:
        raise BadRequest(f"The body holds more than {MAX_KEYS} keys.")
    if body.count(b",") > MAX_VALUES:
        raise BadRequest(f"The body holds more than {MAX_VALUES} values.")


def _place(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ").rstrip(".").lower()
    return text if isinstance(error, msgspec.DecodeError) else "a number is out of range"


def _may_say_a_key_twice(body: bytes, value: dict[str, Any]) -> bool:
    """Say False only when surely no object in `body`, which was read as `value`, says a key twice.

    Every key ends in a quote and a colon, in `body` as in `value` written anew, and what is said within a string is
    escaped in the same way in both; so a key that is lost on the way shows in the count. Three spellings would not.
    """
    count = body.count(b'":')
    if any(blank in body for blank in _BLANK_AND_COLON):
        count += len(_spaced_keys(body))
    return count != _encode(value).count(b'":') or any(spelling in body for spelling in _SPELT_OUT)


def _refuse_duplicates(body: bytes) -> None:
    """Raise BadRequest when an object says a key twice: which of the two counts, two readers may see differently."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise BadRequest("The body says a key twice in one object.")

    json.loads(body, object_pairs_hook=check)
