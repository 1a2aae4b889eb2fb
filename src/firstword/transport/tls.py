"""TLS to upstreams: whom to trust, and how a new connection resumes the session of an earlier one.

Rules:
- A session is offered only to the origin that it came from, under the trust that it was made with, and only after a
  handshake that was whole. A server that does not know it any more answers with a full handshake.
- A resumed handshake shows no certificate. It proves that the peer holds the secrets of a session whose certificate
  was verified; it does not see that the certificate has expired or was revoked since. So at least one handshake in
  CERTIFICATE_AGE is a full one.
- A handshake that fails, for whatever reason, takes the session with it: the next one is full.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable
from functools import lru_cache

from .. import clock

CERTIFICATE_AGE = 3600.0  # seconds for which a look at the certificate is enough; the lifetime of a ticket can be days
MAX_ORIGINS = 64  # origins whose sessions are kept; a server has a handful


@lru_cache(maxsize=1)
def trust() -> ssl.SSLContext:
    """Return the TLS settings for every upstream: verified against the system's roots and Mozilla's, HTTP/1.1 only."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # for systems that come without roots of their own
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems' own settings allow less
    context.set_alpn_protocols(["http/1.1"])
    return context


def resumptions() -> Callable[[Hashable], Resumption]:
    """Return a function that gives each origin its Resumption, for one event loop; those long unused are forgotten."""
    return lru_cache(maxsize=MAX_ORIGINS)(lambda _: Resumption(trust()))


class Resumption:
    """Stands where an SSLContext stands for `create_connection`, and adds one origin's last session to it.

    asyncio and uvloop only call `wrap_bio`, without a session. One context serves all origins because each costs tens
    of milliseconds and a megabyte to fill with roots.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        # The connection and not its session: with TLS 1.3 the tickets come some time after the handshake.
        self._last: ssl.SSLObject | None = None
        self._verified_at = 0.0  # when this origin last showed a certificate

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection that offers the last session, as `SSLContext.wrap_bio` does with `session=`."""
        if clock.now() - self._verified_at > CERTIFICATE_AGE:
            self._last = None
        session = self._last.session if self._last is not None else None
        return self._context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def succeeded(self, connection: ssl.SSLObject) -> None:
        """Take the session of a connection whose handshake is whole."""
        self._last = connection
        if not connection.session_reused:
            self._verified_at = clock.now()

    def failed(self) -> None:
        """Forget the session: it may be why."""
        self._last = None
