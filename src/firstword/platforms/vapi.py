"""Vapi: OpenAI's request, with the call that it belongs to around it.

Source: Vapi's custom LLM documentation, and `metadataSendMode` in its API reference. `call`, `phoneNumber`, `customer`
and `metadata` are kept in `turn.engine` and never reach a provider; nor do `assistant` and `timestamp`, which come as
well and are not documented. An HTTP error can end a call there, so there is always an apology, in English unless the
App has one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..action import Action, Deed
from ..errors import ActionError
from ..turn import Turn
from . import Asked
from ._tools import fitted, listed, properties
from .openai import OpenAI, check, fields, identity, taken

ENGINE_FIELDS = frozenset({"call", "phoneNumber", "customer", "metadata", "assistant", "timestamp"})
APOLOGY = "Sorry, I did not get that. Could you say it again?"
END, TRANSFER = "endCall", "transferCall"
# The dashboard names a new Hang Up tool so, and says itself that it may be renamed. Source: docs.vapi.ai/tools/hang-up
OTHER_END = "end_call_tool"


class Vapi(OpenAI):
    """Read a request of a Vapi assistant."""

    engine_tools: frozenset[str] = frozenset({END, OTHER_END, TRANSFER})
    apology = APOLOGY

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        engine = taken(asked.body, ENGINE_FIELDS)
        call, customer = fields(engine.get("call")), fields(engine.get("customer"))
        customer = customer or fields(call.get("customer"))
        return asked.turn(
            "vapi",
            engine=engine,
            session=identity(call.get("id")),
            user=identity(customer.get("number")),
        )

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of `endCall` or `transferCall`. Raises ActionError when the assistant has not that tool."""
        name = END if action.to is None else TRANSFER
        tools = listed(turn)
        if action.to is None and END not in tools and OTHER_END in tools:
            name = OTHER_END
        if name not in tools:
            raise ActionError(
                f"The assistant has no tool {name!r}, by which Vapi does this.",
                hint=f'add {{"type": "{name}"}} to `model.tools` of the assistant',
            )
        known = {"reason": "The conversation is over." if action.to is None else "The call is transferred."}
        if action.to is None:
            return Deed(action.words, (name, fitted(name, tools[name], known if properties(tools[name]) else {})))
        return Deed(action.words, (name, _transfer(tools[name], action, known)))


def _transfer(schema: Mapping[str, Any], action: Action, known: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `transferCall`: a string, or an object where the schema says so."""
    named = properties(schema)
    if not named:
        return {"destination": action.number or action.address or action.to}
    if "destination" not in named:
        raise ActionError(
            "The tool 'transferCall' of this assistant takes no destination.",
            hint="list its destinations in the settings of the assistant",
        )
    destination: Any = action.number or action.address or action.to
    if fields(named["destination"]).get("type") == "object":
        destination = {"type": "assistant", "assistantName": action.to}
        if action.number:
            destination = {"type": "number", "number": action.number}
        elif action.address:
            destination = {"type": "sip", "sipUri": action.address}
    return fitted(TRANSFER, schema, {**known, "destination": destination})


platform = Vapi()
