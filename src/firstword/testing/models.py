"""Scripted models: what a model does with a request, in words that read as a sentence.

Rules:
- A model is a script (the list of steps of `firstword.testing.script`), `refuses_connection()` or the like, or a
  function that returns one of these for the `Record` of a request; its `attempt` counts the requests of that model.
- Everything in `firstword.testing.script` that is a script is a model too.
"""

from __future__ import annotations

import http
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, Union, overload

from firstword.testing import script
from firstword.testing.script import Script
from firstword.testing.witness import Record


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A model to which there is no connection: refused `after` so many seconds, or never made when that is infinite."""

    after: float = 0.0


Scripted: TypeAlias = Union[Script, Unreachable, "Callable[[Record], Scripted]"]


def says(words: str, every: float = 0.0) -> Script:
    """Give a whole good answer, word by word, `every` seconds one."""
    return script.events(script.says(words, every))


def drips(words: str, every: float) -> Script:
    """Give a whole good answer slowly: a word `every` seconds, the first one as well."""
    return says(words, every)


def thinks(thought: str, words: str, every: float = 0.0) -> Script:
    """Reason `thought`, a word `every` seconds, which nobody hears, then say `words`."""
    thoughts = [step for word in thought.split() for step in (script.wait(every), script.reasoning(f"{word} "))]
    return script.events(script.role(), thoughts, script.words(words), script.finish(), script.done())


def silent() -> Script:
    """Take the request and never answer."""
    return [script.wait()]


def fails(status: int = 500, retry_after: float | None = None) -> Script:
    """Answer with an HTTP status and an error body; `retry_after` seconds stand in the header of that name."""
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return script.refuses(status, f"{http.HTTPStatus(status).phrase}.", type=kind, headers=headers)


def cuts(words: str) -> Script:
    """Say `words` and close the connection in mid-answer."""
    return script.closes_after(words)


def stalls(words: str) -> Script:
    """Say `words` and go silent in mid-answer, the connection open."""
    return script.stalls_after(words)


def refuses_connection() -> Unreachable:
    """Refuse the connection, as a server that is not running."""
    return Unreachable()


def never_connects() -> Unreachable:
    """Never take the connection, as a server behind a firewall that drops what comes."""
    return Unreachable(after=math.inf)


@overload
def after(seconds: float, model: Script) -> Script: ...
@overload
def after(seconds: float, model: Scripted) -> Scripted: ...
def after(seconds: float, model: Scripted) -> Scripted:
    """Do nothing for `seconds`, then what `model` does."""
    if isinstance(model, Unreachable):
        return replace(model, after=model.after + seconds)
    if callable(model):
        return lambda record: after(seconds, model(record))
    return [script.wait(seconds), *model]


def then(first: Scripted, *others: Scripted) -> Scripted:
    """Do one thing with each request in turn, and the last one ever after."""
    models = (first, *others)
    return lambda record: models[min(record.attempt, len(models)) - 1]


def drawn(model: Scripted, record: Record) -> Script | Unreachable:
    """Return what `model` does with the request of `record`."""
    while callable(model):
        model = model(record)
    return model
