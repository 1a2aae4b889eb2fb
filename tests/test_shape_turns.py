"""Turns whose words are made fit to be spoken: what is heard and when, over tools, cuts, hooks and a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from openai import AsyncOpenAI
from served import Served

from firstword import App, CallNext, Chunk, ConfigError, Send, Turn
from firstword.testing import Upstream, cuts, says, script, talk, then

Serve = Callable[[App], Served]
MARKED = "## Menu\n\n- **Soup** 🍲\n- [Bread](https://example.com)\n\nSee https://www.example.com/a."
SPOKEN = "Menu.\n\nSoup \nBread\n\nSee example.com."


def answers(*pieces: str, finish: str = "stop") -> script.Script:
    """A model that answers in these pieces."""
    return script.events(script.role(), *map(script.text, pieces), script.finish(finish), script.done())


# --- who hears what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "platform", "heard"),
    [
        ("auto", "agora", SPOKEN),
        ("auto", "vapi", SPOKEN),
        ("auto", "openai", MARKED),
        ("speech", "openai", SPOKEN),
        ("think", "agora", MARKED),
        ("none", "agora", MARKED),
    ],
)
async def test_a_voice_engine_gets_words_and_a_client_gets_text(how: str, platform: str, heard: str) -> None:
    """What the setting means, for each kind of caller; streamed and in one piece."""
    app = App(base_url="http://a.test/v1", api_key="k", shape=how, platform=platform)
    assert (await talk(app, models=says(MARKED))).text == heard
    assert (await talk(app, models=says(MARKED), stream=False)).text == heard


async def test_without_a_word_of_anybody_voice_engines_are_spoken_to() -> None:
    """The default: whose request it is decides."""
    app = App(base_url="http://a.test/v1", api_key="k")
    assert (await talk(app, models=says(MARKED), path="/agora/chat/completions")).text == SPOKEN
    assert (await talk(app, models=says(MARKED), path="/openai/chat/completions")).text == MARKED


@pytest.mark.parametrize(("chosen", "heard"), [("none", "**Hi**"), ("think", "**Hi**"), ("speech", "Hi")])
async def test_a_hook_decides_for_one_turn(chosen: str, heard: str) -> None:
    """`turn.shape`, whatever the App says."""
    for how in ("none", "auto"):
        app = App(base_url="http://a.test/v1", api_key="k", shape=how)

        @app.before_turn
        def choose(turn: Turn) -> None:
            turn.shape = chosen

        assert (await talk(app, models=says("**Hi**"))).text == heard


async def test_a_program_that_reads_json_gets_it_whole() -> None:
    """`response_format`: a `*` within a string is no markup."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")
    wanted = {"response_format": {"type": "json_object"}}
    said = '{"a": "**b** [c](d)"}'
    assert (await talk(app, models=says(said), request=wanted)).text == said


# --- within a turn --------------------------------------------------------------------------------


async def test_words_within_markup_do_not_wait_for_its_end() -> None:
    """Each piece is heard when it comes."""
    timed = [
        step for piece in ["**Sure", "!** ", "One", " *mo", "ment*"] for step in (script.wait(0.1), script.text(piece))
    ]
    answer = script.events(script.role(), timed, script.finish(), script.done())
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")
    assert await talk(app, models=answer) == [(0.1, "Sure"), (0.2, "! "), (0.3, "One"), (0.4, " "), (0.5, "moment")]


async def test_an_answer_of_which_nothing_is_heard_is_apologised_for() -> None:
    """An emoji, or code alone: the caller hears something."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech", apology="Sorry.")
    for silent in ("🎉", "```python\nprint(1)\n```"):
        assert (await talk(app, models=answers(silent))).text == "Sorry."


async def test_what_was_kept_back_is_heard_before_the_apology() -> None:
    """The model is cut off within a link: its text was said, and is not lost."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech", apology="Sorry.", platform="openai")
    score = await talk(app, models=cuts("See [our page](https://exam"))
    assert score.text.startswith("See our page") and score.text.endswith("Sorry.") and score.text.count("our") == 1


async def test_a_caller_who_leaves_ends_it() -> None:
    """A hang-up while something is kept back."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")
    slow = script.events(script.role(), script.text("a [b"), script.wait(5.0), script.text("](c)"), script.finish())
    score = await talk(app, models=slow, leaves=1.0)
    assert (score.text, score.left_open) == ("a ", 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answers_of_two_rounds_are_two_texts(stream: bool) -> None:
    """A model begins with a bracket, or with code that does not end, and calls a tool: what it says then is heard."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")

    @app.tool
    async def balance() -> str:
        """Say how much money there is."""
        await asyncio.sleep(1.0)
        return "five"

    for begun, heard in (("```py\n", ""), ("Well, [a", "Well, [a"), ("**So", "So")):
        calls = script.events(
            script.role(), script.text(begun), script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls")
        )
        score = await talk(app, models=then(calls, says("**Five** euros.")), stream=stream)
        assert score.text.split() == f"{heard} Five euros.".split()
        if stream and heard:
            assert score[0] == (0.0, heard)


async def test_a_filler_of_a_tool_is_said_as_it_is() -> None:
    """The words of the user's own, between two answers."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")

    @app.tool(filler="*One* moment. ")
    async def balance() -> str:
        """Say how much money there is."""
        return "five"

    calls = script.events(script.role(), script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
    score = await talk(app, models=then(calls, says("**Five** euros.")))
    assert score.text == "*One* moment. Five euros."


async def test_last_words_are_said_as_they_are() -> None:
    """What a hook has the engine say is the user's own."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech", platform="vapi")

    @app.stage
    async def leave(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)
        turn.end_call(say="*Good*bye.")

    score = await talk(
        app, models=says("**Well.**"), request={"tools": [{"type": "function", "function": {"name": "endCall"}}]}
    )
    assert score.text == "Well. *Good*bye."


async def test_hooks_see_what_is_heard_and_stages_what_was_written() -> None:
    """on_chunk is the last look; a stage of the user's stands next to the model."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech")
    seen: dict[str, str] = {"hook": "", "stage": ""}

    @app.on_chunk
    def look(turn: Turn, chunk: Chunk) -> None:
        seen["hook"] += chunk.text

    @app.stage
    async def listen(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def relay(chunk: Chunk) -> None:
            seen["stage"] += chunk.text
            await send(chunk)

        await call_next(turn, relay)

    score = await talk(app, models=says("**Hi** there"))
    assert seen == {"hook": "Hi there", "stage": "**Hi** there"} and score.turn.reply.text in ("", "Hi there")


async def test_a_model_function_may_write_as_well() -> None:
    """`@app.model`: its words, and its thoughts, go the same way."""
    app = App(shape="speech")

    @app.model("mine")
    async def mine(turn: Turn) -> Any:
        for piece in ("<think>Hm.", "</think>\n", "**Hi** ", "😀 you"):
            yield piece

    assert (await talk(app, request={"model": "mine"})).text == "Hi you"


# --- read aloud -----------------------------------------------------------------------------------


async def test_hooks_read_numbers_aloud() -> None:
    """In order, each with what the one before has made of it, in whole words."""
    app = App(base_url="http://a.test/v1", api_key="k", platform="agora")

    @app.read_aloud
    def currency(turn: Turn, text: str) -> str:
        return text.replace("€5.50", "5.50 euros")

    @app.read_aloud
    def number(turn: Turn, text: str) -> str:
        return text.replace("5.50", "five fifty")

    score = await talk(app, models=answers("It is **€", "5", ".5", "0** today", "."))
    assert score.text == "It is five fifty euros today."
    assert (await talk(app, models=answers("€5.50"), path="/openai/chat/completions")).text == "€5.50"


async def test_a_hook_that_returns_no_text_is_a_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """It forgot to return: told by its kind, without the caller's words, and the hook is not called again."""
    app = App(base_url="http://a.test/v1", api_key="k", shape="speech", debug=True)
    calls: list[str] = []

    @app.read_aloud
    def forget(turn: Turn, text: str) -> str:
        calls.append(text)
        return None  # type: ignore[return-value]

    score = await talk(app, models=answers("One [two"))
    assert (score.status, calls) == (500, ["One "])
    assert "a read_aloud hook returned a NoneType; it must be a str" in caplog.text


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    """Told when it is written."""
    app = App()
    with pytest.raises(ConfigError, match="async"):

        @app.read_aloud
        async def wait(turn: Turn, text: str) -> str:
            return text

    with pytest.raises(ConfigError, match="turn, text"):

        @app.read_aloud
        def one(text: str) -> str:
            return text


# --- on the wire ----------------------------------------------------------------------------------


async def test_a_voice_engine_hears_it_over_a_socket(serve: Serve, upstream: Upstream) -> None:
    """A real server in front of a real model: shaped, in the strict form, with its ending."""
    app = App(base_url=upstream.base_url, platform="agora")
    heard = await Caller(serve(app).url).says(script=script.events(script.says(MARKED)))

    assert (heard.text, heard.done) == (SPOKEN, True)
    assert [each["choices"][0]["finish_reason"] for each in heard.chunks][-1] == "stop"
    assert {each["id"] for each in heard.chunks} == {"chatcmpl-script"}


async def test_words_without_markup_keep_their_bytes_on_the_wire(serve: Serve, upstream: Upstream) -> None:
    """The same events for a voice engine as for a client whose text nobody touches."""
    said = script.events(script.says("Hello there, how are you? It is 5:30, I think. Yes, with you!"))
    replies = [
        (await Caller(serve(App(base_url=upstream.base_url, platform="agora", shape=how)).url).says(script=said)).frames
        for how in ("speech", "none")
    ]
    assert replies[0] == replies[1] and len(replies[0]) > 10


@pytest.mark.parametrize("stream", [True, False])
async def test_the_sdk_of_a_client_reads_it(serve: Serve, upstream: Upstream, stream: bool) -> None:
    """OpenAI's own, of an App that shapes for everybody."""
    server = serve(App(base_url=upstream.base_url, shape="speech"))
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    body = {"script": script.events(script.says(MARKED))}
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-caller", timeout=5) as client:
        if stream:
            reply = await client.chat.completions.create(model="m", messages=messages, stream=True, extra_body=body)
            text = "".join([each.choices[0].delta.content or "" async for each in reply if each.choices])
        else:
            whole = await client.chat.completions.create(model="m", messages=messages, extra_body=body)
            text = whole.choices[0].message.content or ""
    assert text == SPOKEN
