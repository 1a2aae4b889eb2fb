"""Tavus' conversational video: OpenAI's request, streamed, and the conversation's id in a header.

Source: Tavus' pages on custom LLMs (docs.tavus.io/sections/conversational-video-interface: custom-llm-onboarding and
persona/llm). The header is `conversation_id`; other clients send one of that name, so it is no mark, and Tavus is named
by the path or by FIRSTWORD_PLATFORM. The keys of `layers.llm.extra_body` stand at the root: those that name somebody
are kept back, and the rest, `temperature` and the like, is for the model. Unfinished words are sent while the caller
still speaks (`speculative_inference`, on by default). What happens on an HTTP error is not documented.
"""

from __future__ import annotations

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import END, TRANSFER, told
from .openai import OpenAI, check, first, identity, taken

SESSION = "conversation_id"
# The names under which integrators say in `extra_body` who is on the line.
IDENTITY_FIELDS = frozenset({SESSION, "session_id", "user_id"})


class Tavus(OpenAI):
    """Read a request of a persona."""

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        engine = taken(asked.body, IDENTITY_FIELDS)
        session = identity(asked.headers.get(SESSION)) or first(engine, (SESSION, "session_id"))
        return asked.turn("tavus", engine=engine, session=session, user=first(engine, ("user_id",)))

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of a function that the persona lists. Raises ActionError when there is none.

        Tavus tells the call to the client's application, which is what ends or transfers.
        """
        hint = "list a tool end_call or transfer_call in the persona, and have your application do it"
        return told(turn, action, engine="Tavus", ends=(END,), transfers=(TRANSFER,), hint=hint)


platform = Tavus()
