"""Hume's EVI: OpenAI's request, with the caller's emotions beside each message, and a session's name in the URL.

Source: Hume's custom language model guide (dev.hume.ai/docs/speech-to-speech-evi/guides/custom-language-model), the
example that it names, and its page on tools. `custom_session_id` comes as a parameter of the URL, and Hume takes it
back from `system_fingerprint`, which its example puts into every chunk. What an HTTP error leads to is not documented.
"""

from __future__ import annotations

from typing import Any

from ..action import Action, Deed
from ..turn import Turn
from . import Asked
from ._tools import told
from .openai import OpenAI, aside, check

SESSION = "custom_session_id"
ECHO = "system_fingerprint"
MESSAGE_FIELDS = frozenset({"models", "time"})  # how the words were spoken, and when, in milliseconds of the chat
END = "hang_up"


class Hume(OpenAI):
    """Read a request of an EVI configuration."""

    engine_tools: frozenset[str] = frozenset({END, "web_search"})

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field.

        `turn.engine["messages"][i]` is what Hume tells of `turn.messages[i]`, and `turn.engine["prosody"]` are the
        scores of the caller's last words, by the name of the emotion.
        """
        body = asked.body
        check(body)
        session = asked.query.get(SESSION) or None
        marks = aside(body["messages"], MESSAGE_FIELDS)
        engine: dict[str, Any] = {} if session is None else {SESSION: session}
        if marks:
            engine["messages"] = marks
            engine["prosody"] = _scores(body["messages"], marks)
        echo = {} if session is None else {ECHO: session}
        return asked.turn("hume", engine=engine, session=session, echo=echo)

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return the call of `hang_up`. Raises ActionError for a transfer, and when the tool is not switched on."""
        hint = "add hang_up to the built-in tools of the config"
        if action.to is not None:
            hint = "let a tool ask the telephony provider for it"
        return told(turn, action, engine="Hume", ends=(END,), hint=hint)


def _scores(messages: list[dict[str, Any]], marks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of the last message of the caller; none when there are none."""
    for message, mark in zip(reversed(messages), reversed(marks), strict=True):
        if message.get("role") == "user":
            scores: Any = mark.get("models")
            for name in ("prosody", "scores"):
                scores = scores.get(name) if isinstance(scores, dict) else None
            return scores if isinstance(scores, dict) else {}
    return {}


platform = Hume()
