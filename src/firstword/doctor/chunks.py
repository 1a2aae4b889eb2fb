"""The chunks of a reply: their fields, their one ending, their count of tokens. What of them breaks which client.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .findings import Fault, Finding, Level
from .heard import Stream, choices, short

REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
METADATA = "chat.completion.custom_metadata"  # Agora's first event, whose choices nobody reads

ID_MISSING = Fault(
    "chunk-id",
    Level.ERROR,
    "A chunk has no `id`.",
    "LiveKit fails on it.",
    "Give each chunk of a reply the same `id`, such as chatcmpl- and a random part.",
)
ID_CHANGES = Fault(
    "chunk-id-changes",
    Level.WARNING,
    "The chunks of one reply have different `id`s.",
    "Clients that put chunks together by id see several replies.",
    "Make one id for each reply, fillers included.",
)
OBJECT = Fault(
    "chunk-object",
    Level.WARNING,
    "A chunk's `object` is not `chat.completion.chunk`.",
    "Clients that tell chunks from whole replies by it refuse it.",
    'Send `"object":"chat.completion.chunk"` in each chunk.',
)
CREATED = Fault(
    "chunk-created",
    Level.WARNING,
    "A chunk has no `created`, or it is not a number.",
    "Clients with typed models, in Java, Go or Rust, refuse the chunk.",
    "Send the reply's time in whole seconds since 1970 in each chunk.",
)
MODEL = Fault(
    "chunk-model",
    Level.WARNING,
    "A chunk has no `model`.",
    "Clients with typed models, in Java, Go or Rust, refuse the chunk.",
    "Send the model's name in each chunk.",
)
CHANGES = Fault(
    "chunk-changes",
    Level.ADVICE,
    "`created` or `model` changes within a reply.",
    "Clients that keep the last one, or the first, tell different stories of the same reply.",
    "Send one `created` and one `model` for the whole reply.",
)
NO_CHOICES = Fault(
    "choices-missing",
    Level.ERROR,
    "A chunk has no list of `choices`.",
    "Vapi dies on a chunk without choices, LiveKit on `null`: the agent falls silent.",
    "Send `choices` as a list in each chunk, if need be an empty one.",
)
EMPTY_CHOICES = Fault(
    "choices-empty",
    Level.WARNING,
    "A chunk has empty `choices`, and it is no count of tokens that was asked for.",
    "Clients that read `choices[0]` of each chunk, as Agora's engine does, fail on it.",
    "Leave such chunks out; Azure sends one as its first.",
)
NO_DELTA = Fault(
    "delta-missing",
    Level.ERROR,
    "A choice has no `delta` object.",
    "Clients read `choices[0].delta.content` of each chunk and fail. A `message` belongs to whole replies.",
    "Send `delta`, in the last chunk as `{}`.",
)
NOT_TEXT = Fault(
    "content-type",
    Level.ERROR,
    "A delta's `content` is neither text nor null.",
    "Clients join pieces of text; a list or an object breaks them.",
    "Send `content` as a string.",
)
NO_ROLE = Fault(
    "role-missing",
    Level.ADVICE,
    "No chunk says `role`.",
    "Clients that build a message from the deltas have one without a role.",
    'Send `{"role":"assistant","content":""}` as the first delta.',
)
ROLE_AGAIN = Fault(
    "role-again",
    Level.WARNING,
    "Several chunks say `role`.",
    "Helpers that join deltas make `assistantassistant` of it.",
    "Say the role in the first delta only.",
)
NO_FINISH = Fault(
    "finish-missing",
    Level.WARNING,
    "No chunk has a `finish_reason`.",
    "LiveKit loses a tool call without one, and SDK helpers raise at the end.",
    'Send `{"delta":{},"finish_reason":"stop"}` before [DONE].',
)
FINISH_TWICE = Fault(
    "finish-twice",
    Level.WARNING,
    "There is more than one `finish_reason`.",
    "Clients end the reply at the first one, or end it twice.",
    "Send exactly one, in the last chunk with a choice.",
)
FINISH_UNKNOWN = Fault(
    "finish-unknown",
    Level.WARNING,
    "The `finish_reason` is none that the API knows.",
    "Clients with a fixed list of reasons refuse the chunk.",
    "Send stop, length, tool_calls or content_filter.",
)
AFTER_FINISH = Fault(
    "finish-erased",
    Level.WARNING,
    "A chunk with a choice comes behind the `finish_reason`.",
    "Clients have ended the reply, so it is lost; those that keep the last reason have none now, and run no tool.",
    "Send the finish_reason last, and tokens in a chunk with empty choices.",
)
USAGE_UNASKED = Fault(
    "usage-unasked",
    Level.WARNING,
    "A chunk with tokens and no choices comes, and nobody asked for it.",
    "Clients that read `choices[0]` of each chunk, as Agora's engine does, fail on it.",
    "Send it only if `stream_options.include_usage` is true.",
)
USAGE_MISSING = Fault(
    "usage-missing",
    Level.ADVICE,
    "`stream_options.include_usage` was asked for, and no tokens came.",
    "Whoever counts costs counts nothing.",
    "Pass stream_options on to the model, and its last chunk back.",
)
FAULTS = (
    ID_MISSING,
    ID_CHANGES,
    OBJECT,
    CREATED,
    MODEL,
    CHANGES,
    NO_CHOICES,
    EMPTY_CHOICES,
    NO_DELTA,
    NOT_TEXT,
    NO_ROLE,
    ROLE_AGAIN,
    NO_FINISH,
    FINISH_TWICE,
    FINISH_UNKNOWN,
    AFTER_FINISH,
    USAGE_UNASKED,
    USAGE_MISSING,
)


def judge_chunks(stream: Stream, *, wants_usage: bool = False) -> list[Finding]:
    """Return what is wrong with the chunks of a stream."""
    chunks = [chunk for _, chunk in stream.chunks if not chunk.get("error")]
    if chunks and chunks[0].get("object") == METADATA:
        chunks = chunks[1:]
    found = list(_judge_names(chunks))
    for chunk in chunks:
        found += _judge_choices(chunk, wants_usage=wants_usage)
    if wants_usage and chunks and stream.usage is None:
        found.append(USAGE_MISSING.seen())
    return [*found, *_judge_role(stream), *_judge_ending(stream, chunks)]


def _judge_names(chunks: list[dict[str, Any]]) -> Iterator[Finding]:
    for chunk in chunks:
        seen = _shown(chunk)
        if not isinstance(chunk.get("id"), str) or not chunk["id"]:
            yield ID_MISSING.seen(seen)
        if chunk.get("object") != "chat.completion.chunk":
            yield OBJECT.seen(f"object: {short(repr(chunk.get('object')))}")
        if isinstance(chunk.get("created"), bool) or not isinstance(chunk.get("created"), (int, float)):
            yield CREATED.seen(f"created: {short(repr(chunk.get('created')))}")
        if not isinstance(chunk.get("model"), str) or not chunk["model"]:
            yield MODEL.seen(f"model: {short(repr(chunk.get('model')))}")
    for name, fault in (("id", ID_CHANGES), ("created", CHANGES), ("model", CHANGES)):
        values = list(dict.fromkeys(str(chunk[name]) for chunk in chunks if chunk.get(name)))
        if len(values) > 1:
            yield fault.seen(short(f"{name}: {values[0]}, then {values[1]}"))


def _judge_choices(chunk: dict[str, Any], *, wants_usage: bool) -> Iterator[Finding]:
    found = chunk.get("choices")
    seen = _shown(chunk)
    if not isinstance(found, list):
        yield NO_CHOICES.seen(seen)
    elif not found and not chunk.get("usage"):
        yield EMPTY_CHOICES.seen(seen)
    elif not found and not wants_usage:
        yield USAGE_UNASKED.seen(seen)
    for choice in choices(chunk):
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            yield NO_DELTA.seen(seen)
        elif not isinstance(delta.get("content") or "", str):
            yield NOT_TEXT.seen(seen)


def _judge_role(stream: Stream) -> Iterator[Finding]:
    roles = [delta["role"] for _, delta in stream.deltas if isinstance(delta, dict) and delta.get("role")]
    if len(roles) > 1:
        yield ROLE_AGAIN.seen(f"{len(roles)} times")
    if not roles and stream.deltas:
        yield NO_ROLE.seen()


def _judge_ending(stream: Stream, chunks: list[dict[str, Any]]) -> Iterator[Finding]:
    reasons = stream.reasons
    firsts = [choices(chunk)[0] for chunk in chunks if choices(chunk)]
    ended = [bool(choice.get("finish_reason")) for choice in firsts]
    if not reasons and stream.done_at is not None and firsts:
        yield NO_FINISH.seen(f"last chunk: {_shown(chunks[-1])}")
    if len(reasons) > 1:
        yield FINISH_TWICE.seen(", ".join(reasons[:4]))
    elif any(ended) and not ended[-1]:
        yield AFTER_FINISH.seen(f"last chunk: {_shown(chunks[-1])}")
    if any(reason not in REASONS for reason in reasons):
        yield FINISH_UNKNOWN.seen(short(reasons[0]))


def _shown(chunk: dict[str, Any]) -> str:
    return short(msgspec.json.encode(chunk))
