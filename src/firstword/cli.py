"""The `firstword` command."""

from __future__ import annotations

import os
import traceback
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .app import App
from .commands import agent, key, webhook
from .commands.check import check
from .commands.engine import engine
from .commands.files import DEFAULT_FILE, load
from .errors import ConfigError
from .serving import check_free, say_how, serve, serve_reloading, serve_workers

cli = typer.Typer(
    help="firstword: the custom LLM server for voice agents.", no_args_is_help=True, pretty_exceptions_enable=False
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"firstword {__version__}")
        raise typer.Exit


@cli.callback()
def _firstword(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """firstword: the custom LLM server for voice agents."""


@cli.command(name="serve")
def serve_command(
    file: Annotated[
        Path | None, typer.Argument(help="The file with your App; custom_llm.py here when there is one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
    workers: Annotated[int, typer.Option(help="How many processes share the port.", min=1)] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever the file changes.")] = False,
    public_url: Annotated[
        str | None, typer.Option(help="Where the engine reaches this server; prints the block for AI Studio.")
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Serve everybody although the server holds a key.")
    ] = False,
) -> None:
    """Serve an App until CTRL+C."""
    if open_to_all:
        os.environ["FIRSTWORD_OPEN"] = "true"  # also for the processes that workers and reload start
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    try:
        app = load(file) if file else App()
        host = host or app.settings.host
        port = app.settings.port if port is None else port
        app.gate.check_bind(host)
        if file is None:
            typer.echo(f"No {DEFAULT_FILE} here: serving the plain relay.", err=True)
        if workers == 1 and not reload:
            serve(app, host=host, port=port, public_url=public_url)
            return
        check_free(host, port)
        say_how(port, public_url, quiet=app.setup.log == "json")
        if reload:
            os.environ.pop("FIRSTWORD_OPERATOR_PORT", None)  # uvicorn hands one socket on: all is on that one
        if reload and file:
            folder = str(file.resolve().parent)
            serve_reloading(f"{file.stem}:app", host=host, port=port, folder=folder, setup=app.setup)
        elif reload:
            serve_reloading("firstword:App", host=host, port=port, setup=app.setup)
        else:
            make = partial(load, file) if file else App
            serve_workers(make, host=host, port=port, workers=workers, setup=app.setup)
    except ConfigError as error:
        raise SystemExit(f"firstword: {error}") from None


cli.command(name="engine")(engine)
cli.command(name="check")(check)
cli.add_typer(agent.commands, name="agent")
cli.add_typer(key.commands, name="key")
cli.command(name="webhook")(webhook.webhook)


def main() -> None:
    """Run the command."""
    try:
        cli()
    except Exception as error:
        _tell(error)
        raise SystemExit(1) from None


def _tell(error: Exception) -> None:
    """Print a traceback; of a mistake in the user's file only what lies within it, as `python file.py` would."""
    steps, trace = [], error.__traceback__
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    loading = [at for at, step in enumerate(steps) if step.tb_frame.f_code is load.__code__]
    if loading:
        within = [step for step in steps[loading[0] + 1 :] if "importlib" not in step.tb_frame.f_code.co_filename]
        error = error.with_traceback(within[0] if within else None)  # none: a line that is no Python
    traceback.print_exception(error)
