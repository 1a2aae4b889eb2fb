"""`firstword webhook`: take the events of Agora's engine, and print them as they come."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..events import Event

SECRET = "FIRSTWORD_AGORA_WEBHOOK_SECRET"
PORT = 8001  # beside a server on 8000


def webhook(
    secret: Annotated[str | None, typer.Option(help=f"What Agora signs with; better {SECRET}.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = PORT,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is told, a line of JSON each.")] = False,
) -> None:
    """Print the events of Agora's engine as they come, until CTRL+C: to set notifications up."""
    import uvicorn

    from ..server.routes import EVENTS
    from ..server.webhook import Webhook, alone
    from ..serving import check_free, options
    from ..telemetry import Counts

    secret = (secret or os.environ.get(SECRET) or "").strip()
    try:
        if not secret:
            raise ConfigError(
                f"{SECRET} is not set.", hint="it is the secret of the notifications in Agora's console; or --secret"
            )
        check_free(host, port)
    except ConfigError as error:
        raise SystemExit(f"firstword: {error}") from None
    typer.echo(f"Give Agora the public https URL of this port, with the path {EVENTS}", err=True)

    async def show(event: Event) -> None:
        typer.echo(as_line(event) if as_json else told(event))

    receiver = alone(Webhook(secret, hook=show, counts=Counts(), debug=False))
    uvicorn.run(receiver, host=host, port=port, **options())


def told(event: Event) -> str:
    """Return an event as lines for a person: what happened to whom, and the times of turns; not what was said."""
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    words = [at, str(event.kind), event.name, *filter(None, (event.agent, event.channel))]
    lines = ["  ".join(map(_plain, words))]
    for name in ("message", "module", "code"):  # of an agent that left, and of an error
        value = event.payload.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            lines.append(f"    {name}: {_plain(str(value))}")
    for each in event.turns:
        parts = "  ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in each.latencies.items())
        lines.append(f"    turn {each.number}: {parts or 'no times'}" + (" ms" if parts else ""))
    return "\n".join(lines)


def as_line(event: Event) -> str:
    """Return an event as one line of JSON, with all that it tells: a 103 has what people said."""
    facts = {"kind": event.kind, "name": event.name, "id": event.id, "at": event.at, "payload": event.payload}
    return json.dumps(facts, ensure_ascii=False)


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:200]
