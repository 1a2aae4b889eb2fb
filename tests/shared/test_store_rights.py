"""What the store's user may do, and whose a reply is: nobody is ever given the reply to what another has asked."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import ROOT
from redis_of_a_test import RedisServer, until

from firstword.images import Session
from firstword.limits.meters import HELD, RATE, SPENT, Ask
from firstword.shared.address import read
from firstword.shared.replicas import Replicas
from firstword.shared.store import AWAY, Store

BUDGET = 0.2


@contextlib.asynccontextmanager
async def opened(url: str, prefix: str = "t") -> AsyncIterator[Store]:
    store = Store(read(url), budget=BUDGET, prefix=prefix)
    store.open()
    try:
        yield store
    finally:
        await store.close()


def url_of(redis: RedisServer, user: str) -> str:
    return redis.url.replace("//", f"//{user}:pw@")


async def test_a_user_who_may_not_listen_is_told_of_and_gets_nobodys_replies(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A new user of Redis 7 has no right to any channel. He is given it, loses it, and is given it again."""
    caplog.set_level("INFO")
    redis.ask("ACL", "SETUSER", "me", "on", ">pw", "~*", "+@all", "resetchannels")
    redis.ask("SET", "of-a", "words of a")
    redis.ask("SET", "of-b", "words of b")
    heard: set[Any] = set()
    async with opened(url_of(redis, "me")) as store:

        async def ask() -> None:
            while True:
                asked = [store.ask("GET", name) for name in ("of-a", "of-b")]
                for name, reply in zip("ab", asked, strict=True):
                    said = await reply
                    heard.add((name, said if said is AWAY else said[-1:]))
                await asyncio.sleep(0)

        asking = asyncio.ensure_future(ask())
        try:
            for _ in range(2):
                await until(lambda: store.state() == "away: NOPERM for SUBSCRIBE")
                gone = store._gone
                await until(lambda gone=gone: store._gone is not gone)  # it is refused a second time
                await until(lambda: store.state() == "away: NOPERM for SUBSCRIBE")
                assert heard <= {("a", AWAY), ("b", AWAY), ("a", b"a"), ("b", b"b")}
                redis.ask("ACL", "SETUSER", "me", "&t:*")
                await until(lambda: store.is_there and ("b", b"b") in heard)
                redis.ask("ACL", "SETUSER", "me", "resetchannels")
        finally:
            asking.cancel()
    assert heard == {("a", AWAY), ("b", AWAY), ("a", b"a"), ("b", b"b")}
    said = [record.getMessage() for record in caplog.records if "NOPERM" in record.getMessage()]
    hint = "why=NOPERM for SUBSCRIBE hint: give the store's user ~t:* and &t:*"
    assert 2 <= len(said) <= 3 and all(hint in each for each in said)


async def test_the_rights_that_the_docs_name_are_enough(redis: RedisServer) -> None:
    """The user of docs/many-machines.md, and all that replicas ask and tell; one right less is too few."""
    text = (ROOT / "docs" / "many-machines.md").read_text("utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ACL SETUSER .*$", text, re.MULTILINE)
    redis.ask(*shlex.split(line))
    given = {word for word in shlex.split(line) if word.startswith("+")}
    url = redis.url.replace("//", "//firstword:password@")
    replicas = Replicas(url, prefix="firstword", budget=BUDGET, without="closed")
    replicas.open([], lambda name: None)
    store = replicas.store
    try:
        await until(lambda: store.is_there)
        redis.ask("CONFIG", "RESETSTAT")
        asks = [Ask(kind, kind, kind, 1, 5, 60.0) for kind in (HELD, RATE, SPENT)]
        for _ in range(2):
            replicas.turns.begin(("a", "b"), lambda: None)
            taken = replicas.meters.take(asks, "a")
            assert taken is not None and await taken is None  # type: ignore[misc]
            replicas.meters.give_back(asks, "a")
        replicas.images.put("a", Session(shown=[]))
        redis.ask("SCRIPT", "FLUSH")
        replicas.meters.give_back(asks, "a")
        assert await replicas.images.get("a") is None
        replicas.failures.tell("model")
        replicas.events.note("turns", "a", 1, ("id", 0.1))
        assert await replicas.events.turns("turns", "a", [1]) == {1: ("id", 0.1)}
        assert await replicas.events.is_new("notice")
        assert await store.ask("PING") is not AWAY
        assert store.refused == 0 and store.is_there
    finally:
        await replicas.close()
    used = re.findall(rb"cmdstat_([a-z|]+):", redis.ask("INFO", "commandstats"))
    assert {each.decode().partition("|")[0] for each in used} - {"config", "info"} <= {
        word[1:].partition("|")[0] for word in given
    }


async def test_what_the_server_says_unasked_takes_nobodys_place(redis: RedisServer) -> None:
    """It tells of keys that have changed, and of subscriptions, between the replies that are waited for."""
    async with opened(redis.url) as store:
        await until(lambda: store.is_there)
        line = store._line
        assert await store.ask("CLIENT", "TRACKING", "ON", "BCAST") == b"OK"
        for number in range(50):
            redis.ask("SET", f"t:{number}", number)
            redis.ask("PUBLISH", store.channel, "subscribe")
            replies = await asyncio.gather(*(store.ask("ECHO", str(each)) for each in (number, -number)))
            assert replies == [b"%d" % number, b"%d" % -number]
        assert store._line is line


@pytest.mark.parametrize("told", [b"*3\r\n+subscribe\r\n+t:told\r\n:1\r\n", b"+OK\r\n", b""])
async def test_a_server_that_does_not_tell_apart_what_it_is_asked_and_what_it_tells_is_away(told: bytes) -> None:
    """A proxy that says yes to RESP3, and speaks RESP2: what others tell would come in the place of replies."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(told if b"SUBSCRIBE" in data else b"+OK\r\n")
                if b"SUBSCRIBE" in data and not told:
                    break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        async with opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as store:
            await until(lambda: store.state() == "away: it does not speak RESP3")
            assert store.ask("PING").result() is AWAY
