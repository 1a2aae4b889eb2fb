"""Whose a tool is: ours runs here, the engine's leaves in the strict form, and what is demanded keeps its sense."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, Heard
from served import Served
from tool_streams import MEANS, PARIS, STREAMS, TOOLS, TWO, answer, call, delta

from firstword import App, ConfigError, HTTPTool
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
SAID = script.events(script.says("You have five euros."))
BALANCE = script.tool_call("balance", '{"account":"12"}', id="b1")
FIRST = script.events(script.role(), BALANCE, script.finish("tool_calls"))


@pytest.fixture
def app(upstream: Upstream) -> App:
    """An App with a tool of its own; the engine has `weather` and `clock`."""
    app = App(base_url=upstream.base_url)

    @app.tool
    async def balance(account: str) -> str:
        """Say how much there is."""
        return f"five euros on {account}"

    return app


async def asked(upstream: Upstream, marker: str, count: int) -> list[Any]:
    return [record.body for record in await upstream.wait_settled(marker, count=count)]


def in_strict_form(heard: Heard) -> list[tuple[str, Any]]:
    """Return the calls of a reply; asserts that each is one whole chunk, and that the reply has one ending."""
    deltas = [choice["delta"] for chunk in heard.chunks for choice in chunk["choices"]]
    items = [each["tool_calls"] for each in deltas if "tool_calls" in each]
    assert heard.finish_reasons == ["tool_calls"] and heard.done
    assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert [bool(each.get("role")) for each in deltas].count(True) == 1
    assert all(len(each) == 1 for each in items)
    assert [item["index"] for [item] in items] == list(range(len(items)))
    assert len({item["id"] for [item] in items}) == len(items)
    assert all(item["type"] == "function" and item["id"] for [item] in items)
    assert not any("tool_calls" in each and each.get("content") for each in deltas)
    return [(item["function"]["name"], json.loads(item["function"]["arguments"])) for [item] in items]


# --- whose it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["tool_calls", "stop", "length", "function_call"])
@pytest.mark.parametrize("name", STREAMS)
async def test_the_engines_calls_leave_in_the_strict_form(app: App, serve: Serve, name: str, reason: str) -> None:
    """However the provider streams them and whatever it calls the ending."""
    heard = await Caller(serve(app).url).says(
        script=answer(name, reason=reason), tools=TOOLS, stream_options={"include_usage": True}
    )

    assert in_strict_form(heard) == MEANS.get(name, TWO)
    assert heard.chunks[-1]["usage"] == script.tokens(10, 1) and heard.chunks[-1]["choices"] == []


async def test_tokens_that_nobody_asked_for_are_not_sent_behind_a_call(app: App, serve: Serve) -> None:
    """A provider counts them with its ending; a chunk without choices breaks clients that do not expect it."""
    ending = script.event(script.chunk({}, "tool_calls", usage=script.tokens()))
    steps = script.events(script.role(), script.tool_call("weather", PARIS, id="c1"), ending, script.done())
    heard = await Caller(serve(app).url).says(script=steps, tools=TOOLS)

    assert in_strict_form(heard) == TWO[:1] and all(chunk["choices"] for chunk in heard.chunks)


async def test_words_beside_a_call_of_the_engines_come_before_it(app: App, serve: Serve) -> None:
    """They are spoken while the call is still being streamed."""
    event = script.chunk(delta(call("weather", PARIS, index=0, id="c1"), content="One moment."), "stop")
    heard = await Caller(serve(app).url).says(script=script.events(script.role(), script.event(event)), tools=TOOLS)

    assert (heard.text, in_strict_form(heard)) == ("One moment.", TWO[:1])


async def test_a_turn_that_calls_both_runs_ours_first(app: App, serve: Serve, upstream: Upstream, marker: str) -> None:
    """The engine's call waits for the last answer; the model hears that it was handed on."""
    first = script.events(
        script.role(),
        script.tool_call("weather", PARIS, id="w1"),
        script.tool_call("balance", '{"account":"12"}', id="b1", index=1),
        script.finish("tool_calls"),
    )
    second = script.events(script.role(), script.words("Five euros."), script.finish("length"))
    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, second], tools=TOOLS)

    _, body = await asked(upstream, marker, 2)
    assert (heard.text, in_strict_form(heard)) == ("Five euros.", TWO[:1])
    assert [item["id"] for item in body["messages"][1]["tool_calls"]] == ["w1", "b1"]
    assert "voice engine" in body["messages"][2]["content"]
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "b1", "content": "five euros on 12"}


async def test_a_call_that_is_repeated_is_handed_on_once(app: App, serve: Serve, marker: str) -> None:
    """The model calls the engine's tool again in its second answer, and another one beside it."""
    both = [script.tool_call("weather", PARIS, id="c1"), script.tool_call("balance", "{}", id="c2", index=1)]
    first = script.events(script.role(), *both, script.finish("tool_calls"))
    second = script.events(
        script.role(), both[0], script.tool_call("clock", "{}", id="c2", index=1), script.finish("tool_calls")
    )
    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, second], tools=TOOLS)

    assert in_strict_form(heard) == TWO


async def test_a_call_of_the_engines_that_is_not_json_goes_back_to_the_model(
    app: App, serve: Serve, upstream: Upstream, marker: str
) -> None:
    """The engine could do nothing with it; the model mends it in its second answer."""
    first = script.events(script.role(), script.tool_call("weather", '{"city": ', id="c1"), script.finish("tool_calls"))
    second = script.events(script.role(), script.tool_call("weather", PARIS, id="c2"), script.finish("tool_calls"))
    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, second], tools=TOOLS)

    _, body = await asked(upstream, marker, 2)
    assert in_strict_form(heard) == TWO[:1]
    assert body["messages"][2]["content"] == "Error: The arguments are not valid JSON."


async def test_the_engines_calls_keep_what_its_provider_wants_back(app: App, serve: Serve, marker: str) -> None:
    """Gemini's signature goes out with the call, and comes back in the engine's next request."""
    signature = {"google": {"thought_signature": "abc=="}}
    event = script.chunk(delta(call("clock", "{}", index=0, id="c1", extra_content=signature)))
    heard = await Caller(serve(app).url).says(
        script=script.events(script.event(event), script.finish("tool_calls")), tools=TOOLS
    )

    items = [each["choices"][0]["delta"].get("tool_calls") for each in heard.chunks]
    assert [item[0].get("extra_content") for item in items if item] == [signature]


async def test_the_engine_comes_back_with_its_results(app: App, serve: Serve, upstream: Upstream, marker: str) -> None:
    """The second leg of its own call: the history is the engine's, and the tools are offered again."""
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call("weather", PARIS, id="c1", type="function")]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    heard = await Caller(serve(app).url).says(user=marker, script=SAID, messages=messages, tools=TOOLS)

    [body] = await asked(upstream, marker, 1)
    assert heard.text == "You have five euros." and body["messages"] == messages
    assert [each["function"]["name"] for each in body["tools"]] == ["weather", "clock", "balance"]


@pytest.mark.parametrize("broken", ["no result", "no call"])
async def test_a_history_that_was_cut_off_is_mended_on_its_way(
    serve: Serve, upstream: Upstream, marker: str, broken: str
) -> None:
    """With tools of ours and without any: the provider would answer with a 400 for ever."""
    called = {"role": "assistant", "content": None, "tool_calls": [call("weather", PARIS, id="c1", type="function")]}
    told = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    user = {"role": "user", "content": "Stop."}
    messages = [called, user] if broken == "no result" else [told, user]

    await Caller(serve(App(base_url=upstream.base_url)).url).says(user=marker, script=SAID, messages=messages)

    [body] = await asked(upstream, marker, 1)
    assert [each["role"] for each in body["messages"]] == (
        ["assistant", "tool", "user"] if broken == "no result" else ["user"]
    )


async def test_of_two_tools_with_one_name_ours_is_used(
    app: App, serve: Serve, upstream: Upstream, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names it, once; the engine's definition does not reach the model."""
    tools = [*TOOLS, {"type": "function", "function": {"name": "balance", "description": "the engine's"}}]
    caller = Caller(serve(app).url)

    with caplog.at_level(logging.WARNING, "firstword"):
        for _ in range(2):
            heard = await caller.says(user=marker, scripts=[FIRST, SAID, FIRST, SAID], tools=tools)
            assert heard.text == "You have five euros."

    bodies = await asked(upstream, marker, 4)
    ours = [each for each in bodies[0]["tools"] if each["function"]["name"] == "balance"]
    assert [each["function"]["description"] for each in ours] == ["Say how much there is."]
    assert [record.args for record in caplog.records if "taken twice" in record.msg] == [
        ("balance", "the engine has one too, ours is used")
    ]


async def test_older_functions_of_the_engines_are_the_engines(app: App, serve: Serve) -> None:
    """A request with `functions`: what is called of them is not unknown."""
    steps = script.events(
        script.role(), script.event(script.chunk({"function_call": {"name": "weather", "arguments": PARIS}}))
    )
    heard = await Caller(serve(app).url).says(
        script=[*steps[:-1], script.finish("function_call"), steps[-1]], functions=[{"name": "weather"}]
    )
    assert in_strict_form(heard) == TWO[:1]


@pytest.mark.parametrize("tools", [None, [], [{"type": "web_search"}], [{}], [None], ["x"]], ids=str)
async def test_whatever_else_stands_in_tools_is_the_providers(
    app: App, serve: Serve, upstream: Upstream, marker: str, tools: Any
) -> None:
    """Null, nothing, tools of the provider's own, and what is no tool at all."""
    await Caller(serve(app).url).says(user=f"{marker}", scripts=[FIRST, SAID], tools=tools)

    first, second = await asked(upstream, marker, 2)
    assert first["tools"][:-1] == second["tools"][:-1] == (tools or [])
    assert first["tools"][-1]["function"]["name"] == "balance"


# --- what a request demands -------------------------------------------------------------------------

NAMED = {"type": "function", "function": {"name": "balance"}}
ALLOWED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        ("auto", "auto"),
        ("required", "auto"),
        ("any", "auto"),
        (NAMED, "auto"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED, ALLOWED]}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED, ALLOWED]}},
        ),
    ],
    ids=["auto", "required", "any", "named", "allowed"],
)
async def test_a_forced_choice_holds_for_the_first_round(
    app: App, serve: Serve, upstream: Upstream, marker: str, choice: Any, later: Any
) -> None:
    """In the second it would force the model to call for ever. `parallel_tool_calls` holds for both."""
    await Caller(serve(app).url).says(
        user=marker, scripts=[FIRST, SAID], tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
    )

    first, second = await asked(upstream, marker, 2)
    assert (first["tool_choice"], second["tool_choice"]) == (choice, later)
    assert first["parallel_tool_calls"] is second["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("choice", "last"),
    [
        ("required", "auto"),
        (NAMED, "auto"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}, "none"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED, ALLOWED]}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [ALLOWED]}},
        ),
    ],
    ids=["required", "named", "allowed ours only", "allowed both"],
)
async def test_the_last_round_names_no_tool_that_is_gone(
    upstream: Upstream, serve: Serve, marker: str, choice: Any, last: Any
) -> None:
    """The engine's tools stay, ours do not: a provider refuses a choice of what is not offered."""
    app = App(base_url=upstream.base_url, tool_rounds=1)
    app.tool(name="balance")(lambda: "five euros")

    await Caller(serve(app).url).says(user=marker, scripts=[FIRST, SAID], tools=TOOLS, tool_choice=choice)

    _, body = await asked(upstream, marker, 2)
    assert (body["tools"], body["tool_choice"]) == (TOOLS, last)


async def test_a_turn_that_must_not_call_is_offered_nothing(
    app: App, serve: Serve, upstream: Upstream, marker: str
) -> None:
    """`tool_choice: "none"`: the request leaves as it came."""
    await Caller(serve(app).url).says(user=marker, script=SAID, tools=TOOLS, tool_choice="none")

    [body] = await asked(upstream, marker, 1)
    assert (body["tools"], body["tool_choice"]) == (TOOLS, "none")


async def test_a_turn_with_tools_has_one_answer(app: App, serve: Serve, upstream: Upstream, marker: str) -> None:
    """`n: 2`: of two answers that call, only one could be gone on with."""
    await Caller(serve(app).url).says(user=marker, scripts=[FIRST, SAID], n=2)
    assert [body["n"] for body in await asked(upstream, marker, 2)] == [1, 1]


@pytest.mark.parametrize(
    ("platform", "name"), [("elevenlabs", "end_call"), ("elevenlabs", "skip_turn"), ("vapi", "transferCall")]
)
def test_a_name_that_the_engine_always_has_is_refused_at_start(platform: str, name: str) -> None:
    """The engine would run its own, and we ours: nobody could say which one the model meant."""
    app = App(platform=platform)
    said = f"The voice engine has a tool '{name}' of its own"
    with pytest.raises(ConfigError, match=said):
        app.tool(name=name)(lambda: "Done.")
    with pytest.raises(ConfigError, match=said):
        app.add_tools(HTTPTool(name, url="https://api.example/end", description="End it."))
    App().tool(name=name, description="Another engine has no such tool.")(lambda: "Done.")
