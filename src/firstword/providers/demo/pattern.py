"""Texts that match a simple regular expression: how the demo model fills a `pattern` of a JSON schema.

Known are literals, escapes, classes, groups, alternatives and repeats; anchors and word borders are taken as said.
What is not known (look-around, back references, Unicode properties) is Impossible.
"""

from __future__ import annotations

import re

from .schema import LONGEST_PATTERN, Impossible

LONGEST_TEXT = 2_000  # characters
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_ANY = _LETTERS + _LETTERS.upper() + _DIGITS + "_- .@/"
_RANGE = 63  # characters read of one range: some name a whole script
_SETS = {"d": _DIGITS, "w": _LETTERS + _LETTERS.upper() + _DIGITS + "_", "s": " "}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_REPEAT = re.compile(r"([?*+])|\{(\d{1,6})(,?)(\d{0,6})\}")
_NAME = re.compile(r"P?<[A-Za-z_]\w*>")
_CODE = re.compile(r"u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})")


class Pattern:
    """One reading of a pattern: the shortest text that matches it, and a little more.

    `more` is how many repeats beyond the least are to be spent, first come first served; `pick` turns the choice
    of characters, so that another pick is another text.
    """

    def __init__(self, source: str, *, more: int = 0, pick: int = 0) -> None:
        if len(source) > LONGEST_PATTERN:
            raise Impossible
        self._source = source
        self._at = 0
        self._more = more
        self._pick = pick

    def text(self) -> str:
        """Return the text. Raises Impossible when the pattern is broken or not simple."""
        made = self._alternatives()
        if self._at < len(self._source):
            raise Impossible
        return made

    def _next(self) -> str:
        if self._at >= len(self._source):
            raise Impossible
        self._at += 1
        return self._source[self._at - 1]

    def _take(self, expected: str) -> bool:
        taken = self._source.startswith(expected, self._at)
        self._at += len(expected) if taken else 0
        return taken

    def _alternatives(self) -> str:
        ways = [self._sequence()]
        while self._take("|"):
            ways.append(self._sequence())
        return ways[self._pick % len(ways)]

    def _sequence(self) -> str:
        made = ""
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            piece = self._piece()
            made += piece * self._repeats(len(piece))
            if len(made) > LONGEST_TEXT:
                raise Impossible
        return made

    def _repeats(self, length: int) -> int:
        """Read what follows a piece and return how often it stands in the text."""
        found = _REPEAT.match(self._source, self._at)
        if found is None:
            return 1
        self._at = found.end()
        if not self._take("?"):  # lazy and possessive repeats match the same texts
            self._take("+")
        sign, least, comma, most = found.groups()
        low = int(least or sign == "+")
        if sign == "?":
            high = 1
        elif sign or (comma and not most):
            high = LONGEST_TEXT
        else:
            high = int(most or low)
        extra = max(0, min(high - low, self._more))
        self._more -= extra
        if (low + extra) * length > LONGEST_TEXT:
            raise Impossible
        return low + extra

    def _piece(self) -> str:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._one_of(self._class())
        if character == "\\":
            return self._one_of(self._escape())
        if character == ".":
            return self._one_of(_ANY)
        return "" if character in "^$" else character

    def _group(self) -> str:
        if self._take("?") and not self._take(":"):
            name = _NAME.match(self._source, self._at)
            if name is None:
                raise Impossible
            self._at = name.end()
        made = self._alternatives()
        if not self._take(")"):
            raise Impossible
        return made

    def _one_of(self, characters: str) -> str:
        return characters[self._pick % len(characters)] if characters else ""

    def _escape(self) -> str:
        """Return the characters that an escape stands for; none for a word border."""
        code = _CODE.match(self._source, self._at)
        if code is not None:
            self._at = code.end()
            character = chr(int(code[1] or code[2], 16))
            if "\ud800" <= character <= "\udfff":
                raise Impossible  # half a character
            return character
        letter = self._next()
        if letter in _SETS:
            return _SETS[letter]
        if letter.lower() in _SETS:
            return "".join(one for one in _ANY if one not in _SETS[letter.lower()])
        if letter in "bBAZz":
            return ""
        if letter.isalnum() and letter not in _CONTROLS:
            raise Impossible
        return _CONTROLS.get(letter, letter)

    def _class(self) -> str:
        """Read a class up to its bracket and return characters of it, letters and digits first."""
        inverted = self._take("^")
        members = ""
        while not self._take("]"):
            member = self._class_member()
            ranges = self._source.startswith("-", self._at) and not self._source.startswith("-]", self._at)
            if len(member) == 1 and ranges:
                self._next()
                last = ord(self._class_member()[:1] or member)
                member = "".join(map(chr, range(ord(member), min(last, ord(member) + _RANGE) + 1)))
            members += member
        if inverted:
            return "".join(one for one in _ANY if one not in members)
        return "".join(sorted(members, key=lambda one: not one.isalnum()))

    def _class_member(self) -> str:
        character = self._next()
        return self._escape() if character == "\\" else character
