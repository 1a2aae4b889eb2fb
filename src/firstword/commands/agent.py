"""`firstword agent`: start an agent of Agora's engine, talk to it, look at it, and stop it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, Error

if TYPE_CHECKING:
    from ..agora.account import Account
    from ..agora.project import Project
    from ..agora.remembered import Started

commands = typer.Typer(
    help="Start an agent of Agora's engine, talk to it, look at it, and stop it.", no_args_is_help=True
)

UID = 1001  # of an agent in its channel, unless it is said otherwise
MAX_UID = 2**32 - 1
WAIT = 60.0  # seconds for an agent to run
PERSON_EXPIRY = 3600  # seconds that a person's token is good for

Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="The agent's id; the one that was started last.")]
Channel = Annotated[str | None, typer.Option(help="Its channel; AGORA_CHANNEL_NAME.")]
Area = Annotated[str | None, typer.Option(help="`global`, or `cn` for mainland China; AGORA_AREA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Properties = Annotated[Path | None, typer.Option(help="A JSON file with properties of the agent.", metavar="FILE")]


@commands.command()
def start(
    url: Annotated[str | None, typer.Option("--url", "--llm-url", help="Where the engine reaches your server.")] = None,
    key: Annotated[str | None, typer.Option("--llm-key", help="The key that it sends; AGORA_LLM_KEY.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that it asks for.")] = None,
    greeting: Annotated[str | None, typer.Option(help="What the agent says first.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="A project of AI Studio; AGORA_PIPELINE_ID.")] = None,
    properties: Properties = None,
    channel: Channel = None,
    name: Annotated[str | None, typer.Option(help="A name that no other agent has; one is made up.")] = None,
    uid: Annotated[int, typer.Option(help="The agent's uid in the channel.", min=1, max=MAX_UID)] = UID,
    user: Annotated[list[str] | None, typer.Option(help="Whom it listens to, by uid; everybody.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it runs, or has failed.")] = False,
    area: Area = None,
    as_json: AsJson = False,
) -> None:
    """Start an agent; it joins a channel, and asks your server for every turn."""
    from ..agora.properties import Wish, doubts, full_url, joining
    from ..agora.remembered import Remembered, Started

    with told():
        account = _account(area=area, channel=channel, pipeline_id=pipeline)
        room = account.channel or f"firstword-{os.urandom(3).hex()}"
        given = _read_properties(properties)
        address = None if url is None else full_url(url)
        key = key or os.environ.get("AGORA_LLM_KEY") or None
        with _project(account, room, uid) as project:
            token = project.token(room, uid) if account.certificate else None
            who = {"channel": room, "uid": uid, "users": user or ["*"], "app_id": account.app_id}
            llm = {"url": address, "key": key, "model": model, "greeting": greeting}
            wish = Wish(**who, **llm, token=token, pipeline_id=account.pipeline_id, properties=given)  # type: ignore[arg-type]
            asked = joining(wish)
            for each in doubts(address):
                _aside(f"warning: {each}")
            if token is None and "token" not in asked:
                _aside("warning: AGORA_APP_CERT is not set: the agent joins without a token.")
            found = project.start(name or f"firstword-{os.urandom(4).hex()}", asked, pipeline_id=account.pipeline_id)
            id = str(found["agent_id"])
            remembered = Remembered.of(os.environ)
            if not remembered.keep(Started(account.app_id, room, id, uid, account.area, time.time())):
                _aside(f"warning: {remembered.path} cannot be written: the other commands need the agent's id.")
            status = str(found.get("status", "")) or "STARTING"
            if wait:
                status = _wait(project, id)
        facts = {"agent_id": id, "status": status, "channel": room, "uid": uid, "area": account.area}
        _show(facts, as_json=as_json)
        if not as_json:
            _aside(
                f"Join the channel to talk to it: firstword agent token --channel {room}\nThen: firstword agent stop"
            )


@commands.command()
def stop(id: Id = None, channel: Channel = None, area: Area = None, as_json: AsJson = False) -> None:
    """Have an agent leave its channel."""
    from ..agora.refusals import AgoraError

    with told(), _the_agent(id, channel, area) as (project, agent):
        try:
            project.stop(agent.agent_id)
        except AgoraError as error:
            if error.refused == 404:
                _forget(agent)  # it is gone, so the next command need not find it
            raise
        _forget(agent)
        _show({"agent_id": agent.agent_id, "status": "STOPPING"}, as_json=as_json)


@commands.command()
def say(
    text: Annotated[str, typer.Argument(help="What it says, at most 512 bytes.")],
    id: Id = None,
    priority: Annotated[str, typer.Option(help="`interrupt`, `append`, or `ignore` when it is busy.")] = "interrupt",
    firm: Annotated[bool, typer.Option("--firm", help="People cannot interrupt it.")] = False,
    channel: Channel = None,
    area: Area = None,
) -> None:
    """Have an agent say something now."""
    with told():
        if priority.lower() not in ("interrupt", "append", "ignore"):
            raise ConfigError("The priority is none of interrupt, append and ignore.", hint="--priority append")
        with _the_agent(id, channel, area) as (project, agent):
            project.say(agent.agent_id, text, priority=priority.upper(), interruptable=not firm)
        typer.echo("said")


@commands.command()
def interrupt(id: Id = None, channel: Channel = None, area: Area = None) -> None:
    """Have an agent be silent, if it speaks or thinks."""
    with told(), _the_agent(id, channel, area) as (project, agent):
        project.interrupt(agent.agent_id)
        typer.echo("interrupted")


@commands.command()
def update(
    id: Id = None,
    properties: Properties = None,
    model: Annotated[str | None, typer.Option(help="Another model; `llm.params` is then written anew.")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="A token for another day.")] = False,
    channel: Channel = None,
    area: Area = None,
) -> None:
    """Change an agent that runs: its model, its prompts, its token."""
    from ..agora.properties import parameters, shown

    with told():
        changes = dict(_read_properties(properties) or {})
        if not (changes or model or new_token):
            raise ConfigError("There is nothing to change.", hint="give --properties, --model or --new-token")
        with _the_agent(id, channel, area) as (project, agent):
            if new_token:
                changes["token"] = project.token(agent.channel, agent.uid)
            if model:
                llm = changes.get("llm")
                own = parameters(model=model, channel=agent.channel, uid=agent.uid, app_id=agent.app_id)
                changes["llm"] = {**(llm if isinstance(llm, dict) else {}), "params": own}
            _aside("This is sent; `llm.params` is replaced whole, and what does not stand here is gone:")
            typer.echo(json.dumps(shown(changes), indent=2, ensure_ascii=False))
            project.update(agent.agent_id, changes)
        _aside("updated")


@commands.command()
def status(id: Id = None, channel: Channel = None, area: Area = None, as_json: AsJson = False) -> None:
    """Show whether an agent runs, and since when."""
    with told(), _the_agent(id, channel, area) as (project, agent):
        found = project.status(agent.agent_id)
        if as_json:
            typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
            return
        times = {"started": _time(found.get("start_ts")), "stopped": _time(found.get("stop_ts"))}
        _show(
            {"agent_id": agent.agent_id, "status": found["status"], **times, "message": found.get("message")},
            as_json=False,
        )


@commands.command()
def history(id: Id = None, channel: Channel = None, area: Area = None, as_json: AsJson = False) -> None:
    """Show what was said so far, while an agent runs."""
    from ..agora.refusals import AgoraError

    with told(), _the_agent(id, channel, area) as (project, agent):
        try:
            said = project.history(agent.agent_id)
        except AgoraError as error:
            if error.refused == 404:
                error.hint = "Agora keeps it only while the agent runs; afterwards webhook 103 has it: docs/webhook.md"
            raise
        if as_json:
            typer.echo(json.dumps(said, indent=2, ensure_ascii=False))
        elif not said:
            _aside("Nothing was said so far.")
        for each in () if as_json else said:
            typer.echo(f"{each.get('role') or '?'}: {each.get('content') or ''}")


@commands.command()
def turns(id: Id = None, channel: Channel = None, area: Area = None, as_json: AsJson = False) -> None:
    """Show each turn of the last days, and how long its parts took, in milliseconds."""
    from ..agora.turns import HEAD, row

    with told(), _the_agent(id, channel, area) as (project, agent):
        found = project.turns(agent.agent_id)
        if as_json:
            typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        elif found:
            typer.echo(table([HEAD, *map(row, found)]))
        else:
            _aside("There was no turn so far.")


@commands.command()
def token(
    uid: Annotated[int, typer.Option(help="Whose; 0 is anybody's.", min=0, max=MAX_UID)] = 0, channel: Channel = None
) -> None:
    """Print a token with which a person can join the channel within the next hour."""
    with told():
        account = _account(channel=channel)
        started = _last(account)
        room = account.channel or (started.channel if started else None)
        if room is None:
            raise ConfigError("It is not known which channel.", hint="give --channel")
        with _project(account, room, UID) as project:
            made = project.token(room, uid, expiry=PERSON_EXPIRY)
        _aside(f"App ID {account.app_id}, channel {room}, uid {uid or 'any'}, good for an hour:")
        typer.echo(made)


# --- what they share ---------------------------------------------------------------------------------


@contextmanager
def told() -> Iterator[None]:
    """Say an error as one sentence and a hint, and exit with 1; with 130 after CTRL+C."""
    try:
        yield
    except Error as error:
        raise SystemExit(f"firstword: {error}") from None
    except KeyboardInterrupt:
        typer.echo("firstword: stopped. An agent that was started goes on: firstword agent status", err=True)
        raise SystemExit(130) from None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text, each column as wide as its longest cell; numbers stand to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            each.rjust(width) if each.isdecimal() else each.ljust(width)
            for each, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _account(**given: str | None) -> Account:
    from ..agora.account import read_account

    account = read_account(os.environ, Path.cwd(), **given)
    if account.source is not None:
        _aside(f"Settings are read from {account.source.name} too.")
    return account


def _project(account: Account, channel: str, uid: int) -> Project:
    from ..agora.project import Project

    return Project(account, channel=channel, uid=uid)


def _last(account: Account) -> Started | None:
    from ..agora.remembered import Remembered

    return Remembered.of(os.environ).find(account.app_id, account.channel)


def _forget(agent: Started) -> None:
    from ..agora.remembered import Remembered

    Remembered.of(os.environ).forget(agent.agent_id)


@contextmanager
def _the_agent(id: str | None, channel: str | None, area: str | None) -> Iterator[tuple[Project, Started]]:
    """Give a project and the agent that is meant: by its id, else the last one started here, else the channel's.

    Raises ConfigError when nobody knows one.
    """
    from ..agora.remembered import Remembered, Started

    account = _account(area=area, channel=channel)
    kept = Remembered.of(os.environ).read()
    agent = _last(account) if id is None else next((each for each in kept if each.agent_id == id), None)
    if agent is None:
        agent = Started(account.app_id, account.channel or "", id or "", UID, account.area, 0.0)
    if area is None:
        account = replace(account, area=agent.area)  # it was started there, whatever is the rule today
    with _project(account, agent.channel, agent.uid) as project:
        if not agent.agent_id:
            agent = replace(agent, agent_id=_one_of(project, agent.channel))
        yield project, agent


def _one_of(project: Project, channel: str) -> str:
    """Return the id of the one agent that runs in a channel. Raises ConfigError when there is none, or several."""
    if not channel:
        raise ConfigError("No agent was started from here.", hint="give its id, or --channel to look for it there")
    found = project.running(channel)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{len(found)} agents run in the channel: {', '.join(found[:10])}.", hint="give the id of one"
        )
    raise ConfigError(
        f"No agent runs in the channel {channel!r}.", hint="was it started in another one? then give --channel"
    )


def _wait(project: Project, id: str) -> str:
    """Return the status of an agent once it runs; whoever does not wait is told how to end it."""
    try:
        return project.wait(id, within=WAIT)
    except BaseException:
        _aside(f"The agent is {id}; it is ended by: firstword agent stop")
        raise


def _read_properties(path: Path | None) -> dict[str, Any] | None:
    """Return the properties in a file, which may be those alone or a whole request to start an agent."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise ConfigError(f"{path} cannot be read.", hint="--properties FILE is a JSON file") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON.", hint="no comments, no comma behind the last entry") from None
    if isinstance(found, dict) and isinstance(found.get("properties"), dict):
        found = found["properties"]
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object.", hint='it is {"llm": {...}, "tts": {...}}')
    return found


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    said = {name.replace("_", " "): str(value) for name, value in facts.items() if value not in (None, "")}
    width = max(map(len, said))
    for name, value in said.items():
        typer.echo(f"{name.ljust(width)}  {value}")


def _aside(text: str) -> None:
    """Say something that is not the result: a pipe reads only that."""
    typer.echo(text, err=True)


def _time(stamp: Any) -> str | None:
    """Return a time of Agora's, in seconds since 1970, as this machine's clock shows it; None when it is not set."""
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not 0 < stamp < 1e11:
        return None
    return datetime.fromtimestamp(stamp).astimezone().isoformat(sep=" ", timespec="seconds")
