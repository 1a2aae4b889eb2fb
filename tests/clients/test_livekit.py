"""LiveKit Agents as the caller: its `llm.LLM`, its `FallbackAdapter`, and an `AgentSession` in text.

`livekit_caller.py` is the app that uses it. It is one of the strictest readers that there are.
"""

from __future__ import annotations

import json
import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from framework import BESIDE, MODERN, OURS, SAID, THEIRS, Program, running
from served import Served
from tool_streams import MEANS, TWO, answer

from firstword import App, Turn
from firstword.testing import Upstream, script

pytestmark = pytest.mark.timeout(120)  # the first one waits until the framework is loaded


@pytest.fixture(scope="module")
def livekit() -> Iterator[Program]:
    """The app: a process that lives as long as the tests."""
    with running("livekit_caller.py", "livekit") as program:
        yield program


@pytest.fixture(scope="module")
def plain(upstream: Upstream) -> Iterator[str]:
    """The server that a new user runs."""
    served = Served(App(base_url=upstream.base_url))
    yield f"{served.url}/v1"
    served.stop()


@pytest.fixture(scope="module")
def server(upstream: Upstream) -> Iterator[Served]:
    """A server with a tool that the caller knows nothing of."""
    app = App(base_url=upstream.base_url)

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much there is."""
        return "five euros"

    served = Served(app)
    yield served
    served.stop()


@pytest.fixture
def own(server: Served) -> str:
    return f"{server.url}/v1"


BOTH = pytest.mark.parametrize("which", ["plain", "own"])


def called(heard: Any) -> list[tuple[str, Any]]:
    """Return the calls that the client understood."""
    return [(name, json.loads(arguments)) for name, arguments, _ in heard["calls"]]


@BOTH
def test_words_are_streamed_and_tokens_counted(livekit: Program, which: str, request: pytest.FixtureRequest) -> None:
    """An agent asks for an answer; the upstream echoes its words."""
    heard = livekit("chats", url=request.getfixturevalue(which), tools=True)

    assert (heard["words"], heard["calls"], heard["error"]) == ("Hello there, my friend.", [], None)
    assert heard["usage"] == [7, 4]


@BOTH
def test_its_own_calls_arrive_whole(livekit: Program, which: str, request: pytest.FixtureRequest) -> None:
    """Two calls in one turn, words before them, arguments in pieces."""
    heard = livekit("chats", url=request.getfixturevalue(which), tools=True, body={"script": THEIRS})

    assert called(heard) == TWO and heard["words"] == "Let me see."
    assert [id for _, _, id in heard["calls"]] == ["call_1", "call_2"]


@pytest.mark.parametrize("reason", ["tool_calls", "length"])
@pytest.mark.parametrize("name", MODERN)
def test_it_understands_every_provider(livekit: Program, plain: str, name: str, reason: str) -> None:
    """As they come, LiveKit loses or misreads a call of most of these streams, or ends with an error."""
    heard = livekit("chats", url=plain, tools=True, body={"script": answer(name, reason=reason)})

    assert called(heard) == MEANS.get(name, TWO) and heard["error"] is None
    ids = [id for _, _, id in heard["calls"]]
    assert len(set(ids)) == len(ids) and all(ids)


@BOTH
def test_words_beside_a_call_survive(livekit: Program, which: str, request: pytest.FixtureRequest) -> None:
    """A chunk says something and calls something."""
    steps = script.events(script.event(BESIDE), script.finish("tool_calls"), script.done())
    heard = livekit("chats", url=request.getfixturevalue(which), tools=True, body={"script": steps})

    assert (heard["words"], called(heard)) == ("Let me see.", [("clock", {})])


def test_a_tool_of_ours_is_not_seen(livekit: Program, own: str, upstream: Upstream) -> None:
    """The model calls what the server has, then answers."""
    user = uuid4().hex
    heard = livekit("chats", url=own, tools=True, user=user, body={"scripts": [OURS, SAID]})

    assert (heard["words"], heard["calls"]) == ("Let me look. It rains, and it is noon.", [])
    offered = [tool["function"]["name"] for tool in upstream.seen(user)[0].body["tools"]]
    assert sorted(offered) == ["balance", "clock", "weather"]


def test_a_turn_may_hold_tools_of_both(livekit: Program, own: str) -> None:
    """The model calls ours first, and then the caller's."""
    heard = livekit("chats", url=own, tools=True, user=uuid4().hex, body={"scripts": [OURS, THEIRS]})

    assert called(heard) == TWO and heard["words"] == "Let me look. Let me see."


def test_a_session_runs_its_calls_and_goes_on(livekit: Program, own: str, upstream: Upstream) -> None:
    """A whole agent in text: our tool, its own two, the answer to their results, and another turn."""
    user = uuid4().hex
    heard = livekit("talks", url=own, user=user, said=["How is it?", "Thanks."], body={"scripts": [OURS, THEIRS, SAID]})

    assert sorted(heard["ran"]) == [["clock", {}], ["weather", {"city": "Paris"}]]
    assert heard["words"].endswith("It rains, and it is noon." * 2) and heard["words"].startswith("Let me look.")
    told = [each for each in upstream.seen(user)[2].body["messages"] if each["role"] == "tool"]
    assert sorted(each["content"] for each in told) == ["noon", "rain"]


@pytest.mark.parametrize("name", ["the index 0 for all, as Ollama", "neither index nor id, in one chunk"])
def test_a_session_runs_what_an_odd_provider_calls(livekit: Program, plain: str, name: str) -> None:
    """The ids that we make up come back with the results."""
    heard = livekit("talks", url=plain, user=uuid4().hex, said=["How is it?"], body={"scripts": [answer(name), SAID]})

    assert sorted(heard["ran"]) == [["clock", {}], ["weather", {"city": "Paris"}]]
    assert heard["words"] == "It rains, and it is noon." and heard["error"] is None


@pytest.mark.parametrize("status", [400, 401, 429, 503])
@BOTH
def test_an_error_before_the_first_word_has_its_status(
    livekit: Program, which: str, status: int, request: pytest.FixtureRequest
) -> None:
    """The provider refuses: LiveKit learns why, and decides by that whether to ask again."""
    refusal = script.refuses(status, "Not like this.", code="some_code")
    heard = livekit("chats", url=request.getfixturevalue(which), body={"script": refusal})

    assert (heard["error"]["class"], heard["error"]["status"]) == ("APIStatusError", status)
    assert heard["error"]["body"]["code"] == "some_code"
    assert heard["error"]["again"] is (status in (429, 503))


@pytest.mark.parametrize("breaks", [script.fails_after("One two"), script.closes_after("One two")])
@BOTH
def test_an_error_after_the_first_word_is_raised(
    livekit: Program, which: str, breaks: script.Script, request: pytest.FixtureRequest
) -> None:
    """The model breaks after two words: an error, no false end, and LiveKit does not say them again."""
    heard = livekit("chats", url=request.getfixturevalue(which), body={"script": breaks})

    assert heard["words"] == "One two"
    assert heard["error"]["class"] == "APIConnectionError" and heard["error"]["again"] is False


def test_the_fallback_leaves_a_dead_server_for_us(livekit: Program, plain: str) -> None:
    """The first server takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as dead:
        urls = [f"http://127.0.0.1:{dead.getsockname()[1]}/v1", plain]
        heard = livekit("falls_over", url=plain, urls=urls, attempt_timeout=0.5)

    assert heard["words"] == "Hello there, my friend." and 0.5 <= heard["seconds"] < 2


@pytest.mark.parametrize(
    "silent",
    [script.never_answers(), script.sends_only_the_role(), script.comments_for_ever()],
    ids=["nothing", "the role", "comments"],
)
def test_the_fallback_leaves_us_when_our_model_is_silent(
    livekit: Program, plain: str, upstream: Upstream, silent: script.Script
) -> None:
    """We hold our headers and send no pings, so LiveKit's own clock runs: it asks the next one, and tries us again."""
    user = uuid4().hex
    urls = [plain, f"{upstream.base_url}"]
    scripts = [silent, script.events(script.says("Here I am."))]
    heard = livekit("falls_over", url=plain, user=user, urls=urls, attempt_timeout=0.5, body={"scripts": scripts})

    assert heard["words"] == "Here I am." and 0.5 <= heard["seconds"] < 2
    assert upstream.seen(user, count=2)[0].closed_by == "peer"


@pytest.mark.parametrize("status", [429, 503])
def test_the_fallback_leaves_us_at_once_when_we_refuse(
    livekit: Program, plain: str, upstream: Upstream, status: int
) -> None:
    """Our model refuses: the status arrives before anything else, and nobody waits for the time that an attempt has."""
    user = uuid4().hex
    scripts = [script.refuses(status), script.events(script.says("Here I am."))]
    urls = [plain, upstream.base_url]
    heard = livekit("falls_over", url=plain, user=user, urls=urls, attempt_timeout=5, body={"scripts": scripts})

    assert heard["words"] == "Here I am." and heard["seconds"] < 2
    assert len(upstream.seen(user)) >= 2  # it also looks, beside, whether we are back


@pytest.mark.parametrize("silent", [False, True], ids=["late", "silent"])
def test_the_fallback_stays_with_us_once_it_hears_a_filler(
    livekit: Program, upstream: Upstream, serve: Callable[[App], Served], silent: bool
) -> None:
    """A filler is a first word: nobody else is asked, so we see to it that something comes before LiveKit gives up."""
    settings: dict[str, Any] = {"fillers": ["One moment. "], "fill_after": 0.6, "apology": "I am sorry."}
    served = serve(App(base_url=upstream.base_url, first_token_timeout=1.2, **settings))
    late = [script.role(), script.wait(0.9), *script.words("Here I am."), script.finish(), script.done()]
    steps = script.never_answers() if silent else script.events(late)
    user, urls = uuid4().hex, [f"{served.url}/v1", upstream.base_url]
    heard = livekit("falls_over", url="", user=user, urls=urls, attempt_timeout=0.8, body={"scripts": [steps, SAID]})

    assert heard["words"] == "One moment. " + ("I am sorry." if silent else "Here I am.")
    assert heard["error"] is None and len(upstream.seen(user)) == 1


@BOTH
def test_closing_a_stream_closes_the_upstream(
    livekit: Program, which: str, upstream: Upstream, request: pytest.FixtureRequest
) -> None:
    """The caller of `llm.LLM` leaves at the first word."""
    user = uuid4().hex
    url = request.getfixturevalue(which)
    heard = livekit("chats", url=url, user=user, leaves=True, body={"script": script.stalls_after("Once upon")})

    (record,) = upstream.seen(user, until="closed", count=1)
    assert heard["words"].startswith("Once") and record.closed_by == "peer"


def test_interrupting_a_session_closes_the_upstream(livekit: Program, own: str, upstream: Upstream) -> None:
    """The caller barges in at the first word that the agent would say."""
    user = uuid4().hex
    heard = livekit("interrupts", url=own, user=user, body={"script": script.stalls_after("Once upon")})

    (record,) = upstream.seen(user, until="closed", count=1)
    assert heard["interrupted"] is True and record.closed_by == "peer"
    assert heard["words"].startswith("Once")


def test_the_path_names_it_and_a_header_the_session(livekit: Program, upstream: Upstream) -> None:
    """As its page says to set it up; without the path it is read as plain OpenAI. EndCallTool is found by its name."""
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app = App(base_url=upstream.base_url)

    @app.before_turn
    async def look(turn: Turn) -> None:
        turns.put(turn)
        if "bye" in turn.request:
            turn.end_call(say="Goodbye.")

    served = Served(app)
    try:
        headers, user = {"x-session-id": "room-7"}, uuid4().hex
        for prefix in ("/livekit/v1", "/v1"):
            heard = livekit("chats", url=served.url + prefix, user=user, headers=headers, tools=True)
            assert (heard["words"], heard["error"]) == ("Hello there, my friend.", None)
        seen = [turns.get_nowait() for _ in range(2)]
        assert [(each.platform, each.session) for each in seen] == [("livekit", "room-7"), ("openai", "room-7")]
        one, two = upstream.seen(user)
        assert one.body == two.body  # nothing is taken out that is not in the other

        ended = livekit("chats", url=f"{served.url}/livekit/v1", tools=True, ends=True, body={"bye": True})
        assert (ended["words"], called(ended)) == ("Goodbye.", [("end_call", {})])
    finally:
        served.stop()


def test_a_guess_is_superseded_by_the_turn_itself(livekit: Program, plain: str, upstream: Upstream) -> None:
    """Preemptive generation, where the app says which session it is: LiveKit does not send the older one again."""
    user = uuid4().hex
    scripts = [script.stalls_after("Once upon"), SAID, script.refuses(500)]
    body = {"scripts": scripts, "session_id": user}
    heard = livekit("speculates", url=plain, user=user, body=body)

    assert heard["words"] == "It rains, and it is noon." and heard["error"] is None
    assert "".join(heard["guess"]["words"]) == "Once upon" and "sent again" in heard["guess"]["error"]
    one, two = upstream.seen(user)
    assert one.closed_by == "peer" and two.ended is not None
