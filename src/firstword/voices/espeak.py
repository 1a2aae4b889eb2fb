"""The voice that is always at hand: espeak-ng, spoken by a process beside ours. Robotic, free, and without a network.

The library is asked in a process of its own (`_speaker.py`), which is kept for the next sentence: a fault in C code
must not end the calls of everybody, and word times, which the `espeak-ng` command does not tell, come along.
Measured, with what else was weighed: docs/decisions/0020-a-voice-of-our-own.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import clock
from ..errors import ConfigError, VoiceError
from ..threads import in_thread
from ..turn import Turn
from . import Hear, Sound, Word

DEFAULT = "en-us"
MISSING = "install it: apt-get install libespeak-ng1 (brew install espeak-ng), or choose another voice"
MOST_PROCESSES = 4  # each says some fifty calls' sentences; more would only wait for a core
LONGEST_SAY = 10.0  # seconds; a sentence takes some hundredths

# What a caller may ask for in `audio.voice`. It becomes the name of a file, so it is a language and nothing else.
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8}){0,3}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,40}(\+[A-Za-z0-9]{1,20})?")
# A word of a text, as far as times go: what stands between blanks, or one ideograph.
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


class Espeak:
    """A Voice. `name` is a voice of espeak-ng, a language as a rule, also with a variant: `de`, `en-us+f3`.

    A request's `audio.voice` counts before it when it is the name of a language that espeak-ng has.
    """

    def __init__(self, name: str = DEFAULT) -> None:
        if not NAME.fullmatch(name):
            raise ConfigError(f"espeak-ng has no voice {name!r}.", hint="`espeak-ng --voices` lists them")
        self._name = name
        self._idle: list[_Speaker] = []
        self._lock = threading.Lock()
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def __repr__(self) -> str:
        return f"Espeak({self._name!r})"

    def check(self) -> None:
        """Raise ConfigError when espeak-ng is not installed."""
        try:
            _Speaker().end()
        except VoiceError as error:
            raise ConfigError(error.message, hint=error.hint) from None

    async def open(self) -> None:
        """Start a process, so that the first caller does not wait for it."""
        try:
            if not self._idle:
                self._keep(await _started())
        except VoiceError:
            pass

    async def close(self) -> None:
        """End all processes."""
        with self._lock:
            speakers, self._idle = self._idle, []
        for speaker in speakers:
            speaker.end()

    async def say(self, text: str, hear: Hear, *, turn: Turn) -> None:
        """Give the sound of `text` to `hear`. Raises VoiceError."""
        wanted = turn.aloud.voice if turn.aloud is not None else None
        names = [wanted, self._name] if wanted and LANGUAGE.fullmatch(wanted) else [self._name]
        async with self._one_of_few():
            speaker = self._take()
            if speaker is not None:
                try:
                    head = await self._ask(speaker, text, names)
                except VoiceError:
                    speaker = None  # a kept one may have been ended by the system meanwhile
            if speaker is None:
                speaker = await _started()
                head = await self._ask(speaker, text, names)
            try:
                words = timed(text, head["words"], head["samples"] / head["rate_hz"], head["rate_hz"])
                while pcm := await _within(in_thread(speaker.read), speaker):
                    await hear(Sound(pcm, words))
                    words = ()
            except BaseException:
                speaker.end()  # it is in the middle of an answer that nobody reads
                raise
            self._keep(speaker)

    async def _ask(self, speaker: _Speaker, text: str, names: Sequence[str]) -> dict[str, Any]:
        try:
            head: dict[str, Any] = await _within(in_thread(speaker.ask, text, names), speaker)
            return head
        except BaseException:
            speaker.end()
            raise

    def _take(self) -> _Speaker | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, speaker: _Speaker) -> None:
        with self._lock:
            self._idle.append(speaker)

    def _one_of_few(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = (loop, asyncio.Semaphore(MOST_PROCESSES))
        return self._turns[1]


async def _started() -> _Speaker:
    """Return a new process. One whose caller leaves before it is there is ended when it is."""
    starting = asyncio.ensure_future(in_thread(_Speaker))
    try:
        speaker: _Speaker = await asyncio.shield(starting)
        return speaker
    except asyncio.CancelledError:
        starting.add_done_callback(_end_started)
        raise


def _end_started(starting: asyncio.Future[_Speaker]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().end()


async def _within(answer: Any, speaker: _Speaker) -> Any:
    """Await what a speaker says. One that hangs is ended, so that its thread ends as well."""
    try:
        async with clock.timeout(LONGEST_SAY):
            return await answer
    except (TimeoutError, asyncio.TimeoutError):
        speaker.end()
        raise VoiceError(f"espeak-ng has said nothing for {LONGEST_SAY:g} seconds.", status=504) from None


class _Speaker:
    """One process. Its methods wait, so they are called in threads; `end` is called from anywhere."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("_speaker.py")
        command = [sys.executable, "-I", "-S", str(script)]
        quiet = subprocess.DEVNULL
        try:
            # A session of its own: CTRL+C in a terminal is for the server, which lets its calls end.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, start_new_session=True
            )
        except OSError as error:
            raise VoiceError("The process that speaks could not be started.", detail=str(error.errno)) from None
        try:
            hello = self._line()
        except VoiceError:
            self.end()
            raise
        if "error" in hello:
            self.end()
            raise VoiceError("espeak-ng is not installed on this machine.", status=501, hint=MISSING)

    def ask(self, text: str, names: Sequence[str]) -> dict[str, Any]:
        """Have a text said; return the line before its sound. Raises VoiceError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"text": text, "voices": names}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # ended, by the system or by us
            raise _ended() from None
        return self._line()

    def read(self) -> bytes:
        """Return the next piece of sound; empty at the end. Raises VoiceError."""
        size = int.from_bytes(self._bytes(4), "little")
        return self._bytes(size) if size else b""

    def end(self) -> None:
        """End the process at once. Whoever reads from it is told."""
        process = self._process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError, ValueError):  # what was not written yet has nobody to read it
                pipe.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            raise _ended() from None
        if not line.endswith(b"\n"):
            raise _ended()
        try:
            value: dict[str, Any] = json.loads(line)
        except ValueError:  # of whatever stands in the place of Python, and is none
            raise _ended() from None
        return value

    def _bytes(self, size: int) -> bytes:
        assert self._process.stdout is not None
        try:
            data = self._process.stdout.read(size)
        except (OSError, ValueError):
            raise _ended() from None
        if len(data) < size:
            raise _ended()
        return data


def _ended() -> VoiceError:
    return VoiceError("espeak-ng has ended in the middle of its work.", hint="ask again; a new one is started")


def timed(text: str, begins: Sequence[Sequence[int]], seconds: float, rate_hz: int) -> tuple[Word, ...]:
    """Return the words of a text with their times.

    `begins` are a character's position, counted from 1, and a sample, as espeak-ng tells them: a number has several,
    and some have none. A word lasts until the next one; together they are the text but for blanks at its ends.
    """
    tokens = [match.start() for match in TOKEN.finditer(text)]
    found: list[tuple[int, float]] = []
    number = 0
    for position, sample in begins:
        while number < len(tokens) and tokens[number] < position:
            number += 1
        start = tokens[number - 1] if number else 0
        if not found or start > found[-1][0]:
            found.append((start if found else 0, sample / rate_hz))
    ends = [*found[1:], (len(text), seconds)][: len(found)]
    return tuple(
        Word(text[start:end].strip(), at, until)
        for (start, at), (end, until) in zip(found, ends, strict=True)
        if text[start:end].strip()
    )


def voice(rest: str, *, check: bool = True, **_: Any) -> Espeak:
    """Return the voice of `"espeak:rest"`. check: raise ConfigError when espeak-ng is not installed."""
    espeak = Espeak(rest or DEFAULT)
    if check:
        espeak.check()
    return espeak
