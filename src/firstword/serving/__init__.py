"""Run an App under uvicorn, in one process or several, and tell the user how to talk to it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..admission import Gate, is_loopback
from ..errors import ConfigError
from ..telemetry import common_folder
from .aside import Address, bound_aside


@dataclass(frozen=True, slots=True)
class Setup:
    """How a server is set up, as its operator has it. Times are seconds.

    drain_timeout: what turns in progress get when it is told to stop. drain_delay: for the balancer to learn that no
        more should come, on SIGTERM.
    hung_after: for which a worker's event loop may be held before another takes its place; 0 = for ever.
    keep_alive: for the next turn on a connection, which comes after the caller has listened and spoken.
    log: "human" or "json". log_level: "debug", "info", "warning" or "error".
    operator: host and port of what is the operator's alone; None: it is on the callers' port.
    max_connections: how many one process keeps open, where it is granted as many descriptors.
    """

    drain_timeout: float = 10.0
    drain_delay: float = 0.0
    hung_after: float = 60.0
    keep_alive: int = 75
    log: str = "human"
    log_level: str = "info"
    max_connections: int = 20_000
    operator: Address | None = None


SETUP = Setup()


class Servable(Protocol):
    """What this room needs of an App."""

    @property
    def gate(self) -> Gate:
        """Who may come in."""

    @property
    def setup(self) -> Setup:
        """How it is served."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, as ASGI."""


def serve(app: Servable, *, host: str, port: int, public_url: str | None = None) -> None:
    """Serve one App in this process until it is told to stop.

    Raises SystemExit, with a sentence and a hint, when that would not be safe or the port is taken.
    """
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    from .draining import Draining

    try:
        app.gate.check_bind(host)
        check_free(host, port)
        aside = bound_aside(app.setup.operator, port, quiet=app.setup.log == "json")
        say_how(port, public_url, quiet=app.setup.log == "json")
    except ConfigError as error:
        raise SystemExit(f"firstword: {error}") from None
    config = uvicorn.Config(app, host=host, port=port, **options(app.setup))
    server = Draining(config, drain_delay=app.setup.drain_delay)
    with contextlib.suppress(KeyboardInterrupt):
        server.run([config.bind_socket(), *aside] if aside else None)
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


def serve_workers(load: Callable[[], Servable], *, host: str, port: int, workers: int, setup: Setup = SETUP) -> None:
    """Serve from several processes, each with an App of its own from `load`, until this one is told to stop.

    Raises SystemExit when a worker cannot even start.
    """
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    from .workers import Workers, tell_of

    more = options(setup)
    aside = bound_aside(setup.operator, port, quiet=setup.log == "json")
    config = uvicorn.Config(partial(_load_once, load), factory=True, host=host, port=port, workers=workers, **more)
    supervisor = Workers(
        config, config.bind_socket(), drain_delay=setup.drain_delay, hung_after=setup.hung_after, aside=aside
    )
    with common_folder():
        try:
            supervisor.run()
        except OSError as error:
            tell_of(error)
            raise SystemExit(STARTUP_FAILURE) from None
    if supervisor.has_failed:
        raise SystemExit(STARTUP_FAILURE)


def serve_reloading(app: str, *, host: str, port: int, folder: str | None = None, setup: Setup = SETUP) -> None:
    """Serve in another process, which imports the App for itself, and is started again when a file changes.

    app: "module:name", or "module:Class" without a folder. folder: where the module is, and what is watched.
    """
    import uvicorn

    given = {"app_dir": folder, "reload_dirs": [folder]} if folder else {"factory": True}
    uvicorn.run(app, host=host, port=port, reload=True, **given, **options(setup))


def _load_once(load: Callable[[], Servable]) -> Servable:
    """Load a worker's App. What fails here would fail again: the exit code tells the supervisor to start no other."""
    from uvicorn.config import STARTUP_FAILURE

    try:
        return load()
    except ConfigError as error:
        print(f"firstword: {error}", file=sys.stderr, flush=True)  # noqa: T201
    except Exception:
        traceback.print_exc()  # a bug of the user's, who needs the place
    raise SystemExit(STARTUP_FAILURE)


def check_free(host: str, port: int) -> None:
    """Raise ConfigError when another server has the port. What else can be wrong with it, uvicorn says in its log."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} is in use: another server listens on it.",
                hint="stop that server, or take another port: --port, or FIRSTWORD_PORT",
            ) from None


def most_connections(wanted: int) -> int:
    """Return how many connections this process may keep: of the descriptors it is granted, a quarter is for models.

    The system's soft limit is for programs that look at each descriptor in turn; it is raised as far as is needed.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    needed = math.ceil(wanted * 4 / 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < more:
        with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft * 3 // 4)


def options(setup: Setup = SETUP) -> dict[str, Any]:
    """Return how uvicorn is set up for voice: one quiet log, connections kept between a caller's turns."""
    from ..server.protocol import VoiceProtocol
    from ..telemetry.out import log_config

    most, operator = most_connections(setup.max_connections), setup.operator
    return {
        "http": partial(
            VoiceProtocol, max_connections=most, operator_port=operator and operator[1], aside=set[VoiceProtocol]()
        ),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,  # it would write URLs, which may hold a session or a key; a turn has a line of its own
        "log_config": log_config(setup.log, setup.log_level),
        "server_header": False,
        "proxy_headers": False,  # who a caller is must not be for the caller to say
        "timeout_keep_alive": setup.keep_alive,
        "timeout_graceful_shutdown": math.ceil(setup.drain_timeout),
    }


def say_how(port: int, public_url: str | None, *, quiet: bool = False) -> None:
    """Print what the user does next: a command that works at once, and the block for AI Studio when it is public.

    quiet: only what was asked for, since a machine reads the log, which goes to the same place.
    """
    if quiet and not public_url:
        return
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
