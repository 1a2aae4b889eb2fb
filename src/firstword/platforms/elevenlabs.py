"""ElevenLabs' conversational AI: OpenAI's request, with what its agents add around it.

Source: ElevenLabs' custom LLM documentation. `elevenlabs_extra_body` is what the integrator's client sends when a
conversation starts; it and `user_id` are kept in `turn.engine` and never reach a provider. What an HTTP error leads to
is not documented.
"""

from __future__ import annotations

from typing import Any

from ..action import Action, Deed
from ..errors import ActionError
from ..turn import Turn
from . import Asked
from ._tools import fitted, listed, properties, required
from .openai import OpenAI, check, first, identity, taken

EXTRA = "elevenlabs_extra_body"
ENGINE_FIELDS = frozenset({EXTRA, "user_id"})
# Under which names integrators put the conversation's id into the extra body.
SESSION_NAMES = ("session_id", "conversation_id")
MAX_POSITION = 2  # digits; a phone number has more
# The parameters of system tools that the engine speaks, whichever of them a tool has.
SPOKEN = ("system__message_to_speak", "message", "client_message")

SYSTEM_TOOLS = frozenset(
    {
        "end_call",
        "language_detection",
        "play_keypad_touch_tone",
        "skip_turn",
        "transfer_to_agent",
        "transfer_to_number",
        "voicemail_detection",
    }
)


class ElevenLabs(OpenAI):
    """Read a request of an ElevenLabs agent."""

    engine_tools: frozenset[str] = SYSTEM_TOOLS

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        engine = taken(asked.body, ENGINE_FIELDS)
        said = engine.get(EXTRA)
        return asked.turn(
            "elevenlabs",
            engine=engine,
            session=first(said, SESSION_NAMES),
            user=identity(engine.get("user_id")) or first(said, ("user_id",)),
        )

    def filler(self, words: str) -> str:
        """Return the words with `... ` behind them: the engine then speaks them at once, and waits for more."""
        return words.rstrip(" \n.…。!！?？,，") + "... "

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of a system tool. Raises ActionError when the agent has not that tool.

        What is to be said stands in the call, if the tool has a parameter for it, and else before it.
        """
        name = _tool(action)
        schema = listed(turn).get(name)
        if schema is None:
            raise ActionError(
                f"The agent has no system tool {name!r}, by which ElevenLabs does this.",
                hint=f"switch {name} on, among the tools of the agent",
            )
        known, said = _arguments(name, action), False
        for each in sorted(SPOKEN, key=lambda each: each not in required(schema)):
            if each in properties(schema) and not said and action.words:
                known[each], said = action.words, True
            elif each in required(schema):
                known[each] = ""
        return Deed("" if said else action.words, (name, fitted(name, schema, known)))


def _tool(action: Action) -> str:
    if action.to is None:
        return "end_call"
    return "transfer_to_agent" if _position(action) is not None else "transfer_to_number"


def _position(action: Action) -> int | None:
    """Return which of the agents in the tool's rules is meant, the first being 0; None for a number or an address."""
    to = (action.to or "").strip()
    return int(to) if to.isascii() and to.isdigit() and len(to) <= MAX_POSITION else None


def _arguments(name: str, action: Action) -> dict[str, Any]:
    """Return all that a system tool may want to know. Raises ActionError for an agent that is named."""
    if name == "end_call":
        return {"reason": "The conversation is over."}
    reason = "The call is transferred."
    if name == "transfer_to_agent":
        return {"reason": reason, "agent_number": _position(action)}
    number = action.number or action.address
    if number is None:
        raise ActionError(
            "ElevenLabs does not know an agent by its name.",
            hint='write its position among the rules of transfer_to_agent, from "0"',
        )
    return {"reason": reason, "transfer_number": number, "agent_message": "A call is transferred to you."}


platform = ElevenLabs()
