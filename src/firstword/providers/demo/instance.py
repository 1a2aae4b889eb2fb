"""A valid instance of a JSON schema, made of what was said: the demo model's JSON answers and tool arguments.

Rules: nothing raises and every call ends soon; what is returned was checked against every keyword that is known here.
Values come, in this order, from `const`, what the words hold (an enum's value, a number, a name), `default`,
`examples`, `enum`, the words themselves, and last from thin air.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count, islice
from math import ceil, floor
from typing import Any, NamedTuple

import msgspec

from .pattern import LONGEST_TEXT, Pattern
from .schema import FORMATS, STEPS, TYPES, Impossible, Schema, length, listed, mapping, number, types

LONGEST_SCHEMA = 16_384  # bytes of JSON; a longer one counts as one that asks for nothing
DEEPEST = 40  # levels; a schema in real use has a handful
_ROOMY = 4  # levels in which optional properties and items are filled too
_MOST_ITEMS = 128
_TRIES = 64  # numbers or texts that are looked at for one value
_LARGEST = 10**18  # bounds beyond it are no place to look for a number
_TYPE_OF = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "minProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}


def instance(schema: Any, *, words: str, said: Sequence[Any] = (), steps: int = STEPS) -> Any:
    """Return a value that is valid under `schema`, or one as near as can be when none was found.

    `words` fills strings that ask for nothing else; each of `said` (numbers, names) is used once where it fits.
    `steps` bounds the work.
    """
    if not _short(schema):
        schema = {}
    for strict in (True, False):
        try:
            maker = _Maker(Schema(schema, steps=steps // 2), words=words, said=said, strict=strict)
            return maker.fill(schema, _Place())
        except (Impossible, RecursionError):
            continue
    return {}


def _short(schema: Any) -> bool:
    try:
        return len(msgspec.json.encode(schema)) <= LONGEST_SCHEMA
    except RecursionError:
        return False


class _Place(NamedTuple):
    """Where in the instance a value stands."""

    depth: int = 0
    variant: int = 0  # which of its valid values is wanted, so that the items of an array differ
    opened: frozenset[str] = frozenset()  # each `$ref` that is being filled around it


class _Maker:
    """The making of one instance; when it is not `strict`, a leaf for which nothing fits gets what comes nearest."""

    def __init__(self, schema: Schema, *, words: str, said: Sequence[Any], strict: bool) -> None:
        self._schema = schema
        self._enough = schema.left // 2  # steps; when fewer are left, only what is required is filled
        self._words = words or "demo"
        self._said = list(said[:_TRIES])
        self._strict = strict
        self._leaves: dict[str, Callable[[Mapping[str, Any], str], Iterator[Any]]] = {
            "string": self._strings,
            "number": self._numbers,
            "integer": self._numbers,
            "boolean": lambda *_: iter((True, False)),
            "null": lambda *_: iter((None,)),
        }

    def fill(self, schema: Any, place: _Place) -> Any:
        """Return the wanted variant, the last one when there are fewer. Raises Impossible when there is none."""
        if place.depth > DEEPEST:
            raise Impossible
        schema, opened = self._schema.whole(schema, place.opened)
        found: dict[str, Any] = {}
        for value in self._values(schema, place._replace(opened=opened)):
            written = repr(value)
            self._schema.step(length(written))  # the same value may be asked for in very many places
            found.setdefault(written, value)
            if len(found) > place.variant:
                break
        if found:
            last = list(found.values())[-1]
            self._said = [word for word in self._said if word is not last]
            return last
        if schema.get("nullable") is True:
            return None
        raise Impossible

    def _values(self, schema: Mapping[str, Any], place: _Place) -> Iterator[Any]:
        """Yield valid values, the most wanted first."""
        yield from (value for value in self._given(schema) if self._schema.valid(value, schema))
        if "const" in schema or "enum" in schema:
            return
        for keyword in ("anyOf", "oneOf"):
            if listed(schema.get(keyword)):
                yield from self._ways(schema, keyword, place=place)
                return
        for kind in _wanted_types(schema):
            try:
                if kind == "object":
                    yield self._object(schema, place)
                elif kind == "array":
                    yield self._array(schema, place)
                elif kind in self._leaves:
                    made = islice(self._leaves[kind](schema, kind), _TRIES + place.variant)
                    yield from self._sieved(made, schema)
            except Impossible:
                continue

    def _sieved(self, made: Iterator[Any], schema: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the valid ones of `made`; when near is good enough, then the first of the others too."""
        spare: list[Any] = []
        for value in made:
            if self._schema.valid(value, schema):
                yield value
            elif not spare:
                spare.append(value)
        if not self._strict:
            yield from spare

    def _given(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        """Yield what the schema or the words spell out."""
        if "const" in schema:
            yield schema["const"]
            return
        choices = listed(schema.get("enum"))
        self._schema.step(sum(map(length, choices)))
        heard = f" {self._words.lower()} "
        yield from (value for value in choices if isinstance(value, str) and _stands_in(value.lower(), heard))
        if "pattern" not in schema:  # not every pattern can be tried, and a name seldom fits one
            yield from self._said
        if "default" in schema:
            yield schema["default"]
        yield from listed(schema.get("examples"))
        yield from choices

    def _ways(self, schema: Mapping[str, Any], keyword: str, *, place: _Place) -> Iterator[Any]:
        """Yield a value of each branch of an `anyOf` or `oneOf`, null last."""
        rest = {key: wanted for key, wanted in schema.items() if key != keyword}
        ways = sorted(schema[keyword], key=lambda way: mapping(way).get("type") == "null")
        for turn in range(len(ways)):
            self._schema.step(len(ways))
            at = (turn + place.variant) % len(ways)
            others = ways[:at] + ways[at + 1 :]
            only: Any = {"not": {"anyOf": others}} if keyword == "oneOf" and others else True
            try:
                yield self.fill({"allOf": [rest, ways[at], only]}, place)
            except Impossible:
                continue

    def _object(self, schema: Mapping[str, Any], place: _Place) -> dict[str, Any]:
        """Return an object with all that is required and, near the root, what is not."""
        properties = mapping(schema.get("properties"))
        required = dict.fromkeys(name for name in listed(schema.get("required")) if isinstance(name, str))
        extra = schema.get("additionalProperties", True)
        low = _size(schema.get("minProperties"), 0)
        room = _size(schema.get("maxProperties"), len(properties) + len(required)) - len(required)
        roomy = place.depth < _ROOMY and self._schema.left >= self._enough
        inside = place._replace(depth=place.depth + 1)
        made: dict[str, Any] = {}
        for name in {**properties, **required}:
            if name not in required and (room <= 0 or not (roomy or len(made) + len(required) < low)):
                continue
            try:
                made[name] = self.fill(properties.get(name, extra), inside)
                room -= name not in required
            except Impossible:
                if name in required:
                    raise
        for at in range(min(low, _MOST_ITEMS) - len(made)):
            made[f"extra{at + 1}"] = self.fill(extra, inside)
        self._check(made, schema)
        return made

    def _array(self, schema: Mapping[str, Any], place: _Place) -> list[Any]:
        """Return an array with as many items as it must have, and near the root with one at least."""
        prefix = listed(schema.get("prefixItems"))
        low = _size(schema.get("minItems"), 0)
        wanted = max(low, len(prefix), "items" in schema) if place.depth < _ROOMY else low
        made: list[Any] = []
        for at in range(min(wanted, _size(schema.get("maxItems"), wanted), _MOST_ITEMS)):
            asked = prefix[at] if at < len(prefix) else schema.get("items", True)
            # Other items sound better than equal ones, and must be other when they are to be unique.
            unique = schema.get("uniqueItems") is True
            variants = (place.variant + at, *range(at + 8)) if unique else (place.variant + at % 8,)
            inside = (place._replace(depth=place.depth + 1, variant=variant) for variant in variants)
            try:
                made.append(self._item(asked, inside, unlike=made if unique else []))
            except Impossible:
                if at < low:
                    raise
                break
        self._check(made, schema)
        return made

    def _item(self, schema: Any, places: Iterator[_Place], *, unlike: list[Any]) -> Any:
        """Return the first of the variants that is none of `unlike`. Raises Impossible when there is none."""
        for place in places:
            item = self.fill(schema, place)
            if not any(self._schema.same(item, other) for other in unlike):
                return item
        raise Impossible

    def _check(self, made: Any, schema: Mapping[str, Any]) -> None:
        """Raise Impossible when `made`, whose parts are valid already, is not valid as a whole."""
        parts = ("properties", "additionalProperties", "items", "prefixItems")
        rest = {keyword: wanted for keyword, wanted in schema.items() if keyword not in parts}
        if self._strict and not self._schema.valid(made, rest):
            raise Impossible

    def _strings(self, schema: Mapping[str, Any], _: str) -> Iterator[str]:
        low = min(_size(schema.get("minLength"), 0), LONGEST_TEXT)
        high = _size(schema.get("maxLength"), LONGEST_TEXT)
        if (known := FORMATS.get(str(schema.get("format")))) is not None:
            yield from (known[1].format(at) for at in range(1, 10))
        if isinstance(pattern := schema.get("pattern"), str):
            beyond = max(0, low - _TRIES // 2)  # repeats that the least length needs, or nearly so many
            try:
                for at in range(_TRIES):
                    self._schema.step(2 * len(pattern))
                    yield Pattern(pattern, more=beyond + at, pick=at).text()
            except Impossible:
                if self._strict:
                    raise
        words = self._words
        while len(words) < low:
            words = f"{words} {words}"
        yield words if len(words) <= high else words[:high].rstrip().ljust(low, ".")
        for at in count(2):
            ending = f" {at}" if high > 4 else str(at)
            yield (words[: max(0, high - len(ending))].rstrip() + ending).ljust(low, ".")[:high]

    def _numbers(self, schema: Mapping[str, Any], kind: str) -> Iterator[float]:
        """Yield whole multiples from the low bound up or the high bound down, then what lies between the bounds."""
        lows = [number(schema.get(key)) for key in ("minimum", "exclusiveMinimum")]
        highs = [number(schema.get(key)) for key in ("maximum", "exclusiveMaximum")]
        low = max((bound for bound in lows if bound is not None and abs(bound) < _LARGEST), default=None)
        high = min((bound for bound in highs if bound is not None and abs(bound) < _LARGEST), default=None)
        step = number(schema.get("multipleOf")) or Fraction(1)
        if kind == "integer":
            step = Fraction(step.numerator)  # the least whole number that is a multiple of the step
        step = abs(step)
        yield _plain(step)
        start = ceil(low / step) if low is not None else floor(high / step) if high is not None else 1
        way = -1 if low is None and high is not None else 1
        yield from (_plain((start + way * at) * step) for at in range(_TRIES // 2))
        if kind == "number":
            bottom = low if low is not None else high - 1 if high is not None else Fraction(0)
            top = high if high is not None else bottom + 1
            yield from (_plain(bottom + (top - bottom) / at) for at in count(2))
        yield from (_plain((start + way * at) * step) for at in count(_TRIES // 2))


def _wanted_types(schema: Mapping[str, Any]) -> list[str]:
    """Return the types to try, null last; without `type`, first those that the other keywords are about."""
    wanted = types(schema)
    if wanted is None:
        wanted = list(dict.fromkeys([*(_TYPE_OF[key] for key in schema if key in _TYPE_OF), *TYPES]))
    return sorted((kind for kind in wanted if isinstance(kind, str)), key=lambda kind: kind == "null")


def _size(value: Any, otherwise: int) -> int:
    exact = number(value)
    return otherwise if exact is None else min(max(0, int(exact)), 10**9)


def _plain(exact: Fraction) -> float:
    return int(exact) if exact.denominator == 1 else float(exact)


def _stands_in(value: str, heard: str) -> bool:
    """True when `value` is in the words, not as a part of a longer word."""
    at = heard.find(value)
    while value and at >= 0:
        around = heard[at - 1 : at] + heard[at + len(value) : at + len(value) + 1]
        if not any(one.isascii() and one.isalnum() for one in around):
            return True
        at = heard.find(value, at + 1)
    return False
