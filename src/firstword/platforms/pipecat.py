"""Pipecat: the OpenAI SDK's own request, from `OpenAILLMService(base_url=...)`.

Source: Pipecat's documentation of OpenAILLMService, and pipecat-ai itself. A request looks like any other of the SDK,
so it is read as plain OpenAI unless the path or FIRSTWORD_PLATFORM says pipecat. The session's name stands where the
bot puts it: `default_headers={"x-session-id": ...}`, or `extra_body` among the settings' `extra`. An HTTP error is
right: the pipeline hears of it by `on_pipeline_error`, and a request without headers in time is sent again.
"""

from __future__ import annotations

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import END, TRANSFER, told
from .openai import OpenAI, check


class Pipecat(OpenAI):
    """Read a request of a bot."""

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        return asked.turn("pipecat")

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of a function that the bot has registered. Raises ActionError when there is none."""
        hint = "register a function end_call that pushes an EndTaskFrame, or transfer_call"
        return told(turn, action, engine="Pipecat", ends=(END,), transfers=(TRANSFER,), hint=hint)


platform = Pipecat()
