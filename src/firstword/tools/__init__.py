"""What the model may call: a function, an HTTP request, an MCP server's tool, one kind a file.

A tool is data (its name, its schema, its limits) and one call. It does not know about rounds, fillers or who else is
called: `call_tools` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..turn import Turn


class Tool(Protocol):
    """One thing that the model may call.

    name: what the model calls it, `[A-Za-z][A-Za-z0-9_-]{0,63}`.
    description: what it does, for the model.
    parameters: the JSON schema of its arguments, an object.
    strict: the schema fits the providers' strict mode.
    filler: what the caller hears while it runs; None = the App's own.
    timeout: seconds; None = the App's own.
    commits: it changes something in the world: once begun it is not cancelled, and runs once a turn.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool
    filler: str | None
    timeout: float | None
    commits: bool

    async def call(self, arguments: dict[str, Any], turn: Turn) -> Any:
        """Return what the model is told: a string, or what JSON can hold.

        Raises ToolError, whose message is for the model; anything else that is raised is a mistake of the tool's.
        """


@runtime_checkable
class Source(Protocol):
    """Something that brings tools and lives as long as the App: an MCP server."""

    async def open(self) -> None:
        """Begin to bring tools. Returns soon, and does not raise when the other side is away: it is tried again."""

    async def close(self) -> None:
        """End all that `open` began."""

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools that there are right now; none while the other side is away."""
