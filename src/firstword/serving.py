"""Run an App under uvicorn, and tell the user how to talk to it."""

from __future__ import annotations

import copy
import json
import sys
from typing import Any, Protocol
from urllib.parse import urlsplit

from .admission import Gate, is_loopback
from .errors import ConfigError

KEEP_ALIVE = 75.0  # seconds; a voice engine's next turn comes after the caller has listened and spoken
SHUTDOWN_TIMEOUT = 10.0  # seconds that running turns get when the server is told to stop


class Servable(Protocol):
    """What this room needs of an App."""

    @property
    def gate(self) -> Gate:
        """Who may come in."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, as ASGI."""


def serve(app: Servable, *, host: str, port: int, public_url: str | None = None) -> None:
    """Serve one App in this process until it is told to stop.

    Raises SystemExit, with a sentence and a hint, when that would not be safe.
    """
    import uvicorn

    try:
        app.gate.check_bind(host)
        say_how(port, public_url)
    except ConfigError as error:
        raise SystemExit(f"firstword: {error}") from None
    uvicorn.run(app, host=host, port=port, **options())


def options() -> dict[str, Any]:
    """Return how uvicorn is set up for voice: one quiet log, connections kept between a caller's turns."""
    from uvicorn.config import LOGGING_CONFIG

    from .server.protocol import VoiceProtocol

    logging = copy.deepcopy(LOGGING_CONFIG)
    logging["loggers"]["firstword"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return {
        "http": VoiceProtocol,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,  # it would write URLs, which may hold a session or a key; a turn has a line of its own
        "log_config": logging,
        "server_header": False,
        "proxy_headers": False,  # who a caller is must not be for the caller to say
        "timeout_keep_alive": int(KEEP_ALIVE),
        "timeout_graceful_shutdown": int(SHUTDOWN_TIMEOUT),
    }


def say_how(port: int, public_url: str | None) -> None:
    """Print what the user does next: a command that works at once, and the block for AI Studio when it is public."""
    body = '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello, how are you?"}]}'
    lines = [
        "Try it:",
        f"  curl -N http://localhost:{port}/chat/completions -H 'Content-Type: application/json' \\",
        f"    -H 'Authorization: Bearer KEY' -d '{body}'",
    ]
    if public_url:
        lines += ["", "For AI Studio (put your key and model in):", studio_block(public_url)]
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201


def studio_block(public_url: str) -> str:
    """Return the `llm` block that makes Agora's engine call this server.

    Raises ConfigError for a URL that the engine, which runs in the cloud, cannot reach.
    """
    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or is_loopback(parts.hostname):
        raise ConfigError(
            "The public URL is not one that an engine in the cloud can reach.",
            hint="give it as in --public-url https://xxxxx-8000.app.github.dev",
        )
    url = public_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    llm = {"vendor": "custom", "params": {"model": "demo"}, "api_key": "your-api-key-here", "url": url}
    return json.dumps({"llm": llm}, indent=2)
