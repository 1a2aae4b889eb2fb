"""The console: who may look, what it shows of a turn, and that no word of anybody's is among it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from caller import Caller, turn
from served import Served

from firstword import App
from firstword.console import KEPT, Console, page
from firstword.testing import Upstream, script

Start = Callable[[App], Served]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator wants the console."""
    monkeypatch.setenv("FIRSTWORD_CONSOLE", "true")


async def test_there_is_no_console_unless_it_is_asked_for(caller: Caller) -> None:
    """What is not needed is not there."""
    for path in ("/console", "/console/turns"):
        assert (await caller.hears(method="GET", path=path)).status == 404


async def test_it_shows_the_last_turns_and_no_word_of_them(serve: Start, upstream: Upstream, shown: None) -> None:
    """Somebody calls, a model fails: both turns are there, the newest first, without what was said."""
    server = serve(App(base_url=upstream.base_url, fillers=[]))
    caller = Caller(server.url)
    assert (
        await caller.says(
            "a secret question",
            script=script.events(script.role(), script.words("a secret answer"), script.finish(), script.done()),
            user="console-1",
        )
    ).done
    await caller.says("another question", script=script.refuses(500), user="console-2")

    heard = await caller.hears(method="GET", path="/console/turns")
    assert heard.status == 200 and heard.headers["cache-control"] == "no-store"
    newest, oldest = heard.json["turns"]
    assert (oldest["outcome"], oldest["status"]) == ("answered", 200)
    assert newest["status"] >= 500 and newest["number"] == 2 and heard.json["count"] == 2
    assert 0 < oldest["seconds"]["asked"] <= oldest["seconds"]["first_word"] <= oldest["seconds"]["whole"]
    assert b"secret" not in heard.body and b"question" not in heard.body


async def test_a_path_that_ends_with_a_slash_shows_the_same(serve: Start, upstream: Upstream, shown: None) -> None:
    """Somebody types /console/: the page asks for what it shows beside itself, where it is."""
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    page = await caller.hears(method="GET", path="/console/")
    assert page.status == 200 and b'location.pathname.endsWith("/") ? "turns" : "console/turns"' in page.body
    for path in ("/console/turns", "/console//turns"):
        assert (await caller.hears(method="GET", path=path)).json["turns"] == []


async def test_only_the_operator_sees_turns(serve: Start, upstream: Upstream, shown: None) -> None:
    """With gate keys, a stranger gets the page, which is empty, and nothing of what it shows."""
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk", keys=["one"])).url)
    assert (await caller.hears(method="GET", path="/console")).status == 200
    assert (await caller.hears(method="GET", path="/console/turns")).status == 401
    heard = await caller.hears(method="GET", path="/console/turns", headers={"authorization": "Bearer one"})
    assert heard.status == 200 and heard.json["turns"] == []


async def test_a_client_s_key_is_not_the_operator_s(
    serve: Start, upstream: Upstream, shown: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a key for the operator: the clients' open nothing here."""
    monkeypatch.setenv("FIRSTWORD_OPERATOR_KEY", "operator")
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk", keys=["one"])).url)
    for key, status in (("one", 401), ("operator", 200)):
        heard = await caller.hears(method="GET", path="/console/turns", headers={"authorization": f"Bearer {key}"})
        assert heard.status == status


def test_it_keeps_a_bounded_number() -> None:
    """It has run for a year."""
    console = Console()
    for number in range(KEPT + 50):
        console.note({"id": str(number)})
    data = console.data({})
    assert len(data["turns"]) == KEPT and data["count"] == KEPT + 50 and data["turns"][0]["id"] == str(KEPT + 49)


def test_the_page_runs_its_own_script_and_nothing_else() -> None:
    """The browser is told what may run, by digest; nothing on the page is fetched from elsewhere, or made of text."""
    body, headers = page()
    text = body.decode()
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("'sha256-") == 2
    assert not re.search(r"https?://|innerHTML|insertAdjacent|document\.write|eval\(| on\w+=| style=", text)


async def test_a_turn_that_is_refused_by_name_is_shown_as_text(serve: Start, upstream: Upstream, shown: None) -> None:
    """A model's name is whatever the caller wrote: it is data, and bounded."""
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    await caller.hears(turn(model="<script>" * 100, script=script.refuses(404)))
    shown_turn = (await caller.hears(method="GET", path="/console/turns")).json["turns"][0]
    assert len(shown_turn.get("model", "")) <= 100
