"""Hume's EVI: the session that stands in every chunk, the caller's emotions for a hook, and how a chat is ended."""

from __future__ import annotations

from typing import Any

import pytest
from actions_of_a_test import tool
from caller import Caller
from served import Served

from firstword import App, Turn
from firstword.platforms import Asked
from firstword.platforms.hume import platform
from firstword.testing import Upstream, after, cuts, fails, says, script, silent, talk, then
from firstword.testing.models import Scripted

Json = dict[str, Any]
PATH = "/chat/completions?custom_session_id=chat-1"
SORRY = "I'm sorry, I lost the line."
FRIEND = "Hello there, friend."
CALLS = script.events(script.role(), script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
ODD = script.events(  # a chunk with a fingerprint of the provider's own, and a call that has to be mended
    script.event(script.chunk({"role": "assistant", "content": "One. "}, system_fingerprint="fp_1")),
    script.event(script.chunk({"tool_calls": [{"function": {"name": "hang_up", "arguments": "{}"}}]})),
    script.finish("tool_calls"),
    script.usage(),
)

HANG_UP = [tool("hang_up")]


def app_of(**more: Any) -> App:
    app = App(**{"base_url": "http://model.test/v1", "model": "m", "apology": SORRY, **more})

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much money there is."""
        return "five euros"

    return app


@pytest.mark.parametrize(
    ("models", "settings", "text"),
    [
        (says(FRIEND), {}, FRIEND),
        (after(2.0, says(FRIEND)), {"fill_after": 0.5, "fillers": ["One moment. "]}, f"One moment. {FRIEND}"),
        (then(CALLS, says("Five euros.")), {}, "Let me look. Five euros."),
        (ODD, {}, "One. "),
        (fails(503), {}, SORRY),
        (silent(), {"turn_timeout": 3.0}, SORRY),
        (cuts("Hello there"), {"on_cut": "apologise"}, f"Hello there {SORRY}"),
        (cuts("Hello there"), {"on_cut": "finish"}, "Hello there"),
    ],
    ids=["words", "a filler", "a round of tools", "a call", "an apology", "too late", "cut off", "cut off, finished"],
)
async def test_every_chunk_says_whose_session_it_is(models: Scripted, settings: Json, text: str) -> None:
    """Whoever made the chunk: the provider, the filler, the tools, the strict form, the apology."""
    score = await talk(app_of(), models=models, path=PATH, request={"tools": HANG_UP}, **settings)

    assert (score.text, score.status, score.done) == (text, 200, True)
    assert [chunk.get("system_fingerprint") for chunk in score.chunks] == ["chat-1"] * len(score.chunks)
    assert all("custom_session_id" not in record.body for record in score.seen)


async def test_a_reply_in_one_piece_says_it_as_well() -> None:
    """And an action that a hook asked for, whose chunks are our own."""
    score = await talk(app_of(), models=says(FRIEND), path=PATH, stream=False)
    assert score.chunks[0]["system_fingerprint"] == "chat-1"

    app = app_of()
    app.before_turn(lambda turn: turn.end_call(say="Bye."))
    score = await talk(app, models=silent(), path=PATH, request={"tools": HANG_UP})
    assert [chunk["system_fingerprint"] for chunk in score.chunks] == ["chat-1"] * len(score.chunks)
    assert (score.text, score.finish_reason) == ("Bye.", "tool_calls")


async def test_a_session_that_stands_elsewhere_as_well_changes_nothing_of_it() -> None:
    """The header names the session for us; Hume gets its own name back, or none that it did not send."""
    headers = {"x-session-id": "ours"}
    both = await talk(models=says(FRIEND), path=PATH, headers=headers)
    assert both.turn is not None and both.turn.session == "ours"
    assert {chunk["system_fingerprint"] for chunk in both.chunks} == {"chat-1"}

    ours = await talk(models=says(FRIEND), path="/hume/s/ours/chat/completions")
    assert ours.turn is not None and ours.turn.session == "ours"
    assert not any("system_fingerprint" in chunk for chunk in ours.chunks)


async def test_an_error_is_told_as_it_is() -> None:
    """Without an apology: a true status before the first word, an event after it."""
    score = await talk(app_of(apology=None), models=fails(503), path=PATH)
    assert (score.status, score.error is not None) == (503, True)

    score = await talk(app_of(apology=None), models=cuts("Hello there"), path=PATH, on_cut="error")
    assert score.status == 200 and score.error is not None and not score.done
    assert next(chunk["system_fingerprint"] for chunk in score.chunks if "choices" in chunk) == "chat-1"


async def test_over_a_real_socket_the_bytes_of_the_provider_are_changed_in_that_field_only(
    server: Served, upstream: Upstream, marker: str
) -> None:
    """The plain server, which sees from the URL that it is Hume."""
    heard = await Caller(server.url).says("Hello", path=PATH, user=marker)
    plain = await Caller(server.url).says("Hello", user=marker)

    echo = {"system_fingerprint": "chat-1"}
    assert len(heard.chunks) == len(plain.chunks) and heard.done
    for mine, theirs in zip(heard.chunks, plain.chunks, strict=True):
        assert mine == {**theirs, **echo, "id": mine["id"], "created": mine["created"]}
        assert "system_fingerprint" not in theirs


def read(messages: list[Json], query: dict[str, str] | None = None, **fields: Any) -> Turn:
    return platform.read(Asked({"messages": messages, **fields}, {}, query or {}, "/chat/completions", None))


def spoken(content: str, **scores: float) -> Json:
    return {"role": "user", "content": content, "models": {"prosody": {"scores": scores}}}


@pytest.mark.parametrize(
    ("messages", "prosody"),
    [
        ([spoken("Hi", Joy=0.2), spoken("Oh", Joy=0.1)], {"Joy": 0.1}),
        ([spoken("Hi", Joy=0.2), {"role": "assistant", "content": "Yes?", "time": {}}], {"Joy": 0.2}),
        ([spoken("Hi", Joy=0.2), {"role": "user", "content": "typed"}], {}),
        ([{"role": "user", "content": "Hi", "models": None}], {}),
        ([{"role": "user", "content": "Hi", "models": {"prosody": None}}], {}),
        ([{"role": "user", "content": "Hi", "models": {"prosody": {"scores": [1]}}}], {}),
        ([{"role": "assistant", "content": "Hi", "models": {"prosody": {"scores": {"Joy": 1}}}}], {}),
    ],
)
def test_a_hook_finds_how_the_last_words_were_spoken(messages: list[Json], prosody: Json) -> None:
    """The caller's last words: not the agent's, and not the ones before."""
    turn = read(messages)

    assert turn.engine["prosody"] == prosody
    assert len(turn.engine["messages"]) == len(turn.messages)
    assert not any({"models", "time"} & each.keys() for each in turn.messages)


def test_without_any_of_it_there_is_nothing_to_find() -> None:
    """A chat that is typed, in a session without a name."""
    turn = read([{"role": "user", "content": "Hi"}], {"custom_session_id": ""})
    assert (turn.session, dict(turn.engine), dict(turn.echo)) == (None, {}, {})
