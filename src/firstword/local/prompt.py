"""Fit a conversation into the window of a model: long calls go on, without their oldest turns.

The oldest go in steps of half of the room, and not one by one: else every turn of a long call would begin with
other words than the one before, and the model would have to read all of it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

STEPS = 2  # parts of the room that turns are dropped by
RULES = ("system", "developer")


class Tongue(Protocol):
    """How a model writes a conversation down: in tokens, and in a form of its own."""

    rules: str  # the system's words when a conversation brings none; empty = none

    def tokens(self, words: str) -> list[int]:
        """Return the tokens of words, of which none is a mark: nobody can speak in another's name."""

    def wrapped(self, role: str, tokens: list[int]) -> list[int]:
        """Return one message, with its marks."""

    def opening(self) -> list[int]:
        """Return what makes the model speak."""


def fit(messages: Sequence[tuple[str, str]], tongue: Tongue, *, room: int) -> list[int]:
    """Return the tokens of a prompt of at most `room` tokens, which ends where the model is to speak.

    The first messages, when they are the system's, stay, and so does the last; too long together, both are cut.
    """
    opening = tongue.opening()
    room -= len(opening)
    if tongue.rules and not (messages and messages[0][0] in RULES):
        messages = [("system", tongue.rules), *messages]
    ruled = next((at for at, (role, _) in enumerate(messages) if role not in RULES), len(messages))
    turns = [(role, tongue.wrapped(role, tongue.tokens(words))) for role, words in messages]
    head = [token for _, tokens in turns[:ruled] for token in tokens]
    last = len(turns[-1][1]) if len(turns) > ruled else 0
    if len(head) + last > room:
        return _cut(messages[:ruled], messages[ruled:][-1:], tongue, room) + opening
    kept = _newest(turns[ruled:], room - len(head))
    return head + [token for _, tokens in kept for token in tokens] + opening


def _newest(turns: list[tuple[str, list[int]]], room: int) -> list[tuple[str, list[int]]]:
    """Return the last turns that fit into the room; when any are dropped, a user's comes first."""
    over = sum(len(tokens) for _, tokens in turns) - room
    if over <= 0:
        return turns
    step = max(room // STEPS, 1)
    over = -(-over // step) * step
    dropped = 0
    while dropped < len(turns) - 1 and (over > 0 or turns[dropped][0] != "user"):
        over -= len(turns[dropped][1])
        dropped += 1
    return turns[dropped:]


def _cut(head: Sequence[tuple[str, str]], last: Sequence[tuple[str, str]], tongue: Tongue, room: int) -> list[int]:
    """Return the beginning of the rules and the end of the last message; each has at least half of the room."""
    rules = tongue.tokens("\n\n".join(words for _, words in head))
    heard = tongue.tokens(last[0][1]) if last else []
    role = last[0][0] if last else "user"
    left = room - len(tongue.wrapped("system", [])) - len(tongue.wrapped(role, []))
    rules = rules[: max(left // 2, left - len(heard))]
    heard = heard[max(len(heard) - (left - len(rules)), 0) :]
    return (tongue.wrapped("system", rules) if rules else []) + (tongue.wrapped(role, heard) if heard else [])
