"""A model fails on one replica: the others are warned, ask it all the same, and lose one turn less each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from redis_of_a_test import RedisServer, until
from served import Served

from firstword import App, Model, health
from firstword.health import Breaker
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
ANSWER = script.events(script.says("Hello there."))
BROKEN = script.refuses(500, "Broken.")


@pytest.fixture
def replica(redis: RedisServer, upstream: Upstream, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Start replicas of two models that share a store."""
    monkeypatch.setenv("FIRSTWORD_REDIS_URL", redis.url)
    monkeypatch.setenv("FIRSTWORD_REDIS_TIMEOUT", "0.1")

    async def start() -> Served:
        models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
        served = serve(App(models=models, hedge_after=None, hedge_share=1.0))
        store = served.app._built.replicas.store  # type: ignore[union-attr]
        await until(lambda: store.is_there)
        return served

    return start


def breaker(served: Served, name: str) -> Breaker:
    roster = served.app._built.roster  # type: ignore[union-attr]
    return next(each for each in roster.runners if each.name == name).health.breaker(None)


async def test_the_others_need_one_failure_instead_of_three(
    replica: Callable[[], Any], upstream: Upstream, marker: str
) -> None:
    """The first machine has seen three. On the second one the model is asked, fails once, and is left alone."""
    one, two = await replica(), await replica()
    for number in range(3):
        await Caller(one.url).says(user=f"{marker} {number}", scripts=[BROKEN, ANSWER])
    await until(lambda: breaker(two, "first")._warned_until > 0)
    assert breaker(two, "first").state(health.COOL) == "closed"
    for name in ("a", "b"):
        await Caller(two.url).says(user=f"{marker} {name}", scripts=[BROKEN, ANSWER] if name == "a" else [ANSWER])

    assert [record.body["model"] for record in upstream.seen(f"{marker} a")] == ["first", "second"]
    assert [record.body["model"] for record in upstream.seen(f"{marker} b")] == ["second"]


async def test_a_poisoned_store_stops_nobody_from_asking(
    replica: Callable[[], Any],
    redis: RedisServer,
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody tells without end that all models fail. Those that answer are asked as ever, and the log stays short."""
    caplog.set_level("INFO")
    served = await replica()
    failures = served.app._built.replicas.failures  # type: ignore[union-attr]
    for number in range(5):
        for digest in [*failures._names, "", "x", "x y"]:
            redis.ask("PUBLISH", "firstword:told", f"fails somebody {digest}")
        await Caller(served.url).says(user=f"{marker} {number}", scripts=[ANSWER])
        assert [record.body["model"] for record in upstream.seen(f"{marker} {number}")] == ["first"]
    said = [record.getMessage() for record in caplog.records if "fails elsewhere" in record.getMessage()]
    assert sorted(said) == ["model fails elsewhere model=first", "model fails elsewhere model=second"]


def test_a_warning_ends_with_the_cool_down_and_with_the_first_word() -> None:
    """A model is warned of; how many failures open it then, and later."""
    for spoke, at, state in ((False, 1.0, "open"), (False, health.COOL + 1.0, "closed"), (True, 1.0, "closed")):
        breaker = Breaker()
        breaker.warn(0.0)
        assert breaker.may_ask(0.5)
        if spoke:
            breaker.spoke()
        breaker.failed(at)
        assert breaker.state(at) == state


def test_a_warning_makes_no_time_longer() -> None:
    """One that is open, or being tried, is so for as long as it was; who is warned of it tells nobody."""
    opened: list[int] = []
    breaker = Breaker(opened=lambda: opened.append(1))
    for _ in range(3):
        breaker.failed(0.0)
    for at in (0.0, 1.0, health.COOL - 0.1):
        breaker.warn(at)
    assert breaker.state(health.COOL) == "half-open" and breaker.may_ask(health.COOL)
    breaker.asked(health.COOL)
    breaker.failed(health.COOL)
    assert opened == [1]
