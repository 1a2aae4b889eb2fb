"""An OpenAPI document as it was read: its references followed, its schemas brought into plain JSON schema.

References lead within the document only. Schemas are written out where they are used, because not every provider
follows references; one that holds itself ends at the second time as "any object".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from ..errors import ConfigError

MAX_DOCUMENT = 16 * 1024 * 1024  # bytes; the largest public ones have about ten million
MAX_THINGS = 5_000  # objects and lists of one operation's schemas written out; a model reads every one of them
MAX_DEPTH = 64  # of schemas in schemas
MAX_REFERENCES = 32  # one that leads to another that leads to another

# What says something about values, and what it must be. The rest is for people, for XML, or for tools of OpenAPI's.
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_KEPT: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("description", "title", "pattern", "format"), (str,)),
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(_SIZES, (int, float)),
    "type": (str, list),
    "enum": (list,),
    "required": (list,),
    "uniqueItems": (bool,),
    "const": (object,),
    "default": (object,),
}


class Document:
    """`root` is the whole document, a mapping. Raises ConfigError for what is none of OpenAPI 3."""

    def __init__(self, root: Any) -> None:
        self.root = self.mapping(root, "the document")
        version = str(self.root.get("openapi", ""))
        if not re.fullmatch(r"3\.[01]\.\d+.*", version):
            said = (
                "Swagger 2.0"
                if "swagger" in self.root
                else f"the version {version[:20]!r}"
                if version
                else "no version"
            )
            raise ConfigError(
                f"The document is no OpenAPI 3.0 or 3.1: it says {said}.", hint="convert it, or write HTTPTool(...)"
            )

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> Document:
        """Read a file, JSON or YAML by its name, or take the document itself."""
        if isinstance(source, Mapping):
            return cls(source)
        if "://" in str(source):
            raise ConfigError("An OpenAPI document is a file, not a URL.", hint="download it, look at it, and name it")
        path = Path(source)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise ConfigError(
                f"The OpenAPI document {path.name!r} cannot be read: {reason}.", hint="give the path of a file"
            ) from None
        if len(data) > MAX_DOCUMENT:
            raise ConfigError(f"The OpenAPI document has more than {MAX_DOCUMENT} bytes.", hint="cut it down")
        try:
            return cls(_yaml(data) if path.suffix.lower() in (".yaml", ".yml") else msgspec.json.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigError(
                f"The OpenAPI document {path.name!r} is no JSON.", hint="the name of a YAML file ends in .yaml"
            ) from None

    def mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        """Return `value`, which must be a mapping; None is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"The OpenAPI document is malformed: {where[:100]} is no object.", hint="mend it")
        return value

    def follow(self, value: Any) -> Any:
        """Return what a reference means, through others; anything else is returned as it is."""
        for _ in range(MAX_REFERENCES):
            if not isinstance(value, Mapping) or "$ref" not in value:
                return value
            value = self.at(value["$ref"])
        raise ConfigError("The OpenAPI document has references without end.", hint="mend it")

    def at(self, reference: Any) -> Any:
        """Return what a reference names."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise ConfigError(
                f"The OpenAPI document refers to {str(reference)[:100]!r}, which is not within it.",
                hint="bundle it into one file",
            )
        value = self.root
        for part in unquote(reference[2:]).split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                raise ConfigError(
                    f"The OpenAPI document refers to {reference[:100]!r}, which it has not.", hint="mend it"
                )
        return value

    def schema(self, given: Any, where: str, *, writing: bool = False) -> dict[str, Any]:
        """Return a schema written out; `writing` leaves out what a client may not send."""
        written = _Writer(self, where, writing).write(given, ())
        try:
            msgspec.json.encode(written)  # YAML can hold what JSON cannot: in a default, an enum, an example
        except (TypeError, ValueError, RecursionError):
            raise ConfigError(f"The schema of {where} holds what is no JSON.", hint="mend it") from None
        return written


class _Writer:
    """Writes out one schema."""

    def __init__(self, document: Document, where: str, writing: bool) -> None:
        self._document = document
        self._where = where
        self._writing = writing
        self._things = 0

    def write(self, given: Any, above: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
        """Write a schema that stands within those that the references `above` name."""
        self._things += 1
        if self._things > MAX_THINGS or depth > MAX_DEPTH:
            raise ConfigError(f"The schema of {self._where} is too large for a model.", hint="choose another operation")
        if isinstance(given, bool):
            return {} if given else {"not": {}}
        said: dict[str, Any] = {}
        while isinstance(given, Mapping) and "$ref" in given:
            reference = str(given["$ref"])
            if reference in above:
                return {"type": "object"}
            above = (*above, reference)
            if "description" in given:  # what stands beside a reference is about this use of it
                said.setdefault("description", given["description"])
            given = self._document.at(reference)
        schema = self._document.mapping(given, self._where)
        written = {key: schema[key] for key in _KEPT if key in schema}
        for key, value in {**written, **said}.items():
            texts = key not in ("type", "required") or isinstance(value, str) or _are_texts(value)
            if not isinstance(value, _KEPT[key]) or not texts:
                raise ConfigError(f"The schema of {self._where} has a malformed {key!r}.", hint="mend it")
            written[key] = value
        self._bounds(schema, written)
        self._parts(schema, written, lambda part: self.write(part, above, depth + 1))
        if schema.get("nullable") is True and "type" in written:
            kinds = written["type"]
            written["type"] = [*([kinds] if isinstance(kinds, str) else kinds), "null"]
            if isinstance(written.get("enum"), list) and None not in written["enum"]:
                written["enum"] = [*written["enum"], None]
        return written

    def _bounds(self, schema: Mapping[str, Any], written: dict[str, Any]) -> None:
        """3.0 says `exclusiveMinimum: true` beside `minimum`; JSON schema has one number."""
        for word, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(schema.get(word), bool):
                del written[word]
                if schema[word] and plain in written:
                    written[word] = written.pop(plain)

    def _parts(
        self, schema: Mapping[str, Any], written: dict[str, Any], write: Callable[[Any], dict[str, Any]]
    ) -> None:
        properties = self._document.mapping(schema.get("properties"), self._where)
        if properties:
            kept = {str(key): part for key, part in properties.items() if not self._left_out(part)}
            written["properties"] = {key: write(part) for key, part in kept.items()}
            written["required"] = [key for key in written.get("required", ()) if key in kept]
        if not written.get("required", True):
            del written["required"]
        for word in ("items", "additionalProperties", "not"):
            if word in schema:
                written[word] = schema[word] if isinstance(schema[word], bool) else write(schema[word])
        for word in ("allOf", "anyOf", "oneOf"):
            if isinstance(schema.get(word), list):
                written[word] = [write(part) for part in schema[word]]

    def _left_out(self, part: Any) -> bool:
        found = self._document.follow(part) if self._writing else part
        return self._writing and isinstance(found, Mapping) and found.get("readOnly") is True


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _yaml(data: bytes) -> Any:
    """Read YAML as JSON's kinds of values: a date is a text, and only true and false are truth values."""
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            "A document in YAML needs PyYAML, which is not installed.", hint='pip install "firstword[openapi]"'
        ) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in rules if tag not in _YAML_1_1]
            for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false", re.IGNORECASE), list("tTfF"))
    try:
        return yaml.load(data, Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError(f"The OpenAPI document is no YAML{line}.", hint="mend it, or write it as JSON") from None


# `no` and `2020-01-01` are texts in OpenAPI, which asks for YAML 1.2's JSON kinds; PyYAML reads YAML 1.1.
_YAML_1_1 = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
