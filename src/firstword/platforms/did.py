"""D-ID's agents: messages with dates, no model, and a plain answer where it is not streamed.

Source: D-ID's page on custom LLMs (docs.d-id.com/docs/custom-llms). A reply in one piece is `{"content": "..."}`; an
error has `status` beside `message`, `code` and `type`. `options` is "optional context or metadata", whose keys are the
integrator's. The names of the "metadata headers" that the page speaks of are not documented, and no tools are.
"""

from __future__ import annotations

from typing import Any

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import told
from .openai import OpenAI, aside, check, first, taken

OPTIONS = "options"
MESSAGE_FIELDS = frozenset({"created_at"})
# Under which names integrators put the session's into the options.
SESSION_NAMES = ("session_id", "conversation_id")


class DID(OpenAI):
    """Read a request of an agent."""

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        body = asked.body
        check(body)
        engine = taken(body, frozenset({OPTIONS}))
        marks = aside(body["messages"], MESSAGE_FIELDS)
        if marks:
            engine["messages"] = marks
        said = engine.get(OPTIONS)
        return asked.turn("did", engine=engine, session=first(said, SESSION_NAMES), user=first(said, ("user_id",)))

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """Return the words alone; a refusal is words as well."""
        choices = completion.get("choices") or [{}]
        message = choices[0].get("message") or {}
        return {"content": message.get("content") or message.get("refusal") or ""}

    def mistake(self, body: dict[str, Any], status: int) -> dict[str, Any]:
        """Return the body of an error with its status, and the status as the code where there is none."""
        error = body["error"]
        return {"error": {**error, "code": error.get("code") or str(status), "status": status}}

    def act(self, turn: Turn, action: Action) -> Deed:
        """Raise ActionError: no tools are documented."""
        return told(turn, action, engine="D-ID", hint="end the session by D-ID's API")


platform = DID()
