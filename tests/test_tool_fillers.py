"""What the caller hears while tools run: the tool's filler, the App's, or nothing when something was said already."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Chunk
from firstword.providers.openai import Decoder
from firstword.rounds.answer import Answer, Spoken
from firstword.testing import Upstream, script
from firstword.turn import Seen, Turn

Serve = Callable[[App], Served]
CALL = script.tool_call("look", "{}", id="c1")
CALLS = script.events(script.role(), CALL, script.finish("tool_calls"))
SAID = script.events(script.says("Five euros."))
FILLER = "Let me look."


class Book:
    """A tool that goes on when the test has heard enough."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def look(self) -> str:
        """Look it up."""
        assert await asyncio.to_thread(self.go_on.wait, 5)
        return "five"


def app_of(upstream: Upstream, *, filler: str | None = FILLER, waits: Book | None = None, **more: Any) -> App:
    """Return an App whose tool is at once ready, or waits."""
    app = App(base_url=upstream.base_url, **more)
    book = waits or Book()
    if waits is None:
        book.go_on.set()
    app.tool(filler=filler)(book.look)
    return app


async def test_the_filler_is_heard_while_the_tool_runs(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The tool goes on only when the caller has heard it: words, not silence, and one reply."""
    book = Book()
    caller = Caller(serve(app_of(upstream, waits=book)).url)
    async with caller.dials(turn(user=marker, scripts=[CALLS, SAID])) as call:
        await call.hears_word("Let me look. ")
        book.go_on.set()
        async for _ in call.listens():
            pass

    heard = call.heard
    assert (heard.text, heard.finish_reasons, heard.done) == ("Let me look. Five euros.", ["stop"], True)
    deltas = [chunk["choices"][0]["delta"] for chunk in heard.chunks]
    assert [bool(each.get("role")) for each in deltas].count(True) == 1
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in heard.chunks}) == 1


@pytest.mark.parametrize("begins", [[script.role()], []], ids=["a role before", "nothing before"])
async def test_the_apps_filler_is_heard_when_the_tool_has_none(
    serve: Serve, upstream: Upstream, marker: str, begins: script.Script
) -> None:
    """`fill_after` counts from the request: the first answer said nothing, and the tool takes its time."""
    book = Book()
    app = app_of(upstream, filler=None, waits=book, fillers=["One moment. "], fill_after=0.1)
    first = script.events(*begins, CALL, script.finish("tool_calls"))
    async with Caller(serve(app).url).dials(turn(user=marker, scripts=[first, SAID])) as call:
        await call.hears_word("One moment. ")
        book.go_on.set()
        async for _ in call.listens():
            pass

    assert (call.heard.text, call.heard.finish_reasons) == ("One moment. Five euros.", ["stop"])
    assert len({(chunk["id"], chunk["model"]) for chunk in call.heard.chunks}) == 1


async def test_of_two_fillers_one_is_said(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The tool's own comes first; the App's is for silence, and there was none."""
    book = Book()
    app = app_of(upstream, waits=book, fillers=["One moment. "], fill_after=0.05)
    async with Caller(serve(app).url).dials(turn(user=marker, scripts=[CALLS, SAID])) as call:
        await call.hears_word("Let me look. ")
        await asyncio.to_thread(time.sleep, 0.1)  # the App's would be due by now
        book.go_on.set()
        async for _ in call.listens():
            pass

    deltas = [chunk["choices"][0]["delta"] for chunk in call.heard.chunks]
    assert call.heard.text == "Let me look. Five euros."
    assert [bool(each.get("role")) for each in deltas].count(True) == 1 and deltas[0]["role"] == "assistant"


async def test_a_filler_of_the_apps_before_the_call_is_enough(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The model was slow to call: the caller has just been told to wait."""
    app = app_of(upstream, fillers=["One moment. "], fill_after=0.05)
    slow = script.events(script.role(), script.wait(0.2), CALL, script.finish("tool_calls"))

    assert (await Caller(serve(app).url).says(user=marker, scripts=[slow, SAID])).text == "One moment. Five euros."


@pytest.mark.parametrize(
    ("scripts", "fields", "expected"),
    [
        (
            [script.events(script.role(), script.words("I look."), CALL, script.finish("tool_calls")), SAID],
            {},
            "I look. Five euros.",
        ),
        ([CALLS, CALLS, SAID], {}, "Let me look. Five euros."),
        ([CALLS, SAID], {"response_format": {"type": "json_object"}}, "Five euros."),
        ([CALLS, SAID], {"modalities": ["audio"]}, "Five euros."),
    ],
    ids=["the model said it", "it was said", "a program reads it", "it is no text"],
)
async def test_no_filler_where_none_belongs(
    serve: Serve, upstream: Upstream, marker: str, scripts: Any, fields: Any, expected: str
) -> None:
    """It is said once a turn, to somebody who listens, and not over words."""
    assert (await Caller(serve(app_of(upstream)).url).says(user=marker, scripts=scripts, **fields)).text == expected


async def test_a_reply_in_one_piece_has_none(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Nobody waits for its beginning."""
    heard = await Caller(serve(app_of(upstream)).url).says(user=marker, scripts=[CALLS, SAID], stream=False)
    assert heard.json["choices"][0]["message"]["content"] == "Five euros."


async def test_the_filler_has_the_form_of_the_engine(serve: Serve, upstream: Upstream, marker: str) -> None:
    """ElevenLabs speaks at once what ends in dots."""
    app = app_of(upstream, platform="elevenlabs")
    assert (await Caller(serve(app).url).says(user=marker, scripts=[CALLS, SAID])).text == "Let me look... Five euros."


@pytest.mark.parametrize("apology", ["I am sorry.", None])
async def test_an_answer_without_a_word_behind_a_filler_has_failed(
    serve: Serve, upstream: Upstream, marker: str, apology: str | None
) -> None:
    """The caller was told to wait, and nothing comes: an apology, or the true error, but no whole reply."""
    app = app_of(upstream, apology=apology)
    silent = script.events(script.role(), script.finish(), script.usage(), script.done())
    heard = await Caller(serve(app).url).says(user=marker, scripts=[CALLS, silent])

    if apology:
        assert (heard.text, heard.finish_reasons, heard.done) == ("Let me look. I am sorry.", ["stop"], True)
    else:
        assert (heard.text, heard.finish_reasons, heard.done) == ("Let me look. ", [], False)
        assert heard.error["code"] == "upstream_silent"


async def test_a_tool_that_hangs_ends_with_the_turns_time(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The tool would have a minute, the turn has not: the caller hears the apology, and nothing is left."""
    app = App(base_url=upstream.base_url, turn_timeout=0.3, tool_timeout=60, apology="I am sorry.")
    ended = threading.Event()

    @app.tool(filler=FILLER)
    async def look() -> str:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    served = serve(app)
    heard = await Caller(served.url).says(user=marker, scripts=[CALLS, SAID])

    assert (heard.text, heard.finish_reasons, heard.done) == ("Let me look. I am sorry.", ["stop"], True)
    assert ended.is_set() and await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}


async def test_all_calls_of_an_answer_run_at_the_same_time(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Each waits for the others; a plain function does so in a thread. The results keep the order of the calls."""
    app = App(base_url=upstream.base_url)
    gate = threading.Barrier(3)

    @app.tool
    async def one() -> str:
        """Wait on the loop."""
        await asyncio.to_thread(gate.wait, 5)
        return "1"

    @app.tool
    def two() -> str:
        """Wait in a thread."""
        gate.wait(5)
        return "2"

    @app.tool
    async def three() -> str:
        """Wait on the loop."""
        await asyncio.to_thread(gate.wait, 5)
        return "3"

    steps = [script.tool_call(name, "{}", id=name, index=at) for at, name in enumerate(("one", "two", "three"))]
    first = script.events(script.role(), *steps, script.finish("tool_calls"))
    await Caller(serve(app).url).says(user=marker, scripts=[first, SAID])

    [_, record] = await upstream.wait_settled(marker, count=2)
    assert [each["content"] for each in record.body["messages"][2:]] == ["1", "2", "3"]


async def test_at_most_eight_calls_run_at_the_same_time(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A model that calls twenty at once must not fill every thread; the others have their turn later."""
    app = App(base_url=upstream.base_url)
    running, most, lock = 0, 0, threading.Lock()
    eight = threading.Barrier(8)

    @app.tool
    def look(number: int) -> int:
        """Count who is here."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < 8:
            eight.wait(5)
        with lock:
            running -= 1
        return number

    steps = [script.tool_call("look", f'{{"number": {at}}}', id=f"c{at}", index=at) for at in range(20)]
    first = script.events(script.role(), *steps, script.finish("tool_calls"))
    await Caller(serve(app).url).says(user=marker, scripts=[first, SAID])

    [_, record] = await upstream.wait_settled(marker, count=2)
    assert [each["content"] for each in record.body["messages"][2:]] == [str(at) for at in range(20)]
    assert most == 8


# --- the price --------------------------------------------------------------------------------------


def relayed(count: int) -> list[Chunk]:
    """Return the chunks of words of one answer, as the provider gives them."""
    decoder = Decoder(turn_id="t", model="m", wants_usage=False, secret=None)
    frames = [script.role(), *(script.text(f" word {number}") for number in range(count))]
    chunks: list[Chunk] = []
    for step in frames:
        data = step["text"].encode()
        known = decoder.words(data)
        chunks += decoder.feed(data) if known is None else [known]
    return chunks


def test_an_answer_that_calls_nothing_passes_undecoded_and_at_once() -> None:
    """A tool is there and not called: the same chunk goes on, for less than the reading of it would cost."""
    passed: list[Chunk] = []

    class Writer:
        async def __call__(self, chunk: Chunk) -> None: ...

        def at_once(self, chunk: Chunk) -> bool:
            passed.append(chunk)
            return True

    def seconds(of: Callable[[Chunk], Any], chunks: list[Chunk]) -> float:
        began = time.perf_counter()
        for chunk in chunks:
            of(chunk)
        return time.perf_counter() - began

    def way() -> Callable[[Chunk], bool] | None:
        turn, writer = Turn(request={"messages": []}), Writer()
        return Seen(turn, Answer(Spoken(turn, writer), ends=True).see, writer).at_once

    chunks = relayed(2000)
    answer = way()
    assert answer is not None and all(map(answer, chunks))
    assert all(mine is theirs for mine, theirs in zip(passed, chunks, strict=True))
    assert all(chunk._data is None for chunk in chunks[1:])  # the first is read by the decoder

    through, reading = [], []
    for _ in range(10):
        answer = way()
        assert answer is not None
        through.append(seconds(answer, chunks))
        reading.append(seconds(lambda chunk: Chunk(chunk.data).frame, relayed(2000)))
    assert min(through) < 0.75 * min(reading)
