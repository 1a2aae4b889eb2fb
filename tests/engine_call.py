"""A call of the fake engine with a server of a test: what was shown, and what the server saw."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from firstword.engine.conversation import Conversation
from firstword.engine.line import Wire
from firstword.engine.marks import Marks
from firstword.engine.player import Player
from firstword.engine.script import read_script
from firstword.engine.setup import Setup
from firstword.testing import Upstream, script


class Shown:
    """Keeps what a call shows."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.words: list[str] = []
        self.notes: list[str] = []
        self.turns: list[Marks] = []

    @property
    def heard(self) -> str:
        """All that the agent was heard to say."""
        return "".join(self.words)

    def user(self, words: str, source: str) -> None:
        self.users.append(words)

    def word(self, words: str) -> None:
        self.words.append(words)

    def spoken(self) -> None:
        pass

    def note(self, words: str) -> None:
        self.notes.append(words)

    def turn(self, marks: Marks) -> None:
        self.turns.append(marks)


class Call:
    """One call."""

    def __init__(self, setup: Setup, wire: Wire, now: Iterable[float] | None) -> None:
        self.setup = setup
        self.shown = Shown()
        more = {} if now is None else {"now": iter(now).__next__}
        self.conversation = Conversation(setup, wire, show=self.shown, **more)
        self.player = Player(self.conversation)

    async def plays(self, text: str) -> Marks:
        """Play a script; return the marks of its last turn."""
        await self.player.play(read_script(text))
        return self.conversation.turns[-1]


@asynccontextmanager
async def calling(url: str, *, now: Iterable[float] | None = None, **settings: Any) -> AsyncIterator[Call]:
    """Call a server; nobody waits for the voice unless `rate` says so. `now` are the times that the call is told."""
    setup = Setup(url=url, rate=0.0)
    for name, value in settings.items():
        setattr(setup, name, value)
    wire = Wire(setup)
    try:
        yield Call(setup, wire, now)
    finally:
        await wire.close()


def scripted(upstream: Upstream, marker: str, *scripts: script.Script) -> dict[str, Any]:
    """Return the settings of a call with the scripted upstream itself: what it answers to each request in turn."""
    read = [[script.read(), *steps] for steps in scripts]
    headers = script.in_headers(read[0] if len(read) == 1 else read, marker)
    return {"url": f"{upstream.base_url}/chat/completions", "headers": headers}
