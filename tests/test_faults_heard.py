"""The fault catalogue: what a model can do wrong, and what the caller hears then, and when.

Rules:
- Two models behind one server, both the scripted upstream: the first fails as the row says, the second answers.
- Every row asserts what is heard, the longest silence, what the upstream was asked, and that nothing is left open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from caller import Caller, Heard, turn
from served import Served

from firstword import App, Model
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line."
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


@dataclass(frozen=True)
class Row:
    """One way to fail; `slow` says that only silence tells of it."""

    steps: script.Script
    slow: bool = False


BEFORE_SPEECH = {
    "refuses": Row([script.close()]),
    "accepts and never answers": Row(script.never_answers(), slow=True),
    "headers then silence": Row(script.sends_only_headers(), slow=True),
    "role chunk then silence": Row(script.sends_only_the_role(), slow=True),
    "comments for ever": Row(script.comments_for_ever(), slow=True),
    "reasoning only": Row(script.only_thinks()),
    "429": Row(script.rate_limits()),
    "429 with retry-after": Row(script.rate_limits("7")),
    "500": Row(script.refuses(500, "Broken.")),
    "503 HTML": Row(script.shows_a_page(503)),
    "200 JSON error": Row(script.refuses(200, "Not really.", type="server_error")),
    "200 HTML": Row(script.shows_a_page(200)),
    "first event is an error": Row(script.fails_at_once()),
    "ends without a word": Row(script.events(script.role(), script.finish(), script.done())),
    "ends with nothing": Row(script.events()),
    "length before a word": Row(script.events(script.role(), script.finish("length"), script.done())),
    "blanks only": Row(script.events(script.role(), script.text("  \n"), script.finish(), script.done())),
    "closes after the role": Row(script.closes_after("")),
}  # fmt: skip


def silences(heard: Heard, began: float) -> list[float]:
    """Return the times without a byte of an event."""
    at = [began, *(moment for moment, data in heard.reads if b"data: " in data)]
    return [later - earlier for earlier, later in pairwise(at)]


async def hears(server: Served, marker: str, *steps: script.Script, **more: object) -> tuple[Heard, float]:
    began = time.monotonic()
    heard = await Caller(server.url).says(user=marker, model="any", scripts=list(steps), **more)
    return heard, began


@pytest.mark.parametrize("row", BEFORE_SPEECH.values(), ids=BEFORE_SPEECH.keys())
async def test_before_the_first_word_another_model_is_asked(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, row: Row
) -> None:
    """The caller hears the second model, once, in one reply, and soon."""
    server = serve_two()
    heard, began = await hears(server, marker, row.steps, script.events(script.says(FRIEND)))

    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, FRIEND, ["stop"], True)
    assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert max(silences(heard, began)) < HEDGE_AFTER + SLACK
    records = await upstream.wait_settled(marker, count=2)
    assert [record.body["model"] for record in records] == ["first", "second"]
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


MIDWAY = {
    "error event after some words": script.fails_after("one two"),
    "closes at a chunk boundary": script.closes_after("one two"),
    "ends without an end": script.ends_after("one two"),
    "resets in the middle of a chunk": script.resets_after("one two"),
    "stalls": script.stalls_after("one two"),
}


@pytest.mark.parametrize("on_cut", ["apologise", "finish", "error"])
@pytest.mark.parametrize("steps", MIDWAY.values(), ids=MIDWAY.keys())
async def test_after_the_first_word_nothing_is_replayed(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, steps: script.Script, on_cut: str
) -> None:
    """The other model is not asked. The reply ends by policy, and exactly once."""
    server = serve_two(apology=SORRY, on_cut=on_cut)
    heard, began = await hears(server, marker, steps, script.events(script.says(FRIEND)))

    words = {"apologise": f"one two {SORRY}", "finish": "one two", "error": "one two"}[on_cut]
    assert (heard.status, heard.whole, heard.text) == (200, True, words)
    if on_cut == "error":
        assert not heard.done and heard.finish_reasons == [] and heard.error["message"]
    else:
        assert heard.done and heard.finish_reasons == ["stop"]
        assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert max(silences(heard, began)) < STALL + SLACK
    assert len(await upstream.wait_settled(marker)) == 1
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


WHOLE = {
    "finish without [DONE]": script.forgets_done(FRIEND),
    "[DONE] without finish": script.forgets_to_finish(FRIEND),
    "a broken event": script.babbles_within(FRIEND),
    "split UTF-8": script.shreds(FRIEND),
    "a usage-only tail": script.counts_after(FRIEND),
}


@pytest.mark.parametrize("steps", WHOLE.values(), ids=WHOLE.keys())
async def test_an_odd_answer_that_is_whole_is_heard(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """Nothing failed: the second model is left alone, and nobody apologises."""
    heard, _ = await hears(serve_two(apology=SORRY), marker, steps)

    assert (heard.text, heard.finish_reasons, heard.done) == (FRIEND, ["stop"], True)
    assert len(await upstream.wait_settled(marker)) == 1


FINAL = {
    400: script.rejects("No such field."),
    401: script.refuses(401, "Bad key."),
    404: script.refuses(404, "No such model."),
    422: script.refuses(422, "Odd."),
    "content policy": script.finds_it_improper(),
    "context length": script.finds_it_too_long(),
}


@pytest.mark.parametrize("steps", FINAL.values(), ids=map(str, FINAL))
async def test_what_no_other_try_mends_comes_out_as_itself(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """Asking another model the same would cost time and money, and hide the mistake."""
    heard, _ = await hears(serve_two(apology=SORRY), marker, steps, script.events(script.says(FRIEND)))

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


LEAVES = {**{name: row.steps for name, row in BEFORE_SPEECH.items() if row.slow}, "stalls": MIDWAY["stalls"]}


@pytest.mark.parametrize("steps", LEAVES.values(), ids=LEAVES.keys())
async def test_a_caller_who_leaves_ends_all_of_it(
    serve_two: Callable[..., Served], upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """While both are being asked: no further attempt starts, and both connections are closed at once."""
    server = serve_two(apology=SORRY, first_token_timeout=20.0, stall_timeout=20.0)
    asked = 1 if steps is MIDWAY["stalls"] else 2
    async with Caller(server.url).dials(turn("Hi", user=marker, model="any", scripts=[steps, steps])):
        await upstream.wait_asked(marker, count=asked)
    left = time.monotonic()
    records = await upstream.wait_closed(marker, count=asked)

    assert len(records) == asked and all(record.closed_by == "peer" for record in records)
    assert time.monotonic() - left < 0.05 + SLACK
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}
