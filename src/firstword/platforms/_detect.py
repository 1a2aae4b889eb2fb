"""Which voice engine a request comes from: a table of marks, each with its reason.

A mark is something that its engine alone sends: a field's name and its shape, a parameter of the URL, a header. What
callers or prompts say is never looked at. The first line of the table that fits counts; what fits none is plain OpenAI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from . import Asked

PLAIN = "openai"


class Mark(NamedTuple):
    """One line: `name` stands in the request's `where`, and `fits` says whether its value is the engine's."""

    platform: str
    where: str  # "body", "message", "query" or "header"
    name: str
    fits: Callable[[Any], bool]
    why: str
    never: str = ""  # a field of the body that this engine never sends: where it stands, somebody else has sent it


# What Agora documents as `metadata.source`; a client may have a `source` of its own.
SOURCES = frozenset({"asr", "message", "command", "llm", "greeting", "llm_failure", "silence"})
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^ ]*")


def _any(value: Any) -> bool:
    return True


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) is int


def _named(value: Any) -> bool:
    """Fit the name of somebody or something, which engines send as a number as well."""
    return type(value) in (str, int) and value != ""


def _has(*names: str) -> Callable[[Any], bool]:
    """Return what fits an object with one of these fields."""
    return lambda value: isinstance(value, dict) and not value.keys().isdisjoint(names)


def _date(value: Any) -> bool:
    return isinstance(value, str) and _DATE.fullmatch(value) is not None


def _told(value: Any) -> bool:
    """Fit what Agora tells of a message."""
    if not isinstance(value, dict):
        return False
    source = value.get("source")
    return (isinstance(source, str) and source in SOURCES) or isinstance(value.get("vpids"), list)


# Deepgram, Tavus, LiveKit and Pipecat are not here: their requests are those of the OpenAI SDK, and show nothing that
# others do not. They are read as plain OpenAI, unless the path or a setting names them.
MARKS: tuple[Mark, ...] = (
    Mark("elevenlabs", "body", "elevenlabs_extra_body", _any, "named after it: what the client sent at the start"),
    Mark("vapi", "body", "call", _has("id", "orgId", "assistantId"), "Vapi adds the call to each request"),
    Mark("vapi", "body", "phoneNumber", _object, "and the number that was called"),
    Mark("telnyx", "body", "extra_metadata", _object, "the assistant's variables, with `forward_metadata`"),
    Mark("hume", "query", "custom_session_id", _any, "Hume adds it to the URL of the language model"),
    Mark("hume", "message", "models", _has("prosody"), "Hume tells how the words were spoken"),
    Mark("did", "message", "created_at", _date, "D-ID dates its messages, and never names a model", never="model"),
    Mark("agora", "body", "turn_id", _number, "Agora's `vendor: custom` adds it"),
    Mark("agora", "body", "interruptable", _flag, "and this"),
    Mark("agora", "message", "turn_id", _number, "and this, to messages"),
    Mark("agora", "message", "metadata", _told, "and this: where the message came from, who spoke"),
    Mark("agora", "body", "context", _has("presence", "appId", "userId", "channel"), "Agora's RTM presence"),
    Mark("agora", "body", "agent_uid", _named, "the keys that integrators put into `llm.params`: the agent's uid"),
    Mark("agora", "body", "user_uid", _named, "the caller's uid"),
    Mark("agora", "body", "app_id", _named, "the project"),
    Mark("agora", "body", "agent_id", _named, "the agent"),
    Mark("agora", "body", "channel", _named, "the channel"),
    Mark("agora", "body", "params", _object, "some versions send `llm.params` as they are"),
    Mark("agora", "query", "channel", _named, "the same keys in the URL"),
    Mark("agora", "query", "agent_id", _named, "the agent, for `turn.end_call()`"),
)

_BODY, _MESSAGE, _QUERY, _HEADER = (
    frozenset(mark.name for mark in MARKS if mark.where == where) for where in ("body", "message", "query", "header")
)


def detected(asked: Asked) -> str:
    """Return the name of the platform that a request comes from."""
    mark = found(asked)
    return PLAIN if mark is None else mark.platform


def found(asked: Asked) -> Mark | None:
    """Return the first mark that a request bears."""
    body = asked.body
    messages = body.get("messages")
    # Told apart at a glance, because conversations are long and most requests are marked elsewhere, or nowhere.
    listed = messages if isinstance(messages, list) else []
    marked = [each for each in listed if isinstance(each, dict) and not _MESSAGE.isdisjoint(each)]
    if not marked and _BODY.isdisjoint(body) and _QUERY.isdisjoint(asked.query) and _HEADER.isdisjoint(asked.headers):
        return None
    places: Mapping[str, Sequence[Mapping[str, Any]]] = {
        "body": [body],
        "message": marked,
        "query": [asked.query],
        "header": [asked.headers],
    }
    for mark in MARKS:
        if any(_bears(place, mark) for place in places[mark.where]) and not _denies(body, mark):
            return mark
    return None


def _denies(body: Mapping[str, Any], mark: Mark) -> bool:
    return bool(mark.never) and body.get(mark.never) is not None


def _bears(place: Mapping[str, Any], mark: Mark) -> bool:
    return mark.name in place and mark.fits(place[mark.name])
