"""A call with somebody who types: a line is what they say, a line with a slash is a command, and it interrupts."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .. import clock
from ..errors import ConfigError
from .conversation import Conversation, Show
from .player import Player
from .script import USAGE, read_step

SPOKEN = ("/say", "/message", "/think", "/quit")
READ = 64 * 1024  # bytes in one go
HELP = """A line is what you say; typed while the agent speaks, it interrupts. Commands:
{verbs}
  /save FILE: keep this call as a script, for --script
  /quit: hang up"""


class Lines:
    """The lines of a file descriptor as they come. A thread reads it: that works for a terminal, a pipe and a file."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str] = deque()
        self._has_ended = False
        self._came = asyncio.Event()
        self.arrived: Callable[[str], None] = lambda line: None
        # Nothing can end a read of a terminal; os.read holds no lock that the interpreter's end would wait for.
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while True:
            try:
                data = os.read(self._number, READ)
            except OSError:  # a terminal that is gone
                data = b""
            *lines, rest = (rest + decoder.decode(data, final=not data)).split("\n")
            lines += [rest] if rest and not data else []
            with contextlib.suppress(RuntimeError):  # the call is over
                self._loop.call_soon_threadsafe(self._take, lines, not data)
            if not data:
                return

    def _take(self, lines: list[str], is_end: bool) -> None:
        for line in lines:
            self._lines.append(line.rstrip("\r"))
            self.arrived(line)
        self._has_ended = self._has_ended or is_end
        self._came.set()

    async def next(self) -> str | None:
        """Return the next line; None at the end."""
        while not self._lines:
            if self._has_ended:
                return None
            self._came.clear()
            await self._came.wait()
        return self._lines.popleft()


async def talk(conversation: Conversation, player: Player, lines: Lines, show: Show, *, is_live: bool) -> None:
    """Have a call until the lines end, or one says /quit.

    is_live: a person types. Then a line interrupts, silence prompts fall due, and a mistake is told and forgotten;
    else it ends the call: raises ConfigError.
    """
    if is_live:
        lines.arrived = lambda line: _interrupt(conversation, line)
    await player.begin()
    number = 0
    while True:
        line = await _next(conversation, lines, is_live)
        if line is None:
            return
        number += 1
        try:
            if await _do(player, line.strip(), number, show):
                return
        except ConfigError as error:
            if not is_live:
                raise
            show.note(str(error))


def _interrupt(conversation: Conversation, line: str) -> None:
    """Interrupt the agent with what the user says; other commands wait until it has spoken."""
    first = line.split()[:1]
    if first and (not first[0].startswith("/") or first[0] in SPOKEN):
        conversation.barge_in()


async def _next(conversation: Conversation, lines: Lines, is_live: bool) -> str | None:
    """Return what is typed next, with the engine's prompts while nothing is."""
    while True:
        timeout = conversation.setup.silence_timeout if is_live else None
        if not timeout:
            return await lines.next()
        try:
            async with clock.timeout(timeout):
                return await lines.next()
        except (TimeoutError, asyncio.TimeoutError):
            await conversation.silence()


async def _do(player: Player, line: str, number: int, show: Show) -> bool:
    """Do what a line says; True when it ends the call. Raises ConfigError."""
    if not line:
        return False
    if not line.startswith("/"):
        await player.do(read_step(f"say {line}", number))
        return False
    verb, _, rest = line[1:].partition(" ")
    if verb == "quit":
        return True
    if verb == "help":
        show.note(HELP.format(verbs="\n".join(f"  /{usage}" for usage in USAGE.values())))
    elif verb == "save":
        show.note(_save(player, rest.strip()))
    elif verb not in USAGE:
        raise ConfigError(f"There is no command /{verb}.", hint="/help names them all")
    else:
        await player.do(read_step(line[1:], number))
    return False


def _save(player: Player, name: str) -> str:
    if not name:
        raise ConfigError("It is not said where to save the call.", hint="/save talk.txt")
    try:
        Path(name).write_text("".join(f"{line}\n" for line in player.lines), "utf-8")
    except OSError as error:
        raise ConfigError(f"{name!r} cannot be written: {error.strerror}.", hint="name another file") from None
    return f"saved as {name}. To play it: --script {name}, with the URL or the --serve of this call"
