"""The fault catalogue through a real server and a real model's process: what the caller hears then, and when.

Rules:
- Two models behind one server, both the scripted upstream: the first fails as the row says, the second answers.
- Every row asserts what is heard, the longest silence, what the upstream was asked, and that nothing is left open.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
from caller import Caller, Heard, turn
from catalogue import BEFORE_SPEECH, FINAL, FRIEND, MIDWAY, SORRY, WHOLE, WORDS, Fault
from served import Served

from firstword import App, Model
from firstword.testing import Upstream, script

PACE = 8.0  # how much faster the clock of these tests runs than the one of a phone call
HEDGE_AFTER = 0.15
FIRST_TOKEN = 0.6
STALL = 0.3
SLACK = 0.25  # seconds that a busy machine may be late; without hedging, silence would last FIRST_TOKEN or more


def app_of(upstream: Upstream, **more: object) -> App:
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    # Not warm: the transport replaces a kept connection that was closed, by asking the same model once more.
    settings = {"warm": False, "first_token_timeout": FIRST_TOKEN, "stall_timeout": STALL, "hedge_share": 1.0, **more}
    return App(models=models, **{"hedge_after": HEDGE_AFTER, **settings})  # type: ignore[arg-type]


@pytest.fixture
def serve_two(upstream: Upstream) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(**more: object) -> Served:
        running.append(Served(app_of(upstream, **more)))
        return running[-1]

    yield start
    for served in running:
        served.stop()


def silences(heard: Heard, began: float) -> list[float]:
    """Return the times without a word, the end of the reply included."""
    spoken = [moment for moment, data in heard.reads if re.search(rb'"content":"[^"]*[^"\s]', data)]
    at = [began, *spoken, heard.reads[-1][0]]
    return [later - earlier for earlier, later in pairwise(at)]


async def hears(server: Served, marker: str, *steps: script.Script, **more: object) -> tuple[Heard, float]:
    began = time.monotonic()
    heard = await Caller(server.url).says(user=marker, model="any", scripts=list(steps), **more)
    return heard, began


def each(faults: Sequence[Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults, ids=lambda fault: fault.name)


@each(BEFORE_SPEECH)
async def test_before_the_first_word_another_model_is_asked(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, fault: Fault
) -> None:
    """The caller hears the second model, once, in one reply, and soon."""
    server = serve_two()
    heard, began = await hears(server, marker, fault.play(PACE), script.events(script.says(FRIEND)))

    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, FRIEND, ["stop"], True)
    assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert max(silences(heard, began)) < HEDGE_AFTER + SLACK
    records = await upstream.wait_settled(marker, count=2)
    assert [record.body["model"] for record in records] == ["first", "second"]
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


@pytest.mark.parametrize("on_cut", ["apologise", "finish", "error"])
@each(MIDWAY)
async def test_after_the_first_word_nothing_is_replayed(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, fault: Fault, on_cut: str
) -> None:
    """The other model is not asked. The reply ends by policy, and exactly once."""
    server = serve_two(apology=SORRY, on_cut=on_cut)
    heard, began = await hears(server, marker, fault.play(PACE), script.events(script.says(FRIEND)))

    words = {"apologise": f"{WORDS} {SORRY}", "finish": WORDS, "error": WORDS}[on_cut]
    assert (heard.status, heard.whole, " ".join(heard.text.split())) == (200, True, words)
    if on_cut == "error":
        assert not heard.done and heard.finish_reasons == [] and heard.error["message"]
    else:
        assert heard.done and heard.finish_reasons == ["stop"]
        assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert max(silences(heard, began)) < STALL + SLACK
    assert len(await upstream.wait_settled(marker)) == 1
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


@each(WHOLE)
async def test_an_odd_answer_that_is_whole_is_heard(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, fault: Fault
) -> None:
    """Nothing failed: the second model is left alone, and nobody apologises."""
    heard, _ = await hears(serve_two(apology=SORRY), marker, fault.play(PACE))

    assert (heard.text, heard.finish_reasons, heard.done) == (FRIEND, ["stop"], True)
    assert len(await upstream.wait_settled(marker)) == 1


@each(FINAL)
async def test_what_no_other_try_mends_comes_out_as_itself(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, fault: Fault
) -> None:
    """Asking another model the same would cost time and money, and hide the mistake."""
    heard, _ = await hears(serve_two(apology=SORRY), marker, fault.play(PACE), script.events(script.says(FRIEND)))

    assert heard.status >= 400 and heard.headers["x-should-retry"] == "false"
    assert len(await upstream.wait_settled(marker)) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_both_models_down_and_the_caller_hears_an_apology(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, stream: bool
) -> None:
    """Never a dead line. The one that may be well soonest was asked once more before."""
    server = serve_two(apology=SORRY)
    heard, _ = await hears(server, marker, script.refuses(500, "Broken."), script.rate_limits("7"), stream=stream)

    if stream:
        assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, SORRY, ["stop"], True)
        assert heard.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    else:
        assert heard.json["choices"][0]["message"]["content"] == SORRY
    records = await upstream.wait_settled(marker, count=3)
    assert [record.body["model"] for record in records] == ["first", "second", "first"]


@pytest.mark.parametrize(
    ("steps", "status", "wait"),
    [
        ([script.refuses(500, "Broken."), [script.close()]], 502, None),
        ([script.refuses(500, "Broken."), script.rate_limits("7")], 503, "7"),
        ([script.never_answers(), script.never_answers()], 504, None),
    ],
)
async def test_without_an_apology_the_status_is_true_and_names_the_causes(
    serve_two: Callable[..., Served], marker: str, steps: list[script.Script], status: int, wait: str | None
) -> None:
    """Both were tried: there is no use in asking the same again."""
    heard, _ = await hears(serve_two(), marker, *steps)

    assert (heard.status, heard.headers.get("retry-after")) == (status, wait)
    assert heard.headers["x-should-retry"] == "false"
    assert "first:" in heard.error["message"] and "second:" in heard.error["message"]


@each([fault for fault in (*BEFORE_SPEECH, *MIDWAY) if fault.is_slow])
async def test_a_caller_who_leaves_ends_all_of_it(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, fault: Fault
) -> None:
    """While both are being asked: no further attempt starts, and both connections are closed at once."""
    server = serve_two(apology=SORRY, first_token_timeout=20.0, stall_timeout=20.0)
    asked = 1 if fault in MIDWAY else 2
    async with Caller(server.url).dials(turn("Hi", user=marker, model="any", scripts=[fault.play(PACE)] * 2)):
        await upstream.wait_asked(marker, count=asked)
    left = time.monotonic()
    records = await upstream.wait_closed(marker, count=asked)

    assert len(records) == asked and all(record.closed_by == "peer" for record in records)
    assert time.monotonic() - left < 0.05 + SLACK
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}
