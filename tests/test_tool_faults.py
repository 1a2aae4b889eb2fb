"""Whatever fails within the rounds of a turn: one ending, nothing left open, and what was committed is done once.

Rules:
- The upstream cuts after its n-th write, the caller leaves at the n-th event, the n-th send fails, the turn is
  cancelled at its n-th wait: each for every n, over an answer that speaks and calls, a tool, and the last answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from caller import Caller, turn
from served import Served
from test_faults import check_ending, nothing_is_left
from test_faults_asgi import Line, Steps, app_on

from firstword import App, Chunk, Turn
from firstword.testing import Upstream, script

CALL = [script.tool_call("look", '{"where"', id="c1"), script.tool_call(arguments=': "here"}')]
FIRST = script.events(script.role(), script.words("I look"), *CALL, script.finish("tool_calls"), script.done())
SECOND = script.events(script.says("It is there."))
WHOLE = "I look It is there."


def with_tools(app: App, done: list[str]) -> App:
    """Give an App a tool that is cancelled, and one that is not."""

    @app.tool
    async def look(where: str) -> str:
        """Look for it."""
        await asyncio.sleep(0)
        await asyncio.to_thread(len, where)
        return where

    @app.tool(commits=True)
    async def book(where: str) -> str:
        """Book it."""
        await asyncio.sleep(0)
        await asyncio.to_thread(len, where)
        done.append(where)
        return where

    return app


@pytest.fixture
def done() -> list[str]:
    """What was booked."""
    return []


@pytest.fixture
def served(upstream: Upstream, done: list[str]) -> Iterator[Served]:
    """One server for all faults of a test."""
    app = App(base_url=upstream.base_url, first_token_timeout=5, stall_timeout=5, hedge_share=0, warm=False)
    running = Served(with_tools(app, done))
    yield running
    running.stop()


@pytest.mark.parametrize("cut", [script.close(), script.reset()], ids=["fin", "rst"])
async def test_the_upstream_cuts_the_first_answer_after_its_nth_write(
    served: Served, upstream: Upstream, marker: str, cut: Any
) -> None:
    """A call that is not whole is never run; once the answer has ended, the turn goes on."""
    endings = []
    for count in range(len(FIRST) + 1):
        name = f"{marker} {count}"
        heard = await Caller(served.url).says(user=name, scripts=[[*FIRST[:count], cut], SECOND])
        endings.append((check_ending(heard), heard.text if heard.status == 200 else heard.status))
        await nothing_is_left(served)

    words = [("cut", "I"), *[("cut", "I look")] * 3]
    assert endings == [*[("error", 502)] * 3, *words, *[("whole", WHOLE)] * 3]


@pytest.mark.parametrize("cut", [script.close(), script.reset()], ids=["fin", "rst"])
async def test_the_upstream_cuts_the_second_answer_after_its_nth_write(
    served: Served, upstream: Upstream, marker: str, cut: Any
) -> None:
    """Words were said, so it is an error event; what was said before is not said again."""
    endings = []
    for count in range(1, len(SECOND) + 1):
        name = f"{marker} {count}"
        heard = await Caller(served.url).says(user=name, scripts=[FIRST, [*SECOND[:count], cut]])
        endings.append((check_ending(heard), heard.text))
        await nothing_is_left(served)

    words = ["I look", "I look", "I look It", "I look It is", WHOLE]
    assert endings == [*(("cut", each) for each in words), *[("whole", WHOLE)] * 3]


@pytest.mark.parametrize("answer", ["first", "second"])
async def test_a_model_that_refuses_a_round_is_told_as_it_would_be_without_tools(
    served: Served, marker: str, answer: str
) -> None:
    """Before any word a true status, after words an error event."""
    refused = script.refuses(400, "No.", type="invalid_request_error")
    heard = await Caller(served.url).says(user=marker, scripts=[refused] if answer == "first" else [FIRST, refused])

    assert (check_ending(heard), heard.status) == (("error", 400) if answer == "first" else ("cut", 200))
    await nothing_is_left(served)


@pytest.mark.parametrize("name", ["look", "book"])
async def test_the_caller_leaves_at_each_event(served: Served, upstream: Upstream, marker: str, name: str) -> None:
    """Before the first word, behind each word, while the tool runs, and within the second answer."""
    called = script.tool_call(name, '{"where": "x"}', id="c1")
    first = [script.role(), script.text("One,"), script.text(" two,"), called]
    second = [script.role(), script.text("three,"), script.text(" four.")]
    for count in range(len(first) + 1):
        steps = [script.head(200, script.EVENT_STREAM), *first[:count]]
        await leaves(served, upstream, f"{marker} 1 {count}", [steps], ["", "", "One,", " two,", " two,"][count], 1)
    whole = script.events(*first, script.finish("tool_calls"))
    for count in range(len(second) + 1):
        steps = [script.head(200, script.EVENT_STREAM), *second[:count]]
        word = ["", "", " three,", " four."][count]
        await leaves(served, upstream, f"{marker} 2 {count}", [whole, steps], word, 2)


async def leaves(
    served: Served, upstream: Upstream, name: str, scripts: list[script.Script], word: str, asked: int
) -> None:
    """Hang up once `word` was heard and the model was asked so often; nothing may be left."""
    async with Caller(served.url).dials(turn(user=name, scripts=scripts)) as call:
        await upstream.wait_asked(name, count=asked)
        if word:
            await call.hears_word(word)
        call.hangs_up()
    await nothing_is_left(served)
    records = await upstream.wait_closed(name, count=asked)
    assert len(records) == asked and records[-1].closed_by == "peer"


@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_nth_send_fails(
    upstream: Upstream, marker: str, error: type[BaseException], stream: bool, done: list[str]
) -> None:
    """ASGI servers tell by an OSError that the caller is gone: within either answer, or with a filler."""
    slowly = [step for each in FIRST for step in ([each, script.wait(0.003)] if each["do"] == "send" else [each])]
    async with app_on(upstream) as app:
        with_tools(app, done)
        for count in range(1, 30):
            body = turn(user=f"{marker} {count}", scripts=[slowly, SECOND], stream=stream)
            line = Line(body, send_fails=count, error=error)
            await line.ask(app)
            if line.asked < count:
                line.check(whole=True)
                break
            line.check(whole=False)
        else:
            raise AssertionError("there is no end of it")
        await app._build().jobs.drain()
    assert count > 2


@pytest.mark.parametrize("name", ["look", "book"])
async def test_a_turn_is_cancelled_at_its_nth_wait(upstream: Upstream, marker: str, name: str, done: list[str]) -> None:
    """Wherever it waits: no task and no connection is left, and what was begun of a booking is done."""
    called = script.tool_call(name, '{"where": "x"}', id="c1")
    first = script.events(script.role(), script.text("Well. "), called, script.finish("tool_calls"))

    async def send(chunk: Chunk) -> None:
        await asyncio.sleep(0)

    async with app_on(upstream) as app:
        handler = with_tools(app, done)._build().server._handler
        begun = 0
        for count in range(1, 200):
            body = {"model": "m", "messages": [], "user": f"{marker} {count}", "scripts": [first, SECOND]}
            steps = Steps(handler(Turn(request=body), send), count)

            async def run(steps: Steps = steps) -> None:
                await steps

            task = asyncio.create_task(run())
            await asyncio.wait({task})
            assert task.cancelled() or task.exception() is None
            begun = sum(map(len, app._build().jobs._jobs.values()))
            if not task.cancelled():
                break
        await app._build().jobs.drain()
    assert 10 < count < 199
    assert len(done) == begun
    assert (begun > 2) == (name == "book")
