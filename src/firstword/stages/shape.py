"""Make the words of a reply fit to be spoken, on their way up: no markup, no emoji, no reasoning is read out.

A chunk of which nothing is taken out goes on as it came, in the same call. What is kept back of a text, because it may
still become markup, leaves before whatever else comes: a call of a tool, the ending, words of ours, the end of a reply
that was cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..chunk import Aside, Choice, Chunk
from ..errors import ConfigError
from ..shaping import Shaper
from ..shaping.words import WholeWords
from ..turn import CallNext, Send, Stage, Turn
from .hooks import TextHook

Json = dict[str, Any]

SHAPES = ("auto", "speech", "think", "none")
PLAIN = "openai"  # the platform of a client that shows text
FIELDS = ("content", "refusal")  # of a delta, with words that are heard


def shape(how: str, readers: Sequence[TextHook] = ()) -> Stage:
    """Return the stage that shapes replies; `turn.shape` says it for one turn, when it is not None.

    how: "speech"; "think", to take out reasoning only; "none"; "auto": "speech" for a voice engine and for words that
        leave as sound of ours, else "none".
    readers: `read_aloud` hooks, for "speech".
    Raises ConfigError when `turn.shape` is none of these.
    """

    async def make_fit(turn: Turn, send: Send, call_next: CallNext) -> None:
        chosen = _chosen(turn, how)
        if chosen == "none":
            await call_next(turn, send)
            return
        fit = _Fit(turn, send, markup=chosen == "speech", readers=readers if chosen == "speech" else ())
        turn.parted.append(fit.part)
        try:
            await call_next(turn, fit)
        except Exception:
            await fit.finish()
            raise
        await fit.finish()

    return make_fit


def _chosen(turn: Turn, how: str) -> str:
    chosen = how if turn.shape is None else turn.shape
    if chosen not in SHAPES:
        raise ConfigError(f"`turn.shape` is none of {', '.join(SHAPES)}.", hint="write turn.shape = 'none'")
    if turn.wants_json:
        return "none"
    if chosen == "auto":
        return "none" if turn.platform == PLAIN and turn.aloud is None else "speech"
    return chosen


class _Fit:
    """The `send` below this stage."""

    def __init__(self, turn: Turn, send: Send, *, markup: bool, readers: Sequence[TextHook]) -> None:
        self._turn = turn
        self._send = send
        self._markup = markup
        self._readers = readers
        self._first = self._new()  # the words of the first choice: as a rule there are no others
        self._texts = {(0, "content"): self._first}  # by the index of a choice, and the field
        self._last: Chunk | None = None  # what a chunk of the rest is made like
        self._write: Callable[[Chunk], bool] | None = getattr(send, "at_once", None)
        self._parted: list[Chunk] = []  # the rest of an answer before this one
        self._is_corked = False  # what was sent last waits for what comes next
        self._has_failed = False  # a hook has, and is not called again

    def _new(self) -> Shaper | WholeWords:
        shaper = Shaper(markup=self._markup)
        return WholeWords(shaper, self._read) if self._readers else shaper

    def _read(self, text: str) -> str:
        """Return a text as the user's hooks read it. Raises what they raise, and TypeError when it is none."""
        self._has_failed = True
        for reader in self._readers:
            text = reader(self._turn, text)
            if not isinstance(text, str):
                raise TypeError(f"a read_aloud hook returned a {type(text).__name__}; it must be a str")
        self._has_failed = False
        return text

    async def __call__(self, chunk: Chunk) -> None:
        """Send what is heard of a chunk."""
        turn, corked = self._turn, self._turn.corked
        chunks = self._passed(chunk)
        if self._parted:
            chunks, self._parted = [*self._parted, *chunks], []
        for each in chunks:
            turn.corked = corked or each is not chunks[-1]
            await self._send(each)

    @property
    def at_once(self) -> Callable[[Chunk], bool] | None:
        """What sends without waiting; None when that cannot be."""
        return None if self._write is None else self._at_once

    def _at_once(self, chunk: Chunk) -> bool:
        assert self._write is not None
        chunks = self._passed(chunk)
        corked = self._turn.corked
        if not chunks:
            # What waits for this chunk must not wait any longer: False has it flushed.
            was_corked, self._is_corked = self._is_corked, False
            return not was_corked
        self._is_corked, has_room = corked, True
        for each in chunks:
            self._turn.corked = corked or each is not chunks[-1]
            has_room = self._write(each)
        return has_room

    # --- what becomes of a chunk ------------------------------------------------------------------------

    def _passed(self, chunk: Chunk) -> Sequence[Chunk]:
        """Return what leaves in place of a chunk. Raises what a hook raises."""
        words = chunk.words
        if words is not None:
            self._last = chunk
            heard = self._first.feed(words)
            if heard == words:
                return (chunk,)
            return (chunk.with_text(heard),) if heard else ()
        if type(chunk) is Aside:
            return (*self._rest(), chunk)
        choices = chunk.look().choices
        if not choices:
            return (chunk,)
        self._last = chunk
        return self._looked(chunk, choices)

    def _looked(self, chunk: Chunk, choices: list[Choice]) -> Sequence[Chunk]:
        before: list[Chunk] = []
        changed: dict[int, Json] = {}  # fields of deltas, by the position of their choice
        for position, choice in enumerate(choices):
            delta = choice.delta
            index = choice.index if isinstance(choice.index, int) else 0
            if delta is None:
                fields: Json = {}
            else:
                values = {name: value for name in FIELDS if (value := getattr(delta, name))}
                fields = {name: self._heard(index, name, value) for name, value in values.items()}
                fields = {name: value for name, value in fields.items() if value != values[name]}
            is_over = isinstance(choice.finish_reason, str) and choice.finish_reason != ""
            if is_over or (delta is not None and (delta.tool_calls or delta.function_call or delta.audio)):
                for name, rest in self._ended(index):
                    value = fields.get(name, getattr(delta, name, None))
                    if isinstance(value, str) and getattr(delta, name):
                        fields[name] = value + rest
                    else:
                        before.append(_like(chunk, index, {name: rest}))
            if fields:
                changed[position] = fields
        if not changed and not chunk.may_hold(b"reasoning"):
            return (*before, chunk)
        left = _with_fields(chunk, changed)
        return before if left is None else (*before, left)

    def _heard(self, index: int, name: str, value: Any) -> Any:
        """Return what is heard of a field: a text, or a list of parts."""
        if isinstance(value, str):
            return self._text(index, name).feed(value)
        if not isinstance(value, list):
            return value
        parts = []
        for part in value:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                heard = self._text(index, name).feed(part["text"])
                if heard or not part["text"]:
                    parts.append(part if heard == part["text"] else {**part, "text": heard})
            elif not (isinstance(part, dict) and part.get("type") == "thinking"):
                parts.append(part)
        return parts

    def _text(self, index: int, name: str) -> Shaper | WholeWords:
        text = self._texts.get((index, name))
        if text is None:
            text = self._texts[index, name] = self._new()
        return text

    def _ended(self, index: int) -> list[tuple[str, str]]:
        """Return (field, words) that were kept back of a choice."""
        rests = [(name, text.end()) for (each, name), text in self._texts.items() if each == index]
        return [(name, rest) for name, rest in rests if rest]

    def _rest(self) -> list[Chunk]:
        """Return what was kept back, of all choices."""
        if self._last is None or self._has_failed:
            return []
        indexes = {index: None for index, _ in self._texts}
        return [_like(self._last, index, {name: rest}) for index in indexes for name, rest in self._ended(index)]

    def part(self) -> None:
        """Take the end of an answer that another one follows: what was kept back leaves, and a new text begins."""
        rest = self._rest()
        if self._write is None:
            self._parted += rest
        else:
            for chunk in rest:
                self._write(chunk)  # whoever calls this flushes what it leaves

    async def finish(self) -> None:
        """Send what was kept back of a reply that has no ending."""
        for chunk in [*self._parted, *self._rest()]:
            await self._send(chunk)


def _like(chunk: Chunk, index: int, delta: Json) -> Chunk:
    """Return a chunk of the same reply that says something else."""
    fields = {name: value for name, value in chunk.data.items() if name != "usage"}
    return Chunk({**fields, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})


def _with_fields(chunk: Chunk, changed: dict[int, Json]) -> Chunk | None:
    """Return a chunk without reasoning, and with other words in these places; None when nothing is left of it."""
    choices, is_same = [], not changed
    for position, choice in enumerate(chunk.data["choices"]):
        old = choice.get("delta") or {}
        delta = {name: value for name, value in old.items() if not name.startswith("reasoning")}
        is_same = is_same and len(delta) == len(old)
        choices.append({**choice, "delta": {**delta, **changed.get(position, {})}})
    if is_same:
        return chunk
    left = [choice for choice in choices if choice.get("finish_reason") or any(choice["delta"].values())]
    if not left and chunk.look().usage is None:
        return None
    return chunk.changed(choices=left or choices)
