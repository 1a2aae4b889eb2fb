"""The keys of an issuer are asked for over HTTP: at the start, when a token names a new one, and never too often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from api_of_a_test import Api
from caller import Caller
from cryptography.hazmat.primitives.asymmetric import rsa
from served import Served
from tokens_of_a_test import AUDIENCE, ISSUER, OTHER_RSA, RSA_KEY, admit, jwk, ours, set_of, token

from firstword import App
from firstword.admission import Gate
from firstword.server.watch import Watch
from firstword.testing import Upstream
from firstword.transport import Transport

Serve = Callable[[App], Served]
NEWEST_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer(serve: Serve) -> Api:
    """An issuer with one key."""
    api = Api(serve)
    api.says("/keys", set_of(jwk(RSA_KEY, "one")))
    return api


@pytest.fixture
def start(issuer: Api, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Callable[[], Caller]:
    """Start a server that trusts it."""
    monkeypatch.setenv("FIRSTWORD_JWT_JWKS", f"{issuer.url}/keys")
    monkeypatch.setenv("FIRSTWORD_JWT_ISSUER", ISSUER)
    monkeypatch.setenv("FIRSTWORD_JWT_AUDIENCE", AUDIENCE)
    return lambda: Caller(serve(App(base_url=upstream.base_url, api_key="sk-held")).url)


async def status(caller: Caller, key: Any, kid: str, **claims: Any) -> int:
    """The status of a turn with a token of that key."""
    return (await caller.says(headers={"authorization": f"Bearer {token(key, 'RS256', kid, **claims)}"})).status


async def test_the_keys_are_there_before_the_first_turn(issuer: Api, start: Callable[[], Caller]) -> None:
    """One request at the start, and none for each token."""
    caller = start()

    assert [await status(caller, RSA_KEY, "one", sub=f"client-{number}") for number in range(5)] == [200] * 5
    assert [each.target for each in issuer.asked] == ["/keys"]
    assert (await caller.hears(path="/ready", method="GET")).status == 200


async def test_a_new_key_is_asked_for_when_a_token_names_it(issuer: Api, start: Callable[[], Caller]) -> None:
    """The issuer has changed its key: the first call with it is answered, and the old key is good no more."""
    caller = start()
    assert await status(caller, RSA_KEY, "one") == 200
    issuer.says("/keys", set_of(jwk(OTHER_RSA, "two")))

    assert await asyncio.gather(*(status(caller, OTHER_RSA, "two") for _ in range(5))) == [200] * 5
    assert len(issuer.asked) == 2
    assert await status(caller, RSA_KEY, "one") == 401


async def test_a_stranger_cannot_make_us_ask_again_and_again(issuer: Api, start: Callable[[], Caller]) -> None:
    """Tokens with made-up names cost one request a minute, however many come; from then on each is refused at once."""
    caller = start()
    for _ in range(2):
        made_up = (status(caller, OTHER_RSA, f"made-up-{number}") for number in range(4))
        assert await asyncio.gather(*made_up) == [401] * 4

    assert len(issuer.asked) == 2


async def test_after_a_while_there_may_be_a_new_key_again(
    issuer: Api, start: Callable[[], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came just after we had asked because of a made-up name."""
    monkeypatch.setattr("firstword.server.watch.UNKNOWN_EVERY", 0.05)
    caller = start()
    assert await status(caller, OTHER_RSA, "made-up") == 401
    issuer.says("/keys", set_of(jwk(NEWEST_RSA, "three")))

    async def heard() -> None:
        while await status(caller, NEWEST_RSA, "three") != 200:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(heard(), 5)


@pytest.mark.parametrize(
    "answer",
    [(500, set_of(jwk(OTHER_RSA, "two"))), (302, b""), (200, b"<html>"), (200, b'{"keys":[]}'), (200, b" " * 300_000)],
    ids=["away", "redirect", "page", "empty", "endless"],
)
async def test_the_keys_outlive_their_issuer(
    issuer: Api, start: Callable[[], Caller], answer: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """It fails, leads elsewhere, or sends something else: tokens of the known key are good, and the log says it."""
    caller = start()
    there = threading.Event()

    async def elsewhere(*_: Any) -> None:
        there.set()

    issuer.answers["/elsewhere"] = elsewhere
    issuer.says("/keys", answer[1], status=answer[0], location=f"{issuer.url}/elsewhere")

    assert await status(caller, OTHER_RSA, "two") == 401
    assert await status(caller, RSA_KEY, "one") == 200
    assert len(issuer.asked) == 2 and not there.is_set()
    assert "issuer's keys not read" in caplog.text and issuer.url not in caplog.text


async def test_a_server_that_starts_without_its_issuer_is_not_ready_until_it_is_there(
    issuer: Api, start: Callable[[], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets nobody in meanwhile, and asks until it has the keys; a balancer sends it nobody."""
    monkeypatch.setattr("firstword.server.watch.ASK_AGAIN", 0.05)
    monkeypatch.setattr("firstword.server.pages.READY_FOR", 0.0)
    issuer.says("/keys", b"", status=503)
    caller = start()

    ready = await caller.hears(path="/ready", method="GET")
    assert (ready.status, ready.json["reasons"]) == (503, ["The keys of the tokens' issuer are not here yet."])
    assert await status(caller, RSA_KEY, "one") == 401
    issuer.says("/keys", set_of(jwk(RSA_KEY, "one")))

    async def becomes_ready() -> None:
        while (await caller.hears(path="/ready", method="GET")).status != 200:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(becomes_ready(), 5)
    assert await status(caller, RSA_KEY, "one") == 200


async def test_a_caller_who_leaves_ends_the_question_for_nobody(issuer: Api, transport: Transport) -> None:
    """Two turns wait for the issuer's answer, and one is cancelled: the other has the keys, and it was one question."""
    tokens = ours(jwks=f"{issuer.url}/keys")
    gate = Gate([], holds_key=True, open_to_all=False, tokens=tokens)
    keeper = Watch(gate, transport)
    await keeper.open()
    asked, go, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        loop.call_soon_threadsafe(asked.set)
        await asyncio.to_thread(go.wait, 5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": set_of(jwk(OTHER_RSA, "two"))})

    issuer.answers["/keys"] = slow
    leaves, stays = (asyncio.create_task(gate.learn()) for _ in range(2))
    await asyncio.wait_for(asked.wait(), 5)
    leaves.cancel()
    go.set()
    await asyncio.wait_for(stays, 5)

    assert leaves.cancelled() and len(issuer.asked) == 2
    assert admit(tokens, token(OTHER_RSA, "RS256", "two")).name == "jwt:shop"
    await keeper.close()
