"""End or transfer the call when the reply has ended, because a hook, a stage, a tool or a model function asked for it.

The engine is told by the last chunks of the reply, in place of its ending, or by a REST call after it. An action
follows an answer: a turn that fails, or whose caller leaves, has none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from .. import clock
from ..action import Action, Deed
from ..agents import Agents
from ..calls import new_id
from ..chunk import Chunk
from ..errors import ActionError
from ..platforms import of
from ..transport import Transport
from ..turn import CallNext, Seen, Send, Stage, Turn

# How long words take to be spoken, on the long side: who is cut off in a farewell minds more than who waits a moment.
SPEECH_LEAD = 2.0  # seconds from a word that we send until it is heard: the network, the voice, a filler before it
SIGNS_PER_SECOND = 12.0
SIGNS_OF_AN_IDEOGRAM = 3.0  # it stands for a syllable or two


class Actions:
    """What the turns of an App may ask of their engine; `agora` is what `Agents` takes, None when it is not known.

    Raises ConfigError.
    """

    def __init__(self, transport: Transport, agora: Mapping[str, Any] | None) -> None:
        self._agents = None if agora is None else Agents(transport, **agora)

    def begin(self, turn: Turn) -> None:
        """Let a turn ask for actions. An agent that was about to leave stays: its caller has spoken on."""
        turn.judge = self._judge
        if self._agents is not None:
            self._agents.stay(turn)

    def _judge(self, turn: Turn, action: Action) -> Deed:
        deed = of(turn).act(turn, action)
        if deed.agent is not None and self._agents is None:
            raise ActionError(
                "The server has no keys of Agora's REST API, by which an agent leaves.",
                hint="set AGORA_APP_ID, AGORA_BASIC_KEY and AGORA_BASIC_SECRET",
            )
        return deed

    async def finish(self, turn: Turn) -> None:
        """Do what is left to do of an action when its reply was sent."""
        deed = turn.deed
        if deed is not None and deed.agent is not None and self._agents is not None:
            await self._agents.leave(deed.agent, turn, due=deed.due)


def act(*, only_hooks: bool, waits: bool) -> Stage:
    """Return the stage that ends a reply by what was asked for.

    only_hooks: nobody below may ask, so that an answer passes untouched.
    waits: somebody may ask when the answer is over, so that its ending has to wait for them.
    """

    async def end(turn: Turn, send: Send, call_next: CallNext) -> None:
        if turn.deed is None and only_hooks:
            turn.judge = None
            await call_next(turn, send)
            return
        ending = _Ending(turn, send, waits=waits and turn.request.get("n") in (None, 1))
        if turn.deed is not None:
            turn.silent = turn.silent or not (turn.deed.say or turn.deed.call)  # a hook asked: no model has to speak
        else:
            try:
                await call_next(turn, Seen(turn, ending.see, send))
            except Exception:
                await ending.give_back()
                raise
        await ending.finish()

    return end


class _Ending:
    """Notes what passes, and keeps the ending back when something has to come before it."""

    def __init__(self, turn: Turn, send: Send, *, waits: bool) -> None:
        self._turn = turn
        self._send = send
        self._waits = waits
        self._held: list[Chunk] = []
        self._texts: list[str] = []
        self._calls: list[Chunk] = []
        self._first: Chunk | None = None  # what every other chunk of the reply agrees with
        self._spoke: float | None = None

    def see(self, chunk: Chunk) -> Chunk | None:
        """Return what of a chunk leaves now."""
        if self._held:
            self._held.append(chunk)
            return None
        if chunk.finish_reason is None:
            return self._noted(chunk)
        turn = self._turn
        if turn.deed is None and not self._waits:
            turn.judge = None  # what is asked for from now on comes too late
            return chunk
        words, ending = _parted(chunk)
        self._held.append(ending)
        return None if words is None else self._noted(words)

    def _noted(self, chunk: Chunk) -> Chunk:
        if self._first is None and chunk.look().choices:
            self._first = chunk
        if chunk.text:
            self._texts.append(chunk.text)
            if self._spoke is None:
                self._spoke = clock.now()
        if chunk.calls:
            self._calls.append(chunk)
        return chunk

    async def finish(self) -> None:
        """Send what was kept back, behind what was asked for."""
        turn, deed = self._turn, self._turn.deed
        turn.judge = None
        chunks = self._held if deed is None else self._acted(deed)
        if deed is not None and deed.agent is not None:
            turn.deed = replace(deed, due=self._heard(deed.say))
        for chunk in chunks:
            turn.corked = True  # `[DONE]` follows at once
            turn.hears(chunk)
            await self._send(chunk)

    async def give_back(self) -> None:
        """Send what was kept back as it is: the answer was whole, whatever has failed after it."""
        for chunk in self._held:
            await self._send(chunk)

    def _heard(self, say: str) -> float:
        """Return about when the caller has heard the last word, on the monotonic clock."""
        now = clock.now()
        began = now if self._spoke is None or not self._turn.stream else self._spoke
        return max(now, began + spoken_for("".join([*self._texts, say]))) + SPEECH_LEAD

    def _acted(self, deed: Deed) -> list[Chunk]:
        """Return the last chunks of a reply with an action: its words, its call, one ending, the count of tokens."""
        chunks = []
        if deed.say:
            is_open = bool(self._texts) and not self._texts[-1][-1].isspace()
            chunks.append(self._chunk({"content": f" {deed.say}" if is_open else deed.say}))
        indexes = [each.get("index") for each in map(_first_call, self._calls)]
        names = {(each.get("function") or {}).get("name") for each in map(_first_call, self._calls)}
        if deed.call is not None and deed.call[0] not in names:  # else the model has called it itself
            name, arguments = deed.call
            function = {"name": name, "arguments": msgspec.json.encode(arguments).decode()}
            index = max((each for each in indexes if isinstance(each, int)), default=-1) + 1
            call = {"index": index, "id": new_id(), "type": "function", "function": function}
            chunks.append(self._chunk({"tool_calls": [call]}))
        reason = self._held[0].finish_reason if self._held else None
        reason = "tool_calls" if deed.call is not None or self._calls else reason or "stop"
        if self._first is None:
            chunks.append(self._chunk({"content": ""}))
        ending = self._held[0] if self._held else self._chunk({})
        choice = {"index": 0, "delta": {}, "finish_reason": reason}
        return [*chunks, ending.changed(choices=[choice]), *self._held[1:]]

    def _chunk(self, delta: dict[str, Any]) -> Chunk:
        """Return a chunk of our own."""
        agreed = next((each for each in (self._first, *self._held) if each is not None), None)
        data = {} if agreed is None else agreed.data
        if self._first is None:
            delta = {"role": "assistant", **delta}
        chunk = self._turn.chunk(delta, **{name: data[name] for name in ("id", "created", "model") if name in data})
        self._first = self._first or chunk
        return chunk


def spoken_for(text: str) -> float:
    """Return about how many seconds it takes to speak a text."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return (len(text) - wide + wide * SIGNS_OF_AN_IDEOGRAM) / SIGNS_PER_SECOND


def _parted(chunk: Chunk) -> tuple[Chunk | None, Chunk]:
    """Return what an ending says, None when that is nothing, and the ending itself."""
    choices = chunk.data["choices"]
    if not any(value for choice in choices for key, value in (choice.get("delta") or {}).items() if key != "role"):
        return None, chunk
    data = {key: value for key, value in chunk.data.items() if key != "usage"}
    words = Chunk({**data, "choices": [{**choice, "finish_reason": None} for choice in choices]})
    return words, chunk.changed(choices=[{**choice, "delta": {}} for choice in choices])


def _first_call(chunk: Chunk) -> dict[str, Any]:
    """Return the call of a chunk, or an empty object."""
    for choice in chunk.data["choices"]:
        calls = (choice.get("delta") or {}).get("tool_calls")
        if isinstance(calls, list) and calls and isinstance(calls[0], dict):
            first: dict[str, Any] = calls[0]
            return first
    return {}
