"""A store that was left alone is found again when it is well, however badly the trial went that was to find it out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from redis_of_a_test import RedisServer, until

from firstword.shared import store as store_module
from firstword.shared.address import read
from firstword.shared.store import AWAY, Store

BUDGET = 0.1  # as in test_store.py


def on_asyncio(test: Coroutine[Any, Any, None]) -> None:
    """Run it on the loop of the standard library."""
    asyncio.run(test)


def on_uvloop(test: Coroutine[Any, Any, None]) -> None:
    """Run it on the loop of most servers, which takes what has come and what is due in another order."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(test)
    finally:
        loop.close()


BOTH = pytest.mark.parametrize("run", [on_asyncio, on_uvloop])


@contextlib.asynccontextmanager
async def left_alone(redis: RedisServer) -> AsyncIterator[Store]:
    """Open a store that has refused three calls, so that the next one is its own trial."""
    store = Store(read(redis.url), budget=BUDGET, prefix="t")
    store.open()
    try:
        await until(lambda: store.is_there)
        redis.ask("LPUSH", "t:list", 1)
        for _ in range(3):
            assert await store.ask("GET", "t:list") is AWAY
        assert not store.is_there
        yield store
    finally:
        await store.close()


async def trial_is_sent(store: Store) -> None:
    """Return in the step of the loop in which it has left."""
    await until(lambda: store._trial is not None)
    for _ in range(2):
        await asyncio.sleep(0)


@BOTH
def test_a_trial_whose_reply_is_read_late(redis: RedisServer, run: Callable[..., None]) -> None:
    """The store answers at once, and our own loop is busy for longer than the budget."""

    async def test() -> None:
        async with left_alone(redis) as store:
            redis.hang()
            await trial_is_sent(store)
            redis.go_on()
            time.sleep(BUDGET * 2)  # many turns in one step of the loop
            await until(lambda: store.is_there)
            assert await store.ask("ECHO", "x") == b"x"

    run(test())


@BOTH
def test_a_trial_that_is_lost_with_its_connection(
    redis: RedisServer, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is killed with the trial on its way; the new one is too slow while it lets us in."""

    async def test() -> None:
        async with left_alone(redis) as store:
            redis.hang()
            await trial_is_sent(store)
            redis.kill()
            await until(lambda: store._line is None)
            monkeypatch.setattr(store_module, "GRACE", -BUDGET)  # no reply is in time
            redis.start()
            await until(lambda: store._line is not None)
            monkeypatch.undo()
            assert not store.is_there
            await until(lambda: store.is_there)

    run(test())


@BOTH
def test_a_store_that_refuses_and_is_slow_when_it_does_so_no_more(
    redis: RedisServer, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has refused three times to let us in; then it does, late each time: nobody but its own trial asks it."""
    monkeypatch.setattr(store_module, "RETRY_AFTER", 0.01)
    redis.ask("ACL", "SETUSER", "me", "on", ">pw", "~*", "+@all", "resetchannels")

    async def test() -> None:
        store = Store(read(redis.url.replace("//", "//me:pw@")), budget=BUDGET, prefix="t")
        monkeypatch.setattr(store_module, "GRACE", -BUDGET)
        store.open()
        try:
            await until(lambda: store.refused >= 3)
            redis.ask("ACL", "SETUSER", "me", "allchannels")
            await until(lambda: store._line is not None)
            monkeypatch.setattr(store_module, "GRACE", 0.001)
            assert not store.is_there
            await until(lambda: store.is_there)
        finally:
            await store.close()

    run(test())
