"""The names that this server answers to: what a request's Host header may say.

A page whose name was made to lead here (DNS rebinding), or a proxy that sends us what is not ours, says another name.
Nothing else is ever decided by that header, and `x-forwarded-host` is not read at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import MisdirectedRequest
from ..hostnames import ANY, matches, read_host, read_patterns

SETTING = "FIRSTWORD_HOSTS"
PROBES = frozenset({"/health", "/ready"})  # whoever looks whether we live comes by address


class Hosts:
    """The names of one server, as `read_patterns` reads them. Raises ConfigError."""

    def __init__(self, written: Sequence[str]) -> None:
        self._patterns = read_patterns(written, SETTING)

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise MisdirectedRequest unless the one Host header of a request says one of the names."""
        if path in PROBES or ANY in self._patterns:
            return
        said = [value for name, value in headers if name == b"host"]
        host = read_host(said[0].decode("latin-1")) if len(said) == 1 else None
        if host is None or not matches(host, self._patterns):
            raise MisdirectedRequest(
                "This server does not answer to the name in the Host header.",
                hint=f"its operator can add the name to {SETTING}",
            )
