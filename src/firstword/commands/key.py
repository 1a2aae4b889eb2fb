"""`firstword key`: make gate keys, list and revoke them in the file of keys, and sign URLs for one session."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..admission.keys import KeyFile, line_of, new_key, read_keys
from ..admission.urls import VALID_FOR, sign_url
from ..errors import ConfigError

FILE = "FIRSTWORD_KEYS_FILE"
SECRET = "FIRSTWORD_URL_SECRET"

commands = typer.Typer(help="Make and revoke gate keys, and sign URLs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the client is called: in the file, in the log, in metrics.")]
File = Annotated[Path | None, typer.Option(help=f"The file of keys; {FILE} when it is set.")]


@commands.command()
def new(
    name: Name,
    file: File = None,
    requests: Annotated[str | None, typer.Option(help="Requests a minute.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens a minute.")] = None,
    concurrent: Annotated[str | None, typer.Option(help="Turns at the same time.")] = None,
    budget: Annotated[str | None, typer.Option(help="Money, in the unit of the price table.")] = None,
    models: Annotated[str | None, typer.Option(help="The only models that may be asked for: m1,m2.")] = None,
) -> None:
    """Make a key, print it once, and add its line to the file of keys; without a file, print the line."""
    given = {"requests": requests, "tokens": tokens, "concurrent": concurrent, "budget": budget, "models": models}
    with _told():
        key, path = new_key(), _file(file)
        line = line_of(name, key, *(f"{field}={value}" for field, value in given.items() if value is not None))
        if path is None:
            typer.echo(f"The line for the file of keys:\n{line}\nThe key, which is shown only now:", err=True)
        else:
            with _alone(path):
                text = path.read_text("utf-8-sig") if path.exists() else ""
                _write(path, (text if not text or text.endswith("\n") else f"{text}\n") + f"{line}\n")
            typer.echo(f"Added to {path}. The key, which is shown only now:", err=True)
    typer.echo(key)


@commands.command(name="list")
def list_keys(file: File = None) -> None:
    """Print the names in the file of keys, and what each may do."""
    with _told():
        grants = KeyFile(_needed(file)).grants.values()
    for grant in sorted(grants, key=lambda each: each.name):
        allowance = grant.allowance
        limits = [(field, getattr(allowance, field)) for field in ("requests", "tokens", "concurrent", "budget")]
        words = [f"{field}={value:g}" for field, value in limits if value is not None]
        if grant.models is not None:
            words.append(f"models={','.join(sorted(grant.models))}")
        typer.echo(" ".join([grant.name, *words]))


@commands.command()
def revoke(name: Name, file: File = None) -> None:
    """Take every key of a client out of the file of keys; a running server sees it within seconds."""
    with _told():
        path = _needed(file)
        with _alone(path):
            KeyFile(path)  # what is not understood is not changed
            lines = path.read_text("utf-8-sig").split("\n")
            kept = [line for line in lines if line.partition("#")[0].split()[:1] != [name]]
            if len(kept) == len(lines):
                raise ConfigError(f"There is no {name!r} in {path}.", hint="firstword key list")
            _write(path, "\n".join(kept))
    typer.echo(f"{name} has no key any more.", err=True)


@commands.command()
def sign(
    url: Annotated[str, typer.Argument(help="Where the server is: https://host, or https://host/vapi.")],
    session: Annotated[str, typer.Argument(help="The one session that the URL is good for.")],
    client: Annotated[str, typer.Option(help="The name in the file of keys whose limits count.")] = "",
    valid_for: Annotated[float, typer.Option(help="Seconds until it expires.")] = VALID_FOR,
) -> None:
    """Print a URL that is good for one session, and for a while; the secret is FIRSTWORD_URL_SECRET."""
    with _told():
        secret = os.environ.get(SECRET, "").strip()
        if not secret:
            raise ConfigError(f"{SECRET} is not set.", hint="make one with: openssl rand -base64 32")
        typer.echo(sign_url(url, session, secret=secret, valid_for=valid_for, client=client))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """End the command with a sentence when something is wrong."""
    try:
        yield
    except ConfigError as error:
        raise SystemExit(f"firstword: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        raise SystemExit(f"firstword: The file of keys cannot be changed: {said}.") from None


def _file(given: Path | None) -> Path | None:
    named = os.environ.get(FILE, "").strip()
    # What a link leads to: the new file is to stand in the place of the old one, not of the link.
    found = given or (Path(named) if named else None)
    return None if found is None else found.resolve()


def _needed(given: Path | None) -> Path:
    path = _file(given)
    if path is None:
        raise ConfigError("It is not said which file.", hint=f"give --file, or set {FILE}")
    return path


def _write(path: Path, text: str) -> None:
    """Put a file in the place of another at once: a server that reads it sees the old one or the new one, whole."""
    read_keys(text, str(path))
    mode, owner = (path.stat().st_mode & 0o777, path.stat()) if path.exists() else (0o600, None)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(number)
        if owner is not None and hasattr(os, "chown"):
            with contextlib.suppress(PermissionError):
                os.chown(name, owner.st_uid, owner.st_gid)  # root edits what the server's user reads
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let two commands change a file one after the other, so that neither loses what the other wrote."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
