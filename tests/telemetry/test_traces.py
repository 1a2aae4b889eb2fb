"""Spans of turns, as they arrive at a collector: a real server, a real exporter, OTLP over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from api_of_a_test import Api, Serve
from caller import Caller, Heard
from collector import Collector, Kept, traced

from firstword import App, Model
from firstword.telemetry.traces import FLUSH_TIMEOUT
from firstword.testing import Upstream, script
from firstword.tools.http import HTTPTool

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))
COUNTED = script.events(script.role(), script.text(FRIEND), script.finish(), script.usage(11, 3))


def event(span: Kept, name: str) -> int:
    return next(at for each, at in span.events if each == f"firstword.{name}")


async def test_a_turn_is_one_span_and_its_request_to_the_model_another(
    collector: Collector, upstream: Upstream, marker: str
) -> None:
    """The usual turn: its times are those of the wall clock, and what it says is what the conventions name."""
    before = time.time_ns()
    app = App(base_url=upstream.base_url)
    ask = {"user": marker, "scripts": [COUNTED], "stream_options": {"include_usage": True}}
    heard: Heard = await traced(app, lambda caller: caller.says(**ask))
    after = time.time_ns()

    turn, (ask_span,) = collector.turn(), collector.named("chat ")
    assert len(collector.spans) == 2
    assert (turn.name, turn.kind, turn.parent, turn.status) == ("POST /chat/completions", "SERVER", "", 0)
    assert (ask_span.name, ask_span.kind, ask_span.parent) == ("chat m1", "CLIENT", turn.span)
    assert ask_span.trace == turn.trace and turn.scope == "firstword"
    assert before <= turn.began <= ask_span.began <= event(turn, "spoke") <= ask_span.ended <= turn.ended <= after
    marks = ["admitted", "prepared", "asked", "answered", "spoke", "sent", "heard", "replied", "sentence"]
    assert [name for name, _ in turn.events] == [f"firstword.{name}" for name in marks]
    assert [at for _, at in turn.events[:6]] == sorted(at for _, at in turn.events[:6])
    for span in (turn, ask_span):
        assert span.attributes["gen_ai.operation.name"] == "chat"
        assert span.attributes["gen_ai.provider.name"] == "openai"
        assert span.attributes["gen_ai.request.model"] == "m1"
        assert span.attributes["gen_ai.usage.input_tokens"] == 11
        assert span.attributes["gen_ai.usage.output_tokens"] == 3
        assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] < 5
    assert turn.attributes["http.response.status_code"] == 200 and turn.attributes["http.route"] == "/chat/completions"
    assert turn.attributes["firstword.outcome"] == "answered"
    assert turn.attributes["gen_ai.response.id"] == heard.headers["x-request-id"]
    assert ask_span.attributes["server.address"] == "127.0.0.1"
    assert ask_span.attributes["server.port"] == upstream.port
    assert ask_span.attributes["firstword.attempt.outcome"] == "answered"
    assert turn.resource["service.name"] == "firstword"
    assert FRIEND.encode() not in collector.raw and b"Hello" not in collector.raw


async def test_a_turn_belongs_to_its_callers_trace_and_each_request_is_the_models_parent(
    collector: Collector, upstream: Upstream, marker: str
) -> None:
    """The engine sends a traceparent. The first model fails, the second is silent, the third answers."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second", "third")]
    app = App(models=models, warm=False, hedge_after=0.1, hedge_share=1.0)
    scripts = [script.refuses(500, "Broken."), script.never_answers(), ANSWER]
    headers = {"traceparent": PARENT, "tracestate": "rojo=1"}
    await traced(app, lambda caller: caller.says(user=marker, scripts=scripts, headers=headers))

    turn, asks = collector.turn(), collector.named("chat ")
    assert (turn.trace, turn.parent, turn.state) == (TRACE, SPAN, "rojo=1")
    assert [(ask.name, ask.trace, ask.parent) for ask in asks] == [
        (f"chat {name}", TRACE, turn.span) for name in ("first", "second", "third")
    ]
    told = [(ask.attributes["firstword.attempt.why"], ask.attributes["firstword.attempt.outcome"]) for ask in asks]
    assert told == [("first", "failed"), ("failover", "lost"), ("hedge", "answered")]
    assert [ask.status for ask in asks] == [2, 0, 0] and turn.status == 0
    assert asks[0].attributes["error.type"] == "server_error"
    assert (turn.attributes["gen_ai.response.model"], turn.attributes["firstword.attempts"]) == ("third", 3)
    seen = await upstream.wait_asked(marker, count=3)
    parents = {record.header("traceparent"): record.header("tracestate") for record in seen}
    assert parents == {f"00-{TRACE}-{ask.span}-01": "rojo=1" for ask in asks}


async def test_a_second_try_has_a_span_of_its_own(collector: Collector, upstream: Upstream, marker: str) -> None:
    """The only model fails before its first word, and is asked once more."""
    app = App(base_url=upstream.base_url, hedge_share=1.0)
    await traced(app, lambda caller: caller.says(user=marker, scripts=[script.refuses(503, "Busy."), ANSWER]))
    asks = collector.named("chat ")
    told = [(ask.attributes["firstword.attempt.why"], ask.attributes["firstword.attempt.outcome"]) for ask in asks]
    assert told == [("first", "failed"), ("retry", "answered")]
    assert {ask.parent for ask in asks} == {collector.turn().span}


async def test_a_turn_says_what_it_cost(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator has a table of prices."""
    (tmp_path / "prices").write_text("m1 input=100 output=200\n")
    monkeypatch.setenv("FIRSTWORD_PRICES", str(tmp_path / "prices"))
    app = App(base_url=upstream.base_url, models=["m1"])
    ask = {"user": marker, "scripts": [COUNTED], "stream_options": {"include_usage": True}}
    await traced(app, lambda caller: caller.says(**ask))
    assert collector.turn().attributes["firstword.cost"] == pytest.approx((11 * 100 + 3 * 200) / 1e6)


async def test_a_caller_who_keeps_nothing_is_obeyed(collector: Collector, upstream: Upstream, marker: str) -> None:
    """The sampled flag is off: no span is made, and the model's server is told so as well."""
    headers = {"traceparent": PARENT[:-1] + "0"}
    app = App(base_url=upstream.base_url)
    await traced(app, lambda caller: caller.says(user=marker, scripts=[ANSWER], headers=headers))
    assert collector.spans == []
    (record,) = await upstream.wait_asked(marker)
    found = record.header("traceparent") or ""
    assert found.startswith(f"00-{TRACE}-") and found.endswith("-00") and SPAN not in found


async def test_a_sampler_of_the_operators_decides_where_no_caller_has(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_TRACES_SAMPLER is set to keep nothing that begins here."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    app = App(base_url=upstream.base_url)
    await traced(app, lambda caller: caller.says(user=marker, scripts=[ANSWER]))
    assert collector.spans == []
    (record,) = await upstream.wait_asked(marker)
    assert (record.header("traceparent") or "").endswith("-00")


async def test_tools_are_spans_and_so_is_each_round(collector: Collector, upstream: Upstream, marker: str) -> None:
    """A tool answers, one breaks, and one is made up by the model, whose own word is no name."""
    app = App(base_url=upstream.base_url)

    @app.tool
    async def balance() -> str:
        """Say how much money there is."""
        await asyncio.sleep(0.05)
        return "five euros"

    @app.tool
    async def breaks() -> str:
        """Break."""
        raise ValueError

    names = ("balance", "breaks", "secret_word")
    calls = [script.tool_call(name, "{}", id=f"c{at}", index=at) for at, name in enumerate(names)]
    first = script.events(script.role(), *calls, script.finish("tool_calls"))
    await traced(app, lambda caller: caller.says(user=marker, scripts=[first, ANSWER]))

    turn, tools, rounds = collector.turn(), collector.named("execute_tool "), collector.named("chat ")
    assert {tool.name: tool.attributes["firstword.tool.outcome"] for tool in tools} == {
        "execute_tool balance": "answered",
        "execute_tool breaks": "failed",
        "execute_tool unknown": "unknown",
    }
    (good,) = (tool for tool in tools if tool.name.endswith("balance"))
    assert (good.kind, good.parent, good.status) == ("INTERNAL", turn.span, 0)
    assert good.ended - good.began > 40_000_000 and turn.began < good.began < good.ended < turn.ended
    assert len(rounds) == 2 and rounds[0].ended < good.ended < rounds[1].began
    assert rounds[1].attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert b"secret_word" not in collector.raw and b"five euros" not in collector.raw


async def test_an_api_is_told_whose_span_asks_it(
    collector: Collector, serve: Serve, upstream: Upstream, marker: str
) -> None:
    """Two HTTP tools are called in one breath, one of which commits: each API's span can hang below its tool's."""
    api = Api(serve)
    tools = [
        HTTPTool("look", f"{api.url}/look", description="Look.", private=True),
        HTTPTool("book", f"{api.url}/book", description="Book.", method="POST", private=True),
    ]
    calls = [script.tool_call(tool.name, "{}", id=tool.name, index=at) for at, tool in enumerate(tools)]
    scripts = [script.events(script.role(), *calls, script.finish("tool_calls")), ANSWER]
    app = App(base_url=upstream.base_url)
    app.add_tools(*tools)
    headers = {"traceparent": PARENT, "tracestate": "rojo=1"}
    await traced(app, lambda caller: caller.says(user=marker, scripts=scripts, headers=headers))

    told = {asked.target: (asked.headers["traceparent"], asked.headers["tracestate"]) for asked in api.asked}
    spans = {span.name.split()[1]: span.span for span in collector.named("execute")}
    assert told == {f"/{name}": (f"00-{TRACE}-{span}-01", "rojo=1") for name, span in spans.items()} and len(told) == 2


async def test_a_trace_that_nobody_keeps_here_goes_on_to_an_api(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Traces are off: the caller's own span is what the API is told, and nothing where the caller has none."""
    api = Api(serve)
    app = App(base_url=upstream.base_url)
    app.add_tools(HTTPTool("look", f"{api.url}/look", description="Look.", private=True))
    calls = script.events(script.role(), script.tool_call("look", "{}", id="c1"), script.finish("tool_calls"))
    caller = Caller(serve(app).url)
    await caller.says(user=f"{marker} 1", scripts=[calls, ANSWER], headers={"traceparent": PARENT})
    await caller.says(user=f"{marker} 2", scripts=[calls, ANSWER])
    assert [asked.headers.get("traceparent") for asked in api.asked] == [PARENT, None]


async def test_what_answers_without_http_is_a_span_as_well(collector: Collector) -> None:
    """The demo, and a function of the user's."""
    app = App()

    @app.model("parrot")
    async def parrot(turn: Any) -> str:
        return "Hello."

    async def both(caller: Caller) -> None:
        for model in ("demo", "parrot"):
            await caller.says("Hi", model=model, pace=0)

    await traced(app, both)
    asks = collector.named("chat ")
    told = [(ask.name, ask.kind, ask.attributes["gen_ai.provider.name"]) for ask in asks]
    assert told == [("chat demo", "INTERNAL", "demo"), ("chat parrot", "INTERNAL", "function")]


async def test_how_a_turn_ends_is_told(collector: Collector, upstream: Upstream, marker: str) -> None:
    """One caller hangs up, which is no error; for the other the model is broken."""

    async def both(caller: Caller) -> None:
        begins = [script.head(200, script.EVENT_STREAM), script.role(), script.text("one"), script.wait()]
        async with caller.dials({**body, "scripts": [begins]}) as call:
            await call.hears_word("one")
        await caller.hears({**body, "user": f"{marker} 2", "scripts": [script.refuses(500, "Broken.")] * 2})

    body = {"model": "m1", "stream": True, "user": marker, "messages": [{"role": "user", "content": "Hello"}]}
    await traced(App(base_url=upstream.base_url, hedge_share=0), both)
    left, broken = collector.named("POST ")
    assert (left.status, left.attributes["firstword.outcome"]) == (0, "hung_up")
    assert "error.type" not in left.attributes
    assert (broken.status, broken.attributes["error.type"]) == (2, "server_error")
    assert broken.attributes["http.response.status_code"] == 500
    asks = collector.named("chat ")
    assert [ask.attributes["firstword.attempt.outcome"] for ask in asks] == ["left", "failed"]


@pytest.mark.parametrize("name", ["x" * 5000, "a\ud800b", "line\r\nbreak\x1b[31m", ""])
async def test_a_name_that_a_caller_makes_up_loses_no_span(collector: Collector, upstream: Upstream, name: str) -> None:
    """A name without end, or with half a character: one bad text would cost the whole batch."""
    from firstword.turn import Turn

    app = App(base_url=upstream.base_url, hedge_share=0)

    @app.before_turn
    def rename(turn: Turn) -> None:
        turn.model = name

    await traced(app, lambda caller: caller.says("Hi"))
    assert len(collector.turn().attributes.get("gen_ai.request.model", "")) <= 100


# --- what was said --------------------------------------------------------------------------------


async def test_what_was_said_is_kept_on_request_and_after_redaction(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator wants to read along; numbers, and what the App's own function knows, are taken out."""
    monkeypatch.setenv("FIRSTWORD_TRACES_CONTENT", "true")
    app = App(base_url=upstream.base_url)
    app.redact(lambda text: text.replace("Jane", "[name]"))

    @app.tool
    async def look(phone: str) -> str:
        """Look somebody up."""
        return f"Jane, {phone}"

    arguments = json.dumps({"phone": "+1 415 555 0134"})
    first = script.events(script.role(), script.tool_call("look", arguments, id="c1"), script.finish("tool_calls"))
    second = script.events(script.says("Write to jane@example.com, Jane."))
    messages = [
        {"role": "system", "content": "Be kind to Jane."},
        {"role": "user", "content": "I am Jane, 4 1 5 5 5 5 0 1 3 4."},
    ]
    await traced(app, lambda caller: caller.says(user=marker, scripts=[first, second], messages=messages))

    turn, (tool,) = collector.turn(), collector.named("execute_tool ")
    assert json.loads(turn.attributes["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "Be kind to [name]."}
    ]
    assert json.loads(turn.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "I am [name], [number]."}]}
    ]
    (said,) = json.loads(turn.attributes["gen_ai.output.messages"])
    assert said["parts"][0]["content"] == "Write to [email], [name]." and said["finish_reason"] == "stop"
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"phone": "[number]"}
    assert tool.attributes["gen_ai.tool.call.result"] == "[name], [number]"
    assert not any(canary in collector.raw for canary in (b"Jane", b"0134", b"0 1 3 4", b"jane@"))


# --- a collector that is away ---------------------------------------------------------------------


async def test_a_collector_that_is_away_is_no_turns_business(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Nobody listens where the spans go: turns are answered as ever, the log says so once, and the stop is in time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")

        async def several(caller: Caller) -> float:
            for number in range(5):
                assert (await caller.says(user=f"{marker} {number}", scripts=[ANSWER])).text == FRIEND
            return time.monotonic()

        with caplog.at_level(logging.INFO, "firstword"):
            stopping = await traced(App(base_url=upstream.base_url), several)
    assert time.monotonic() - stopping < FLUSH_TIMEOUT + 2
    for thread in threading.enumerate():
        if thread.name.startswith("OtelBatch"):  # it would try for four seconds more
            thread.join(2)
            assert not thread.is_alive()
    said = [record.getMessage() for record in caplog.records if record.name == "firstword"]
    assert sum(line.startswith("traces do not arrive") for line in said) <= 1
    assert any(line.startswith(("traces do not arrive", "traces were left behind")) for line in said)


async def test_a_collector_that_does_not_answer_holds_up_no_stop(
    collector: Collector, upstream: Upstream, marker: str
) -> None:
    """It takes the connection and says nothing: the server ends within its bound all the same."""
    collector.hold.clear()
    began = time.monotonic()
    app = App(base_url=upstream.base_url)
    await traced(app, lambda caller: caller.says(user=marker, scripts=[ANSWER]))
    assert FLUSH_TIMEOUT - 1 < time.monotonic() - began < FLUSH_TIMEOUT + 3


async def test_a_collector_that_refuses_is_told_of(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Its key is wrong, then it is right: the log says that spans are lost, and that they arrive again, once each."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer s3cret-key")
    collector.status = 401

    async def both(caller: Caller) -> None:
        await caller.says(user=f"{marker} 1", scripts=[ANSWER])
        while not collector.headers:
            await asyncio.sleep(0.01)
        collector.status = 200
        await caller.says(user=f"{marker} 2", scripts=[ANSWER])

    with caplog.at_level(logging.INFO, "firstword"):
        await traced(App(base_url=upstream.base_url), both)
    said = [record.getMessage().partition(" hint")[0] for record in caplog.records if record.name == "firstword"]
    assert [line for line in said if line.startswith("traces")] == ["traces do not arrive", "traces arrive again"]
    assert collector.headers[0]["authorization"] == "Bearer s3cret-key" and "s3cret" not in caplog.text
    assert len(collector.named("POST ")) == 1
