"""What a function takes, as a JSON schema for a model, and the check of what a model sends for it.

The types are pydantic's: whatever it can read from JSON may stand in a signature. The words come from the docstring.
Where the schema fits the strict form that some providers can hold a model to, it has that form: no other field than
those named, and each of them required, null standing for what may be left out.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec

from .errors import ConfigError, ToolError

MAX_FAULTS = 5  # of one call that the model is told
# What strict mode understands. Source: OpenAI, "Structured outputs", supported schemas.
STRICT_WORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "description"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
}
STRICT_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}

Json = dict[str, Any]


class Arguments:
    """What `function` takes from a model. A parameter of the type `filled` is no part of it: it is named in `fills`.

    parameters: the JSON schema, an object. strict: it has the strict form. description: the docstring's own words.
    names: what an annotation that is a string may mean beside the function's globals.
    Raises ConfigError when a model could not send what the function takes.
    """

    def __init__(self, function: Callable[..., Any], *, filled: type, names: Mapping[str, Any] | None = None) -> None:
        self._called = getattr(function, "__name__", type(function).__name__)
        self.description, said = read_docstring(inspect.getdoc(function) or "")
        self.fills: list[str] = []
        fields: dict[str, Any] = {}
        scope = _scope(function, names or {})
        for name, parameter in inspect.signature(function).parameters.items():
            annotation = self._annotation(parameter, filled, scope)
            if _is(annotation, filled):
                self.fills.append(name)
            else:
                # A name of its own, because pydantic reserves some; the model sees the parameter's.
                fields[f"field{len(fields)}"] = _field(name, annotation, parameter.default, said.get(name))
        self._fields = {attribute: field[1].alias for attribute, field in fields.items()}
        self._model = self._made(fields)
        plain = _plain(self._model)
        strict = _strictly(plain)
        self._plain = plain
        self.strict = strict is not None
        self.parameters = strict if strict is not None else plain

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the function is called with, all but what is filled in. Raises ToolError for the model."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate_json(msgspec.json.encode(_without_nulls(given, self._plain)))
        except ValidationError as error:
            raise ToolError(f"The arguments do not fit. {_faults(error)}") from None
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            raise ToolError("The arguments are not JSON.") from None
        return {name: getattr(checked, attribute) for attribute, name in self._fields.items()}

    def _annotation(self, parameter: inspect.Parameter, filled: type, scope: tuple[Json, Json]) -> Any:
        """Return a parameter's type. Raises ConfigError for one that no model can send."""
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"The tool {self._called!r} takes its parameter {parameter.name!r} without a name of its own.",
                hint="write each one as a plain parameter: no *args, no **kwargs, no / in the signature",
            )
        annotation = parameter.annotation
        if annotation is parameter.empty:
            raise ConfigError(
                f"The parameter {parameter.name!r} of the tool {self._called!r} has no type.",
                hint=f"write it like {parameter.name}: str",
            )
        if not isinstance(annotation, str):
            return annotation
        try:
            return eval(annotation, *scope)
        except Exception:
            # A `Turn` that is imported for the type checker only is known by its name.
            if re.fullmatch(rf"(\w+\.)*{filled.__name__}(\s*\|\s*None)?", annotation.strip()):
                return filled
            raise ConfigError(
                f"The type {annotation!r} of the parameter {parameter.name!r} of the tool {self._called!r} is unknown.",
                hint="import it where the program runs, not below `if TYPE_CHECKING`, and define it above the tool",
            ) from None

    def _made(self, fields: Json) -> Any:
        from pydantic import ConfigDict, create_model
        from pydantic.errors import PydanticUserError

        config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
        try:
            model = create_model("arguments", __config__=config, **fields)
            _plain(model)
        except (PydanticUserError, TypeError, NameError) as error:
            reason = re.split(r"\. |\n", str(error), maxsplit=1)[0].rstrip(".")
            raise ConfigError(
                f"The tool {self._called!r} takes what no model can send: {reason}.",
                hint="use types that JSON can hold: str, int, float, bool, list, Literal, enums, dataclasses, models",
            ) from None
        return model


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of a function, and of each parameter: `Args:` or `:param name:`, no more is read."""
    told: list[str] = []
    said: dict[str, str] = {}
    section, depth, name = "", 0, ""  # depth: how far the names of the parameters are indented
    for line in text.splitlines():
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        heading = re.fullmatch(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):", stripped)
        sphinx = re.match(r":(?:param (?:[^:]+ )?(\w+)|\w+[^:]*):\s*(.*)", stripped)
        if heading and not indent:
            section, depth, name = heading[1], 0, ""
        elif sphinx and not indent:
            section, depth, name = "Args", 0, sphinx[1] or ""
            if name:
                said[name] = sphinx[2]
        elif not section or (stripped and not indent):
            section = ""
            told.append(line)
        elif section in ("Args", "Arguments", "Parameters") and stripped:
            depth = depth or (0 if name else indent)
            entry = re.match(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)", stripped) if indent == depth else None
            if entry:
                name = entry[1]
                said[name] = entry[2]
            elif name:
                said[name] = f"{said[name]} {stripped}".strip()
    return "\n".join(told).strip(), said


# --- signatures -------------------------------------------------------------------------------------


def _scope(function: Callable[..., Any], names: Mapping[str, Any]) -> tuple[Json, Json]:
    """Return what the annotations of a function may mean, as globals and locals."""
    inner: Any = inspect.unwrap(getattr(function, "func", function))
    if not hasattr(inner, "__globals__"):
        inner = type(inner).__call__
    closure: Json = {}
    if inspect.isfunction(inner):
        for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # empty: what is defined below the tool, and the tool itself
                closure[name] = cell.cell_contents
    return getattr(inner, "__globals__", {}), {**names, **closure}


def _is(annotation: Any, kind: type) -> bool:
    """True for a type, and for that type or None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return annotation is kind or parts == [kind]


def _field(name: str, annotation: Any, default: Any, said: str | None) -> tuple[Any, Any]:
    """Return the pydantic field of one parameter."""
    from pydantic import Field
    from pydantic.fields import FieldInfo

    notes = list(get_args(annotation)[1:]) if get_origin(annotation) is Annotated else []
    words = [note for note in notes if isinstance(note, str)]  # Annotated[str, "what it is"]
    is_told = any(isinstance(note, FieldInfo) and note.description for note in [*notes, default])
    more: Json = {} if is_told else {"description": words[0] if words else said}
    if isinstance(default, FieldInfo):  # city: str = Field("Paris", max_length=80)
        annotation = Annotated[annotation, default]
    elif default is not inspect.Parameter.empty:
        more["default"] = default
    return annotation, Field(alias=name, **{key: value for key, value in more.items() if value or key == "default"})


# --- schemas ----------------------------------------------------------------------------------------


def _plain(model: Any) -> Json:
    """Return pydantic's schema of a model without its titles, and each definition where it is used."""
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    schema: Json = model.model_json_schema(schema_generator=Untitled)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    definitions = schema.pop("$defs", {})
    try:
        inlined: Json = _inlined(schema, definitions, ())
    except RecursionError:
        return {**schema, "$defs": definitions}  # a type that holds itself
    return inlined


def _inlined(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """Return a schema with its definitions in their places: some providers read no `$ref`. Raises RecursionError."""
    if isinstance(node, list):
        return [_inlined(each, definitions, within) for each in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in within:
            raise RecursionError
        definition = {key: value for key, value in definitions[name].items() if key != "title"}
        node = {**definition, **{key: value for key, value in node.items() if key != "$ref"}}
        within = (*within, name)
    return {key: _inlined(value, definitions, within) for key, value in node.items()}


def _strictly(node: Json) -> Json | None:
    """Return a schema in the strict form; None when it does not fit."""
    strict = {key: value for key, value in node.items() if key != "default"}
    if not strict.keys() <= STRICT_WORDS or not (strict.keys() & {"type", "anyOf", "enum", "const"}):
        return None
    if strict.get("format", "date") not in STRICT_FORMATS:
        return None
    parts: list[Any] = []
    if strict.get("type") == "object":
        if "properties" not in strict or strict.get("additionalProperties", False) is not False:
            return None
        required = strict.get("required", [])
        properties = {name: _strict_property(each, name in required) for name, each in strict["properties"].items()}
        strict.update(properties=properties, required=list(properties), additionalProperties=False)
        parts += properties.values()
    if "anyOf" in strict:
        strict["anyOf"] = [_strictly(each) for each in strict["anyOf"]]
        parts += strict["anyOf"]
    if strict.get("type") == "array":
        strict["items"] = _strictly(strict.get("items") or {})
        parts.append(strict["items"])
    return None if any(part is None for part in parts) else strict


def _strict_property(node: Json, is_required: bool) -> Json | None:
    """Return the schema of one property; null is what may be left out."""
    strict = _strictly(node)
    if strict is None or is_required or _takes_null(node):
        return strict
    told = {"description": strict.pop("description")} if "description" in strict else {}
    if isinstance(node.get("default"), (str, int, float)):
        told["description"] = f"{told.get('description', '')} (null: {node['default']})".strip()
    return {"anyOf": [strict, {"type": "null"}], **told}


def _takes_null(node: Json) -> bool:
    return node.get("type") == "null" or any(_takes_null(each) for each in node.get("anyOf", ()))


def _without_nulls(value: Any, schema: Json) -> Any:
    """Return what a model sent without each null that stands for something left out."""
    for option in schema.get("anyOf", ()):
        value = _without_nulls(value, option)
    if isinstance(value, Mapping) and "properties" in schema:
        required = schema.get("required", ())
        return {
            name: _without_nulls(each, schema["properties"].get(name, {}))
            for name, each in value.items()
            if each is not None or name in required or _takes_null(schema["properties"].get(name, {"type": "null"}))
        }
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_without_nulls(each, schema["items"]) for each in value]
    return value


def _faults(error: Any) -> str:
    """Return what was wrong with some arguments, field by field, for a model."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}." for each in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        said.append(f"And {len(faults) - MAX_FAULTS} more.")
    return " ".join(said)
