"""Limits that replicas share: together they take no more than one would, and what is done when the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis_of_a_test import RedisServer, until

from firstword.limits.local import LocalMeters
from firstword.limits.meters import HELD, RATE, SPENT, STORE, Ask, Refusal
from firstword.shared import meters as meters_module
from firstword.shared.address import read
from firstword.shared.meters import SharedMeters
from firstword.shared.store import Store

HOUR = 3600.0
BUDGET = 0.2


def rate(amount: int = 1, limit: int = 3, seconds: float = HOUR, whose: str = "shop") -> Ask:
    return Ask("requests", whose, RATE, amount, limit, seconds)


def held(limit: int = 2, seconds: float = HOUR, whose: str = "shop") -> Ask:
    return Ask("turns", whose, HELD, 1, limit, seconds)


def spent(amount: int = 10, limit: int = 25, seconds: float | None = HOUR, whose: str = "shop") -> Ask:
    return Ask("budget", whose, SPENT, amount, limit, seconds)


@contextlib.asynccontextmanager
async def replicas(redis: RedisServer, without: Any = "local", count: int = 2) -> AsyncIterator[list[SharedMeters]]:
    """Connect so many replicas to one store."""
    stores = [Store(read(redis.url), budget=BUDGET, prefix="t") for _ in range(count)]
    for store in stores:
        store.open()
    await until(lambda: all(store.is_there for store in stores))
    try:
        yield [SharedMeters(store, without) for store in stores]
    finally:
        for store in stores:
            await store.close()


async def take(meters: SharedMeters, *asks: Ask, lease: str = "a") -> str:
    """Return the name of what there is not enough of; empty when all was taken."""
    answer = meters.take(asks, lease)
    if answer is not None and not isinstance(answer, Refusal):
        answer = await answer
    return "" if answer is None else answer.ask.name


async def gone(meters: SharedMeters) -> None:
    """Wait until the store has done all that it was told."""
    await meters._store.ask("PING")


async def test_replicas_take_from_the_same_meters(redis: RedisServer) -> None:
    """Three a minute are three a minute, however many machines there are; others have meters of their own."""
    async with replicas(redis) as (one, two):
        taken = [await take(each, rate()) for each in (one, two, one, two, one)]
        assert taken == ["", "", "", "requests", "requests"]
        assert await take(two, rate(whose="other")) == ""


async def test_a_thousand_at_once_get_no_more_than_there_is(redis: RedisServer) -> None:
    """Nobody slips through between a look and a write."""
    async with replicas(redis) as (one, two):
        asked = [take(random.choice((one, two)), held(limit=7), lease=str(each)) for each in range(300)]
        assert (await asyncio.gather(*asked)).count("") == 7


async def test_what_is_held_comes_back(redis: RedisServer) -> None:
    """A turn ends, on either machine; giving it back twice gives nothing more."""
    async with replicas(redis) as (one, two):
        assert [await take(one, held(), lease=each) for each in "abc"] == ["", "", "turns"]
        for _ in range(2):
            one.give_back([held()], "a")
        await gone(one)
        assert [await take(two, held(), lease=each) for each in "de"] == ["", "turns"]


async def test_what_a_dead_replica_holds_is_free_after_a_while(redis: RedisServer) -> None:
    """It was killed, and gives nothing back; what others hold stays theirs."""
    async with replicas(redis) as (one, two):
        assert await take(two, held()) == ""
        assert await take(one, held(seconds=0.3), lease="b") == ""
        assert await take(two, held(), lease="c") == "turns"
        at = asyncio.get_running_loop().time()
        while await take(two, held(), lease="c"):
            assert asyncio.get_running_loop().time() < at + 5
            await asyncio.sleep(0.02)
        assert await take(two, held(), lease="d") == "turns"


async def test_all_is_taken_or_nothing(redis: RedisServer) -> None:
    """The last of three meters has not enough: the other two have all that they had."""
    async with replicas(redis) as (one, two):
        assert await take(one, rate(limit=1), held(limit=1), spent(limit=0)) == "budget"
        assert await take(two, rate(limit=1), held(limit=1)) == ""


async def test_what_was_not_used_is_given_back_and_what_was_used_beyond_is_held_against_it(redis: RedisServer) -> None:
    """Tokens are guessed, and known when the turn is over."""
    async with replicas(redis) as (one, two):
        assert await take(one, rate(amount=90, limit=100)) == ""
        assert await take(two, rate(amount=20, limit=100)) == "requests"
        one.give_back([rate(amount=80, limit=100)], "a")
        await gone(one)
        assert await take(two, rate(amount=20, limit=100)) == ""
        two.give_back([rate(amount=-80, limit=100)], "a")
        await gone(two)
        assert await take(one, rate(amount=1, limit=100)) == "requests"


async def test_a_budget_is_spent_by_all(redis: RedisServer) -> None:
    """Whoever comes last may go beyond; then there is no more, and it says when there is."""
    async with replicas(redis) as (one, two):
        assert [await take(each, spent()) for each in (one, two, one, two)] == ["", "", "", "budget"]
        refusal = await two.take([spent()], "x")  # type: ignore[misc]
        assert refusal == Refusal(spent(), HOUR)
        assert await two.take([spent(seconds=None)], "x") == Refusal(spent(seconds=None), None)  # type: ignore[misc]
        one.give_back([spent(amount=20)], "a")
        await gone(one)
        assert await take(two, spent()) == ""


async def test_a_clock_of_the_store_that_is_put_back_refuses_nobody_for_longer(redis: RedisServer) -> None:
    """A bucket was emptied an hour ahead of now, which lasts for a second: it is full again when that is over."""
    async with replicas(redis) as (one, two):
        name, now = one._store.name("limit", "requests", "shop"), float(redis.ask("TIME")[0])
        for given_back in (0, 1):
            redis.ask("SET", name, f"{now + HOUR + 0.5:.6f} {now + HOUR:.6f}", "PX", 10_000_000)
            if given_back:  # half of it, which the clock has no say in
                one.give_back([rate(amount=1, limit=4, seconds=1.0)], "a")
                await gone(one)
            refusal = await two.take([rate(amount=4, limit=4, seconds=1.0)], "b")  # type: ignore[misc]
            assert refusal is not None and 0.1 < refusal.retry_after < 0.5 / (1 + given_back) + 0.01
            at = asyncio.get_running_loop().time()
            while await take(two, rate(amount=4, limit=4, seconds=1.0)):
                assert asyncio.get_running_loop().time() < at + 5
                await asyncio.sleep(0.02)


async def test_nobody_may_spend_more_because_the_store_has_forgotten(redis: RedisServer) -> None:
    """FLUSHALL, or a failover, between what a turn takes and what it gives back of it."""
    async with replicas(redis) as (one, two):
        assert await take(one, spent(amount=20)) == ""
        redis.ask("FLUSHALL")
        one.give_back([spent(amount=15)], "a")
        await gone(one)
        assert [await take(two, spent(limit=20)) for _ in range(3)] == ["", "", "budget"]


async def test_it_decides_as_the_meters_of_one_process_do(redis: RedisServer) -> None:
    """Two hundred steps by lot, beside `LocalMeters`: the same is taken, and the same refused."""
    lot = random.Random(7)
    async with replicas(redis) as (one, two):
        local = LocalMeters()
        for step in range(200):
            asks = lot.sample([rate(lot.randint(0, 9), 30), held(5), spent(lot.randint(0, 9), 60)], lot.randint(1, 3))
            lease, shared = str(lot.randint(0, 9)), lot.choice((one, two))
            if lot.random() < 0.6:
                there = local.take(asks, f"{lease} {step}")
                assert await take(shared, *asks, lease=f"{lease} {step}") == ("" if there is None else there.ask.name)
                if there is None and any(ask.kind == HELD for ask in asks) and lot.random() < 0.8:
                    for each in (local, shared):
                        each.give_back([held(5)], f"{lease} {step}")
            else:
                back = [ask for ask in asks if ask.kind != HELD]
                for each in (local, shared):
                    each.give_back(back, lease)
            await gone(shared)


async def test_every_key_has_a_lifetime_and_tells_nothing(redis: RedisServer) -> None:
    """Whoever looks into the store sees digests that go away."""
    async with replicas(redis) as (one, _):
        asks = [rate(whose="secret"), held(whose="secret"), spent(whose="secret", seconds=None)]
        assert await take(one, *asks) == ""
        one.give_back([spent(amount=-10, whose="other secret", seconds=None)], "a")
        await gone(one)
    keys = redis.ask("KEYS", "*")
    assert len(keys) == 5
    assert all(redis.ask("PTTL", key) > 0 for key in keys) and not any(b"secret" in key for key in keys)


async def test_when_it_asks_it_does_not_wait(redis: RedisServer) -> None:
    """The question leaves before the answer is awaited, while a body is read; an answer nobody wants is no error."""
    async with replicas(redis) as (one, _):
        answer = one.take([held(limit=1)], "a")
        await asyncio.sleep(0.05)
        assert redis.ask("ZCARD", one._store.name("limit", "turns", "shop")) == 1
        del answer
        one.give_back([held(limit=1)], "a")
        await gone(one)
        assert await take(one, held(limit=1), lease="b") == ""


@pytest.mark.parametrize(
    ("without", "taken"),
    [
        ("local", [["", ""], ["turns", "turns"]]),  # one here, one there
        ("open", [["", ""], ["", ""]]),
        ("closed", [[STORE, STORE], [STORE, STORE]]),
    ],
)
async def test_without_the_store_it_is_as_the_operator_has_chosen(
    redis: RedisServer, without: str, taken: list[list[str]]
) -> None:
    """It is killed; it comes back, and counts for all again."""
    async with replicas(redis, without) as (one, two):
        redis.kill()
        await until(lambda: not one._store.is_there and not two._store.is_there)
        for expected in taken:
            assert [await take(each, held(limit=1), lease=expected[0] or "a") for each in (one, two)] == expected
        for each in (one, two):
            each.give_back([held(limit=1)], "a")
        assert [await take(each, held(limit=1), lease="b") for each in (one, two)] == taken[0]
        redis.start()
        await until(lambda: one._store.is_there and two._store.is_there)
        assert [await take(each, held(limit=1), lease="c") for each in (one, two)] == ["", "turns"]


async def test_a_lease_that_was_taken_both_here_and_there_comes_back_in_both(redis: RedisServer) -> None:
    """The store hangs, takes the lease late, and the turn has been counted here meanwhile."""
    async with replicas(redis) as (one, two):
        redis.hang()
        assert await take(one, held(limit=1)) == ""
        assert await take(one, held(limit=1), lease="b") == "turns"
        redis.go_on()
        await until(lambda: one._store.is_there)
        assert await take(two, held(limit=1), lease="c") == "turns"
        one.give_back([held(limit=1)], "a")
        await gone(one)
        assert await take(two, held(limit=1), lease="c") == ""
        assert len(one._local) == 0 and not one._here


@pytest.mark.parametrize("is_on_its_way", [True, False])
async def test_a_lease_comes_back_although_the_connection_was_lost(redis: RedisServer, is_on_its_way: bool) -> None:
    """The turn ends while the connection is down, or the store dies before it has read that: the next one may begin."""
    async with replicas(redis) as (one, two):
        assert await take(one, held(limit=1)) == ""
        if is_on_its_way:
            redis.hang()
            one.give_back([held(limit=1)], "a")
            assert one._store._line is not None
            one._store._line.abort()
            await until(lambda: one._store._line is None)
            redis.go_on()
        else:
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: one._store._line is None)
            one.give_back([held(limit=1)], "a")
        await until(lambda: one._store.is_there and two._store.is_there)
        await gone(one)
        assert await take(two, held(limit=1), lease="b") == ""
        assert not one._kept
        two.give_back([held(limit=1)], "b")
        await gone(two)


async def test_leases_for_a_store_that_stays_away_are_bounded(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many turns end meanwhile: those that ended first are remembered, as the store has them, and not for ever."""
    monkeypatch.setattr(meters_module, "MAX_KEPT", 3)
    async with replicas(redis, "open", count=1) as (one,):
        for each in "abc":
            assert await take(one, held(limit=3), lease=each) == ""
        redis.kill()
        await until(lambda: not one._store.is_there)
        one.give_back([held(seconds=0.0)], "gone by itself")
        for each in "abcdefg":
            one.give_back([held(limit=3)], each)
            await asyncio.sleep(0)
        assert [back.lease for back in one._kept] == ["a", "b", "c"]
        redis.start()
        await until(lambda: one._store.is_there)
        await gone(one)
        assert not one._kept


async def test_what_was_spent_meanwhile_is_told_to_the_store(redis: RedisServer) -> None:
    """Money is real, whether it could be counted at once or not."""
    async with replicas(redis, "open") as (one, two):
        redis.kill()
        await until(lambda: not one._store.is_there)
        for lease in "ab":
            assert await take(one, spent(amount=10), lease=lease) == ""
            one.give_back([spent(amount=-5)], lease)  # it was fifteen
        redis.start()
        await until(lambda: one._store.is_there and two._store.is_there)
        assert await take(one, spent(amount=0, limit=31)) == ""
        await gone(one)
        assert await take(two, spent(amount=0, limit=30)) == "budget"
        assert await take(two, spent(amount=0, limit=31)) == ""


async def test_a_key_of_another_type_is_as_if_the_store_were_away(redis: RedisServer) -> None:
    """Somebody else writes where we count: we do not touch it, and each process counts by itself."""
    async with replicas(redis) as (one, _):
        for name in ("turns", "requests", "budget"):
            redis.ask("HSET", one._store.name("limit", name, "shop"), "a", "b")
        assert [await take(one, held(limit=1), lease=each) for each in "ab"] == ["", "turns"]
        assert await take(one, rate(limit=1), lease="a") == ""
        await until(lambda: one._store.is_there)
        one.give_back([held(limit=1), rate(limit=1)], "a")
        assert redis.ask("TYPE", one._store.name("limit", "turns", "shop")) == b"hash"


async def test_numbers_that_are_none_are_as_if_the_store_were_away(redis: RedisServer) -> None:
    """A string where a number was; one that is no number; one that is far too large."""
    async with replicas(redis) as (one, _):
        for text in ("x", "nan", "1e308", "-1e308"):
            redis.ask("SET", one._store.name("limit", "requests", "shop"), text, "PX", 100_000)
            await until(lambda: one._store.is_there)
            assert await take(one, rate()) in ("", "requests")
        redis.ask("SET", one._store.name("limit", "budget", "shop"), "x", "PX", 100_000)
        assert await take(one, spent()) == ""
