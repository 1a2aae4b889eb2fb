"""The set of an issuer's public keys: which of them count, and that a token is checked with the one that it names."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
from tokens_of_a_test import AWAY, EC_KEY, OTHER_RSA, RSA_KEY, SECRET, admit, jwk, ours, set_of, token

from firstword import Unauthorized
from firstword.admission import Gate, SignerUnknown


def test_a_token_is_checked_with_the_key_that_it_names() -> None:
    """Two keys, as while one replaces the other; one whose name is unknown, or missing, is none of them."""
    tokens = ours(jwks="https://a.example/keys")
    assert tokens.is_blind
    assert tokens.take_set(set_of(jwk(RSA_KEY, "one"), jwk(EC_KEY, "two"))) == 2 and not tokens.is_blind

    assert admit(tokens, token(RSA_KEY, "RS256", "one")).name == admit(tokens, token(EC_KEY, "ES256", "two")).name
    assert admit(tokens, token(EC_KEY, "ES256")).name == "jwt:shop"  # the only one that signs so
    for wrong in (token(RSA_KEY, "RS256", "two"), token(OTHER_RSA, "RS256", "one"), token(RSA_KEY, "RS256", "three")):
        with pytest.raises(Unauthorized):
            admit(tokens, wrong)
    tokens.take_set(set_of(jwk(RSA_KEY, "one"), jwk(OTHER_RSA, "two")))
    with pytest.raises(Unauthorized):
        admit(tokens, token(RSA_KEY, "RS256"))


def test_two_keys_of_one_name_are_told_by_the_signature() -> None:
    """An issuer's mistake, of which nobody profits: both keys are its own."""
    tokens = ours(jwks="https://a.example/keys")
    tokens.take_set(set_of(jwk(RSA_KEY, "one"), jwk(OTHER_RSA, "one")))

    for key in (RSA_KEY, OTHER_RSA):
        assert admit(tokens, token(key, "RS256", "one")).name == "jwt:shop"


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "kid": "one", "alg": "HS256"},
        jwk(RSA_KEY, use="enc"),
        jwk(RSA_KEY, alg="HS256"),
        jwk(RSA_KEY, alg="RS512"),
        jwk(RSA_KEY, n="AQAB"),
        {"kty": "RSA", "kid": "one"},
        {"kty": "RSA", "n": 7, "e": [], "kid": "one"},
        {**jwk(EC_KEY), "crv": "secp256k1"},
        {**jwk(RSA_KEY), "kid": 7},
        jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True),  # its private half as well
        "one",
        None,
    ],
    ids=str,
)
def test_a_key_that_is_for_something_else_is_left_out(key: Any) -> None:
    """A secret in a public set, a key for encryption, a broken one: only the good one beside it counts."""
    tokens = ours(jwks="https://a.example/keys")

    with pytest.raises(ValueError, match="no key of the set"):
        tokens.take_set(set_of(key))
    assert tokens.take_set(set_of(key, jwk(EC_KEY))) == 1


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"{}", b'{"keys":7}', b'{"keys":[]}', b"\xff", b"[" * 9000])
def test_what_is_no_set_changes_nothing(document: bytes) -> None:
    """The issuer's page is down, and says so with a 200: the keys from before still count."""
    tokens = ours(jwks="https://a.example/keys")
    tokens.take_set(set_of(jwk(RSA_KEY)))
    with pytest.raises(ValueError):
        tokens.take_set(document)

    assert admit(tokens, token(RSA_KEY, "RS256", "one")).name == "jwt:shop"


def test_a_key_that_was_withdrawn_is_good_for_no_token_that_was_kept() -> None:
    """Its token was checked a moment ago, and would be good for an hour."""
    tokens = ours(jwks="https://a.example/keys")
    tokens.take_set(set_of(jwk(RSA_KEY)))
    gate = Gate([], holds_key=True, open_to_all=False, tokens=tokens)
    header = {"authorization": f"Bearer {token(RSA_KEY, 'RS256', 'one', exp=time.time() + 3600)}"}
    assert gate.admit(header, AWAY) == gate.admit(header, AWAY)

    tokens.take_set(set_of(jwk(OTHER_RSA, "two")))
    with pytest.raises(Unauthorized):
        gate.admit(header, AWAY)


def test_the_issuer_is_only_asked_for_a_name_that_is_not_known() -> None:
    """A wrong signature of a known name is a wrong token."""
    tokens = ours(jwks="https://a.example/keys")
    tokens.take_set(set_of(jwk(RSA_KEY)))

    async def learn() -> None: ...

    tokens.learn = learn
    with pytest.raises(SignerUnknown):
        admit(tokens, token(OTHER_RSA, "RS256", "two"))
    with pytest.raises(Unauthorized) as caught:
        admit(tokens, token(OTHER_RSA, "RS256", "one"))
    assert not isinstance(caught.value, SignerUnknown)
