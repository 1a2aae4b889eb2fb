"""What a key opens: every route of the server, the models that it is for, the session that it may speak for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Turn
from firstword.admission.grant import Grant
from firstword.admission.keys import line_of, new_key
from firstword.console import Console
from firstword.server.pages import INSIDE, OPERATORS, PUBLIC, Pages
from firstword.server.routes import AUDIO_PATHS, CHAT_PATHS, EVENTS, LISTS
from firstword.telemetry import Counts, Metrics
from firstword.testing import Upstream, after, fails, says, script, talk
from firstword.who import caller_of

Serve = Callable[[App], Served]
GATE = new_key()  # which is never slowed, however many wrong ones are tried
SECRET = "a-secret-of-the-issuer-of-at-least-32-bytes"
TURNS = sorted(CHAT_PATHS | AUDIO_PATHS)


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"}


def token(**claims: Any) -> str:
    """A token that is good for a minute."""
    return jwt.encode({"sub": "shop", "exp": time.time() + 60, **claims}, SECRET, "HS256")


# --- every route ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(upstream: Upstream) -> Iterator[Caller]:
    """Somebody before a server with gate keys, and an event's secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTWORD_CONSOLE", "true")
        app = App(base_url=upstream.base_url, api_key="sk-held", keys=[GATE], agora_webhook_secret="secret")
    server = Served(app)
    yield Caller(server.url)
    server.stop()


def every_page() -> set[str]:
    """Return the paths of all pages that there can be."""
    app = App(warm=False)
    return set(Pages(app.gate, app, Metrics(Counts()), console=Console()).paths)


def test_what_a_stranger_may_see_is_a_short_list() -> None:
    """Somebody adds a page: it is for those with a key, unless it is written down here as well."""
    every = every_page()

    assert {"/", "/docs", "/openapi.json", "/health", "/ready", "/console"} == PUBLIC
    assert every - PUBLIC == {"/metrics", "/models", "/v1/models", "/console/turns"}
    assert every >= OPERATORS and OPERATORS | {"/health", "/ready", "/console"} == INSIDE


@pytest.mark.parametrize("prefix", ["", "/agora", "/s/call-7", "/vapi/s/call-7"])
async def test_no_route_is_open_without_a_key(gated: Caller, prefix: str) -> None:
    """Every path of a turn, and every page but the public ones, in each of its forms, with any method that it takes."""
    pages = every_page()
    closed = [(path, "POST") for path in TURNS]
    closed += [(path, method) for path in sorted(LISTS if prefix else pages - PUBLIC) for method in ("GET", "HEAD")]

    for path, method in closed:
        for headers in ({}, bearer("fw-wrong"), {"authorization": "Basic YTpi"}):
            for form in (path, f"{path}/", f"{path}?api_key={GATE}&key={GATE}&authorization=Bearer+{GATE}"):
                heard = await gated.hears(
                    turn() if method == "POST" else None, path=prefix + form, method=method, headers=headers
                )
                assert heard.status in (401, 429), (method, form)
    assert (await gated.hears({}, path=EVENTS)).status == 401


async def test_what_is_public_needs_no_key(gated: Caller) -> None:
    """And tells nothing of the models, or of why they are away."""
    for path in sorted(PUBLIC):
        assert (await gated.hears(path=path, method="GET")).status == 200
    assert (await gated.hears(path="/ready", method="GET")).json == {"status": "ready"}
    whole = (await gated.hears(path="/ready", method="GET", headers=bearer(GATE))).json
    assert whole == {"status": "ready", "reasons": [], "models": {}}


async def test_a_path_that_is_written_oddly_opens_nothing(gated: Caller) -> None:
    """What is decided on is the path that was routed, and no other reading of it."""
    for path in ("//chat/completions", "/%63hat/completions", "/chat/completions/", "/s/%2e%2e/chat/completions"):
        assert (await gated.hears(turn(), path=path)).status in (401, 404)
    for path in ("/metrics/", "//metrics", "/%6detrics", "/docs/../metrics", "/METRICS", "/health/../models"):
        assert (await gated.hears(path=path, method="GET")).status in (401, 404)


async def test_of_two_keys_in_one_name_the_last_is_judged(gated: Caller) -> None:
    """A proxy added its own: the other opens nothing."""
    for keys, status in (((GATE, "wrong"), b"4"), (("wrong", GATE), b"2")):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gated.url).port)
        lines = "".join(f"authorization: Bearer {key}\r\n" for key in keys)
        writer.write(f"GET /models HTTP/1.1\r\nhost: a\r\n{lines}connection: close\r\n\r\n".encode())
        assert (await reader.readline()).split()[1].startswith(status)
        writer.close()
        await writer.wait_closed()


# --- models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[App, str]]:
    """Make an App, and a key that is for some models only."""

    def make(models: str, *listed: str, **more: Any) -> tuple[App, str]:
        key = new_key()
        (tmp_path / "keys").write_text(line_of("shop", key, f"models={models}"))
        monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(tmp_path / "keys"))
        return App(list(listed), base_url=upstream.base_url, api_key="sk-held", warm=False, **more), key

    return make


async def test_a_key_is_for_its_models_alone(
    limited: Callable[..., tuple[App, str]], serve: Serve, upstream: Upstream
) -> None:
    """Another is refused before a hook or a model is asked; and the list shows what is allowed."""
    app, key = limited("m1,demo")
    hooks: list[Turn] = []
    app.before_turn(hooks.append)
    caller = Caller(serve(app).url)

    assert (await caller.says(model="m1", headers=bearer(key), user="models")).status == 200
    assert (await caller.says(model="demo", headers=bearer(key), pace=0)).status == 200
    for other in ("m2", "M1", "m1 ", "local"):
        heard = await caller.says(model=other, headers=bearer(key), user="models")
        assert (heard.status, heard.error["code"], heard.error["param"]) == (403, "forbidden", "model")
    assert len(hooks) == 2 and len(upstream.seen("models")) == 1
    listed = (await caller.hears(path="/models", method="GET", headers=bearer(key))).json["data"]
    assert {each["id"] for each in listed} <= {"m1", "demo"}


async def test_a_default_that_the_key_is_not_for_is_refused_too(
    limited: Callable[..., tuple[App, str]], serve: Serve, upstream: Upstream
) -> None:
    """The request names no model, and LLM_MODEL is another one."""
    app, key = limited("m1", model="m2")
    caller = Caller(serve(app).url)

    heard = await caller.says(model=None, headers=bearer(key), user="default")
    assert (heard.status, heard.error["param"], upstream.seen("default", until="now")) == (403, "model", [])


def allow(*models: str) -> Callable[[Turn], None]:
    """A hook that makes a turn one of a key for these models."""

    def hook(turn: Turn) -> None:
        turn.grant = Grant("shop", models=frozenset(models))

    return hook


@pytest.mark.parametrize(
    ("allowed", "asked", "heard"),
    [
        (("first", "second", "third"), None, "second"),
        (("first", "third"), None, "third"),
        (("first", "third"), "third", "third"),
        (("third",), None, "third"),
        (("second", "third"), "third", "second"),  # which is asked as well when that is slow
    ],
)
async def test_nobody_else_stands_in_for_a_model_that_fails(
    allowed: tuple[str, ...], asked: str | None, heard: str
) -> None:
    """Of three models the first fails and the third is slow: the ones that the key is not for are never asked."""
    app = App(["first", "second", "third"], api_key="sk-held", hedge_after=0.1)
    app.before_turn(allow(*allowed))
    scripts = [fails(), says("second"), after(0.2, says("third"))]
    score = await talk(app, models=scripts, request={"model": asked or ""})

    assert score.text == heard
    assert {name for _, name in score.asked} <= set(allowed)


async def test_a_hook_chooses_among_what_the_key_is_for() -> None:
    """`turn.adjust(models=...)` names two, and the key is for one of them; then for none."""
    for allowed, heard in (("second", "second"), ("third", "")):
        app = App(["first", "second", "third"], api_key="sk-held")
        app.before_turn(allow(allowed))
        app.before_turn(lambda turn: turn.adjust(models=["first", "second"]))
        score = await talk(app, models=[says("first"), says("second"), says("third")])

        assert (score.text, score.status) == (heard, 200 if heard else 403)
        assert {name for _, name in score.asked} == ({heard} if heard else set())


# --- sessions -------------------------------------------------------------------------------------------------


async def test_a_token_for_one_session_speaks_for_no_other(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    """Whatever header, field or platform names another; and a path that does is refused."""
    monkeypatch.setenv("FIRSTWORD_JWT_SECRET", SECRET)
    app = App(base_url=upstream.base_url, api_key="sk-held")
    seen: list[Turn] = []
    app.before_turn(seen.append)
    caller = Caller(serve(app).url)
    headers = {**bearer(token(session="call-7")), "x-session-id": "call-8"}

    for number, path in enumerate(("/chat/completions", "/s/call-7/chat/completions", "/vapi/chat/completions")):
        call = {"call": {"id": "call-9"}} if "vapi" in path else {}
        assert (await caller.says(f"Hello {number}", path=path, headers=headers, session_id="call-8", **call)).done
    assert [each.session for each in seen] == ["call-7"] * 3
    for path in ("/s/call-8/chat/completions", "/vapi/s/call-8/chat/completions"):
        heard = await caller.says(path=path, headers=headers)
        assert (heard.status, heard.error["code"]) == (403, "forbidden")
    assert (await caller.hears(path="/s/call-8/models", method="GET", headers=headers)).status == 403


# --- who a caller is ---------------------------------------------------------------------------------------------


def of(grant: Grant, key: str = "any", session: str = "room-7") -> str | None:
    """Whose turn it is that comes with that key."""
    headers = {"authorization": f"Bearer {key}"}
    return caller_of(Turn(request={"messages": []}, session=session, headers=headers, grant=grant))


def test_a_client_stays_itself_when_its_key_changes() -> None:
    """A token is renewed, a key replaced, in the middle of a call: its jobs and its turns are found again."""
    assert of(Grant("jwt:shop"), "one") == of(Grant("jwt:shop"), "two")
    assert of(Grant(session="room-7"), "one") == of(Grant(session="room-7"), "two")


def test_two_clients_never_share_a_session() -> None:
    """The same name of a session, and another client; or another way in, and the same name."""
    several = [
        of(Grant()),
        of(Grant(), "other"),
        of(Grant("shop")),
        of(Grant("desk")),
        of(Grant("jwt:shop")),
        of(Grant(session="room-7")),
        of(Grant("shop"), session="room-8"),
    ]

    assert len(set(several)) == len(several)
    assert of(Grant("shop")) == of(Grant("shop", session="room-7"))  # a URL that was made for it


async def test_clients_of_two_keys_do_not_end_each_other_s_turns(
    upstream: Upstream, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the wire, the same session and body at the same time: each is answered."""
    keys = [new_key(), new_key()]
    (tmp_path / "keys").write_text("\n".join(line_of(f"client-{at}", key) for at, key in enumerate(keys)))
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(tmp_path / "keys"))
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-held")).url)
    body = turn(user="two-clients", script=script.events(script.role(), script.text("Hi"), script.wait()))
    path = "/s/room-7/chat/completions"

    async with caller.dials(body, path=path, headers=bearer(keys[0])) as first:
        await first.hears_word("Hi")
        async with caller.dials(body, path=path, headers=bearer(keys[1])) as second:
            await second.hears_word("Hi")
            assert [record.closed for record in await upstream.wait_asked("two-clients", 2)] == [None, None]
