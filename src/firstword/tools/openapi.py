"""The operations of an OpenAPI document (3.0, 3.1) as HTTP tools: those that the operator chose, and no other.

Rules:
- The document is a file or a dict of the operator's. Nothing that it refers to is fetched.
- Its words are names and texts, never templates: what looks like `${NAME}` in it reads no secret.
- A body in JSON is the one argument `body`; a parameter of a query, path or header is one of its own name.
- An optional parameter that cannot be sent (a cookie, an object in a query) is left out; a required one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ._documents import Document
from .http import MAX_BYTES, METHODS, HTTPTool

MAX_DESCRIPTION = 1024  # signs; what providers take, and more than a model needs to choose
MAX_LISTED = 40  # operations that an error names
_NOT_FOR_PARAMETERS = ("accept", "content-type", "authorization")  # OpenAPI 3.1, Parameter Object
_STYLES = {"path": "simple", "query": "form", "header": "simple"}
_VARIABLE = re.compile(r"\{([^{}]*)\}")


def openapi(
    source: str | Path | Mapping[str, Any],
    *,
    operations: Collection[str] = (),
    base_url: str | None = None,
    headers: Mapping[str, str] | None = None,
    prefix: str = "",
    filler: str | None = None,
    timeout: float | None = None,
    hosts: Collection[str] = (),
    private: bool = False,
    max_bytes: int = MAX_BYTES,
) -> list[HTTPTool]:
    """Return a tool for each of the chosen operations of a document.

    `source` is a file (.json, .yaml), perhaps with the operations behind a `#`, as in `"petstore.yaml#getPet,addPet"`,
    or the document itself. An operation is named by its operationId, or as `get /pets/{id}`. `base_url` stands for the
    document's first server; `headers` go along with every request, with `${NAME}` for secrets; the rest is as
    HTTPTool has it. Raises ConfigError, which lists the operations when none was chosen.
    """
    if isinstance(source, str) and not operations:
        source, _, chosen = source.partition("#")
        operations = [name.strip() for name in chosen.split(",") if name.strip()]
    document = Document.read(source)
    found = _found(document)
    known = ", ".join(list(found)[:MAX_LISTED]) + (", ..." if len(found) > MAX_LISTED else "")
    if isinstance(operations, str) or not operations:
        raise ConfigError("No operation of the OpenAPI document was chosen.", hint=f"there are: {known}")
    tools: list[HTTPTool] = []
    for name in operations:
        if name not in found:
            raise ConfigError(f"The OpenAPI document has no operation {name!r}.", hint=f"there are: {known}")
        called = prefix + _tool_name(name)
        if any(tool.name == called for tool in tools):
            raise ConfigError(f"Two of the chosen operations would be the tool {called!r}.", hint="choose one of them")
        operation = _Operation(document, *found[name], given={key.lower() for key in headers or {}})
        tool = HTTPTool(
            called,
            operation.url(base_url),
            headers={**(headers or {}), **operation.headers},
            filler=filler,
            timeout=timeout,
            hosts=hosts,
            private=private,
            max_bytes=max_bytes,
            outside=tools[0].outside if tools else None,
            **operation.words(),
        )
        tools.append(tool)
    return tools


tool = openapi


def _found(document: Document) -> dict[str, tuple[str, str, Mapping[str, Any]]]:
    """Return all operations by their names: (path, method, the path item)."""
    found: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
    for path, given in document.mapping(document.root.get("paths"), "paths").items():
        item = document.mapping(document.follow(given), f"paths.{path}")
        for method in METHODS:
            operation = item.get(method.lower())
            if not isinstance(operation, Mapping):
                continue
            name = operation.get("operationId")
            name = name if isinstance(name, str) and name else f"{method.lower()} {path}"
            if name in found:
                raise ConfigError(f"The OpenAPI document has two operations {name!r}.", hint="name them apart")
            found[name] = (str(path), method, item)
    return found


def _tool_name(name: str) -> str:
    """Return a name that a model may call: `get /pets/{id}` is `get_pets_id`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64]


class _Operation:
    """One operation, in the words of HTTPTool."""

    def __init__(
        self, document: Document, path: str, method: str, item: Mapping[str, Any], *, given: Collection[str]
    ) -> None:
        self._document = document
        self._path = path
        self._method = method
        self._item = item
        self._operation: Mapping[str, Any] = item[method.lower()]
        self._where = f"{method} {path}"
        self._given = given  # the headers that the operator sets
        self._places: dict[str, str] = {}  # arguments in the path, by the names in the document
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self.query: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        for parameter in self._parameters():
            if parameter["in"] != "header" or parameter["name"].lower() not in (*_NOT_FOR_PARAMETERS, *given):
                self._take(parameter)
        self.has_body = method != "GET" and self._take_body()
        texts = [self._operation.get("summary"), self._operation.get("description")]
        said = "\n".join(text.strip() for text in texts if isinstance(text, str) and text.strip())
        self.description = (said or self._where)[:MAX_DESCRIPTION]
        self.schema = {
            "type": "object",
            "properties": self._properties,
            "required": self._required,
            "additionalProperties": False,
        }

    def words(self) -> dict[str, Any]:
        """Return what HTTPTool takes of it beside name, URL and headers."""
        return {
            "method": self._method,
            "description": self.description,
            "parameters": self.schema,
            "query": self.query,
            "body": "{body}" if self.has_body else None,
        }

    def url(self, base_url: str | None) -> str:
        """Return the URL with places in its path."""
        base = base_url if base_url is not None else self._server()
        if any(sign in base for sign in "?#"):
            raise ConfigError("A base_url ends before the query.", hint='base_url="https://api.example/v1"')
        if any(sign in self._path for sign in ("?", "#", "${")):
            raise self._wrong("has a path that is more than a path")

        def place(match: re.Match[str]) -> str:
            name = self._places.get(match.group(1))
            if name is None:
                raise self._wrong(f"has no parameter for the {match.group(0)} in its path")
            return f"{{{name}}}"

        return base.rstrip("/") + _VARIABLE.sub(place, self._path)

    def _server(self) -> str:
        for holder in (self._operation, self._item, self._document.root):
            servers = holder.get("servers")
            if isinstance(servers, Sequence) and servers and isinstance(servers[0], Mapping):
                break
        else:
            raise ConfigError("The OpenAPI document names no server.", hint='base_url="https://api.example/v1"')
        variables = servers[0].get("variables", {})

        def default(match: re.Match[str]) -> str:
            variable = variables.get(match.group(1)) if isinstance(variables, Mapping) else None
            return str(variable.get("default", "")) if isinstance(variable, Mapping) else match.group(0)

        url = _VARIABLE.sub(default, str(servers[0].get("url", "")))
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                "The server of the OpenAPI document is no whole URL.", hint='base_url="https://api.example/v1"'
            )
        return url

    def _parameters(self) -> Iterator[Mapping[str, Any]]:
        """Yield the parameters; those of the operation stand before the path's of the same name and place."""
        seen = set()
        for holder in (self._operation, self._item):
            given = holder.get("parameters", [])
            if not isinstance(given, list):
                raise self._wrong("has parameters that are no list")
            for each in given:
                parameter = self._document.follow(each)
                if not isinstance(parameter, Mapping) or not isinstance(parameter.get("name"), str):
                    raise self._wrong("has a parameter without a name")
                key = (parameter["name"], str(parameter.get("in")))
                if key not in seen:
                    seen.add(key)
                    yield parameter

    def _take(self, parameter: Mapping[str, Any]) -> None:
        """Make an argument of a parameter, if it can be sent."""
        name, where = parameter["name"], str(parameter.get("in"))
        schema = self._document.schema(parameter.get("schema", {}), f"{self._where}: {name}")
        kind = schema.get("type", "string")
        kinds = {kind} if isinstance(kind, str) else set(kind)
        repeats = "array" in kinds and where == "query" and parameter.get("explode", True) is True
        sendable = (
            where in _STYLES
            and parameter.get("style", _STYLES[where]) == _STYLES[where]
            and "content" not in parameter
            and "object" not in kinds
            and ("array" not in kinds or repeats)
        )
        if not sendable:
            if parameter.get("required") or where == "path":
                raise self._wrong(f"has the parameter {name!r}, which is of a kind that is not supported")
            return
        argument = self._argument(name, where)
        if isinstance(parameter.get("description"), str):
            schema = {"description": parameter["description"][:MAX_DESCRIPTION], **schema}
        self._properties[argument] = schema
        if parameter.get("required") or where == "path":
            self._required.append(argument)
        place = f"{{{argument}}}"
        if where == "path":
            self._places[name] = argument
        elif where == "query":
            self.query[name] = place
        else:
            self.headers[name] = place

    def _take_body(self) -> bool:
        """Make the argument `body` of a body in JSON; True when there is one."""
        body = self._document.follow(self._operation.get("requestBody"))
        if not isinstance(body, Mapping):
            return False
        content = self._document.mapping(body.get("content"), f"{self._where}: content")
        for kind, media in content.items():
            plain = str(kind).partition(";")[0].strip().lower()
            if plain == "application/json" or plain.endswith("+json"):
                given = media.get("schema", {}) if isinstance(media, Mapping) else {}
                self._properties["body"] = self._document.schema(given, f"{self._where}: body", writing=True)
                if body.get("required"):
                    self._required.append("body")
                if plain != "application/json" and "content-type" not in self._given:
                    self.headers["content-type"] = plain
                return True
        if body.get("required"):
            raise self._wrong("takes a body that is no JSON")
        return False

    def _argument(self, name: str, where: str) -> str:
        argument = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "value"
        if not argument[0].isalpha() and argument[0] != "_":
            argument = f"_{argument}"
        while argument in self._properties or argument == "body":
            argument = f"{argument}_{where}"
        return argument

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(f"The operation {self._where} of the OpenAPI document {what}.", hint="choose another one")
