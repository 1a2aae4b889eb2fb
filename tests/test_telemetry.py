"""What is counted of turns: a real server, its page, and Prometheus' own parser."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from counts_of_a_test import Samples, counted, read
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from served import Served

from firstword import App, Model, Turn
from firstword.telemetry import Counts, kept_elsewhere
from firstword.telemetry.page import render
from firstword.telemetry.tally import MAX_LABELS
from firstword.testing import Upstream, fails, script, talk
from firstword.turn import Attempt

FRIEND = "Hello there, friend."
SORRY = "I am sorry."
ANSWER = script.events(script.says(FRIEND))
Serve = Callable[[App], Served]


def read_counts(counts: Counts) -> Samples:
    """Return what the page of these counts would tell."""
    return read(render(counts.now())[1].decode())


def two(upstream: Upstream, **more: Any) -> App:
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    return App(models=models, **{"warm": False, "hedge_after": 0.1, "hedge_share": 1.0, **more})


async def test_a_race_is_counted_with_what_it_cost(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The first thinks for too long, counting its tokens; the second answers: the caller heard nothing of the first."""
    tokens = {"usage": script.tokens(7, 3)}
    thinks = [script.event(script.chunk({"reasoning_content": "Hm"}, **tokens)) for _ in range(3)]
    served = serve(two(upstream))
    slow = [script.head(200, script.EVENT_STREAM), *thinks]
    assert (await Caller(served.url).says(user=marker, scripts=[slow, ANSWER])).text == FRIEND

    found = await counted(served)
    assert found["turns_total", ("openai", "answered")] == 1
    assert found["attempts_total", ("first", "first", "lost")] == 1
    assert found["attempts_total", ("second", "hedge", "answered")] == 1
    assert found["unheard_total", ("first", "chunks")] == 3
    assert found["unheard_total", ("first", "tokens")] == 10
    assert found["breaker", ("first", "closed")] == 1
    assert found["fillers_total", ()] == found["truncated_total", ()] == 0


async def test_what_the_caller_heard_of_us_is_counted(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A filler, then an answer that is cut off, then an apology; and a model that is down for good."""
    app = two(upstream, apology=SORRY, fillers=["One moment."], fill_after=0.6, hedge_after=None)
    served = serve(app)
    cut = [script.head(200, script.EVENT_STREAM), script.role(), script.wait(1.2), *script.closes_after("one two")[1:]]
    heard = await Caller(served.url).says(user=marker, scripts=[cut])
    assert heard.text == f"One moment. one two {SORRY}"
    for number in range(3):
        await Caller(served.url).says(user=f"{marker} {number}", scripts=[script.refuses(500, "Broken."), ANSWER])

    found = await counted(served)
    assert found["fillers_total", ()] == found["apologies_total", ()] == 1
    assert found["truncated_total", ()] == 1
    assert found["attempts_total", ("first", "first", "cut")] == 1
    assert found["turns_total", ("openai", "upstream_truncated")] == 1
    states = {state: found["breaker", ("first", state)] for state in ("closed", "half-open", "open")}
    assert states == {"closed": 0, "half-open": 0, "open": 1}


async def test_calls_of_tools_are_counted_by_what_came_of_them(serve: Serve, upstream: Upstream, marker: str) -> None:
    """One answers, one breaks, and one is made up by the model: its name is the model's own words, and no label."""
    app = App(base_url=upstream.base_url)

    @app.tool
    async def works() -> str:
        """Answer."""
        return "yes"

    @app.tool
    async def breaks() -> str:
        """Break."""
        raise ValueError

    names = ("works", "breaks", "made_up", "works")
    calls = [script.tool_call(name, "{}", id=f"c{at}", index=at) for at, name in enumerate(names)]
    first = script.events(script.role(), *calls, script.finish("tool_calls"))
    served = serve(app)
    await Caller(served.url).says(user=marker, scripts=[first, ANSWER])

    samples = await counted(served)
    found = {labels: value for (name, labels), value in samples.items() if name == "tool_calls_total"}
    assert found == {("works", "answered"): 2.0, ("breaks", "failed"): 1.0, ("", "unknown"): 1.0}


async def test_the_log_says_who_was_asked_and_what_we_said(
    serve: Serve, upstream: Upstream, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator reads one line a turn; a plain turn's has nothing more."""
    served = serve(two(upstream, apology=SORRY))
    with caplog.at_level(logging.INFO, "firstword"):
        await Caller(served.url).says(user=marker, scripts=[script.refuses(500, "Broken."), script.closes_after("one")])
        await Caller(served.url).says("Hello", model="demo", pace=0)
        await asyncio.to_thread(served.left_open)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("turn ended")]
    assert lines[0].endswith(" asked=first,second model=second apologised truncated")
    fields = [field.partition("=")[0] for field in lines[1].split(" ")[2:]]
    assert fields == ["id", "status", "outcome", "first_word", "seconds", "gate", "read", "ask", "head", "sent"]


async def test_a_name_that_a_caller_makes_up_cannot_forge_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Without a list a request's name is the model's: a line break, a blank, or a megabyte of it."""
    name = "a b,c=d\r\nturn ended id=forged status=200\u2028" + "x" * 1_000_000
    with caplog.at_level(logging.INFO, "firstword"):
        score = await talk(App(), models=fails(500), request={"model": name})
    assert score.status == 500 and score.turn is not None and score.turn.attempts[0].model == name
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable() and line.count("=") == 11 and len(line) < 500
    assert "asked=a?b?c?d??turn?ended?id?forged?status?200?xxx" in line

    counts = Counts()
    counts.note(score.turn, "server_error")
    assert len(render(counts.now())[1]) < 20_000


GATE = "a-gate-key"


@pytest.mark.parametrize(
    ("given", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"x-forwarded-for": "203.0.113.7"}, 403),
        ({}, {"host": "voice.example"}, 403),
        ({"keys": [GATE]}, {}, 401),
        ({"keys": [GATE]}, {"authorization": "Bearer other-key"}, 401),
        ({"keys": [GATE]}, {"authorization": f"Bearer {GATE}", "host": "voice.example"}, 200),
        ({"api_key": "held-key"}, {"host": "voice.example"}, 403),
        ({"api_key": "held-key", "open": True}, {"host": "voice.example"}, 403),
    ],
)
async def test_who_may_see_the_counts(
    serve: Serve, upstream: Upstream, given: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    """They tell which models there are and how much is spoken: for a holder of a gate key, else this machine."""
    served = serve(App(base_url=upstream.base_url, **given))
    heard = await Caller(served.url).hears(method="GET", path="/metrics", headers=headers)
    assert heard.status == status


async def test_a_name_that_a_caller_makes_up_cannot_break_the_page(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """Without a list a request's name is the model's: quotes, line breaks and backslashes are escaped."""
    name = 'a"b\\c\nd{}# 模型'
    served = serve(App(base_url=upstream.base_url))
    heard = await Caller(served.url).says(model=name, user=marker, scripts=[script.refuses(500, "Broken."), ANSWER])
    assert heard.text == FRIEND
    assert (await counted(served))["attempts_total", (name, "retry", "answered")] == 1


def test_what_is_counted_stays_bounded() -> None:
    """Callers who name a new model with each request, and a provider that makes up codes, fill no memory."""
    counts = Counts()
    for number in range(3 * MAX_LABELS):
        turn = Turn(request={"messages": []})
        turn.attempts.append(Attempt(f"m{number}", "first", 0.0, outcome="failed", chunks=1, usage={"total_tokens": 1}))
        counts.note(turn, f"code_{number}")
    kept = counts.counters
    assert max(len(kept["turns"]), len(kept["attempts"])) == MAX_LABELS + 1
    assert len(kept["unheard"]) <= MAX_LABELS + 1
    assert sum(kept["turns"].values()) == 3 * MAX_LABELS
    assert read_counts(counts)["turns_total", ("other", "other")] == 2 * MAX_LABELS


@pytest.mark.parametrize("tokens", [10**400, -5, True, 1.5, "7", None])
def test_a_count_that_cannot_be_is_not_added(tokens: Any) -> None:
    """A hostile server's number would break the page for good, or let a counter fall."""
    counts = Counts()
    turn = Turn(request={"messages": []})
    for total in (tokens, 7):
        turn.attempts.append(Attempt("first", "first", 0.0, outcome="lost", usage={"total_tokens": total}))
    counts.note(turn, "answered")
    assert read_counts(counts)["unheard_total", ("first", "tokens")] == 7


async def test_turns_that_are_sent_again_are_counted_and_logged(
    serve: Serve, upstream: Upstream, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One is superseded; the other is whole, and a client asks for it again, and for nobody's tools a second time."""
    caplog.set_level(logging.INFO, "firstword")
    app = App(base_url=upstream.base_url)
    app.tool(lambda_of("balance"))
    served = serve(app)
    caller = Caller(served.url)
    calls = script.events(script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
    body = {"user": marker, "scripts": [script.never_answers(), calls, ANSWER], "session_id": marker}
    async with caller.dials(turn(**body)) as first:
        await upstream.wait_asked(marker)
        await caller.says(**body)
        async for _ in first.listens():
            pass
    assert (await caller.says(headers={"x-stainless-retry-count": "1"}, **body)).text == FRIEND

    found = await counted(served)
    assert found["turns_total", ("openai", "superseded")] == 1 and found["turns_total", ("openai", "answered")] == 2
    assert found["again_total", ("superseded",)] == found["again_total", ("replayed",)] == 1
    assert found["tool_calls_total", ("balance", "answered")] == 1
    lines = [record for record in caplog.records if "turn ended" in record.getMessage()]
    assert [line.levelname for line in lines] == ["INFO"] * 3
    told = [line.getMessage() for line in lines]
    assert sum("status=409 outcome=superseded" in each for each in told) == 1
    assert told[-1].endswith(" replayed") and not any("replayed" in each or "joined" in each for each in told[:-1])


def lambda_of(name: str) -> Callable[[], str]:
    """Return a tool of that name."""

    def tool() -> str:
        """Say how much there is."""
        return "five euros"

    tool.__name__ = name
    return tool


async def test_who_asks_for_openmetrics_gets_it(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Prometheus names it first; what it reads is the same, and ends with its own mark."""
    served = serve(App(base_url=upstream.base_url))
    await Caller(served.url).says(user=marker, scripts=[ANSWER])
    await asyncio.to_thread(served.left_open)
    accept = {"accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2"}
    heard = await Caller(served.url).hears(method="GET", path="/metrics", headers=accept)
    assert heard.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert heard.body.endswith(b"# EOF\n")
    families = {family.name: family for family in openmetrics(heard.body.decode())}
    (sample,) = families["firstword_turns"].samples
    assert (sample.name, sample.labels, sample.value) == (
        "firstword_turns_total",
        {"platform": "openai", "outcome": "answered"},
        1.0,
    )


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=x;q=y", "application/openmetrics", "\x7f" * 1000])
def test_who_asks_for_anything_else_gets_what_all_can_read(accept: str) -> None:
    """A browser, curl, or a header that nobody understands."""
    kind, page = render(Counts().now(), accept=accept)
    assert kind == "text/plain; version=0.0.4; charset=utf-8" and b"# EOF" not in page


def test_what_the_gate_and_the_limits_count_is_told_with_the_rest() -> None:
    """They keep plain numbers of their own; each page asks for them anew, and the latest loop of all is told."""
    counts, refused = Counts(), {"no_key": 2}
    counts.readings.append(
        lambda: kept_elsewhere(gate=refused, limits={"max_turns": 3}, cost={"m1": 1_500_000}, lag=0.25, held=1.5)
    )
    counts.now()
    refused["no_key"] = 5
    found = read_counts(counts)
    assert found["gate_refused_total", ("no_key",)] == 5
    assert found["limits_refused_total", ("max_turns",)] == 3
    assert found["cost_total", ("m1",)] == 1.5
    assert found["loop_lag_seconds", ()] == 0.25 and found["loop_held_seconds_total", ()] == 1.5
