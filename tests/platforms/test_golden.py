"""Each engine's recorded requests: the turn that they become, what the model gets of them, and the reply back."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from caller import Caller
from golden_requests import CASES, FILES, NAMES, asked
from served import Served

from firstword import App, Turn, plugins
from firstword.links import Links
from firstword.platforms import named
from firstword.policy import Policy
from firstword.server.reading import Reader, places
from firstword.server.routes import route
from firstword.settings import load
from firstword.testing import Upstream

Json = dict[str, Any]
TOLD = ("session", "user", "channel", "number", "platform", "source", "speakers", "presence", "engine", "echo")
DEFAULTS = {each.name: getattr(Turn({}), each.name) for each in fields(Turn) if each.name in TOLD}
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=NAMES)


def told(turn: Turn) -> Json:
    """Return what a turn knows of its engine, without what is as in any turn."""
    known = {name: getattr(turn, name) for name in TOLD if name == "platform" or getattr(turn, name) != DEFAULTS[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


@EVERY_CASE
def test_a_recorded_request_becomes_this_turn(case: Json) -> None:
    """By the default settings: the path says whose it is, else the request itself."""
    reader = Reader("auto", places(load().session), Policy(), Links())
    where = route(case["path"].partition("?")[0], reader.is_platform)
    assert where is not None

    assert told(reader.read(asked(case), where)) == case["turn"]


@pytest.fixture(scope="module")
def turns() -> queue.SimpleQueue[Turn]:
    return queue.SimpleQueue()


@pytest.fixture(scope="module")
def server(upstream: Upstream, turns: queue.SimpleQueue[Turn]) -> Iterator[Served]:
    """One server for all engines, with no setting; a request without a model gets `m0`."""
    app = App(base_url=upstream.base_url, model="m0")
    app.before_turn(turns.put)
    served = Served(app)
    yield served
    served.stop()


@EVERY_CASE
async def test_what_the_model_gets_of_it(
    server: Served, turns: queue.SimpleQueue[Turn], upstream: Upstream, case: Json
) -> None:
    """Over real sockets: nothing of the engine's reaches a provider, and everything else does as it came."""
    marker = uuid.uuid4().hex
    heard = await Caller(server.url).hears(
        {**case["body"], "user": marker}, path=case["path"], headers=case.get("headers", {})
    )

    [record] = await upstream.wait_settled(marker)
    assert heard.status == 200, heard.body
    assert {**record.body, "user": None} == {**case["leaves"], "user": None}
    assert told(turns.get_nowait()) == case["turn"]
    if "reply" in case:
        assert heard.json == case["reply"]
    else:
        assert (heard.text, heard.done) == (case["leaves"]["messages"][-1]["content"], True)
        assert all(chunk.items() >= case["turn"].get("echo", {}).items() for chunk in heard.chunks)


def test_every_platform_has_recorded_requests() -> None:
    """Somebody adds an engine: its shapes stand in a file of its name, the first of which is its own."""
    assert plugins.known("platforms") == sorted(FILES)
    assert all(cases[0]["turn"]["platform"] == name for name, cases in FILES.items())


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_form_of_a_filler_and_of_a_whole_reply(name: str) -> None:
    """ElevenLabs speaks what ends with dots at once; D-ID wants the words alone. Nobody else asks for anything."""
    platform = named(name)
    whole = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}}]}
    error = {"error": {"message": "It failed.", "type": "server_error", "param": None, "code": None}}

    assert platform.filler("One moment. ") == ("One moment... " if name == "elevenlabs" else "One moment. ")
    assert platform.whole(whole) == ({"content": "Hi."} if name == "did" else whole)
    assert platform.whole({"choices": []}) == ({"content": ""} if name == "did" else {"choices": []})
    as_did = {"error": {**error["error"], "code": "502", "status": 502}}
    assert platform.mistake(error, 502) == (as_did if name == "did" else error)
    assert (platform.apology is not None) == (name == "vapi")
