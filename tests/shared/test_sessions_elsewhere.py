"""A session's next turn, and an engine's event, come to another replica than the last one."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from caller import Caller
from events_of_a_test import CHANNEL, SECRET, a_turn, finished, tell
from redis_of_a_test import RedisServer, until
from served import Served

from firstword import App, Turn, clock, images
from firstword.images import Images
from firstword.shared import sessions
from firstword.shared.address import read
from firstword.shared.sessions import SharedEvents, SharedImages
from firstword.shared.store import Store
from firstword.testing import Upstream, script

PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
FIRST = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]}]
LATER = [
    {"role": "user", "content": "What is this?"},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "And its colour?"},
]


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[Store]:
    store = Store(read(redis.url), budget=0.2, prefix="t")
    store.open()
    await until(lambda: store.is_there)
    yield store
    await store.close()


def of_a_call(messages: list[Any], number: int, session: str = "s") -> Turn:
    return Turn(request={"messages": messages}, session=session, number=number, platform="agora")


async def gets(memory: Images, turn: Turn) -> list[Any]:
    """Return what the model gets of a turn, as the server asks for it."""
    await memory.recall(turn)
    made: list[Any] = memory.restored(turn, turn.messages, [None] * len(turn.messages))
    return made


def shows(messages: list[Any]) -> bool:
    return "cat.png" in str(messages)


async def test_an_image_is_put_back_by_another_replica(store: Store) -> None:
    """It was shown on one machine; the next turns come to another one, and are two turns older there as well."""
    one, two = (Images(2, SharedImages(store)) for _ in range(2))
    await gets(one, of_a_call(FIRST, 1))
    assert shows(await gets(two, of_a_call(LATER, 2)))
    assert shows(await gets(one, of_a_call(LATER, 3)))
    assert not shows(await gets(two, of_a_call(LATER, 4)))
    assert not shows(await gets(one, of_a_call(LATER, 5)))


async def test_an_image_of_another_session_is_not(store: Store) -> None:
    """The same words in another call."""
    one, two = (Images(2, SharedImages(store)) for _ in range(2))
    await gets(one, of_a_call(FIRST, 1))
    assert not shows(await gets(two, of_a_call(LATER, 2, session="other")))


async def test_a_large_image_stays_where_it_came(store: Store, redis: RedisServer) -> None:
    """It would hold up what all others ask of the store."""
    large = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * sessions.MAX_SHARED}}
    first = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, large]}]
    one, two = (Images(2, SharedImages(store)) for _ in range(2))
    await gets(one, of_a_call(first, 1))
    assert len(str(await gets(two, of_a_call(LATER, 2)))) < 1000
    assert len(str(await gets(one, of_a_call(LATER, 2)))) > sessions.MAX_SHARED
    assert redis.ask("KEYS", "t:images:*") == []


async def test_it_is_gone_when_its_session_is_over(store: Store, redis: RedisServer) -> None:
    """The store keeps it as long as a process would; what is not put back any more, not even that long."""
    memory = Images(1, SharedImages(store))
    await gets(memory, of_a_call(FIRST, 1))
    await store.ask("PING")
    (key,) = redis.ask("KEYS", "t:images:*")
    assert 0 < redis.ask("PTTL", key) <= images.KEPT * 1000
    await gets(memory, of_a_call(LATER, 2))
    await gets(memory, of_a_call(LATER, 3))
    await store.ask("PING")
    assert redis.ask("KEYS", "t:images:*") == []


async def test_without_the_store_each_replica_has_its_own(store: Store, redis: RedisServer) -> None:
    """Nobody waits, and what was shown here is still known here."""
    one, two = (Images(2, SharedImages(store)) for _ in range(2))
    redis.kill()
    await until(lambda: not store.is_there)
    at = clock.now()
    await gets(one, of_a_call(FIRST, 1))
    assert not shows(await gets(two, of_a_call(LATER, 2))) and shows(await gets(one, of_a_call(LATER, 2)))
    assert clock.now() - at < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        '{"shown": [{"number": "x"}]}',
        '{"shown": [{"number": 1, "place": ["", "What is this?", 1], "content": ["x"], "size": 1}], "at": 9e99}',
        "[" * 100_000,
        '{"shown": ' * 10_000,
    ],
)
async def test_what_stands_in_the_store_may_be_anything(store: Store, redis: RedisServer, text: str) -> None:
    """Somebody else has written there."""
    one = Images(2, SharedImages(store))
    await gets(one, of_a_call(FIRST, 1))
    await store.ask("PING")
    name = redis.ask("KEYS", "t:images:*")[0].decode()
    for written in (text, f"{name} {text}"):
        redis.ask("SET", name, written)
        assert shows(await gets(one, of_a_call(LATER, 2)))


async def test_no_session_is_given_the_words_of_another() -> None:
    """The server says something that nobody has asked for, and each reply comes one place too late."""
    server = RedisServer("--enable-debug-command", "yes")
    store = Store(read(server.url), budget=0.2, prefix="t")
    store.open()
    try:
        await until(lambda: store.is_there)
        one, line = Images(2, SharedImages(store)), store._line
        for name in "abc":
            picture = {"type": "image_url", "image_url": {"url": f"https://example.com/{name}.png"}}
            first = [{"role": "user", "content": [FIRST[0]["content"][0], picture]}]
            await gets(one, of_a_call(first, 1, session=name))
        store.tell("DEBUG", "PROTOCOL", "ATTRIB")  # two replies, as hiredis reads them
        told = [gets(Images(2, SharedImages(store)), of_a_call(LATER, 2, session=name)) for name in "abc"]
        heard = dict(zip("abc", map(str, await asyncio.gather(*told)), strict=True))
        assert [own + other for own in heard for other in heard if other != own and f"{other}.png" in heard[own]] == []
        await until(lambda: store._line is not line and store.is_there)
        assert "a.png" in str(await gets(Images(2, SharedImages(store)), of_a_call(LATER, 2, session="a")))
    finally:
        await store.close()
        server.kill()


async def test_an_event_is_joined_to_a_turn_of_another_replica(store: Store, redis: RedisServer) -> None:
    """The engine tells of a call's turns to whichever machine the balancer chooses."""
    one, two = SharedEvents(store), SharedEvents(store)
    one.note("agent", "a1", 1, ("chatcmpl-1", 0.4))
    one.note("agent", "a1", 2, ("chatcmpl-2", None))
    redis.ask("HSET", store.name("agent", "a1"), 3, "x")
    known = await two.turns("agent", "a1", [1, 2, 3, 4])
    assert known == {1: ("chatcmpl-1", 0.4), 2: ("chatcmpl-2", None)}
    assert await two.turns("agent", "other", [1]) == {}
    assert 0 < redis.ask("PTTL", store.name("agent", "a1")) <= sessions.CALL * 1000


async def test_an_event_that_is_sent_again_is_taken_once(store: Store, redis: RedisServer) -> None:
    """To another machine; without the store it is taken twice rather than never."""
    one, two = SharedEvents(store), SharedEvents(store)
    assert await one.is_new("n1") and not await two.is_new("n1") and await two.is_new("n2")
    redis.kill()
    await until(lambda: not store.is_there)
    assert await one.is_new("n1")


async def test_a_call_that_two_machines_answer_is_told_of_whole(
    redis: RedisServer, upstream: Upstream, serve: Callable[[App], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answers one turn; the engine tells of both to the first machine, and then again to the second one."""
    monkeypatch.setenv("FIRSTWORD_REDIS_URL", redis.url)
    monkeypatch.setenv("FIRSTWORD_REDIS_TIMEOUT", "0.2")
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    callers, ours = [], queue.SimpleQueue[str]()
    for _ in range(2):
        app = App(base_url=upstream.base_url, agora_webhook_secret=SECRET)
        app.on_event(heard.put)
        app.after_turn(lambda turn: ours.put(turn.id))
        served = serve(app)
        callers.append(Caller(served.url))
        built = app._built
        await until(lambda built=built: built.replicas.store.is_there)
    ids = []
    for number, caller in enumerate(callers, 1):
        await caller.says(channel=CHANNEL, turn_id=number, script=script.events(script.says("Hello.")))
        ids.append(await asyncio.to_thread(ours.get, True, 5))
    body = finished(a_turn(1), a_turn(2))
    for caller in callers:
        assert (await tell(caller, body)).status == 200
    assert [turn.id for turn in (await asyncio.to_thread(heard.get, True, 5)).turns] == ids
    await asyncio.to_thread(served.stop)
    assert heard.empty()
