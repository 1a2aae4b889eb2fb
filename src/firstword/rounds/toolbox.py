"""The tools that an App has: those that were added, and those that its sources bring right now."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .. import plugins
from ..errors import ConfigError
from ..policy import is_time
from ..tools import Source, Tool
from ..tools.function import Function

log = logging.getLogger("firstword")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Toolbox:
    """Tools by their names. The first one that has a name keeps it; `engines` are names that are not to be had."""

    def __init__(self, engines: frozenset[str] = frozenset()) -> None:
        self._engines = engines
        self._tools: dict[str, Tool] = {}
        self._sources: list[Source] = []
        self._warned: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._tools or self._sources)

    def copy(self) -> Toolbox:
        """Return another one with the same tools and sources."""
        twin = Toolbox(self._engines)
        twin._tools, twin._sources = dict(self._tools), list(self._sources)
        return twin

    @property
    def has_sources(self) -> bool:
        """True when there is something to open and to close."""
        return bool(self._sources)

    def add(self, thing: Any, *, names: Mapping[str, Any] | None = None) -> None:
        """Add a Tool, a function, a Source, or what "kind:rest" means; several may come of one such string.

        `names` is what a function's annotations may mean beside its globals. Raises ConfigError.
        """
        if isinstance(thing, str):
            found = _found(thing)
            for each in found if isinstance(found, (list, tuple)) else [found]:
                self.add(each)
            return
        is_made = not inspect.isclass(thing)
        is_tool = is_made and hasattr(thing, "parameters") and hasattr(thing, "call")
        is_source = is_made and isinstance(thing, Source)
        if is_tool:
            _check(thing)
            if thing.name in self._engines:
                raise ConfigError(
                    f"The voice engine has a tool {thing.name!r} of its own.",
                    hint="give yours another name; to hang up or transfer, use turn.end_call() or turn.transfer(to)",
                )
            if thing.name in self._tools:
                raise ConfigError(f"There are two tools {thing.name!r}.", hint="give one of them another name")
            self._tools[thing.name] = thing
        if is_source:  # a tool may be its own source: then it is opened and closed with the App
            self._sources.append(thing)
        if not (is_tool or is_source):
            self.add(Function(thing, names=names))

    def now(self) -> Mapping[str, Tool]:
        """Return the tools that there are right now, by their names."""
        if not self._sources:
            return self._tools
        tools = dict(self._tools)
        for source in self._sources:
            for tool in source.tools:
                if tool.name in self._engines:
                    self.warn(tool.name, "the voice engine always has it, ours is left out")
                elif tools.setdefault(tool.name, tool) is not tool:
                    self.warn(tool.name, "two of ours have it, the first one is used")
        return tools

    def warn(self, name: str, what: str) -> None:
        """Say once that a name is taken twice."""
        if name not in self._warned:
            self._warned.add(name)
            log.warning("tool name is taken twice name=%s %s", name, what)

    async def open(self) -> None:
        """Let every source begin to bring its tools. One that fails costs its tools, no turn."""
        for source in self._sources:
            try:
                await source.open()
            except Exception as error:
                log.error("source of tools does not open kind=%s type=%s", type(source).__name__, type(error).__name__)

    async def close(self) -> None:
        """End every source."""
        await asyncio.gather(*(source.close() for source in self._sources), return_exceptions=True)


def definition(tool: Tool, *, strict: bool) -> dict[str, Any]:
    """Return a tool as a request says it; `strict` says that whoever is asked knows the strict mode."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {**function, "strict": True} if strict and tool.strict else function}


def knows_strict(base_url: str) -> bool:
    """True for an API that is known to hold models to a schema; others may refuse the word."""
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".openai.azure.com")


def name_of(definition: Any) -> str | None:
    """Return the name of the function that an entry of a request's `tools` defines; None when it is none."""
    function = definition.get("function") if isinstance(definition, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _found(place: str) -> Tool | Source | Iterable[Tool]:
    """Return what "kind:rest" means."""
    kind, colon, rest = place.partition(":")
    try:
        if colon and rest:
            found: Tool | Source | Iterable[Tool] = plugins.load("tools", kind)(rest)
            return found
    except AttributeError:
        pass  # a kind that is made in code only
    raise ConfigError(
        f"There is no tool {place!r}.", hint="write it like 'mcp:https://...', 'openapi:file.yaml', or pass a function"
    )


def _check(tool: Tool) -> None:
    """Raise ConfigError for a tool that no model could be told of."""
    if not isinstance(tool.name, str) or not NAME.fullmatch(tool.name):
        raise ConfigError(
            f"A tool cannot have the name {tool.name!r}.", hint="letters, digits, _ and -, a letter first, at most 64"
        )
    if not isinstance(tool.parameters, dict) or tool.parameters.get("type") != "object":
        raise ConfigError(
            f"The parameters of the tool {tool.name!r} are no JSON schema of an object.",
            hint='write {"type": "object", "properties": {...}}',
        )
    if tool.timeout is not None and not is_time(tool.timeout):
        raise ConfigError(f"The timeout of the tool {tool.name!r} is not a number of seconds over 0.", hint="timeout=5")
    if tool.filler is not None and (not isinstance(tool.filler, str) or not tool.filler.strip()):
        raise ConfigError(f"The filler of the tool {tool.name!r} says nothing.", hint="leave it out")
