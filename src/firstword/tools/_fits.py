"""Whether a model's arguments fit the JSON schema that it was given, and what is wrong when not.

Pure. It knows the words that say what kind of thing is meant: type, enum, const, required, properties, items, bounds,
and their combinations. What else a schema says (patterns, formats) is for whoever is called to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

KINDS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def misfits(value: Any, schema: Any, name: str = "") -> Iterator[str]:
    """Yield what is wrong with `value`, in sentences that quote none of it; `name` is where it stands."""
    if not isinstance(schema, Mapping):
        if schema is False:
            yield f"There is no {_called(name)}."
        return
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(KINDS.get(kind, lambda _: True)(value) for kind in kinds):
        yield f"{_the(name)} must be of the type {' or '.join(kinds)}."
        return
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(allowed, list) and not any(_same(value, each) for each in allowed):
        yield f"{_the(name)} must be one of the values that the schema names."
    yield from _out_of_bounds(value, schema, name)
    if isinstance(value, dict):
        yield from _members(value, schema, name)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from misfits(item, schema.get("items"), f"{name}[{position}]")
    for part in schema.get("allOf", ()):
        yield from misfits(value, part, name)
    if "not" in schema and not any(misfits(value, schema["not"], name)):
        yield f"{_the(name)} is what the schema excludes."
    for word in ("anyOf", "oneOf"):
        choices = schema.get(word)
        if choices and all(any(misfits(value, choice, name)) for choice in choices):
            yield f"{_the(name)} fits none of the forms that it may have."


def _members(value: Mapping[str, Any], schema: Mapping[str, Any], name: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{_the(_inner(name, key))} is missing."
    for key, item in value.items():
        yield from misfits(item, properties.get(key, rest), _inner(name, key[:64]))


def _out_of_bounds(value: Any, schema: Mapping[str, Any], name: str) -> Iterator[str]:
    if KINDS["number"](value):
        size, least, most = value, schema.get("minimum"), schema.get("maximum")
        over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if (_is_number(over) and size <= over) or (_is_number(under) and size >= under):
            yield f"{_the(name)} is out of its bounds."
    elif isinstance(value, str):
        size, least, most = len(value), schema.get("minLength"), schema.get("maxLength")
    elif isinstance(value, list):
        size, least, most = len(value), schema.get("minItems"), schema.get("maxItems")
    else:
        return
    if (_is_number(least) and size < least) or (_is_number(most) and size > most):
        yield f"{_the(name)} is out of its bounds."


def _is_number(value: Any) -> bool:
    return KINDS["number"](value)


def _same(value: Any, allowed: Any) -> bool:
    """JSON's sameness: true is not 1."""
    return bool(value == allowed) and isinstance(value, bool) == isinstance(allowed, bool)


def _inner(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _called(name: str) -> str:
    return f"argument {name!r}" if name else "argument"


def _the(name: str) -> str:
    return f"The {_called(name)}" if name else "What the tool was given"
