"""An issuer of tokens: its keys, what it signs with them, and tokens that no library would make."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from firstword.admission.keys import digest
from firstword.admission.tokens import Tokens

SECRET = "a-secret-of-the-issuer-of-at-least-32-bytes"
ISSUER, AUDIENCE = "https://issuer.example", "voice"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = {"sub": "shop", "exp": 4102444800, "iss": ISSUER, "aud": AUDIENCE}
HS = {"alg": "HS256", "typ": "JWT"}
AWAY = ("203.0.113.9", 50000)


def pem(key: Any) -> bytes:
    """The public half, as a file has it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    """A token that is good for a minute; a claim that is None is left out."""
    said = {"sub": "shop", "exp": time.time() + 60, "iss": ISSUER, "aud": AUDIENCE, **claims}
    head = {} if kid is None else {"kid": kid}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, algorithm, headers=head)


def by_hand(head: Any, claims: Any, sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token that no library would make."""

    def part(value: Any) -> bytes:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    body = part(head) + b"." + part(claims)
    return (body + b"." + part(sign(body))).decode()


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    """Sign as HS256 does."""
    return lambda body: hmac.digest(secret, body, "sha256")


def jwk(key: Any, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    """The public half, as a set has it."""
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "use": "sig", **({"kid": kid} if kid else {}), **more}


def set_of(*keys: dict[str, Any]) -> bytes:
    """A set of keys."""
    return json.dumps({"keys": keys}).encode()


def ours(**given: Any) -> Tokens:
    """Tokens of that issuer."""
    return Tokens(**{"secret": None if given else SECRET, "issuer": ISSUER, "audience": AUDIENCE, **given})


def admit(tokens: Tokens, value: str) -> Any:
    """What a token grants."""
    return tokens.admit(value, digest(value))
