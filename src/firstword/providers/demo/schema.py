"""The demo model's reading of JSON schemas: whether a value is valid, and what a schema asks for in all.

Rules: a keyword that is not known here, or makes no sense, asks for nothing; a step is counted for each thing that is
walked over, so every question ends; a request's own `pattern` is only run where it cannot run away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

STEPS = 20_000  # for all the instances of a request: some hundredths of a second, in which nobody else is served
LONGEST_PATTERN = 256  # characters
_MATCHED = 64  # characters of a text that a pattern is run on
_MATCHING = 50  # steps that a pattern costs, besides its length
_DIVIDING = 20  # steps: exact numbers are slow
_CHARACTERS = 8  # of a text that one step walks over
# A pattern may run away when it repeats a group or has many ways to match; a doubled set operator only warns.
_RUNS_AWAY = re.compile(r"\)[?*+{]|\(\?(?!:)|\[\[|--|&&|~~|\|\|")
_BRANCHES = re.compile(r"[?*+|]|\{\d*,\d*\}")

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

_HOUR = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
_LONG, _SHORT = r"(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])", r"(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
_DAY = rf"(?!0000)\d{{4}}-(?:{_LONG}|{_SHORT}|02-(?:0[1-9]|1\d|2[0-8]))"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_SHORTENED = r"(?=.*::)(?!.*::.*::|.*:::|:[^:]|.*[^:]:$)(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

# format -> (what a valid text looks like, a valid text with a place for a digit from 1 to 9)
FORMATS = {
    "date": (_DAY, "2025-01-2{}"),
    "time": (_HOUR, "09:3{}:00Z"),
    "date-time": (f"{_DAY}T{_HOUR}", "2025-01-20T09:3{}:00Z"),
    "duration": (r"P(?=.)(?:\d+[YMWD])*(?:T(?=.)(?:\d+H)?(?:\d+M)?(?:\d+S)?)?", "PT{}H"),
    "email": (r"[\w.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}", "demo{}@example.com"),
    "hostname": (rf"{_LABEL}(?:\.{_LABEL}){{0,8}}", "demo{}.example.com"),
    "uri": (r"[a-z][a-z0-9+.-]{0,30}:[^\s<>\"{}|\\^`]+", "https://example.com/{}"),
    "uuid": (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "6f1c24a8-7d1b-4c55-9f5e-0b6f0a4f2d3{}"),
    "ipv4": (rf"{_OCTET}(?:\.{_OCTET}){{3}}", "192.0.2.{}"),
    "ipv6": (rf"(?:[0-9a-f]{{1,4}}:){{7}}[0-9a-f]{{1,4}}|{_SHORTENED}", "2001:db8::{}"),
}


class Impossible(Exception):
    """No valid value was found this way; whoever asked tries another."""


class Schema:
    """One schema with all that its `$ref`s can reach, and the steps that are left to walk over it."""

    def __init__(self, root: Any, *, steps: int = STEPS) -> None:
        self.root = root
        self.left = steps

    def step(self, many: int = 1) -> None:
        """Count steps. Raises Impossible when all of them are spent."""
        self.left -= many
        if self.left < 0:
            raise Impossible

    def target(self, ref: str) -> Any:
        """Return what a `$ref` into this very document points at; True, which asks for nothing, for any other."""
        self.step(length(ref))
        at = self.root
        for name in ref.split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and name.isdecimal() and int(name[:6]) < len(at):
                at = at[int(name[:6])]
            elif isinstance(at, dict) and name in at:
                at = at[name]
            else:
                return True
        return at if ref.startswith("#") else True

    def valid(self, value: Any, schema: Any) -> bool:
        """True when `value` is valid under `schema`. Raises Impossible when the steps are spent."""
        self.step(_width(schema) + length(value))
        if not isinstance(schema, Mapping):
            return schema is not False
        for keyword, wanted in schema.items():
            check = _CHECKS.get(keyword)
            try:
                if check is not None and not check(self, value, wanted, schema):
                    return False
            except (TypeError, ValueError, AttributeError, OverflowError):
                continue  # "minLength": "many" and the like
        return True

    def whole(self, schema: Any, opened: frozenset[str]) -> tuple[dict[str, Any], frozenset[str]]:
        """Return `schema` with its `$ref` and `allOf` folded in, and the `$ref`s that are open inside it.

        A `$ref` inside itself is Impossible: a value without it is always shorter, so every search ends.
        """
        self.step(_width(schema) + len(opened))
        if schema is False:
            raise Impossible
        if not isinstance(schema, Mapping):
            return {}, opened
        found = {keyword: wanted for keyword, wanted in schema.items() if keyword not in ("$ref", "allOf")}
        parts = [(part, opened) for part in listed(schema.get("allOf"))]
        ref = schema.get("$ref")
        if isinstance(ref, str):
            if ref in opened:
                raise Impossible
            parts.append((self.target(ref), opened | {ref}))
        inside = opened
        for part, outside in parts:
            asked, reached = self.whole(part, outside)
            self.step(_width(found) + _width(asked))
            found, inside = self._both(found, asked), inside | reached
        return found, inside

    def same(self, one: Any, other: Any) -> bool:
        """True when two values are the same in JSON: 1 is 1.0, but true is not 1. Raises Impossible as `valid` does."""
        self.step()
        if isinstance(one, bool) or isinstance(other, bool):
            return one is other
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self.same, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.same(one[key], other[key]) for key in one)
        return bool(one == other)

    def matches(self, pattern: Any, text: str) -> bool | None:
        """Say whether `pattern` is found in `text`; None when it is better not to try."""
        if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN or len(text) > _MATCHED:
            return None
        self.step(_MATCHING + len(pattern))
        if _RUNS_AWAY.search(pattern) or len(_BRANCHES.findall(pattern)) > 1:
            return None
        try:
            return re.search(pattern, text) is not None
        except (re.error, OverflowError, RecursionError):
            return None

    def _both(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        """Return one schema that asks for what `one` and `other` ask for."""
        found = {**other, **one}
        waiting = []
        for keyword in [word for word in one if word in other and word not in ("properties", "type")]:
            try:
                found[keyword] = _JOINED[keyword](one[keyword], other[keyword])
            except (KeyError, TypeError):
                if not self.same(one[keyword], other[keyword]):
                    waiting.append({keyword: other[keyword]})
        if "type" in one and "type" in other:
            found["type"] = _common_types(types(one) or [], types(other) or [])
        if "properties" in one or "properties" in other:
            found["properties"] = _properties(one, other)
        if waiting:
            found["allOf"] = [*listed(found.get("allOf")), *waiting]
        return found


def length(value: Any) -> int:
    """Return the steps that a walk over a value costs, what is inside its parts aside."""
    if isinstance(value, str):
        return len(value) // _CHARACTERS
    return len(value) if isinstance(value, (list, dict)) else 0


def _width(schema: Any) -> int:
    """Return the steps that one look costs: each keyword, each name or value that it lists."""
    if not isinstance(schema, Mapping):
        return 1
    return 1 + sum(1 + len(wanted) if isinstance(wanted, (list, dict)) else 1 for wanted in schema.values())


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> Fraction | None:
    """Return a finite JSON number exactly as it was written, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return Fraction(str(value)) if math.isfinite(value) else None
    return Fraction(value)


def types(schema: Mapping[str, Any]) -> list[str] | None:
    """Return the names in `type`, None when any type will do."""
    wanted = schema.get("type")
    return [wanted] if isinstance(wanted, str) else wanted[: len(TYPES)] if isinstance(wanted, list) else None


def _is_one(value: Any, kinds: list[str] | None) -> bool:
    return kinds is None or any(_is(value, kind) for kind in kinds)


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return number(value) is not None
    if kind == "integer":
        exact = number(value)
        return exact is not None and exact.denominator == 1
    python = {"string": str, "boolean": bool, "object": dict, "array": list, "null": type(None)}.get(kind)
    return python is not None and isinstance(value, python)


def _fits_format(value: Any, name: Any) -> bool:
    known = FORMATS.get(name)
    return known is None or not isinstance(value, str) or re.fullmatch(known[0], value, re.IGNORECASE) is not None


def _is_multiple(schema: Schema, value: Any, of: Any) -> bool:
    schema.step(_DIVIDING)
    return not number(of) or (number(value) or 0) % (number(of) or 1) == 0


def _each_differs(schema: Schema, items: list[Any]) -> bool:
    return not any(schema.same(item, other) for at, item in enumerate(items) for other in items[:at])


def _fits_names(schema: Schema, value: Mapping[str, Any], extra: Any, whole: Mapping[str, Any]) -> bool:
    names = mapping(whole.get("properties"))
    patterns = mapping(whole.get("patternProperties"))
    return all(
        schema.valid(value[name], extra)
        for name in value
        if name not in names and not any(schema.matches(pattern, name) for pattern in patterns)
    )


# keyword -> check(schema, value, what the keyword says, the schema it stands in)
_CHECKS: dict[str, Callable[[Schema, Any, Any, Mapping[str, Any]], bool]] = {
    "$ref": lambda schema, value, ref, _: schema.valid(value, schema.target(ref)),
    "type": lambda _, value, __, whole: _is_one(value, types(whole)),
    "enum": lambda schema, value, wanted, _: any(schema.same(value, one) for one in wanted),
    "const": lambda schema, value, wanted, _: schema.same(value, wanted),
    "minimum": lambda _, value, low, __: number(value) is None or value >= low,
    "maximum": lambda _, value, high, __: number(value) is None or value <= high,
    "exclusiveMinimum": lambda _, value, low, __: number(value) is None or isinstance(low, bool) or value > low,
    "exclusiveMaximum": lambda _, value, high, __: number(value) is None or isinstance(high, bool) or value < high,
    "multipleOf": lambda schema, value, of, _: _is_multiple(schema, value, of),
    "minLength": lambda _, value, low, __: not isinstance(value, str) or len(value) >= low,
    "maxLength": lambda _, value, high, __: not isinstance(value, str) or len(value) <= high,
    "pattern": lambda schema, value, pattern, _: (
        not isinstance(value, str) or schema.matches(pattern, value) is not False
    ),
    "format": lambda _, value, name, __: _fits_format(value, name),
    "minItems": lambda _, value, low, __: not isinstance(value, list) or len(value) >= low,
    "maxItems": lambda _, value, high, __: not isinstance(value, list) or len(value) <= high,
    "uniqueItems": lambda schema, value, wanted, _: wanted is not True or _each_differs(schema, listed(value)),
    "prefixItems": lambda schema, value, each, _: all(map(schema.valid, listed(value), each)),
    "items": lambda schema, value, item, whole: all(
        schema.valid(one, item) for one in listed(value)[len(listed(whole.get("prefixItems"))) :]
    ),
    "minProperties": lambda _, value, low, __: not isinstance(value, dict) or len(value) >= low,
    "maxProperties": lambda _, value, high, __: not isinstance(value, dict) or len(value) <= high,
    "required": lambda _, value, names, __: not isinstance(value, dict) or all(name in value for name in listed(names)),
    "properties": lambda schema, value, each, _: all(
        schema.valid(one, each[name]) for name, one in mapping(value).items() if name in each
    ),
    "additionalProperties": lambda schema, value, extra, whole: _fits_names(schema, mapping(value), extra, whole),
    "allOf": lambda schema, value, each, _: all(schema.valid(value, one) for one in each),
    "anyOf": lambda schema, value, each, _: any(schema.valid(value, one) for one in each),
    "oneOf": lambda schema, value, each, _: sum(schema.valid(value, one) for one in each) == 1,
    "not": lambda schema, value, other, _: not schema.valid(value, other),
}

# keyword -> what two schemas ask for together; of a keyword that is not here, the second waits in `allOf`
_JOINED: dict[str, Callable[[Any, Any], Any]] = {
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "minProperties": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
    "maxProperties": min,
    "uniqueItems": lambda one, other: one is True or other is True,
    "items": lambda one, other: {"allOf": [one, other]},
    "additionalProperties": lambda one, other: {"allOf": [one, other]},
    "not": lambda one, other: {"anyOf": [one, other]},
    "allOf": lambda one, other: one + other,
    **dict.fromkeys(("title", "description", "default", "examples", "$defs", "definitions"), lambda one, _: one),
}


def _common_types(one: list[str], other: list[str]) -> list[str]:
    in_both = [kind for kind in one if kind in other]
    if ("integer" in one and "number" in other) or ("number" in one and "integer" in other):
        in_both.append("integer")
    return list(dict.fromkeys(in_both))


def _properties(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of both; one that a side does not name is to that side an additional one."""
    sides = [(mapping(side.get("properties")), side.get("additionalProperties", True)) for side in (one, other)]
    found = {}
    for name in dict.fromkeys([*sides[0][0], *sides[1][0]]):
        asked = [part for names, extra in sides if (part := names.get(name, extra)) is not True]
        found[name] = asked[0] if len(asked) == 1 else {"allOf": asked}
    return found
