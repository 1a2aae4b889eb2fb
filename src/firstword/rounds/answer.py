"""One answer of several that make one reply: what of it leaves, and what is kept back because a tool is called.

As long as an answer calls nothing its chunks leave as they came, in the socket's own callback.
"""

from __future__ import annotations

from typing import Any

from ..calls import Calls, added, going_on, without_calls
from ..chunk import Aside, Chunk
from ..turn import Send, Turn

MAX_KEPT = 1024 * 1024  # bytes of an answer that are kept, to be sent back with its calls


class Spoken:
    """What has left of a turn's reply, over all its answers."""

    def __init__(self, turn: Turn, send: Send) -> None:
        self.turn = turn
        self.send = send
        self.first: Chunk | None = None  # what every other chunk of the reply agrees with
        self.has_words = False  # the model's own
        self.is_filled = False  # by a tool's filler
        self.is_open = False  # the last word has no space behind it
        self.usage: Any = None  # of the answers before
        self.taken: set[str] = set()  # ids of calls

    @property
    def head(self) -> dict[str, Any]:
        """The root fields that every chunk of the reply has in common; none as long as it has not begun."""
        data = self.first.data if self.first is not None else {}
        return {name: data[name] for name in ("id", "created", "model") if name in data}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
        """Return a chunk of our own."""
        if self.first is None:
            delta = {"role": "assistant", **delta}
        chunk = self.turn.chunk(delta, finish_reason, **self.head)
        self.first = self.first or chunk
        return chunk

    async def fill(self, words: str) -> None:
        """Say a filler; `words` end with a space."""
        self.is_filled = True
        self.is_open = False
        self.turn.corked = False
        await self.send(Aside(self.chunk({"content": words}).data))
        self.turn.filled = True  # not sooner: `fill` takes the role out of what stands behind a filler

    def add(self, answer: Answer) -> None:
        """Count an answer in, when another one follows it."""
        said = [chunk.text for chunk in answer.kept if chunk.text]
        if said:
            self.is_open = not said[-1][-1].isspace()
        self.has_words = self.has_words or answer.has_words
        self.usage = added(self.usage, answer.usage)


class Answer:
    """One answer, seen chunk by chunk: `calls` are what it calls, `held` is its finish_reason when that was kept back.

    `ends`: its ending is that of the reply, unless it calls something.
    """

    def __init__(self, spoken: Spoken, *, ends: bool) -> None:
        self.calls = Calls(spoken.taken)
        self.kept: list[Chunk] = []
        self.usage: Any = None
        self.held: str | None = None
        self._spoken = spoken
        self._ends = ends
        self._joins = spoken.first is not None  # the reply has begun without this answer
        self._is_plain = ends and not self._joins and spoken.usage is None
        self._size = 0
        self._has_begun = False

    @property
    def has_words(self) -> bool:
        """True when it says something."""
        return any(map(_says_something, self.kept))

    def see(self, chunk: Chunk) -> Chunk | None:
        """Return what of a chunk leaves now."""
        if self._size < MAX_KEPT:
            self._size += len(chunk.frame)
            self.kept.append(chunk)
        if self._is_plain and not chunk.calls:
            if self._spoken.first is None and chunk.look().choices:
                self._spoken.first = chunk
            return chunk
        seen = self._looked(chunk)
        if seen is not None and self._spoken.first is None and seen.look().choices:
            self._spoken.first = seen
        return seen

    def _looked(self, chunk: Chunk) -> Chunk | None:
        look = chunk.look()
        if look.usage is not None:
            self.usage = chunk.data["usage"]
        if not look.choices:
            return None if self.held is not None else self._joined(chunk)
        choice = look.choices[0]
        if chunk.calls:
            self._is_plain = False
            self.calls.add(chunk.data["choices"][0]["delta"])
        ends = isinstance(choice.finish_reason, str)
        if self.calls or (ends and self._holds_its_end()):
            if ends:
                self.held = choice.finish_reason
            rest = without_calls(chunk)
            return None if rest is None else self._joined(rest)
        return self._joined(chunk)

    def _holds_its_end(self) -> bool:
        """True when something of ours has to stand before the ending, or the caller has heard a filler only."""
        spoken = self._spoken
        return not self._ends or (spoken.is_filled and not spoken.has_words and not self.has_words)

    def _joined(self, chunk: Chunk) -> Chunk | None:
        """Return a chunk as a part of the reply."""
        spoken = self._spoken
        if spoken.usage is not None and chunk.look().usage is not None:
            chunk = chunk.changed(usage=added(spoken.usage, chunk.data["usage"]))
        if not self._joins:
            return chunk
        before = ""
        if chunk.text and not self._has_begun:
            self._has_begun = True
            # Two answers are two breaths: "Let me see.It is five." would be read out as one.
            before = " " if spoken.is_open and not chunk.text[0].isspace() else ""
        return going_on(chunk, spoken.head, before)


def _says_something(chunk: Chunk) -> bool:
    """True for what a caller hears, which a call is not."""
    deltas = [choice.delta for choice in chunk.look().choices or () if choice.delta is not None]
    return bool(chunk.text.strip()) or any(delta.audio or delta.refusal for delta in deltas)
