"""The hooks: `before_turn`, which changes what the model is asked, and `after_turn`, which hears how it went."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

import firstword
from firstword import App, BadRequest, Chunk, ConfigError, Forbidden, RequestError, TooManyRequests, Turn, Unauthorized
from firstword.testing import Upstream, script, stalls, talk

Serve = Callable[[App], Served]


# --- before_turn ----------------------------------------------------------------------------------


async def test_a_hook_changes_what_the_model_is_asked(app: App, serve: Serve, upstream: Upstream) -> None:
    """One hook gives the model a system message, another a temperature; `turn.text` is what the caller said."""

    @app.before_turn
    async def find(turn: Turn) -> None:
        await asyncio.sleep(0)
        turn.messages = [{"role": "system", "content": f"They said {turn.text}."}, *turn.messages]

    @app.before_turn
    def cool(turn: Turn) -> None:
        turn.request["temperature"] = 0.1

    heard = await Caller(serve(app).url).says("Hello there.", user="hook-changes")
    (record,) = upstream.seen("hook-changes")
    assert heard.text == "Hello there."
    assert record.body["temperature"] == 0.1
    assert [message["content"] for message in record.body["messages"]] == ["They said Hello there..", "Hello there."]


async def test_hooks_run_in_the_order_in_which_they_were_written(app: App, serve: Serve) -> None:
    """Each builds upon the one before; a plain one runs in a thread and is waited for all the same."""
    threads = []

    @app.before_turn
    async def first(turn: Turn) -> None:
        threads.append(threading.get_ident())
        turn.state["order"] = ["first"]

    @app.before_turn
    def second(turn: Turn) -> None:
        threads.append(threading.get_ident())
        turn.state["order"].append("second")

    @app.before_turn
    async def third(turn: Turn) -> None:
        turn.messages[-1]["content"] = " ".join([*turn.state["order"], "third"])

    assert (await Caller(serve(app).url).says()).text == "first second third"
    assert threads[0] != threads[1]


async def test_an_object_can_be_a_hook(app: App, serve: Serve) -> None:
    """A hook with settings of its own is an object whose `__call__` is async."""

    class Says:
        async def __call__(self, turn: Turn) -> None:
            turn.messages[-1]["content"] = "Changed."

    app.before_turn(Says())
    assert (await Caller(serve(app).url).says()).text == "Changed."


async def test_a_hook_may_choose_the_model(app: App, serve: Serve) -> None:
    """The caller asked for one model, the hook has another answer."""

    @app.model("parrot")
    async def parrot(turn: Turn) -> str:
        return "Polly."

    @app.before_turn
    async def choose(turn: Turn) -> None:
        turn.model = "parrot"

    assert (await Caller(serve(app).url).says(model="m1")).text == "Polly."


REFUSALS = [
    (BadRequest("No.", param="user"), 400, "invalid_request_error", "bad_request"),
    (Unauthorized("No."), 401, "authentication_error", "invalid_api_key"),
    (Forbidden("No."), 403, "permission_error", "forbidden"),
    (TooManyRequests("No.", retry_after=0.25), 429, "rate_limit_error", "rate_limit_exceeded"),
]


@pytest.mark.parametrize(
    ("refusal", "status", "kind", "code"), REFUSALS, ids=[type(row[0]).__name__ for row in REFUSALS]
)
async def test_a_hook_may_refuse_the_turn(
    app: App, serve: Serve, upstream: Upstream, refusal: RequestError, status: int, kind: str, code: str
) -> None:
    """The caller has had its share, or must not be here: a true status, and neither later hooks nor the model hear."""
    later = []

    @app.before_turn
    async def guard(turn: Turn) -> None:
        raise refusal

    app.before_turn(later.append)
    marker = f"hook-refuses-{status}"
    heard = await Caller(serve(app).url).says(user=marker)

    assert (heard.status, heard.error["type"], heard.error["code"]) == (status, kind, code)
    assert heard.error["message"] == "No." and heard.error["param"] == refusal.param
    assert heard.headers.get("x-should-retry") == (None if status == 429 else "false")
    assert heard.headers.get("retry-after-ms") == ("250" if status == 429 else None)
    assert upstream.seen(marker) == [] and later == []


async def test_the_timeout_of_a_search_is_not_the_turns(
    app: App, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook's own search is too slow and raises: that is a mistake at a place, not a turn of 120 seconds."""

    @app.before_turn
    async def search(turn: Turn) -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    heard = await Caller(serve(app).url).says()
    assert heard.status == 500 and "mistake" in heard.error["message"]
    assert "TimeoutError" in caplog.text and "test_hooks.py" in caplog.text


@pytest.mark.parametrize("place", ["before_turn", "after_turn", "stage"])
def test_a_hook_with_other_parameters_is_refused_at_once(app: App, place: str) -> None:
    """A mistake in the code is told when the App is written, not in the first call."""

    async def takes_four(one: Any, two: Any, three: Any, four: Any) -> None:
        """Nothing calls it."""

    with pytest.raises(ConfigError, match=r"'takes_four' does not take \(turn"):
        getattr(app, place)(takes_four)


# --- after_turn -----------------------------------------------------------------------------------


async def test_after_turn_hears_what_was_said(app: App, over: queue.SimpleQueue[Turn], serve: Serve) -> None:
    """The reply is over: its words, its end and the provider's count are there."""
    await Caller(serve(app).url).says("Hello there.", stream_options={"include_usage": True})

    turn = over.get(timeout=2)
    assert (turn.reply.text, turn.reply.finish_reason, turn.error) == ("Hello there.", "stop", None)
    assert turn.reply.usage == script.tokens(completion=2)


async def test_after_turn_hears_a_reply_in_one_piece(app: App, over: queue.SimpleQueue[Turn], serve: Serve) -> None:
    """The caller wanted no stream; for the hook it is the same."""
    await Caller(serve(app).url).says("Hello there.", stream=False)

    turn = over.get(timeout=2)
    assert (turn.reply.text, turn.reply.finish_reason) == ("Hello there.", "stop")
    assert turn.reply.usage == script.tokens(completion=2)


async def test_after_turn_is_off_the_replys_path(app: App, serve: Serve) -> None:
    """A hook waits for ever: the reply does not, nor does the caller's next turn."""
    go_on = threading.Event()
    hooks: queue.SimpleQueue[str] = queue.SimpleQueue()

    @app.after_turn
    async def slow(turn: Turn) -> None:
        hooks.put(turn.text)
        await asyncio.to_thread(go_on.wait, 5)
        hooks.put(f"{turn.text}, done")

    caller = Caller(serve(app).url)
    assert (await caller.says("One")).done
    assert (await caller.says("Two")).done
    assert [hooks.get(timeout=2), hooks.get(timeout=2)] == ["One", "Two"]
    go_on.set()


@pytest.mark.parametrize(
    ("steps", "said", "status"),
    [
        (script.refuses(404, "No such model."), "", 404),
        (script.ends_after("One two"), "One two", 502),
    ],
    ids=["before a word", "after two words"],
)
async def test_after_turn_hears_how_it_failed(
    app: App, over: queue.SimpleQueue[Turn], serve: Serve, steps: script.Script, said: str, status: int
) -> None:
    """The model refuses, or breaks in mid-answer."""
    await Caller(serve(app).url).says(script=steps)

    turn = over.get(timeout=2)
    assert isinstance(turn.error, firstword.UpstreamError)
    assert (turn.reply.text, turn.reply.finish_reason, turn.error.status) == (said, None, status)


@pytest.mark.parametrize("leaves", [None, 1.0])
async def test_words_that_nobody_was_sent_are_not_in_the_reply(
    app: App, over: queue.SimpleQueue[Turn], leaves: float | None
) -> None:
    """A reply in one piece that breaks after two words, or is not waited for: a memory must not hold them."""
    score = await talk(app, models=stalls("One two"), stream=False, leaves=leaves)
    assert (score.text, score.status) == ("", 0 if leaves else 504)
    assert over.get(timeout=2).reply.text == ""


async def test_after_turn_hears_of_a_hang_up(app: App, over: queue.SimpleQueue[Turn], serve: Serve) -> None:
    """The caller interrupts after two words: the hook hears these two, and that nobody is to blame."""
    served = serve(app)
    async with Caller(served.url).dials(turn(script=script.stalls_after("One two"))) as call:
        await call.hears_word("two")
        call.hangs_up()
        await call.writer.wait_closed()

    turn_over = over.get(timeout=2)
    assert (turn_over.reply.text, turn_over.reply.finish_reason, turn_over.error) == ("One two", None, None)
    assert turn_over.timeline.ended is not None
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_after_turn_hears_of_a_refusal_by_a_hook(app: App, over: queue.SimpleQueue[Turn], serve: Serve) -> None:
    """A before_turn hook refused; whoever counts turns wants to know that too."""

    @app.before_turn
    async def guard(turn: Turn) -> None:
        raise Forbidden("No.")

    await Caller(serve(app).url).says()
    assert isinstance(over.get(timeout=2).error, Forbidden)


async def test_a_hook_that_breaks_hurts_nobody(app: App, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """An after_turn hook has a bug: the caller's reply is whole, the next turn too, and the log says where."""
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    @app.after_turn
    def breaks(turn: Turn) -> None:
        seen.put(turn.text)
        raise KeyError(f"secret {turn.text}")

    served = serve(app)
    assert (await Caller(served.url).says("my words")).done
    assert (await Caller(served.url).says("again")).done
    assert [seen.get(timeout=2), seen.get(timeout=2)] == ["my words", "again"]
    served.run(app.close)  # it has waited for both
    mistakes = [record.getMessage() for record in caplog.records if "mistake" in record.getMessage()]
    assert len(mistakes) == 2 and all("test_hooks.py" in mistake for mistake in mistakes)
    assert "secret" not in caplog.text


async def test_shutting_down_waits_for_the_hooks(app: App, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told to stop while a hook still writes the turn down."""
    started, go_on, written = threading.Event(), threading.Event(), []
    close = app.close

    async def closes() -> None:
        go_on.set()  # not before: the hook must still run when the server comes to its end
        await close()

    monkeypatch.setattr(app, "close", closes)

    @app.after_turn
    async def write(turn: Turn) -> None:
        started.set()
        await asyncio.to_thread(go_on.wait, 5)
        await asyncio.sleep(0.1)  # it takes its time; a server that does not wait is gone by then
        written.append(turn.reply.text)

    served = serve(app)
    await Caller(served.url).says("Write this down.")
    assert started.wait(2)
    served.stop()
    assert written == ["Write this down."]


async def test_a_hook_that_never_ends_does_not_keep_the_server(
    app: App, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook waits for what will not come; the server is told to stop, waits a while (here 0.1 s), and cancels it."""
    monkeypatch.setattr(firstword.server.tasks, "DRAIN_TIMEOUT", 0.1)
    started, ended = threading.Event(), threading.Event()

    @app.after_turn
    async def hangs(turn: Turn) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    served = serve(app)
    assert (await Caller(served.url).says()).done
    assert started.wait(2)
    served.stop()
    assert ended.is_set()


async def test_nothing_is_kept_when_nobody_listens(app: App, serve: Serve) -> None:
    """Without an after_turn hook a streamed reply is not held in memory."""
    turns: list[Turn] = []
    app.before_turn(turns.append)

    assert (await Caller(serve(app).url).says("One two three")).done
    assert turns[0].reply.chunks == []


async def test_what_a_hook_reads_of_a_reply_is_what_was_sent(app: App, serve: Serve, upstream: Upstream) -> None:
    """A stage changes the words: the hook reads the changed ones."""
    over: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(over.put)

    @app.stage
    async def shout(turn: Turn, send: firstword.Send, call_next: firstword.CallNext) -> None:
        async def relay(chunk: Chunk) -> None:
            await send(chunk.with_text(chunk.text.upper()) if chunk.text else chunk)

        await call_next(turn, relay)

    await Caller(serve(app).url).says("Hello there.")
    assert over.get(timeout=2).reply.text == "HELLO THERE."
