"""What the head of a reply tells of its turn: under our own server and under any other, whatever the reply is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import ABOUT, Caller, Heard
from served import Served

from firstword import App, Model, Turn
from firstword.testing import Upstream, after, fails, says, script, silent, talk, then

FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))
PART = re.compile(r"(gate|read|ask|model|total);dur=(\d+\.\d\d)")


def timing(heard: Any) -> dict[str, float]:
    """Return the parts of `server-timing`, in milliseconds; anything that is none of them fails."""
    parts = heard.headers["server-timing"].split(", ")
    found = [PART.fullmatch(part) for part in parts]
    assert None not in found, parts
    return {each[1]: float(each[2]) for each in found if each is not None}


def about(heard: Any) -> tuple[str | None, str]:
    return heard.headers.get("x-firstword-model"), heard.headers["x-firstword-attempts"]


@pytest.fixture(scope="module", params=["ours", "uvicorn's"])
def ways(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Our own protocol, and a server that knows nothing of it."""
    return {} if request.param == "ours" else {"http": "httptools"}


@pytest.fixture
def answers(ways: dict[str, Any]) -> Iterator[Callable[[App], Caller]]:
    """Serve Apps in that way."""
    running: list[Served] = []

    def start(app: App) -> Caller:
        running.append(Served(app, **ways))
        return Caller(running[-1].url)

    yield start
    for served in running:
        served.stop()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_tells_of_its_turn(
    answers: Callable[[App], Caller], upstream: Upstream, marker: str, stream: bool
) -> None:
    """A developer looks at a reply with curl: streamed, or in one piece."""
    caller = answers(App(base_url=upstream.base_url))
    heard: Heard = await caller.says(user=marker, scripts=[ANSWER], stream=stream)
    assert about(heard) == ("m1", "1")
    found = timing(heard)
    assert list(found) == ["gate", "read", "ask", "model", "total"]
    assert abs(found["total"] - sum(found[part] for part in ("gate", "read", "ask", "model"))) < 100
    assert heard.headers["x-request-id"].startswith("chatcmpl-")


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_tells_of_its_turn(
    answers: Callable[[App], Caller], upstream: Upstream, marker: str, stream: bool
) -> None:
    """The model fails, and fails again: a status and an error body."""
    caller = answers(App(base_url=upstream.base_url, hedge_share=1.0))
    heard = await caller.says(user=marker, scripts=[script.refuses(500, "Broken.")] * 2, stream=stream)
    assert heard.status == 500 and about(heard) == ("m1", "2")
    assert set(timing(heard)) == {"gate", "read", "ask", "model", "total"}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_apology_tells_of_its_turn(
    answers: Callable[[App], Caller], upstream: Upstream, marker: str, stream: bool
) -> None:
    """Both models fail, and a sentence is said instead: who was asked last is named."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    caller = answers(App(models=models, warm=False, hedge_share=0, apology="I am sorry."))
    heard = await caller.says(user=marker, scripts=[script.refuses(500, "Broken.")] * 2, stream=stream)
    assert heard.status == 200 and "I am sorry." in heard.body.decode()
    assert about(heard) == ("second", "2")


async def test_a_turn_that_asked_nobody_names_nobody(answers: Callable[[App], Caller]) -> None:
    """It names no model: a 400, which is a turn all the same."""
    heard = await answers(App()).hears({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
    assert heard.status == 400 and about(heard) == (None, "0")
    assert set(timing(heard)) == {"gate", "read", "total"}


@pytest.mark.parametrize(
    "body", [{"messages": 7}, b"{", {"messages": [{"role": "user", "content": "Hi"}], "model": 7}], ids=str
)
async def test_what_is_refused_before_it_is_a_turn_tells_nothing(answers: Callable[[App], Caller], body: Any) -> None:
    """There is no turn yet whose name could be told."""
    heard = await answers(App()).hears(body)
    assert heard.status == 400 and not any(name in heard.headers for name in ABOUT)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpt\r\nx-evil: 1\r\n\r\n<script>", "gpt??x-evil: 1????<script>"),
        ("模型 7", "?? 7"),
        ("a\x00b\x7f\x1b[31m\u2028", "a?b??[31m?"),
        ("x" * 5000, "x" * 100),
        (" \t ", "?"),
        ("é", "?"),
    ],
)
async def test_a_name_that_a_caller_makes_up_cannot_forge_a_header(
    answers: Callable[[App], Caller], upstream: Upstream, marker: str, name: str, told: str, stream: bool
) -> None:
    """Without a list the model's name is whatever the caller wrote."""
    caller = answers(App(base_url=upstream.base_url))
    heard = await caller.says(user=marker, scripts=[ANSWER], model=name, stream=stream)
    assert heard.status == 200 and about(heard) == (told, "1")
    assert "x-evil" not in heard.headers


async def test_no_key_and_no_session_and_no_host_stands_in_them(
    answers: Callable[[App], Caller], upstream: Upstream, marker: str
) -> None:
    """What others must not know of a call is not told by its head."""
    caller = answers(App(base_url=upstream.base_url, api_key="sk-held", keys=["a-gate-key"]))
    headers = {"authorization": "Bearer a-gate-key", "x-session-id": "a-session"}
    heard = await caller.says(user=marker, scripts=[ANSWER], headers=headers)
    head = repr(heard.headers)
    assert heard.status == 200
    assert not any(secret in head for secret in ("sk-held", "a-gate-key", "a-session", str(upstream.port), "127.0.0"))


# --- who, and when, on a clock that jumps -----------------------------------------------------------


async def test_the_times_are_those_of_the_turn() -> None:
    """The first model is silent for 1.2 s; the second answers 0.4 s after it was asked."""
    score = await talk(models=[silent(), after(0.4, says("hello"))], hedge_after=1.2)
    assert score == [(1.6, "hello")]
    assert about(score) == ("second", "2")
    assert timing(score) == {"gate": 0.0, "read": 0.0, "ask": 1200.0, "model": 400.0, "total": 1600.0}


async def test_a_head_that_leaves_with_a_filler_tells_what_is_known_then() -> None:
    """The filler is said at 0.8 s; who will answer is not known yet."""
    score = await talk(models=[silent(), says("hello")], fill_after=0.8, hedge_after=1.2)
    assert score.text == "One moment. hello"
    assert about(score) == ("first", "1")
    assert timing(score)["model"] == timing(score)["total"] == 800.0


async def test_each_round_of_tools_is_a_request() -> None:
    """The model calls a tool, and answers with its result: two requests when the head leaves."""
    app = App(model="m1")

    @app.tool
    async def balance() -> str:
        """Say how much money there is."""
        return "five euros"

    calls = script.events(script.role(), script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
    score = await talk(app, models=then(calls, says("Five euros.")))
    assert score.text == "Five euros." and about(score)[1] == "2"


@pytest.mark.parametrize(("asked", "told"), [("demo", "demo"), ("mine", "mine"), ("any", "only")])
async def test_who_answered_has_its_own_name(asked: str, told: str) -> None:
    """The demo, a function, and the one model of a list, whatever name the request has for it."""
    app = App(models=["only"])

    @app.model("mine")
    async def mine(turn: Turn) -> str:
        return "Hello."

    score = await talk(app, models=says("hello"), request={"model": asked})
    assert about(score) == (told, "1")


async def test_a_hook_that_chooses_the_model_is_believed() -> None:
    """`turn.adjust(models=[...])` leaves one of two: it is asked without a race."""
    app = App(models=["first", "second"], api_key="k", open=True)

    @app.before_turn
    def choose(turn: Turn) -> None:
        turn.adjust(models=["second"])

    score = await talk(app, models=[fails(500), says("hello")])
    assert score.text == "hello" and about(score) == ("second", "1")
