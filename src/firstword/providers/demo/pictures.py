"""What the demo model sees of a picture: its media type, its size in bytes and in pixels, or the host it is on.

Rules: nothing is fetched, megabytes are not decoded for their length, and what cannot be read is None, not an error.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

SEEN = 16  # pictures that are looked at
HEAD = 64 * 1024  # bytes that are decoded: the size of a JPEG can stand behind a long block of camera data
_SEGMENTS = 500  # of a JPEG, before its size
_KINDS = ("image_url", "image", "input_image")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,60}", re.ASCII)
_HOST = re.compile(r"[\w.:-]{1,100}")
_URL_SAFE = str.maketrans("-_", "+/")  # the other alphabet of base64, which some senders use
# JPEG segments that give the size: start of frame, of every coding; C4, C8 and CC are other things.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Picture(NamedTuple):
    """A picture that came with the request, or, when it has a host, one that is elsewhere."""

    kind: str = ""  # media type
    size: int = 0  # bytes
    pixels: tuple[int, int] | None = None  # width, height
    host: str = ""


def pictures(content: Any) -> tuple[list[Picture | None], int]:
    """Return the first `SEEN` pictures of a message, None for each one that cannot be read, and how many there are."""
    parts = content if isinstance(content, list) else []
    found = [part for part in parts if isinstance(part, dict) and part.get("type") in _KINDS]
    return [_picture(part.get("image_url")) for part in found[:SEEN]], len(found)


def _picture(image: Any) -> Picture | None:
    url = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(url, str):
        return None
    if url[:5].lower() == "data:":
        return _sent_along(url)
    try:
        host = urlsplit(url[:2000]).hostname or ""
    except ValueError:
        return None
    return Picture(host=host) if _HOST.fullmatch(host) else None


def _sent_along(url: str) -> Picture | None:
    """Return the picture in a `data:` URL: `data:<media type>;base64,<data>`."""
    comma = url.find(",", 0, 1000)
    kind, *parameters = url[5 : max(comma, 5)].split(";")
    if comma < 0 or len(url) == comma + 1 or not _MEDIA_TYPE.fullmatch(kind):
        return None
    start = comma + 1
    if "base64" not in (parameter.strip().lower() for parameter in parameters):
        head = unquote_to_bytes(url[start : start + HEAD])
        return Picture(kind.lower(), len(url) - start - 2 * url.count("%", start), pixels(head))
    letters = len(url) - start - sum(url.count(space, start) for space in " \r\n") - url.count("=", len(url) - 4)
    text = "".join(url[start : start + HEAD * 4 // 3].split()).rstrip("=")
    if len(text) < letters:
        text = text[: len(text) // 4 * 4]  # whole bytes of the beginning
    text = text.translate(_URL_SAFE) + "=" * (-len(text) % 4)
    try:
        head = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return Picture(kind.lower(), letters * 3 // 4, pixels(head)) if letters % 4 != 1 else None


def pixels(head: bytes) -> tuple[int, int] | None:
    """Return width and height as the first bytes of a PNG, GIF, WebP or JPEG tell them, else None."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            return _two(head, ">II", at=16)
        if head.startswith((b"GIF87a", b"GIF89a")):
            return _two(head, "<HH", at=6)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
        if head.startswith(b"\xff\xd8"):
            return _jpeg(head)
    except struct.error:
        pass  # cut off before its size
    return None


def _two(head: bytes, form: str, *, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, head, at)
    return first, second


def _webp(head: bytes) -> tuple[int, int] | None:
    """Read one of WebP's three headers: lossy, lossless, extended (RFC 9649, section 2)."""
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = _two(head, "<HH", at=26)
        return width & 0x3FFF, height & 0x3FFF
    if head[12:16] == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8X":
        width, high_width, height, high_height = struct.unpack_from("<HBHB", head, 24)
        return (high_width << 16 | width) + 1, (high_height << 16 | height) + 1
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """Walk from segment to segment to the one that starts the frame."""
    at = 2
    for _ in range(_SEGMENTS):
        if at >= len(head) or head[at] != 0xFF:
            break
        marker, length = struct.unpack_from(">xBH", head, at)
        if marker in _FRAMES:
            height, width = _two(head, ">HH", at=at + 5)
            return width, height
        if marker == 0xFF:
            at += 1  # a fill byte
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:
            at += 2  # a marker without a length
        else:
            at += 2 + length
    return None
