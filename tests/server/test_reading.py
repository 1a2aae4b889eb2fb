"""A request becomes a turn: whose session it is, by which dialect it is read, and what that changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from firstword import App, ConfigError, Turn
from firstword.errors import BadRequest
from firstword.links import Links
from firstword.platforms import Asked, named
from firstword.policy import Policy
from firstword.server.reading import MAX_SESSION, Reader, places
from firstword.server.routes import PLAIN, Route
from firstword.settings import load
from firstword.testing import fails, says, talk
from firstword.who import caller_of

Json = dict[str, Any]
HI: Json = {"model": "m1", "messages": [{"role": "user", "content": "Hi"}]}


def read(
    body: Json | None = None,
    *,
    session: str | None = None,
    platform: str = "auto",
    route: Route = PLAIN,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> Turn:
    """Read a request as an App with these settings does."""
    written = load(**({} if session is None else {"session": session.split(",")})).session
    reader = Reader(platform, places(written), Policy(), Links())
    asked = Asked({**HI, **(body or {})}, headers or {}, query or {}, route.tail, None)
    return reader.read(asked, route)


# --- whose session ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "session"),
    [
        ({}, None),
        ({"route": Route("/chat/completions", None, "p")}, "p"),
        ({"headers": {"x-session-id": "h"}}, "h"),
        ({"query": {"session_id": "q"}}, "q"),
        ({"body": {"session_id": "b"}}, "b"),
        ({"body": {"session_id": 7}}, "7"),
        ({"body": {"agent_id": "a"}}, "a"),
        ({"body": {"call": {"id": "c"}}}, "c"),
        # The one that was written on purpose wins: path, header, query, body, and then the platform's own.
        ({"route": Route("/chat/completions", None, "p"), "headers": {"x-session-id": "h"}}, "p"),
        ({"headers": {"x-session-id": "h"}, "query": {"session_id": "q"}, "body": {"session_id": "b"}}, "h"),
        ({"query": {"session_id": "q"}, "body": {"session_id": "b", "agent_id": "a"}}, "q"),
        ({"body": {"session_id": "b", "call": {"id": "c"}}}, "b"),
        # What is empty is nobody.
        ({"headers": {"x-session-id": ""}, "query": {"session_id": ""}, "body": {"session_id": ""}}, None),
        ({"body": {"session_id": None}}, None),
        ({"body": {"session_id": ["x"]}}, None),
        ({"session": "header:X-Call,body:metadata.call.id", "headers": {"x-call": "h"}}, "h"),
        ({"session": "header:x-call,body:metadata.call.id", "body": {"metadata": {"call": {"id": "m"}}}}, "m"),
        ({"session": "header:x-call", "query": {"session_id": "q"}, "headers": {"x-session-id": "h"}}, None),
    ],
)
def test_a_session_stands_where_the_integrator_has_put_it(request_: Json, session: str | None) -> None:
    """The four patterns in use, and each before the next."""
    assert read(**request_).session == session


def test_a_bearer_of_its_own_is_a_session() -> None:
    """Each session has a key of its own; the name is no secret, so it is not the key."""
    one, same, other, none = (
        read(session="bearer", headers=headers)
        for headers in (
            {"authorization": "Bearer secret-1"},
            {"api-key": "secret-1"},
            {"authorization": "Bearer secret-2"},
            {},
        )
    )
    assert one.session is not None and one.session == same.session != other.session and none.session is None
    assert "secret" not in one.session


def test_without_a_session_nothing_is_shared() -> None:
    """Two callers who say nothing of themselves have nothing in common, not even a default room."""
    assert caller_of(read()) is None
    assert caller_of(read(headers={"authorization": "Bearer one-key-for-all"})) is None


def test_what_names_the_session_does_not_reach_the_model() -> None:
    """It was used; what was not is the model's, as every other unknown field."""
    body = {"session_id": "b", "metadata": {"call": {"id": "m"}, "plan": "gold"}, "other": 1}
    assert read(body).request == {**HI, "metadata": body["metadata"], "other": 1}
    turn = read(body, session="body:metadata.call.id")
    assert turn.request == {**HI, "session_id": "b", "metadata": {"plan": "gold"}, "other": 1}
    assert read({"metadata": {"call": {"id": "m"}}}, session="body:metadata.call.id").request == HI
    kept = {"metadata": "text", "session_id": {"no": "name"}}
    assert read(kept, session="body:metadata.call.id,body:session_id").request == {**HI, **kept}


@pytest.mark.parametrize(
    ("place", "body", "platform", "told"),
    [
        ("body:channel", {"channel": "room-7"}, "agora", {"channel": "room-7", "engine": {"channel": "room-7"}}),
        ("body:user_uid", {"user_uid": "room-7", "turn_id": 1}, "agora", {"user": "room-7", "number": 1}),
        ("body:params.call", {"params": {"call": "room-7", "plan": "gold"}}, "agora", {}),
        ("body:call.id", {"call": {"id": "room-7"}}, "vapi", {"engine": {"call": {"id": "room-7"}}}),
        ("body:customer.number", {"call": {"id": "c"}, "customer": {"number": "room-7"}}, "vapi", {"user": "room-7"}),
        ("body:extra_metadata.id", {"extra_metadata": {"id": "room-7"}}, "telnyx", {}),
        (
            "body:elevenlabs_extra_body.id",
            {"elevenlabs_extra_body": {"id": "room-7"}, "user_id": "u"},
            "elevenlabs",
            {},
        ),
    ],
)
def test_what_names_the_session_also_says_whose_request_it_is(
    place: str, body: Json, platform: str, told: Json
) -> None:
    """The App names a field by which the engine is known, or which the engine needs for something else as well."""
    turn = read(copy.deepcopy(body), session=place)
    assert (turn.session, turn.platform) == ("room-7", platform)
    assert {name: getattr(turn, name) for name in told} == told
    assert turn.request == {**HI, **({"plan": "gold"} if "params" in body else {})}


def test_a_session_has_a_name_of_some_length() -> None:
    """A caller puts a book there."""
    with pytest.raises(BadRequest, match="longer than 512 signs"):
        read({"session_id": "x" * (MAX_SESSION + 1)})


@pytest.mark.parametrize(
    "wrong", ["cookie:x", "header:", "x-session-id", "bearer:x", "path", "header:Authorization", "header: x-api-key"]
)
def test_a_place_that_is_none_is_told_at_start(wrong: str) -> None:
    """A typo in FIRSTWORD_SESSION would have every caller be nobody."""
    with pytest.raises(ConfigError, match="hint: write FIRSTWORD_SESSION=header"):
        App(session=[wrong])


# --- whose dialect --------------------------------------------------------------------------------------


def test_the_path_says_it_before_the_setting_and_the_setting_before_the_request() -> None:
    """A request that looks like Vapi's, at a server that was set to Agora, on ElevenLabs' path."""
    vapis = {"call": {"id": "c"}}
    assert read(vapis).platform == "vapi"
    assert read(vapis, platform="agora").platform == "agora"
    assert read(vapis, platform="agora", route=Route("/chat/completions", "elevenlabs")).platform == "elevenlabs"
    assert read().platform == "openai"


async def test_an_engine_that_hangs_up_on_an_error_hears_an_apology() -> None:
    """Vapi ends the call on a 502, and on a 401 of the provider; any other client is told what was wrong."""
    words = named("vapi").apology
    for status in (500, 401, 400):
        score = await talk(models=fails(status), request={"call": {"id": "c"}})
        assert (score.status, score.text) == (200, words)
        assert (await talk(models=fails(status))).status in (status, 502)
    score = await talk(App(apology="Pardon?"), models=fails(500), request={"call": {"id": "c"}})
    assert score.text == "Pardon?"


async def test_an_apology_can_be_taken_from_a_turn() -> None:
    """Somebody wants Vapi's own failure handling."""
    app = App()

    @app.before_turn
    def none(turn: Turn) -> None:
        turn.adjust(apology=None)

    assert (await talk(app, models=fails(500), request={"call": {"id": "c"}})).status >= 500
    assert (await talk(app, models=says("Hello."), request={"call": {"id": "c"}})).text == "Hello."
