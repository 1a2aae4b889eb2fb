"""How a line begins: a heading, a list, a quotation, a rule, a table, code. Pure: a text and a place in it.

Each function returns what stands there, or None when that depends on what has not come yet. None of them may depend on
how much of the rest has come already, or another cutting of the text would be heard as another text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .signs import BOUND


class Line(NamedTuple):
    """How a line goes on: read from `end`, where its words begin, or the next line when nothing of it is heard.

    kind: "text"; "again", when behind the mark another one may stand; "heading"; "row"; "gone", for a line that is not
        there; "fence", before lines of code; "rest", for a line of which nothing more is heard.
    fence: what ends the code.
    """

    end: int
    kind: str
    fence: str = ""


# What stands in a fence of this kind, or of none, is meant to be read, as a letter or an address is.
READ = frozenset({"text", "txt", "plain", "plaintext", "markdown", "md"})
BULLETS = "-*+\u2022\u2023\u25e6\u25cf"
MAX_LABEL = 100  # signs of a footnote's or a link's name
MAX_DEFINED = 20  # signs behind it in which the URL begins

_blanks = re.compile(r"[ \t\r]*").match
_task = re.compile(r"\[[ xX]\][ \t]").match
_defines = re.compile(r":[ \t]*<?(?:https?://|www\.|/|#)", re.IGNORECASE).match


def begins(text: str, at: int, *, final: bool) -> Line | None:
    """Return how the line that begins at `at` does; `final`: nothing more will come."""
    start = _behind_blanks(text, at)
    if start - at > BOUND:
        return Line(at, "text")
    if start == len(text):
        return Line(at, "text") if final else None
    line = _LINES.get(text[start])
    return Line(at, "text") if line is None else line(text, at, start, final)


def _heading(text: str, at: int, start: int, final: bool) -> Line | None:
    end = _end_of_run(text, start)
    behind = _behind_blanks(text, end)
    if end - start > 6 or behind - start > BOUND:
        return Line(at, "text")
    if behind == len(text) and not final:
        return None
    if text[behind : behind + 1] == "\n" or (behind == len(text) and behind > end):
        return Line(_next(text, start), "gone")
    return Line(behind, "heading") if behind > end else Line(at, "text")


def _mark(text: str, at: int, start: int, final: bool) -> Line | None:
    """A line that begins with a dash, a star or the like: a rule, what is below a table's head, a row, a bullet."""
    sign = text[start]
    line, is_whole = _line(text, start, final)
    bare = set(line) - set(" \t\r")
    if (sign in "-*_=" and bare == {sign}) or (sign in "-:|" and bare <= set("-:|")):
        if not is_whole:
            return Line(at, "text") if len(line) > BOUND else None
        if (bare == {sign} and line.count(sign) >= 3 and sign != ":" and sign != "|") or {"-", "|"} <= bare:
            return Line(_next(text, start), "gone")
    if sign == "|":
        if "|" in line[1:].replace("\\|", ""):
            return Line(start + 1, "row")
        return Line(at, "text") if is_whole or len(line) > BOUND else None
    return _bullet(text, at, start, final) if sign in BULLETS else Line(at, "text")


def _bullet(text: str, at: int, start: int, final: bool) -> Line | None:
    words = _behind_blanks(text, start + 1)
    if words - start > BOUND:
        return Line(at, "text")
    if words == len(text):
        return Line(words if words > start + 1 else at, "text") if final else None
    if text[words] == "\n":
        return Line(words if words > start + 1 else at, "text")
    if words == start + 1:
        return Line(at, "text")
    if text[words] == "[" and not final and len(text) < words + 4:
        return None
    task = _task(text, words)
    return Line(task.end() if task else words, "again")


def _fence(text: str, at: int, start: int, final: bool) -> Line | None:
    end = _end_of_run(text, start)
    if end - start < 3 and (final or end < len(text)):
        return Line(at, "text")
    line, is_whole = _line(text, start, final)
    info = line[end - start :].strip().lower()
    if "`" in info or len(line) > BOUND:
        return Line(at, "text")
    if not is_whole:
        return None
    if not info or info.split()[0] in READ:
        return Line(_next(text, start), "gone")
    return Line(_next(text, start), "fence", text[start:end])


def _quotation(text: str, at: int, start: int, final: bool) -> Line | None:
    if start + 1 == len(text):
        return Line(at, "text") if final else None
    return Line(start + 1, "again") if text[start + 1] in "> \t\r\n" else Line(at, "text")


def _definition(text: str, at: int, start: int, final: bool) -> Line | None:
    """`[^1]: words` is a footnote, of which the words are heard; `[1]: url` says where a link leads."""
    line, is_whole = _line(text, start, final)
    close = line.find("]", 1, MAX_LABEL)
    if close < 0:
        return Line(at, "text") if is_whole or len(line) >= MAX_LABEL else None
    behind = line[close + 1 : close + 1 + MAX_DEFINED]
    if not behind:
        return Line(at, "text") if is_whole else None
    if behind[0] != ":":
        return Line(at, "text")
    if line[1] == "^":
        return Line(start + close + 2, "again")
    if _defines(behind):
        return Line(start + close, "rest")
    return Line(at, "text") if is_whole or len(behind) == MAX_DEFINED else None


def _line(text: str, start: int, final: bool) -> tuple[str, bool]:
    """Return the line from `start` on, as far as it has come, and whether that is all; of a long one its beginning."""
    most = start + BOUND + 1
    end = text.find("\n", start, most)
    if end >= 0:
        return text[start:end], True
    return text[start:most], final and len(text) < most


def _behind_blanks(text: str, at: int) -> int:
    found = _blanks(text, at)
    assert found is not None
    return found.end()


def _end_of_run(text: str, start: int) -> int:
    end = start
    while end < len(text) and text[end] == text[start]:
        end += 1
    return end


def _next(text: str, start: int) -> int:
    """Return where the next line begins."""
    end = text.find("\n", start)
    return len(text) if end < 0 else end + 1


_LINES: dict[str, Callable[[str, int, int, bool], Line | None]] = {
    "#": _heading,
    ">": _quotation,
    "[": _definition,
    **dict.fromkeys("`~", _fence),
    **dict.fromkeys(f"{BULLETS}_=|:", _mark),
}
