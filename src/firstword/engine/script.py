"""The script of a call: a line is a verb and what it is about, and the same lines are the commands of a conversation.

Pure. A script is read whole before anything is said, so that a mistake on its last line is told at once.
"""

from __future__ import annotations

import base64
import mimetypes
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .conversation import Interruption
from .marks import Marks

USAGE = {
    "say": "say WORDS: the user says it; without words, nothing was understood",
    "message": "message WORDS: the user types it",
    "think": "think WORDS: the engine is told to think about it",
    "speak": "speak WORDS: the engine is told to say it, without a model",
    "silence": "silence: the user was silent for too long",
    "wait": "wait SECONDS: the user says nothing for so long",
    "again": "again [TIMES [SECONDS]]: the last turn is sent again, each time but the last closed after SECONDS",
    "image": "image URL or FILE: it goes out with the next turn",
    "interrupt": 'interrupt "WORDS" or SECONDS: the next reply is cut off when they were heard, or when they are over',
    "who": "who UID [VOICE ...]: another user speaks, and these voices are recognised",
    "presence": "presence KEY=VALUE: what the user shares",
    "set": "set NAME VALUE: a setting, as greeting_message, max_history, silence_timeout",
    "param": "param NAME VALUE: one of llm.params, as model or channel; null takes it away",
    "tool": "tool NAME RESULT: the engine owns this tool, which always gives back RESULT",
    "expect": 'expect [not] contains "WORDS", expect [not] heard "WORDS", or expect FIELD < VALUE',
}
COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MAX_AGAIN = 100

_COMPARISON = re.compile(r"(\w+)\s*(==|!=|<=|>=|<|>)\s*(.+)")
_CONTAINS = re.compile(r"(not\s+)?(contains|heard)\s+(.+)")


class ScriptError(ConfigError):
    """A line of a script is wrong."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line: its number from 1, its verb, what the verb needs, and the line as it was written."""

    number: int
    verb: str
    values: tuple[Any, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a turn should have been like. `told` is how it was written."""

    told: str
    field: str
    holds: Callable[[Any], bool]

    def check(self, marks: Marks) -> str | None:
        """Return what is wrong with a turn, or None."""
        value = getattr(marks, self.field)
        try:
            if self.holds(value):
                return None
        except TypeError:  # nothing, or another kind of thing
            pass
        was = "it did not happen" if value is None else f"it was {msgspec.json.encode(value).decode()}"
        return f"expected {self.told}, and {was}"


def read_script(text: str) -> list[Step]:
    """Return the steps of a script. Raises ScriptError, which names the line. Blank lines and `#` are passed over."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            steps.append(read_step(line, number))
    return steps


def read_step(line: str, number: int) -> Step:
    """Return the step that a line says. Raises ScriptError."""
    verb, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if verb not in USAGE:
        raise ScriptError(f"Line {number}: {verb!r} is no command.", hint=f"one of {', '.join(USAGE)}")
    try:
        values = _READERS[verb](rest)
    except (ValueError, OSError) as error:
        why = (
            str(error) if type(error) is ValueError and "convert" not in str(error) else "that is not how it is written"
        )
        raise ScriptError(f"Line {number}: {why}.", hint=USAGE[verb]) from None
    return Step(number, verb, values, line.strip())


# --- what each verb needs -----------------------------------------------------------------------------


def _any_words(rest: str) -> tuple[str]:
    return (unquoted(rest),)


def _words(rest: str) -> tuple[str]:
    if not unquoted(rest):
        raise ValueError("there are no words")
    return (unquoted(rest),)


def _nothing(rest: str) -> tuple[()]:
    if rest:
        raise ValueError("nothing may follow")
    return ()


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        raise ValueError(f"{text!r} is no number of seconds")
    return float(text)


def _again(rest: str) -> tuple[int, float | None]:
    times, _, after = rest.partition(" ")
    if times and not (times.isdecimal() and 0 < int(times) <= MAX_AGAIN):
        raise ValueError(f"{times!r} is no number from 1 to {MAX_AGAIN}")
    return int(times or 1), _seconds(after.strip()) if after else None


def _interrupt(rest: str) -> tuple[Interruption]:
    if not unquoted(rest):
        raise ValueError("it is not said when")
    if rest[0].isdecimal() or rest[0] == ".":
        return (Interruption(after=_seconds(rest)),)
    return (Interruption(words=unquoted(rest)),)


def _image(rest: str) -> tuple[str]:
    rest = unquoted(rest)
    if re.match(r"(https?://|data:)", rest):
        return (rest,)
    path = Path(rest)
    if not rest or not path.is_file():
        raise ValueError(f"there is no file {rest!r}")
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not kind.startswith("image/"):
        raise ValueError(f"{path.name!r} has no ending of an image")
    return (f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}",)


def _who(rest: str) -> tuple[str, list[str]]:
    uid, *voices = rest.split() or [""]
    if not uid:
        raise ValueError("the uid is missing")
    return uid, voices


def _pair(rest: str) -> tuple[str, str]:
    name, equals, value = rest.partition("=")
    if not name.strip() or not equals:
        raise ValueError("there is no KEY=VALUE")
    return name.strip(), unquoted(value.strip())


def _named(rest: str) -> tuple[str, str]:
    name, _, value = rest.partition(" ")
    if not name or not value.strip():
        raise ValueError("a name and a value are needed")
    return name, unquoted(value.strip())


def _param(rest: str) -> tuple[str, Any]:
    name, _, value = rest.partition(" ")
    if not name or not value.strip():
        raise ValueError("a name and a value are needed")
    return name, value_of(value.strip())


def _expect(rest: str) -> tuple[Expectation]:
    if found := _CONTAINS.fullmatch(rest):
        words, has_not = unquoted(found[3]).casefold(), bool(found[1])
        field = "text" if found[2] == "contains" else "heard"
        return (Expectation(rest, field, lambda value: (words in value.casefold()) is not has_not),)
    found = _COMPARISON.fullmatch(rest)
    known = [each.name for each in fields(Marks)]
    if found is None:
        raise ValueError("that is nothing that can be expected")
    if found[1] not in known:
        raise ValueError(f"a turn has no {found[1]!r}, but {', '.join(known)}")
    compare, wanted = COMPARES[found[2]], value_of(found[3])
    return (Expectation(rest, found[1], lambda value: compare(value, wanted)),)


def unquoted(text: str) -> str:
    """Return a text without the quotes around it, if there are any."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            return text[1:-1]
    return text


def value_of(text: str) -> Any:
    """Return what a text means as JSON; the text itself when it is none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


_READERS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "say": _any_words,
    "message": _words,
    "think": _words,
    "speak": _words,
    "silence": _nothing,
    "wait": lambda rest: (_seconds(rest),),
    "again": _again,
    "image": _image,
    "interrupt": _interrupt,
    "who": _who,
    "presence": _pair,
    "set": _named,
    "param": _param,
    "tool": _named,
    "expect": _expect,
}
