"""Plays the steps of a script, or of somebody who types, in one call; keeps them, and counts what failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..errors import ConfigError
from .conversation import Conversation, Interruption
from .marks import Marks
from .script import Expectation, ScriptError, Step

SETTINGS = ("set", "param", "tool", "who", "presence")  # may come before the greeting


class Player:
    """Does one step after the other. `lines` are those that were done, as a script.

    failures: what was expected and is not so, and turns that failed without anybody expecting anything of them.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._has_begun = False
        self._unasked: list[tuple[int, Marks]] = []  # turns of which nothing was expected yet, with their line
        self._failures: list[str] = []
        self.lines: list[str] = []
        self._does: dict[str, Callable[..., Any]] = {
            "say": conversation.say,
            "message": lambda words: conversation.say(words, "message"),
            "think": lambda words: conversation.say(words, "command"),
            "speak": conversation.speak,
            "silence": conversation.silence,
            "wait": conversation.wait,
            "again": conversation.again,
            "image": conversation.images.append,
            "interrupt": self._interrupt,
            "who": self._who,
            "presence": self._presence,
            "set": self._set,
            "param": self._param,
            "tool": conversation.setup.own,
        }

    @property
    def failures(self) -> list[str]:
        """What went wrong, a sentence each."""
        failed = [f"line {number}: {marks.error}" for number, marks in self._unasked if marks.error is not None]
        return self._failures + failed

    async def begin(self) -> None:
        """Let the engine greet, once."""
        if not self._has_begun:
            self._has_begun = True
            await self._conversation.greet()

    async def play(self, steps: Iterable[Step]) -> None:
        """Do all steps. Raises ScriptError for a setting that is wrong."""
        for step in steps:
            await self.do(step)

    async def do(self, step: Step) -> None:
        """Do one step. Raises ScriptError."""
        if step.verb == "expect":
            self._expect(step.number, step.values[0])
            self.lines.append(step.text)
            return
        if step.verb not in SETTINGS:
            await self.begin()
        turns, place = self._conversation.turns, len(self.lines)
        known, was_armed = len(turns), self._conversation.interruption is not None
        self.lines.append(step.text)
        try:
            doing = self._does[step.verb](*step.values)
            if isinstance(doing, Awaitable):
                await doing
        except ScriptError:
            raise
        except ConfigError as error:
            raise ScriptError(f"Line {step.number}: {error.message}", hint=error.hint) from None
        finally:
            self._unasked += [(step.number, each) for each in turns[known:]]
        last = turns[-1] if turns[known:] else None
        if last is not None and last.interrupted_at is not None and not was_armed and step.verb != "again":
            self.lines.insert(place, f"interrupt {last.interrupted_at:.2f}")  # the user typed

    def _expect(self, number: int, expectation: Expectation) -> None:
        turns = self._conversation.turns
        if not turns:
            self._failures.append(f"line {number}: expected {expectation.told}, and there was no turn yet")
            return
        self._unasked = [each for each in self._unasked if each[1] is not turns[-1]]
        wrong = expectation.check(turns[-1])
        if wrong:
            self._failures.append(f"line {number}: {wrong}")

    def _interrupt(self, interruption: Interruption) -> None:
        self._conversation.interruption = interruption

    def _who(self, uid: str, voices: list[str]) -> None:
        self._conversation.setup.user, self._conversation.setup.vpids = uid, voices

    def _presence(self, name: str, value: str) -> None:
        setup = self._conversation.setup
        setup.presence = {**setup.presence, setup.user: {**setup.presence.get(setup.user, {}), name: value}}

    def _set(self, name: str, value: str) -> None:
        if name in ("url", "api_key", "headers"):
            raise ConfigError(f"{name} is not for a script to say.", hint="the command takes it: --key, --llm")
        self._conversation.setup.put(name, value)

    def _param(self, name: str, value: Any) -> None:
        params = {**self._conversation.setup.params, name: value}
        self._conversation.setup.params = {name: each for name, each in params.items() if each is not None}
