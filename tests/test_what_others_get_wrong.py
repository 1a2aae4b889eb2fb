"""What other servers of voice agents were seen to get wrong: each row of the list is a test, in the order of the list.

The first thirteen are the sample that this project descends from; the rest were seen elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from actions_of_a_test import tool
from caller import Caller, turn
from served import Served

from firstword import App, Chunk, Turn
from firstword.testing import Phone, Score, Upstream, cuts, drips, fails, run, says, script, talk, then

Json = dict[str, Any]
Serve = Callable[[App], Served]
HI = {"role": "user", "content": "What is this?"}
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "a": {"$ref": "#/$defs/A"},
        "n": {"type": ["number", "null"], "minimum": 0.5},
        "e": {"enum": [1, "x"]},
    },
    "$defs": {"A": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}},
    "additionalProperties": False,
}
DATA_URL = "data:image/png;base64,iVBORw0KGgo="
SECRETS = ("swordfish", "marmalade", "periwinkle", "sk-caller-secret")


async def relayed(say: list[Json] | None = None, **fields: Any) -> Json:
    """Send a request, which must be answered, and return the body that the model got."""
    score = await talk(models=says("It is a cat."), say=say or [HI], request=fields)
    assert (score.status, score.text) == (200, "It is a cat.")
    [record] = score.seen
    body: Json = record.body
    return body


def seen(url: str) -> list[Json]:
    """Return a message with a picture, in OpenAI's shape."""
    return [
        {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]}
    ]


# --- the sample ---------------------------------------------------------------------------------------


async def test_01_image_parts_of_openais_are_no_422() -> None:
    """The caller holds something into the camera."""
    say = seen("https://example.com/cat.png")
    assert (await relayed(say))["messages"] == say


async def test_02_data_urls_are_no_422() -> None:
    """The picture itself, and a `detail`."""
    say = seen(DATA_URL)
    say[0]["content"][1]["image_url"]["detail"] = "low"
    assert (await relayed(say))["messages"] == say


async def test_03_real_json_schemas_are_no_422() -> None:
    """References, unions, enums of anything: in a tool, and in the form of the answer."""
    tools = [tool("look"), {"type": "function", "function": {"name": "see", "parameters": SCHEMA, "strict": True}}]
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    body = await relayed(tools=tools, response_format=wanted)
    assert (body["tools"], body["response_format"]) == (tools, wanted)


async def test_04_json_object_is_no_422() -> None:
    """A program reads the answer."""
    assert (await relayed(response_format={"type": "json_object"}))["response_format"] == {"type": "json_object"}


async def test_05_tools_without_a_description_are_no_422() -> None:
    """It is optional, as the parameters are."""
    tools = [{"type": "function", "function": {"name": "look"}}]
    assert (await relayed(tools=tools))["tools"] == tools


async def test_06_messages_of_tools_without_content_are_no_422() -> None:
    """The second leg of a call: the assistant's message says nothing, and the tool had nothing to say."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    say = [
        HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": None},
    ]
    assert (await relayed(say, tools=[tool("look")]))["messages"] == say


async def test_07_no_parameter_is_dropped() -> None:
    """Temperature, limits, stops, seeds, and those that nobody knows yet."""
    fields = {
        "temperature": 0.3,
        "max_tokens": 50,
        "max_completion_tokens": 60,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["."],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {"1": -100},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "service_tier": "auto",
        "user": "ann",
        "brand_new": {"a": [None, 1]},
    }
    assert (await relayed(**fields)).items() >= fields.items()


@pytest.mark.parametrize("status", [400, 401])
async def test_08_what_the_model_refuses_is_told_as_it_is(status: int) -> None:
    """Not as a 500."""
    error = {"message": "No.", "type": "invalid_request_error", "code": "nope", "param": None}
    score = await talk(models=script.json_document({"error": error}, status=status))
    assert (score.status, score.error) == (status, error)

    bad = await talk(models=says("Hi"), request={"messages": 5})
    assert bad.status == 400 and bad.error is not None and bad.error["param"] == "messages"


async def test_09_an_error_of_the_upstream_is_no_200() -> None:
    """Before a word there is a true status; after one, an error and no end mark: never a good end that is none."""
    for stream in (True, False):
        score = await talk(models=fails(503), stream=stream)
        assert (score.status, score.error is not None, score.text) == (503, True, "")
        within = await talk(models=script.events(script.error_event()), stream=stream)
        assert within.status >= 500 and within.error is not None

    cut = await talk(models=cuts("Hello"), on_cut="error")
    assert (cut.status, cut.done, cut.finish_reason) == (200, False, None) and cut.error is not None


async def test_10_turns_share_a_connection(serve: Serve, upstream: Upstream, marker: str) -> None:
    """No new client, and no new handshake, for each turn."""
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    for _ in range(3):
        assert (await caller.says(user=marker)).status == 200

    records = await upstream.wait_settled(marker, count=3)
    assert len({record.connection for record in records}) == 1


async def test_11_the_base_url_is_a_setting(
    serve: Serve, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of code is changed to ask somebody else."""
    monkeypatch.setenv("LLM_BASE_URL", upstream.base_url)
    assert (await Caller(serve(App()).url).says(user=marker)).text == "Hello"
    assert await upstream.wait_settled(marker)


async def test_12_what_people_say_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Prompts, answers, keys and what a mistake says; at every level, in good turns and in bad ones."""
    caplog.set_level(logging.DEBUG)
    say = [{"role": "system", "content": SECRETS[0]}, {"role": "user", "content": SECRETS[1]}]
    app = App(base_url="http://model.test/v1", model="m")

    @app.on_chunk
    def breaks(turn: Turn, chunk: Chunk) -> Chunk | None:
        if turn.request.get("seed"):
            raise ValueError(turn.text)
        return None

    headers = {"authorization": f"Bearer {SECRETS[3]}"}
    for models in (says(SECRETS[2]), fails(500), cuts(SECRETS[2])):
        for request in ({}, {"seed": 1}):
            await talk(app, models=models, say=say, headers=headers, request=request)

    assert "turn ended" in caplog.text
    assert [word for word in SECRETS if word in caplog.text] == []


async def test_13_the_server_has_a_gate_of_its_own(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Who has no key is not let in, and costs nothing."""
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-ours", keys=["gate"])).url)
    for headers in ({}, {"authorization": "Bearer guess"}):
        assert (await caller.says(user=marker, headers=headers)).status == 401
    assert (await caller.says(user=marker, headers={"authorization": "Bearer gate"})).status == 200

    [record] = await upstream.wait_settled(marker)
    assert record.header("authorization") == "Bearer sk-ours"


# --- others ---------------------------------------------------------------------------------------------


async def test_14_the_history_is_not_doubled() -> None:
    """Twenty messages in, twenty out, in each turn of a conversation, with a session or without."""
    say = [{"role": ("user", "assistant")[n % 2], "content": str(n)} for n in range(19)]
    say = [{"role": "system", "content": "Be brief."}, *say]

    async def main() -> None:
        app = App(base_url="http://model.test/v1", model="m")
        app.add_tools(glance)
        async with Phone(app, models=says("Yes.")) as phone:
            for headers in ({}, {"x-session-id": "s"}, {"x-session-id": "s"}):
                await phone.talk(say=say, headers=headers)
        assert [record.body["messages"] for record in phone.seen] == [say] * 3

    await run(main)


async def glance() -> str:
    """Look."""
    return "seen"


async def test_15_callers_without_a_session_share_nothing() -> None:
    """Two who say the same, with the same key: each has a booking of their own. One turn of one session has one."""
    booked: list[str] = []
    app = App(base_url="http://model.test/v1", model="m")

    @app.tool(commits=True)
    async def book(turn: Turn) -> str:
        """Book a table."""
        booked.append(turn.id)
        return "booked"

    def answer(record: Any) -> Any:
        has_result = record.body["messages"][-1]["role"] == "tool"
        call = [script.role(), script.tool_call("book", "{}", id="b1"), script.finish("tool_calls"), script.done()]
        return says("It is booked.") if has_result else script.events(*call)

    async def main() -> None:
        async with Phone(app, models=answer) as phone:
            for _ in range(2):
                assert (await phone.talk(say="A table, please.")).text == "It is booked."
            assert len(set(booked)) == 2
            for _ in range(2):
                await phone.talk(say="A table, please.", request={"session_id": "s", "turn_id": 1})
            assert len(booked) == 3

    await run(main)


async def test_16_what_a_model_says_is_never_run(tmp_path: Path) -> None:
    """Its arguments are Python: as they are, and within JSON. They are text, or no arguments at all."""
    heard: list[str] = []
    app = App(base_url="http://model.test/v1", model="m")

    @app.tool
    async def weather(city: str) -> str:
        """Say how the weather is."""
        heard.append(city)
        return "rain"

    code = f"__import__('pathlib').Path({str(tmp_path / 'made')!r}).touch()"
    for arguments in (code, f"{{'city': {code}}}", json.dumps({"city": code})):
        calls = [script.role(), script.tool_call("weather", arguments, id="c1"), script.finish("tool_calls")]
        score = await talk(app, models=then(script.events(*calls, script.done()), says(code)))
        assert score.text == code
    assert heard == [code] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("stream", [True, False])
async def test_17_a_count_of_tokens_erases_no_ending(stream: bool) -> None:
    """It comes behind the `finish_reason`, or beside it: our tool runs all the same, the engine's is called."""
    ran: list[str] = []
    app = App(base_url="http://model.test/v1", model="m")

    @app.tool
    async def ours() -> str:
        """Do it."""
        ran.append("ours")
        return "done"

    ending = script.event(script.chunk({}, "tool_calls", usage=script.tokens()))
    for end in ([script.finish("tool_calls"), script.usage()], [ending]):
        mine = script.events(script.role(), script.tool_call("ours", "{}", id="c1"), *end, script.done())
        asked = {"stream_options": {"include_usage": True}}
        score = await talk(app, models=then(mine, says("Done.")), stream=stream, request=asked)
        assert (score.text, score.finish_reason) == ("Done.", "stop")

        theirs = script.events(script.role(), script.tool_call("end_call", "{}", id="c2"), *end, script.done())
        score = await talk(app, models=theirs, stream=stream, request={**asked, "tools": [tool("end_call")]})
        assert score.finish_reason == "tool_calls" and _called(score) == ["end_call"]
    assert ran == ["ours", "ours"]


def _called(score: Score) -> list[str]:
    parts = [choice.get("delta", choice.get("message")) for chunk in score.chunks for choice in chunk["choices"]]
    calls = [call for part in parts for call in part.get("tool_calls") or ()]
    return [call["function"]["name"] for call in calls]


async def test_18_the_engines_own_tools_are_handed_to_the_engine() -> None:
    """An App with a tool of its own; the model is told of no "unknown tool", and asked once."""
    app = App(base_url="http://model.test/v1", model="m")
    app.add_tools(glance)
    call = script.tool_call("end_call", '{"reason": "bye"}', id="c1")
    calls = script.events(script.role(), call, script.finish("tool_calls"), script.done())
    score = await talk(app, models=calls, request={"tools": [tool("end_call", reason=None)]})

    assert _called(score) == ["end_call"] and score.finish_reason == "tool_calls"
    assert [name for _, name in score.asked] == ["m"]
    assert score.turn is not None and score.turn.called == []


@pytest.mark.parametrize(
    "headers", [{"x-forwarded-for": "203.0.113.5"}, {"host": "public.example"}, {"origin": "https://a.example"}]
)
async def test_19_the_operators_key_is_not_lent_to_anybody(
    serve: Serve, upstream: Upstream, marker: str, headers: dict[str, str]
) -> None:
    """A server that holds a key and has no gate serves its own machine, and no tunnel or page."""
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-ours")).url)
    assert (await caller.says(user=marker, headers=headers)).status == 403
    assert upstream.seen(marker) == []
    assert (await caller.says(user=marker)).status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_20_no_traceback_is_told(stream: bool) -> None:
    """A mistake in a hook: its words, its file and its lines are for the log."""
    app = App(base_url="http://model.test/v1", model="m")

    @app.before_turn
    async def breaks(turn: Turn) -> None:
        raise RuntimeError("the password is swordfish")

    score = await talk(app, models=says("Hi"), stream=stream)
    told = json.dumps(score.error)
    assert score.status == 500 and score.turn is not None and score.turn.id in told
    assert not any(word in told for word in ("Traceback", "swordfish", "RuntimeError", ".py", "line "))


async def test_21_a_caller_who_hangs_up_stops_the_model() -> None:
    """In mid-answer, and before a word: the connection is closed at that moment."""
    for models in (drips("one two three four five", 0.4), [script.wait()]):
        score = await talk(models=models, leaves=1.0)
        [record] = score.seen
        assert (record.closed, record.closed_by) == (1.0, "peer")


async def test_22_each_event_leaves_at_once(caller: Caller) -> None:
    """Over a real socket: the first word is heard while the model still thinks of the second."""
    slow = script.events(script.role(), script.text("One. "), script.wait(60.0), script.text("Two."), script.done())
    async with caller.dials(turn("Count!", script=slow)) as call:
        await asyncio.wait_for(call.hears_word("One. "), 5)
        assert b"Two" not in call.heard.body


async def test_23_nothing_waits_for_the_whole_answer() -> None:
    """A hook that filters, a tool that could be called, an apology at hand: words come as they are made."""
    app = App(base_url="http://model.test/v1", model="m", apology="Sorry.", fillers=["One moment. "], fill_after=5.0)
    app.add_tools(glance)

    @app.on_chunk
    def louder(turn: Turn, chunk: Chunk) -> Chunk | None:
        words = chunk.text
        return chunk.with_text(words.upper()) if words else None

    score = await talk(app, models=drips("one two three", 0.5))
    assert score == [(0.5, "ONE"), (1.0, " TWO"), (1.5, " THREE")]
