"""Agora's Conversational AI Engine: OpenAI's request, and around it what only the engine understands.

Source: Agora's custom LLM documentation. What the engine adds is kept in `turn.engine` and never reaches a
provider, because strict ones (Groq, Mistral) refuse a field that they do not know. A request without any of
it is read as plain OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..action import Action, Agent, Deed
from ..errors import ActionError
from ..turn import Turn
from .openai import check, identity

# `vendor: custom` adds these to the root; the rest are the keys that integrators put into `llm.params` to say
# who is on the line.
ENGINE_FIELDS = frozenset({"turn_id", "timestamp", "interruptable"})
IDENTITY_FIELDS = frozenset({"session_id", "channel", "app_id", "user_uid", "agent_uid", "agent_id"})
MESSAGE_FIELDS = frozenset({"turn_id", "timestamp", "metadata"})
CONTEXT_MARKS = frozenset({"presence", "appId", "userId", "channel"})


_ROOT_FIELDS = ENGINE_FIELDS | IDENTITY_FIELDS


class Agora:
    """Read a request of Agora's engine, or of any client that speaks OpenAI's."""

    engine_tools: frozenset[str] = frozenset()

    def read(
        self, body: dict[str, Any], *, headers: Mapping[str, str], query: Mapping[str, str], path: str, key: str | None
    ) -> Turn:
        """Return the turn; `body` is taken over. Raises BadRequest that names the field."""
        _flatten_params(body)
        check(body)
        engine = {name: body.pop(name) for name in body.keys() & _ROOT_FIELDS}
        context = body.get("context")
        if isinstance(context, dict) and not CONTEXT_MARKS.isdisjoint(context):
            engine["context"] = body.pop("context")
        # Side by side with the messages, so that messages[i] and engine["messages"][i] are the same one.
        marks: list[dict[str, Any]] = []
        messages = body["messages"]
        if not all(map(MESSAGE_FIELDS.isdisjoint, messages)):
            marks = [{name: each.pop(name) for name in each.keys() & MESSAGE_FIELDS} for each in messages]
            engine["messages"] = marks
        return Turn(
            request=body,
            stream=bool(body.get("stream")),
            key=key,
            headers=headers,
            query=query,
            path=path,
            engine=engine,
            **_identity(engine, marks),
        )

    def filler(self, words: str) -> str:
        """Return the words as they are."""
        return words

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return which agent is to leave. Raises ActionError for a transfer, and when nobody knows the agent.

        No hang-up within a reply is documented: an agent leaves by a REST call.
        """
        if action.to is not None:
            raise ActionError(
                "Agora cannot be told to transfer a call.", hint="let a tool ask the telephony provider for it"
            )
        agent = Agent(identity(turn.engine.get("agent_id")), turn.channel)
        if agent.id is None and agent.channel is None:
            raise ActionError(
                "It is not known which agent is to leave.", hint="put `channel` or `agent_id` into `llm.params`"
            )
        return Deed(action.words, agent=agent)


def _flatten_params(body: dict[str, Any]) -> None:
    """Lift a nested `params` object, which some engine versions send, to the root; what stands there already wins."""
    params = body.get("params")
    if isinstance(params, dict):
        del body["params"]
        for name, value in params.items():
            body.setdefault(name, value)


def _identity(engine: dict[str, Any], marks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the turn knows of who is on the line; nothing, as a rule, of a client that is no engine."""
    if not engine:
        return {}
    return {
        "session": identity(engine.get("session_id")) or identity(engine.get("agent_id")),
        "user": identity(engine.get("user_uid")) or _speaker(marks),
        "channel": identity(engine.get("channel")),
        "number": engine["turn_id"] if isinstance(engine.get("turn_id"), int) else None,
    }


def _speaker(marks: list[dict[str, Any]]) -> str | None:
    """Return the uid of whoever spoke last."""
    for mark in reversed(marks):
        metadata = mark.get("metadata")
        if isinstance(metadata, dict) and metadata.get("user"):
            return identity(metadata["user"])
    return None


platform = Agora()
