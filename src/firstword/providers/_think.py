"""Reasoning that a model writes into its answer, `<think>...</think>` at the beginning, told from what it says.

What stands between the tags becomes `delta.reasoning_content`, as servers with a reasoning parser send it; the tags are
gone. Only text that may still become a tag is kept back. Once it is seen how an answer begins, nothing is looked at.
"""

from __future__ import annotations

import re
from typing import Any

from ..chunk import Chunk, Delta

NAMES = ("think", "thinking", "reasoning", "thought")
MAX_UNTOLD = 4 * 1024  # signs without an end of reasoning that may be an answer without any

_OPENING = tuple(f"<{name}>" for name in NAMES)
_CLOSING = tuple(f"</{name}>" for name in NAMES)
_closes = re.compile(rf"</(?:{'|'.join(NAMES)})>", re.IGNORECASE).search

Json = dict[str, Any]


class Thoughts:
    """The choices of one answer. `thinks`: each begins with reasoning, up to a closing tag, without an opening one."""

    def __init__(self, *, thinks: bool = False) -> None:
        self._thinks = thinks
        self._begun: dict[int, _Beginning] = {}  # by the index of a choice
        self._known: set[int] = set()  # choices that are past their reasoning, or have none

    def are_over(self, indexes: set[int]) -> bool:
        """True when no further chunk of these choices has to be looked at."""
        return indexes <= self._known

    def read(self, chunk: Chunk) -> Chunk | None:
        """Return a chunk with its reasoning told from its words; None when nothing is left of it.

        Raises msgspec.DecodeError, as every look does.
        """
        changed: dict[int, Json] = {}  # new deltas, by the position of their choice
        for position, choice in enumerate(chunk.look().choices or ()):
            index = choice.index if isinstance(choice.index, int) else 0
            if index in self._known or choice.delta is None:
                continue
            ending = choice.finish_reason if isinstance(choice.finish_reason, str) and choice.finish_reason else None
            if index not in self._begun:
                if not self._thinks and not _may_begin(choice.delta):
                    if ending is not None or _is_known(choice.delta):
                        self._known.add(index)
                    continue
                self._begun[index] = _Beginning(is_inside=self._thinks)
            beginning = self._begun[index]
            delta = beginning.read(chunk.data["choices"][position]["delta"], ending)
            if delta is not None:
                changed[position] = delta
            if beginning.is_over or ending is not None:
                self._known.add(index)
                del self._begun[index]
        return _with_deltas(chunk, changed) if changed else chunk

    def rest(self) -> list[tuple[int, str]]:
        """Return (index, words) that were kept back and are no tag: the answer was cut off."""
        return [(index, each.rest()) for index, each in self._begun.items() if each.rest()]


def _may_begin(delta: Delta) -> bool:
    """True when the first words of a choice may begin with a tag."""
    return isinstance(delta.content, str) and delta.content.lstrip()[:1] == "<"


def _is_known(delta: Delta) -> bool:
    """True when it is seen that a choice begins without one."""
    said = delta.content.strip() if isinstance(delta.content, str) else delta.content
    return bool(said or delta.tool_calls or delta.audio)


class _Beginning:
    """How one choice begins."""

    def __init__(self, *, is_inside: bool) -> None:
        self.is_over = False
        self._is_inside = is_inside
        self._is_behind = False  # the closing tag was seen, and no word since
        self._is_untold = is_inside  # nothing in the answer has said yet that this is reasoning
        self._held = ""
        self._thoughts: list[str] = []  # as long as it may turn out to be the answer
        self._size = 0

    def read(self, delta: Json, ending: str | None) -> Json | None:
        """Return what a delta becomes; None: it stays as it is."""
        content = delta.get("content")
        if isinstance(content, list) or delta.get("audio"):
            self.is_over = True  # it has parts, one of which may be reasoning
            return None
        if self._is_untold and any(name.startswith("reasoning") and delta[name] for name in delta):
            self._is_inside = self._is_untold = False  # the server tells them apart itself
            self._thoughts.clear()
        if not isinstance(content, str):
            content = ""
        if not content and not (ending and (self._held or self._is_untold)):
            return None
        thought, said = self._parted(content)
        if ending is not None:
            more_thought, more_said = self._ended(ending, calls=bool(delta.get("tool_calls")))
            thought, said = thought + more_thought, said + more_said
        if said == content and not thought:
            return None
        changed = {**delta, "content": said}
        if thought:
            changed["reasoning_content"] = (delta.get("reasoning_content") or "") + thought
        return changed

    def _parted(self, content: str) -> tuple[str, str]:
        """Return (reasoning, words)."""
        text, self._held = self._held + content, ""
        thought = blanks = ""
        if not (self._is_inside or self._is_behind):
            bare = text.lstrip()
            blanks, low = text[: len(text) - len(bare)], bare.lower()
            tag = next((tag for tag in _OPENING if low.startswith(tag)), None)
            if tag is None:
                if any(tag.startswith(low) for tag in _OPENING):
                    self._held = bare
                    return "", blanks
                self.is_over = True
                return "", text
            self._is_inside, text = True, bare[len(tag) :]
        if self._is_inside:
            thought, text = self._thought(text)
        if self._is_behind:
            text = text.lstrip()
            self.is_over = text != ""
        return thought, blanks + text

    def _thought(self, text: str) -> tuple[str, str]:
        """Return what of a text is reasoning, and what stands behind the closing tag."""
        found = _closes(text)
        if found is not None:
            self._is_inside, self._is_behind = False, True
            self._is_untold = False
            return text[: found.start()], text[found.end() :]
        tag = text.rfind("<")
        if tag >= 0 and any(closing.startswith(text[tag:].lower()) for closing in _CLOSING):
            text, self._held = text[:tag], text[tag:]
        if self._is_untold and self._size <= MAX_UNTOLD:
            self._size += len(text)
            self._thoughts.append(text)
        return text, ""

    def _ended(self, ending: str, *, calls: bool) -> tuple[str, str]:
        """Return (reasoning, words) that the end of the answer brings."""
        held, self._held = self._held, ""
        if not self._is_inside:
            return "", held
        if self._is_untold and ending == "stop" and not calls and self._size <= MAX_UNTOLD:
            whole = "".join([*self._thoughts, held])
            return held, "" if whole.lstrip().lower().startswith(_OPENING) else whole
        return held, ""

    def rest(self) -> str:
        """Return the words that were kept back."""
        return "" if self._is_inside else self._held


def _with_deltas(chunk: Chunk, changed: dict[int, Json]) -> Chunk | None:
    """Return a chunk with other deltas in these places; None when it says nothing any more."""
    choices = [
        {**choice, "delta": changed[position]} if position in changed else choice
        for position, choice in enumerate(chunk.data["choices"])
    ]
    if chunk.data.get("usage") is None and not any(map(_says_something, choices)):
        return None
    return chunk.changed(choices=choices)


def _says_something(choice: Json) -> bool:
    return bool(choice.get("finish_reason")) or any((choice.get("delta") or {}).values())
