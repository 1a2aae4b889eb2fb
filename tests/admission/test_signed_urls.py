"""URLs that are signed for one session: what is signed, how long it is good, and that nobody inside sees it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from caller import Caller
from served import Served

from firstword import App, ConfigError, Turn, Unauthorized, sign_url
from firstword.admission import Gate
from firstword.admission.keys import KeyFile, line_of, new_key
from firstword.admission.urls import SignedURLs
from firstword.errors import Expired
from firstword.testing import Upstream

SECRET = "a-secret-for-urls-of-at-least-thirty-two-bytes"
OLD = "an-older-secret-for-urls-of-at-least-32-bytes"
AWAY = ("203.0.113.9", 50000)


def signed(session: str = "call-7", url: str = "https://voice.example", **more: Any) -> tuple[str, dict[str, str]]:
    """The path and the query of a signed URL."""
    parts = urlsplit(sign_url(url, session, **{"secret": SECRET, **more}))
    return parts.path, dict(parse_qsl(parts.query))


def gate_of(*secrets: str, **more: Any) -> Gate:
    """A gate that knows signed URLs."""
    return Gate([], holds_key=True, open_to_all=False, urls=SignedURLs(secrets or [SECRET]), **more)


# --- what is signed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://h.example", "/s/call-7/chat/completions"),
        ("https://h.example/", "/s/call-7/chat/completions"),
        ("https://h.example/vapi", "/vapi/s/call-7/chat/completions"),
        ("https://h.example/llm/v1/", "/llm/s/call-7/chat/completions"),
        ("https://h.example/agora/chat/completions", "/agora/s/call-7/chat/completions"),
        ("https://h.example/v1/audio/chat/completions", "/s/call-7/audio/chat/completions"),
    ],
)
def test_a_url_is_signed_for_the_server_that_it_leads_to(url: str, path: str) -> None:
    """Whatever form of URL a backend has at hand."""
    found = urlsplit(sign_url(url, "call-7", secret=SECRET))

    assert (found.netloc, found.path) == ("h.example", path)
    assert set(dict(parse_qsl(found.query))) == {"expires", "signature"}


def test_the_recipe_in_the_guide_makes_the_same_signature() -> None:
    """A backend in another language signs by itself: a key for this purpose, four lines, hex."""
    _, query = signed("caf\u00e9 7", client="shop")
    key = hmac.digest(SECRET.encode(), b"firstword signed url 1", "sha256")
    text = f"1\n{query['expires']}\nshop\ncaf\u00e9 7"

    assert query["signature"] == hmac.digest(key, text.encode(), "sha256").hex()
    assert query["signature"] != hmac.digest(SECRET.encode(), text.encode(), "sha256").hex()


def test_a_signed_url_is_good_for_its_session_alone() -> None:
    """And any key that the engine sends beside it is not looked at."""
    _, query = signed()
    grant = gate_of().admit({"authorization": "Bearer any thing"}, AWAY, query=query, session="call-7")

    assert (grant.name, grant.session, grant.key, grant.models) == ("", "call-7", None, None)
    for other in ("call-8", "call-7/", "CALL-7", "", None):
        with pytest.raises(Unauthorized, match="not valid"):
            gate_of().admit({}, AWAY, query=query, session=other)


@pytest.mark.parametrize(
    "changed",
    [
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "\u00e9" * 64},
        {"signature": "\ud800"},
        {"expires": "9999999999"},
        {"expires": ""},
        {"expires": "1e10"},
        {"client": "shop"},
        {"client": "\u0661"},
    ],
    ids=ascii,
)
def test_whatever_was_changed_the_answer_is_the_same(changed: dict[str, str]) -> None:
    """It does not say which part is wrong, and repeats none."""
    _, query = signed()
    with pytest.raises(Unauthorized) as caught:
        gate_of().admit({}, AWAY, query={**query, **changed}, session="call-7")

    assert caught.value.message == "The signature of this URL is not valid."
    assert not isinstance(caught.value, Expired)


def test_the_signature_in_capitals_is_another_one() -> None:
    """There is one way to write it."""
    _, query = signed()
    with pytest.raises(Unauthorized):
        gate_of().admit({}, AWAY, query={**query, "signature": query["signature"].upper()}, session="call-7")


def test_four_lines_cannot_be_read_in_another_way() -> None:
    """A session with line breaks in it, of which somebody moves one into the client or the time."""
    later = str(int(time.time()) + 600)
    urls = SignedURLs([SECRET])
    moved = [
        ({"expires": later, "client": "a"}, "b", urls.sign("a\nb", later, "")),
        ({"expires": f"{later}\n", "client": "a"}, "b", urls.sign("a\nb", later, "")),
        ({"expires": later, "client": "\na"}, "b", urls.sign("a\nb", later, "")),
        ({"expires": f"{later}\nshop", "client": "a"}, "b", urls.sign("a\nb", later, "shop")),
        ({"expires": later, "client": "shop\na"}, "b", urls.sign("a\nb", later, "shop")),
    ]
    for query, session, signature in moved:
        with pytest.raises(Unauthorized, match="not valid"):
            urls.check({**query, "signature": signature}, session)


def test_a_url_expires_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only after its signature was right: a stranger learns nothing by a time of their own."""
    _, query = signed(valid_for=60)
    real = time.time()
    monkeypatch.setattr("time.time", lambda: real + 61)
    with pytest.raises(Expired, match="expired"):
        gate_of().admit({}, AWAY, query=query, session="call-7")
    with pytest.raises(Unauthorized, match="not valid"):
        gate_of().admit({}, AWAY, query={**query, "signature": "0" * 64}, session="call-7")


def test_a_secret_is_replaced_without_a_break() -> None:
    """The new one signs, the old one is still good; when it is taken out, its URLs are good no more."""
    _, old = signed(secret=OLD)
    _, new = signed(secret=f"{SECRET}, {OLD}")

    assert gate_of(SECRET, OLD).admit({}, AWAY, query=old, session="call-7").session == "call-7"
    assert gate_of(SECRET).admit({}, AWAY, query=new, session="call-7").session == "call-7"
    with pytest.raises(Unauthorized):
        gate_of(SECRET).admit({}, AWAY, query=old, session="call-7")


def test_a_url_counts_as_the_client_that_it_names(tmp_path: Path) -> None:
    """Its models and limits, and nothing without it: when its key is revoked, its URLs are too."""
    path = tmp_path / "keys"
    path.write_text(line_of("shop", new_key(), "models=m1", "requests=5"))
    gate = gate_of(file=KeyFile(path))
    _, query = signed(client="shop")

    grant = gate.admit({}, AWAY, query=query, session="call-7")
    assert (grant.name, grant.session, grant.models, grant.allowance.requests) == ("shop", "call-7", {"m1"}, 5)
    path.write_text("")
    assert gate.file is not None and gate.file.look()
    gate.renew()
    with pytest.raises(Expired, match="no key any more"):
        gate.admit({}, AWAY, query=query, session="call-7")


def test_a_secret_of_one_use_is_none_of_another() -> None:
    """The same text as the secret of tokens, which is a mistake: neither can be made of the other."""
    _, query = signed()
    with pytest.raises(Unauthorized):
        gate_of().admit({"authorization": f"Bearer {query['signature']}"}, AWAY)


@pytest.mark.parametrize("secret", ["", "short", f"{SECRET},", f"{SECRET},short"])
def test_a_short_secret_is_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be tried out by anybody who has one URL; so could an empty one behind a stray comma."""
    with pytest.raises(ConfigError, match="shorter than 32 bytes") as caught:
        sign_url("https://h.example", "call-7", secret=secret)
    assert SECRET not in str(caught.value)
    if secret:
        monkeypatch.setenv("FIRSTWORD_URL_SECRET", secret)
        with pytest.raises(ConfigError, match="shorter than 32 bytes"):
            App()


@pytest.mark.parametrize(
    "given",
    [
        {"session": ""},
        {"session": "a/b"},
        {"session": ".."},
        {"session": "x" * 513},
        {"url": "voice.example"},
        {"url": "ftp://voice.example"},
        {"url": "https://voice.example?a=1"},
        {"client": "a b"},
        {"valid_for": 0},
        {"valid_for": float("nan")},
    ],
    ids=str,
)
def test_what_could_not_be_checked_is_not_signed(given: dict[str, Any]) -> None:
    """A session that no path can hold, no URL, a name that no file has, a time that is over."""
    with pytest.raises(ConfigError):
        signed(**{"session": "call-7", **given})


# --- at the door -------------------------------------------------------------------------------------------


async def test_every_form_of_the_path_is_one_story_and_the_signature_goes_no_further(
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[App], Served],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Agora keeps the query of its URL. Model, hooks, log and errors see the session, and never the signature."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("FIRSTWORD_URL_SECRET", SECRET)
    app = App(base_url=upstream.base_url, api_key="sk-held")
    seen: list[Turn] = []
    app.before_turn(seen.append)
    caller = Caller(serve(app).url)
    path, query = signed("caf\u00e9 7")
    end = urlencode({**query, "extra": "kept"})

    for form in ("", "/agora", "/vapi"):
        for tail in (path, path.replace("/chat", "/v1/chat")):
            target, head = f"{form}{tail}?{end}", {"authorization": "Bearer"}
            heard = await caller.says(f"Hello {form}{tail}", path=target, headers=head, user="signed")
            assert (heard.status, heard.done) == (200, True)
            assert (seen[-1].session, dict(seen[-1].query)) == ("caf\u00e9 7", {"extra": "kept"})
    models = path.replace("/chat/completions", "/models")
    assert (await caller.hears(path=f"{models}?{end}", method="GET")).status == 200

    for wrong in (path.replace("7", "8"), "/chat/completions", "/s/other/chat/completions"):
        heard = await caller.says(path=f"{wrong}?{end}", user="signed")
        assert (heard.status, heard.error["code"]) == (401, "invalid_api_key")
        assert query["signature"].encode() not in heard.body
    assert (await caller.says(path=path, user="signed")).status == 401
    records = upstream.seen("signed")
    assert len(records) == 6
    assert not [record for record in records if query["signature"] in f"{record.headers} {record.body!r}"]
    assert "turn ended" in caplog.text and query["signature"] not in caplog.text


async def test_a_parameter_of_somebody_else_s_stays_where_nothing_is_signed(
    upstream: Upstream, serve: Callable[[App], Served]
) -> None:
    """Without the secret, `signature` and `expires` are words like any other."""
    app = App(base_url=upstream.base_url)
    seen: list[Turn] = []
    app.before_turn(seen.append)

    assert (await Caller(serve(app).url).says(path="/chat/completions?signature=x&expires=1")).status == 200
    assert dict(seen[0].query) == {"signature": "x", "expires": "1"}
