"""The store: what is asked of it is answered in time or not at all, and it comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis_of_a_test import RedisServer, free_port, until

from firstword import clock
from firstword.shared import store as store_module
from firstword.shared.address import read
from firstword.shared.script import Script
from firstword.shared.store import AWAY, Store

BUDGET = 0.1  # twenty times the default: what is to be answered here must be, on a busy machine too
ECHO = Script("return {KEYS[1], ARGV[1]}")


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[Store]:
    """A connection to it, which is there."""
    async with connected(redis.url) as store:
        yield store


@contextlib.asynccontextmanager
async def connected(url: str, **more: Any) -> AsyncIterator[Store]:
    """Open a store, and leave nothing of it behind."""
    tasks, files = len(asyncio.all_tasks()), open_files()
    store = Store(read(url), **{"budget": BUDGET, "prefix": "t", "scripts": [ECHO], **more})
    store.open()
    try:
        await until(lambda: store.is_there)
        yield store
    finally:
        await store.close()
        await until(lambda: open_files() == files)
        assert len(asyncio.all_tasks()) == tasks


def open_files() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208


async def waited(store: Store, *words: str) -> tuple[Any, float]:
    """Return a reply, and how long it was waited for."""
    at = clock.now()
    reply = await store.ask(*words)
    return reply, clock.now() - at


async def test_a_command_is_answered(store: Store) -> None:
    """The store is well."""
    assert await store.ask("SET", "t:a", "1", "PX", 1000) == b"OK"
    assert await store.ask("GET", "t:a") == b"1"
    assert await store.run(ECHO, ["t:k"], "x") == [b"t:k", b"x"]
    store.tell("SET", "t:b", 2, "PX", 1000)
    assert await store.ask("GET", "t:b") == b"2"


async def test_many_ask_at_once(store: Store) -> None:
    """A hundred calls leave by one connection, and each gets its own reply."""
    replies = await asyncio.gather(*(store.run(ECHO, ["t:k"], each) for each in range(100)))
    assert [reply[1] for reply in replies] == [b"%d" % n for n in range(100)]


async def test_one_who_leaves_does_not_disturb_the_others(store: Store) -> None:
    """A caller hangs up while the store is asked: the next reply is not somebody else's."""
    for _ in range(20):
        leaver = asyncio.ensure_future(store.ask("ECHO", "one"))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await store.ask("ECHO", "two") == b"two"


async def test_a_store_that_forgot_its_scripts_is_told_them_again(store: Store, redis: RedisServer) -> None:
    """SCRIPT FLUSH and FLUSHALL, while we are connected."""
    redis.ask("SCRIPT", "FLUSH")
    redis.ask("FLUSHALL")
    assert await store.run(ECHO, ["t:k"], "x") == [b"t:k", b"x"]
    store.tell_run(ECHO, ["t:k"], "x")
    assert store.refused == 0


async def test_a_store_that_is_killed_is_waited_for_by_nobody(store: Store, redis: RedisServer) -> None:
    """The process dies; then it comes back, empty, on the same port."""
    redis.kill()
    await until(lambda: not store.is_there)
    for _ in range(100):
        assert store.ask("PING").result() is AWAY  # there at once: it is no future that has to be waited for
    assert store.state() == "away: the connection was lost" or store.state() == "away: it cannot be reached"
    redis.start()
    await until(lambda: store.is_there)
    assert await store.run(ECHO, ["t:k"], "x") == [b"t:k", b"x"]
    assert store.state() == "there"


async def test_who_asks_when_the_store_dies_is_told_at_once(store: Store, redis: RedisServer) -> None:
    """The connection breaks with a call on its way."""
    redis.hang()
    asked = store.ask("PING")
    at = clock.now()
    redis.kill()
    assert await asked is AWAY
    assert clock.now() - at < 1.0


async def test_a_store_that_hangs_costs_one_budget_and_then_nothing(store: Store, redis: RedisServer) -> None:
    """SIGSTOP: the kernel keeps the connection open and takes what we write."""
    redis.hang()
    reply, seconds = await waited(store, "PING")
    assert reply is AWAY and seconds >= BUDGET * 0.9
    for _ in range(100):
        assert store.ask("PING").result() is AWAY
    assert store.late == 1
    redis.go_on()
    await until(lambda: store.is_there)
    assert await store.ask("ECHO", "x") == b"x"


async def test_a_store_that_hangs_for_long_is_left_and_found_again(store: Store, redis: RedisServer) -> None:
    """Its connection is given up after a second; new ones are taken by the kernel, and answered by nobody."""
    line = store._line
    redis.hang()
    assert await store.ask("PING") is AWAY
    await until(lambda: store._line is not line)
    redis.go_on()
    await until(lambda: store.is_there)
    assert await store.ask("ECHO", "x") == b"x"


async def test_what_is_told_to_a_store_that_hangs_for_a_moment_is_not_lost(store: Store, redis: RedisServer) -> None:
    """Leases are given back, whoever waits for whatever else."""
    redis.hang()
    assert await store.ask("PING") is AWAY
    store.tell("SET", "t:told", 1, "PX", 60_000)
    redis.go_on()
    await until(lambda: store.is_there)
    assert await store.ask("GET", "t:told") == b"1"


async def test_a_late_reply_is_not_taken_for_the_next_one(store: Store, redis: RedisServer) -> None:
    """The reply to a call that was given up arrives when others wait."""
    redis.hang()
    late = store.ask("ECHO", "late")
    assert await late is AWAY
    redis.go_on()
    await until(lambda: store.is_there)
    assert await store.ask("ECHO", "next") == b"next"


async def test_a_slow_store_is_left_alone_until_it_is_quick(redis: RedisServer) -> None:
    """Each reply takes 300 ms. Three turns wait for their budget, then none, and one that nobody waits for tries."""
    async with connected(redis.url) as store:
        for _ in range(3):
            await until(lambda: store.is_there)
            redis.ask("CLIENT", "PAUSE", 300)
            assert await store.ask("PING") is AWAY
        assert not store.is_there and store.ask("PING").result() is AWAY
        await until(lambda: store.is_there)
        assert await store.ask("ECHO", "x") == b"x"


async def test_a_full_store_is_away(store: Store, redis: RedisServer) -> None:
    """maxmemory is reached, and nothing may be evicted: what writes is refused."""
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    for _ in range(3):
        assert await store.ask("SET", "t:a", "1") is AWAY
    assert not store.is_there and store.state() == "away: OOM"
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: store.is_there)
    assert await store.ask("SET", "t:a", "1", "PX", 1000) == b"OK"


async def test_a_replica_that_takes_no_writes_is_away(store: Store, redis: RedisServer) -> None:
    """A failover: behind the same name is a server that only reads. It is looked up and connected to anew."""
    line = store._line
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    for _ in range(3):
        assert await store.ask("SET", "t:a", "1") is AWAY
    assert store.state() == "away: READONLY"
    await until(lambda: store._line is not line)
    redis.ask("REPLICAOF", "NO", "ONE")
    await until(lambda: store.is_there)


async def test_keys_of_other_types_are_as_if_the_store_were_away(store: Store, redis: RedisServer) -> None:
    """Somebody else has put a list where we keep a number."""
    redis.ask("LPUSH", "t:a", "1")
    assert await store.ask("GET", "t:a") is AWAY
    assert await store.ask("ECHO", "x") == b"x"  # one such key says nothing of the store
    assert store.refused == 1


async def test_what_is_no_store_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Something else listens there, and speaks another protocol, or sends without end."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
                await writer.drain()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        store = Store(read(f"redis://:s3cret@127.0.0.1:{port}"), budget=BUDGET, prefix="t")
        store.open()
        await until(lambda: "store is away" in caplog.text)
        assert not store.is_there
        await store.close()
    assert "s3cret" not in caplog.text


async def test_a_store_that_is_away_at_start_is_found_later(redis: RedisServer) -> None:
    """The replicas start before the store does."""
    redis.kill()
    store = Store(read(redis.url), budget=BUDGET, prefix="t")
    store.open()
    await until(lambda: store.state() == "away: it cannot be reached")
    redis.start()
    await until(lambda: store.is_there)
    await store.close()


async def test_a_password_is_used_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """requirepass: the right one is let in, the wrong one and none are not."""
    caplog.set_level("INFO")
    server = RedisServer("--requirepass", "s3cret")
    try:
        async with connected(f"redis://:s3cret@127.0.0.1:{server.port}") as store:
            assert await store.ask("ECHO", "x") == b"x"
            assert "s3cret" not in repr(store._address)
        for url in (f"redis://:wr0ng@127.0.0.1:{server.port}", server.url):
            store = Store(read(url), budget=BUDGET, prefix="t")
            store.open()
            await until(lambda store=store: store.state() in ("away: WRONGPASS", "away: NOAUTH"))
            await store.close()
    finally:
        server.kill()
    assert "s3cret" not in caplog.text and "wr0ng" not in caplog.text
    assert f"address=127.0.0.1:{server.port}" in caplog.text


async def test_replicas_hear_each_other_and_not_themselves(redis: RedisServer) -> None:
    """What one says, the others hear, also when the words are not ours."""
    heard: list[tuple[str, list[str]]] = []
    async with connected(redis.url) as one, connected(redis.url) as two:
        one.hear("word", lambda said: heard.append(("one", said)))
        two.hear("word", lambda said: heard.append(("two", said)))
        one.say("word", "a", "b")
        for poison in ("", "word", "word x", "other x y", "word " + "x" * 100_000, "\N{SNOWMAN}", "word  "):
            redis.ask("PUBLISH", one.channel, poison)
        two.say("word", "c")
        await until(lambda: ("one", ["c"]) in heard)
    assert ("two", ["a", "b"]) in heard and ("two", ["c"]) not in heard and ("one", ["a", "b"]) not in heard


async def test_a_store_behind_tls_is_verified(tmp_path: Path) -> None:
    """With the root that the URL names it is there; with the system's roots it is not."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    files = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem")
    more = [str(tmp_path / word) if word.endswith(".pem") else word for word in files]
    server = RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *more)
    try:
        async with connected(f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}") as store:
            assert await store.ask("ECHO", "x") == b"x"
        stranger = Store(read(f"rediss://127.0.0.1:{port}"), budget=BUDGET, prefix="t")
        stranger.open()
        await until(lambda: stranger.state() == "away: it cannot be reached")
        await stranger.close()
    finally:
        server.kill()


async def test_a_store_may_be_a_socket_of_this_machine(tmp_path: Path) -> None:
    """unix://, with one of its databases."""
    server = RedisServer("--unixsocket", str(tmp_path / "s"))
    try:
        async with connected(f"unix://{tmp_path / 's'}?db=3") as store:
            assert await store.ask("SET", "t:a", "1", "PX", 1000) == b"OK"
            assert b"db3" in server.ask("INFO", "keyspace")
    finally:
        server.kill()


async def test_nothing_is_left_of_connections_that_were_lost(redis: RedisServer) -> None:
    """It dies and comes back again and again; `connected` counts descriptors and tasks."""
    async with connected(redis.url) as store:
        files = open_files()
        for _ in range(5):
            redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: not store.is_there)
            await until(lambda: store.is_there)
        assert open_files() == files


async def test_a_flood_of_calls_is_bounded(store: Store, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store hangs, and many turns end: what they tell does not fill the memory."""
    monkeypatch.setattr(store_module, "MAX_WAITING", 100)
    redis.hang()
    for _ in range(1000):
        store.tell("PING")
    assert store._line is not None and len(store._line.waiting) == 100
    redis.go_on()
    await until(lambda: store._line is not None and not store._line.waiting)
    assert await store.ask("ECHO", "x") == b"x"


async def test_what_others_tell_reaches_them_when_the_server_stops(redis: RedisServer) -> None:
    """The last turns give back what they held in the very moment in which the connection is closed."""
    async with connected(redis.url) as store:
        store.tell("SET", "t:last", 1, "PX", 60_000)
    assert redis.ask("GET", "t:last") == b"1"
