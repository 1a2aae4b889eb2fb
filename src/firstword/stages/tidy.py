"""What a voice engine leaves in its history that nobody said is put right, before hooks, stages and models see it.

A plain function and no stage: hooks stand above all stages but the filler's, and have to see the same conversation as
the model. A client that is no voice engine means what it sends, so its messages are left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..history import joined, with_note
from ..images import Images
from ..message import Message
from ..platforms import named
from ..turn import Turn

Json = dict[str, Any]


def tidy(*, notes: bool, images: Images | None) -> Callable[[Turn], Awaitable[None] | None]:
    """Return what puts a turn's messages right: at once, or by what is then to be awaited.

    notes: the model is told that its last reply was cut off. images: those that the engine has forgotten.
    """

    def put_right(turn: Turn) -> None:
        messages = turn.messages
        looks = turn.past is not None and (notes or images is not None)  # the history is made when it is asked for
        told = {id(each.item): each for each in turn.history} if looks else {}
        # What was said twice goes first: an image is looked for, and put back, once.
        said = shown = joined(messages)
        if images is not None and named(turn.platform).forgets_images:
            shown = images.restored(turn, said, [_number(told.get(id(each))) for each in said])
        noted = with_note(shown, _cut(said, told)) if notes else shown
        if noted is not messages:
            came = {id(now): id(then) for now, then in zip(shown, said, strict=True)}
            _keep_beside(turn, [came.get(id(each)) for each in noted])
            turn.messages = noted

    async def look_first(turn: Turn, images: Images) -> None:
        await images.recall(turn)
        put_right(turn)

    def put_right_somehow(turn: Turn) -> Awaitable[None] | None:
        if images is not None and images.are_shared and named(turn.platform).forgets_images:
            return look_first(turn, images)
        put_right(turn)
        return None

    return put_right_somehow


def _number(message: Message | None) -> int | None:
    return None if message is None else message.number


def _cut(messages: list[Json], told: dict[int, Message]) -> int | None:
    """Return where the last reply stands, if it was cut off."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "assistant":
            message = told.get(id(messages[position]))
            return position if message is not None and message.interrupted else None
    return None


def _keep_beside(turn: Turn, came: list[int | None]) -> None:
    """Keep the engine's marks (see `platforms/agora.py`) side by side with messages that `came` as these, by id."""
    marks = turn.engine.get("messages")
    if isinstance(marks, list) and len(marks) == len(turn.messages):
        of: dict[int | None, Json] = dict(zip(map(id, turn.messages), marks, strict=True))
        turn.engine = {**turn.engine, "messages": [of.get(each, {}) for each in came]}
