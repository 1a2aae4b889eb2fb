"""The same turn comes to two replicas: the newer request is answered, and the older one's model is let go of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caller import Call, Caller, Heard, turn
from redis_of_a_test import RedisServer, until
from served import Served

from firstword import App
from firstword.shared.address import read
from firstword.shared.store import Store
from firstword.shared.turns import Turns
from firstword.testing import Upstream, script

Serve = Callable[..., Served]
SAID = script.events(script.says("It is noon."))
SLOW = script.events(script.role(), script.words("It is"), script.wait(0.6), script.words(" noon."), script.finish())
NOTHING = {"in_use": 0, "turns": 0}


@pytest.fixture
def replica(redis: RedisServer, upstream: Upstream, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Start replicas that share a store, and return those who call them."""
    monkeypatch.setenv("FIRSTWORD_REDIS_URL", redis.url)
    monkeypatch.setenv("FIRSTWORD_REDIS_TIMEOUT", "0.1")

    async def start(**given: Any) -> tuple[Served, Caller]:
        served = serve(App(base_url=upstream.base_url, **given))
        caller = Caller(served.url)
        await comes(lambda: says_of_the_store(caller, "there"))
        return served, caller

    return start


async def comes(is_so: Callable[[], Any], within: float = 10.0) -> None:
    """Wait until something that is asked of a server is so."""
    at = asyncio.get_running_loop().time() + within
    while not await is_so():
        assert asyncio.get_running_loop().time() < at, "it never was"
        await asyncio.sleep(0.01)


async def says_of_the_store(caller: Caller, what: str) -> bool:
    heard = await caller.hears(method="GET", path="/ready")
    return bool(heard.json["store"].startswith(what))


def body_of(marker: str, *scripts: script.Script, **fields: Any) -> dict[str, Any]:
    return turn(**{"user": marker, "scripts": list(scripts), "session_id": marker, "turn_id": 1, **fields})


async def rest_of(call: Call) -> Heard:
    async for _ in call.listens():
        pass
    return call.heard


async def test_the_newer_request_supersedes_the_older_one_on_another_replica(
    replica: Callable[[], Any], upstream: Upstream, marker: str
) -> None:
    """The engine sends the turn again, and a balancer gives it to another machine."""
    (one, caller), (two, other) = await replica(), await replica()
    body = body_of(marker, script.stalls_after("It is"), SAID)
    async with caller.dials(body) as first:
        await first.hears_word('" is"')
        second = await other.hears(body)
        heard = await rest_of(first)

    assert second.text == "It is noon." and second.done
    assert (heard.text, heard.finish_reasons, heard.done) == ("It is", ["stop"], True)
    records = await upstream.wait_asked(marker, 2)
    assert records[0].closed_by == "peer"
    for each in (one, two):
        assert await asyncio.to_thread(each.left_open) == NOTHING
        assert each.app._built is not None and each.app._built.replicas is not None
        assert not each.app._built.replicas.turns._begun


async def test_a_client_that_listens_to_the_older_one_is_told(
    replica: Callable[[], Any], upstream: Upstream, marker: str
) -> None:
    """A plain client, without numbers: the same words make the same turn."""
    (_, caller), (_, other) = await replica(), await replica()
    body = body_of(marker, script.never_answers(), SAID)
    del body["turn_id"]
    async with caller.dials(body) as first:
        await upstream.wait_asked(marker)
        newer = await other.hears(body)
        heard = await rest_of(first)
    assert (heard.status, heard.error["code"]) == (409, "superseded")
    assert newer.text == "It is noon."


async def test_of_two_at_the_same_moment_one_is_answered(
    replica: Callable[[], Any], upstream: Upstream, marker: str
) -> None:
    """A client races its own retries, over two machines, many times: the store says which one is the newest."""
    (_, one), (_, two) = await replica(), await replica()
    for number in range(3):
        body = body_of(f"{marker} {number}", SLOW, SLOW, session_id=marker, turn_id=number)
        heard = await asyncio.gather(one.hears(body), two.hears(body))
        assert sorted(each.text == "It is noon." for each in heard) == [False, True]


async def test_turns_of_others_are_left_alone(replica: Callable[[], Any], marker: str) -> None:
    """Another session, another number, another key, on the other machine at the same time."""
    (_, caller), (_, other) = await replica(), await replica()
    async with caller.dials(body_of(marker, SLOW)) as first:
        await first.hears_word('" is"')
        await other.hears(body_of(marker, SAID, session_id="another"))
        await other.hears(body_of(marker, SAID, turn_id=2))
        await other.hears(body_of(marker, SAID), headers={"authorization": "Bearer other"})
        assert (await rest_of(first)).text == "It is noon."


async def test_by_the_rule_join_each_replica_answers(replica: Callable[[], Any], marker: str) -> None:
    """A reply does not pass through the store: who comes to another machine is answered there, and neither is cut."""
    (_, caller), (_, other) = await replica(resent="join"), await replica(resent="join")
    heard = await asyncio.gather(*(each.hears(body_of(marker, SLOW, SLOW)) for each in (caller, other)))
    assert [each.text for each in heard] == ["It is noon."] * 2


async def test_without_the_store_each_replica_is_as_if_alone(
    replica: Callable[[], Any], redis: RedisServer, marker: str
) -> None:
    """It died: both requests are answered, and on one machine the newer still supersedes the older."""
    (_, caller), (_, other) = await replica(), await replica()
    redis.kill()
    await comes(lambda: says_of_the_store(caller, "away"))
    heard = await asyncio.gather(*(each.hears(body_of(marker, SLOW, SLOW)) for each in (caller, other)))
    assert [each.text for each in heard] == ["It is noon."] * 2
    body = body_of(f"{marker} 2", SLOW, SAID)
    async with caller.dials(body) as first:
        await first.hears_word('" is"')
        assert (await caller.hears(body)).text == "It is noon."
        assert (await rest_of(first)).text == "It is"


async def test_what_is_told_may_be_anything(replica: Callable[[], Any], redis: RedisServer, marker: str) -> None:
    """Somebody else writes to the channel: words that are none of ours do nothing, whatever they are."""
    served, caller = await replica()
    store = served.app._built.replicas.store  # type: ignore[union-attr]
    async with caller.dials(body_of(marker, SLOW)) as first:
        await first.hears_word('" is"')
        name = next(iter(served.app._built.replicas.turns._begun))  # type: ignore[union-attr]
        for said in ("turn", "turn x", f"turn x {name}", f"turn x {name} -9", f"turn x {name} 1e9", f"turn x {name} ٣"):
            redis.ask("PUBLISH", store.channel, said)
        redis.ask("PUBLISH", store.channel, f"turn x {name} {'9' * 400}")
        redis.ask("PUBLISH", store.channel, f"turn x {name} 1")  # its own place: it is not overtaken by itself
        assert (await rest_of(first)).text == "It is noon."


async def test_whichever_news_comes_first_the_newer_one_has_the_turn(redis: RedisServer) -> None:
    """That another is newer may be heard before or after the store says which place the own request has."""
    store = Store(read(redis.url), budget=0.1, prefix="t")
    turns, cut = Turns(store), []
    for before in (True, False):
        turns.begin(("a", str(before)), lambda before=before: cut.append(before))  # away: it gets no place
        name, begun = list(turns._begun.items())[-1]
        if before:
            turns._hear([name, "2"])
            assert not cut
        begun.order = 1
        begun.compare()
        if not before:
            turns._hear([name, "2"])
        assert cut[-1:] == [before]
    turns._hear([name, "1"])
    store.open()
    await until(lambda: store.is_there)
    await store.close()
