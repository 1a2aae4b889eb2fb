"""Ending a call from a stage, a model function or a hook on chunks: behind the answer, whose words do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from actions_of_a_test import BYE, ELEVENLABS, ENDED, VAPI, app_on, calls
from caller import Caller
from served import Served

from firstword import App, CallNext, Chunk, Send, Turn
from firstword.testing import Upstream, says, script, talk

SPEAKS = {"tools": ELEVENLABS}


async def end_before(turn: Turn, send: Send, call_next: CallNext) -> None:
    turn.end_call(say=BYE)
    await call_next(turn, send)


async def end_after(turn: Turn, send: Send, call_next: CallNext) -> None:
    await call_next(turn, send)
    await asyncio.sleep(1.0)
    turn.end_call(say=BYE)


async def end_alone(turn: Turn, send: Send, call_next: CallNext) -> None:
    turn.end_call(say=BYE)


COUNTED = script.events(script.role(), script.words("So it is."), script.finish(), script.usage(), script.done())
IN_ONE = [
    script.event(script.chunk({"role": "assistant", "content": "So it"})),
    script.event(script.chunk({"content": " is."}, "stop", usage=script.tokens())),
    script.done(),
]


@pytest.mark.parametrize(
    ("stage", "heard"),
    [
        (end_before, [(0.0, f"So it is. {BYE}")]),
        (end_after, [(0.0, "So it is."), (1.0, f" {BYE}")]),
        (end_alone, [(0.0, BYE)]),
    ],
)
@pytest.mark.parametrize("model", [says("So it is."), script.events(IN_ONE)], ids=["plain", "words in the ending"])
async def test_a_stage_ends_the_call_behind_the_answer(stage: Any, heard: Any, model: Any) -> None:
    """Before it, when it is over, or in its place; the answer's last words never wait for the stage."""
    app = app_on("elevenlabs")
    app.stage(stage)
    score = await talk(app, models=model, request=SPEAKS)

    assert (score, calls(score)) == (heard, ENDED)


@pytest.mark.parametrize("delta", [{}, {"role": "assistant", "content": ""}], ids=["nothing", "a role"])
async def test_an_answer_that_is_an_ending_only_gets_words(delta: Any) -> None:
    """One chunk, with nothing to hear in it: the reply still begins with a role, and has one id."""
    app = app_on("elevenlabs")
    app.stage(end_before)
    model = script.events(script.event(script.chunk(delta, "stop")), script.done())
    score = await talk(app, models=model, request=SPEAKS)

    assert (score, calls(score)) == ([(0.0, BYE)], ENDED)


async def test_an_answer_passes_a_stage_that_asks_for_nothing() -> None:
    """Its chunks are what the model sent, the ending and the count of tokens included."""
    app = app_on("elevenlabs")

    @app.stage
    async def look(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)

    score = await talk(app, models=COUNTED, request={"stream_options": {"include_usage": True}})
    plain = await talk(models=COUNTED, request={"stream_options": {"include_usage": True}})
    assert score.chunks == plain.chunks and score.done


async def test_a_count_of_tokens_comes_behind_the_ending() -> None:
    """The order that clients expect: words, the call, the ending, the count."""
    app = app_on("elevenlabs")
    app.stage(end_after)
    score = await talk(app, models=COUNTED, request={**SPEAKS, "stream_options": {"include_usage": True}})

    assert (score.chunks[-1]["choices"], score.chunks[-1]["usage"]) == ([], script.tokens())
    assert calls(score) == ENDED


async def test_a_model_function_ends_the_call() -> None:
    """It says goodbye itself."""
    app = app_on("vapi")

    @app.model("polite")
    async def polite(turn: Turn) -> Any:
        yield "It was a pleasure."
        turn.end_call()

    score = await talk(app, request={"model": "polite", "tools": VAPI})
    assert (score.text, calls(score)) == ("It was a pleasure.", [("endCall", {})])


async def test_an_on_chunk_hook_may_ask_until_the_ending_and_sees_the_last_words() -> None:
    """It hears the model say goodbye."""
    app = app_on("elevenlabs")
    seen: list[str] = []

    @app.on_chunk
    def listen(turn: Turn, chunk: Chunk) -> None:
        seen.append(chunk.text)
        if "farewell" in chunk.text:
            turn.end_call(say=BYE)

    score = await talk(app, models=says("And farewell"), request=SPEAKS)
    assert (score.text, calls(score)) == (f"And farewell {BYE}", ENDED)
    assert f" {BYE}" in seen


async def test_a_stage_that_breaks_after_the_answer_does_not_swallow_its_ending() -> None:
    """The words and their `stop` are sent, then the error is told."""
    app = app_on("elevenlabs")

    @app.stage
    async def breaks(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)
        turn.end_call()
        raise LookupError

    score = await talk(app, models=says("So it is."), request=SPEAKS)
    assert (score.text, score.finish_reason, score.done) == ("So it is.", "stop", False)


FORGETFUL = script.events(
    script.role(),
    script.text("So "),
    script.send(script.text("it is.")["text"] + script.finish()["text"]),
    script.wait(),
)


@pytest.mark.parametrize("asks", [True, False])
async def test_the_last_words_do_not_wait_for_the_ending(asks: bool) -> None:
    """Words and ending come in one read, and the model's server forgets the `[DONE]`: the words leave at once."""
    app = app_on("elevenlabs")

    @app.stage
    async def end(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)
        if asks:
            turn.end_call(say=BYE)

    score = await talk(app, models=FORGETFUL, request=SPEAKS)
    assert score == [(0.0, "So it is."), *([(0.5, f" {BYE}")] if asks else [])]
    assert calls(score) == (ENDED if asks else [])


async def test_a_call_is_ended_through_our_own_protocol(
    serve: Callable[[App], Served], upstream: Upstream, marker: str
) -> None:
    """Through our own protocol, where words leave in the socket's callback."""
    app = App(base_url=upstream.base_url, platform="elevenlabs")
    app.stage(end_after_it)
    heard = await Caller(serve(app).url).says(user=marker, script=script.events(script.says("So it is.")), **SPEAKS)

    assert (heard.text, heard.finish_reasons, heard.done) == (f"So it is. {BYE}", ["tool_calls"], True)
    called = [
        choice["delta"]["tool_calls"]
        for each in heard.chunks
        for choice in each["choices"]
        if "tool_calls" in choice["delta"]
    ]
    assert [item["function"]["name"] for [item] in called] == ["end_call"]


async def end_after_it(turn: Turn, send: Send, call_next: CallNext) -> None:
    await call_next(turn, send)
    turn.end_call(say=BYE)
