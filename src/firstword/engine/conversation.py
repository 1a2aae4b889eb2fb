"""One call: who speaks when, what is remembered of it, and what each turn was like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from .line import Line, Unreached
from .marks import Marks, Stopwatch
from .memory import Memory
from .reply import Reply
from .setup import Setup
from .voice import Voice, stopping_at

MAX_ROUNDS = 8  # of tools in one turn; a model that calls without end is cut off

Json = dict[str, Any]


class Show(Protocol):
    """Whom a call is shown to."""

    def user(self, words: str, source: str) -> None:
        """A person, or the engine in their place, said something."""

    def word(self, words: str) -> None:
        """A word of the agent was heard."""

    def spoken(self) -> None:
        """The agent speaks no more."""

    def note(self, words: str) -> None:
        """Something happened that nobody hears."""

    def turn(self, marks: Marks) -> None:
        """A turn is over."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """When the user cuts a reply off: as soon as these words were heard, or `after` seconds from the request."""

    words: str | None = None
    after: float | None = None


@dataclass(slots=True)
class _Sent:
    """A turn as it was sent, for who sends it again. position: where in the memory its reply stands.

    source: where its words come from. replies: where the reply's do, as the memory tells.
    """

    body: Json
    said: str
    source: str
    position: int
    replies: str = "llm"


class Conversation:
    """A call with a server. `now` tells the seconds since 1970.

    turns: the marks of those that are over. images: URLs that go out with the next turn. interruption: of the next one.
    """

    def __init__(self, setup: Setup, line: Line, *, show: Show, now: Callable[[], float] = time.time) -> None:
        self.setup = setup
        self.memory = Memory(setup)
        self.turns: list[Marks] = []
        self.images: list[str] = []
        self.interruption: Interruption | None = None
        self._line = line
        self._show = show
        self._now = now
        self._barged: asyncio.Event | None = None  # while the agent may be interrupted
        self._sent: _Sent | None = None

    # --- what happens in a call ----------------------------------------------------------------------

    async def greet(self) -> None:
        """Say the greeting, if there is one."""
        if self.setup.greeting_message:
            await self.speak(self.setup.greeting_message, "greeting")

    async def say(self, words: str, source: str = "asr") -> None:
        """Have the user say something, blank when nothing was understood, and hear the reply.

        source: "asr" for speech, "message" for what was typed, "command" for what the engine was told to think.
        """
        self._show.user(words, source)
        message = self.memory.hear(words, at=self._now(), source=source)
        images, self.images = self.images, []
        body = self.memory.request(images=images, at=message["timestamp"] / 1000)
        self._sent = _Sent(body, words, source, len(self.memory.messages))
        await self._answer(self._sent)

    async def again(self, times: int = 1, after: float | None = None) -> None:
        """Send the last turn again, so many times; each but the last is closed `after` seconds, or heard to its end."""
        if self._sent is None:
            self._show.note("there is no turn to send again")
            return
        for left in reversed(range(times)):
            self._show.note("the same turn again")
            del self.memory.messages[self._sent.position :]
            if left and after is not None:
                self.interruption = Interruption(after=after)
            await self._answer(self._sent)

    async def silence(self) -> None:
        """Let the user be silent for too long: the engine asks, or has the model ask."""
        if self.setup.silence_action == "think":
            await self.say(self.setup.silence_message, "command")
        else:
            await self.speak(self.setup.silence_message, "silence")

    async def wait(self, seconds: float) -> None:
        """Let the user say nothing for so long, silence prompts included."""
        timeout = self.setup.silence_timeout
        while timeout and seconds >= timeout:
            await asyncio.sleep(timeout)
            seconds -= timeout
            await self.silence()
        await asyncio.sleep(seconds)

    async def speak(self, words: str, source: str = "command") -> None:
        """Have the agent say this, without a model; where all output is audio, the server gives it a voice."""
        self.memory.turn += 1
        began, self._sent = self._now(), None
        if self.setup.speaks_only:
            body = self.memory.request(spoken=words, at=began)
            await self._answer(_Sent(body, "", source, len(self.memory.messages), replies=source))
            return
        voice, stopped = await self._hear(Marks(), lambda voice: _say(voice, words))
        self._remember(words, voice.heard, stopped, at=began, source=source)

    def barge_in(self) -> bool:
        """Interrupt the agent; False when nobody speaks."""
        if self._barged is None:
            return False
        self._barged.set()
        return True

    # --- one turn ------------------------------------------------------------------------------------

    async def _answer(self, sent: _Sent) -> None:
        began, watch = self._now(), Stopwatch()
        marks = Marks(turn=self.memory.turn, said=sent.said, source=sent.source)
        self.turns.append(marks)
        before = 0  # signs of what was said before tools were called

        async def listen(voice: Voice) -> None:
            nonlocal before
            body = sent.body
            for _ in range(MAX_ROUNDS):
                reply = Reply(marks, watch, voice.say)
                await self._line.post(msgspec.json.encode(body), reply)
                calls = reply.end()
                if not calls:
                    return
                marks.tools += [call["function"]["name"] for call in calls]
                self.memory.called(reply.text, calls)
                before = len(marks.text)
                body = self.memory.request(at=began)
            marks.fail(f"The model called tools {MAX_ROUNDS} times in one turn.", "an engine gives up some time")

        voice, stopped = await self._hear(marks, listen, is_turn=True)
        marks.heard, marks.interrupted = voice.heard, stopped
        if stopped:
            marks.interrupted_at = watch.read()
        if marks.total is None:
            marks.total = watch.read()
        at = began + (marks.first_word or marks.total)
        self._remember(marks.text[before:], voice.heard[before:], stopped, at=at, source=sent.replies)
        self._show.turn(marks)
        if marks.failed and not marks.text and self.setup.failure_message:
            words = self.setup.failure_message
            await self._hear(Marks(), lambda voice: _say(voice, words))
            self.memory.add("assistant", words, at=self._now(), source="llm_failure")

    def _remember(self, text: str, heard: str, stopped: bool, *, at: float, source: str) -> None:
        """Remember what was spoken; and what was generated, where that is more."""
        if not text:
            return
        if not stopped:
            self.memory.add("assistant", text, at=at, source=source)
            return
        moment = {"interrupt_timestamp": round(self._now() * 1000)}
        self.memory.add("assistant", heard, at=at, source=source, interrupted=True, **moment, original=text)

    async def _hear(
        self, marks: Marks, listen: Callable[[Voice], Awaitable[None]], *, is_turn: bool = False
    ) -> tuple[Voice, bool]:
        """Play what `listen` brings until all was heard or the user interrupts; return the voice, and if they did.

        When they do, `listen` is cancelled, which closes its connection. is_turn: a server is asked, so that the next
        interruption is meant, and the engine fills a silence.
        """
        interruption = Interruption()
        if is_turn and self.interruption is not None:
            interruption, self.interruption = self.interruption, None
        stops = stopping_at(interruption.words) if interruption.words else lambda heard: False
        tell = self._show.word
        voice = Voice(self.setup.rate, tell=tell, stops=lambda heard: stops(heard) and self._may_stop(marks))
        self._barged = asyncio.Event()
        tasks = [
            asyncio.create_task(self._listen(listen, voice, marks)),
            asyncio.create_task(voice.play()),
            asyncio.create_task(self._interrupted(interruption.after, marks)),
        ]
        if is_turn and self.setup.filler_words:
            tasks.append(asyncio.create_task(self._fill(voice, marks)))
        try:
            await asyncio.wait(tasks[1:3], return_when=asyncio.FIRST_COMPLETED)
            stopped = not tasks[1].done() or bool(tasks[1].result())
        finally:
            self._barged = None
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._show.spoken()
        for each in ended:
            if isinstance(each, Exception):
                raise each
        return voice, stopped

    async def _listen(self, listen: Callable[[Voice], Awaitable[None]], voice: Voice, marks: Marks) -> None:
        try:
            await listen(voice)
        except Unreached as error:
            marks.fail(error.message, error.hint)
        finally:
            voice.end()

    async def _interrupted(self, after: float | None, marks: Marks) -> None:
        """Return when the user interrupts, and the reply may be interrupted."""
        assert self._barged is not None
        barged = self._barged
        timer = None if after is None else asyncio.get_running_loop().call_later(after, barged.set)
        try:
            await barged.wait()
            if not self._may_stop(marks):
                await asyncio.get_running_loop().create_future()  # never
        finally:
            if timer is not None:
                timer.cancel()

    def _may_stop(self, marks: Marks) -> bool:
        if not marks.interruptable and not marks.held_on:
            marks.held_on = True
            self._show.note("this reply is not interruptable")
        return marks.interruptable

    async def _fill(self, voice: Voice, marks: Marks) -> None:
        """Say a filler of the engine's own when no word came in time."""
        await asyncio.sleep(self.setup.response_wait)
        if marks.first_word is None and not marks.failed:
            words = self.setup.filler_words
            marks.filler = words[len(self.turns) % len(words) - 1]
            voice.fill(marks.filler)


async def _say(voice: Voice, words: str) -> None:
    voice.say(words)
