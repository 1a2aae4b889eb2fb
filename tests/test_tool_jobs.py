"""Tools that are interrupted, and tools that must not be: cancelled, or done to the end, once a turn, told later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, clock
from firstword.calls import Call
from firstword.rounds.jobs import KEPT, MAX_BYTES, MAX_JOBS, ONCE, Jobs, Outcome
from firstword.testing import Upstream, script
from firstword.turn import Turn

Serve = Callable[[App], Served]
BOOK = script.tool_call("book", '{"table": 4}', id="b1")
BOOKS = script.events(script.role(), BOOK, script.finish("tool_calls"))
SAID = script.events(script.says("It is booked."))
ON_THE_LINE = {"session_id": "s1", "turn_id": 1}
NOTHING = {"in_use": 0, "turns": 0}


class Desk:
    """A tool that books, and waits in between until the test lets it go on."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.cancelled = threading.Event()
        self.booked: list[int] = []

    async def book(self, table: int) -> str:
        """Book a table."""
        self.begun.release()
        try:
            await asyncio.to_thread(self.go_on.wait, 10)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.booked.append(table)
        return f"table {table} is booked"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=5)


@pytest.fixture
def desk() -> Any:
    """A desk, which lets everything go on in the end."""
    desk = Desk()
    yield desk
    desk.go_on.set()


def app_of(upstream: Upstream, desk: Desk, *, commits: bool = True, **more: Any) -> App:
    """Return an App with the desk's tool."""
    app = App(base_url=upstream.base_url, **more)
    app.tool(commits=commits)(desk.book)
    return app


async def bodies(upstream: Upstream, marker: str, count: int) -> list[Any]:
    return [record.body for record in await upstream.wait_settled(marker, count=count, within=5)]


def told(body: Any) -> list[str]:
    """Return the results that a request tells the model."""
    return [each["content"] for each in body["messages"] if each["role"] == "tool"]


async def interrupted(caller: Caller, desk: Desk, marker: str, **fields: Any) -> None:
    """Call, and hang up when the tool has begun."""
    async with caller.dials(turn(user=marker, script=BOOKS, **{**ON_THE_LINE, **fields})) as call:
        await desk.has_begun()
        call.hangs_up()


# --- barge-in ---------------------------------------------------------------------------------------


async def test_an_interruption_cancels_a_tool_that_commits_to_nothing(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """The caller speaks while it runs: it ends, nothing is left, and the model is asked no more."""
    served = serve(app_of(upstream, desk, commits=False))

    await interrupted(Caller(served.url), desk, marker)

    assert await asyncio.to_thread(desk.cancelled.wait, 5)
    assert await asyncio.to_thread(served.left_open) == NOTHING
    assert desk.booked == [] and len(upstream.seen(marker, until="now")) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_interruption_lets_a_tool_that_commits_go_on_and_the_next_turn_knows(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str, stream: bool
) -> None:
    """The call and its result stand before the caller's next words, and once only."""
    served = serve(app_of(upstream, desk))
    caller = Caller(served.url)
    await interrupted(caller, desk, marker, stream=stream)
    assert await asyncio.to_thread(served.left_open) == NOTHING
    desk.go_on.set()

    later = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "I"},
        {"role": "user", "content": "Did you?"},
    ]
    for number in (2, 3):
        fields = {**ON_THE_LINE, "turn_id": number, "messages": later, "user": f"{marker} later"}
        await asyncio.to_thread(served.run, served.app._build().jobs.drain)
        await caller.hears(turn(script=SAID, **fields))

    second, third = await bodies(upstream, f"{marker} later", 2)
    assert desk.booked == [4] and not desk.cancelled.is_set()
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "assistant", "tool", "user"]
    assert second["messages"][2]["tool_calls"][0]["function"] == {"name": "book", "arguments": '{"table": 4}'}
    assert told(second) == ["table 4 is booked"] and told(third) == []


async def test_a_job_that_still_runs_is_told_as_such_and_its_result_later(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """The model must not begin it again, and hears of the end in the turn after that."""
    served = serve(app_of(upstream, desk))
    caller = Caller(served.url)
    await interrupted(caller, desk, marker)
    later = f"{marker} later"

    await caller.says(user=later, script=SAID, **{**ON_THE_LINE, "turn_id": 2})
    desk.go_on.set()
    await asyncio.to_thread(served.run, served.app._build().jobs.drain)
    await caller.says(user=later, script=SAID, **{**ON_THE_LINE, "turn_id": 3})
    await caller.says(user=later, script=SAID, **{**ON_THE_LINE, "turn_id": 4})

    second, third, fourth = await bodies(upstream, later, 3)
    assert "not done yet" in told(second)[0]
    assert (told(third), told(fourth)) == (["table 4 is booked"], [])


async def test_a_result_counts_as_told_when_the_model_has_answered_to_its_end(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """The caller interrupts the second answer: nobody knows what was heard of it, so the next turn tells it again."""
    served = serve(app_of(upstream, desk))
    caller = Caller(served.url)
    desk.go_on.set()
    scripts = [BOOKS, script.stalls_after("It is")]
    async with caller.dials(turn(user=marker, scripts=scripts, **ON_THE_LINE)) as call:
        await call.hears_word(" is")
        call.hangs_up()
    assert await asyncio.to_thread(served.left_open) == NOTHING

    await caller.says(user=f"{marker} later", script=SAID, **{**ON_THE_LINE, "turn_id": 2})

    [body] = await bodies(upstream, f"{marker} later", 1)
    assert told(body) == ["table 4 is booked"]


async def test_a_result_that_was_answered_to_is_not_told_again(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """The usual booking: the next turn has nothing to add."""
    caller = Caller(serve(app_of(upstream, desk)).url)
    desk.go_on.set()

    await caller.says(user=marker, scripts=[BOOKS, SAID], **ON_THE_LINE)
    await caller.says(user=f"{marker} later", script=SAID, **{**ON_THE_LINE, "turn_id": 2})

    assert told((await bodies(upstream, marker, 2))[1]) == ["table 4 is booked"]
    assert told((await bodies(upstream, f"{marker} later", 1))[0]) == []


async def test_another_session_hears_nothing_of_it(serve: Serve, upstream: Upstream, desk: Desk, marker: str) -> None:
    """Another session, the same name under another key, and no session at all."""
    served = serve(app_of(upstream, desk))
    caller = Caller(served.url)
    await interrupted(caller, desk, marker)
    desk.go_on.set()
    await asyncio.to_thread(served.run, served.app._build().jobs.drain)

    await caller.says(user=f"{marker} later", script=SAID, session_id="s2", turn_id=2)
    await caller.says(
        user=f"{marker} later", script=SAID, session_id="s1", turn_id=2, headers={"authorization": "Bearer k"}
    )
    await caller.says(user=f"{marker} later", script=SAID)

    assert [told(body) for body in await bodies(upstream, f"{marker} later", 3)] == [[], [], []]


async def test_a_tool_that_does_not_end_holds_up_nobody(
    serve: Serve, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It swallows its cancellation: the turn is over all the same, and the server's end ends it."""
    monkeypatch.setattr("firstword.rounds.use.END_TIMEOUT", 0.05)
    monkeypatch.setattr("firstword.rounds.jobs.DRAIN_TIMEOUT", 0.05)
    begun = threading.Event()
    app = App(base_url=upstream.base_url)

    @app.tool
    async def book(table: int) -> str:
        """Never end."""
        for _ in range(2):
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    served = serve(app)
    async with Caller(served.url).dials(turn(user=marker, script=BOOKS)) as call:
        assert await asyncio.to_thread(begun.wait, 5)
        call.hangs_up()
    assert await asyncio.to_thread(served.left_open) == NOTHING
    served.stop()


async def test_the_servers_end_waits_for_a_job(serve: Serve, upstream: Upstream, desk: Desk, marker: str) -> None:
    """It was told to stop while a table is being booked for a caller who has left."""
    served = serve(app_of(upstream, desk))
    await interrupted(Caller(served.url), desk, marker)
    stopping = threading.Thread(target=served.stop)
    stopping.start()
    assert desk.booked == []

    desk.go_on.set()
    await asyncio.to_thread(stopping.join, 10)
    assert desk.booked == [4]


# --- once a turn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, None], ids=["numbered", "by its words"])
@pytest.mark.parametrize("while_running", [True, False])
async def test_a_turn_that_is_sent_again_gets_the_first_ones_result(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str, while_running: bool, number: int | None
) -> None:
    """Engines repeat a turn after a timeout or on a guess: the table is booked once, also while it still is."""
    served = serve(app_of(upstream, desk, resent="none"))  # else the first would be superseded
    caller = Caller(served.url)
    fields: dict[str, Any] = {"session_id": "s1", "turn_id": number, "messages": said("system at noon")}
    if not while_running:
        desk.go_on.set()
    first = asyncio.ensure_future(caller.says(user=f"{marker} 1", scripts=[BOOKS, SAID], **fields))
    await desk.has_begun()
    if not while_running:
        await first
    fields["messages"] = said("system at one")
    second = asyncio.ensure_future(caller.says(user=f"{marker} 2", scripts=[BOOKS, SAID], **fields))
    await upstream.wait_settled(f"{marker} 2")
    desk.go_on.set()

    assert [(await each).text for each in (first, second)] == ["It is booked."] * 2
    assert desk.booked == [4]
    for name in ("1", "2"):
        assert told((await bodies(upstream, f"{marker} {name}", 2))[1]) == ["table 4 is booked"]


def said(system: str) -> list[dict[str, str]]:
    """Return a conversation."""
    return [{"role": "system", "content": system}, {"role": "user", "content": "Book a table."}]


@pytest.mark.parametrize(
    ("fields", "headers", "arguments"),
    [
        ({"turn_id": 2}, {}, '{"table": 4}'),
        ({"session_id": "s2"}, {}, '{"table": 4}'),
        ({}, {"authorization": "Bearer other"}, '{"table": 4}'),
        ({}, {}, '{"table": 5}'),
        ({"session_id": None, "turn_id": None}, {}, '{"table": 4}'),
        ({"turn_id": None, "messages": [{"role": "user", "content": "And again."}]}, {}, '{"table": 4}'),
    ],
    ids=["another turn", "another session", "another key", "other arguments", "no session", "other words"],
)
async def test_what_is_not_the_same_runs_again(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str, fields: Any, headers: Any, arguments: str
) -> None:
    """Two turns that differ are two wishes."""
    caller = Caller(serve(app_of(upstream, desk)).url)
    desk.go_on.set()
    again = script.events(script.role(), script.tool_call("book", arguments, id="b1"), script.finish("tool_calls"))
    before = {**ON_THE_LINE, **{key: None for key, value in fields.items() if value is None}}

    await caller.says(user=f"{marker} 1", scripts=[BOOKS, SAID], **before)
    await caller.says(user=f"{marker} 2", scripts=[again, SAID], headers=headers, **{**ON_THE_LINE, **fields})

    assert len(desk.booked) == 2


async def test_a_call_that_is_made_twice_in_a_turn_is_run_once(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """Twice in one answer, once more in the next one, spelt otherwise, and without any session."""
    desk.go_on.set()
    twice = script.events(
        script.role(), BOOK, script.tool_call("book", '{"table":4}', id="b2", index=1), script.finish("tool_calls")
    )
    await Caller(serve(app_of(upstream, desk)).url).says(user=marker, scripts=[twice, BOOKS, SAID])

    assert desk.booked == [4]
    assert told((await bodies(upstream, marker, 3))[2]) == ["table 4 is booked"] * 3


async def test_a_job_that_takes_too_long_goes_on_and_is_told_later(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """Its time is over: the model answers without the result, and the next turn has it."""
    outcomes: list[str] = []
    app = app_of(upstream, desk, tool_timeout=0.05)
    app.after_turn(lambda turn: outcomes.extend(each.outcome for each in turn.called))
    served = serve(app)
    caller = Caller(served.url)

    await caller.says(user=marker, scripts=[BOOKS, SAID], **ON_THE_LINE)
    desk.go_on.set()
    await asyncio.to_thread(served.run, served.app._build().jobs.drain)
    await caller.says(user=f"{marker} later", script=SAID, **{**ON_THE_LINE, "turn_id": 2})

    assert "not done yet" in told((await bodies(upstream, marker, 2))[1])[0]
    assert told((await bodies(upstream, f"{marker} later", 1))[0]) == ["table 4 is booked"]
    served.stop()
    assert outcomes == ["continues"] and desk.booked == [4]


async def test_a_tool_that_takes_too_long_is_cancelled(
    serve: Serve, upstream: Upstream, desk: Desk, marker: str
) -> None:
    """The model is told, and answers."""
    served = serve(app_of(upstream, desk, commits=False, tool_timeout=0.05))
    heard = await Caller(served.url).says(user=marker, scripts=[BOOKS, SAID])

    assert heard.text == "It is booked." and desk.cancelled.is_set()
    assert told((await bodies(upstream, marker, 2))[1]) == ["Error: no result within 0.05 seconds."]


# --- what is kept -----------------------------------------------------------------------------------


def line(session: str, number: int) -> Turn:
    return Turn(request={"messages": [{"role": "user", "content": "Hi"}]}, session=session, number=number)


def call(table: int) -> Call:
    return Call("b1", "book", {"table": table}, None, {})


async def begin(jobs: Jobs, turn: Turn, table: int, text: str = "booked") -> None:
    """Begin a job, and wait for its end."""

    async def run() -> Outcome:
        return Outcome(text, "answered")

    job = jobs.begin(turn, call(table), run)
    await job.task
    await asyncio.sleep(0)  # asyncio tells those who want to know of the end a step later


@pytest.mark.parametrize(
    ("text", "kept"), [("x", MAX_JOBS), ("x" * (MAX_BYTES // 10), 10)], ids=["too many", "too much"]
)
async def test_results_that_nobody_asks_for_do_not_pile_up(text: str, kept: int) -> None:
    """The oldest go first."""
    jobs = Jobs()
    for number in range(kept + 10):
        await begin(jobs, line(f"s{number}", 1), 4, text)
    await begin(jobs, line("last", 1), 4, "")

    found = [number for number in range(kept + 10) if jobs.untold(line(f"s{number}", 2))]
    assert found == list(range(10, kept + 10)) or found == list(range(11, kept + 10))


async def test_a_result_is_kept_for_ten_minutes_and_a_repetition_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told is kept for turns that are sent again, what was not for the next turn."""
    now = 1000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    jobs = Jobs()
    await begin(jobs, line("told", 1), 4)
    jobs._jobs[next(iter(jobs._jobs))][next(iter(next(iter(jobs._jobs.values()))))].told = "number 1"
    await begin(jobs, line("untold", 1), 4)

    now += ONCE + 1
    await begin(jobs, line("other", 1), 4)
    assert sorted(len(each) for each in jobs._jobs.values()) == [1, 1]
    assert len(jobs.untold(line("untold", 2))) == 1

    now += KEPT + 1
    await begin(jobs, line("another", 1), 4)
    assert jobs.untold(line("untold", 2)) == [] and len(jobs._jobs) == 1
