"""An HTTP API as a tool: a request with places for arguments, and what its answer tells the model.

Rules:
- Scheme, host, port, method and the names of headers are the operator's. A model's arguments only fill places.
- Redirects are followed for GET only, within `hosts`, never from https to http, and without the tool's headers when
  they leave its origin. Each address on the way is looked at (`_outside.py`).
- What changes something is sent on a new connection: a kept one may turn out to be closed, and then the transport
  would send the request a second time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import msgspec

from .. import clock
from ..errors import ConfigError, ToolError
from ..trace import Trace
from ..transport import Origin, split
from ..turn import Turn
from ..wire import HttpRequest
from . import _templates as templates
from ._answers import told
from ._checks import NAME, check_headers, check_limits, check_url
from ._fits import misfits
from ._outside import LONGEST_WAIT, UNKNOWN, Answer, Outside
from ._templates import MAX_TARGET, MISSING, Template

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_BYTES = 256 * 1024  # bytes of an answer; a model reads far less
MAX_REDIRECTS = 3
_DEFAULTS = {"accept": "application/json, text/*;q=0.9, */*;q=0.1", "user-agent": "firstword"}


class HTTPTool:
    """One kind of request to an HTTP API. It is a Tool, and a Source of itself, so that the App closes it.

    `url`, `query`, `headers` and the texts in `body` hold places `{name}` for arguments; `query` and `headers` also
    `${NAME}`, which is read from the environment now. `parameters` is a JSON schema of type object, or a dict from an
    argument's name to its description or its schema; left out, each place is a text. `hosts` are others than the
    URL's own to which a GET may be redirected, `host` or `host:port`. `private` says that the URL's host is one of
    your own network. `commits` is True for all methods but GET, when left out. `outside` are connections that it
    shares with other tools.

    Raises ConfigError, which names no secret, when something in it cannot be meant.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        description: str,
        method: str = "GET",
        parameters: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        filler: str | None = None,
        timeout: float | None = None,
        commits: bool | None = None,
        strict: bool | None = None,
        hosts: Collection[str] = (),
        private: bool = False,
        max_bytes: int = MAX_BYTES,
        outside: Outside | None = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ConfigError(f"A tool cannot be called {name!r}.", hint="a letter, then letters, digits, _ and -")
        if method.upper() not in METHODS:
            raise ConfigError(f"The tool {name!r} has a method that is not known.", hint=f"one of {', '.join(METHODS)}")
        if body is not None and method.upper() == "GET":
            raise ConfigError(f"The tool {name!r} has a body, which GET has not.", hint='method="POST"')
        check_limits(f"the tool {name!r}", timeout=timeout, filler=filler, max_bytes=max_bytes)
        self.name = name
        self.description = description
        self.filler = filler
        self.timeout = timeout
        self.method = method.upper()
        self.commits = self.method != "GET" if commits is None else commits
        self._max_bytes = max_bytes
        try:
            self._origin = check_url(url, private=private)
            self._path, pairs = _read_url(url)
            self._query = [*pairs, *((key, templates.read(text, os.environ)) for key, text in (query or {}).items())]
            self._headers = _read_headers(headers or {})
            self._body = templates.read_body(body)
            self._hosts = _authorities(self._origin, hosts)
        except ConfigError as error:
            raise ConfigError(f"{error.message} (tool {name!r})", hint=error.hint) from None
        self.parameters, plain = _schema(name, parameters, self._places())
        self.strict = plain if strict is None else strict
        held = [template for _, template in (*self._query, *self._headers.items())]
        self._secrets = [secret.encode() for template in held for secret in template.secrets]
        self.outside = outside or Outside(private=[self._origin.host] if private else [])

    def __repr__(self) -> str:
        return f"HTTPTool({self.name!r})"

    async def open(self) -> None:
        """Nothing is connected before the first call."""

    async def close(self) -> None:
        """Close the connections that were kept."""
        await self.outside.close()

    @property
    def tools(self) -> Sequence[HTTPTool]:
        """Itself."""
        return (self,)

    async def call(self, arguments: dict[str, Any], turn: Turn) -> Any:
        """Ask the API. Returns decoded JSON as it is, text as text, anything else as a note of what it is.

        Raises ToolError: arguments that do not fit, no answer, a status of 400 or more, an answer that is too large.
        """
        within = self.timeout or LONGEST_WAIT  # nobody cancels one that commits, and an API may drip without end
        try:
            wrong = next(misfits(arguments, self.parameters), None)
            if wrong is not None:
                raise ToolError(wrong)
            request = self._request(arguments, turn.trace)
            async with clock.timeout(within):
                answer = await self._ask(request)
            return told(answer, hide=self._secrets)
        except (TimeoutError, asyncio.TimeoutError):
            unknown = f" {UNKNOWN}" if self.commits else ""
            message = f"The API did not answer within {within:g} seconds.{unknown}"
            raise ToolError(message, tool=self.name) from None
        except ToolError as error:
            error.tool = error.tool or self.name
            raise

    # --- inside ----------------------------------------------------------------------------------

    def _places(self) -> list[str]:
        held = [*self._path, *(template for _, template in self._query), *self._headers.values()]
        return sorted(set().union(*(template.names for template in held), templates.names_in(self._body)))

    def _request(self, arguments: Mapping[str, Any], trace: Trace | None) -> HttpRequest:
        target = "/".join(templates.in_path(segment, arguments) for segment in self._path)
        pairs = [pair for key, template in self._query for pair in templates.in_query(key, template, arguments)]
        if pairs:
            target += "?" + "&".join(pairs)
        if len(target) > MAX_TARGET:
            raise ToolError("The arguments are too long for a request.")
        headers = {**_DEFAULTS, "accept-encoding": "identity", **dict(trace.onward() if trace is not None else ())}
        for name, template in self._headers.items():
            value = templates.in_header(name, template, arguments)
            if value is not None:
                headers[name] = value
        body = templates.in_body(self._body, arguments)
        content = b""
        if self._body is not None and body is not MISSING:
            headers.setdefault("content-type", "application/json")
            try:
                content = msgspec.json.encode(body)
            except (UnicodeEncodeError, RecursionError):
                raise ToolError("The arguments cannot be written as JSON.") from None
        url = f"{self._origin.scheme}://{self._origin.authority}{target}"
        return HttpRequest(self.method, url, tuple(headers.items()), content)

    async def _ask(self, request: HttpRequest) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self.outside.ask(request, max_bytes=self._max_bytes, fresh=self.commits)
            if not 300 <= answer.status < 400:
                return answer
            request = self._redirected(request, answer)
        raise ToolError("The API redirects without end.")

    def _redirected(self, request: HttpRequest, answer: Answer) -> HttpRequest:
        """Return the request that a redirect asks for. Raises ToolError when it is not followed."""
        unknown = f" {UNKNOWN}" if self.commits else ""
        refused = ToolError(f"The API answered {answer.status}, a redirect that is not followed.{unknown}")
        location = answer.headers.get("location", "")
        if self.method != "GET" or not location or any(not "!" <= sign <= "~" for sign in location):
            raise refused
        try:
            url = urljoin(request.url, location).partition("#")[0]
            origin, target = split(url)
        except (ValueError, ConfigError):
            raise refused from None
        downgrade = self._origin.scheme == "https" and origin.scheme == "http"
        if downgrade or f"{origin.host}:{origin.port}" not in self._hosts or len(target) > MAX_TARGET:
            raise refused
        # Headers hold secrets and arguments: both are for the tool's own origin.
        headers = request.headers if origin == self._origin else tuple(_DEFAULTS.items())
        return HttpRequest("GET", url, headers)


def tool(rest: str) -> HTTPTool:
    """Refuse `"http:..."` in `add_tools`: an address alone is no tool."""
    raise ConfigError(
        "A URL alone is no tool.",
        hint='an MCP server is "mcp:https://...", an API is HTTPTool("weather", url=..., description=...)',
    )


def _read_url(url: str) -> tuple[list[Template], list[tuple[str, Template]]]:
    """Return the segments of a URL's path, and the pairs of its query."""
    parts = urlsplit(url)
    segments = [templates.read(segment) for segment in (parts.path or "/").split("/")]
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    return segments, [(key, templates.read(text, os.environ)) for key, text in pairs]


def _read_headers(headers: Mapping[str, str]) -> dict[str, Template]:
    read = {name.lower(): templates.read(text, os.environ) for name, text in headers.items()}
    texts = {
        name: "".join(piece for piece in template.pieces if isinstance(piece, str)) for name, template in read.items()
    }
    check_headers(texts)
    return read


def _authorities(origin: Origin, hosts: Collection[str]) -> set[str]:
    """Return where a redirect may lead, each as `host:port`: the tool's own origin, and what the operator added."""
    allowed = {f"{origin.host}:{origin.port}"}
    if isinstance(hosts, str):
        raise ConfigError("The hosts of a tool are one text.", hint='write hosts=["files.example"]')
    for host in hosts:
        parts = urlsplit(f"//{host}")
        if not parts.hostname or "/" in host or "@" in host:
            raise ConfigError(f"{host!r} is no host.", hint='write hosts=["files.example"]')
        allowed.add(f"{parts.hostname}:{parts.port or 443}")
    return allowed


def _schema(name: str, parameters: Mapping[str, Any] | None, places: list[str]) -> tuple[dict[str, Any], bool]:
    """Return the JSON schema of the arguments, and whether it fits the providers' strict mode.

    Raises ConfigError when it does not name the very arguments that there are places for.
    """
    plain = parameters is None or not isinstance(parameters.get("properties"), Mapping)
    schema = dict(parameters or {})
    if plain and schema.get("type") == "object" and set(schema) <= {"type", "additionalProperties"}:
        schema = {}  # a schema of no arguments at all
    if plain:
        given: dict[str, Any] = dict(schema) if schema else {key: {"type": "string"} for key in places}
        properties = {
            key: {"type": "string", "description": each} if isinstance(each, str) else each
            for key, each in given.items()
        }
        if not all(isinstance(each, Mapping) for each in properties.values()):
            raise ConfigError(
                f"The parameters of the tool {name!r} are neither descriptions nor schemas.",
                hint='write parameters={"city": "the name of a city"}',
            )
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    named = set(schema["properties"])
    if named != set(places):
        odd = ", ".join(sorted(named ^ set(places)))
        raise ConfigError(
            f"The parameters and the places of the tool {name!r} are not the same: {odd}.",
            hint="each {name} in url, query, headers or body is a parameter, and each parameter has a place",
        )
    schema.setdefault("type", "object")
    schema.setdefault("additionalProperties", False)
    strict = plain and all(set(each) <= {"type", "description", "enum"} for each in schema["properties"].values())
    return schema, strict
