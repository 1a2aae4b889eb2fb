"""The engine's own tools as a request lists them, and their arguments as their schemas want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..action import Action, Deed
from ..errors import ActionError
from ..turn import Turn

# What integrators call a function that ends or transfers the call, on engines that have no tool of their own for it.
END, TRANSFER = "end_call", "transfer_call"
# Under which names a tool that transfers takes the destination.
DESTINATIONS = ("to", "destination", "phone_number", "number", "target")


def told(
    turn: Turn, action: Action, *, engine: str, hint: str, ends: Sequence[str] = (), transfers: Sequence[str] = ()
) -> Deed:
    """Return the call of the first of these tools that the request lists; what is said stands before it.

    Raises ActionError with this hint when it lists none, and for what `fitted` or `_destination` cannot do.
    """
    names, done = (ends, "end a call") if action.to is None else (transfers, "transfer a call")
    tools = listed(turn)
    name = next((each for each in names if each in tools), None)
    if name is None:
        why = f", because the request lists no tool {names[0]!r}" if names else ""
        raise ActionError(f"{engine} cannot be told to {done}{why}.", hint=hint)
    schema = tools[name]
    known = {"reason": "The conversation is over."} if action.to is None else _destination(name, schema, action)
    return Deed(action.words, (name, fitted(name, schema, known if properties(schema) else {})))


def _destination(name: str, schema: Mapping[str, Any], action: Action) -> dict[str, Any]:
    """Return what a tool that transfers may want to know. Raises ActionError when it takes no destination."""
    place = next((each for each in DESTINATIONS if each in properties(schema)), None)
    if place is None:
        raise ActionError(
            f"The engine's tool {name!r} takes no destination.",
            hint=f"give it a parameter {DESTINATIONS[0]!r}, or have the model call this tool itself",
        )
    return {"reason": "The call is transferred.", place: action.number or action.address or action.to}


def listed(turn: Turn) -> dict[str, dict[str, Any]]:
    """Return the schemas of the tools that the engine lets be called, by their names; an empty one for what has none.

    The older `functions` count as well. With `tool_choice: "none"` there are none.
    """
    request = turn.request
    if "none" in (request.get("tool_choice"), request.get("function_call")):
        return {}
    found: dict[str, dict[str, Any]] = {}
    tools, older = request.get("tools"), request.get("functions")
    definitions = [each.get("function") for each in tools or () if isinstance(each, dict)]
    definitions += older if isinstance(older, list) else []
    for each in definitions:
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            parameters = each.get("parameters")
            found.setdefault(each["name"], parameters if isinstance(parameters, dict) else {})
    return found


def properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a schema names."""
    named = schema.get("properties")
    return named if isinstance(named, dict) else {}


def required(schema: Mapping[str, Any]) -> list[str]:
    """Return the names of the parameters that must be there."""
    named = schema.get("required")
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []


def fitted(tool: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `known` a tool takes; all of it when its schema names nothing.

    Raises ActionError for a parameter that must be there and is not known, and for a value that is not on its list.
    """
    named = properties(schema)
    given = {name: value for name, value in known.items() if value is not None and (name in named or not named)}
    for name, value in given.items():
        allowed = named[name].get("enum") if isinstance(named.get(name), dict) else None
        if isinstance(allowed, list) and allowed and value not in allowed:
            raise ActionError(
                f"The engine's tool {tool!r} does not know this destination.",
                hint="add it to the destinations of that tool, in the settings of the engine",
            )
    for name in required(schema):
        if name not in given:
            raise ActionError(
                f"The engine's tool {tool!r} wants {name[:64]!r}, and nobody knows what that is.",
                hint="have the model call this tool itself",
            )
    return given
