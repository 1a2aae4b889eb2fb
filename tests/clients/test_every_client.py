"""The same situations for every client: the real packages, our real server, a scripted model behind it.

Each docstring is a row of the table in docs/clients.md, and `INSTEAD` is what it says there
instead of a mark. What a client
has besides, and what is its own, is in the other files of this folder.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from caller import Caller
from framework import OURS, SAID, THEIRS, Program, running
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream, script

pytestmark = pytest.mark.timeout(120)  # the first test of a client waits until it is loaded

# The program that uses a client, and the environment that it runs in.
CLIENTS = {
    "OpenAI Python": ("openai_caller.py", "here"),
    "OpenAI Python 2": ("openai_caller.py", "openai2"),
    "OpenAI Node": ("node/openai.mjs", "node"),
    "LiveKit": ("livekit_caller.py", "livekit"),
    "Pipecat": ("pipecat_caller.py", "pipecat"),
    "Pydantic AI": ("pydantic_ai_caller.py", "agents"),
    "LangChain": ("langchain_caller.py", "agents"),
    "AI SDK": ("node/ai.mjs", "node"),
}
# What the table says instead of a mark. A dash is what a client has nothing of.
INSTEAD = {
    "test_one_piece": {"LiveKit": "–"},
    "test_a_form": {"Pipecat": "–"},
    "test_a_second_try": {"LiveKit": "in its own time"},
    "test_no_second_try": {"LiveKit": "asks again", "AI SDK": "asks again"},
}
# What it raises, or tells its error handler: when the model refuses with 503, and in mid-answer when the model's server
# says that it failed, and when it closes.
RAISES = {
    "OpenAI Python": ["InternalServerError", "APIError", "APIError"],
    "OpenAI Python 2": ["InternalServerError", "APIError", "APIError"],
    "OpenAI Node": ["InternalServerError", "APIError", "APIError"],
    "LiveKit": ["APIStatusError", "APIConnectionError", "APIConnectionError"],
    "Pipecat": ["InternalServerError", "APIError", "APIError"],
    "Pydantic AI": ["ModelUnavailableError", "ModelServerError", "ModelAPIError"],
    "LangChain": ["OpenAIAPIError", "APIError", "APIError"],
    "AI SDK": ["APICallError", "StreamProviderError", "StreamProviderError"],
}
HELLO = "Hello there, my friend."
IMAGE = "data:image/png;base64,iVBORw0KGgo="
TWO = [["clock", {}], ["weather", {"city": "Paris"}]]
HERE_I_AM = script.events(script.says("Here I am."))


@pytest.fixture(scope="module", params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> Iterator[Program]:
    """One client, a process that lives as long as its tests."""
    with running(*CLIENTS[request.param]) as program:
        yield program


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """What the client is called."""
    return str(request.node.callspec.params["client"])


@pytest.fixture(autouse=True)
def _only_what_it_can(request: pytest.FixtureRequest, name: str) -> None:
    if INSTEAD.get(request.node.originalname, {}).get(name) == "–":
        pytest.skip("the client has nothing of the kind; docs/clients.md says so")


@pytest.fixture
def user() -> str:
    """The name under which the upstream keeps this test's requests."""
    return uuid4().hex


@pytest.fixture(scope="module")
def plain(upstream: Upstream) -> Iterator[str]:
    """The server that a new user runs; the clients shall be the ones that try again."""
    yield from serving(App(base_url=upstream.base_url, hedge_share=0))


@pytest.fixture(scope="module")
def own(upstream: Upstream) -> Iterator[str]:
    """A server with a tool that no client knows of."""
    app = App(base_url=upstream.base_url)

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much there is."""
        return "five euros"

    yield from serving(app)


@pytest.fixture(scope="module")
def careful(upstream: Upstream) -> Iterator[str]:
    """A server that is never silent."""
    yield from serving(
        App(base_url=upstream.base_url, fillers=["One moment. "], fill_after=0.1, apology="I am sorry.", hedge_share=0)
    )


@dataclass
class Watched:
    """A server, and its turns as an after_turn hook gets them."""

    url: str
    turns: queue.SimpleQueue[Turn]


@pytest.fixture
def watched(app: App, over: queue.SimpleQueue[Turn]) -> Iterator[Watched]:
    for url in serving(app):
        yield Watched(url, over)


def serving(app: App) -> Iterator[str]:
    """Serve an App and yield the base URL that a client is given."""
    served = Served(app)
    yield f"{served.url}/v1"
    served.stop()


def asks(client: Program, url: str, user: str, *scripts: script.Script, **more: Any) -> Any:
    """Let a client have one turn, which the model plays by `scripts`, and return what it heard."""
    body = {"user": user, **({"scripts": list(scripts)} if scripts else {})}
    return client("turn", url=url, user=user, body=body, **more)


# --- words ----------------------------------------------------------------------------------------


def test_a_stream(client: Program, plain: str, user: str) -> None:
    """words, streamed, and the count of tokens"""
    heard = asks(client, plain, user)

    assert (heard["words"], heard["error"]) == (HELLO, None)
    assert heard["usage"] == [7, 4]


def test_one_piece(client: Program, watched: Watched, user: str) -> None:
    """a reply in one piece"""
    heard = asks(client, watched.url, user, HERE_I_AM, whole=True)

    assert (heard["words"], heard["error"]) == ("Here I am.", None)
    assert watched.turns.get(timeout=5).stream is False


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "in one piece"])
def test_a_form(client: Program, plain: str, user: str, upstream: Upstream, whole: bool) -> None:
    """an answer in a JSON schema"""
    heard = asks(client, plain, user, script.events(script.says('{"city": "Paris"}')), form=True, whole=whole)

    assert (heard["form"], heard["error"]) == ({"city": "Paris"}, None)
    wanted = upstream.seen(user)[0].body["response_format"]
    assert wanted["type"] == "json_schema" and "city" in wanted["json_schema"]["schema"]["properties"]


def test_an_image(client: Program, plain: str, user: str, upstream: Upstream) -> None:
    """an image beside the words: the model sees it"""
    heard = asks(client, plain, user, HERE_I_AM, image=IMAGE)

    assert (heard["words"], heard["error"]) == ("Here I am.", None)
    parts = upstream.seen(user)[0].body["messages"][-1]["content"]
    assert [part["image_url"]["url"] for part in parts if part["type"] == "image_url"] == [IMAGE]


def test_a_session(client: Program, watched: Watched, user: str) -> None:
    """a header says whose session it is: `turn.session`"""
    asks(client, watched.url, user, headers={"x-session-id": f"call-{user}"})

    assert watched.turns.get(timeout=5).session == f"call-{user}"


async def test_metadata_first(client: Program, upstream: Upstream, user: str) -> None:
    """an engine's metadata before the words, an event without choices, is no trouble"""
    app = App(base_url=upstream.base_url, platform="agora")

    @app.before_turn
    def keep(turn: Turn) -> None:
        turn.interruptable = False

    for url in serving(app):
        heard = await asyncio.to_thread(asks, client, url, user, HERE_I_AM)
        raw = await Caller(url).says("Hello")

        assert (heard["words"], heard["error"]) == ("Here I am.", None)
        assert raw.chunks[0]["choices"] == [] and raw.chunks[0]["metadata"] == {"interruptable": False}


# --- tools ----------------------------------------------------------------------------------------


def test_its_own_calls(client: Program, plain: str, user: str, upstream: Upstream) -> None:
    """two calls of its own, words before them, arguments in pieces; the results come back"""
    heard = asks(client, plain, user, THEIRS, SAID, tools=True)

    assert (sorted(heard["ran"]), heard["error"]) == (TWO, None)
    assert heard["words"] == "Let me see.It rains, and it is noon."
    told = [each for each in upstream.seen(user)[1].body["messages"] if each["role"] == "tool"]
    assert sorted(each["tool_call_id"] for each in told) == ["call_1", "call_2"]


def test_our_call(client: Program, own: str, user: str) -> None:
    """a tool of the server's: it hears the answer, and sees no call"""
    heard = asks(client, own, user, OURS, SAID, tools=True, replies=1)

    assert (heard["words"], heard["ran"]) == ("Let me look. It rains, and it is noon.", [])
    assert heard["error"] is None


def test_calls_of_both(client: Program, own: str, user: str) -> None:
    """a turn that calls both, the server's tool and then its own"""
    heard = asks(client, own, user, OURS, THEIRS, SAID, tools=True)

    assert (sorted(heard["ran"]), heard["error"]) == (TWO, None)
    assert heard["words"] == "Let me look. Let me see.It rains, and it is noon."


# --- when something is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 503])
def test_an_error_before(client: Program, name: str, plain: str, user: str, status: int) -> None:
    """a model that refuses: an error with its true status and words"""
    refusal = script.refuses(status, "Not like this.", headers={"retry-after-ms": "5"})
    heard = asks(client, plain, user, refusal)

    assert (heard["words"], heard["error"]["status"]) == ("", status)
    assert "Not like this." in heard["error"]["message"]
    assert status != 503 or heard["error"]["class"] == RAISES[name][0]


@pytest.mark.parametrize(("how", "breaks"), [(1, script.fails_after("One two")), (2, script.closes_after("One two"))])
def test_an_error_after(client: Program, name: str, plain: str, user: str, how: int, breaks: script.Script) -> None:
    """a model that breaks in mid-answer: an error, and no word twice"""
    heard = asks(client, plain, user, breaks)

    assert heard["words"] == "One two" and heard["error"]["class"] == RAISES[name][how]


@pytest.mark.parametrize("words", ["", "One two."])
def test_an_apology(client: Program, careful: str, user: str, words: str) -> None:
    """the same two, when the server has an apology: it is heard, and there is no error"""
    broken = script.closes_after(words) if words else script.refuses(503, headers={"retry-after-ms": "5"})
    heard = asks(client, careful, user, broken)

    assert heard["words"] == (f"{words} I am sorry." if words else "I am sorry.")
    assert heard["error"] is None


def test_a_filler(client: Program, careful: str, user: str) -> None:
    """a model that is late: a filler, and the answer behind it in one message"""
    late = script.events(script.role(), script.wait(0.4), script.words("Here I am."), script.finish(), script.done())
    heard = asks(client, careful, user, late)

    assert heard["words"] == "One moment. Here I am." and heard["error"] is None


def test_a_second_try(client: Program, name: str, plain: str, user: str, upstream: Upstream) -> None:
    """a model that limits its rate: asked again, at the time that it told"""
    limits = script.refuses(429, "Rate limit reached.", headers={"retry-after-ms": "30"})
    heard = asks(client, plain, user, limits, HERE_I_AM, retries=2)

    assert (heard["words"], heard["error"]) == ("Here I am.", None)
    first, second = upstream.seen(user)
    if name not in INSTEAD["test_a_second_try"]:
        assert 0.03 <= second.requested - first.requested < 0.3  # a pause of their own would be 0.4 s and more


def test_no_second_try(client: Program, name: str, plain: str, user: str, upstream: Upstream) -> None:
    """a failure with `x-should-retry: false`: not asked again"""
    refusal = script.refuses(503, headers={"x-should-retry": "false", "retry-after-ms": "5"})
    heard = asks(client, plain, user, refusal, retries=2)

    assert heard["error"] is not None
    assert len(upstream.seen(user)) == (3 if name in INSTEAD["test_no_second_try"] else 1)


def test_leaving(client: Program, plain: str, user: str, upstream: Upstream) -> None:
    """the caller interrupts: the connection to the model is closed"""
    heard = asks(client, plain, user, script.stalls_after("Once upon"), leaves=True)

    (record,) = upstream.seen(user, until="closed", count=1)
    assert heard["words"].startswith("Once") and heard["error"] is None
    assert record.closed_by == "peer"
