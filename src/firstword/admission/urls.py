"""Signed URLs: for an engine that can only keep a URL, one that is good for one session, and for a while.

`https://host/s/<session>/chat/completions?expires=<unix time>&signature=<hex>`, and `&client=<name>` when it counts as
one of the file of keys. What is signed is the session and not the path, so that the forms of a path (`/vapi/s/...`,
`.../v1/chat/completions`, `.../models`) are one story. Written down, with every step, in docs/access.md.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from ..errors import ConfigError, Expired, Unauthorized
from .keys import NAME

EXPIRES, CLIENT, SIGNATURE = "expires", "client", "signature"
PARAMETERS = (EXPIRES, CLIENT, SIGNATURE)
MIN_SECRET = 32  # bytes
MAX_SESSION = 512  # signs
VALID_FOR = 3600.0  # seconds
_PURPOSE = b"firstword signed url 1"
_TAIL, _AUDIO = "/chat/completions", "/audio/chat/completions"
_DIGITS = re.compile(r"[0-9]{1,12}")


class SignedURLs:
    """Signs with the first of `secrets`, and knows what was signed with any of them. Raises ConfigError."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets or any(len(each.encode()) < MIN_SECRET for each in secrets):
            raise ConfigError(
                f"FIRSTWORD_URL_SECRET is shorter than {MIN_SECRET} bytes.",
                hint="make one with: openssl rand -base64 32",
            )
        # A key for this purpose alone: were the secret used elsewhere as well, no signature of there would be one here.
        self._keys = [hmac.digest(each.encode(), _PURPOSE, "sha256") for each in secrets]

    def sign(self, session: str, expires: str, client: str) -> str:
        """Return the signature."""
        return _signature(self._keys[0], session, expires, client)

    def check(self, query: Mapping[str, str], session: str | None) -> str:
        """Return the client that a signed URL names, empty for none. Raises Unauthorized, or Expired."""
        expires, client = query.get(EXPIRES, ""), query.get(CLIENT, "")
        said = query[SIGNATURE].encode("utf-8", "surrogatepass")
        # Only in this form the four lines that are signed can be read in one way.
        is_formed = bool(session) and _DIGITS.fullmatch(expires) and (not client or NAME.fullmatch(client))
        right = [_signature(key, session or "", expires, client).encode() for key in self._keys]
        if not sum(hmac.compare_digest(each, said) for each in right) or not is_formed:
            raise Unauthorized("The signature of this URL is not valid.", hint="ask whoever made the URL for a new one")
        if int(expires) <= time.time():
            raise Expired("This URL has expired.", hint="ask whoever made it for a new one")
        return client


def sign_url(
    url: str, session: str, *, secret: str | Sequence[str], valid_for: float = VALID_FOR, client: str = ""
) -> str:
    """Return the URL that lets an engine speak for one session, `valid_for` seconds long.

    url: where the server is, as `https://host`, with a platform's name if need be: `https://host/vapi`.
    secret: FIRSTWORD_URL_SECRET; of several, separated by commas, the first signs.
    client: the name in the file of keys whose limits and models count.
    Raises ConfigError for a session, a client or a secret that cannot be signed.
    """
    secrets = [each.strip() for each in secret.split(",")] if isinstance(secret, str) else list(secret)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("The URL to sign is not where a server is.", hint="write it like https://host.example")
    if not session or session in (".", "..") or "/" in session or len(session) > MAX_SESSION:
        raise ConfigError(
            "The session is not one that a path can hold.", hint=f"1 to {MAX_SESSION} signs, none of them a slash"
        )
    if client and not NAME.fullmatch(client):
        raise ConfigError("The client is not a name of the file of keys.", hint="see `firstword key list`")
    if not 1 <= valid_for < 1e10:
        raise ConfigError("`valid_for` is not a number of seconds.", hint="write valid_for=3600")
    expires = str(int(time.time() + valid_for))
    query = {EXPIRES: expires}
    if client:
        query[CLIENT] = client
    query[SIGNATURE] = SignedURLs(secrets).sign(session, expires, client)
    whole = parts.path.rstrip("/")
    tail = _AUDIO if whole.endswith(_AUDIO) else _TAIL
    path = f"{whole.removesuffix(tail).removesuffix('/v1')}/s/{quote(session, safe='')}{tail}"
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def _signature(key: bytes, session: str, expires: str, client: str) -> str:
    # The session, which may hold any sign, stands last: no other three could be written as the same four lines.
    text = "\n".join(("1", expires, client, session))
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()
