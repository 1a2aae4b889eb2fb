"""Texts of the operator's with places for a model's arguments: `{name}`, and `${NAME}` for a secret.

Pure. A text is read once, at start, and what is put into it is never read again: an argument that looks like a
template is just an argument. There are no formats, attributes or indexes. Each kind of place escapes in its own way;
what cannot be escaped there is refused, as a ToolError that the model may mend.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from ..errors import ConfigError, ToolError

MAX_TARGET = 8 * 1024  # bytes of a path and query, and of a header's value; servers take no more
DECODED_AT_MOST = 5  # times that somebody on the way may decode a path; more is no name of anything

_PIECE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\{([A-Za-z_][A-Za-z0-9_-]*)\}|([{}])|([^{}$]+|\$)")
MISSING: Any = object()  # what stands for an argument that was not given


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for the argument `name`."""

    name: str


@dataclass(frozen=True, slots=True, repr=False)
class Template:
    """A text in pieces; `secrets` are the words of the environment that it holds, which are shown nowhere."""

    pieces: tuple[str | Slot, ...]
    secrets: tuple[str, ...] = field(default=())

    @property
    def names(self) -> set[str]:
        """The arguments that it has places for."""
        return {piece.name for piece in self.pieces if isinstance(piece, Slot)}

    @property
    def only(self) -> str | None:
        """The argument that it consists of, when it is nothing else."""
        first = self.pieces[0] if len(self.pieces) == 1 else None
        return first.name if isinstance(first, Slot) else None

    def lacks(self, arguments: Mapping[str, Any]) -> bool:
        """True when one of its arguments was not given, or is null."""
        return any(arguments.get(name) is None for name in self.names)


def read(text: str, environment: Mapping[str, str] | None = None) -> Template:
    """Read a template. Without an `environment` there can be no secrets in it.

    Raises ConfigError for a brace that is neither, and for a secret that is not set, which it names.
    """
    pieces: list[str | Slot] = []
    secrets = []
    for match in _PIECE.finditer(text):
        secret, name, brace, literal = match.groups()
        if brace:
            raise ConfigError("A template of a tool holds a brace that is no place.", hint="{name} is the only form")
        if secret and environment is None:
            raise ConfigError(
                f"${{{secret}}} stands where no secret may.", hint="secrets go into headers or query, not into a path"
            )
        if secret:
            value = (environment or {}).get(secret)
            if not value:
                raise ConfigError(f"A tool needs {secret}, which is not set.", hint=f"set {secret} in the environment")
            secrets.append(value)
            pieces.append(value)
        else:
            pieces.append(Slot(name) if name else literal)
    return Template(tuple(pieces), tuple(secrets))


def fixed(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text that has places for secrets only. Raises ConfigError as `read` does."""
    template = read(text, environment)
    if template.names:
        raise ConfigError(f"There is no argument {min(template.names)!r} here.", hint="${NAME} is a secret's place")
    return "".join(piece for piece in template.pieces if isinstance(piece, str))


def words(name: str, value: Any) -> str:
    """Return an argument as text: strings as they are, numbers and truth values as JSON writes them."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ToolError(f"The argument {name!r} holds half of a character.") from None
        return value
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return msgspec.json.encode(value).decode()
    raise ToolError(f"The argument {name!r} must be a text or a number.")


def in_path(template: Template, arguments: Mapping[str, Any]) -> str:
    """Return one segment of a path. What would end it, or lead out of it, is refused."""
    said = "".join(_segment(piece.name, arguments) if isinstance(piece, Slot) else piece for piece in template.pieces)
    if template.names and _leads_elsewhere(said):
        raise ToolError(f"The argument {min(template.names)!r} would lead elsewhere.")
    return said


def _segment(name: str, arguments: Mapping[str, Any]) -> str:
    value = arguments.get(name)
    if value is None or value == "":
        raise ToolError(f"The argument {name!r} is missing.")
    text = _short(name, words(name, value))
    if any(sign < " " or sign == "\x7f" for sign in text):
        raise ToolError(f"The argument {name!r} holds a control character.")
    if _leads_elsewhere(text):
        raise ToolError(f"The argument {name!r} would lead elsewhere.")
    return quote(text, safe="")


def _leads_elsewhere(text: str) -> bool:
    """True when somebody who decodes `text`, once or again, may find `..` in it."""
    for _ in range(DECODED_AT_MOST):
        parts = re.split(r"[/\\]", text)
        if any(part.partition(";")[0].strip() in (".", "..") for part in parts):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def in_query(key: str, template: Template, arguments: Mapping[str, Any]) -> list[str]:
    """Return the pairs `key=value` of one entry of a query: one, one for each item of a list, or none."""
    if template.lacks(arguments):
        return []
    only = template.only
    values = arguments[only] if only is not None and isinstance(arguments[only], list) else None
    said = [_filled(template, arguments)] if values is None else [words(only or key, value) for value in values]
    for text in said:
        if "\0" in _short(key, text):
            raise ToolError(f"What goes into {key!r} holds a null character.")
    return [f"{quote(key, safe='')}={quote(text, safe='')}" for text in said]


def in_header(name: str, template: Template, arguments: Mapping[str, Any]) -> str | None:
    """Return a header's value, or None when it has no argument to hold."""
    if template.lacks(arguments):
        return None
    text = _short(name, _filled(template, arguments))
    if any(not (" " <= sign <= "~" or sign == "\t") for sign in text):
        raise ToolError(f"What goes into the header {name!r} holds a sign that a header cannot.")
    return text.strip()


def _filled(template: Template, arguments: Mapping[str, Any]) -> str:
    return "".join(
        words(piece.name, arguments[piece.name]) if isinstance(piece, Slot) else piece for piece in template.pieces
    )


def _short(name: str, text: str) -> str:
    if len(text) > MAX_TARGET:
        raise ToolError(f"What goes into {name!r} is longer than {MAX_TARGET} signs.")
    return text


# --- bodies: what stands in them is never a text that is put together, but a value -----------------


def read_body(value: Any) -> Any:
    """Read a body: its texts are templates, at whatever depth. Raises ConfigError."""
    if isinstance(value, str):
        return read(value)
    if isinstance(value, Mapping):
        return {str(key): read_body(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [read_body(item) for item in value]
    return value


def names_in(body: Any) -> set[str]:
    """Return the arguments that a body has places for."""
    if isinstance(body, Template):
        return body.names
    items = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return set().union(*(names_in(item) for item in items))


def in_body(body: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a body with its arguments. One that is all of a text keeps its type; what lacks one is left out."""
    if isinstance(body, Template):
        if body.only is not None:
            return arguments.get(body.only, MISSING)
        return MISSING if body.lacks(arguments) else _filled(body, arguments)
    if isinstance(body, dict):
        filled = {key: in_body(item, arguments) for key, item in body.items()}
        return {key: item for key, item in filled.items() if item is not MISSING}
    if isinstance(body, list):
        return [item for item in (in_body(item, arguments) for item in body) if item is not MISSING]
    return body
