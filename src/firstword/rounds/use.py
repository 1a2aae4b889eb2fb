"""Use the tools that one answer calls: all at once, each in its time, and whatever goes wrong is told to the model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .. import clock
from ..action import Action
from ..calls import Call
from ..errors import ActionError, ToolError
from ..mistakes import log_mistake
from ..tools import Tool
from ..turn import Called, Turn
from ..who import moment_of
from .jobs import END_TIMEOUT, Job, Jobs, Outcome

log = logging.getLogger("firstword")

AT_ONCE = 8  # calls of one turn that run at the same time; the others wait
STILL_RUNNING = "It is not done yet. Its result comes later; do not call it again."


@dataclass(frozen=True, slots=True)
class Limits:
    """What a turn's tools may take.

    rounds: how often a model may call some before it has to answer. timeout: seconds, for a tool without one of its
    own. result: bytes; what is over is cut. debug: what a mistake says is logged, which may hold callers' words.
    """

    rounds: int = 5
    timeout: float = 10.0
    result: int = 32 * 1024
    debug: bool = False


class Uses:
    """The uses of tools in one turn."""

    def __init__(self, turn: Turn, tools: Mapping[str, Tool], jobs: Jobs, limits: Limits) -> None:
        self._turn = turn
        self._tools = tools
        self._jobs = jobs
        self._limits = limits
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._telling: list[Job] = []  # whose results the model is told in the round that comes

    def late(self) -> list[tuple[Call, str]]:
        """Return the calls of earlier turns of the session whose end no model was told, with what to say of each."""
        found = []
        for job in self._jobs.untold(self._turn):
            if job.task.done():
                self._telling.append(job)
            found.append((job.call, _result(job.task).text if job.task.done() else STILL_RUNNING))
        return found

    def were_told(self) -> None:
        """Note that the model has answered to all results there were."""
        for job in self._telling:
            job.told = moment_of(self._turn)
        self._telling.clear()

    async def run(self, calls: Sequence[Call], meanwhile: Callable[[], Awaitable[None]]) -> list[str]:
        """Run what is called, and `meanwhile` as well; return what the model is told of each call, in order."""
        tasks = [asyncio.ensure_future(self._use(call)) for call in calls]
        try:
            await meanwhile()
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _use(self, call: Call) -> str:
        began = clock.now()
        span = "" if self._turn.trace is None else self._turn.trace.tool()
        outcome = await self._outcome(call)
        seconds = clock.now() - began
        arguments = call.item["function"]["arguments"]
        self._turn.called.append(Called(call.name, arguments, outcome.text, outcome.kind, seconds, began, span))
        if outcome.kind != "answered":
            name = call.name if call.name in self._tools else ""  # else it is the model's own words
            log.warning("tool call id=%s name=%s outcome=%s seconds=%.4f", self._turn.id, name, outcome.kind, seconds)
        return outcome.text

    async def _outcome(self, call: Call) -> Outcome:
        if call.arguments is None:
            return Outcome(f"Error: {call.fault}", "refused")
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            return Outcome(f"Error: there is no tool of this name. There are: {known}.", "unknown")
        async with self._gate:
            if tool.commits:
                return await self._commit(tool, call, call.arguments)
            return await self._run(tool, call.arguments)

    async def _run(self, tool: Tool, arguments: dict[str, Any]) -> Outcome:
        """Run a tool that may be cancelled."""
        within = tool.timeout or self._limits.timeout
        task = asyncio.ensure_future(outcome_of(tool, arguments, self._turn, self._limits))
        try:
            done, _ = await asyncio.wait({task}, timeout=within)
            return _result(task) if done else Outcome(f"Error: no result within {within:g} seconds.", "timed_out")
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=END_TIMEOUT)
                if not task.done():
                    self._jobs.keep(task)
                    log.warning("tool does not end when it is cancelled name=%s", tool.name)

    async def _commit(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Outcome:
        """Run a tool that is not cancelled once it has begun, or hear the result of whoever began it."""
        within = tool.timeout or self._limits.timeout
        job = self._jobs.begin(self._turn, call, lambda: outcome_of(tool, arguments, self._turn, self._limits))
        try:
            done, _ = await asyncio.wait({job.task}, timeout=within)
        finally:
            self._turn.lingers = self._turn.lingers or not job.task.done()
        if not done:
            return Outcome(STILL_RUNNING, "continues")
        self._telling.append(job)
        outcome = _result(job.task)
        if outcome.action is not None and self._turn.action is None:
            self._repeat(outcome.action)
        return outcome

    def _repeat(self, action: Action) -> None:
        """Ask for what a job has asked for that was begun when this turn was sent before."""
        try:
            self._turn.act(action)
        except ActionError as error:
            log.warning("no action id=%s reason=%r", self._turn.id, error.message)


async def outcome_of(tool: Tool, arguments: dict[str, Any], turn: Turn, limits: Limits) -> Outcome:
    """Call a tool. Whatever it raises becomes an outcome, but not what ends the task or the process."""
    before = turn.action
    try:
        text = cut(text_of(await tool.call(arguments, turn)), limits.result)
        return Outcome(text, "answered", None if turn.action is before else turn.action)
    except (ToolError, ActionError) as error:
        said = f"Error: {error.message}" + (f" {error.hint}" if error.hint else "")
        return Outcome(cut(said, limits.result), "refused")
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit would end the server, any other the turn, and each one that is told it
        log_mistake(f"mistake in a tool id={turn.id} name={tool.name}", error, debug=limits.debug)
        return Outcome("Error: the tool failed.", "failed")


def text_of(result: Any) -> str:
    """Return what the model is told of a tool's result: a string as it is, anything else as JSON.

    Raises TypeError when JSON cannot hold it.
    """
    if result is None:
        return "Done."
    if isinstance(result, str):
        return result or "(empty)"
    return msgspec.json.encode(result, enc_hook=_plain).decode()


def cut(text: str, limit: int) -> str:
    """Return a text of at most `limit` bytes, and a note for the model when more was there."""
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode("utf-8", "replace")  # half a character cannot be sent: the turn that tells it would fail
    if len(data) <= limit:
        return data.decode()
    return data[:limit].decode("utf-8", "ignore") + f"\n(cut: these are {limit} of {len(data)} bytes; ask for less)"


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a pydantic model."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled():  # by the tool itself: nobody else cancels what is waited for
        return Outcome("Error: the tool was cancelled.", "failed")
    return task.result()
