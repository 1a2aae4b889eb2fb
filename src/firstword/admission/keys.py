"""Gate keys: how they are made, and the file of names, hashes and limits, which may change while we serve.

A line is `NAME sha256:HEX` and what the client may: `requests=60 tokens=20000 concurrent=5 budget=2.5 models=m1,m2`.
One client, one line: it can be read, compared and taken out by anybody, and a broken one is named by its number.

The hash is a plain SHA-256. Salt and stretching are for what people think up; a key made here has 256 random bits,
which nobody finds by trying, and each turn would pay for the stretching before its first word.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .grant import Allowance, Grant

MARK = "fw-"  # by which scanners of secrets know our keys
MADE = re.compile(r"fw-[A-Za-z0-9_-]{43}")  # 256 bits
LONG, VARIED = 32, 10  # signs, and different ones among them; of 32 hex digits fewer than 10 differ in one of 10,000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
UNNAMED = re.compile(r"key-[0-9a-f]{8}")
MAX_FILE = 16 * 1024 * 1024  # bytes: a hundred thousand keys
_HASH = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_FORM = "write it like: shop sha256:<64 hex digits> requests=60 models=gpt-5-mini"


def new_key() -> str:
    """Return a new key: `fw-` and 43 signs that fit into a URL and a header."""
    return MARK + secrets.token_urlsafe(32)


def is_made(key: str) -> bool:
    """True for a key in the form of `new_key`, which nobody can guess."""
    return len(key) == 46 and MADE.fullmatch(key) is not None


def is_long(key: str) -> bool:
    """True for a key that nobody finds by trying either, as `openssl rand -hex 16` or a UUID makes one."""
    return len(key) >= LONG and len(set(key)) >= VARIED


def digest(key: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def line_of(name: str, key: str, *more: str) -> str:
    """Return the line of the file for a key. Raises ConfigError when it would not be understood."""
    line = " ".join([name, _HASH + digest(key).hex(), *more])
    if len(line.partition("#")[0].split()) != 2 + len(more):
        raise ConfigError("The name, or what the key may do, holds a blank or a #.", hint=_FORM)
    read_keys(line, "The line of this key")
    return line


def unnamed(keys: Iterable[str]) -> dict[bytes, Grant]:
    """Return what keys without a name grant, by their digests: everything, each under a name made of its digest.

    The name is a digest of the digest, cut short: it stands in logs, where it must not help to check a guess.
    """
    digests = map(digest, keys)
    return {each: Grant(f"key-{hashlib.sha256(b'name' + each).hexdigest()[:8]}") for each in digests}


def read_keys(text: str, where: str) -> dict[bytes, Grant]:
    """Return what a file of keys grants, by digest. Raises ConfigError that names the line, and never a hash."""
    found: dict[bytes, Grant] = {}
    lines: dict[bytes, int] = {}
    named: dict[str, tuple[int, Grant]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"{where}, line {number}"
        key, grant = _read_line(words, place)
        if key in found:
            raise ConfigError(f"{place}: the same key stands in line {lines[key]}.", hint="give each client its own")
        first, other = named.setdefault(grant.name, (number, grant))
        if other != grant:
            raise ConfigError(
                f"{place}: {grant.name!r} may do something else here than in line {first}.",
                hint="a client with two keys, as while one is replaced, has the same limits in both lines",
            )
        found[key], lines[key] = grant, number
    return found


def _read_line(words: list[str], place: str) -> tuple[bytes, Grant]:
    name, written, more = words[0], words[1] if len(words) > 1 else "", words[2:]
    if not NAME.fullmatch(name) or UNNAMED.fullmatch(name):
        hint = "letters, digits, dots, - and _, 64 at most; not key- and 8 hex digits, which is for keys without a name"
        raise ConfigError(f"{place}: the first word is not a name.", hint=hint)
    written = written.lower()
    if not written.startswith(_HASH) or not _HEX.fullmatch(written[len(_HASH) :]):
        raise ConfigError(f"{place}: the second word is not the hash of a key.", hint=_FORM)
    given: dict[str, Any] = {}
    for word in more:
        field, equals, value = word.partition("=")
        if not equals or field in given:
            said = "stands there twice" if equals else "has no value"
            raise ConfigError(f"{place}: {_shown(field)} {said}.", hint=_FORM)
        given[field] = value.split(",") if field == "models" else value
    try:
        return bytes.fromhex(written[len(_HASH) :]), granted(name, given)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}.", hint=_FORM) from None


_LIMITS = ("requests", "tokens", "concurrent", "budget")


def granted(name: str, given: dict[str, Any], *, session: str | None = None) -> Grant:
    """Return a Grant of what a line or a token says. Raises ValueError, which tells the field and never its value."""
    models = given.pop("models", None)
    limits: dict[str, Any] = {}
    for field, value in given.items():
        if field not in _LIMITS:
            raise ValueError(f"{_shown(field)} is none of {', '.join(_LIMITS)} and models")
        limits[field] = _number(field, value)
    if models is not None and (
        not isinstance(models, list) or not models or not all(isinstance(each, str) and each.strip() for each in models)
    ):
        raise ValueError("models names no model, or something that is none")
    allowed = None if models is None else frozenset(each.strip() for each in models)
    return Grant(name, models=allowed, session=session, allowance=Allowance(**limits))


def _number(field: str, value: Any) -> float | int:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        number: float | int = int(value) if field == "concurrent" else float(value)
        if not 0 < number < 1e15 or (field == "concurrent" and number != float(value)):
            raise ValueError
    except (ValueError, OverflowError):
        what = "a whole number" if field == "concurrent" else "a number"
        raise ValueError(f"{field} is not {what} over 0") from None
    return number


def _shown(word: str) -> str:
    """Return a word of a file for a message: what could be a part of a hash or a key is not shown."""
    return repr(word) if re.fullmatch(r"[a-z_]{1,20}", word) else "a word"


class _Unread(ConfigError):
    """The file was not to be had: nobody knows what stands in it, and the next look may find out."""


class KeyFile:
    """The file of keys: `grants` is what it said when it was last read and understood.

    has_prices: it is known what models cost, so that a client may have a budget. Raises ConfigError.
    """

    def __init__(self, path: str | Path, *, has_prices: bool = True) -> None:
        self.path = Path(path)
        self._has_prices = has_prices
        self._seen: tuple[int, ...] | None = None  # the file whose words are known, whatever they were
        self._told = ""  # why it could not be read the last time, so that it is told once
        self.grants = self._read()

    def look(self) -> bool:
        """Read the file again if it has changed; True when it was read.

        Raises ConfigError when it cannot be understood any more, once for each change: what it granted stays. One that
        cannot be read is tried again each time, and told once.
        """
        if self._state() == self._seen:
            return False
        try:
            self.grants = self._read()
        except _Unread as error:
            is_known, self._told = self._told == error.message, error.message
            if is_known:
                return False
            raise
        self._told = ""
        return True

    def _read(self) -> dict[bytes, Grant]:
        state = self._state()  # first, so that a change while it is read is seen the next time
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            # Without the name that was given: it may be a key that somebody has put there.
            raise _Unread(
                f"The file of keys cannot be read: {error.strerror}.",
                hint="see FIRSTWORD_KEYS_FILE; `firstword key new NAME --file FILE` makes one",
            ) from None
        try:
            grants = self._understood(data)
        except ConfigError:
            self._seen = state
            raise
        self._seen = state
        return grants

    def _understood(self, data: bytes) -> dict[bytes, Grant]:
        if len(data) > MAX_FILE:
            raise ConfigError(f"{self.path} is larger than {MAX_FILE} bytes.", hint="is this the file of keys?")
        try:
            grants = read_keys(data.decode("utf-8-sig"), str(self.path))
        except UnicodeDecodeError:
            raise ConfigError(f"{self.path} is not UTF-8.", hint="is this the file of keys?") from None
        rich = next((each.name for each in grants.values() if each.allowance.budget is not None), None)
        if rich is not None and not self._has_prices:  # else each turn of that client would be refused
            said = f"{self.path}: {rich!r} has a budget, and nothing says what models cost."
            raise ConfigError(said, hint="set FIRSTWORD_PRICES, or leave out budget=")
        return grants

    def _state(self) -> tuple[int, ...]:
        try:
            found = self.path.stat()  # of what a link leads to: Kubernetes swaps the link
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
