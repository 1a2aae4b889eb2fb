"""The local upstream: an OpenAI-shaped HTTP/1.1 server, a process of its own that does what a request's script says.

Rules: see `firstword.testing.exchange`.
"""

from __future__ import annotations

import ssl

from firstword.testing.exchange import converse
from firstword.testing.witness import arguments, play


def main() -> None:
    """Serve until ended, as the command line says."""
    parser = arguments(__doc__)
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="close connections that are idle for so long")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="serve TLS with these PEM files")
    options = parser.parse_args()
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        context.set_alpn_protocols(["http/1.1"])
    play(
        lambda line, ledger: converse(line, ledger, options.idle),
        address=options.address,
        port=options.port,
        tls=context,
    )


if __name__ == "__main__":
    main()
