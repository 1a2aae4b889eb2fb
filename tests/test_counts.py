"""Each way that a turn can go moves each counter as it should, once, and no other: a server's page before and after.

Times are counted here, not judged: what starts and what ends each of them is in test_count_times.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from counts_of_a_test import Samples, counted, moved, read
from served import Served
from sounds import AUDIO, tones

from firstword import App, Model
from firstword.testing import Upstream, script
from firstword.voices import Sound

Serve = Callable[[App], Served]

FRIEND = "Hello there, friend."
SORRY = "I am sorry."
MOMENT = "One moment."
ANSWER = script.events(script.says(FRIEND))
HEARD = ("first_byte", "first_heard", "first_answer", "first_sentence")
USAGE = {
    **script.tokens(70, 5),
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def times(*names: str, labels: tuple[str, ...] = ("openai",)) -> Samples:
    return {(f"{name}_seconds_count", labels): 1.0 for name in names}


def ended(outcome: str, *heard: str, platform: str = "openai") -> Samples:
    """Return what a turn that is over has moved: how it ended, how long it took, and what was heard of it."""
    return {("turns", (platform, outcome)): 1.0, **times("turn", *heard, labels=(platform,))}


def asked(model: str = "m1", status: str = "200", *, spoke: bool = True, after: bool = True) -> Samples:
    """Return what the only question to a model has moved. after: words of the answer left as they came."""
    found = {("upstream_requests", (model, status)): 1.0, **times("overhead", labels=("before",))}
    found.update(times("first_token", "longest_gap", labels=(model,)) if spoke else {})
    found.update(times("overhead", labels=("after",)) if after and spoke else {})
    return found


def two(upstream: Upstream, **more: Any) -> App:
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    return App(models=models, **{"warm": False, "hedge_after": 0.1, "hedge_share": 1.0, **more})


class Counted:
    """A server whose counts are looked at before and after."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.caller = Caller(served.url)

    async def moves(self, *, marker: str, scripts: Any = (), **fields: Any) -> Samples:
        """Say something, hear the reply, and return what has moved."""
        before = await counted(self.served)
        await self.caller.says(user=marker, scripts=[*scripts], **fields)
        return moved(before, await counted(self.served))


# --- a model is asked, and answers ----------------------------------------------------------------


async def test_a_plain_answer(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The usual turn: one model, all of its words, and the tokens as its server counts them."""
    answer = script.events(
        script.role(), script.words(FRIEND), script.finish(), script.event(script.chunk({}, choices=[], usage=USAGE)),
        script.done(),
    )  # fmt: skip
    found = await Counted(serve(App(base_url=upstream.base_url))).moves(marker=marker, scripts=[answer])
    tokens = {
        ("tokens", ("m1", kind)): n for kind, n in (("input", 70), ("output", 5), ("cached", 64), ("reasoning", 2))
    }
    assert found == {**ended("answered", *HEARD), **asked(), **tokens}


async def test_an_answer_in_one_piece(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Nothing is heard before all is there: the turn has a length, and no first word that a caller waits for."""
    server = Counted(serve(App(base_url=upstream.base_url)))
    assert await server.moves(marker=marker, scripts=[ANSWER], stream=False) == {
        **ended("answered"), **asked(after=False)
    }  # fmt: skip


async def test_an_answer_to_a_platform(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The path names it; its times are its own, and the model's are the model's."""
    server = Counted(serve(App(base_url=upstream.base_url)))
    found = await server.moves(marker=marker, scripts=[ANSWER], path="/vapi/chat/completions")
    assert found == {**ended("answered", *HEARD, platform="vapi"), **asked()}


async def test_the_demo_and_functions_are_no_upstream(serve: Serve, marker: str) -> None:
    """Both answer in the process: nobody was asked elsewhere, and no gap is any server's."""
    app = App()

    @app.model("mine")
    def mine(turn: Any) -> str:
        return FRIEND

    server = Counted(serve(app))
    for model in ("demo", "mine"):
        found = await server.moves(marker=marker, model=model, pace=0)
        expected = {**ended("answered", *HEARD), **asked(model)}
        del expected["upstream_requests", (model, "200")], expected["longest_gap_seconds_count", (model,)]
        assert found == expected


# --- it does not go well --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "outcome", "status"),
    [
        (script.rejects(), "invalid_request_error", "400"),
        (script.rate_limits("60"), "rate_limit_exceeded", "429"),
        (script.sends_only_headers(), "upstream_timeout", "timeout"),
        (script.head(200, {"content-type": "text/html"}), "upstream_protocol_error", "protocol_error"),
    ],
    ids=["400", "429", "timeout", "a page"],
)
async def test_a_model_that_fails_before_its_first_word(
    serve: Serve, upstream: Upstream, marker: str, steps: Any, outcome: str, status: str
) -> None:
    """The caller gets an error: nothing was heard, and the request counts with what became of it."""
    steps = steps if isinstance(steps, list) else [steps, script.end()]
    server = Counted(serve(App(base_url=upstream.base_url, first_token_timeout=0.3)))
    found = await server.moves(marker=marker, scripts=[steps])
    more = {("attempts", ("m1", "first", "failed")): 1.0} if status == "429" else {}  # a second one would be too late
    assert found == {**ended(outcome), **asked(status=status, spoke=False), **more}


async def test_an_answer_that_is_cut_off(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Words are missing: the caller hears so, and the sentence that was begun never left."""
    server = Counted(serve(App(base_url=upstream.base_url)))
    found = await server.moves(marker=marker, scripts=[script.closes_after("Hello there")])
    assert found == {
        **ended("upstream_truncated", "first_byte", "first_heard", "first_answer"),
        **asked(status="truncated"),
        ("truncated", ()): 1.0,
    }


async def test_an_apology(serve: Serve, upstream: Upstream, marker: str) -> None:
    """It is said in place of the answer: it is heard, and is no answer. A second try was in vain as well."""
    server = Counted(serve(App(base_url=upstream.base_url, apology=SORRY)))
    found = await server.moves(marker=marker, scripts=[script.refuses(500), script.refuses(503)])
    assert found == {
        **ended("server_error", "first_byte", "first_heard"),
        **times("overhead", labels=("before",)),
        ("apologies", ()): 1.0,
        ("upstream_requests", ("m1", "500")): 1.0,
        ("upstream_requests", ("m1", "503")): 1.0,
        ("attempts", ("m1", "first", "failed")): 1.0,
        ("attempts", ("m1", "retry", "failed")): 1.0,
    }


async def test_a_filler(serve: Serve, upstream: Upstream, marker: str) -> None:
    """It is heard first; the answer behind it has times of its own."""
    server = Counted(serve(App(base_url=upstream.base_url, fillers=[MOMENT], fill_after=0.1)))
    found = await server.moves(marker=marker, scripts=[[script.wait(0.3), *ANSWER]])
    assert found == {**ended("answered", *HEARD), **asked(), ("fillers", ()): 1.0}


async def test_a_race(serve: Serve, upstream: Upstream, marker: str) -> None:
    """The first is silent, the second is asked as well and speaks: both requests count, and one of them is heard."""
    server = Counted(serve(two(upstream)))
    found = await server.moves(marker=marker, scripts=[script.never_answers(), ANSWER])
    assert found == {
        **ended("answered", *HEARD),
        **asked("second"),
        ("upstream_requests", ("first", "left")): 1.0,
        ("attempts", ("first", "first", "lost")): 1.0,
        ("attempts", ("second", "hedge", "answered")): 1.0,
    }


async def test_sentences_that_do_not_end(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Words drip for longer than `stall_timeout`, and a voice cannot begin: one stall."""
    server = Counted(serve(App(base_url=upstream.base_url, stall_timeout=0.2)))
    found = await server.moves(marker=marker, scripts=[script.events(script.says("a b c d e f g", every=0.05))])
    assert found == {**ended("answered", *HEARD), **asked(), ("stalls", ()): 1.0}


# --- tools, sound ---------------------------------------------------------------------------------


async def test_a_tool(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A model calls one, and is asked again with its result: two requests, one call, and no first word of the model's
    that could be compared with others'."""
    app = App(base_url=upstream.base_url)

    @app.tool
    def balance() -> str:
        """Say how much there is."""
        return "five euros"

    calls = script.events(script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
    found = await Counted(serve(app)).moves(marker=marker, scripts=[calls, ANSWER])
    assert found == {
        **ended("answered", *HEARD),
        **times("overhead", labels=("before",)),
        ("upstream_requests", ("m1", "200")): 2.0,
        ("tool_calls", ("balance", "answered")): 1.0,
        ("tool_seconds_count", ("balance",)): 1.0,
    }


async def test_a_reply_that_is_sound(serve: Serve, upstream: Upstream, marker: str) -> None:
    """What is heard is our own voice: it needs no sentence to begin with, and its time is no overhead of ours."""
    app = App(base_url=upstream.base_url)

    @app.voice
    def say(text: str) -> Sound:
        return Sound(tones(text))

    found = await Counted(serve(app)).moves(marker=marker, scripts=[ANSWER], **AUDIO)
    assert found == {**ended("answered", "first_byte", "first_heard", "first_answer"), **asked(after=False)}


# --- callers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_spoken", [True, False])
@pytest.mark.parametrize("http", ["firstword", "h11"])
async def test_a_caller_who_hangs_up(
    serve: Serve, upstream: Upstream, marker: str, has_spoken: bool, http: str
) -> None:
    """Only who has heard something has interrupted it; in both cases the model is let go of, which takes a time.

    It is the same under a server that is not ours.
    """
    app = App(base_url=upstream.base_url)
    served = serve(app) if http == "firstword" else Served(app, http=http)
    before = await counted(served)
    steps = script.stalls_after("Hello") if has_spoken else script.never_answers()
    async with Caller(served.url).dials(turn(user=marker, scripts=[steps])) as call:
        if has_spoken:
            await call.hears_word("Hello")
        else:
            await upstream.wait_asked(marker)
    heard = ("first_byte", "first_heard", "first_answer") if has_spoken else ()
    assert moved(before, await counted(served)) == {
        **ended("hung_up", *heard),
        **asked(status="left", spoke=has_spoken),
        ("cancel_seconds_count", ()): 1.0,
        **({("barge_ins", ("openai",)): 1.0} if has_spoken else {}),
    }
    if http != "firstword":
        await asyncio.to_thread(served.stop)


async def test_a_turn_that_is_superseded_and_then_asked_for_again(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """Three requests, two questions, one answer: what the first and the third were told is counted as what it is."""
    served = serve(App(base_url=upstream.base_url))
    caller, before = Caller(served.url), await counted(served)
    body = {"user": marker, "scripts": [script.never_answers(), ANSWER], "session_id": marker}
    async with caller.dials(turn(**body)) as first:
        await upstream.wait_asked(marker)
        await caller.says(**body)
        async for _ in first.listens():
            pass
    assert (await caller.says(headers={"x-stainless-retry-count": "1"}, **body)).text == FRIEND
    assert moved(before, await counted(served)) == {
        **ended("answered", *HEARD),
        **ended("superseded"),
        **asked(),
        ("turns", ("openai", "answered")): 2.0,
        ("turn_seconds_count", ("openai",)): 2.0,
        ("overhead_seconds_count", ("before",)): 2.0,
        ("upstream_requests", ("m1", "left")): 1.0,
        ("again", ("superseded",)): 1.0,
        ("again", ("replayed",)): 1.0,
    }


async def test_who_is_refused_is_no_turn(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A wrong key, a body that is none, a path that leads nowhere: each counts by its code, and the key at the gate."""
    served = serve(App(base_url=upstream.base_url, keys=["a-gate-key"], api_key="k"))
    caller, key = Caller(served.url), {"authorization": "Bearer a-gate-key"}

    async def look() -> Samples:
        await asyncio.to_thread(served.left_open)
        heard = await caller.hears(method="GET", path="/metrics", headers=key)
        return read(heard.body.decode())

    before = await look()
    await caller.says(headers={"authorization": "Bearer wrong"})
    await caller.hears(b"{", headers=key)
    await caller.hears(method="GET", path="/nowhere")
    assert moved(before, await look()) == {
        ("refused", ("invalid_api_key",)): 1.0,
        ("refused", ("bad_request",)): 1.0,
        ("refused", ("not_found",)): 1.0,
        ("gate_refused", ("wrong_key",)): 1.0,
    }


async def test_a_wrong_name_and_a_platform_s_mistake_are_counted(
    serve: Serve, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for another server, and a reader of requests that breaks: nobody is answered, and somebody sees it."""
    monkeypatch.setenv("FIRSTWORD_HOSTS", "127.0.0.1")
    served = serve(App(base_url=upstream.base_url, warm=False))
    caller = Caller(served.url)
    before = await counted(served)
    await caller.hears(method="GET", path="/models", headers={"host": "other.example"})

    def breaks(*given: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr("firstword.server.reading.Reader.read", breaks)
    assert (await caller.says(user=marker)).status == 500
    assert moved(before, await counted(served)) == {
        ("refused", ("misdirected_request",)): 1.0,
        ("refused", ("server_error",)): 1.0,
    }


async def test_what_is_true_only_now(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Two turns are in progress, their connections in use; when they are over nothing is, and the connections idle."""
    served = serve(App(base_url=upstream.base_url, warm=False))
    host = upstream.base_url.split("/")[2]
    caller = Caller(served.url)

    async def look() -> tuple[float, float]:
        heard = await caller.hears(method="GET", path="/metrics")
        found = read(heard.body.decode())
        return found["turns_in_progress", ()], found.get(("connections", (host, "in_use")), 0.0)

    slow = script.stalls_after(FRIEND)
    async with (
        caller.dials(turn(user=marker, scripts=[slow])) as one,
        caller.dials(turn(user=marker, scripts=[slow])) as two,
    ):
        await one.hears_word("friend")
        await two.hears_word("friend")
        assert await look() == (2, 2)
    await asyncio.to_thread(served.left_open)
    assert await look() == (0, 0)
