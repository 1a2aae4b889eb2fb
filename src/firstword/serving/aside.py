"""The socket of the operator's own port, beside that of the callers: the same App answers on both.

So whatever the process is asked for inside, it is asked of the very one that serves, and needs no second server.
"""

from __future__ import annotations

import socket
import sys
from typing import TypeAlias

from ..errors import ConfigError

Address: TypeAlias = tuple[str, int]  # host and port


def bound_aside(operator: Address | None, port: int, *, quiet: bool = False) -> list[socket.socket]:
    """Return the bound socket of the operator's port, if there is to be one, and say where it is, unless `quiet`.

    `port` is that of the callers. Raises ConfigError when the operator's cannot be had.
    """
    if operator is None:
        return []
    host, own = operator
    if own == port:
        raise ConfigError(
            f"FIRSTWORD_OPERATOR_PORT is the callers' port {port}.", hint="give it another number, or leave it out"
        )
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, own))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"The operator's port {own} cannot be had: {error.strerror or error}.",
            hint="see FIRSTWORD_OPERATOR_PORT and FIRSTWORD_OPERATOR_HOST",
        ) from None
    bound.set_inheritable(True)
    name = f"[{host}]" if ":" in host else host
    if not quiet:
        print(f"For the operator: http://{name}:{own}/metrics", file=sys.stderr, flush=True)  # noqa: T201
    return [bound]
