"""What the demo model fills schemas with: valid by the reference validator, and close to what was said."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from jsonschema import Draft202012Validator

from firstword.providers.demo.instance import instance
from firstword.providers.demo.pattern import Pattern
from firstword.providers.demo.schema import FORMATS, Impossible

Schema = Any
NODE = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}
NODE_OR_NULL = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
SHAPE = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}},
            "required": ["kind"],
        },
        {
            "type": "object",
            "properties": {"kind": {"const": "dot"}},
            "required": ["kind"],
            "additionalProperties": False,
        },
    ]
}


def errors(schema: Schema, value: Any) -> list[str]:
    """Return what the reference validator has against a value."""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{value!r}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 40, "maxLength": 41},
        {"type": "string", "maxLength": 0},
        {"type": "integer", "minimum": 7, "maximum": 12, "multipleOf": 5},
        {"type": "integer", "exclusiveMaximum": -3},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "minimum": 0.3, "multipleOf": 0.25},
        {"type": ["null", "boolean"]},
        {"enum": [None, {"a": 1}]},
        {"const": {"a": [1, None]}},
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 9},
            "minItems": 10,
            "uniqueItems": True,
        },
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False, "minItems": 2},
        {"type": "array", "items": {"type": "string", "format": "uuid"}, "minItems": 5, "uniqueItems": True},
        {"type": "array", "items": SHAPE, "minItems": 2, "uniqueItems": True},
        {"type": "array", "maxItems": 0, "items": {"type": "string"}},
        {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "maxProperties": 2},
        {"type": "object", "required": ["undescribed"], "additionalProperties": {"type": "boolean"}},
        {"type": "object", "properties": {"never": False, "always": True}, "additionalProperties": False},
        {"oneOf": [{"type": "number"}, {"type": "integer"}]},
        {"anyOf": [False, {"type": "integer", "minimum": 3, "maximum": 2}, {"type": "boolean"}]},
        {"allOf": [{"type": "number", "minimum": 2}, {"type": ["integer", "string"]}, {"maximum": 2.5}]},
        {
            "allOf": [
                {"properties": {"a": {"minLength": 3}}, "required": ["a"]},
                {"properties": {"a": {"maxLength": 4}}},
            ]
        },
        {"allOf": [{"anyOf": [{"required": ["a"]}]}, {"anyOf": [{"required": ["b"]}]}], "type": "object"},
        {
            "type": "object",
            "allOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}],
        },
        {"not": {"type": "string"}},
        {"type": "object", "properties": {"shape": SHAPE}, "required": ["shape"]},
        {
            "$ref": "#/definitions/a~1b",
            "definitions": {"a/b": {"type": "array", "items": {"$ref": "#/definitions/c"}}, "c": {}},
        },
        {"type": "string", "pattern": r"^(?:[A-Z]{2}-)?\d{3,}[^x-z\d]\.$", "minLength": 9},
        {},
        True,
    ],
)
def test_the_instance_is_valid(schema: Schema) -> None:
    """One schema for each thing that a schema can ask for."""
    for words, said in (("hello there, how are you", []), ("", []), ("3 eggs in Rome", [3, "Rome"])):
        assert errors(schema, instance(schema, words=words, said=said)) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_has_the_format_asked_for(name: str) -> None:
    """Nine of them, so that nine of an array are different."""
    schema = {"type": "array", "items": {"type": "string", "format": name}, "minItems": 9, "uniqueItems": True}

    assert errors(schema, instance(schema, words="hello")) == []


@pytest.mark.parametrize(
    ("required", "filled"),
    [
        (["value", "next"], {"$defs": {"node": {**NODE, "properties": {"value": {}, "next": NODE_OR_NULL}}}}),
        (["value"], {"$defs": {"node": NODE}}),
    ],
)
def test_a_recursive_schema_comes_to_an_end(required: list[str], filled: dict[str, Any]) -> None:
    """A list whose rest is a list or null, and one whose rest may be left out."""
    schema = {**filled, "$ref": "#/$defs/node"}
    schema["$defs"]["node"]["required"] = required

    assert errors(schema, instance(schema, words="hello")) == []


def test_a_tree_gets_branches_without_an_end_only_where_it_must() -> None:
    """A schema that is its own child, by `#`; a tree whose children are required but may be none."""
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"items": {"$ref": "#"}, "type": "array"}},
    }
    tree["required"] = ["name", "children"]

    assert instance(tree, words="oak") == {"name": "oak", "children": [{"name": "oak", "children": []}]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "two eggs in Rome"),
        ({"type": "string", "maxLength": 5}, "two e"),
        ({"type": "integer"}, 2),
        ({"type": "integer", "minimum": 3}, 3),
        ({"enum": ["Milan", "Rome"]}, "Rome"),
        ({"enum": ["Milan", "Ro"]}, "Milan"),
        ({"type": "string", "enum": ["a", "b"], "default": "b"}, "b"),
        ({"type": "string", "default": "Oslo"}, "Oslo"),
        ({"type": "string", "default": 3, "examples": [4, "Bern"]}, "Bern"),
        ({"type": "integer", "default": 2.5, "minimum": 9}, 9),
        ({"type": "string", "format": "date", "default": "2024-12-31"}, "2024-12-31"),
        ({"type": "string", "format": "ipv6", "default": "::1"}, "::1"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "two eggs in Rome"),
    ],
)
def test_a_value_comes_from_the_words_or_the_schema(schema: Schema, value: Any) -> None:
    """What was said goes first where it fits, then the default, then the examples."""
    assert instance(schema, words="two eggs in Rome", said=[2]) == value


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"$ref": "#"},
        {"$ref": "https://example.com/schema"},
        {"type": "string", "pattern": r"\p{Greek}(?=x)"},
        {"required": [[]], "minLength": "many", "enum": 3, "items": 4, "pattern": None, "format": [], "multipleOf": 0},
        {"type": "object", "properties": {"x": {"type": "no such type"}}, "required": ["x"]},
    ],
)
def test_what_cannot_be_filled_gets_something_all_the_same(schema: Schema) -> None:
    """Nothing is valid under it, or nobody can tell."""
    instance(schema, words="hello", said=[1])


def test_one_odd_property_does_not_spoil_the_others() -> None:
    """One property can have no value; the rest is filled as if it were not there."""
    never = {"type": "integer", "minimum": 3, "maximum": 2}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 8}, "b": never},
        "required": ["a", "b"],
    }

    assert instance(schema, words="hello")["a"] == 8


def test_nullable_is_the_last_resort() -> None:
    """The keyword of OpenAPI 3.0, which a JSON-schema validator does not know."""
    assert instance({"type": "string", "nullable": True}, words="hello") == "hello"
    assert instance({"type": "string", "enum": [], "nullable": True}, words="hello") is None


def _levels(depth: int, **level: Any) -> Schema:
    """Return a chain of definitions in which each holds three of the next."""
    each = {f"l{at}": {keyword: [{"$ref": f"#/$defs/l{at + 1}"}] * 3 for keyword in level} for at in range(depth)}
    return {"$defs": {**each, f"l{depth}": {"type": "string"}}, "$ref": "#/$defs/l0"}


@pytest.mark.parametrize(
    "schema",
    [
        _levels(40, allOf=True),
        _levels(40, oneOf=True),
        _levels(40, prefixItems=True),
        {"type": "string", "pattern": "^(a+)+$", "default": "a" * 60 + "!"},
        {"type": "string", "pattern": "(a|a)" * 40 + "b", "default": "a" * 60},
        {"type": "string", "pattern": "((a{999}){999}){999}"},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9, "items": {}}},
        {"type": "string", "minLength": 10**12},
        {"enum": ["no"] * 100_000},
    ],
)
def test_a_schema_made_to_take_for_ever_does_not(schema: Schema) -> None:
    """Each would cost hours if every way were tried; the bound is generous for a busy machine."""
    started = time.process_time()
    instance(schema, words="hello")

    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"^\d{5}(?:-\d{4})?$",
            r"^[A-Z][a-z]+$",
            r"^(red|green)$",
            r"^\+?[1-9]\d{1,14}$",
            r"\.pdf$",
            r"^[^\s@]+@[^\s@]+\.\w+$",
        ),
        *(
            r"[\w.-]{3}",
            r"^a{2,}b*?c+?$",
            r"^(?P<year>20\d\d)-(?:0[1-9])$",
            r"^\u0041\x42[\]]$",
            r"\bword\b",
            r"^a{b}$",
            "",
        ),
    ],
)
def test_a_text_made_for_a_pattern_matches_it(pattern: str) -> None:
    """The shortest one and longer ones, each with another choice of characters."""
    for at in range(12):
        assert re.search(pattern, Pattern(pattern, more=at, pick=at).text())


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "a)", "\\", "(?=a)", r"(a)\1", r"\p{L}", "(" * 9_999, r"[\ud800-\udfff]"]
)
def test_a_pattern_that_is_not_simple_is_impossible(pattern: str) -> None:
    """It is broken, too long, or looks around and back."""
    with pytest.raises(Impossible):
        Pattern(pattern).text()


# --- any schema -----------------------------------------------------------------------------------


@some.composite
def numbers(draw: some.DrawFn) -> Schema:
    schema: Schema = {"type": draw(some.sampled_from(["integer", "number"]))}
    low = draw(some.integers(-50, 50))
    bounds = [("minimum", low), ("exclusiveMinimum", low), ("maximum", low + 20), ("exclusiveMaximum", low + 20)]
    return schema | dict(
        draw(some.lists(some.sampled_from([*bounds, ("multipleOf", 3), ("multipleOf", 0.5)]), max_size=3))
    )


@some.composite
def texts(draw: some.DrawFn) -> Schema:
    low = draw(some.integers(0, 30))
    bounds = draw(some.lists(some.sampled_from([("minLength", low), ("maxLength", low + 9)]), max_size=2))
    return {"type": "string"} | draw(
        some.just(dict(bounds)) | some.builds(lambda name: {"format": name}, some.sampled_from([*FORMATS]))
    )


fixed = some.sampled_from([{"type": "boolean"}, {"type": "null"}, {"enum": ["x", 1, None]}, {"const": [2.5]}, {}, True])


def _compound(inner: some.SearchStrategy[Schema]) -> some.SearchStrategy[Schema]:
    arrays = some.builds(
        lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
        *(inner, some.integers(0, 3), some.integers(0, 3)),
    )
    objects = some.builds(
        lambda properties, needed, extra: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in needed],
            "additionalProperties": extra,
        },
        *(some.dictionaries(some.sampled_from("abcd"), inner, max_size=3), some.text("abcd"), some.booleans()),
    )
    unions = some.builds(lambda ways: {"anyOf": ways}, some.lists(inner, min_size=1, max_size=3))
    tagged = some.builds(
        lambda ways: {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": at}, "it": way}, "required": ["kind", "it"]}
                for at, way in enumerate(ways)
            ]
        },
        some.lists(inner, min_size=1, max_size=3),
    )
    both = some.builds(
        lambda one, other: {"allOf": [{"properties": {"p": one}}, {"properties": {"q": other}, "required": ["q"]}]},
        inner,
        inner,
    )
    return arrays | objects | unions | tagged | both.map(lambda schema: schema | {"type": "object"})


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    some.recursive(numbers() | texts() | fixed, _compound, max_leaves=10),
    some.sampled_from(["", "set it to 7 in Paris"]),
)
def test_any_schema_gets_a_valid_instance(schema: Schema, words: str) -> None:
    """Schemas nested at random, all of which can be filled."""
    assert errors(schema, instance(schema, words=words, said=[7, "Paris"])) == []
