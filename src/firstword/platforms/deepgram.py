"""Deepgram's Voice Agent: OpenAI's request, streamed, from a think provider `open_ai` with an endpoint of yours.

Source: Deepgram's page on LLM models (developers.deepgram.com/docs/voice-agent-llm-models). A request shows nothing of
its own, so it is named by the path or by FIRSTWORD_PLATFORM. The session's name stands in a header that the client sets
in `endpoint.headers`. `reasoning_effort`, which comes of the provider's `reasoning_mode`, is kept back: models that do
not reason refuse it. No tool of its own ends a call; what happens on an HTTP error is not documented.
"""

from __future__ import annotations

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import END, TRANSFER, told
from .openai import OpenAI, check, taken

ENGINE_FIELDS = frozenset({"reasoning_effort"})


class Deepgram(OpenAI):
    """Read a request of a voice agent."""

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        return asked.turn("deepgram", engine=taken(asked.body, ENGINE_FIELDS))

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of a function that the client has listed. Raises ActionError when there is none."""
        hint = "list a function end_call or transfer_call in `agent.think.functions`, and have the client do it"
        return told(turn, action, engine="Deepgram", ends=(END,), transfers=(TRANSFER,), hint=hint)


platform = Deepgram()
