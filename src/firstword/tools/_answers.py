"""What an API's answer tells the model. It is data: nothing in it is ever read as a template, a path or a command.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import ToolError
from ._outside import Answer

MAX_REASON = 1000  # signs of an error page that are worth a model's reading
HIDDEN = b"(hidden)"
SHORT_SECRET = 8  # bytes; what is shorter may stand anywhere by chance
_KIND = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# Not all that Python knows: some are slow by the square of the length, others are no text.
_CHARSETS = ("iso-8859-1", "windows-1252", "iso-8859-15", "utf-16", "gb18030", "gbk", "big5", "shift_jis", "euc-kr")
_TEXTS = ("application/xml", "application/javascript", "application/yaml", "application/x-www-form-urlencoded")


def told(answer: Answer, *, hide: Sequence[bytes] = ()) -> Any:
    """Return what the model is told: decoded JSON, a text, or a note of what cannot be shown.

    An API may repeat what it was sent: `hide` are secrets that are cut out. Raises ToolError for a status that is no
    success, with the start of its text.
    """
    body = answer.body
    for secret in hide:
        if len(secret) >= SHORT_SECRET:
            body = body.replace(secret, HIDDEN)
    kind, text = _kind(answer), None
    if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        kind = "compressed data"
    elif _is_json(kind) or not kind or kind.startswith("text/") or kind.endswith("+xml") or kind in _TEXTS:
        text = _text(answer, body)
    if not 200 <= answer.status < 300:
        reason = f": {_start(text)}" if text and text.strip() else "."
        raise ToolError(f"The API answered {answer.status}{reason}")
    if not body:
        return f"(done: status {answer.status}, no content)"
    if text is None:
        return f"(an answer that cannot be shown: {kind}, {len(body)} bytes)"
    if _is_json(kind):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text  # says that it is JSON and is not: the model may still make sense of it
    return text


def _kind(answer: Answer) -> str:
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return said if not said or _KIND.fullmatch(said) else "an unknown kind"


def _is_json(kind: str) -> bool:
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _text(answer: Answer, body: bytes) -> str:
    match = _CHARSET.search(answer.headers.get("content-type", ""))
    charset = match.group(1).lower() if match else ""
    return body.decode(charset if charset in _CHARSETS else "utf-8", "replace")


def _start(text: str) -> str:
    text = " ".join(text[: 4 * MAX_REASON].split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
