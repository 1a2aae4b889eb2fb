"""Two servers, each a process of its own, behind which stands one store: what callers notice when it dies, or hangs."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Caller
from command import Process
from redis_of_a_test import RedisServer

from firstword.testing import Upstream, script

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
SAID = [script.events(script.says("It is noon."))]
TURNS = 60
SLOWER = 3.0  # times as long as without a store: two busy cores make single turns wait for longer than any store


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a server in front of the scripted model; what is given are its settings."""
    running: list[Process] = []

    def begin(**settings: object) -> Process:
        named = {f"FIRSTWORD_{name.upper()}": str(value) for name, value in settings.items()}
        given = {**os.environ, "LLM_BASE_URL": upstream.base_url, "PYTHONUNBUFFERED": "1", **named}
        running.append(Process([FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", "0"], tmp_path, given))
        return running[-1]

    yield begin
    for process in running:
        process.kill()


def two(start: Callable[..., Process], redis: RedisServer, **settings: object) -> list[Caller]:
    """Start two replicas, and wait until both have the store."""
    shared = {"redis_url": redis.url, "redis_timeout": 0.05, **settings}
    processes = [start(**shared) for _ in range(2)]
    for process in processes:
        process.says("store is there")
    return [process.caller() for process in processes]


async def statuses(callers: list[Caller], count: int, marker: str) -> list[int]:
    """Call them by turns, and return what each call was answered with."""
    heard = []
    for number in range(count):
        said = await callers[number % len(callers)].says(user=f"{marker} {number}", model="m", scripts=SAID)
        heard.append(said.status)
    return heard


async def waits(callers: list[Caller], marker: str) -> list[float]:
    """Call them by turns, and return how long each whole reply took; asserts that there was one."""
    seconds = []
    for number in range(TURNS):
        at = time.monotonic()
        fields: dict[str, Any] = {"user": f"{marker} {number}", "session_id": f"{marker} {number}", "scripts": SAID}
        heard = await callers[number % len(callers)].says(model="m", **fields)
        seconds.append(time.monotonic() - at)
        assert heard.status == 200 and heard.text == "It is noon." and heard.done
    return seconds


async def test_they_share_a_limit(start: Callable[..., Process], redis: RedisServer, marker: str) -> None:
    """Five requests a minute are five, wherever they go; and five again for the next client."""
    callers = two(start, redis, requests_per_minute_per_key=5)
    assert await statuses(callers, 8, marker) == [200] * 5 + [429] * 3
    heard = await callers[0].says(user=marker, model="m", scripts=SAID, headers={"authorization": "Bearer b"})
    assert heard.status == 200


@pytest.mark.parametrize("fault", ["kill", "hang"])
async def test_nobody_waits_for_a_store_that_is_away(
    start: Callable[..., Process], redis: RedisServer, marker: str, fault: str
) -> None:
    """It dies, or hangs, while callers call; it comes back, forgets its scripts, and is shared again."""
    limits = {"requests_per_minute_per_key": 100_000, "max_turns_per_session": 3, "tokens_per_minute": 10**9}
    alone = await waits([start(**limits).caller()], marker)
    callers = two(start, redis, **limits)
    there = await waits(callers, marker)

    getattr(redis, fault)()
    away = await waits(callers, marker)
    (redis.start if fault == "kill" else redis.go_on)()
    redis.ask("FLUSHALL")
    redis.ask("SCRIPT", "FLUSH")
    back = await waits(callers, marker)

    usual = statistics.median(alone)
    assert {
        name: seconds
        for name, seconds in (("there", there), ("away", away), ("back", back))
        if statistics.median(seconds) > usual * SLOWER
    } == {}
    at = time.monotonic()
    while not all([(await each.hears(method="GET", path="/ready")).json["store"] == "there" for each in callers]):
        assert time.monotonic() < at + 10
        await asyncio.sleep(0.02)
    redis.ask("FLUSHALL")
    await waits(callers, f"{marker} at last")
    assert redis.ask("DBSIZE") > TURNS  # the turns are counted there again


@pytest.mark.parametrize(("without", "status"), [("closed", 503), ("open", 200), ("local", 200)])
async def test_without_the_store_limits_are_as_the_operator_has_chosen(
    start: Callable[..., Process], redis: RedisServer, marker: str, without: str, status: int
) -> None:
    """Two requests a minute; the store dies, and is revived, empty."""
    callers = two(start, redis, requests_per_minute_per_key=2, limits_without_store=without)
    assert await statuses(callers, 3, marker) == [200, 200, 429]
    redis.kill()
    for caller in callers:
        while (await caller.hears(method="GET", path="/ready")).json["store"] == "there":
            await asyncio.sleep(0.01)
    expected = [status] * 6 if without != "local" else [200, 200, 200, 200, 429, 429]
    assert await statuses(callers, 6, marker) == expected
    if without == "closed":
        heard = await callers[0].says(user=marker, model="m", scripts=SAID)
        assert heard.error["code"] == "overloaded" and "retry-after-ms" in heard.headers
    redis.start()
    for caller in callers:
        while (await caller.hears(method="GET", path="/ready")).json["store"] != "there":
            await asyncio.sleep(0.01)
    assert await statuses(callers, 3, marker) == [200, 200, 429]


def test_a_store_that_is_away_at_start_keeps_nobody_from_serving(
    start: Callable[..., Process], redis: RedisServer
) -> None:
    """The replicas start first; the log says where the store should be, without its password."""
    redis.kill()
    process = start(redis_url=redis.url.replace("//", "//:s3cret@"), max_turns_per_key=3)
    caller = process.caller()
    process.says(r"store is away address=127\.0\.0\.1:\d+ why=it cannot be reached")
    assert asyncio.run(caller.says(model="demo", pace=0)).status == 200
    heard = asyncio.run(caller.hears(method="GET", path="/ready"))
    assert heard.json["store"] == "away: it cannot be reached"
    assert "s3cret" not in process.output


def test_a_url_that_cannot_be_read_is_told_at_start(start: Callable[..., Process]) -> None:
    """Before a port is opened; and the password in it is not repeated."""
    process = start(redis_url="http://:s3cret@127.0.0.1")
    assert process.ends() != 0
    assert "FIRSTWORD_REDIS_URL" in process.output and "s3cret" not in process.output
