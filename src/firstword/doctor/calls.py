"""A call of the engine's own tool, as it is streamed: what of it loses the call, in which client.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .findings import Fault, Finding, Level
from .heard import Stream, decoded, short

NO_INDEX = Fault(
    "call-index",
    Level.ERROR,
    "A tool call's piece has no `index`.",
    "openai-python's helpers raise, and others cannot tell whose arguments these are.",
    "Send `index` in each piece, counted from 0.",
)
INDEX_START = Fault(
    "call-index-start",
    Level.ERROR,
    "The first tool call does not have the index 0.",
    "openai-node makes a list with a hole, and the call is lost.",
    "Count `index` from 0.",
)
SAME_INDEX = Fault(
    "call-index-twice",
    Level.ERROR,
    "Two tool calls have the same `index`.",
    "Clients merge them into one broken call; Ollama is known to send them so.",
    "Count `index` up for each call.",
)
NO_ID = Fault(
    "call-id",
    Level.ERROR,
    "A tool call has no `id`.",
    "The engine cannot send its result back, and LiveKit drops the call.",
    "Send an `id` in the first piece of each call.",
)
ID_AGAIN = Fault(
    "call-id-again",
    Level.ERROR,
    "The `id` or the name of a tool call is sent again with each piece.",
    "Clients join what they get: `get_weatherget_weather` is a tool that nobody has.",
    "Send `id`, `type` and `function.name` once, in the first piece.",
)
NO_TYPE = Fault(
    "call-type",
    Level.WARNING,
    'A tool call has no `"type":"function"`.',
    "Clients with typed models refuse it.",
    "Send the type in the first piece of each call.",
)
NO_NAME = Fault(
    "call-name",
    Level.ERROR,
    "A tool call has no name, or one that was not offered.",
    "The engine has no tool to run.",
    "Send `function.name` in the first piece of each call, as the request has it.",
)
ARGUMENTS = Fault(
    "call-arguments",
    Level.ERROR,
    "The arguments of a tool call are not a text that holds a JSON object.",
    "Pipecat skips the call, others raise.",
    "Send `arguments` as text whose pieces make one JSON object; `{}` when there are none.",
)
TWO_IN_ONE = Fault(
    "call-two-in-one",
    Level.ERROR,
    "One chunk holds pieces of two tool calls.",
    "Pipecat reads the first and loses the second.",
    "Send one piece of one call in each chunk.",
)
BESIDE_WORDS = Fault(
    "call-beside-words",
    Level.ERROR,
    "One chunk holds words and a tool call.",
    "Pipecat loses the words.",
    "Send words and calls in chunks of their own.",
)
FINISH = Fault(
    "call-finish",
    Level.ERROR,
    "The reply calls a tool, and its `finish_reason` is not `tool_calls`.",
    "LiveKit loses the call when the reason is missing or `length`, and engines run no tool on `stop`.",
    'Send `"finish_reason":"tool_calls"` when there are calls.',
)
FAULTS = (
    NO_INDEX,
    INDEX_START,
    SAME_INDEX,
    NO_ID,
    ID_AGAIN,
    NO_TYPE,
    NO_NAME,
    ARGUMENTS,
    TWO_IN_ONE,
    BESIDE_WORDS,
    FINISH,
)


def judge_calls(stream: Stream, offered: tuple[str, ...]) -> list[Finding]:
    """Return what is wrong with the tool calls of a stream; `offered` are the names in the request."""
    lists = [calls for _, calls in stream.calls]
    if not lists:
        return []
    pieces = [piece for calls in lists for piece in calls if isinstance(piece, dict)]
    found = []
    if any(len(calls) > 1 for calls in lists):
        found.append(TWO_IN_ONE.seen(_shown(next(calls for calls in lists if len(calls) > 1))))
    if any(delta.get("content") and delta.get("tool_calls") for _, delta in stream.deltas):
        found.append(BESIDE_WORDS.seen())
    if stream.reasons[-1:] != ["tool_calls"]:
        found.append(FINISH.seen(f"finish_reason: {', '.join(stream.reasons) or 'none'}"))
    return [*found, *_judge_pieces(pieces, offered)]


def _judge_pieces(pieces: list[dict[str, Any]], offered: tuple[str, ...]) -> Iterator[Finding]:
    without = [piece for piece in pieces if not isinstance(piece.get("index"), int)]
    if without:
        yield NO_INDEX.seen(_shown(without[0]))
        return
    calls: dict[int, list[dict[str, Any]]] = {}
    for piece in pieces:
        calls.setdefault(piece["index"], []).append(piece)
    if min(calls) != 0:
        yield INDEX_START.seen(f"index: {min(calls)}")
    for index, of_one in calls.items():
        ids = [str(piece["id"]) for piece in of_one if piece.get("id")]
        if len(set(ids)) > 1:
            yield SAME_INDEX.seen(f"index {index} has the ids {short(', '.join(ids[:3]))}")
        else:
            yield from _judge_call(of_one, ids, offered)


def _judge_call(pieces: list[dict[str, Any]], ids: list[str], offered: tuple[str, ...]) -> Iterator[Finding]:
    functions = [function for piece in pieces if isinstance(function := piece.get("function"), dict)]
    names = [function["name"] for function in functions if function.get("name")]
    arguments = [function["arguments"] for function in functions if function.get("arguments") is not None]
    shown = _shown(pieces[0])
    if not ids:
        yield NO_ID.seen(shown)
    if len(ids) > 1 or len(names) > 1:
        yield ID_AGAIN.seen(f"id {len(ids)} times, name {len(names)} times")
    if not any(piece.get("type") == "function" for piece in pieces):
        yield NO_TYPE.seen(shown)
    if not names or names[0] not in offered:
        yield NO_NAME.seen(shown)
    whole = "".join(arguments) if all(isinstance(each, str) for each in arguments) else None
    if whole is None or not isinstance(decoded(whole.encode()), dict):
        yield ARGUMENTS.seen(short(f"arguments: {arguments[0]!r}" if whole is None and arguments else repr(whole)))


def _shown(value: Any) -> str:
    return short(msgspec.json.encode(value))
