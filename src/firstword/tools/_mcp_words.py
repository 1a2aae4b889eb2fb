"""What an MCP server says, in our words: its tools under names that a model may call, its results as plain values.

Pure, and all of it is untrusted: a server's texts are shown to a model and used for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from ..errors import ToolError

MAX_TOOLS = 128  # of one server; what OpenAI takes in a request
MAX_DESCRIPTION = 4096  # signs
MAX_SCHEMA = 64 * 1024  # bytes of a tool's schema as JSON; every turn's request carries it
MAX_REASON = 1000  # signs of an error that are worth a model's reading
MAX_NAME = 64


def chosen(tools: Iterable[Any], *, only: Collection[str], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Return the tools to offer, by the names that a model calls, and the names of those that are left out.

    Left out are those whose names come to the same, unless one had that very name; those with a schema that is none
    or too large; and what is more than MAX_TOOLS. A tool that `only` does not name is not missed.
    """
    offered: dict[str, list[Any]] = {}
    out = []
    for tool in tools:
        if only and tool.name not in only:
            continue
        if not _is_schema(tool.input_schema):
            out.append(tool.name)
            continue
        offered.setdefault(called(prefix + tool.name), []).append(tool)
    kept: dict[str, Any] = {}
    for name, alike in offered.items():
        exact = [tool for tool in alike if prefix + tool.name == name]
        one = alike[0] if len(alike) == 1 else exact[0] if len(exact) == 1 else None
        if one is not None and len(kept) < MAX_TOOLS:
            kept[name] = one
        out += [tool.name for tool in alike if kept.get(name) is not tool]
    return kept, out


def called(name: str) -> str:
    """Return a name in `[A-Za-z][A-Za-z0-9_-]{0,63}`: MCP allows dots, slashes and more."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return (plain if plain[:1].isalpha() else f"tool_{plain}")[:MAX_NAME]


def _is_schema(schema: Any) -> bool:
    try:
        return isinstance(schema, dict) and len(msgspec.json.encode(schema)) <= MAX_SCHEMA
    except (TypeError, ValueError, RecursionError):
        return False


def result(said: Any) -> Any:
    """Return what the model is told of a CallToolResult: what it has in structured form, else its parts as text.

    Raises ToolError when the server says that the call failed.
    """
    text = "\n".join(_part(part) for part in said.content)
    if said.is_error:
        raise ToolError(f"The tool failed: {text[:MAX_REASON]}" if text.strip() else "The tool failed.")
    if said.structured_content is not None:
        return said.structured_content
    return text or "(done: nothing was returned)"


def _part(part: Any) -> str:
    """Return one part of a result as text, or a note of what it is."""
    if part.type == "text":
        return str(part.text)
    if part.type in ("image", "audio"):
        return f"({part.type} that cannot be shown: {_kind(part)}, {len(part.data) * 3 // 4} bytes)"
    if part.type == "resource_link":
        return f"(a resource: {part.name[:200]}, {str(part.uri)[:500]})"
    resource = getattr(part, "resource", None)
    text = getattr(resource, "text", None)
    return text if isinstance(text, str) else f"({part.type} that cannot be shown: {_kind(resource)})"


def _kind(part: Any) -> str:
    kind = str(getattr(part, "mime_type", None) or "")
    return kind if re.fullmatch(r"[\w.+-]{1,100}/[\w.+-]{1,100}", kind) else "of an unknown kind"
