"""Tokens of an issuer: which are taken, what their claims grant, and what attackers send."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served
from tokens_of_a_test import (
    AUDIENCE,
    EC_KEY,
    GOOD,
    HS,
    ISSUER,
    OTHER_RSA,
    RSA_KEY,
    SECRET,
    admit,
    by_hand,
    hs256,
    jwk,
    ours,
    pem,
    set_of,
    token,
)

from firstword import App, ConfigError, Unauthorized
from firstword.admission.grant import Allowance
from firstword.admission.keys import digest
from firstword.admission.tokens import LEEWAY, Tokens
from firstword.errors import Expired
from firstword.testing import Upstream

# --- what is taken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key", "algorithm"),
    [
        ({}, SECRET, "HS256"),
        ({"public_key": pem(RSA_KEY)}, RSA_KEY, "RS256"),
        ({"public_key": pem(EC_KEY)}, EC_KEY, "ES256"),
    ],
    ids=["secret", "rsa", "ec"],
)
def test_a_token_of_the_issuer_is_taken(given: dict[str, Any], key: Any, algorithm: str) -> None:
    """Whatever it calls its key: there is one."""
    tokens = ours(**given)

    assert admit(tokens, token(key, algorithm)).name == "jwt:shop"
    assert admit(tokens, token(key, algorithm, kid="any")).name == "jwt:shop"


def test_claims_say_what_the_caller_may() -> None:
    """The same words as in the file of keys; models as a list, or separated by blanks, as scopes are."""
    said = {"models": ["m1", "m2"], "session": "call-7", "requests": 60, "tokens": 2e4, "concurrent": 5, "budget": 2.5}
    grant = admit(ours(), token(**said))

    assert (grant.name, grant.models, grant.session) == ("jwt:shop", {"m1", "m2"}, "call-7")
    assert grant.allowance == Allowance(60, 20000, 5, 2.5) and grant.key is None
    assert admit(ours(), token(models="m1 m2")).models == {"m1", "m2"}
    assert admit(ours(), token()).models is None


@pytest.mark.parametrize(
    "claims",
    [
        {"requests": 0},
        {"requests": "many"},
        {"requests": True},
        {"tokens": [1]},
        {"concurrent": 1.5},
        {"budget": -1},
        {"models": []},
        {"models": [7]},
        {"models": {"m1": True}},
        {"models": ""},
        {"session": ""},
        {"session": 7},
        {"session": "x" * 513},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "a\nturn ended id=1"},
        {"sub": "x" * 129},
        {"sub": "sh\u00f6p"},
    ],
    ids=str,
)
def test_a_claim_that_is_not_understood_lets_nobody_in(claims: dict[str, Any]) -> None:
    """A limit that is misspelt in its value is not no limit, and a name must fit into a line of the log."""
    with pytest.raises(Unauthorized) as caught:
        admit(ours(), token(**claims))
    assert not isinstance(caught.value, Expired) and "ended" not in str(caught.value)


def test_clocks_may_differ_by_half_a_minute() -> None:
    """Of `exp`, `nbf` and `iat`: 20 seconds are forgiven, 40 are not."""
    now = time.time()
    for near in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert admit(ours(), token(**near)).name == "jwt:shop"
    with pytest.raises(Expired):
        admit(ours(), token(exp=now - 40))
    for early in ({"nbf": now + 40}, {"iat": now + 40}):
        with pytest.raises(Unauthorized, match="not good yet"):
            admit(ours(), token(**early))
    assert LEEWAY == 30


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"sub": None},
        {"sub": 7},
        {"iss": None},
        {"iss": "https://other.example"},
        {"iss": [ISSUER]},
        {"aud": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"exp": "never"},
        {"exp": [1]},
        {"nbf": "x"},
    ],
    ids=str,
)
def test_a_token_that_says_too_little_or_something_else_is_refused(claims: dict[str, Any]) -> None:
    """No expiry, no name, made by another issuer, or for another server."""
    said = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    with pytest.raises(Unauthorized):
        admit(ours(), by_hand(HS, said, hs256(SECRET.encode())))
    assert admit(ours(), by_hand(HS, GOOD, hs256(SECRET.encode()))).name == "jwt:shop"


def test_without_an_audience_of_ours_a_token_for_somebody_else_is_refused() -> None:
    """Its issuer said whom it is for, and that is not us."""
    plain = Tokens(secret=SECRET)

    assert admit(plain, token(aud=None, iss=None)).name == "jwt:shop"
    with pytest.raises(Unauthorized):
        admit(plain, token(aud="other"))


SECRET_ONES, SET_ONES = ours(), ours(jwks="https://a.example/keys")
SET_ONES.take_set(set_of(jwk(RSA_KEY)))

# --- what attackers send -------------------------------------------------------------------------------------


def attacks() -> dict[str, str]:
    """Tokens that some library has once taken."""
    public = pem(RSA_KEY)
    return {
        "none": by_hand({"alg": "none"}, GOOD),
        "None": by_hand({"alg": "None"}, GOOD),
        "no algorithm": by_hand({"typ": "JWT"}, GOOD),
        "an algorithm that is a list": by_hand({"alg": ["HS256"]}, GOOD, hs256(SECRET.encode())),
        "the public key as a secret": by_hand(HS, GOOD, hs256(public)),
        "the public key as a secret, cut": by_hand(HS, GOOD, hs256(public.strip())),
        "an empty secret": by_hand(HS, GOOD, hs256(b"")),
        "no secret": by_hand(HS, GOOD, hs256(b"\0" * 32)),
        "another secret": token("another-secret-of-at-least-32-bytes-here"),
        "another key": token(OTHER_RSA, "RS256"),
        "another algorithm of the same family": token(SECRET * 2, "HS512"),
        "a key in its own head": by_hand({**HS, "jwk": {"kty": "oct", "k": "AAAA"}}, GOOD, hs256(b"\0\0\0")),
        "a path for a name": by_hand({**HS, "kid": "../../../../dev/null"}, GOOD, hs256(b"")),
        "SQL for a name": by_hand({**HS, "kid": "' UNION SELECT 'x"}, GOOD, hs256(b"x")),
        "a list for a name": by_hand({**HS, "kid": ["one"]}, GOOD, hs256(SECRET.encode())),
        "a URL for a key": by_hand({**HS, "jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9"}, GOOD),
        "something critical": by_hand({**HS, "crit": ["b64"], "b64": False}, GOOD, hs256(SECRET.encode())),
        "something else critical": by_hand({**HS, "crit": ["x"], "x": 1}, GOOD, hs256(SECRET.encode())),
        "no signature": by_hand(HS, GOOD),
        "claims that are a list": by_hand(HS, [GOOD], hs256(SECRET.encode())),
        "claims that are no JSON": by_hand(HS, b"{", hs256(SECRET.encode())),
        "claims that are no UTF-8": by_hand(HS, b"\xff", hs256(SECRET.encode())),
        "an expiry beyond numbers": by_hand(HS, b'{"sub":"a","exp":1e999}', hs256(SECRET.encode())),
        "an expiry that is none": by_hand(HS, b'{"sub":"a","exp":NaN}', hs256(SECRET.encode())),
        "deep claims": by_hand(HS, b'{"a":' * 2000 + b"1" + b"}" * 2000, hs256(SECRET.encode())),
        "a deep head": by_hand(b"[" * 3000, GOOD),
        "a head that is a number": by_hand(7, GOOD),
        "nothing in it": "eyJ..",
        "four parts": token() + ".x",
        "changed claims": token().replace(".", ".A", 1),
        "too long": token(padding="x" * 9000),
    }


@pytest.mark.parametrize("name", attacks())
@pytest.mark.parametrize("given", [{}, {"public_key": pem(RSA_KEY)}, {"jwks": "http://127.0.0.1:9/"}], ids=str)
def test_no_trick_lets_anybody_in(given: dict[str, Any], name: str) -> None:
    """The key that was configured says which algorithm counts; the head of a token is only a stranger's word."""
    tokens = ours(**given)
    if tokens.jwks is not None:
        tokens.take_set(set_of(jwk(RSA_KEY)))
    value = attacks()[name]

    with pytest.raises(Unauthorized) as caught:
        admit(tokens, value)
    assert value not in str(caught.value)


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.just(json.dumps(GOOD).encode())), min_size=1, max_size=5), st.data()
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_stranger_sends_it_is_a_refusal(parts: list[bytes], data: st.DataObject) -> None:
    """Any bytes in the places of a token, encoded or not: never another error, and never a way in."""
    raw = st.sampled_from(
        [lambda part: base64.urlsafe_b64encode(part).rstrip(b"="), base64.b64encode, lambda part: part]
    )
    value = b".".join(data.draw(raw)(part) for part in parts).decode("latin-1")
    for tokens in (SECRET_ONES, SET_ONES):
        with pytest.raises(Unauthorized):
            admit(tokens, f"eyJ{value}")


def test_two_tokens_never_share_what_was_kept() -> None:
    """CVE-2026-35030: a cache by the first signs of a token. A token with the same start, or another end, is none."""
    tokens = ours()
    good = token()
    admit(tokens, good)

    assert tokens.kept(digest(good)) is not None
    for near in (good[:-1], good + "A", good[:-4] + "AAAA", good[:40]):
        assert tokens.kept(digest(near)) is None
        with pytest.raises(Unauthorized):
            admit(tokens, near)


def test_what_is_kept_ends_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was checked once, and expires all the same; a thousand more do not make the memory grow."""
    tokens, now = ours(), time.time()
    value = token(exp=now + 60)
    assert admit(tokens, value) == tokens.kept(digest(value))
    monkeypatch.setattr("time.time", lambda: now + 60 + LEEWAY + 1)
    assert tokens.kept(digest(value)) is None
    monkeypatch.undo()

    monkeypatch.setattr("firstword.admission.tokens.MAX_KEPT", 5)
    values = [token(sub=f"client-{number}") for number in range(20)]
    for value in values:
        admit(tokens, value)
    assert [value for value in values if tokens.kept(digest(value))] == values[-5:]


# --- what is configured ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"issuer": ISSUER}, "not one way"),
        ({"secret": SECRET, "jwks": "https://a.example"}, "not one way"),
        ({"secret": "short"}, "shorter than 32 bytes"),
        ({"secret": ""}, "shorter than 32 bytes"),
        ({"public_key": pem(RSA_KEY)}, "FIRSTWORD_JWT_ISSUER"),
        ({"public_key": pem(RSA_KEY), "issuer": ISSUER}, "FIRSTWORD_JWT_AUDIENCE"),
        ({"public_key": b"ssh-rsa AAAA", "issuer": ISSUER, "audience": AUDIENCE}, "no public key"),
        ({"jwks": "http://a.example", "issuer": ISSUER, "audience": AUDIENCE}, "not an https URL"),
        ({"jwks": "file:///etc/keys", "issuer": ISSUER, "audience": AUDIENCE}, "not an https URL"),
        ({"jwks": "https://[", "issuer": ISSUER, "audience": AUDIENCE}, "not an https URL"),
    ],
    ids=str,
)
def test_a_setting_that_would_let_in_too_many_is_refused(given: dict[str, Any], said: str) -> None:
    """None or two ways to check, a secret that can be tried out, an issuer of many servers and no audience."""
    with pytest.raises(ConfigError) as caught:
        Tokens(**given)
    assert said in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "weak", [rsa.generate_private_key(public_exponent=65537, key_size=1024), ec.generate_private_key(ec.SECP384R1())]
)
def test_a_weak_or_odd_public_key_is_refused(weak: Any) -> None:
    """Too short, or of a curve that no algorithm here is for."""
    with pytest.raises(ConfigError, match="neither RSA nor P-256, or too short"):
        ours(public_key=pem(weak))


# --- at the door -------------------------------------------------------------------------------------------------


async def test_a_token_opens_the_door_of_a_server(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, serve: Callable[[App], Served]
) -> None:
    """Beside gate keys, and neither goes on to the provider; an old one says what it is."""
    monkeypatch.setenv("FIRSTWORD_JWT_SECRET", SECRET)
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-held", keys=["gate"])).url)

    async def status(value: str) -> tuple[int, str]:
        heard = await caller.says(headers={"authorization": f"Bearer {value}"}, user="jwt-door")
        return heard.status, "" if heard.status == 200 else heard.error["code"]

    good = token(iss=None, aud=None)
    assert [await status(value) for value in (good, good, "gate")] == [(200, "")] * 3
    assert await status(token(iss=None, aud=None, exp=time.time() - 60)) == (401, "expired_key")
    assert await status(by_hand({"alg": "none"}, GOOD)) == (401, "invalid_api_key")
    assert {record.header("authorization") for record in upstream.seen("jwt-door")} == {"Bearer sk-held"}


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install firstword` has no library for tokens."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.setenv("FIRSTWORD_JWT_SECRET", SECRET)
    with pytest.raises(ConfigError, match="firstword\\[jwt\\]"):
        App()


def test_the_digest_is_of_the_whole_token() -> None:
    """Of keys and tokens alike, and of nothing less."""
    assert digest("fw-x") == hashlib.sha256(b"fw-x").digest()
