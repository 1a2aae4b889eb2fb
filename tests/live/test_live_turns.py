"""Real turns with a real model, beside the server and behind llama.cpp's own server, by a real client."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from caller import Caller, turn
from live import HAS_MODEL, PATIENCE, TURNS, LlamaServer, falls_silent, figure, needs_model, process_of, reckoned
from served import Served

from firstword import App

pytestmark = [needs_model, pytest.mark.timeout(900)]

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


class Way:
    """A way to the model: a server of ours, the name of the model there, and the process that reckons."""

    def __init__(self, served: Served, model: str, pid: int, kind: str) -> None:
        self.served, self.model, self.pid, self.kind = served, model, pid, kind
        self.url = served.url
        self.client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=120, max_retries=0)

    def ask(self, words: str, **fields: Any) -> Any:
        """Ask for a reply in one piece."""
        return self.client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": words}], **fields
        )

    def turn(self, words: str, **fields: Any) -> dict[str, Any]:
        """Return the body of a streamed turn."""
        return turn(words, model=self.model, **fields)


@pytest.fixture(scope="module", params=["local", "llama server"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Both ways, one after the other: every test is told of both."""
    if not HAS_MODEL:
        pytest.skip("no model is installed; hint: make test-live")
    patience = {"first_token_timeout": PATIENCE, "stall_timeout": PATIENCE, "turn_timeout": 300.0}
    if request.param == "local":
        served = Served(App(["local"], **patience))
        try:
            way = Way(served, "local", 0, "local")
            way.ask("Hello", max_tokens=1)
            way.pid = process_of(served)
            yield way
        finally:
            served.stop()
        return
    with LlamaServer.running() as server:
        served = Served(App(base_url=server.base_url, **patience))
        try:
            yield Way(served, "smollm2", server.pid, server.kind)
        finally:
            served.stop()


def test_a_client_hears_a_stream(way: Way) -> None:
    """openai-python reads word by word; usage is counted."""
    began = time.monotonic()
    stream = way.client.chat.completions.create(
        model=way.model,
        messages=[{"role": "user", "content": "Tell me a short story of a lighthouse."}],
        max_tokens=40,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    words, reasons, usage, first = [], [], None, 0.0
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.monotonic() - began
                words.append(choice.delta.content)
            reasons += [choice.finish_reason] if choice.finish_reason else []

    assert len(words) > 10 and reasons == ["length"]
    assert "lighthouse" in "".join(words).lower()
    if way.kind == "local":
        assert usage is not None and usage.completion_tokens == 40 and usage.prompt_tokens > 10
    figure(f"{way.kind}, first word of a new conversation", f"{first:.2f} s")
    figure(f"{way.kind}, tokens a second after it", f"{39 / (time.monotonic() - began - first):.0f}")


def test_a_client_hears_a_reply_in_one_piece(way: Way) -> None:
    """`stream: false`: the model is streamed from all the same."""
    reply = way.ask("Name the largest ocean.", max_tokens=30, temperature=0)

    assert "Pacific" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason in ("stop", "length")
    if way.kind == "local":
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_json_fits_its_schema(way: Way) -> None:
    """By a grammar: so small a model would not find the form by itself."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    if way.kind == "llama_cpp.server":  # it knows the older form only
        wanted = {"type": "json_object", "schema": PERSON}
    reply = way.ask("Bob is thirty years old. Give his data.", max_tokens=80, response_format=wanted, temperature=0)

    jsonschema.validate(json.loads(reply.choices[0].message.content), PERSON)


def test_an_agent_with_tools_talks_on(way: Way) -> None:
    """Neither of them calls a tool: the model is too small. Both answer, and that is what is asked for here."""
    reply = way.ask("Hello, how are you?", max_tokens=10, tools=[TOOL])

    assert reply.choices[0].message.content
    figure(f"{way.kind}, with tools", "talks, and calls none" if not reply.choices[0].message.tool_calls else "calls")


def test_what_is_said_is_the_same_with_the_same_seed(way: Way) -> None:
    """Temperature 1: another seed says something else."""
    said = [
        way.ask("Invent a name for a boat.", max_tokens=20, temperature=1, seed=seed).choices[0].message.content
        for seed in (5, 5, 6)
    ]

    if way.kind == "local":  # llama_cpp.server reckons on from what it has read before, and may come out elsewhere
        assert said[0] == said[1]
    assert said[0] != said[2]


async def test_a_caller_who_hangs_up_stops_the_model(way: Way) -> None:
    """Barge-in: the process that reckons is seen to stop, by its own CPU time."""
    async with Caller(way.url).dials(way.turn("Write a very long novel.", max_tokens=1500, temperature=1)) as call:
        await call.hears_word('"content":')
        call.hangs_up()
    silent = await asyncio.to_thread(falls_silent, way.pid)

    assert await asyncio.to_thread(way.served.left_open) == {"in_use": 0, "turns": 0}
    figure(f"{way.kind}, reckons on after a hang-up", f"{silent:.1f} s at most")


async def test_a_caller_who_hangs_up_before_the_first_word_stops_the_model(way: Way) -> None:
    """The prompt is long, and is still being read."""
    words = " ".join(f"{number} bottles of beer," for number in range(400))
    async with Caller(way.url).dials(way.turn(words, max_tokens=5)) as call:
        await asyncio.to_thread(begins_to_reckon, way.pid)
        call.hangs_up()
    silent = await asyncio.to_thread(falls_silent, way.pid, within=120)

    if way.kind == "local":
        assert silent < 10
    figure(f"{way.kind}, reads on in a prompt of 400 lines after a hang-up", f"{silent:.1f} s at most")


def begins_to_reckon(pid: int) -> None:
    """Wait until a process has something to do."""
    before = reckoned(pid)
    while reckoned(pid) < before + 0.05:
        time.sleep(0.01)


async def test_callers_at_once_are_all_answered(way: Way) -> None:
    """Five at once: one after the other, and each in whole."""
    caller = Caller(way.url)
    began = time.monotonic()
    heard = await asyncio.gather(
        *(caller.hears(way.turn(f"Count from {number} on.", max_tokens=12)) for number in range(5))
    )

    assert [(each.status, each.done, bool(each.text)) for each in heard] == [(200, True, True)] * 5
    figure(f"{way.kind}, five callers at once, 12 tokens each", f"{time.monotonic() - began:.1f} s")


async def test_a_thousand_short_turns(way: Way) -> None:
    """Of 4 to 8 tokens each: none fails, nothing is left open."""
    caller = Caller(way.url)
    took = []
    for number in range(TURNS):
        began = time.monotonic()
        heard = await caller.hears(way.turn(f"Say a word with {number % 9}.", max_tokens=4 + number % 5))
        took.append(time.monotonic() - began)
        assert (heard.status, heard.done) == (200, True), heard
        assert heard.finish_reasons in (["stop"], ["length"])

    assert await asyncio.to_thread(way.served.left_open) == {"in_use": 0, "turns": 0}
    figure(f"{way.kind}, {TURNS} short turns", f"median {statistics.median(took):.2f} s, longest {max(took):.2f} s")
