"""A model in a process of its own beside the server: started, asked, left and ended.

It answers one turn at a time. The others wait in the order in which they came, none longer than for a first word, and
who hangs up is gone from the line at once. A process that ends is started again with the next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, TypeVar

import msgspec

from . import clock
from .chunk import Chunk
from .errors import BadRequest, UpstreamConnectError, UpstreamError, UpstreamTimeout, UpstreamTruncated
from .local.lines import Asked, Broken, Ended, Leave, Order, Ready, Refused, Told, Words, line, read_told
from .providers import Housed
from .telemetry import LEFT, Counts, status_of
from .turn import Send, Turn

log = logging.getLogger("firstword")

STUCK = 5.0  # seconds that a process gets to notice that somebody has left; then it is ended
LONGEST_LINE = 1024 * 1024  # bytes

T = TypeVar("T")


class Beside:
    """The model of a provider, as a `CallNext`: `answer`. It costs nothing until it is warmed, or asked."""

    def __init__(self, provider: Housed, name: str, counts: Counts | None = None) -> None:
        self.name = name
        self._counts = counts
        self._provider = provider
        self._line = asyncio.Lock()
        self.waiting = 0  # turns in the line
        self._starting: asyncio.Task[_Process] | None = None

    def warm(self) -> None:
        """Start the process, and load the model, without waiting for it."""
        self._start()

    def unready(self) -> str | None:
        """Return what keeps a model that was warmed from answering at once, a sentence; None = nothing."""
        if self._starting is None:
            return None
        if not self._starting.done():
            return f"The model {self.name!r} is being loaded."
        if not _is_well(self._starting):
            return f"The process of the model {self.name!r} does not run."
        return None

    async def answer(self, turn: Turn, send: Send) -> None:
        """Let the model answer a turn, when those before it have been.

        Raises BadRequest, and an UpstreamError when it cannot be started, is too slow, or its process ends.
        """
        asked = turn.timeline.asked = clock.now()
        order = self._provider.order(turn.request)
        patience = _Patience(turn, self.name, asked)
        status = LEFT
        try:
            await self._wait_in_line(patience)
            try:
                process = await patience.waits(asyncio.shield(self._start()))
                turn.timeline.answered = clock.now()
                await self._play(turn, send, process, order, patience)
                status = "200"
            finally:
                self._line.release()
        except UpstreamError as error:
            error.model, error.began = self.name, turn.timeline.spoke is not None
            status = status_of(error)
            raise
        finally:
            if self._counts is not None:
                self._counts.note_request(self.name, status)

    async def _wait_in_line(self, patience: _Patience) -> None:
        self.waiting += 1
        try:
            await patience.waits(self._line.acquire())
        finally:
            self.waiting -= 1

    async def _play(self, turn: Turn, send: Send, process: _Process, order: Order, patience: _Patience) -> None:
        chunk = partial(turn.chunk, created=int(time.time()))
        role = {"role": "assistant"}
        told = process.take(order)
        try:
            while not isinstance(said := await patience.waits(told.get()), Ended):
                words = chunk({**role, "content": _words(turn, said)})
                role = {}
                turn.hears(words)
                await send(words)
                patience.heard()
        finally:
            process.leave()
        if self._counts is not None:
            self._counts.note_tokens(self.name, _usage(said))
        turn.corked = True  # usage, or `[DONE]`, follows at once
        await send(chunk({**role, "content": ""} if role else {}, said.reason))
        if not turn.stream or _wants_usage(turn):
            await send(Chunk({**chunk({}).data, "choices": [], "usage": _usage(said)}))

    def _start(self) -> asyncio.Task[_Process]:
        """Return the process that runs or starts, else start one."""
        if self._starting is None or (self._starting.done() and not _is_well(self._starting)):
            self._starting = asyncio.ensure_future(_Process.start(self._provider.command()))
        return self._starting

    async def close(self) -> None:
        """End the process."""
        starting, self._starting = self._starting, None
        if starting is None:
            return
        if not starting.done():
            starting.cancel()
        await asyncio.wait((starting,))
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().close()


def _is_well(starting: asyncio.Task[_Process]) -> bool:
    return not starting.cancelled() and starting.exception() is None and starting.result().runs


class _Patience:
    """How long a turn waits: until its first word as for any model, then for each next one."""

    def __init__(self, turn: Turn, name: str, asked: float) -> None:
        self._turn = turn
        self._name = name
        self._until = asked + turn.policy.first_token_timeout
        self._phase = "first token"

    def heard(self) -> None:
        """A word has come, and is passed on."""
        self._until = clock.now() + self._turn.policy.stall_timeout
        self._phase = "stall"

    async def waits(self, what: Awaitable[T]) -> T:
        """Wait for something. Raises UpstreamTimeout when it takes too long."""
        try:
            async with clock.timeout(max(self._until - clock.now(), 0.0)):
                return await what
        except asyncio.TimeoutError:
            said = "did not speak in time" if self._phase == "first token" else "fell silent in its answer"
            raise UpstreamTimeout(
                f"The model {self._name!r} {said}.",
                phase=self._phase,
                hint="it answers one caller at a time; a faster machine, or a shorter conversation, helps",
            ) from None


def _words(turn: Turn, said: Told) -> str:
    """Return some words. Raises what anything else means."""
    if isinstance(said, Words):
        return said.text
    if isinstance(said, Refused):
        raise BadRequest(
            f"`{said.field}` is more than the model on this machine can do.",
            param=said.field,
            hint="send a simpler JSON schema: types, properties, items, enum and $ref within it",
        )
    assert isinstance(said, Broken)
    if turn.timeline.spoke is not None:
        raise UpstreamTruncated("The model's process has ended within its answer.", detail=said.why)
    raise UpstreamConnectError("The model's process has ended.", detail=said.why)


def _wants_usage(turn: Turn) -> bool:
    options = turn.request.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _usage(ended: Ended) -> dict[str, Any]:
    return {
        "prompt_tokens": ended.asked,
        "completion_tokens": ended.said,
        "total_tokens": ended.asked + ended.said,
        "prompt_tokens_details": {"cached_tokens": ended.cached},
    }


class _Process:
    """A running process, with the model loaded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._asked, self._told = process.stdin, process.stdout
        self._number = 0
        self._hearing: asyncio.Queue[Told] | None = None  # who waits for the order that was given last
        self._left: dict[int, asyncio.TimerHandle] = {}  # orders that nobody waits for, and that are not over
        self._reading: asyncio.Task[None] | None = None
        self.runs = True

    @classmethod
    async def start(cls, command: list[str]) -> _Process:
        """Start one, and wait until its model is loaded. Raises UpstreamConnectError."""
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            started = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=nowhere, limit=LONGEST_LINE
            )
        except OSError as error:
            raise UpstreamConnectError("The model's process cannot be started.", detail=str(error.errno)) from None
        process = cls(started)
        try:
            first = await process._next()
            if not isinstance(first, Ready):
                why = first.why if isinstance(first, Broken) else "it spoke too soon"
                log.warning("the model's process did not start why=%s", why)
                raise UpstreamConnectError("The model cannot be loaded.", detail=why)
        except BaseException:
            await process.close()
            raise
        process._reading = asyncio.ensure_future(process._read())
        return process

    def take(self, order: Order) -> asyncio.Queue[Told]:
        """Give it an order, and return where the answer comes."""
        self._number += 1
        self._hearing = asyncio.Queue()
        self._say(msgspec.structs.replace(order, number=self._number))
        if not self.runs:
            self._hearing.put_nowait(Broken("it has ended"))
        return self._hearing

    def leave(self) -> None:
        """Wait no more for the order that was given, if it is not over."""
        if self._hearing is not None:
            self._hearing = None
            self._say(Leave(self._number))
            self._left[self._number] = asyncio.get_running_loop().call_later(STUCK, self._kill)

    def _say(self, asked: Asked) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # it has ended, which `_read` tells
            self._asked.write(line(asked))

    async def _next(self) -> Told:
        try:
            data = await self._told.readline()
            return read_told(data) if data else Broken("it has ended")
        except (OSError, ValueError):  # a line without end, or one that is none of ours
            return Broken("it spoke in riddles")

    async def _read(self) -> None:
        """Pass on what it says to who waits for it, until it has ended."""
        while not isinstance(said := await self._next(), Broken):
            number = getattr(said, "number", 0)
            is_over = isinstance(said, (Ended, Refused))
            if is_over and number in self._left:
                self._left.pop(number).cancel()
            if number == self._number and self._hearing is not None:
                self._hearing.put_nowait(said)
                self._hearing = None if is_over else self._hearing
        was_meant, self.runs = not self.runs, False
        self._kill()
        status = await self._process.wait()
        if not was_meant:
            log.warning("the model's process has ended status=%s why=%s", status, said.why)
        if self._hearing is not None:
            self._hearing.put_nowait(said)
        for timer in self._left.values():
            timer.cancel()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End it, and wait until it has."""
        self.runs = False
        self._kill()
        await (self._reading or self._process.wait())
