"""`firstword engine`: talk to a server as Agora's engine does."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..engine.marks import Marks
    from ..engine.setup import Setup

INTERRUPTED = 130  # the exit code of a program that CTRL+C ended
INDENT = " " * 7


def engine(
    to: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help="The whole URL of the server; with --serve, the file of the App."),
    ] = None,
    key: Annotated[str, typer.Option(help="The key that the server asks for.", envvar="FIRSTWORD_ENGINE_KEY")] = "",
    model: Annotated[str | None, typer.Option(help="The model to name; the demo unless you say another.")] = None,
    llm: Annotated[
        Path | None, typer.Option(help="A file with the llm block of AI Studio or of a Join request.")
    ] = None,
    script: Annotated[Path | None, typer.Option(help="A file with what happens in the call.")] = None,
    greeting: Annotated[str | None, typer.Option(help="What the agent says first.")] = None,
    silence: Annotated[float | None, typer.Option(help="Seconds of silence after which it asks.", min=0.1)] = None,
    rate: Annotated[float | None, typer.Option(help="Signs a second that the agent speaks.", min=0.1)] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Hear words as they come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each turn.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Serve an App in this process, and talk to it.")] = False,
) -> None:
    """Talk to a server as Agora's engine does: type what you say, or play a script."""
    from ..engine.script import ScriptError, read_script
    from ..engine.setup import Setup, read_block

    try:
        setup = Setup()
        if llm is not None:
            read_block(_text_of(llm), setup)
        if key:
            setup.api_key = key
        if model is not None:
            setup.params = {name: value for name, value in setup.params.items() if name != "model"}
            setup.params |= {"model": model} if model else {}
        setup.greeting_message = setup.greeting_message if greeting is None else greeting
        setup.silence_timeout = setup.silence_timeout if silence is None else silence
        setup.rate = 0.0 if fast else setup.rate if rate is None else rate
        steps = None if script is None else read_script(_text_of(script))
        with contextlib.ExitStack() as stack:
            if serve:
                setup.url = stack.enter_context(_hosted(to)).url
            elif to is not None:
                setup.url = to
            show = Programs() if as_json else People()
            code = _run(_call(setup, steps, show))
    except ScriptError as error:
        raise SystemExit(_told(error, 2)) from None
    except ConfigError as error:
        raise SystemExit(_told(error, 1)) from None
    except BrokenPipeError:  # `| head` has seen enough; nor shall the interpreter's end write to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    raise typer.Exit(code)


async def _call(setup: Setup, steps: Any, show: Any) -> int:
    """Have the call, and return the exit code."""
    from ..engine.conversation import Conversation
    from ..engine.line import Wire
    from ..engine.marks import summary
    from ..engine.player import Player
    from ..engine.terminal import Lines, talk
    from ..written import proxy_for

    line = Wire(setup, proxy_for=proxy_for)
    conversation = Conversation(setup, line, show=show)
    player = Player(conversation)
    typed = sys.stdin.fileno() if sys.stdin is not None else -1  # it may be closed
    is_live = steps is None and os.isatty(typed)
    code = 0
    try:
        await line.reach()
        if steps is not None:
            await player.play(steps)
        else:
            if is_live:
                show.note("Type what you say. /help names the commands, CTRL+C hangs up.")
            await talk(conversation, player, Lines(typed), show, is_live=is_live)
    except asyncio.CancelledError:  # CTRL+C
        code = 0 if is_live else INTERRUPTED
    finally:
        await line.close()
    show.end(summary(conversation.turns))
    for failure in player.failures if not is_live else ():
        typer.echo(f"firstword: {failure}", err=True)
        code = code or 1
    return code


def _run(call: Any) -> int:
    """Run a call; CTRL+C cancels it."""

    async def main() -> int:
        task = asyncio.ensure_future(call)
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        return int(await task)

    return asyncio.run(main())


def _hosted(file: str | None) -> Any:
    from ..app import App
    from ..engine.hosted import Hosted
    from .files import DEFAULT_FILE, load

    path = Path(file) if file else DEFAULT_FILE if DEFAULT_FILE.exists() else None
    return Hosted(load(path) if path else App())


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{str(path)!r} cannot be read: {why}.", hint="name another file") from None


def _told(error: ConfigError, code: int) -> int:
    typer.echo(f"firstword: {error}", err=True)
    return code


# --- what is printed ----------------------------------------------------------------------------------


class People:
    """Prints a call for people: words as they are heard, and what each turn was like."""

    def __init__(self) -> None:
        self._is_speaking = False
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a model may say what this terminal cannot show

    def user(self, words: str, source: str) -> None:
        """Print what the user said."""
        name = "engine" if source == "command" else "you"
        self._print(_styled(f"{name:<7}", bold=True) + _shown(words or "(nothing was understood)"))

    def word(self, words: str) -> None:
        """Print a word as it is heard."""
        if not self._is_speaking:
            self._is_speaking = True
            self._write(_styled(f"{'agent':<7}", bold=True))
        self._write(_shown(words))

    def spoken(self) -> None:
        """End the line of the agent."""
        if self._is_speaking:
            self._is_speaking = False
            self._write("\n")

    def note(self, words: str) -> None:
        """Print what nobody hears."""
        self._print(_styled(_shown(words, indent=""), dim=True))

    def turn(self, marks: Marks) -> None:
        """Print what a turn was like."""
        style = {"fg": "red"} if marks.failed else {"dim": True}
        for line in told(marks):
            self._print(_styled(INDENT + _shown(line), **style))

    def end(self, summary: str) -> None:
        """Print the last line."""
        if summary:
            self._print(summary)

    def _print(self, line: str) -> None:
        self.spoken()
        self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class Programs:
    """Prints a line of JSON for each turn; notes go to stderr."""

    def user(self, words: str, source: str) -> None:
        """Print nothing: the turn's own line has it."""

    def word(self, words: str) -> None:
        """Print nothing."""

    def spoken(self) -> None:
        """Print nothing."""

    def note(self, words: str) -> None:
        """Print it where no program reads."""
        typer.echo(words, err=True)

    def turn(self, marks: Marks) -> None:
        """Print the turn."""
        import msgspec

        sys.stdout.write(msgspec.json.encode(marks).decode() + "\n")
        sys.stdout.flush()

    def end(self, summary: str) -> None:
        """Print nothing."""


def told(marks: Marks) -> list[str]:
    """Return the lines that say what a turn was like."""
    lines = []
    if marks.status == 200:
        lines.append(_times({"word": marks.first_word, "sentence": marks.first_sentence, "gap": marks.longest_gap}))
        lines[0] += f"{' · ' if lines[0] else ''}total {marks.total or 0.0:.3f} s"
        wire = _times({"connect": marks.connect, "byte": marks.first_byte, "event": marks.first_event})
        lines.append(f"{wire} · {marks.chunks} chunks" + (f" · {marks.finish_reason}" if marks.finish_reason else ""))
    if marks.interrupted_at is not None:
        lines.append(
            f"interrupted at {marks.interrupted_at:.3f} s: {len(marks.heard)} of {len(marks.text)} signs heard"
        )
    if marks.filler:
        lines.append(f"the engine said a filler: {marks.filler}")
    if marks.tools:
        lines.append(f"tools of the engine: {', '.join(marks.tools)}; {marks.requests} requests")
    if marks.tts_params is not None:
        lines.append(f"tts_params {marks.tts_params}")
    if marks.audio:
        lines.append(f"{marks.audio:.2f} s of sound")
    lines += [f"fault: {fault}" for fault in marks.faults]
    if marks.error:
        lines.append(marks.error)
        lines += [f"hint: {marks.hint}"] if marks.hint else []
    return lines


def _times(named: Mapping[str, float | None]) -> str:
    return " · ".join(f"{name} {seconds:.3f}" for name, seconds in named.items() if seconds is not None)


def _shown(text: str, indent: str = INDENT) -> str:
    """Return a text as it may be shown: what a server says must not move the cursor, or worse."""
    shown = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
    return shown.replace("\n", f"\n{indent}")


def _styled(text: str, **style: Any) -> str:
    return typer.style(text, **style) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
