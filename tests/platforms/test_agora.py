"""Agora's dialect: what its engine tells of a conversation, and the metadata that leaves with the first words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from caller import Caller
from caller import turn as asks
from served import Served

from firstword import App, Turn
from firstword.message import Message
from firstword.platforms import Asked
from firstword.platforms.agora import METADATA, platform
from firstword.testing import Upstream, fails, says, script, silent, talk

Json = dict[str, Any]

JOKE = "Why did the chicken cross the road? To get to the other side."
R2: Json = {
    "model": "m1",
    "stream": True,
    "turn_id": 4,
    "timestamp": 1767000035000,
    "interruptable": True,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": "Hi!",
            "turn_id": 1,
            "timestamp": 1767000001000,
            "metadata": {"source": "greeting"},
        },
        {
            "role": "user",
            "content": "Tell me a joke",
            "turn_id": 2,
            "timestamp": 1767000010,  # Agora's own example has seconds
            "metadata": {"source": "asr", "user": "1002"},
        },
        {
            "role": "assistant",
            "content": "Why did the ",
            "turn_id": 2,
            "timestamp": 1767000011000,
            "metadata": {
                "source": "llm",
                "interrupted": True,
                "interrupt_timestamp": 1767000012500,
                "original": JOKE,
            },
        },
        {
            "role": "user",
            "content": "A story instead",
            "turn_id": 4,
            "timestamp": 1767000035000,
            "metadata": {"source": "asr", "user": "1002", "vpids": ["speaker1", "unknown"]},
        },
    ],
}


def read(body: Json, **query: str) -> Turn:
    """Read a copy of a request."""
    return platform.read(Asked(json.loads(json.dumps(body)), {}, query, "/chat/completions", None))


# --- what a request tells -------------------------------------------------------------------------------


def test_the_turn_knows_who_spoke_and_how() -> None:
    """The engine's own fields, by the names that are the same for every engine."""
    turn = read(R2)
    assert (turn.number, turn.source, turn.user, turn.speakers) == (4, "asr", "1002", ("speaker1", "unknown"))
    assert (turn.platform, turn.session, turn.channel) == ("agora", None, None)


def test_the_history_tells_what_was_really_heard() -> None:
    """The model was cut off behind four words; the caller never heard the rest."""
    turn = read(R2)
    system, greeting, question, reply, last = turn.history
    assert (system.role, system.spoken, system.source, system.at) == ("system", "Be brief.", None, None)
    assert (greeting.source, greeting.number, greeting.at) == ("greeting", 1, 1767000001.0)
    assert (question.user, question.at, question.original) == ("1002", 1767000010.0, None)
    assert (reply.spoken, reply.original, reply.interrupted) == ("Why did the ", JOKE, True)
    assert reply.interrupted_at == 1767000012.5
    assert last.speakers == ("speaker1", "unknown") and not last.interrupted
    assert all(told.item is item for told, item in zip(turn.history, turn.messages, strict=True))


def test_the_history_is_that_of_the_request_whatever_a_hook_does() -> None:
    """A hook puts a message before the others, and the marks of the engine must not slip by one."""
    turn = read(R2)
    turn.messages.insert(0, {"role": "system", "content": "It is noon."})
    turn.messages = [*turn.messages, {"role": "user", "content": "x"}]
    assert [told.spoken for told in turn.history][:2] == ["Be brief.", "Hi!"] and len(turn.history) == 5


def test_a_plain_clients_history_is_its_messages() -> None:
    """There is nothing more to tell."""
    turn = Turn(request={"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": 7}]})
    assert turn.history[0] == Message(turn.messages[0], "user", "Hi")
    assert turn.history[1].spoken == ""


@pytest.mark.parametrize(
    "mark",
    [
        {"metadata": None},
        {"metadata": "x", "turn_id": "4", "timestamp": "now"},
        {"metadata": {"source": ["x"], "user": {}, "vpids": "x", "interrupted": "yes", "original": 5}},
        {"metadata": {"vpids": [1, None], "interrupt_timestamp": -5}, "turn_id": True, "timestamp": True},
        {"metadata": {"user": 0, "source": ""}, "timestamp": float("1e300")},
    ],
)
def test_what_is_shaped_in_another_way_is_nothing(mark: Json) -> None:
    """An engine of next year: no request is refused for a mark that nobody can read."""
    turn = read({"messages": [{"role": "user", "content": "Hi", **mark}]})
    [message] = turn.history
    assert turn.request == {"messages": [{"role": "user", "content": "Hi"}]}
    assert (turn.number, turn.speakers, message.number, message.original, message.interrupted) == (
        *(None, (), None, None),
        False,
    )


def test_presence_is_what_each_participant_shares() -> None:
    """R3: somebody has marked words on a screen, and asks what they mean."""
    shared = {"1002": {"selection": "Pythagorean theorem"}}
    body = {"app_id": "A1", "channel": "room-7", "user_uid": "1002", "agent_uid": "1001", "turn_id": 5}
    turn = read({"context": {"presence": shared}, "messages": [{"role": "user", "content": "What?"}], **body})
    assert turn.presence == shared and (turn.channel, turn.user, turn.number) == ("room-7", "1002", 5)
    assert turn.request == {"messages": [{"role": "user", "content": "What?"}]}


def test_identity_may_stand_in_the_url_or_in_the_context() -> None:
    """`llm.url` with a query; or as one of Agora's samples claims."""
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    turn = read(said, channel="room-7", agent_id="ag", other="x")
    assert (turn.channel, turn.session, turn.engine) == ("room-7", "ag", {"channel": "room-7", "agent_id": "ag"})
    turn = read({**said, "channel": "body"}, channel="query")
    assert turn.channel == "body"
    turn = read({**said, "context": {"appId": "a", "userId": 7, "channel": "c"}})
    assert (turn.channel, turn.user) == ("c", "7")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "", "metadata": {"source": "asr"}, "turn_id": 3}],
        [{"role": "user", "content": None, "turn_id": 3}],
        [{"role": "assistant", "content": "Are you there?", "metadata": {"source": "silence"}, "turn_id": 3}],
        [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hi!", "turn_id": 1}],
    ],
)
async def test_a_turn_without_human_words_is_a_turn(messages: list[Json]) -> None:
    """Blank recognition, a silence prompt, a greeting: none of them is a 4xx."""
    score = await talk(models=says("Hello."), request={"messages": messages})
    assert (score.status, score.text, score.done) == (200, "Hello.", True)
    assert score.turn is not None and score.turn.platform == "agora"


# --- the first event ---------------------------------------------------------------------------------------


def telling(**told: Any) -> App:
    """An App whose hook sets these for each turn."""
    app = App()

    @app.before_turn
    def tell(turn: Turn) -> None:
        for name, value in told.items():
            setattr(turn, name, value)

    return app


VOICE = {"params": {"speed": 0.9, "voice": "calm"}}


@pytest.mark.parametrize(
    ("told", "metadata"),
    [
        ({"interruptable": False}, {"interruptable": False}),
        ({"interruptable": True}, {"interruptable": True}),
        ({"voice": VOICE}, {"tts_params": VOICE}),
        ({"interruptable": False, "voice": VOICE}, {"interruptable": False, "tts_params": VOICE}),
    ],
)
async def test_metadata_is_the_first_event_and_has_the_replys_id(told: Json, metadata: Json) -> None:
    """S2: only the first event counts, and its choices are not read; so all words stand behind it."""
    score = await talk(telling(**told), models=says("Please listen."), request={"turn_id": 1})
    first, *rest = score.chunks
    assert first == {"id": rest[0]["id"], "object": METADATA, "choices": [], "metadata": metadata}
    assert (score.text, score.done, score.finish_reason) == ("Please listen.", True, "stop")
    assert {chunk["object"] for chunk in rest} == {"chat.completion.chunk"}


async def test_metadata_stands_before_a_filler_and_before_an_apology() -> None:
    """Whatever is spoken first: the engine must know before it whether the caller may cut it off."""
    app = telling(interruptable=False)
    slow = await talk(app, models=silent(), request={"turn_id": 1}, fill_after=0.8, apology="Sorry.")
    failed = await talk(app, models=fails(500), request={"turn_id": 1}, apology="Sorry.")
    for score in (slow, failed):
        objects = [chunk["object"] for chunk in score.chunks]
        assert objects[0] == METADATA and METADATA not in objects[1:]
        assert score.chunks[0]["id"] == score.chunks[1]["id"] and score.text.endswith("Sorry.")


async def test_an_error_has_no_metadata() -> None:
    """Nothing is spoken: the status is true, and the body an error."""
    score = await talk(telling(interruptable=False), models=fails(500), request={"turn_id": 1})
    assert score.status >= 500 and score.error is not None


async def test_an_engine_that_cannot_be_told_is_not() -> None:
    """The same App behind other engines: they would not know what the event is."""
    for request in ({}, {"call": {"id": "c"}}):
        score = await talk(telling(interruptable=False, voice=VOICE), models=says("Hello."), request=request)
        assert {chunk["object"] for chunk in score.chunks} == {"chat.completion.chunk"} and score.text == "Hello."


async def test_a_reply_in_one_piece_has_no_place_for_it() -> None:
    """`stream: false`, of some test of the integrator's."""
    score = await talk(telling(interruptable=False), models=says("Hello."), request={"turn_id": 1, "stream": False})
    assert score.chunks[0]["object"] == "chat.completion" and score.text == "Hello."


async def test_metadata_leaves_in_one_write_with_the_first_words(upstream: Upstream) -> None:
    """On the wire, by our protocol and by plain ASGI: the engine's clock runs until something is spoken."""
    app = App(base_url=upstream.base_url)

    @app.stage
    async def tell(turn: Turn, send: Any, call_next: Any) -> None:
        turn.interruptable = False
        await call_next(turn, send)

    for options in ({}, {"http": "h11"}):
        served = Served(app, **options)
        try:
            body = asks(turn_id=1, script=script.stalls_after("Please "))
            async with Caller(served.url).dials(body) as call:
                async for part in call.listens():
                    assert METADATA.encode() in part and b'"Please"' in part
                    break
        finally:
            await asyncio.to_thread(served.stop)  # this loop has a connection to cut meanwhile


@pytest.mark.parametrize("apology", ["Sorry.", None])
async def test_a_voice_that_no_event_can_hold_is_a_mistake_with_an_answer(
    upstream: Upstream, apology: str | None
) -> None:
    """A hook writes a thing that is no JSON: the caller gets a whole response, by our protocol and by plain ASGI."""
    app = App(base_url=upstream.base_url, apology=apology)
    app.before_turn(lambda turn: setattr(turn, "voice", {"params": object()}))
    slow = script.events(script.role(), script.text("Hello."), script.wait(0.2), script.finish())
    for options in ({}, {"http": "h11"}):
        served = Served(app, **options)
        try:
            heard = await Caller(served.url).says("Hi", turn_id=1, script=slow)
        finally:
            served.stop()
        if apology is None:
            assert heard.status == 500 and "mistake" in heard.error["message"]
        else:
            assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, apology, ["stop"], True)
