"""Text made fit to be spoken, while it comes: reasoning, Markdown, HTML, emoji and URLs are not read out. Pure.

Rules:
- However a text is cut, the same is heard. What is decided, is decided by the text, not by how much of it has come.
- Text of which nothing is to be taken out leaves as it came, and at once. Only what may still become something else is
  kept back, and of that no more than BOUND signs, or a line; a URL within a link may be longer.
- What was said cannot be taken back, so a mark that is taken out goes without what would close it, if it is surely one.
- Words that are no markup are never lost, but for reasoning and code.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import marks
from .lines import Line, begins
from .signs import JOINER, STOPS, UNHEARD, find, find_in_row, is_blank, is_emoji, is_plain, is_wide, is_word

BLANKS = " \t\r"
MAX_STEP = 4 * 1024  # signs that are read at a time: each mark in them costs a look at the rest
MAX_TAIL = 8  # signs at the end of a URL that may belong to the sentence

_thought = re.compile(rf"</(?:{'|'.join(marks.THINKS)})>", re.IGNORECASE).search
_closing_tags = tuple(f"</{name}>" for name in marks.THINKS)
_tag_begins = re.compile("<").search
_url_signs = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*").match
_url_tail = re.compile(r"[.,;:!?'*_~)\]]*\Z").search


class Shaper:
    """The text of one reply. `markup=False`: nothing but thoughts is taken out.

    `feed` returns what can be heard of the text so far, `end` the rest; after it another text may begin.
    """

    def __init__(self, *, markup: bool = True) -> None:
        self._markup = markup
        self._begin()

    def _begin(self) -> None:
        self._text = ""  # what is not decided yet
        self._before = ""  # the sign before it, as it came
        self._last = ""  # the last two signs that are heard
        self._said: list[str] = []
        self._idle = not self._markup  # nothing that is plain has to be looked at
        self._is_fresh = self._markup  # a line begins
        self._is_heading = self._is_row = False
        self._is_bare = True  # nothing of this heading or row is heard yet
        self._lead = ""  # blanks in one of them, or what parts two cells
        self._eat = ""  # signs that are not heard, as something has vanished before them
        self._parts = False  # a blank has to stand where something has vanished
        self._open: set[str] = set()  # emphasis
        self._drop: Callable[[str, int, bool], int | None] | None = None  # what passes over that is not heard
        self._fence = ""
        self._is_alias = False  # SSML's <sub> has been begun, and HTML has one too
        self._is_inside = False  # a line of code, or a URL with a bracket in it

    def feed(self, text: str) -> str:
        """Return what is heard now."""
        if self._idle and text and (is_plain(text) if self._markup else "<" not in text):
            self._before = self._last = text[-1]
            return text
        if len(self._text) + len(text) <= MAX_STEP:
            self._text += text
            return self._run(final=False)
        said = []
        for at in range(0, len(text), MAX_STEP):
            self._text += text[at : at + MAX_STEP]
            said.append(self._run(final=False))
        return "".join(said)

    def end(self) -> str:
        """Return what was kept back: the text is over."""
        said = self._run(final=True)
        self._begin()
        return said

    @property
    def kept(self) -> str:
        """What is not decided yet."""
        return self._text

    # --- reading ----------------------------------------------------------------------------------------

    def _run(self, *, final: bool) -> str:
        self._said = []
        at: int | None = 0
        while self._text:
            at = self._step(final)
            if at is None:
                break
            if at:
                self._before, self._text = self._text[at - 1], self._text[at:]
        if final:
            self._stop()
        busy = (
            self._text or self._is_fresh or self._is_heading or self._is_row or self._eat or self._parts or self._drop
        )
        self._idle = not busy
        return "".join(self._said)

    def _step(self, final: bool) -> int | None:
        """Take something of the text; return how much of it, None when more has to come first."""
        text = self._text
        if self._drop is not None:
            return self._drop(text, 0, final)
        if self._is_fresh:
            line = begins(text, 0, final=final)
            if line is None:
                return None
            if line.kind != "text" or line.end:
                return self._begin_line(line)
            self._is_fresh = False
        return self._plain(text) or self._marked(text, final)

    def _plain(self, text: str) -> int:
        """Say the text up to where something may begin."""
        if not self._markup:
            found = _tag_begins(text)
        else:
            found = find_in_row(text) if self._is_heading or self._is_row else find(text)
        end = len(text) if found is None else found.start()
        self._say(text[:end])
        return end

    def _marked(self, text: str, final: bool) -> int | None:
        sign = text[0]
        if not self._markup:
            return self._found(marks.only_thought(text, 0, self._before, final))
        if sign == "\n":
            return self._break_line()
        if sign in "*_~":
            return self._emphasis(text, final)
        if sign in " \t\r#|":
            return self._in_row(text, final)
        rule = marks.RULES.get(sign)
        if rule is None:
            return self._picture(text)
        found = rule(text, 0, self._before, final)
        if found is not None and text.startswith("<sub ") and found.end == 1:
            self._is_alias = True
        elif found is not None and self._is_alias and text.startswith("</sub>"):
            self._is_alias, found = False, marks.literal(text, 0)
        return self._found(found)

    def _found(self, found: marks.Found | None) -> int | None:
        if found is None:
            return None
        if found.said:
            self._say(found.said)
        elif not found.read or found.parts:
            self._vanish(parts=found.parts)
        if found.then == "break":
            if self._last[-1:] not in ("", "\n"):
                self._stop()
                self._say("\n")
            self._eat = f"{BLANKS}\n"
        if found.then in ("think", "url"):
            self._drop, self._is_inside = (self._drop_thought if found.then == "think" else self._drop_url), False
        if found.read:
            self._before = self._text[0]
            self._text = found.read + self._text[found.end :]
            return 0
        return found.end

    def _picture(self, text: str) -> int:
        sign = text[0]
        if sign == JOINER and not (self._before and (is_emoji(self._before) or self._before in UNHEARD)):
            self._say(sign)
        elif sign not in UNHEARD and sign != JOINER:
            self._vanish(parts=True)
        return 1

    # --- lines ------------------------------------------------------------------------------------------

    def _begin_line(self, line: Line) -> int:
        self._is_fresh = line.kind in ("again", "gone")
        if line.kind == "fence":
            self._drop, self._fence, self._is_inside = self._drop_code, line.fence, False
        elif line.kind == "rest":
            self._drop = self._drop_line
        elif line.kind in ("heading", "row"):
            self._is_heading, self._is_row, self._is_bare, self._lead = (
                line.kind == "heading",
                line.kind == "row",
                True,
                "",
            )
        if line.kind in ("gone", "fence", "rest"):
            self._leave_line_out()
        else:
            self._eat = BLANKS
        return line.end

    def _leave_line_out(self) -> None:
        """Two blank lines around one that is not heard are one."""
        self._open.clear()
        if self._last in ("", "\n\n"):
            self._eat = f"{BLANKS}\n"

    def _break_line(self) -> int:
        self._stop()
        if self._last[-1:] in ("", "\n"):
            self._open.clear()  # a blank line: no emphasis goes beyond it
        self._say("\n")
        self._is_fresh = True
        return 1

    def _stop(self) -> None:
        """End a heading or a row. A heading is a sentence: the voice must not run on into the next line."""
        last = self._last[-1:]
        if self._is_heading and not self._is_bare and last not in STOPS:
            self._lead = ""
            self._say("\u3002" if is_wide(last) else ".")
        self._is_heading = self._is_row = False
        self._lead = ""

    def _in_row(self, text: str, final: bool) -> int | None:
        """Take a blank, a bar or a `#`: what it is worth is seen by what comes behind it."""
        sign = text[0]
        if sign == "#":
            end = len(text) - len(text.lstrip("#"))
            behind = text[end:].lstrip(BLANKS)
            if not (self._is_heading and self._lead) or behind[:1] not in ("", "\n"):
                self._say(text[:end])
            elif not behind and not final and len(text) < MAX_TAIL:
                return None
            return end
        if sign == "|" and self._is_row:
            self._lead = " " if self._is_bare or self._last[-1:] in STOPS else ", "
        elif sign == "|":
            self._say(sign)
        elif self._is_heading:
            self._lead += sign
        else:
            self._lead = self._lead or " "
        return 1

    # --- emphasis ---------------------------------------------------------------------------------------

    def _emphasis(self, text: str, final: bool) -> int | None:
        sign, before = text[0], self._before
        end = len(text) - len(text.lstrip(sign))
        if end > 3 or before == sign or (sign == "~" and end != 2 and (end < len(text) or final)):
            self._say(text[:end])
            return end
        if end == len(text) and not final:
            return None
        behind = text[end : end + 1]
        names = [sign * 2, sign] if end == 3 else [sign * end]
        if self._closes(names, before, behind):
            self._open.difference_update(names)
            return end
        opens = self._opens(names[-1], before, behind, end, final)
        if opens is None:
            return None
        if opens:
            self._open.update(names)
        else:
            self._say(text[:end])
        return end

    def _closes(self, names: list[str], before: str, behind: str) -> bool:
        if self._open.isdisjoint(names) or (is_blank(before) and len(names[0]) == 1):
            return False
        if names[0][0] == "_":
            return not behind.isalnum()
        return len(names[0]) > 1 or not (is_word(before) and is_word(behind))

    def _opens(self, name: str, before: str, behind: str, end: int, final: bool) -> bool | None:
        """Say whether a mark opens something: `**` is nothing else, and `*` does if it is closed."""
        if is_blank(behind) or (name[0] == "_" and before.isalnum()):
            return False
        if is_word(before):
            may = end == 2 and is_word(behind) and name == "**"
            return marks.closes(name, self._text, end, final=final) if may else False
        code = marks.star_code(self._text) if end == 2 else None
        if code is not None and code.end() == len(self._text) and not final:
            return None
        if end == 1 and behind.isdigit() and name in self._open:
            return False  # the key of a telephone
        return True if end > 1 and code is None else marks.closes(name, self._text, end, final=final)

    # --- what is passed over ----------------------------------------------------------------------------

    def _drop_thought(self, text: str, at: int, final: bool) -> int | None:
        end = _thought(text)
        if end is not None:
            self._drop = None
            self._vanish(parts=True)
            if self._eat:
                self._eat = f"{BLANKS}\n"
            self._is_fresh = self._markup and self._last[-1:] in ("", "\n")  # the answer's first line begins here
            return end.end()
        tag = text.rfind("<")
        may_close = tag >= 0 and any(each.startswith(text[tag:].lower()) for each in _closing_tags)
        return (tag or None) if may_close and not final else len(text)

    def _drop_code(self, text: str, at: int, final: bool) -> int | None:
        """Pass over one line of code, or what has come of it."""
        line, newline, _ = text.partition("\n")
        bare = line.strip(BLANKS)
        may_close = not self._is_inside and not bare.strip(self._fence[0]) and len(line) <= MAX_TAIL * 8
        if not newline and not final and may_close:
            return None
        if may_close and len(bare) >= len(self._fence):
            self._drop, self._is_fresh = None, True
        self._is_inside = not newline
        return len(line) + len(newline)

    def _drop_line(self, text: str, at: int, final: bool) -> int | None:
        line, newline, _ = text.partition("\n")
        if newline:
            self._drop, self._is_fresh = None, True
        return len(line) + len(newline)

    def _drop_url(self, text: str, at: int, final: bool) -> int | None:
        """Pass over the rest of a URL, but for the signs at its end that belong to the sentence."""
        found = _url_signs(text)
        assert found is not None
        tail = _url_tail(found[0])
        assert tail is not None
        end = tail.start()
        if "(" in found[0][:end]:
            self._is_inside = True
        if self._is_inside and ")" in tail[0]:
            end = found[0].rindex(")") + 1
        if found.end() == len(text) and not final:
            end = max(end, found.end() - MAX_TAIL)
            return end or None
        self._drop = None
        return end

    # --- saying -----------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self._eat:
            text = text.lstrip(self._eat)
        if not text:
            return
        last = self._last[-1:]
        if self._lead and text != "\n":
            text = text if self._is_bare else self._lead + text
            self._lead = ""
        elif self._parts and not self._eat and _run_together(last, text[0]):
            text = f" {text}"
        self._eat, self._parts, self._is_bare = "", False, False
        self._said.append(text)
        self._last = (self._last + text)[-2:]

    def _vanish(self, *, parts: bool) -> None:
        """Note that something is not heard: of two blanks around it one is enough, of two words it is no part."""
        if self._last[-1:].isspace() or not self._last:
            self._eat = self._eat or BLANKS
        self._parts = self._parts or parts


def _run_together(last: str, next: str) -> bool:
    """True for two words, or a sentence and a word, of which a blank has to stand between."""
    if is_wide(last) or is_wide(next):
        return False
    return next.isalnum() and (last.isalnum() or last in STOPS)
