"""Who may speak to us: the gate in front of a key that the server holds, and what it grants.

A server with no key and no gate passes each caller's key on to the provider. With either of them no caller's key ever
goes upstream: a held key is for callers whom the gate knows, or for this machine alone. The gate knows a caller by a
gate key, by a token of an issuer (`tokens.py`), or by a URL that was signed for a session (`urls.py`).
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from ..errors import ConfigError, Error, Expired, Forbidden, TooManyRequests, Unauthorized
from .attempts import Attempts
from .callers import HOW_TO_SEND, Client, Network, address_of, is_key, is_local, is_loopback, read_key
from .grant import NOBODY, Grant
from .keys import KeyFile, digest, is_long, is_made, unnamed
from .tokens import SignerUnknown, Tokens, is_token
from .urls import SIGNATURE, SignedURLs

__all__ = ["NOBODY", "Gate", "Grant", "SignerUnknown", "is_key", "is_loopback", "read_key"]

_HASHED = "sha256:"  # how an operator's key is written when only its hash is
_NO_QUERY: Mapping[str, str] = MappingProxyType({})


class Gate:
    """Decide whether a request may come in, and which key, if any, may go on to the provider.

    `keys` are gate keys without a name, kept only as hashes; `file` holds those with one. `holds_key` says that the
    server has a provider's key of its own; `open_to_all` lets everybody use that key, for a server behind a gate of
    somebody else's. `operator_key` opens what is for the operator alone. `refused` counts, by reason.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        holds_key: bool,
        open_to_all: bool,
        file: KeyFile | None = None,
        tokens: Tokens | None = None,
        urls: SignedURLs | None = None,
        operator_key: str | None = None,
        proxies: Sequence[Network] = (),
    ) -> None:
        if any(not key.strip() for key in keys):
            raise ConfigError("FIRSTWORD_KEYS holds an empty key.", hint="separate keys by single commas")
        self._unnamed = unnamed(key.strip() for key in keys)
        self.file, self.tokens, self._urls = file, tokens, urls
        self._has_keys = bool(self._unnamed) or file is not None
        # True when the gate lets in only whom it knows; also when the file of keys is empty.
        self.is_closed = self._has_keys or tokens is not None or urls is not None
        self.signs = urls is not None  # a URL may carry a signature of ours
        self._holds_key = holds_key
        self._open_to_all = open_to_all
        self._operator = None if operator_key is None else _operator_digest(operator_key)
        self._proxies = proxies
        self._attempts = Attempts()
        self.refused: Counter[str] = Counter()
        self.renew()

    def renew(self) -> None:
        """Take over what the file of keys says now."""
        named = {} if self.file is None else self.file.grants
        self._grants = {each: (each, grant) for each, grant in {**self._unnamed, **named}.items()}
        self._clients = {grant.name: grant for grant in named.values()}

    @property
    def local_only(self) -> bool:
        """True when only this machine may be served: a held key, and nothing to tell callers apart."""
        return self._holds_key and not self.is_closed and not self._open_to_all

    @property
    def passes_keys(self) -> bool:
        """True when a caller's key is for the provider, and not for us."""
        return not self._holds_key and not self.is_closed

    def check_bind(self, host: str) -> None:
        """Raise ConfigError when listening on `host` would give the held key to strangers."""
        if self.local_only and not is_loopback(host):
            raise ConfigError(
                f"The server holds a key (LLM_API_KEY, or a Model's api_key): on {host} anybody could use it.",
                hint="set FIRSTWORD_KEYS to the keys of your callers, or listen on 127.0.0.1, "
                "or start with --open if something else guards the door",
            )

    def unready(self) -> list[str]:
        """Return what keeps the gate from letting in whom it should, a sentence each."""
        if self.tokens is not None and self.tokens.is_blind:
            return ["The keys of the tokens' issuer are not here yet."]
        return []

    def address_of(self, headers: Mapping[str, str], client: Client) -> str:
        """Return where a request comes from, as far as the proxies before us are believed; empty = nobody knows."""
        return address_of(headers, client, self._proxies)

    def admit(
        self,
        headers: Mapping[str, str],
        client: Client,
        *,
        query: Mapping[str, str] = _NO_QUERY,
        session: str | None = None,
    ) -> Grant:
        """Return what the caller may do. Raises Unauthorized, Forbidden or TooManyRequests.

        `client` is the peer's (host, port), as ASGI gives it; `session` the one that the path names. SignerUnknown is
        raised when it is worth while to `learn`, and to ask once more.
        """
        if not self.is_closed:
            return self._admit_anybody(headers, client)
        if self._urls is not None and SIGNATURE in query:
            return self._admit_signed(headers, client, query, session)
        key = self._key_of(headers)
        hashed = digest(key)
        if self.tokens is not None and is_token(key):
            return self.tokens.kept(hashed) or self._admit_token(self.tokens, key, hashed, headers, client)
        grant = self._granted(key, hashed, headers, client)
        if grant is None:
            error = Unauthorized("This key is not one of the server's.", hint="send one of its FIRSTWORD_KEYS")
            self._refuse("wrong_key", error, headers, client)
        return grant

    async def learn(self) -> None:
        """Ask the issuer of the tokens for its keys again, if that is of any use."""
        if self.tokens is not None and self.tokens.learn is not None:
            await self.tokens.learn()

    def admit_operator(self, headers: Mapping[str, str], client: Client) -> None:
        """Let in who may look inside: with the operator's key, else a gate key, or, where there is neither, from here.

        Raises Unauthorized, Forbidden or TooManyRequests.
        """
        if self._operator is None and not self._has_keys:
            if not is_local(headers, client):
                self.refused["not_local"] += 1
                said = "Without gate keys this page is for the server's own machine only."
                raise Forbidden(said, hint="its operator can set FIRSTWORD_KEYS, or FIRSTWORD_OPERATOR_KEY")
            return
        key = self._key_of(headers)
        hashed = digest(key)
        if self._operator is None:
            if self._granted(key, hashed, headers, client) is None:
                error = Unauthorized("This key is not one of the server's.", hint="send one of its FIRSTWORD_KEYS")
                self._refuse("wrong_key", error, headers, client)
        elif not self._is_right(hmac.compare_digest(hashed, self._operator), key, hashed, headers, client):
            error = Unauthorized("This page needs another key.", hint="send the server's FIRSTWORD_OPERATOR_KEY")
            if hashed in self._grants:  # a client's key is no guess: a probe of /ready may carry it
                self.refused["wrong_operator_key"] += 1
                raise error
            self._refuse("wrong_operator_key", error, headers, client)

    def is_operator(self, headers: Mapping[str, str], client: Client) -> bool:
        """True for who may look inside, where a stranger sees less and is not refused."""
        try:
            if self._operator is None and not self._has_keys:
                return is_local(headers, client)
            if read_key(headers) is None:
                return False
            self.admit_operator(headers, client)
        except Error:
            return False
        return True

    # --- each way in -------------------------------------------------------------------------------

    def _admit_anybody(self, headers: Mapping[str, str], client: Client) -> Grant:
        if self._holds_key:
            if not self._open_to_all and not is_local(headers, client):
                self.refused["not_local"] += 1
                raise Forbidden(
                    "This server holds a key and has no gate keys, so it answers its own machine only.",
                    hint="its operator can set FIRSTWORD_KEYS, or start it with --open",
                )
            return NOBODY
        key = read_key(headers)
        if key is None and "origin" in headers and not self._open_to_all and not is_local(headers, client):
            # A page of any site may post without asking first; tools would run, although it cannot read the reply.
            self.refused["not_local"] += 1
            raise Forbidden(
                "A page in a browser asked without a key, and it is not one of the server's own machine.",
                hint="send a key, or the operator can start the server with --open",
            )
        return Grant(key=key)

    def _key_of(self, headers: Mapping[str, str]) -> str:
        try:
            key = read_key(headers)
        except Unauthorized:
            self.refused["no_key"] += 1
            raise
        if key is None:
            self.refused["no_key"] += 1
            raise Unauthorized("No key was sent.", hint=HOW_TO_SEND)
        return key

    def _granted(self, key: str, hashed: bytes, headers: Mapping[str, str], client: Client) -> Grant | None:
        """Return what a gate key grants; None for any other."""
        # To find the whole digest in a table takes a time that depends on digests, and of those nobody can make one
        # that begins like another. The comparison after it has no need of that argument.
        known, grant = self._grants.get(hashed, _UNKNOWN)
        is_good = hmac.compare_digest(known, hashed)
        return grant if self._is_right(is_good, key, hashed, headers, client) else None

    def _is_right(self, is_good: bool, key: str, hashed: bytes, headers: Mapping[str, str], client: Client) -> bool:
        """True for a good key. Raises TooManyRequests for one that could be a guess, from where too many failed."""
        if is_made(key) or is_long(key):
            return is_good
        address = self.address_of(headers, client)
        if self._attempts.was_good(address, hashed):
            return is_good
        wait = self._attempts.wait(address)
        if wait > 0:
            self._slow(wait)
        if is_good:
            self._attempts.note_good(address, hashed)
        return is_good

    def _admit_token(
        self, tokens: Tokens, key: str, hashed: bytes, headers: Mapping[str, str], client: Client
    ) -> Grant:
        try:
            return tokens.admit(key, hashed)
        except SignerUnknown:
            raise
        except Expired:
            self.refused["expired"] += 1
            raise
        except Unauthorized as error:
            self._refuse("wrong_token", error, headers, client)

    def _admit_signed(
        self, headers: Mapping[str, str], client: Client, query: Mapping[str, str], session: str | None
    ) -> Grant:
        assert self._urls is not None
        try:
            name = self._urls.check(query, session)
        except Expired:
            self.refused["expired"] += 1
            raise
        except Unauthorized as error:
            self._refuse("wrong_signature", error, headers, client)
        if not name:
            return Grant(session=session)
        its = self._clients.get(name)
        if its is None:  # taken out of the file of keys since
            self.refused["expired"] += 1
            raise Expired("The client that this URL was made for has no key any more.", hint="ask for a new one")
        return Grant(name, models=its.models, session=session, allowance=its.allowance)

    def _refuse(self, reason: str, error: Error, headers: Mapping[str, str], client: Client) -> NoReturn:
        """Raise the error, or TooManyRequests when too many came from there already."""
        self.refused[reason] += 1
        address = self.address_of(headers, client)
        wait = self._attempts.wait(address)
        if wait > 0:
            self._slow(wait)
        self._attempts.note_failure(address)
        raise error

    def _slow(self, wait: float) -> NoReturn:
        self.refused["too_many"] += 1
        raise TooManyRequests(
            "Too many wrong keys came from this address.", retry_after=wait, hint="check the key before you try again"
        )


_UNKNOWN: tuple[bytes, Grant | None] = (b"", None)


def _operator_digest(written: str) -> bytes:
    """Return the digest of the operator's key, which is written as it is, or as its SHA-256."""
    if not written.startswith(_HASHED):
        return digest(written)
    try:
        found = bytes.fromhex(written[len(_HASHED) :])
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ConfigError(
            "FIRSTWORD_OPERATOR_KEY is no SHA-256.", hint="write the key itself, or sha256: and 64 hex digits"
        )
    return found
