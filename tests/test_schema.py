"""A signature and a docstring are a schema, and what a model sends for it is checked before the function is called."""

from __future__ import annotations

import datetime
import enum
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, Union

import jsonschema
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from firstword import ConfigError, ToolError
from firstword.schema import Arguments, read_docstring


class Caller:
    """What is filled in."""


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Place:
    """Where it is."""

    city: str
    country: str = "FR"
    tags: list[str] = field(default_factory=list)


class Item(BaseModel):
    """What is bought."""

    name: str = Field(description="what it is called")
    count: int = Field(1, ge=1)
    colour: Colour | None = None


class Pair(TypedDict):
    """Two."""

    left: int
    right: str


class Tree(BaseModel):
    """Holds itself."""

    name: str
    branches: list[Tree] = []


def arguments(function: Callable[..., Any], **more: Any) -> Arguments:
    return Arguments(function, filled=Caller, **more)


# --- schemas ----------------------------------------------------------------------------------------


def test_the_schema_comes_from_the_signature_and_the_docstring() -> None:
    """Types, defaults, and a sentence for each parameter; who calls is no part of it."""

    def order(item: Item, place: Place, kind: Literal["gift", "own"], caller: Caller, note: str = "none") -> None:
        """Order something.

        It comes the next day.

        Args:
            item: what it is,
                in one word.
            kind (str): for whom.
            note: what to write on it.

        Returns:
            Nothing.
        """

    found = arguments(order)

    assert found.description == "Order something.\n\nIt comes the next day."
    assert found.fills == ["caller"] and found.strict
    properties = found.parameters["properties"]
    assert list(properties) == ["item", "place", "kind", "note"]
    assert properties["item"]["description"] == "what it is, in one word."
    assert properties["kind"] == {"enum": ["gift", "own"], "type": "string", "description": "for whom."}
    assert properties["item"]["properties"]["name"] == {"type": "string", "description": "what it is called"}
    assert properties["item"]["properties"]["colour"]["anyOf"][0]["enum"] == ["red", "blue"]
    assert "$ref" not in str(found.parameters) and "title" not in str(found.parameters)


def objects(node: Any) -> list[Any]:
    """Return every object's schema within a schema."""
    found = [node] if isinstance(node, dict) and node.get("type") == "object" else []
    inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    return found + [each for part in inner for each in objects(part)]


def test_the_strict_form_names_and_demands_every_field() -> None:
    """What strict mode wants at every depth; null stands for what may be left out."""

    def order(item: Item, place: Place | None, pair: Pair, number: int = 7, when: Optional[str] = None) -> None:  # noqa: UP045
        """Order."""

    found = arguments(order)

    jsonschema.Draft202012Validator.check_schema(found.parameters)
    assert found.strict and "default" not in str(found.parameters)
    assert len(objects(found.parameters)) == 4
    for each in objects(found.parameters):
        assert each["additionalProperties"] is False and each["required"] == list(each["properties"])
    number = found.parameters["properties"]["number"]
    assert number == {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "(null: 7)"}


@pytest.mark.parametrize(
    "annotation",
    [dict[str, int], Any, tuple[int, str], Tree, Annotated[str, Field(max_length=3)], bytes, list[Any], dict, list],
    ids=str,
)
def test_what_does_not_fit_the_strict_form_is_said_plainly(annotation: Any) -> None:
    """Free keys, anything, tuples, what holds itself: the schema is pydantic's own, and `strict` says so."""

    def function(x, y=3): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"x": annotation, "y": int}
    found = arguments(function)

    jsonschema.Draft202012Validator.check_schema(found.parameters)
    assert not found.strict
    assert found.parameters["required"] == ["x"] and found.parameters["properties"]["y"]["default"] == 3


def test_a_function_without_parameters_has_a_schema_too() -> None:
    """Nothing is to be said."""

    def nothing() -> None: ...

    found = arguments(nothing)
    assert found.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert (found.description, found.strict, found.read({})) == ("", True, {})


# --- what is filled in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation",
    [
        Caller,
        Caller | None,
        Union[Caller, None],  # noqa: UP007
        Annotated[Caller, "who"],
        "Caller",
        "Caller | None",
        "Optional[Caller]",
        "module.that.is.not.here.Caller",
    ],
    ids=str,
)
def test_a_parameter_of_that_type_is_filled_in_however_it_is_written(annotation: Any) -> None:
    """As a type, in quotes, or imported for the type checker only."""

    def function(who, x): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"who": annotation, "x": "int"}
    found = arguments(function)
    assert (found.fills, list(found.parameters["properties"])) == (["who"], ["x"])


def test_types_that_are_written_beside_the_function_are_found() -> None:
    """A tool within a function, whose annotations are strings: by the closure, or by the names it is given."""

    class Inner(BaseModel):
        x: int

    def closed(a: Inner) -> type:
        return Inner

    def named(a: Inner) -> None: ...

    assert arguments(closed).read({"a": {"x": 1}}) == {"a": Inner(x=1)}
    assert arguments(named, names=locals()).read({"a": {"x": 1}}) == {"a": Inner(x=1)}


class Bound:
    """Something with a method, and callable itself."""

    def method(self, x: int) -> int:
        """Do it."""
        return x

    def __call__(self, x: Colour) -> Colour:
        """Do it too."""
        return x


def test_methods_and_callable_objects_are_read_as_functions() -> None:
    """`self` is no parameter."""
    assert arguments(Bound().method).read({"x": "5"}) == {"x": 5}
    assert arguments(Bound()).read({"x": "red"}) == {"x": Colour.RED}


# --- what no model can send -------------------------------------------------------------------------


def stars(*words: str) -> None: ...
def pairs(**words: str) -> None: ...
def first(x: str, /) -> None: ...
def untyped(x) -> None: ...  # type: ignore[no-untyped-def]
def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def sockets(x: socket.socket) -> None: ...
def functions(x: Callable[[int], int]) -> None: ...


@pytest.mark.parametrize("function", [stars, pairs, first, untyped, unknown, sockets, functions])
def test_a_signature_that_no_model_can_fill_is_refused_when_it_is_written(function: Callable[..., Any]) -> None:
    """The sentence names the function and the parameter, and says what to write."""
    with pytest.raises(ConfigError) as caught:
        arguments(function)
    assert repr(function.__name__) in caught.value.message and caught.value.hint


# --- what a model sends -----------------------------------------------------------------------------


def order(
    item: Item, place: Place, pair: Pair, number: int = 7, day: datetime.date | None = None, note: str = ""
) -> None:
    """Order."""


GOOD = {"item": {"name": "tea"}, "place": {"city": "Paris"}, "pair": {"left": 1, "right": "r"}}


def test_what_fits_is_read_as_what_the_function_takes() -> None:
    """Models, dataclasses, enums and dates are made; a number in a string is a number."""
    sent = {**GOOD, "number": "12", "day": "2026-01-31", "item": {"name": "tea", "count": 2, "colour": "blue"}}
    assert arguments(order).read(sent) == {
        "item": Item(name="tea", count=2, colour=Colour.BLUE),
        "place": Place("Paris"),
        "pair": {"left": 1, "right": "r"},
        "number": 12,
        "day": datetime.date(2026, 1, 31),
        "note": "",
    }


def test_null_stands_for_what_may_be_left_out_at_every_depth() -> None:
    """The strict form has a model send null: the function gets its defaults. What takes null gets null."""
    nested = {
        "item": {"name": "tea", "count": None, "colour": None},
        "place": {"city": "P", "country": None, "tags": None},
    }
    found = arguments(order).read({**GOOD, **nested, "number": None, "day": None, "note": None})

    assert found["item"] == Item(name="tea") and found["place"] == Place("P")
    assert (found["number"], found["day"], found["note"]) == (7, None, "")


def test_an_account_number_that_was_sent_as_a_number_is_its_digits() -> None:
    """A model does that; a round of asking back would be silence on the line."""

    def balance(account: str) -> None: ...

    assert arguments(balance).read({"account": 12345678}) == {"account": "12345678"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item": None}, "item: "),
        ({"item": {"name": "tea", "count": 0}}, "item.count: Input should be greater than or equal to 1."),
        ({"item": {"name": "tea", "colour": "green"}}, "item.colour: Input should be 'red' or 'blue'."),
        ({"place": "Paris"}, "place: Input should be an object."),
        ({"number": "many"}, "number: Input should be a valid integer"),
        ({"extra": 1}, "extra: Extra inputs are not permitted."),
        ({"day": "tomorrow"}, "day: "),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_field_by_field(change: dict[str, Any], said: str) -> None:
    """The field, the reason, and not what was sent."""
    with pytest.raises(ToolError) as caught:
        arguments(order).read({**GOOD, **change})
    assert caught.value.message.startswith("The arguments do not fit. ") and said in caught.value.message
    assert not any(word in caught.value.message for word in ("green", "many", "tomorrow", "pydantic", "Traceback"))


def test_of_many_faults_some_are_told() -> None:
    """A model that sends a hundred wrong fields needs no hundred sentences."""
    with pytest.raises(ToolError) as caught:
        arguments(order).read({**GOOD, **{f"wrong{number}": 1 for number in range(100)}})
    assert "And 95 more." in caught.value.message and len(caught.value.message) < 400


def test_names_that_pydantic_keeps_for_itself_are_free() -> None:
    """`copy`, `json` and `_x` are good names of parameters."""

    def function(
        copy: int, json: str, model_config: bool, _x: int, class_: str = Field("a", description="b")
    ) -> None: ...

    found = arguments(function)
    assert list(found.parameters["properties"]) == ["copy", "json", "model_config", "_x", "class_"]
    assert found.read({"copy": 1, "json": "j", "model_config": True, "_x": 2}) == {
        "copy": 1,
        "json": "j",
        "model_config": True,
        "_x": 2,
        "class_": "a",
    }


def test_words_of_a_parameter_may_stand_in_its_type() -> None:
    """As pydantic's Field, or as a plain string; they are nearer than the docstring's."""

    def function(
        a: Annotated[int, Field(ge=1, description="one")],
        b: Annotated[str, "two"],
        c: int = Field(3, description="three"),
    ) -> None:
        """Do.

        Args:
            a: not this.
            b: nor this.
        """

    properties = arguments(function).parameters["properties"]
    assert [properties[name]["description"][:5] for name in "abc"] == ["one", "two", "three"]
    assert properties["a"]["minimum"] == 1


# --- docstrings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told", "said"),
    [
        ("", "", {}),
        ("Say it.", "Say it.", {}),
        ("Say it.\n\nArgs:\n    a: one\n    b: two", "Say it.", {"a": "one", "b": "two"}),
        (
            "Say it.\n\nArgs:\n  a (int, optional): one:\n    and a half\n\n  b: two",
            "Say it.",
            {"a": "one: and a half", "b": "two"},
        ),
        ("Say it.\n\nArgs:\n    a: one\nReturns:\n    b: no\n\nThe end.", "Say it.\n\nThe end.", {"a": "one"}),
        (
            "Say it.\n\n:param a: one\n    more\n:param int b: two\n:returns: c",
            "Say it.",
            {"a": "one more", "b": "two"},
        ),
        ("Note: this is no section.\nArgs: neither is this.", "Note: this is no section.\nArgs: neither is this.", {}),
        ("Args:\n    *words: many\n    no colon here", "", {"words": "many no colon here"}),
    ],
    ids=["nothing", "a sentence", "google", "types and lines", "other sections", "sphinx", "no sections", "stars"],
)
def test_a_docstring_is_read(text: str, told: str, said: dict[str, str]) -> None:
    """Google's and Sphinx' ways to say what a parameter is."""
    assert read_docstring(text) == (told, said)
