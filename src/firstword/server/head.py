"""What the head of a request must be: that of RFC 9112 which every reader cuts in the same way, and of modest size.

A proxy before us has read the same bytes. Where two readers may see two requests in them, we see none: it is refused,
and the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import BadRequest, HeadTooLarge

Headers = list[tuple[bytes, bytes]]

MAX_HEAD = 64 * 1024  # bytes of request line and headers; nobody's are longer, and uvicorn sets no limit
MAX_HEADERS = 100  # lines; Apache's limit too. Each costs a hundred bytes beside its own
UNKNOWN = b"unknown"  # the length of a body that comes in chunks

_ABSOLUTE = re.compile(rb"(?i)https?://([^/?@\\]+)([/?].*)?")


def check(version: str, headers: Headers, target: bytes, length: bytes, size: int) -> None:
    """Raise BadRequest or HeadTooLarge for a head that is not answered. `size`: bytes read for it, and maybe more.

    `length` is what it says of its body: UNKNOWN for one in chunks.
    """
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"The request has more than {MAX_HEADERS} headers.")
    if size > MAX_HEAD and _size(headers, target) > MAX_HEAD:
        raise too_large()
    if version not in ("1.1", "1.0"):
        raise BadRequest("The request is not of HTTP/1.1.", hint="speak HTTP/1.1 to this port")
    hosts = 0
    for name, _ in headers:
        if name == b"host":
            hosts += 1
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadRequest("The request has not one Host header.", hint="send it once (RFC 9112, section 3.2)")
    if length is UNKNOWN:
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if codings != [b"chunked"] or version == "1.0":
            raise BadRequest("The body's transfer-encoding is not understood.", hint="send it once, as `chunked`")
    if b"#" in target:
        raise BadRequest("The request's target has a fragment.", hint="leave out the `#` and what is behind it")


def _size(headers: Headers, target: bytes) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def too_large() -> HeadTooLarge:
    """Return the error that a head, or what stands between two pieces of a body, is over MAX_HEAD."""
    return HeadTooLarge(f"The request's head is larger than {MAX_HEAD} bytes.")


def origin_form(target: bytes, headers: Headers) -> bytes:
    """Return the path and query of a target that is a whole URL, whose host is that of the Host header.

    RFC 9112 (section 3.2.2) has such a target's host count, and others look at the header: where they differ, we answer
    nobody. Raises BadRequest then, and for any other target.
    """
    if target == b"*":
        return target
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise BadRequest("The request's target is no path.", hint="ask for a path that begins with a slash")
    authority, rest = found[1].lower(), found[2] or b"/"
    if any(name == b"host" and value.lower() != authority for name, value in headers):
        raise BadRequest("The request's target and its Host header name different hosts.", hint="ask for a path")
    return rest if rest.startswith(b"/") else b"/" + rest


def without_upgrade(method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a head again that asks for no other protocol: a server may ignore that wish (RFC 9110, section 7.8)."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % line for line in headers if line[0] != b"upgrade"]
    return b"\r\n".join(lines) + b"\r\n\r\n"
