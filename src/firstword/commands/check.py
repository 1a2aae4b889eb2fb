"""`firstword check URL`: has the doctor examine a server, and prints what was found, for people or for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..doctor import Check, Examination, Finding, Patient

COLOURS = {"ok": "green", "advice": "cyan", "warning": "yellow", "error": "red", "skipped": "bright_black"}
WIDEST = 100  # characters of a line
INDENT = " " * 9
MOST_NAMED = 4  # checks in one line


def check(
    url: Annotated[str, typer.Argument(help="What the engine calls: the whole URL, with /chat/completions.")] = "",
    key: Annotated[
        str, typer.Option(help="The key that the engine sends.", envvar="FIRSTWORD_CHECK_KEY", show_default=False)
    ] = "",
    model: Annotated[str, typer.Option(help="The model that each request names.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    only: Annotated[str, typer.Option(help="Make these checks only: names separated by commas.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Make a handful of requests.")] = False,
    is_list: Annotated[bool, typer.Option("--list", help="List the checks and what each costs; call nobody.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for one reply.", min=0.1, max=600)] = 30.0,
    header: Annotated[list[str] | None, typer.Option(help="A header for each request, as name:value.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A field for each body, as name=JSON: what the engine's llm.params holds.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Go on although the certificate is not valid.")] = False,
) -> None:
    """Call a custom LLM server as a voice engine does, and say what is wrong and how to mend it.

    Exit code: 0 without errors, 1 with some, 2 when there was nothing to examine.
    """
    from .. import doctor

    try:
        checks = doctor.chosen([name.strip() for name in only.split(",") if name.strip()], is_quick=quick)
        if is_list:
            _list(checks)
            return
        patient = _patient(url, key, model, timeout, header or [], param or [])
    except ValueError as error:
        _refuse(str(error))
    if not as_json:
        cost = doctor.cost(checks)
        say = f"{patient.shown}: {cost} {_many('request', cost)}, for which its provider may charge you."
        typer.echo(say, err=True)
    found = _run(patient, checks, is_insecure=insecure, is_shown=not as_json)
    if as_json:
        typer.echo(json.dumps(told(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    raise typer.Exit(found.code)


def _refuse(message: str) -> None:
    """Say what is wrong with the command's own words, and end with 2."""
    typer.echo(f"firstword: {message}", err=True)
    raise typer.Exit(2)


def _patient(url: str, key: str, model: str, timeout: float, header: list[str], param: list[str]) -> Patient:
    """Return who is examined. Raises ValueError with a sentence and a hint."""
    from ..doctor import Patient
    from ..transport.tls import trust

    _check_url(url)
    if not key.isascii() or any(letter.isspace() for letter in key):
        raise ValueError("The key holds white space, or signs that no header can.\nhint: copy it again")
    return Patient(
        url,
        key=key,
        model=model,
        headers=_headers(header),
        params=_params(param),
        timeout=timeout,
        trust=trust() if url.startswith("https") else None,
    )


def _check_url(url: str) -> None:
    from urllib.parse import urlsplit

    hint = "hint: firstword check https://your-server/chat/completions"
    if not url:
        raise ValueError(f"There is no URL to check.\n{hint}")
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
    except ValueError:  # a port that is no number, half an address
        is_right = False
    if not is_right or not url.isascii() or " " in url:
        raise ValueError(f"This is no http or https URL.\n{hint}")


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name or not name.isascii() or not name.isprintable() or " " in name:
            raise ValueError("A header is not name:value.\nhint: --header 'x-session-id: 7'")
        if not value.isprintable():
            raise ValueError(
                f"The value of the header {name!r} holds signs that no header can.\nhint: look at it again"
            )
        headers[name.lower()] = value
    return headers


def _params(lines: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError("A field is not name=value.\nhint: --param channel=room-7")
        try:
            params[name.strip()] = json.loads(value)
        except ValueError:
            params[name.strip()] = value  # a word without quotes
    return params


def _run(patient: Patient, checks: list[Check], *, is_insecure: bool, is_shown: bool) -> Examination:
    import asyncio

    from ..doctor import examine

    is_terminal = is_shown and sys.stderr.isatty()
    over = 0

    def progress(check: Check) -> None:
        nonlocal over
        over += 1
        if is_terminal:
            typer.echo(f"\r\x1b[K{over} of {len(checks)} checks: {check.name}", err=True, nl=False)

    try:
        return asyncio.run(examine(patient, checks, is_insecure=is_insecure, progress=progress))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        if is_terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)


def told(found: Examination) -> dict[str, Any]:
    """Return what was found, as JSON has it."""
    return {
        "url": found.url,
        "reached": found.reached,
        "requests": found.requests,
        "exit_code": found.code,
        "findings": [
            {
                "check": finding.check,
                "level": finding.level.value,
                "fault": finding.fault.name if finding.fault else None,
                "says": finding.fault.says if finding.fault else None,
                "seen": finding.seen,
                "also": list(finding.also),
                "why": finding.fault.why if finding.fault else None,
                "mend": finding.fault.mend if finding.fault else None,
            }
            for finding in found.findings
        ],
    }


def _print(found: Examination) -> None:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    for finding in found.findings:
        mark = typer.style(f"{finding.level.value:<8}", fg=COLOURS[finding.level.value])
        for at, line in enumerate(_lines(finding, width)):
            typer.echo(f"{mark} {line}" if at == 0 else f"{INDENT}{line}")
    typer.echo("")
    typer.echo(summary(found))


def _lines(finding: Finding, width: int) -> list[str]:
    room = max(width - len(INDENT), 30)
    if finding.fault is None:
        return textwrap.wrap(f"{finding.check}: {finding.seen}", room, subsequent_indent="  ")
    fault = finding.fault
    lines = textwrap.wrap(f"{finding.check}: {fault.says} ({fault.name})", room, subsequent_indent="  ")
    told = (("seen", finding.seen), ("also in", _few(finding.also)), ("why", fault.why), ("mend", fault.mend))
    for word, text in told:
        if text:
            lines += textwrap.wrap(f"{word}: {text}", room, initial_indent="  ", subsequent_indent="        ")
    return lines


def _few(names: tuple[str, ...]) -> str:
    """Return some of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def summary(found: Examination) -> str:
    """Return the last line: how many of each level."""
    from ..doctor import Level

    counts = [(level, found.count(level)) for level in reversed(Level)]
    words = ", ".join(f"{number} {_many(level.value, number)}" for level, number in counts)
    asked = f"{found.requests} {_many('request', found.requests)}."
    return f"{words}. {asked}" if found.reached else f"{words}. There was nothing to examine."


def _many(word: str, number: int) -> str:
    return f"{word}s" if word in ("error", "warning", "request") and number != 1 else word


def _list(checks: list[Check]) -> None:
    longest = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{check.name:<{longest}}  {check.requests:>2}  {check.tries}")
    typer.echo(f"\n{sum(check.requests for check in checks)} requests in all.")
