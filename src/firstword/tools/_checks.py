"""What an operator can write wrong about a remote tool, told at start.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..addresses import may_reach
from ..errors import ConfigError
from ..transport import Origin

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = ("host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "accept-encoding")


def check_limits(who: str, *, timeout: Any, filler: Any, max_bytes: Any = 1) -> None:
    """Raise ConfigError when a time is none, a filler says nothing, or a size is none; `who` has them."""
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout < float("inf")):
        raise ConfigError(f"The timeout of {who} is not a number of seconds over 0.", hint="timeout=5")
    if filler is not None and (not isinstance(filler, str) or not filler.strip()):
        raise ConfigError(f"The filler of {who} says nothing.", hint="leave it out")
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 1:
        raise ConfigError(f"The max_bytes of {who} is not a number of bytes over 0.", hint="max_bytes=65536")


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ConfigError for a header that is not the operator's to set, or whose value cannot be sent."""
    for name, text in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise ConfigError(f"A tool cannot set the header {name!r}.", hint="leave it out")
        if any(not " " <= sign <= "~" for sign in text):
            raise ConfigError(
                f"The header {name!r} of a tool holds a line break, or a sign that is not ASCII.",
                hint="check it, and the variable of the environment that stands in it",
            )


def check_url(url: str, *, private: bool) -> Origin:
    """Return the origin of an operator's URL.

    Raises ConfigError when it is none that tools may be pointed at: no http(s) URL, one with a user and password in
    it, plain http to the public network, or an address that is written as a private one without `private`.
    """
    wrong = ConfigError("A tool's URL is not an http or https URL.", hint="write it as in https://api.example/v1")
    if any(not "!" <= sign <= "~" for sign in url):
        raise ConfigError("A tool's URL holds a space, or a sign that is not ASCII.", hint="percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise wrong
    if "{" in parts.netloc or "}" in parts.netloc:
        raise ConfigError("A tool's host and port cannot be an argument.", hint="write them as they are")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "A tool's URL holds a user or a password.", hint='headers={"authorization": "Bearer ${NAME}"}'
        )
    if parts.fragment:
        raise ConfigError("A tool's URL has a part after '#', which is never sent.", hint="leave it out")
    if parts.scheme == "http" and not private:
        raise ConfigError(
            f"The tool at {host} would be asked without encryption.",
            hint="write https://, or private=True if it is a host of your own network",
        )
    _check_literal(host, private)
    return Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))


def _check_literal(host: str, private: bool) -> None:
    """A host that is an address can be told apart at start, in the words of a setting."""
    is_address = ":" in host or host.replace(".", "").isdecimal()
    local = host == "localhost" or host.endswith(".localhost")
    if is_address and not may_reach(host, private=private):
        hint = "if it is a host of your own network: private=True" if may_reach(host, private=True) else None
        raise ConfigError(f"The address {host} is not one that tools may reach.", hint=hint)
    if local and not private:
        raise ConfigError("A tool's host is this machine.", hint="if that is meant: private=True")
