"""Tools that run here: the rounds of a turn, and what of them the caller hears, the model is told and a hook sees."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, Heard
from served import Served
from tool_streams import MEANS, PARIS, STREAMS, TWO, answer, call, delta

from firstword import App, Chunk, Model, Turn
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
SAID = script.events(script.says("It is sunny."), script.usage(20, 3))
CALL = script.tool_call("weather", PARIS, id="c1")
CALLS = script.events(script.role(), CALL, script.finish("tool_calls"), script.usage(), script.done())
COUNTED = script.events(
    script.role(), script.words("It is sunny."), script.finish(), script.usage(20, 3), script.done()
)


@pytest.fixture
def ran() -> list[tuple[str, Any]]:
    """What was called, in order."""
    return []


@pytest.fixture
def app(upstream: Upstream, ran: list[tuple[str, Any]]) -> App:
    """An App with two tools."""
    app = App(base_url=upstream.base_url)

    @app.tool
    async def weather(city: str) -> str:
        """Say how the weather is."""
        ran.append(("weather", {"city": city}))
        return f"sunny in {city}"

    @app.tool
    def clock(turn: Turn) -> dict[str, str]:
        """Say what time it is."""
        ran.append(("clock", {}))
        return {"time": "noon", "model": turn.model}

    return app


def is_one_reply(heard: Heard, text: str, reason: str = "stop") -> bool:
    """Assert that a reply has one id, one role, one ending and these words."""
    deltas = [choice["delta"] for chunk in heard.chunks for choice in chunk["choices"]]
    assert (heard.text, heard.finish_reasons, heard.done) == (text, [reason], True)
    assert [bool(each.get("role")) for each in deltas].count(True) == 1 and deltas[0]["role"] == "assistant"
    for name in ("id", "created", "model"):
        assert len({chunk[name] for chunk in heard.chunks}) == 1
    return True


async def asked(upstream: Upstream, marker: str, count: int) -> list[Any]:
    """Return the bodies of the requests that the model got."""
    return [record.body for record in await upstream.wait_settled(marker, count=count)]


# --- rounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
async def test_a_call_is_run_however_it_is_streamed(
    app: App, serve: Serve, upstream: Upstream, ran: list[tuple[str, Any]], name: str
) -> None:
    """Each deviation, and `stop` for its ending: the tools run, the caller hears the second answer only."""
    marker = f"runs {name}"
    heard = await Caller(serve(app).url).says(user=marker, scripts=[answer(name, reason="stop"), SAID])

    assert is_one_reply(heard, "It is sunny.")
    assert b"tool_calls" not in heard.body and b"function" not in heard.body
    means = MEANS.get(name, TWO)
    assert sorted(ran, key=str) == sorted(means, key=str)
    _, second = await asked(upstream, marker, 2)
    told = second["messages"]
    assert [each["role"] for each in told] == ["user", "assistant", *["tool"] * len(means)]
    assert [each["tool_call_id"] for each in told[2:]] == [each["id"] for each in told[1]["tool_calls"]]
    assert told[2]["content"] == ("sunny in Paris" if means[0][0] == "weather" else '{"time":"noon","model":"m1"}')


async def test_words_before_a_call_are_spoken_and_both_answers_are_one_reply(
    app: App, serve: Serve, upstream: Upstream
) -> None:
    """A space stands between them, the tokens are added, and the model gets its own words back."""
    first = script.events(
        script.role(),
        script.words("Let me see."),
        script.tool_call("weather", '{"city":', id="c1"),
        script.tool_call(arguments='"Paris"}'),
        script.finish("tool_calls"),
        script.usage(10, 4),
        script.done(),
    )
    heard = await Caller(serve(app).url).says(
        user="before", scripts=[first, COUNTED], stream_options={"include_usage": True}
    )

    assert is_one_reply(heard, "Let me see. It is sunny.")
    assert [chunk["usage"] for chunk in heard.chunks if chunk.get("usage")] == [script.tokens(30, 7)]
    _, body = await asked(upstream, "before", 2)
    assert body["messages"][1]["content"] == "Let me see."
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "sunny in Paris"}


async def test_words_and_a_call_in_one_chunk_are_both_heard(
    app: App, serve: Serve, ran: list[tuple[str, Any]], marker: str
) -> None:
    """Some servers put all they have into one event, the ending included."""
    event = script.chunk(delta(call("weather", PARIS, index=0, id="c1"), content="One moment, "), "tool_calls")
    first = script.events(script.event(event), script.event(script.chunk({"content": "please."})), script.done())

    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, SAID])

    assert (heard.text, heard.finish_reasons, heard.done) == ("One moment, please. It is sunny.", ["stop"], True)
    assert ran == TWO[:1]


async def test_the_words_of_an_answer_that_calls_nothing_keep_their_bytes(app: App, serve: Serve) -> None:
    """A tool is there and not called: the reply is the very one of an App without tools."""
    steps = script.events(script.says("Grüße, 你好 there."), script.usage())
    plain = Caller(serve(App(base_url=app.settings.base_url)).url)

    assert (await Caller(serve(app).url).says(script=steps)).body == (await plain.says(script=steps)).body


async def test_an_answer_after_silent_rounds_keeps_its_bytes_too(app: App, serve: Serve, marker: str) -> None:
    """The first answer was one event with a call in it: the reply begins with the second answer."""
    event = script.chunk({"role": "assistant", "content": None, **delta(call("weather", PARIS, index=0, id="c1"))})
    first = script.events(script.event(event), script.finish("tool_calls"), script.done())
    plain = Caller(serve(App(base_url=app.settings.base_url)).url)

    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, SAID])
    assert heard.body == (await plain.says(script=SAID)).body


@pytest.mark.parametrize(
    "steps", [script.words("Done."), [script.text("Done. ")]], ids=["a word", "a word and a space"]
)
async def test_a_silent_answer_behind_words_is_the_end_of_them(
    app: App, serve: Serve, steps: script.Script, marker: str
) -> None:
    """Many a model says all it has to say before it calls."""
    first = script.events(script.role(), *steps, CALL, script.finish())
    second = script.events(script.role(), script.finish(), script.done())

    heard = await Caller(serve(app).url).says(user=marker, scripts=[first, second])
    assert (heard.text.strip(), heard.finish_reasons, heard.done) == ("Done.", ["stop"], True)


async def test_a_reply_in_one_piece_is_the_last_answer(app: App, serve: Serve, marker: str) -> None:
    """`stream: false`: the tokens of both answers are counted."""
    heard = await Caller(serve(app).url).says(user=marker, scripts=[CALLS, COUNTED], stream=False)

    [choice] = heard.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": "It is sunny.", "refusal": None}
    assert (choice["finish_reason"], heard.json["usage"]) == ("stop", script.tokens(27, 8))


async def test_a_model_that_calls_for_ever_is_asked_to_answer(
    upstream: Upstream, serve: Serve, ran: list[tuple[str, Any]]
) -> None:
    """After `tool_rounds` it is asked without our tools; what it calls even then is not run."""
    app = App(base_url=upstream.base_url, tool_rounds=3)

    @app.tool
    async def weather(city: str) -> str:
        """Say how the weather is."""
        ran.append(("weather", city))
        return "sunny"

    last = script.events(
        script.role(), script.words("Sunny."), script.tool_call("weather", PARIS, id="c1"), script.finish("tool_calls")
    )
    heard = await Caller(serve(app).url).says(user="for-ever", scripts=[CALLS, CALLS, CALLS, last], tool_choice="auto")

    bodies = await asked(upstream, "for-ever", 4)
    assert is_one_reply(heard, "Sunny.") and len(ran) == 3
    assert [len(body.get("tools", ())) for body in bodies] == [1, 1, 1, 0]
    assert "tool_choice" not in bodies[3]
    ids = [each["tool_call_id"] for each in bodies[3]["messages"] if each["role"] == "tool"]
    assert len(set(ids)) == 3  # the model gave each call the same one


async def test_a_model_function_calls_tools_as_well(app: App, serve: Serve, ran: list[tuple[str, Any]]) -> None:
    """A function of the user's yields chunks: it is asked again with the results."""

    @app.model("mine")
    async def mine(turn: Turn) -> Any:
        if turn.messages[-1]["role"] != "tool":
            yield turn.chunk(delta(call("weather", PARIS, index=0, id="c1")), "tool_calls")
        else:
            yield f"It is {turn.messages[-1]['content']}."

    assert is_one_reply(await Caller(serve(app).url).says(model="mine"), "It is sunny in Paris.")
    assert ran == TWO[:1]


async def test_the_race_is_won_by_a_call_and_the_winner_gets_the_results(
    upstream: Upstream, serve: Serve, ran: list[tuple[str, Any]]
) -> None:
    """The first model is silent, the second calls: the tool runs once, and the second one is asked again."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    app = App(models=models, hedge_after=0.05, hedge_share=1.0, open=True)

    @app.tool
    async def weather(city: str) -> str:
        """Say how the weather is."""
        ran.append(("weather", {"city": city}))
        return "sunny"

    heard = await Caller(serve(app).url).says(user="race", scripts=[script.never_answers(), CALLS, SAID])

    bodies = await asked(upstream, "race", 3)
    assert is_one_reply(heard, "It is sunny.") and ran == TWO[:1]
    assert [body["model"] for body in bodies] == ["first", "second", "second"]


# --- what hooks see ---------------------------------------------------------------------------------


async def test_hooks_see_the_request_as_they_left_it_and_what_was_called(
    app: App, serve: Serve, over: queue.SimpleQueue[Turn], ran: list[tuple[str, Any]], marker: str
) -> None:
    """A round's messages are the model's; `turn.called` says what ran, `timeline.spoke` when words came."""
    seen: list[Any] = []

    @app.before_turn
    async def change(turn: Turn) -> None:
        turn.messages = [{"role": "system", "content": "Be brief."}, *turn.messages]
        seen.append(turn.messages)

    @app.on_chunk
    def look(turn: Turn, chunk: Chunk) -> None:
        seen.append(chunk.text)

    await Caller(serve(app).url).says(user=marker, scripts=[CALLS, SAID])

    turn = await asyncio.to_thread(over.get, timeout=5)
    assert turn.messages is seen[0] and "tools" not in turn.request
    assert "".join(seen[1:]) == turn.reply.text == "It is sunny."
    [called] = turn.called
    assert (called.name, called.arguments, called.result, called.outcome) == (
        "weather",
        PARIS,
        "sunny in Paris",
        "answered",
    )
    timeline = turn.timeline
    assert None not in (timeline.asked, timeline.answered, timeline.spoke, timeline.sent)
    assert timeline.spoke - timeline.asked >= called.seconds  # type: ignore[operator]


async def test_a_turn_without_a_model_of_its_own_is_asked_twice(serve: Serve, upstream: Upstream) -> None:
    """LLM_MODEL stands in for it, in both rounds and for the hooks."""
    app = App(base_url=upstream.base_url, model="usual")
    app.tool(name="weather")(lambda: "sunny")
    named: list[str] = []
    app.after_turn(lambda turn: named.append(turn.model))
    served = serve(app)

    await Caller(served.url).says(user="usual", scripts=[CALLS, SAID], model=None)

    served.stop()
    assert [body["model"] for body in await asked(upstream, "usual", 2)] == ["usual", "usual"] and named == ["usual"]
