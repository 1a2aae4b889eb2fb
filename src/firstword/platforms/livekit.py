"""LiveKit Agents: the OpenAI SDK's own request, from `openai.LLM(base_url=...)`.

Source: LiveKit's documentation of OpenAI-compatible LLMs and of EndCallTool, and livekit-agents itself. A request looks
like any other of the SDK, so it is read as plain OpenAI unless the path or FIRSTWORD_PLATFORM says livekit. The
session's name stands where the agent puts it: `extra_headers={"x-session-id": ...}`, or `extra_body`. An HTTP error is
right: the FallbackAdapter and the SDK's retries need it.
"""

from __future__ import annotations

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import END, TRANSFER, told
from .openai import OpenAI, check


class LiveKit(OpenAI):
    """Read a request of an agent."""

    engine_tools: frozenset[str] = frozenset({END})

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        return asked.turn("livekit")

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of EndCallTool, or of a function `transfer_call`. Raises ActionError when it is not there."""
        hint = "give the agent EndCallTool().tools" if action.to is None else "give the agent a tool transfer_call"
        return told(turn, action, engine="LiveKit", ends=(END,), transfers=(TRANSFER,), hint=hint)


platform = LiveKit()
