"""Telnyx' AI assistants: OpenAI's request, with the assistant's dynamic variables in `extra_metadata`.

Source: Telnyx' pages on custom LLMs and on dynamic variables (developers.telnyx.com/docs/inference/ai-assistants). The
variables come with `forward_metadata` only, which is off by default. The documents name `telnyx_end_user_target` among
them; that a call's id is there too is not said, so a variable of your own may hold the session. The names of the tools
are those of their types in Telnyx' SDKs. What happens on an HTTP error is not documented.
"""

from __future__ import annotations

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import told
from .openai import OpenAI, check, first, taken

EXTRA = "extra_metadata"
# A variable of your own, then what Telnyx calls the conversation and the call where it starts them.
SESSION_NAMES = ("session_id", "telnyx_conversation_id", "conversation_id", "call_control_id")
USER = "telnyx_end_user_target"  # a phone number, a SIP address or another identifier
END, TRANSFER = "hangup", "transfer"


class Telnyx(OpenAI):
    """Read a request of an AI assistant."""

    engine_tools: frozenset[str] = frozenset({END, TRANSFER, "handoff", "refer", "send_dtmf"})

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        engine = taken(asked.body, frozenset({EXTRA}))
        known = engine.get(EXTRA)
        return asked.turn("telnyx", engine=engine, session=first(known, SESSION_NAMES), user=first(known, (USER,)))

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of `hangup` or `transfer`. Raises ActionError when the assistant has not that tool."""
        hint = f"add the tool {END if action.to is None else TRANSFER} to the assistant"
        return told(turn, action, engine="Telnyx", ends=(END,), transfers=(TRANSFER,), hint=hint)


platform = Telnyx()
