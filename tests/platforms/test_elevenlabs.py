"""ElevenLabs' requests: who is on the line, and what never reaches the model's server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from served import Served

from firstword import App, BadRequest, Turn
from firstword.platforms import Asked
from firstword.platforms.elevenlabs import platform
from firstword.testing import Upstream

Serve = Callable[[App], Served]


def read(**fields: Any) -> Turn:
    body = {"model": "m1", "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return platform.read(Asked(body, {}, {}, "/chat/completions", None))


@pytest.mark.parametrize(
    ("fields", "session", "user"),
    [
        ({}, None, None),
        ({"elevenlabs_extra_body": {"session_id": "s-1"}, "user_id": "u-1"}, "s-1", "u-1"),
        ({"elevenlabs_extra_body": {"conversation_id": 7, "user_id": "u-2"}}, "7", "u-2"),
        ({"elevenlabs_extra_body": None, "user_id": ""}, None, None),
        ({"elevenlabs_extra_body": ["odd"], "user_id": {"odd": 1}}, None, None),
        ({"elevenlabs_extra_body": {"session_id": {"odd": 1}, "conversation_id": "c"}}, "c", None),
        ({"elevenlabs_extra_body": {"session_id": True}, "user_id": False}, None, None),  # nobody, and not one for all
    ],
)
def test_who_is_on_the_line(fields: dict[str, Any], session: str | None, user: str | None) -> None:
    """The integrator's client says it when the conversation starts; without it nothing is shared."""
    turn = read(**fields)
    assert (turn.session, turn.user) == (session, user)


async def test_what_the_engine_adds_stays_here(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A strict provider refuses a field that it does not know."""
    turns: list[Turn] = []
    app = App(base_url=upstream.base_url, platform="elevenlabs")

    @app.before_turn
    async def look(turn: Turn) -> None:
        turns.append(turn)

    extra = {"elevenlabs_extra_body": {"session_id": "s-1", "colour": "red"}, "user_id": "u-1"}
    heard = await Caller(serve(app).url).says("Hello", user=marker, temperature=0.3, **extra)

    (record,) = upstream.seen(marker)
    assert (heard.text, record.body["temperature"]) == ("Hello", 0.3)
    assert not extra.keys() & record.body.keys()
    assert turns[0].engine == extra


def test_the_request_is_checked_as_any_other() -> None:
    """A 400 names the field."""
    with pytest.raises(BadRequest) as caught:
        read(messages=[])
    assert caught.value.param == "messages"
