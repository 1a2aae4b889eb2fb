"""What stands within a line and is not heard: links, tags, entities, escapes, URLs. Pure: a text and a place in it.

Each function returns what stands there, or None when that depends on what has not come yet. None of them may depend on
how much of the rest has come already, or another cutting of the text would be heard as another text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from html.entities import html5
from typing import NamedTuple

from .signs import BOUND, URL_BOUND, is_blank, is_emoji, is_word


class Found(NamedTuple):
    """What stands at a place of the text, up to `end`.

    said: what is heard in its place. read: what is read in its place, as if it had come so.
    parts: words before and behind it must not run together. then: "think" or "url", for what is not heard behind it;
        "break", for a new line.
    """

    end: int
    said: str = ""
    read: str = ""
    parts: bool = False
    then: str = ""


THINKS = ("think", "thinking", "reasoning", "thought")
# Those that SSML has as well (s; sub and mark with attributes) are left to the voice.
_BREAKS = (
    "br p div li ul ol dl dt dd h1 h2 h3 h4 h5 h6 tr table thead tbody tfoot caption blockquote hr pre section article "
    "header footer main nav aside figure figcaption details summary center html head body title"
)
_TAGS = (
    "b i u em strong del ins strike small big code kbd samp var tt span font a img td th abbr cite q sub sup mark "
    "label button input"
)
BREAKS = frozenset(_BREAKS.split())
TAGS = BREAKS | frozenset(_TAGS.split())
SSML_TOO = frozenset({"sub", "mark"})
ESCAPED = frozenset("!\"#$%&'*+,-./:;<=>?@\\^_`{|}~")
LATEX = frozenset("()[]")

_cited = re.compile(r"[1-9]\d{0,2}(?:[,\u2013-] ?[1-9]\d{0,2})*").fullmatch
_source = re.compile("\u3010\\d+(?::\\d+)?\u2020[^\u3011\\n]*\u3011").match
_tag = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)").match
_attributes = re.compile(r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'>]+))*\s*/?>""").fullmatch
_address = re.compile(r"<([A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+)>").match
_entity = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});").match
_entity_so_far = re.compile(r"&(?:#\d{0,7}|#[xX][0-9A-Fa-f]{0,6}|[A-Za-z][A-Za-z0-9]{0,30}|)\Z").match
_token = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>").match
_token_so_far = re.compile(r"<\|[A-Za-z0-9_]{0,40}\|?\Z").match
_scheme = re.compile(r"(?:(?i:https?)://|www\.|WWW\.)").match
_scheme_so_far = re.compile(r"(?:(?i:h(?:t(?:t(?:ps?(?::/{0,2})?)?)?)?)|w{1,3}|W{1,3})\Z").match
_only_url = re.compile(r"(?i:https?)://[A-Za-z0-9][^\s`]*").fullmatch
_host = re.compile(r"[A-Za-z0-9.:@%~_-]*").match
_closers = {
    "*": re.compile(r"(?<![\s*\\])(?:\*|\*{3})(?![*0-9A-Za-z])").search,
    "**": re.compile(r"(?<![\s*\\])\*\*(?!\*)(?![0-9A-Za-z])").search,
    "_": re.compile(r"(?<![\s_\\])(?:_|_{3})(?!\w)").search,
    "~~": re.compile(r"(?<![\s~\\])~~(?![~0-9A-Za-z])").search,
}
# What opens another one before it is closed; a star before a digit may be the key of a telephone.
_openers = {
    "*": re.compile(r"(?<=\s)\*(?![\s*\d])").finditer,
    "**": re.compile(r"(?<=\s)\*\*(?![\s*])").finditer,
    "_": re.compile(r"(?<=\s)_(?![\s_])").finditer,
}
star_code = re.compile(r"\*\*\d{1,20}(?:[*#]|\Z)").match
_brackets = {"[]": re.compile(r"[\[\]\n]").finditer, "()": re.compile(r"[()\n]").finditer}
MAX_HOST = 253
MAX_DEPTH = 8  # brackets within brackets; each one that is open costs a look at what follows


def literal(text: str, at: int) -> Found:
    """What is text like any other."""
    return Found(at + 1, text[at])


def closes(mark: str, text: str, at: int, *, final: bool) -> bool | None:
    """Say whether what `mark` has opened before `at` is closed in the same line; None: perhaps, further on."""
    most, newline = at + BOUND, text.find("\n", at, at + BOUND)
    stop = min(newline if newline >= 0 else most, len(text))
    found, place, opened = _closers[mark](text, at + 1, stop), at + 1, 0
    while found is not None:
        opened += sum(1 for _ in _openers[mark](text, place, found.start())) if mark in _openers else 0
        if not opened and (found.end() < len(text) or final):
            return True
        opened, place = max(opened - 1, 0), found.end()
        found = _closers[mark](text, place, stop)
    return False if newline >= 0 or len(text) > most or final else None


def code(text: str, at: int, before: str, final: bool) -> Found | None:
    """`code` within a line is heard as it is written, but for a URL, which stands there to be copied."""
    end = at
    while end < len(text) and text[end] == "`":
        end += 1
    ticks, most = text[at:end], at + BOUND
    if before == "`" or len(ticks) > BOUND:
        return Found(end, ticks)
    if end == len(text) and not final:
        return None
    newline = text.find("\n", at, most)
    found = re.compile(f"(?<!`){ticks}(?!`)").search(text, end, newline if newline >= 0 else min(most, len(text)))
    if found is not None and (found.end() < len(text) or final):
        inner = text[end : found.start()]
        if inner[0] == inner[-1] == " " and inner.strip():
            inner = inner[1:-1]
        alone = url(inner, 0, "", True) if _only_url(inner) else None
        return Found(found.end(), alone.said if alone is not None and alone.end > 1 else inner)
    return Found(end, ticks) if newline >= 0 or len(text) > most or final else None


def bracket(text: str, at: int, before: str, final: bool) -> Found | None:
    """A link is heard as its text, a citation not at all; what is in brackets otherwise may be meant for the voice."""
    close = _closing(text, at, "[]", BOUND, final)
    if close is None:
        return None
    inner, behind = text[at + 1 : close], text[close + 1 : close + 2]
    if close < 0:
        return literal(text, at)
    if not behind and not final:
        return None
    is_cited = not is_blank(before) and _cited(inner) is not None
    if inner[:1] == "^" and not is_blank(inner[1:]):
        return Found(close + 1)
    if behind == "(":
        end = _target(text, close + 1, final)
        if end is None:
            return None
        if end > 0:
            return Found(end, parts=True) if is_cited or not inner else Found(end, read=inner)
    if is_cited:
        return Found(close + 1)
    if behind == "[":
        number, is_closed, _ = text[close + 2 : close + 8].partition("]")
        if is_closed and (not number or number.isdecimal()):
            return Found(close + 3 + len(number), read=inner)
        if not is_closed and (not number or number.isdecimal()) and not final and len(text) < close + 8:
            return None
    return literal(text, at)


def image(text: str, at: int, before: str, final: bool) -> Found | None:
    """An image is heard as what it shows."""
    if not (is_blank(before) or before in "([>"):
        return literal(text, at)
    if at + 1 == len(text):
        return literal(text, at) if final else None
    if text[at + 1] != "[":
        return literal(text, at)
    close = _closing(text, at + 1, "[]", BOUND, final)
    if close is None:
        return None
    if close < 0 or text[close + 1 : close + 2] not in ("(", ""):
        return literal(text, at)
    if close + 1 == len(text):
        return literal(text, at) if final else None
    end = _target(text, close + 1, final)
    if end is None:
        return None
    return Found(end, read=text[at + 2 : close], parts=True) if end > 0 else literal(text, at)


def angle(text: str, at: int, before: str, final: bool) -> Found | None:
    """A tag of HTML is a break or nothing, and an address in brackets is an address; `<3` and SSML stay."""
    if at + 1 == len(text):
        return literal(text, at) if final else None
    sign = text[at + 1]
    if sign == "|":
        token = _token(text, at)
        if token is not None:
            return Found(token.end())
        return None if _token_so_far(text, at) and not final else literal(text, at)
    if sign == "!":
        return _comment(text, at, final)
    name = _tag(text, at)
    if name is None:
        return None if sign == "/" and at + 2 == len(text) and not final else literal(text, at)
    if name.end() == len(text) and not final and name.end() - at <= BOUND:
        return None
    tag, behind = name[1].lower(), text[name.end() : name.end() + 1]
    if tag in THINKS and behind == ">":
        return Found(name.end() + 1, parts=True, then="" if sign == "/" else "think")
    if tag in ("http", "https", "mailto") and behind == ":" and sign != "/":
        end = _until(text, at, ">", URL_BOUND, final)
        return (
            end if end is None or end.said else Found(end.end, read=text[at + 1 : end.end - 1].removeprefix("mailto:"))
        )
    if tag in TAGS and behind and behind in "> \t/" and not (tag in SSML_TOO and behind in " \t"):
        end = _until(text, at, ">", BOUND, final)
        if end is None or end.said:
            return end
        if _attributes(text[name.end() : end.end]) is None:
            return literal(text, at)
        return Found(end.end, parts=tag in ("td", "th"), then="break" if tag in BREAKS else "")
    if behind and behind in "@._%+-" and sign != "/":
        end = _until(text, at, ">", BOUND, final)
        if end is None:
            return None
        address = _address(text, at)
        return literal(text, at) if address is None else Found(address.end(), read=address[1])
    return literal(text, at)


def only_thought(text: str, at: int, before: str, final: bool) -> Found | None:
    """The same, for text of which nothing but thoughts is taken out."""
    name = _tag(text, at)
    if name is None:
        return None if text[at:] in ("<", "</") and not final else literal(text, at)
    if name.end() == len(text) and not final and name.end() - at <= BOUND:
        return None
    if name[1].lower() in THINKS and text[name.end() : name.end() + 1] == ">":
        return Found(name.end() + 1, parts=True, then="" if text[at + 1] == "/" else "think")
    return literal(text, at)


def entity(text: str, at: int, before: str, final: bool) -> Found | None:
    """`&amp;` is heard as what it means."""
    found = _entity(text, at)
    if found is None:
        return None if _entity_so_far(text, at) and not final else literal(text, at)
    meant = html.unescape(found[0]) if found[0][1] == "#" else html5.get(found[0][1:], "")
    if not meant:
        return literal(text, at)
    meant = meant.replace("\u00a0", " ")
    return Found(found.end(), parts=True) if is_emoji(meant) else Found(found.end(), said=meant)


def escape(text: str, at: int, before: str, final: bool) -> Found | None:
    """`\\*` is a star; `\\(` and its like begin and end what LaTeX reads."""
    if at + 1 == len(text):
        return literal(text, at) if final else None
    sign = text[at + 1]
    if sign in LATEX:
        return Found(at + 2)
    if sign == "\n":
        return Found(at + 1)
    return Found(at + 2, said=sign) if sign in ESCAPED else literal(text, at)


def dollar(text: str, at: int, before: str, final: bool) -> Found | None:
    """`$$` begins and ends a formula; `$$$` is what a dinner costs."""
    end = at
    while end < len(text) and text[end] == "$":
        end += 1
    if end == len(text) and not final and end - at <= 2:
        return None
    if end - at != 2 or before == "$":
        return Found(end, text[at:end])
    close = text.find("$$", end, at + BOUND)
    if close >= 0:
        inner = text[end:close]
        return Found(close + 2, said=inner.strip("\n"))
    return Found(end, text[at:end]) if final or len(text) >= at + BOUND else None


def citation(text: str, at: int, before: str, final: bool) -> Found | None:
    """A citation in the form of OpenAI's file search; what else stands in such brackets is text."""
    found = _source(text, at, at + BOUND)
    if found is not None:
        return Found(found.end())
    behind = text[at + 1 : at + 2]
    if behind and not behind.isdecimal():
        return literal(text, at)
    is_open = "\u3011" not in text[at : at + BOUND] and "\n" not in text[at : at + BOUND]
    return None if is_open and not final and len(text) < at + BOUND else literal(text, at)


def web_citation(text: str, at: int, before: str, final: bool) -> Found | None:
    """A citation in the form of OpenAI's web search."""
    end = text.find("\ue201", at, at + BOUND)
    if end >= 0:
        return Found(end + 1)
    return Found(at + 1) if final or len(text) >= at + BOUND else None


def url(text: str, at: int, before: str, final: bool) -> Found | None:
    """A URL is heard as its host: nobody can follow the rest by ear."""
    if is_word(before):
        return literal(text, at)
    scheme = _scheme(text, at)
    if scheme is None:
        return None if _scheme_so_far(text, at) and not final else literal(text, at)
    found = _host(text, scheme.end(), scheme.end() + MAX_HOST)
    assert found is not None
    if found.end() == len(text) and not final:
        return None
    end = scheme.end() + len(found[0].rstrip(".:-_~%@"))
    host = text[scheme.end() : end].rpartition("@")[2].partition(":")[0]
    host = host[4:] if host[:4].lower() == "www." else host
    if not host.strip(".") or (scheme[0][0] in "wW" and "." not in host):
        return literal(text, at)
    return Found(end, said=host, then="url" if text[end : end + 1] in ("/", "?", "#") else "")


def _closing(text: str, at: int, pair: str, most: int, final: bool) -> int | None:
    """Return where the bracket that opens at `at` closes, in the same line; -1: nowhere."""
    if text.find(pair[1], at, at + most) < 0 and (final or len(text) >= at + most):
        return -1
    depth = 0
    for found in _brackets[pair](text, at, at + most):
        depth += (found[0] == pair[0]) - (found[0] == pair[1])
        if depth == 0:
            return found.start()
        if found[0] == "\n" or depth > MAX_DEPTH:
            return -1
    return -1 if final or len(text) >= at + most else None


def _target(text: str, at: int, final: bool) -> int | None:
    """Return where `(url "title")` ends; 0: it is none. One that the end has cut off is one all the same."""
    close = _closing(text, at, "()", URL_BOUND, final)
    known = text[at + 1 : close if close is not None and close > 0 else len(text)].split("\n")[0]
    blank = re.search(r"\s+", known.strip())
    if blank is not None and known.strip()[blank.end()] not in "\"'(":
        return 0
    if close is not None and close < 0:
        return len(text) if final and "\n" not in text[at:] and len(text) < at + URL_BOUND else 0
    return None if close is None else close + 1


def _comment(text: str, at: int, final: bool) -> Found | None:
    begun = text[at : at + 4]
    if begun != "<!--"[: len(begun)] or (final and len(begun) < 4):
        return literal(text, at)
    end = text.find("-->", at + 4, at + BOUND)
    if end >= 0:
        return Found(end + 3)
    return literal(text, at) if final or len(text) >= at + BOUND else None


def _until(text: str, at: int, sign: str, most: int, final: bool) -> Found | None:
    """Return what ends with `sign` in the same line, else the first sign of it as text."""
    end = text.find(sign, at, at + most)
    newline = text.find("\n", at, at + most)
    if end >= 0 and not 0 <= newline < end:
        return Found(end + 1)
    return literal(text, at) if newline >= 0 or final or len(text) >= at + most else None


RULES: dict[str, Callable[[str, int, str, bool], Found | None]] = {
    "`": code,
    "[": bracket,
    "!": image,
    "<": angle,
    "&": entity,
    "\\": escape,
    "$": dollar,
    "\u3010": citation,
    "\ue200": web_citation,
    **dict.fromkeys("hHwW", url),
}
