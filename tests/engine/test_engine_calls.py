"""What happens in a call with the fake engine: who is heard, who is cut off, and what is told of it."""

from __future__ import annotations

import asyncio
import base64
import queue
from collections.abc import Callable

import pytest
from engine_call import calling, scripted
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream, says, script

SLOW = script.events(script.says("One two three four five six.", every=0.2))
SOUND = base64.b64encode(bytes(32_000)).decode()  # a second
FAILURE = {"failure_message": "Sorry, once more please."}


# --- with our own server ------------------------------------------------------------------------------


async def test_our_server_knows_what_was_heard_of_a_reply(serve: Callable[[App], Served]) -> None:
    """The user interrupts the demo at a word; the next turn tells the server what was heard and what was not."""
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app = App()
    app.after_turn(turns.put)
    async with calling(f"{serve(app).url}/chat/completions", params={"model": "demo", "pace": 0}) as call:
        marks = await call.plays('interrupt "go"\nsay Tell me a joke\nsay Why?')

    first, second = turns.get(timeout=5), turns.get(timeout=5)
    assert (first.platform, second.platform) == ("agora", "agora")
    asked, reply, last = second.history
    assert (asked.spoken, asked.source, asked.user) == ("Tell me a joke", "asr", "1002")
    assert (reply.spoken, reply.interrupted, reply.number) == ("Why did the developer go ", True, 1)
    assert reply.original is not None and reply.original.startswith("Why did the developer go ")
    assert reply.interrupted_at is not None and reply.at is not None and reply.interrupted_at >= reply.at > 1.7e9
    assert (last.spoken, last.number, second.number) == ("Why?", 2, 2)
    assert (marks.status, marks.finish_reason, marks.done, marks.faults) == (200, "stop", True, [])


async def test_a_barge_in_stops_the_model_behind_our_server(server: Served, upstream: Upstream, marker: str) -> None:
    """The user speaks up in the middle of a reply: the connection is closed, and so is the one behind it."""
    params = {"model": "m1", "user": marker, "script": SLOW}
    async with calling(f"{server.url}/chat/completions", params=params) as call:
        marks = await call.plays('interrupt "two"\nsay Count')

        assert (marks.heard, marks.interrupted, marks.done) == ("One two ", True, False)
        [record] = await upstream.wait_closed(marker)
    assert record.closed_by == "peer"
    assert server.left_open() == {"in_use": 0, "turns": 0}
    assert marks.interrupted_at is not None and 0.4 <= marks.interrupted_at < 1.2


async def test_our_server_s_own_words_of_the_voice_are_understood(serve: Callable[[App], Served]) -> None:
    """A hook says that a reply may not be cut off, and how it is to be spoken: the engine does as it is told."""
    app = App()

    @app.before_turn
    def important(turn: Turn) -> None:
        turn.interruptable, turn.voice = False, {"params": {"speed": 0.8}}

    async with calling(f"{serve(app).url}/chat/completions", params={"model": "demo", "pace": 0}) as call:
        marks = await call.plays('interrupt "Hello"\nsay Hi')

    assert (marks.interruptable, marks.held_on, marks.interrupted) == (False, True, False)
    assert marks.tts_params == {"params": {"speed": 0.8}}
    assert marks.heard == marks.text and marks.text.startswith("Hello")
    assert call.shown.notes == ["this reply is not interruptable"]


async def test_our_server_gives_its_voice_to_all_that_is_spoken(serve: Callable[[App], Served]) -> None:
    """Sound alone: the greeting is a directive, and the reply to a turn is sound too."""
    app = App()

    @app.voice
    async def voice(text: str) -> bytes:
        return bytes(3200)  # a tenth of a second

    @app.model("parrot")
    async def parrot(turn: Turn) -> str:
        return f"You said {turn.text}. "

    settings = {"output_modalities": ["audio"], "greeting_message": "Welcome!", "params": {"model": "parrot"}}
    async with calling(f"{serve(app).url}/chat/completions", **settings) as call:
        await call.plays("say Hello")

    greeting, reply = call.conversation.turns
    assert (greeting.source, greeting.text.strip(), greeting.error) == ("greeting", "Welcome!", None)
    assert (reply.text.strip(), reply.heard, reply.error) == ("You said Hello.", reply.text, None)
    assert greeting.audio >= 0.1 and reply.audio >= 0.1 and reply.faults == []
    said = [(each["role"], each["content"].strip()) for each in call.conversation.memory.messages]
    assert said == [("assistant", "Welcome!"), ("user", "Hello"), ("assistant", "You said Hello.")]


# --- interruptions ------------------------------------------------------------------------------------


async def test_a_reply_may_be_cut_off_before_its_first_word(upstream: Upstream, marker: str) -> None:
    """The model thinks for long, and the user does not wait: there is nothing to remember."""
    async with calling(**scripted(upstream, marker, script.sends_only_the_role(), says("Yes?"))) as call:
        await call.plays("interrupt 0.1\nsay Hello\nsay Are you there?")

    first = call.conversation.turns[0]
    assert (first.interrupted, first.heard, first.text) == (True, "", "")
    assert [each["content"] for each in upstream.seen(marker)[1].body["messages"]] == ["Hello", "Are you there?"]


async def test_what_was_generated_and_not_heard_at_all_is_told(upstream: Upstream, marker: str) -> None:
    """The voice has not said a word yet when the user interrupts: blank content, and the original."""
    async with calling(**scripted(upstream, marker, says("Extraordinarily."), says("Yes?")), rate=10.0) as call:
        await call.plays("interrupt 0.2\nsay Hello\nset rate 0\nsay What?")

    reply = upstream.seen(marker)[1].body["messages"][1]
    assert (reply["content"], reply["metadata"]["original"]) == ("", "Extraordinarily.")


async def test_a_word_within_another_does_not_interrupt(upstream: Upstream, marker: str) -> None:
    """ "one" is to interrupt, and "someone" is said before it; of Chinese any sign counts."""
    answers = scripted(upstream, marker, says("Is someone there? One is."), says("今天天气很好。"))
    async with calling(**answers) as call:
        await call.plays('interrupt "one"\nsay Hello\ninterrupt 天气\nsay 你好')

    assert [marks.heard for marks in call.conversation.turns] == ["Is someone there? One ", "今天天气"]


async def test_a_greeting_may_be_interrupted(upstream: Upstream, marker: str) -> None:
    """The user knows it already."""
    async with calling(
        **scripted(upstream, marker, says("Yes.")), greeting_message="Good day, Sir.", rate=10.0
    ) as call:
        greeting = asyncio.create_task(call.player.begin())
        while "Good" not in call.shown.heard:
            await asyncio.sleep(0.01)
        assert call.conversation.barge_in()
        await greeting
        assert not call.conversation.barge_in()

    [said] = call.conversation.memory.messages
    assert (said["content"], said["metadata"]["source"], said["metadata"]["original"]) == (
        "Good ",
        "greeting",
        "Good day, Sir.",
    )


# --- the engine's own voice ---------------------------------------------------------------------------


async def test_the_engine_fills_a_silence_of_the_server(upstream: Upstream, marker: str) -> None:
    """No word for 0.1 s: the engine says its filler, which is nobody's memory."""
    late = script.events(script.role(), script.wait(0.3), script.words("Here I am."), script.finish(), script.done())
    settings = {"filler_words": ["One moment. ", "Well. "], "response_wait": 0.1}
    async with calling(**scripted(upstream, marker, late, says("Yes.")), **settings) as call:
        await call.plays("say Hello\nsay Bye")

    first, second = call.conversation.turns
    assert (first.filler, first.heard, second.filler) == ("One moment. ", "Here I am.", None)
    assert call.shown.heard == "One moment. Here I am.Yes."
    assert [each["content"] for each in call.conversation.memory.messages] == ["Hello", "Here I am.", "Bye", "Yes."]


async def test_a_refused_turn_makes_the_engine_speak_its_failure_message(upstream: Upstream, marker: str) -> None:
    """503, then 401 with a hint, as our own server writes it; both are remembered as the engine's own words."""
    refused = script.refuses(401, "No key was sent.\nhint: send the header", type="authentication_error")
    answers = scripted(upstream, marker, script.refuses(503, "Overloaded."), refused, says("Yes."))
    async with calling(**answers, **FAILURE) as call:
        await call.plays("say One\nsay Two\nsay Three")

    first, second, _ = call.conversation.turns
    assert (first.status, first.error, first.hint) == (503, "The server answered 503: Overloaded.", None)
    assert (second.error, second.hint) == ("The server answered 401: No key was sent.", "send the header")
    said = upstream.seen(marker)[2].body["messages"]
    assert [each["metadata"]["source"] for each in said] == ["asr", "llm_failure", "asr", "llm_failure", "asr"]
    assert said[1]["content"] == FAILURE["failure_message"]
    assert call.shown.heard == FAILURE["failure_message"] * 2 + "Yes."


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (script.shows_a_page(200), "The server answered with text/html, which is no event stream."),
        (script.shows_a_page(502), "The server answered 502."),
        (script.json_document({"ok": True}), "The server answered with application/json, which is no event stream."),
        (script.fails_at_once(), "The server broke off with an error: The model crashed."),
        (script.fails_after("One"), "The server broke off with an error: The model crashed."),
        (script.closes_after("One"), "The server closed the connection in the middle of its answer."),
        (script.ends_after("One"), "The answer has no end: neither a finish_reason nor [DONE] came."),
        ([script.close()], "The server closed the connection without an answer."),
        ([script.send("SSH-2.0\r\n", raw=True), script.close()], "The server sent a reply that is not HTTP."),
        (script.events(script.role(), script.finish(), script.done()), None),
    ],
    ids=str,
)
async def test_what_is_no_answer_is_told_in_a_sentence(
    upstream: Upstream, marker: str, steps: script.Script, error: str | None
) -> None:
    """Whatever a server does instead of answering."""
    async with calling(**scripted(upstream, marker, steps)) as call:
        marks = await call.plays("say Hello")

    assert marks.error == error


async def test_a_silence_prompt_is_spoken_or_thought_about(upstream: Upstream, marker: str) -> None:
    """The user is silent: the engine asks by itself, or has the model ask."""
    async with calling(**scripted(upstream, marker, says("Hello?"), says("Fine."))) as call:
        await call.plays("silence\nset silence_action think\nset silence_message Ask again.\nsilence\nsay I am here")

    said = upstream.seen(marker)[1].body["messages"]
    told = [(each["role"], each["content"], each["metadata"]["source"]) for each in said]
    assert told == [
        ("assistant", "Are you still there?", "silence"),
        ("user", "Ask again.", "command"),
        ("assistant", "Hello?", "llm"),
        ("user", "I am here", "asr"),
    ]
    assert [each["turn_id"] for each in said] == [1, 2, 2, 3]


async def test_a_long_wait_brings_as_many_prompts_as_fall_due(upstream: Upstream, marker: str) -> None:
    """0.35 s without a word, and a prompt after every 0.1 s."""
    async with calling(**scripted(upstream, marker, says("Yes."))) as call:
        await call.plays("set silence_timeout 0.1\nset silence_message Well?\nwait 0.35\nsay Yes")

    assert call.shown.heard == "Well?Well?Well?Yes."


async def test_what_the_engine_is_told_to_say_and_what_is_typed_have_their_sources(
    upstream: Upstream, marker: str
) -> None:
    """The REST commands speak and think, and a message that is typed."""
    async with calling(**scripted(upstream, marker, says("One."))) as call:
        await call.plays("speak We close at six.\nthink Say goodbye.\nmessage Wait")

    said = upstream.seen(marker)[1].body["messages"]
    assert [each["metadata"]["source"] for each in said] == ["command", "command", "llm", "message"]


async def test_sound_is_played_for_as_long_as_it_lasts(upstream: Upstream, marker: str) -> None:
    """Two pieces of a second with their words; only the transcript is remembered."""
    piece = {"id": "a1", "data": SOUND}
    steps = [
        script.event(script.chunk({"audio": {**piece, "transcript": "Good "}})),
        script.event(script.chunk({"audio": {**piece, "transcript": "day."}})),
    ]
    answer = script.events(script.role(), *steps, script.finish(), script.done())
    url, params = f"{upstream.base_url}/chat/completions", {"user": marker, "script": answer}
    async with calling(url, params=params, output_modalities=["text", "audio"], rate=15.0) as call:
        marks = await call.plays('interrupt "Good"\nsay Hello')

    assert (marks.audio, marks.heard, marks.text) == (2.0, "Good ", "Good day.")
    assert marks.interrupted_at is not None and 1.0 <= marks.interrupted_at < 1.8
    assert upstream.seen(marker)[0].body["modalities"] == ["text", "audio"]
