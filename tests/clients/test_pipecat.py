"""Pipecat as the caller: its `OpenAILLMService` in a pipeline that has everything of a bot but its voice.

`pipecat_caller.py` is the bot. It counts calls by their index, and reads one call of a chunk, or its words.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
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
def pipecat() -> Iterator[Program]:
    """The bot: a process that lives as long as the tests."""
    with running("pipecat_caller.py", "pipecat") as program:
        yield program


@pytest.fixture(scope="module")
def plain(upstream: Upstream) -> Iterator[str]:
    """The server that a new user runs; Pipecat's SDK shall be the one that tries again."""
    served = Served(App(base_url=upstream.base_url, hedge_share=0))
    yield f"{served.url}/v1"
    served.stop()


@pytest.fixture(scope="module")
def own(upstream: Upstream) -> Iterator[str]:
    """A server with a tool that the bot knows nothing of."""
    app = App(base_url=upstream.base_url)

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much there is."""
        return "five euros"

    served = Served(app)
    yield f"{served.url}/v1"
    served.stop()


BOTH = pytest.mark.parametrize("which", ["plain", "own"])


@pytest.fixture
def user() -> str:
    """The name under which the upstream keeps this test's requests."""
    return uuid4().hex


def called(heard: Any) -> list[tuple[str, Any]]:
    """Return the calls that the bot's functions got; they run at the same time."""
    return in_order((name, arguments) for name, arguments, _ in heard["calls"])


def in_order(calls: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(calls, key=str)


@BOTH
def test_words_are_streamed_and_tokens_counted(
    pipecat: Program, which: str, user: str, request: pytest.FixtureRequest
) -> None:
    """A bot answers; the upstream echoes the caller's words."""
    heard = pipecat("chats", url=request.getfixturevalue(which), user=user, tools=True)

    assert (heard["words"], heard["calls"], heard["error"]) == ("Hello there, my friend.", [], None)
    assert heard["usage"] == [7, 4]
    assert heard["history"][-1] == {"role": "assistant", "content": "Hello there, my friend."}


def test_a_reply_in_one_piece_is_whole(pipecat: Program, plain: str, user: str) -> None:
    """Pipecat asks without a stream when it sums up a conversation."""
    assert pipecat("asks_once", url=plain, user=user)["words"] == "Sum it up, my friend."


@BOTH
def test_both_of_its_functions_run_and_the_answer_follows(
    pipecat: Program, which: str, user: str, upstream: Upstream, request: pytest.FixtureRequest
) -> None:
    """Two calls in one turn, words before them, arguments in pieces; then the model is asked with both results."""
    url = request.getfixturevalue(which)
    heard = pipecat("chats", url=url, user=user, tools=True, replies=2, body={"scripts": [THEIRS, SAID]})

    assert called(heard) == in_order(TWO)
    assert sorted(heard["results"]) == [["clock", "noon"], ["weather", "rain"]]
    assert heard["words"] == "Let me see.It rains, and it is noon."
    told = [each for each in upstream.seen(user)[1].body["messages"] if each["role"] == "tool"]
    assert sorted(each["tool_call_id"] for each in told) == ["call_1", "call_2"]
    assert sorted(each["content"] for each in told) == ['"noon"', '"rain"']


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("name", MODERN)
def test_it_understands_every_provider(pipecat: Program, plain: str, user: str, name: str, reason: str) -> None:
    """As they come, Pipecat merges, loses or misreads the calls of most of these streams."""
    scripts = [answer(name, reason=reason), SAID]
    heard = pipecat("chats", url=plain, user=user, tools=True, replies=2, body={"scripts": scripts})

    assert called(heard) == in_order(MEANS.get(name, TWO))
    assert heard["words"] == "It rains, and it is noon." and heard["error"] is None


@BOTH
def test_words_beside_a_call_survive(pipecat: Program, which: str, user: str, request: pytest.FixtureRequest) -> None:
    """A chunk says something and calls something: Pipecat would not hear the words."""
    steps = script.events(script.event(BESIDE), script.finish("tool_calls"), script.done())
    url = request.getfixturevalue(which)
    heard = pipecat("chats", url=url, user=user, tools=True, replies=2, body={"scripts": [steps, SAID]})

    assert (heard["words"], called(heard)) == ("Let me see.It rains, and it is noon.", [("clock", {})])


def test_a_tool_of_ours_is_not_seen(pipecat: Program, own: str, user: str) -> None:
    """The model calls what the server has, then answers."""
    heard = pipecat("chats", url=own, user=user, tools=True, body={"scripts": [OURS, SAID]})

    assert (heard["words"], heard["calls"]) == ("Let me look. It rains, and it is noon.", [])
    assert [each["role"] for each in heard["history"]] == ["user", "assistant"]


def test_a_turn_may_hold_tools_of_both(pipecat: Program, own: str, user: str) -> None:
    """The model calls ours, then the bot's, then answers."""
    heard = pipecat("chats", url=own, user=user, tools=True, replies=2, body={"scripts": [OURS, THEIRS, SAID]})

    assert called(heard) == in_order(TWO)
    assert heard["words"] == "Let me look. Let me see.It rains, and it is noon."


@BOTH
def test_a_barge_in_closes_the_upstream(
    pipecat: Program, which: str, user: str, upstream: Upstream, request: pytest.FixtureRequest
) -> None:
    """The caller speaks at the bot's first word."""
    steps = script.stalls_after("Once upon")
    heard = pipecat("chats", url=request.getfixturevalue(which), user=user, leaves=True, body={"script": steps})

    (record,) = upstream.seen(user, until="closed", count=1)
    assert heard["words"].startswith("Once") and heard["error"] is None
    assert record.closed_by == "peer"


@pytest.mark.parametrize("marks", [True, False], ids=["with marks", "without"])
def test_no_filler_stands_before_a_mark(
    pipecat: Program, user: str, upstream: Upstream, serve: Callable[[App], Served], marks: bool
) -> None:
    """Pipecat's own prompt wants a mark as the first sign: it takes it off, and all that stood before it is lost."""
    app = App(base_url=upstream.base_url, fillers=["One moment. "], fill_after=0.05)
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(turns.put)
    late = [script.role(), script.wait(0.3), script.text("● Here"), *script.words(" I am."), script.finish()]
    body = {"script": script.events(*late, script.done())}
    heard = pipecat("chats", url=f"{serve(app).url}/v1", user=user, marks=marks, body=body)

    turn = turns.get(timeout=5)
    assert turn.reply.text == ("" if marks else "One moment. ") + "● Here I am."
    assert heard["words"].strip() == ("Here I am." if marks else "One moment. ● Here I am.")


@pytest.mark.parametrize(
    ("status", "raised"), [(400, "BadRequestError"), (401, "AuthenticationError"), (503, "InternalServerError")]
)
@BOTH
def test_an_error_before_the_first_word_has_its_status(
    pipecat: Program, which: str, user: str, status: int, raised: str, request: pytest.FixtureRequest
) -> None:
    """The provider refuses: the pipeline's error handler learns why."""
    refusal = script.refuses(status, "Not like this.", headers={"retry-after-ms": "5"})
    heard = pipecat("chats", url=request.getfixturevalue(which), user=user, body={"script": refusal})

    assert (heard["error"]["class"], heard["error"]["status"], heard["words"]) == (raised, status, "")


@pytest.mark.parametrize(
    "breaks", [script.fails_after("One two"), script.closes_after("One two")], ids=["says so", "closes"]
)
def test_an_error_after_the_first_word_is_told(pipecat: Program, plain: str, user: str, breaks: script.Script) -> None:
    """The model breaks after two words: they are spoken, and the pipeline hears of an error."""
    heard = pipecat("chats", url=plain, user=user, body={"script": breaks})

    assert heard["words"] == "One two" and heard["error"]["class"] == "APIError"


def test_the_path_names_it_and_a_header_the_session(pipecat: Program, upstream: Upstream, user: str) -> None:
    """As its page says to set it up; a session in `extra_body` is taken out. The bot's own `end_call` is run."""
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app = App(base_url=upstream.base_url)

    @app.before_turn
    async def look(turn: Turn) -> None:
        turns.put(turn)
        if "bye" in turn.request and turn.messages[-1]["role"] == "user":
            turn.end_call(say="Goodbye.")

    served = Served(app)
    url = f"{served.url}/pipecat/v1"
    try:
        heard = pipecat("chats", url=url, user=user, headers={"x-session-id": "bot-7"})
        assert (heard["words"], heard["error"]) == ("Hello there, my friend.", None)
        pipecat("chats", url=url, user=user, body={"session_id": "bot-8"})
        seen = [turns.get_nowait() for _ in range(2)]
        assert [(each.platform, each.session) for each in seen] == [("pipecat", "bot-7"), ("pipecat", "bot-8")]
        one, two = upstream.seen(user)
        assert one.body == two.body

        ended = pipecat("chats", url=url, user=user, tools=True, ends=True, body={"bye": True}, replies=2)
        assert called(ended) == [("end_call", {})] and ended["words"].startswith("Goodbye.")
    finally:
        served.stop()
