"""JSON Web Tokens: callers who bring a token of an issuer that we were told to trust, and no key of ours.

Which algorithm counts is said by the key that was configured, never by the token: a secret means HS256, an RSA key
RS256, a P-256 key ES256. So a token that names `none`, or wants a public key taken for a secret, finds no key at all.

Claims: `sub` is the client's name, `exp` has to be there; `models`, `session`, `requests`, `tokens`, `concurrent` and
`budget` mean what they mean in the file of keys.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigError, Expired, Unauthorized
from .callers import is_loopback
from .grant import Grant
from .keys import granted

LEEWAY = 30.0  # seconds that clocks may differ
MAX_TOKEN = 8 * 1024  # signs
MAX_SET = 100  # keys of an issuer
MAX_NAME = 128  # signs of a subject
MAX_KEPT = 10_000  # tokens that were checked; with their grants about 5 MB
MIN_SECRET = 32  # bytes, RFC 7518 section 3.2
MIN_RSA = 2048  # bits, RFC 7518 section 3.3
NO_TOKEN = "This token was not signed by an issuer that this server trusts."
HOW = "send a token of the issuer that the operator of this server has named"
_CLAIMS = ("models", "requests", "tokens", "concurrent", "budget")


def is_token(key: str) -> bool:
    """True for what has the form of a token. With an issuer to trust, such a key is never taken for a gate key."""
    return key.startswith("eyJ") and key.count(".") == 2


class SignerUnknown(Unauthorized):
    """The token names a key that is not among those of its issuer that we know: there may be a new one."""


class Tokens:
    """Checks the tokens of one issuer, by a shared `secret`, a public key as PEM, or the set of keys at `jwks`.

    learn: asks the issuer for its keys again, and returns when it has; None when that is of no use now.
    Raises ConfigError.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        public_key: bytes | None = None,
        jwks: str | None = None,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        if [secret, public_key, jwks].count(None) != 2:
            raise ConfigError(
                "There is not one way to check tokens.",
                hint="set one of FIRSTWORD_JWT_SECRET, FIRSTWORD_JWT_KEY_FILE and FIRSTWORD_JWT_JWKS",
            )
        if secret is None and not (issuer and audience):
            raise ConfigError(
                "Tokens that others sign need FIRSTWORD_JWT_ISSUER and FIRSTWORD_JWT_AUDIENCE.",
                hint="without them a token that the issuer made for another server would be good here",
            )
        self._jwt = _library()
        self._issuer, self._audience = issuer, audience
        self.jwks = jwks
        self.learn: Callable[[], Awaitable[None]] | None = None
        self._kept: dict[bytes, tuple[Grant, float]] = {}  # by the digest of the whole token, and until when
        self._keys: dict[tuple[str | None, str], list[Any]] = {}  # by name and algorithm
        if secret is not None:
            if len(secret.encode()) < MIN_SECRET:
                raise ConfigError(
                    f"FIRSTWORD_JWT_SECRET is shorter than {MIN_SECRET} bytes.",
                    hint="make one with: openssl rand -base64 32",
                )
            self._keys = {(None, "HS256"): [secret]}
        elif public_key is not None:
            self._keys = {(None, algorithm): [key] for algorithm, key in [_from_pem(public_key)]}
        elif jwks is not None:
            _check_url(jwks)

    @property
    def is_blind(self) -> bool:
        """True until the issuer's keys are here."""
        return not self._keys

    def take_set(self, document: bytes) -> int:
        """Take the keys of an issuer's set in place of those from before, and return how many there are.

        Raises ValueError when there is none that could be used.
        """
        found: dict[tuple[str | None, str], list[Any]] = {}
        try:
            listed = msgspec.json.decode(document)["keys"]
            usable = [key for each in listed[:MAX_SET] if (key := self._from_set(each)) is not None]
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, RecursionError):
            raise ValueError("what came is no set of keys") from None
        for name, algorithm, key in usable:
            # Two keys of one name are both the issuer's: which of them it was is seen by the signature.
            found.setdefault((name, algorithm), []).append(key)
        if not found:
            raise ValueError("no key of the set is for signatures by RS256 or ES256")
        self._keys = found
        self._kept = {}  # a key that the issuer has withdrawn is good for no token any more
        return len(usable)

    def kept(self, digest: bytes) -> Grant | None:
        """Return what a token grants that was checked before, and is still good."""
        found = self._kept.get(digest)
        if found is None or found[1] > time.time():
            return None if found is None else found[0]
        del self._kept[digest]
        return None

    def admit(self, token: str, digest: bytes) -> Grant:
        """Return what a token grants. Raises Unauthorized, Expired, or SignerUnknown when the issuer may be asked."""
        try:
            claims = self._checked(token)
            until = float(claims["exp"]) + LEEWAY
        except self._jwt.ExpiredSignatureError:
            raise Expired("This token has expired.", hint="send a new one") from None
        except (self._jwt.InvalidIssuerError, self._jwt.InvalidAudienceError):
            raise Unauthorized("This token is of another issuer, or for another audience.", hint=HOW) from None
        except self._jwt.ImmatureSignatureError:
            raise Unauthorized("This token is not good yet.", hint="the clocks of two machines differ") from None
        except self._jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"This token has no {error.claim!r}.", hint=HOW) from None
        except Unauthorized:
            raise
        except Exception:  # whatever a library says of a stranger's bytes, they let nobody in
            raise Unauthorized(NO_TOKEN, hint=HOW) from None
        grant = _granted(claims)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[digest] = grant, until
        return grant

    def _checked(self, token: str) -> dict[str, Any]:
        """Return the claims of a token whose signature is right, and which is good now."""
        if len(token) > MAX_TOKEN:
            raise Unauthorized(NO_TOKEN, hint=HOW)
        head = self._jwt.get_unverified_header(token)
        algorithm, name = head.get("alg"), head.get("kid")
        keys = self._found(name, algorithm)
        wrong: Exception = SignerUnknown(NO_TOKEN, hint=HOW) if self.learn else Unauthorized(NO_TOKEN, hint=HOW)
        for key in keys:
            try:
                claims: dict[str, Any] = self._jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=LEEWAY,
                    options={"require": ["exp", "sub"]},
                )
                return claims
            except self._jwt.InvalidSignatureError as error:
                wrong = error
        raise wrong

    def _found(self, name: Any, algorithm: Any) -> list[Any]:
        """Return the keys that a token with this head can have been signed with."""
        if not isinstance(algorithm, str) or not isinstance(name, (str, type(None))):
            return []
        if self.jwks is None:  # the one key, whatever the issuer calls it
            return self._keys.get((None, algorithm), [])
        if name is not None:
            return self._keys.get((name, algorithm), [])
        every = [key for (_, its), keys in self._keys.items() if its == algorithm for key in keys]
        return every if len(every) == 1 else []  # of several it would have to say which

    def _from_set(self, each: Any) -> tuple[str | None, str, Any] | None:
        """Return name, algorithm and key of one key of a set; None for one that signs no token of ours."""
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            return None
        algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(each.get("kty")))  # never "oct": that would be a secret
        name = each.get("kid")
        if algorithm is None or each.get("alg", algorithm) != algorithm or not isinstance(name, (str, type(None))):
            return None
        try:
            key = self._jwt.PyJWK(each, algorithm).key
            return (name, algorithm, key) if _algorithm_of(key) == algorithm else None
        except Exception:  # a key that the library cannot read is none
            return None


def _granted(claims: dict[str, Any]) -> Grant:
    """Return what the claims of a good token grant. Raises Unauthorized for those that cannot be understood."""
    subject, session = claims["sub"], claims.get("session")
    if not subject or len(subject) > MAX_NAME or not (subject.isascii() and subject.isprintable()) or " " in subject:
        # The name stands in logs. A digest would do, but nobody would know whose it is.
        raise Unauthorized(f"The token's 'sub' is not 1 to {MAX_NAME} printable signs without blanks.", hint=HOW)
    if session is not None and (not isinstance(session, str) or not 0 < len(session) <= 512):
        raise Unauthorized("The token's 'session' is no name of a session.", hint=HOW)
    given = {name: claims[name] for name in _CLAIMS if claims.get(name) is not None}
    if isinstance(given.get("models"), str):
        given["models"] = given["models"].split()
    try:
        # Not to be taken for a name of the file of keys, which has no colon.
        return granted(f"jwt:{subject}", given, session=session)
    except ValueError as error:
        raise Unauthorized(f"A claim of the token is not understood: {error}.", hint=HOW) from None


def _library() -> Any:
    try:
        import jwt
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: F401
    except ImportError:
        raise ConfigError("Tokens need a package that is not installed.", hint="pip install 'firstword[jwt]'") from None
    return jwt


def read_key_file(path: str) -> bytes:
    """Return what a file of a public key holds. Raises ConfigError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"FIRSTWORD_JWT_KEY_FILE cannot be read: {error.strerror}.", hint="it is a public key as PEM"
        ) from None


def _from_pem(pem: bytes) -> tuple[str, Any]:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except Exception:  # cryptography has an error of its own for each way to be wrong
        raise ConfigError(
            "FIRSTWORD_JWT_KEY_FILE holds no public key.", hint="it begins with -----BEGIN PUBLIC KEY-----"
        ) from None
    algorithm = _algorithm_of(key)
    if algorithm is None:
        raise ConfigError(
            "FIRSTWORD_JWT_KEY_FILE holds a key that is neither RSA nor P-256, or too short.",
            hint=f"RSA from {MIN_RSA} bits on",
        )
    return algorithm, key


def _algorithm_of(key: Any) -> str | None:
    """Return the one algorithm that a public key is for here; None for a weak key, and for all others."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPublicKey):
        return "RS256" if key.key_size >= MIN_RSA else None
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return "ES256" if is_p256 else None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host))):
        raise ConfigError(
            "FIRSTWORD_JWT_JWKS is not an https URL.", hint="whoever stands between could put in keys of their own"
        )
