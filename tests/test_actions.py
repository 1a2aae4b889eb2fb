"""Ending and transferring a call: who may ask for it, when it is done, and what the caller hears before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from actions_of_a_test import BYE, CALLS, ELEVENLABS, END_CALL, ENDED, VAPI, app_on, calls, deltas, tool

from firstword import ActionError, App, Chunk, Send, Turn
from firstword.building import in_order
from firstword.rounds.jobs import Jobs
from firstword.testing import Record, Score, after, fails, says, script, silent, stalls, talk

SPEAKS = {"tools": ELEVENLABS}
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def answers(*scripts: script.Script) -> Callable[[Record], script.Script]:
    """Return a model that answers a conversation by the number of results that it holds."""

    def answer(record: Record) -> script.Script:
        results = [each for each in record.body["messages"] if each["role"] == "tool"]
        return scripts[min(len(results), len(scripts) - 1)]

    return answer


def asks_in_a_hook(say: str | None, *, to: str | None = None, wait: float = 0.0, **more: Any) -> App:
    app = app_on(**{"platform": "elevenlabs", **more})

    @app.before_turn
    async def ask(turn: Turn) -> None:
        await asyncio.sleep(wait)
        turn.end_call(say=say) if to is None else turn.transfer(to, say=say)

    return app


def asks_in_a_tool(say: str | None, *, commits: bool = False, filler: str | None = None, **more: Any) -> App:
    app = app_on(**{"platform": "elevenlabs", **more})

    @app.tool(filler=filler, commits=commits)
    async def hang_up(turn: Turn) -> str:
        """Hang up."""
        await asyncio.sleep(2.0)
        turn.end_call(say=say)
        return "hanging up"

    return app


# --- the form of it, for each engine ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "tools", "call"),
    [
        ("elevenlabs", ELEVENLABS, ("end_call", '{"reason":"The conversation is over."}')),
        ("vapi", VAPI, ("endCall", "{}")),
        ("agora", None, None),
    ],
)
async def test_the_golden_reply_of_each_engine(platform: str, tools: Any, call: Any) -> None:
    """A hook ends the call: the words, the call where there is one, an ending, and nothing else."""
    request = {"tools": tools} if tools else {"channel": "room-7", "agent_id": "agent-1"}
    score = await talk(asks_in_a_hook(BYE, platform=platform), models=silent(), request=request)

    said = {"role": "assistant", "content": BYE}
    ending = ({}, "tool_calls" if call else "stop")
    if call is None:
        assert deltas(score) == [(said, None), ending]
    else:
        function = {"name": call[0], "arguments": call[1]}
        called = {"tool_calls": [{"index": 0, "type": "function", "function": function}]}
        assert deltas(score) == [(said, None), (called, None), ending]
    assert (score.status, score.done, score.asked) == (200, True, [])


@BOTH
async def test_a_hook_ends_the_call_and_no_model_is_asked(stream: bool) -> None:
    """The caller has said goodbye, or is not to be served."""
    score = await talk(asks_in_a_hook(BYE), models=silent(), request=SPEAKS, stream=stream)

    assert (score, score.asked, calls(score)) == ([(0.0, BYE)], [], ENDED)


@pytest.mark.parametrize(("platform", "tools", "name"), [("elevenlabs", ELEVENLABS, "end_call"), ("agora", None, "")])
@BOTH
async def test_a_hook_may_end_the_call_without_a_word(platform: str, tools: Any, name: str, stream: bool) -> None:
    """Nothing is said in place of it either: the silence is meant."""
    request = {"tools": tools, "channel": "room-7"}
    app = asks_in_a_hook("  ", platform=platform, apology="Sorry.")
    score = await talk(app, models=silent(), request=request, stream=stream)

    assert (score, score.status, score.error) == ([], 200, None)
    assert [each for each, _ in calls(score)] == ([name] if name else [])


async def test_the_last_thing_that_was_asked_for_counts() -> None:
    """A hook ends the call, and a later one transfers it."""
    app = asks_in_a_hook(BYE)

    @app.before_turn
    def rather(turn: Turn) -> None:
        turn.transfer("+1 (555) 123-4567", say="One moment.")

    score = await talk(app, models=silent(), request=SPEAKS)
    [(name, arguments)] = calls(score)
    assert (name, arguments["transfer_number"]) == ("transfer_to_number", "+15551234567")
    assert (arguments["client_message"], score) == ("One moment.", [])


async def test_a_filler_may_go_before_it() -> None:
    """The hook takes two seconds: a filler, then the words once, in one reply."""
    app = asks_in_a_hook(BYE, wait=2.0)
    score = await talk(app, models=silent(), request=SPEAKS, fill_after=0.8)

    assert score == [(0.8, "One moment... "), (2.0, BYE)]
    assert calls(score) == ENDED and score.turn is not None and score.turn.filled


# --- tools ------------------------------------------------------------------------------------------


@BOTH
async def test_a_tool_gives_the_last_words_and_the_model_is_not_asked_for_others(stream: bool) -> None:
    """What the model said before its call is heard, then the words, then the call ends."""
    first = script.events(
        script.role(),
        script.words("Very well."),
        script.tool_call("hang_up", "{}", id="c1"),
        script.finish("tool_calls"),
        script.usage(),
        script.done(),
    )
    request = {**SPEAKS, "stream_options": {"include_usage": True}} if stream else SPEAKS
    score = await talk(asks_in_a_tool(BYE), models=first, request=request, stream=stream)

    assert score.text == f"Very well. {BYE}" and len(score.asked) == 1 and calls(score) == ENDED
    assert score.chunks[-1]["usage"] == script.tokens()
    assert score[-1] == ((2.0, f" {BYE}") if stream else (2.0, f"Very well. {BYE}"))


@BOTH
async def test_a_tool_without_words_leaves_them_to_the_model(stream: bool) -> None:
    """It is asked once more, as ever, and the call ends behind its answer."""
    model = answers(CALLS, says("Take care."))
    score = await talk(asks_in_a_tool(None), models=model, request=SPEAKS, stream=stream)

    assert (score, len(score.asked), calls(score)) == ([(2.0, "Take care.")], 2, ENDED)


async def test_a_tools_filler_and_its_words_are_each_heard_once() -> None:
    """The filler ends as the engine wants it; no space is missing, and none too many."""
    score = await talk(asks_in_a_tool(BYE, filler="One moment."), models=CALLS, request=SPEAKS)

    assert (score, calls(score)) == ([(0.0, "One moment... "), (2.0, BYE)], ENDED)


@pytest.mark.parametrize("name", ["weather", "end_call"])
async def test_what_the_model_calls_of_the_engines_goes_before_it(name: str) -> None:
    """A call of another tool is counted first; of the same one there is no second, and what came last counts."""
    own = script.tool_call(name, "{}", id="w1", index=1)
    both = script.events(
        script.role(), script.tool_call("hang_up", "{}", id="c1"), own, script.finish("tool_calls"), script.done()
    )
    score = await talk(asks_in_a_tool(BYE), models=both, request={"tools": [*ELEVENLABS, tool("weather")]})

    assert calls(score) == [*([(name, {})] if name == "weather" else []), *ENDED]
    assert score.text == BYE


async def test_the_words_that_stand_in_a_call_are_not_lost_to_the_models_own() -> None:
    """The engine speaks what stands in its call: what a tool has to say, although the model called it first."""
    own = tool("end_call", system__message_to_speak=None)
    said = script.tool_call("end_call", '{"system__message_to_speak":"Whatever."}', id="e1", index=1)
    both = script.events(
        script.role(), script.tool_call("hang_up", "{}", id="c1"), said, script.finish("tool_calls"), script.done()
    )
    score = await talk(asks_in_a_tool(BYE), models=both, request={"tools": [own]})

    assert calls(score) == [("end_call", {"system__message_to_speak": BYE})]


async def test_a_model_learns_that_this_engine_cannot_hang_up() -> None:
    """The tool's call is refused, the model is told why, and the caller hears its answer."""
    model = answers(CALLS, says("Please hang up yourself."))
    score = await talk(asks_in_a_tool(BYE, platform="openai"), models=model)

    assert (score.text, score.finish_reason) == ("Please hang up yourself.", "stop")
    assert score.turn is not None and score.turn.action is None
    assert [(each.outcome, each.result[:13]) for each in score.turn.called] == [("refused", "Error: Plain ")]


# --- too late, or not at all ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("on_chunk", ""),
        ("on_chunk", "a stage"),
        ("after_turn", ""),
        ("after_turn", "a stage"),
        ("after_turn", "a fault"),
    ],
)
async def test_what_comes_too_late_is_an_error(kind: str, more: str) -> None:
    """The ending has left, or the turn is over: nobody would do it."""
    app, told = app_on("elevenlabs"), []

    async def passes(turn: Turn, send: Any, call_next: Any) -> None:
        await call_next(turn, send)

    if more:
        app.stage(passes)

    def late(turn: Turn, chunk: Chunk | None = None) -> None:
        if chunk is None or chunk.finish_reason:
            with pytest.raises(ActionError) as caught:
                turn.end_call()
            told.append(str(caught.value))

    getattr(app, kind)(late)
    score = await talk(app, models=fails(400) if more == "a fault" else says("Hello"), request=SPEAKS)

    assert score.text == ("" if more == "a fault" else "Hello") and score.finish_reason in ("stop", None)
    assert len(told) == 1 and "too late" in told[0] and "hint: " in told[0]


@BOTH
@pytest.mark.parametrize("apology", [None, "I am sorry."])
async def test_a_hook_that_asks_for_what_cannot_be_ends_the_turn(stream: bool, apology: str | None) -> None:
    """An operator's mistake: a 500 that no client repeats, or the apology."""
    app = asks_in_a_hook(BYE, apology=apology)
    score = await talk(app, models=silent(), stream=stream)

    if apology is None:
        assert (score.status, score.headers["x-should-retry"]) == (500, "false")
        assert score.error is not None and score.error["code"] == "action_unavailable"
        assert "end_call" in score.error["message"] and "hint: switch end_call on" in score.error["message"]
    else:
        assert (score.text, score.finish_reason) == (apology, "stop")


@pytest.mark.parametrize("choice", [{"tool_choice": "none"}, {"function_call": "none"}], ids=str)
async def test_an_engine_that_wants_no_call_gets_none(choice: Any) -> None:
    """It lists its tools, and forbids them for this turn."""
    score = await talk(asks_in_a_hook(BYE), models=silent(), request={**SPEAKS, **choice})
    assert score.status == 500


@pytest.mark.parametrize(
    ("model", "heard"),
    [(answers(CALLS, fails(400)), ""), (answers(CALLS, stalls("Take")), "Take"), (fails(400), "")],
    ids=["fails", "stalls", "fails at once"],
)
async def test_a_turn_that_fails_has_no_action(model: Any, heard: str) -> None:
    """The model breaks over its last words: the caller is not left by the engine as well."""
    score = await talk(asks_in_a_tool(None), models=model, request=SPEAKS)

    assert score.text == heard and score.error is not None
    assert not any(choice["delta"].get("tool_calls") for chunk in score.chunks for choice in chunk.get("choices", ()))


async def test_a_caller_who_speaks_during_the_tool_is_not_hung_up_on() -> None:
    """The connection is closed: what the tool would have asked for is gone with it."""
    score = await talk(asks_in_a_tool(BYE), models=CALLS, request=SPEAKS, leaves=1.0)
    assert (score, score.done, score.left_open) == ([], False, 0)
    assert score.turn is not None and score.turn.action is None


# --- what is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to", ["", " ", "+1\r\n2", "a\0b", "x" * 257, None, 5, "sip:a@b\nX-Header: 1"], ids=lambda to: repr(to)[:12]
)
async def test_a_destination_is_checked(to: Any) -> None:
    """A model may have made it up."""
    turn = Turn(request={"messages": []})
    with pytest.raises(ActionError, match="destination"):
        turn.transfer(to)


@pytest.mark.parametrize("say", [5, "x" * 2_001, "Bye \ud83d."], ids=["no text", "too long", "half a character"])
async def test_words_are_checked(say: Any) -> None:
    """A list of chunks, a page of text, what no reply can hold."""
    with pytest.raises(ActionError, match="What to say"):
        Turn(request={"messages": []}).end_call(say=say)


async def test_words_are_data() -> None:
    """Quotes, line breaks and marks of events within them stay words."""
    words = 'He said: "data: [DONE]"\n\n{"x": 1} 再见 👋'
    score: Score = await talk(asks_in_a_hook(words), models=silent(), request=SPEAKS)
    assert (score.text, calls(score)) == (words, ENDED)

    spoken = {"tools": [tool("end_call", ["reason"], reason=None, system__message_to_speak=None)]}
    score = await talk(asks_in_a_hook(words), models=silent(), request=spoken)
    assert calls(score)[0][1]["system__message_to_speak"] == words and score.text == ""


# --- its price --------------------------------------------------------------------------------------


def test_who_cannot_ask_does_not_pay() -> None:
    """No hook, no stage, no tool, no function: no stage of ours, nothing at the turn's begin."""
    app = App(platform="elevenlabs", shape="none")
    assert in_order(app._written, Jobs()) == [] and not app._written.may_act


async def test_an_answer_behind_hooks_alone_passes_untouched() -> None:
    """The model's chunks go to the very `send` that a hook's stage was given: its bytes leave in the callback."""
    app, sends = app_on("elevenlabs"), []

    @app.before_turn
    def look(turn: Turn) -> None:
        turn.state["looked"] = True

    async def model(turn: Turn, send: Send) -> None:
        sends.append(send)

    stages = in_order(app._written, Jobs())

    async def own(chunk: Chunk) -> None:
        raise AssertionError

    await stages[2](Turn(request={"messages": []}), own, model)
    assert [stage.__qualname__.split(".")[0] for stage in stages] == ["fill", "before", "act", "shape"]
    assert sends == [own]


def test_an_action_is_asked_for_from_a_thread_too() -> None:
    """A plain function runs in one."""
    turn, failed = Turn(request={"messages": []}), []

    def ask() -> None:
        try:
            turn.end_call()
        except ActionError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(failed) == 1


async def test_a_slow_hook_is_not_filled_for_ever() -> None:
    """A filler, then nothing but the call: the reply still has what the engine acts on."""
    score = await talk(asks_in_a_hook(None, wait=2.0), models=silent(), request=SPEAKS, fill_after=0.8)
    assert (score, calls(score)) == ([(0.8, "One moment... ")], ENDED)


async def test_a_late_model_gives_the_last_words_in_its_own_time() -> None:
    """The second answer has its whole time for the first word."""
    model = answers(CALLS, after(3.5, says("Take care.")))
    score = await talk(asks_in_a_tool(None), models=model, request={"tools": [END_CALL]})
    assert (score, calls(score)) == ([(5.5, "Take care.")], ENDED)
