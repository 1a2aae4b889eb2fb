"""What a path says: a turn or a list, whose dialect, whose session."""

from __future__ import annotations

import pytest
from caller import Caller, turn
from hypothesis import given
from hypothesis import strategies as st
from served import Served

from firstword import App, Turn
from firstword.server.routes import AUDIO_PATHS, CHAT_PATHS, LISTS, Route, route
from firstword.testing import Upstream

KNOWN = {"vapi", "agora", "s", "hume"}  # one of them is called like the word before a session


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        *[(path, Route(path)) for path in sorted(CHAT_PATHS | AUDIO_PATHS)],
        ("/vapi/chat/completions", Route("/chat/completions", "vapi")),
        ("/vapi/v1/chat/completions", Route("/v1/chat/completions", "vapi")),
        ("/hume/audio/chat/completions", Route("/audio/chat/completions", "hume")),
        ("/s/call-7/chat/completions", Route("/chat/completions", None, "call-7")),
        ("/s/call-7/v1/chat/completions", Route("/v1/chat/completions", None, "call-7")),
        ("/s/vapi/chat/completions", Route("/chat/completions", None, "vapi")),
        ("/vapi/s/call 7/v1/audio/chat/completions", Route("/v1/audio/chat/completions", "vapi", "call 7")),
        ("/s/chat/chat/completions/chat/completions", Route("/chat/completions/chat/completions", None, "chat")),
        ("/vapi/models", Route("/models", "vapi")),
        ("/s/call-7/v1/models", Route("/v1/models", None, "call-7")),
    ],
)
def test_a_path_says_what_it_leads_to(path: str, meant: Route) -> None:
    """Every path of a turn, alone and behind a platform, a session, or both."""
    assert route(path, KNOWN.__contains__) == meant
    assert meant.is_turn == ("models" not in path)


@pytest.mark.parametrize(
    "path",
    [
        *["", "/", "/models", "/v1/models", "/chat", "/completions", "chat/completions", "/achat/completions"],
        *["/nobody/chat/completions", "/vapi/hume/chat/completions", "/s//chat/completions"],
        *["/s/one/two/chat/completions", "/s/one/vapi/chat/completions", "/vapi/s/chat/completions/x"],
        *["/vapi/s/one/s/two/chat/completions", "/chat/completions/x", "/VAPI/chat/completions", "x/chat/completions"],
    ],
)
def test_any_other_path_is_no_turns(path: str) -> None:
    """A wrong name, a session without one, parts in another order."""
    assert route(path, KNOWN.__contains__) is None


@given(st.text(st.sampled_from("/sv1aco.models chat"), max_size=40))
def test_a_path_is_read_in_one_way(path: str) -> None:
    """Whatever stands before it: what was read makes the same path again."""
    for tail in (*CHAT_PATHS, *AUDIO_PATHS, *LISTS):
        found = route(path + tail, KNOWN.__contains__)
        if found is not None:
            before = f"/{found.platform}" if found.platform else ""
            before += f"/s/{found.session}" if found.session else ""
            assert before + found.tail == path + tail


async def test_a_turn_is_answered_behind_each_prefix(upstream: Upstream) -> None:
    """On the wire: a platform, a session with a sign that must be escaped, both, and audio's path without audio."""
    turns: list[Turn] = []
    app = App(base_url=upstream.base_url)
    app.before_turn(turns.append)
    served = Served(app)
    try:
        caller = Caller(served.url)
        paths = ["/vapi/chat/completions", "/s/a%2eb%20c/chat/completions", "/agora/s/x/v1/chat/completions"]
        for path in [*paths, "//s//x//chat/completions"]:
            heard = await caller.says("Hello there.", path=path)
            assert (heard.status, heard.text, heard.done) == (200, "Hello there.", True)
        known = [("vapi", None), ("openai", "a.b c"), ("agora", "x"), ("openai", "x")]
        assert [(each.platform, each.session) for each in turns] == known
        listed = await caller.hears(path="/vapi/models", method="GET")
        assert (listed.status, listed.json["object"]) == (200, "list")
        lost = await caller.hears(turn(), path="/nobody/chat/completions")
        assert (lost.status, lost.json["error"]["code"]) == (404, "not_found")
    finally:
        served.stop()
