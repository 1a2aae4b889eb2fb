"""Turns know whose they are, and which of them are one turn sent again."""

from __future__ import annotations

from typing import Any

import pytest

from firstword import Turn
from firstword.who import caller_of, moment_of

SAID = [{"role": "system", "content": "It is noon."}, {"role": "user", "content": "Hello"}]


def turn(**fields: Any) -> Turn:
    """A turn of a session, as an engine sends it."""
    return Turn(request={"messages": fields.pop("messages", SAID)}, **{"session": "room-7", **fields})


def test_a_turn_without_a_session_shares_nothing() -> None:
    """Two callers of an engine that does not say who they are must not meet."""
    assert caller_of(turn(session=None)) is None
    assert moment_of(turn(session=None)) != moment_of(turn(session=None))


@pytest.mark.parametrize(
    "other",
    [
        {"session": "room-8"},
        {"channel": "room-7"},
        {"headers": {"authorization": "Bearer another"}},
        {"headers": {"api-key": "another"}},
        {"engine": {"app_id": "another"}},
        {"engine": {"agent_uid": "1001"}},  # two agents interpret in one room, and each counts its turns from 1
        {"engine": {"user_uid": "1002"}},
    ],
    ids=str,
)
def test_a_session_of_somebody_else_is_another_one(other: dict[str, Any]) -> None:
    """The name of a session is the caller's own word: whoever holds another key does not get in with it."""
    assert caller_of(turn()) == caller_of(turn(user="1002")) != caller_of(turn(**other))


def test_a_turn_that_is_sent_again_is_the_same_moment() -> None:
    """By its number where the engine counts, else by what was said; the time of day in a prompt does not count."""
    later = [{"role": "system", "content": "It is one."}, *SAID[1:]]
    more = [*SAID, {"role": "user", "content": "Are you there?"}]

    assert moment_of(turn()) == moment_of(turn(messages=later)) != moment_of(turn(messages=more))
    assert moment_of(turn(number=4)) == moment_of(turn(number=4, messages=more)) != moment_of(turn(number=5))
