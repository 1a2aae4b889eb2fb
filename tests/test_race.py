"""Several models behind one server: who is asked and when, what is learnt of each, and what it costs when it is off.

The two models are one scripted upstream; a request's `scripts` go to them in the order in which they are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import Caller
from caller import turn as turn_of
from served import Served

from firstword import App, Chunk, ConfigError, Model, Send, Turn, health
from firstword.building import in_order
from firstword.race import Runner, race
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))
BROKEN = script.refuses(500, "Broken.")
COOL = 0.3


def two(upstream: Upstream, **more: Any) -> App:
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    return App(**{"models": models, "hedge_after": 0.15, "hedge_share": 1.0, **more})


@pytest.fixture
def start(upstream: Upstream) -> Iterator[Callable[..., Served]]:
    """Serve an App of two models."""
    running: list[Served] = []

    def begin(app: App | None = None, **more: Any) -> Served:
        running.append(Served(app or two(upstream, **more)))
        return running[-1]

    yield begin
    for served in running:
        served.stop()


def asked(upstream: Upstream, marker: str) -> list[str]:
    return [record.body["model"] for record in upstream.seen(marker)]


async def states(served: Served) -> dict[str, str]:
    found: dict[str, str] = (await Caller(served.url).hears(method="GET", path="/ready")).json["models"]
    return found


async def test_the_model_that_a_request_names_is_asked_first(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """The others stand in for it; another name means the list as it was written."""
    caller = Caller(start().url)
    for name in ("second", "any"):
        await caller.says(model=name, user=f"{marker} {name}", scripts=[BROKEN, ANSWER])

    assert asked(upstream, f"{marker} second") == ["second", "first"]
    assert asked(upstream, f"{marker} any") == ["first", "second"]


async def test_the_models_may_stand_in_the_environment(
    start: Callable[..., Served], upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code is needed for a second model; what code says wins."""
    monkeypatch.setenv("FIRSTWORD_MODELS", "one, two")
    caller = Caller(start(App(base_url=upstream.base_url)).url)
    assert (await caller.says(user=marker, model="any", scripts=[BROKEN, ANSWER])).text == FRIEND
    assert asked(upstream, marker) == ["one", "two"]
    assert list(await states(start(App(["three", "four"])))) == ["three", "four"]
    monkeypatch.setenv("FIRSTWORD_MODELS", "one,,two")
    with pytest.raises(ConfigError, match="A model has no name"):
        App(base_url=upstream.base_url)


async def test_a_slow_model_that_speaks_first_after_all_has_the_turn(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """The second was asked, and is slower still: it is cancelled, and the caller hears one of them."""
    slow = script.events(script.role(), script.wait(0.4), script.words(FRIEND), script.finish(), script.done())
    heard = await Caller(start().url).says(user=marker, scripts=[slow, script.never_answers()])

    assert (heard.text, heard.finish_reasons, heard.done) == (FRIEND, ["stop"], True)
    records = await upstream.wait_settled(marker, count=2)
    assert [record.body["model"] for record in records] == ["first", "second"]
    assert records[1].closed_by == "peer"


@pytest.mark.parametrize("second", [script.refuses(401, "Bad key."), script.rejects("No such field.")])
async def test_a_hedge_that_is_refused_does_not_end_the_turn(
    start: Callable[..., Served], marker: str, second: script.Script
) -> None:
    """What the second model does not take, the first one may be about to answer."""
    slow = script.events(script.role(), script.wait(0.4), script.words(FRIEND), script.finish(), script.done())
    assert (await Caller(start().url).says(user=marker, scripts=[slow, second])).text == FRIEND


@pytest.mark.parametrize("given", [{"hedge_after": None}, {"hedge_share": 0.0}], ids=["none", "no share"])
async def test_without_hedging_the_next_model_is_asked_only_after_a_failure(
    start: Callable[..., Served], upstream: Upstream, marker: str, given: dict[str, Any]
) -> None:
    """Silence is waited for to the end; a failure costs no wait."""
    caller = Caller(start(**given, first_token_timeout=0.6).url)
    heard = await caller.says(user=f"{marker} slow", scripts=[script.never_answers(), ANSWER])
    assert heard.text == FRIEND
    first, second = upstream.seen(f"{marker} slow")
    assert second.requested - first.requested > 0.5
    assert (await caller.says(user=f"{marker} broken", scripts=[BROKEN, ANSWER])).text == FRIEND


async def test_a_dead_model_costs_later_turns_nothing_and_is_found_again(
    start: Callable[..., Served], upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three failures, and it is left alone; after the pause one turn asks it, and finds that it is back."""
    monkeypatch.setattr(health, "COOL", COOL)
    served = start()
    caller = Caller(served.url)
    assert await states(served) == {"first": "closed", "second": "closed"}
    for number in range(3):
        heard = await caller.says(user=f"{marker} {number}", scripts=[BROKEN, ANSWER])
        assert heard.text == FRIEND
    assert await states(served) == {"first": "open", "second": "closed"}

    assert (await caller.says(user=f"{marker} open", scripts=[ANSWER])).text == FRIEND
    assert asked(upstream, f"{marker} open") == ["second"]

    async def until_half_open() -> None:
        while (await states(served))["first"] != "half-open":
            await asyncio.sleep(0.01)

    await asyncio.wait_for(until_half_open(), 5)
    names = [f"{marker} {letter}" for letter in "ab"]
    late = script.events(script.role(), script.wait(0.1), script.words(FRIEND), script.finish(), script.done())
    await asyncio.gather(*(caller.says(user=name, scripts=[late, late]) for name in names))
    assert sorted(asked(upstream, name)[0] for name in names) == ["first", "second"]
    assert await states(served) == {"first": "closed", "second": "closed"}


async def test_when_all_fail_just_now_the_first_is_asked_all_the_same(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """A server that asks nobody could not find out that its models are back."""
    served = start()
    caller = Caller(served.url)
    for number in range(3):
        assert (await caller.says(user=f"{marker} {number}", scripts=[BROKEN, BROKEN])).status == 502
    assert await states(served) == {"first": "open", "second": "open"}
    assert (await caller.says(user=f"{marker} back", scripts=[ANSWER])).text == FRIEND
    assert asked(upstream, f"{marker} back") == ["first"]


async def test_a_model_that_cuts_every_answer_off_is_left_alone(start: Callable[..., Served], marker: str) -> None:
    """It speaks in time, and never comes to an end."""
    served = start()
    for number in range(3):
        await Caller(served.url).says(user=f"{marker} {number}", scripts=[script.closes_after("one two")])
    assert (await states(served))["first"] == "open"


async def test_a_caller_who_interrupts_says_nothing_against_the_model(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """It spoke; that nobody listened to the end is no failure of its own."""
    served = start()
    caller = Caller(served.url)
    for number in range(2):
        await caller.says(user=f"{marker} {number}", scripts=[BROKEN, ANSWER])
    async with caller.dials(turn_of(user=f"{marker} cut", scripts=[script.stalls_after("one two")])) as call:
        await call.hears_word("two")
    await upstream.wait_closed(f"{marker} cut")
    await caller.says(user=f"{marker} last", scripts=[BROKEN, ANSWER])
    assert (await states(served))["first"] == "closed"


async def test_an_answer_that_is_meant_to_be_silent_is_one(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """A hook said so: nobody else is asked, and nothing is said instead."""
    app = two(upstream, apology="I am sorry.")

    @app.before_turn
    async def hush(turn: Turn) -> None:
        turn.silent = True

    steps = script.events(script.role(), script.finish(), script.done())
    heard = await Caller(start(app).url).says(user=marker, scripts=[steps, ANSWER])
    assert (heard.status, heard.text, heard.done, heard.finish_reasons) == (200, "", True, ["stop"])
    assert asked(upstream, marker) == ["first"]


# --- what it costs --------------------------------------------------------------------------------


async def test_what_is_off_is_not_there(upstream: Upstream) -> None:
    """One model, no fillers, text as it is: nothing stands between the model and the caller."""
    url = upstream.base_url
    for app in (App(base_url=url, shape="none"), App(["m1"], base_url=url, shape="none")):
        built = app._build()
        assert in_order(app._written, built.jobs) == [] and built.roster.runners == []
        assert built.roster.rest.__qualname__ == "remote.<locals>.ask"
        await app.close()


class Ear:
    """A writer that never has to be waited for, as the real one when the caller's socket has room."""

    def __init__(self) -> None:
        self.text = ""
        self.waited: list[Chunk] = []

    async def __call__(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.waited.append(chunk)

    def at_once(self, chunk: Chunk) -> bool:
        self.text += chunk.text
        return True


@pytest.mark.parametrize(
    "given",
    [{}, {"models": ["first", "second"]}, {"fillers": ["Hm."]}, {"models": ["first", "second"], "fillers": ["Hm."]}],
    ids=["plain", "race", "fill", "both"],
)
async def test_words_wait_for_nothing_through_all_of_it(upstream: Upstream, given: dict[str, Any]) -> None:
    """They leave in the socket's own callback: no chunk of words goes through the turn's task."""
    app = App(base_url=upstream.base_url, **given)
    ear = Ear()
    steps = script.events(script.says(FRIEND, every=0.01))
    body = {"model": "m1", "stream": True, "messages": [{"role": "user", "content": "Hi"}], "script": steps}
    turn = Turn(request=body)
    await app._build().server._handler(turn, ear)
    await app.close()

    assert ear.text == FRIEND
    assert not [chunk for chunk in ear.waited if chunk.speaks]


async def test_only_the_models_fault_is_mended_by_another_model(upstream: Upstream) -> None:
    """A bug is raised: a second model would hide it, and cost twice."""

    called = []

    async def breaks(turn: Turn, send: Send) -> None:
        called.append("breaks")
        raise LookupError("a bug")

    runners = [Runner("first", breaks), Runner("second", breaks)]
    with pytest.raises(LookupError):
        await race(Turn(request={"messages": []}), Ear(), runners, health.Budget(1.0))
    assert called == ["breaks"]
    assert runners[0].health.state(0.0) == "closed"
