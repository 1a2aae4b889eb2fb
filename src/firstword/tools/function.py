"""A function as a tool: its signature is the schema, its docstring the description.

`async def` runs on the loop and may be cancelled. `def` runs in a thread, which nothing can interrupt: when its time
is over it goes on, and nobody hears its end.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError, ToolError
from ..schema import Arguments
from ..threads import in_thread
from ..turn import Turn


class Function:
    """The Tool that `function` is; `name` and `description` are its own when left out. Raises ConfigError."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        filler: str | None = None,
        timeout: float | None = None,
        commits: bool = False,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        called = name or getattr(function, "__name__", "")
        if inspect.isclass(function) or not callable(function) or not called:
            raise ConfigError("A tool is neither a function nor a Tool.", hint="write `@app.tool` above a function")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigError(f"The tool {called!r} yields.", hint="return the whole result")
        self._function = function
        self._arguments = Arguments(function, filled=Turn, names=names)
        self.name = called
        self.description = description or self._arguments.description
        self.parameters = self._arguments.parameters
        self.strict = self._arguments.strict
        self.filler = filler
        self.timeout = timeout
        self.commits = commits

    async def call(self, arguments: dict[str, Any], turn: Turn) -> Any:
        """Return what the function returns. Raises ToolError when the arguments do not fit."""
        try:
            given = self._arguments.read(arguments)
        except ToolError as error:
            error.tool = self.name
            raise
        given.update(dict.fromkeys(self._arguments.fills, turn))
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**given)
        result = await in_thread(functools.partial(self._function, **given))
        return await result if inspect.isawaitable(result) else result


def tool(place: str) -> Function:
    """Return the function at `module:name`, what `app.add_tools("function:module:name")` asks for."""
    module, _, name = place.partition(":")
    try:
        return Function(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(
            f"There is no function at {place!r}.", hint="write it like 'function:my_tools:balance'"
        ) from None
