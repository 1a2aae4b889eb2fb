"""Agora's Conversational AI Engine: OpenAI's request, and around it what only the engine understands.

Source: Agora's custom LLM and short-term memory documentation. What the engine adds is kept in `turn.engine` and never
reaches a provider, because strict ones (Groq, Mistral) refuse a field that they do not know. So are the keys that say
who is on the line. A request without any of it is read as plain OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..action import Action, Agent, Deed
from ..chunk import Chunk
from ..errors import ActionError
from ..message import Message, words
from ..turn import Turn
from . import Asked
from .openai import OpenAI, aside, check, fields, identity

# `vendor: custom` adds these to the root; the rest are the keys that integrators put into `llm.params`, or into the
# URL's query, to say who is on the line.
ENGINE_FIELDS = frozenset({"turn_id", "timestamp", "interruptable"})
IDENTITY_FIELDS = frozenset({"session_id", "channel", "app_id", "user_uid", "agent_uid", "agent_id"})
MESSAGE_FIELDS = frozenset({"turn_id", "timestamp", "metadata"})
CONTEXT_MARKS = frozenset({"presence", "appId", "userId", "channel"})
METADATA = "chat.completion.custom_metadata"
MILLISECONDS = 1e11  # a time over this is none in seconds: it would be in the year 5138. Agora's examples have both

_ROOT_FIELDS = ENGINE_FIELDS | IDENTITY_FIELDS

Json = dict[str, Any]


class Agora(OpenAI):
    """Agora's dialect."""

    speaks_errors = True  # its `failure_message`
    forgets_images = True

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        body, query = asked.body, asked.query
        _flatten_params(body)
        check(body)
        engine: Json = {name: query[name] for name in query.keys() & IDENTITY_FIELDS} if query else {}
        engine.update({name: body.pop(name) for name in body.keys() & _ROOT_FIELDS})
        context = body.get("context")
        if isinstance(context, dict) and not CONTEXT_MARKS.isdisjoint(context):
            engine["context"] = body.pop("context")
        # Side by side with the messages, so that messages[i] and engine["messages"][i] are the same one.
        messages = body["messages"]
        marks = aside(messages, MESSAGE_FIELDS)
        if marks:
            engine["messages"] = marks
        last = marks[-1] if marks else {}
        return asked.turn(
            "agora",
            engine=engine,
            source=identity(_metadata(last).get("source")),
            speakers=_speakers(last),
            presence=fields(fields(engine.get("context")).get("presence")),
            past=partial(_history, list(messages), marks) if marks else None,
            **_identity(engine, marks),
        )

    def opening(self, turn: Turn, id: str) -> Chunk | None:
        """Return the first event of a reply, which alone may carry metadata; its choices are not read."""
        metadata: Json = {}
        if turn.interruptable is not None:
            metadata["interruptable"] = turn.interruptable
        if turn.voice is not None:
            metadata["tts_params"] = turn.voice
        return Chunk({"id": id, "object": METADATA, "choices": [], "metadata": metadata})

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


def _flatten_params(body: Json) -> None:
    """Lift a nested `params` object, which some engine versions send, to the root; what stands there already wins."""
    params = body.get("params")
    if isinstance(params, dict):
        del body["params"]
        for name, value in params.items():
            body.setdefault(name, value)


def _identity(engine: Json, marks: Sequence[Json]) -> Json:
    """Return what the turn knows of who is on the line; nothing, as a rule, of a client that is no engine."""
    context = fields(engine.get("context"))
    number = engine.get("turn_id")
    if not _is_number(number) and marks:
        number = marks[-1].get("turn_id")  # it stands at the root as well, but for an engine that leaves it out
    return {
        "session": identity(engine.get("session_id")) or identity(engine.get("agent_id")),
        "user": identity(engine.get("user_uid")) or _speaker(marks) or identity(context.get("userId")),
        "channel": identity(engine.get("channel")) or identity(context.get("channel")),
        "number": number if _is_number(number) else None,
    }


def _speaker(marks: Sequence[Json]) -> str | None:
    """Return the uid of whoever spoke last."""
    for mark in reversed(marks):
        user = identity(_metadata(mark).get("user"))
        if user:
            return user
    return None


def _history(messages: Sequence[Json], marks: Sequence[Json]) -> list[Message]:
    """Return the messages with what the engine tells of each."""
    return [_message(each, mark) for each, mark in zip(messages, marks, strict=True)]


def _message(item: Json, mark: Mapping[str, Any]) -> Message:
    metadata = _metadata(mark)
    number = mark.get("turn_id")
    return Message(
        item,
        item.get("role") or "",
        words(item.get("content")),
        original=metadata["original"] if isinstance(metadata.get("original"), str) else None,
        interrupted=metadata.get("interrupted") is True,
        source=identity(metadata.get("source")),
        user=identity(metadata.get("user")),
        speakers=_speakers(mark),
        number=number if _is_number(number) else None,
        at=_seconds(mark.get("timestamp")),
        interrupted_at=_seconds(metadata.get("interrupt_timestamp")),
    )


def _metadata(mark: Mapping[str, Any]) -> Json:
    return fields(mark.get("metadata"))


def _speakers(mark: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the recognised voices; `unknown` is Agora's word for one that it does not know."""
    named = _metadata(mark).get("vpids")
    return tuple(each for each in named if isinstance(each, str)) if isinstance(named, list) else ()


def _seconds(value: Any) -> float | None:
    """Return a time in seconds since 1970; None for what is no time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        return None
    return value / 1000 if value > MILLISECONDS else float(value)


def _is_number(value: Any) -> bool:
    return type(value) is int


platform = Agora()
