"""A whole call on a clock that jumps: a script of the fake engine, played with an App whose models are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

from firstword import App, clock
from firstword.engine.conversation import Conversation
from firstword.engine.marks import Marks
from firstword.engine.player import Player
from firstword.engine.reply import Reply
from firstword.engine.script import read_script
from firstword.engine.setup import Setup
from firstword.server.request import read_headers
from firstword.testing.clock import run
from firstword.testing.models import Scripted
from firstword.testing.script import CREATED
from firstword.testing.talk import Phone, scope_of
from firstword.testing.wires import CALL, Call


async def play(
    script: str, app: App | None = None, *, models: Scripted | Sequence[Scripted] | None = None, **settings: Any
) -> list[Marks]:
    """Play a script of `firstword engine` with an App on a clock that jumps; return what each turn was like.

    Words are heard at the engine's own pace, 15 signs a second, unless the script sets another `rate`. `app`, `models`
    and `settings` are those of `talk`. Raises AssertionError for what the script expects and is not so, and for a turn
    that failed without anything being expected of it; ScriptError for a line that is wrong.
    """

    async def call() -> list[Marks]:
        async with Phone(app, models=models, **settings) as phone:
            asked = {} if phone.app.settings.model else {"model": "any"}
            conversation = Conversation(
                Setup(params=asked), _Inside(phone.app), show=_Nobody(), now=lambda: CREATED + clock.now()
            )
            player = Player(conversation)
            await player.play(read_script(script))
            assert not player.failures, "; ".join(player.failures)
            return conversation.turns

    return await run(call)


class _Inside:
    """The engine's line to an App in this process, by ASGI."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def post(self, body: bytes, reply: Reply) -> None:
        """Send one request; whoever is cancelled has left, and the App is told."""
        incoming, left = [{"type": "http.request", "body": body}], asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if incoming:
                return incoming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if left.is_set():
                return
            if message["type"] == "http.response.start":
                reply.begin(message["status"], read_headers(message["headers"]))
            elif message.get("body"):
                reply.feed(message["body"])

        call = Call(clock.now())
        token = CALL.set(call)
        answering = asyncio.create_task(self._app(scope_of("/chat/completions", {}, len(body)), receive, send))
        CALL.reset(token)
        reply.connected(0.0)
        try:
            await asyncio.shield(answering)
        finally:
            left.set()
            await answering
        call.check()


class _Nobody:
    """To whom a call is shown that nobody watches."""

    def user(self, words: str, source: str) -> None:
        """Pass over it."""

    def word(self, words: str) -> None:
        """Pass over it."""

    def spoken(self) -> None:
        """Pass over it."""

    def note(self, words: str) -> None:
        """Pass over it."""

    def turn(self, marks: Marks) -> None:
        """Pass over it."""
