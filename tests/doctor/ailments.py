"""Every fault that the doctor knows, but those of reaching, as a server that has just this one.

A row is the fault's name, what makes the server ill, and the checks that are made, "" for all: a server that is slow
with each reply would take minutes.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sick import (
    DONE,
    Fault,
    Reply,
    Request,
    calls,
    chunk,
    document,
    error,
    events,
    frame,
    inserts,
    on_chunks,
    on_errors,
    on_streams,
    piece,
    prompt_tokens,
    when,
)

HALF = "日".encode()[:2]


def drops(name: str) -> Fault:
    """Leave a field out of each chunk."""
    return on_chunks(lambda chunk, at: {key: value for key, value in chunk.items() if key != name})


def has(**fields: Any) -> Fault:
    """Put fields into each chunk."""
    return on_chunks(lambda chunk, at: {**chunk, **fields})


def delta(change: Any) -> Fault:
    """Change each delta that has words."""

    def fault(chunk: dict[str, Any], at: int) -> dict[str, Any]:
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                choice["delta"] = change(choice["delta"])
        return chunk

    return on_chunks(fault)


def unusual(**fields: Any) -> Fault:
    """Change how a stream is sent."""
    return lambda request, reply: replace(reply, **fields) if reply.is_stream else reply


def header(**fields: str | None) -> Fault:
    """Change the headers of a stream; None takes one away."""

    def fault(request: Request, reply: Reply) -> Reply:
        headers = {**reply.headers, **{name.replace("_", "-"): value for name, value in fields.items()}}
        kept = {name: value for name, value in headers.items() if value is not None}
        return replace(reply, headers=kept) if reply.is_stream else reply

    return fault


def long(change: Any) -> Fault:
    """Change the long answer only."""
    return when(lambda request: request.is_long, change)


def compressed(request: Request, reply: Reply) -> Reply:
    if not reply.is_stream:
        return reply
    return replace(
        reply, parts=[gzip.compress(b"".join(reply.parts))], headers={**reply.headers, "content-encoding": "gzip"}
    )


def says(words: str) -> Fault:
    """Say something else to whoever speaks Chinese."""
    return when(lambda request: "你好" in request.text, lambda request, reply: events(piece(words)))


def refuses(is_it: Any) -> Fault:
    """Refuse requests of a kind."""
    return when(is_it, lambda request, reply: error(422))


def message(**fields: Any) -> Any:
    """Find requests with such a message."""
    return lambda request: any(fields.items() <= each.items() for each in request.messages)


def field(name: str) -> Any:
    """Find requests with such a field."""
    return lambda request: name in request.body


def part(name: str, value: Any) -> Any:
    """Find requests with such a part of a message."""
    return lambda request: any(
        each.get("type") == name and isinstance(each.get(name), value)
        for message in request.messages
        if isinstance(message.get("content"), list)
        for each in message["content"]
    )


def format_of(kind: str) -> Any:
    return lambda request: (request.body.get("response_format") or {}).get("type") == kind


def tool(name: str) -> Any:
    return lambda request: any(each["function"]["name"] == name for each in request.body.get("tools") or [])


def unfinished(request: Request, reply: Reply) -> Reply:
    return replace(reply, framing="open", parts=reply.parts[:3]) if "joke" in request.text else reply


def open_end(request: Request, reply: Reply) -> Reply:
    return replace(reply, framing="open") if reply.is_stream else reply


TOOL: dict[str, Any] = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": "{}"},
}
OTHER = {**TOOL, "index": 1, "id": "call_2"}
ERROR = {"error": {"message": "The model crashed.", "type": "server_error", "code": None}}

FORM: list[tuple[str, Fault, str]] = [
    ("compressed", compressed, ""),
    ("bom", on_streams(lambda parts: [b"\xef\xbb\xbf", *parts]), ""),
    ("carriage-return", on_streams(lambda parts: [each.replace(b"\n", b"\r\n") for each in parts]), ""),
    ("no-space", on_streams(lambda parts: [each.replace(b"data: {", b"data:{") for each in parts]), ""),
    ("comments", inserts(b": ping\n\n"), ""),
    ("event-line", on_streams(lambda parts: [b"event: message\n" + each for each in parts]), ""),
    ("error-swallowed", inserts(b'event: error\ndata: {"message":"The model crashed."}\n\n', at=-2), "form"),
    ("id-line", inserts(b"id: 7\n\n"), ""),
    ("retry-line", inserts(b"retry: 3000\n\n"), ""),
    ("empty-event", inserts(b"data: \n\n"), ""),
    ("unknown-line", on_streams(lambda parts: [parts[0], b"hello\n" + parts[1], *parts[2:]]), ""),
    ("data-lines", on_streams(lambda parts: [each.replace(b'"choices"', b'\ndata: "choices"') for each in parts]), ""),
    ("not-json", inserts(b"data: hello\n\n"), ""),
    (
        "not-utf8",
        on_streams(lambda parts: [parts[0], parts[1].replace(b'"content": "', b'"content": "' + HALF), *parts[2:]]),
        "form",
    ),
    ("line-separator", delta(lambda delta: {"content": delta["content"] + "\u2028"}), "form"),
    ("no-blank-line", on_streams(lambda parts: [*parts[:-1], parts[-1][:-1]]), ""),
    ("no-done", on_streams(lambda parts: parts[:-1]), ""),
    ("done-form", on_streams(lambda parts: [*parts[:-1], b"data: [DONE] \n\n"]), ""),
    ("done-twice", on_streams(lambda parts: [*parts, DONE]), ""),
    ("after-done", on_streams(lambda parts: [*parts, piece("Late.")]), "form"),
    ("ends-late", open_end, "form"),
    ("truncated", on_streams(lambda parts: parts[:3]), "form"),
    ("stalled", unfinished, "form"),
    ("error-in-stream", on_streams(lambda parts: [frame(ERROR)]), "form"),
    ("error-event-shape", on_streams(lambda parts: [*parts[:2], frame({"error": "crashed"})]), "form"),
    ("buffering-header", header(x_accel_buffering=None), ""),
    ("cache-header", header(cache_control="no-cache"), ""),
    ("not-a-stream", when(lambda request: "joke" in request.text, document({"text": "A joke."})), "form"),
    ("no-answer", when(lambda request: "joke" in request.text, None), "form"),
    ("refuses-plain", refuses(field("temperature")), "form"),
]
CHUNKS: list[tuple[str, Fault, str]] = [
    ("chunk-id", drops("id"), ""),
    ("chunk-id-changes", on_chunks(lambda chunk, at: {**chunk, "id": f"chatcmpl-{at}"}), ""),
    ("chunk-object", has(object="chat.completion"), ""),
    ("chunk-created", drops("created"), ""),
    ("chunk-model", drops("model"), ""),
    ("chunk-changes", on_chunks(lambda chunk, at: {**chunk, "created": at + 1}), ""),
    ("choices-missing", inserts(frame({**chunk({}), "choices": None})), ""),
    ("choices-empty", inserts(frame(chunk({}, choices=[])), at=0), ""),
    ("delta-missing", inserts(frame({**chunk({}), "choices": [{"index": 0, "finish_reason": None}]})), ""),
    ("content-type", inserts(piece(["All"])), "form"),  # type: ignore[arg-type]
    ("role-missing", on_streams(lambda parts: parts[1:]), ""),
    ("role-again", delta(lambda delta: {**delta, "role": "assistant"}), ""),
    ("finish-missing", on_streams(lambda parts: [each for each in parts if b'"delta": {}' not in each]), "form"),
    ("finish-twice", inserts(frame(chunk({}, "stop")), at=-1), "form"),
    ("finish-unknown", on_streams(lambda parts: [each.replace(b'"stop"', b'"eos"') for each in parts]), "form"),
    ("finish-erased", inserts(frame(chunk({})), at=-1), "form"),
    ("usage-unasked", inserts(frame(chunk({}, choices=[], usage={"prompt_tokens": 1})), at=-1), "form"),
    ("usage-missing", on_chunks(lambda chunk, at: None if chunk.get("usage") else chunk), ""),
]
CALLS: list[tuple[str, Fault, str]] = [
    ("call-index", calls({key: value for key, value in TOOL.items() if key != "index"}), ""),
    ("call-index-start", calls({**TOOL, "index": 1}), ""),
    ("call-index-twice", calls(TOOL, {**OTHER, "index": 0}), ""),
    ("call-id", calls({**TOOL, "id": None}), ""),
    ("call-id-again", calls(TOOL, {**TOOL, "function": {"name": "get_weather", "arguments": ""}}), ""),
    ("call-type", calls({key: value for key, value in TOOL.items() if key != "type"}), ""),
    ("call-name", calls({**TOOL, "function": {"name": "weather_get", "arguments": "{}"}}), ""),
    ("call-arguments", calls({**TOOL, "function": {"name": "get_weather", "arguments": "{city"}}), ""),
    ("call-two-in-one", calls(frame(chunk({"tool_calls": [TOOL, OTHER]}))), ""),
    ("call-beside-words", calls(frame(chunk({"content": "Wait.", "tool_calls": [TOOL]}))), ""),
    ("call-finish", calls(finish="stop"), ""),
    ("tool-not-called", when(field("tool_choice"), lambda request, reply: events(piece("Sunny."))), ""),
    ("refuses-tools", refuses(field("tool_choice")), ""),
]
SPEECH: list[tuple[str, Fault, str]] = [
    ("no-words", says("  "), ""),
    ("thinking", says("<think>They greet me.</think> Hello."), ""),
    ("reasoning", inserts(frame(chunk({"reasoning_content": "Hm."})), at=1), ""),
    ("markup", says("I can do **two** things."), ""),
    ("torn-characters", says("今\ufffd\ufffd好"), ""),
]
REQUESTS: list[tuple[str, Fault, str]] = [
    ("refuses-agora", refuses(field("interruptable")), ""),
    ("refuses-session-fields", refuses(field("app_id")), ""),
    ("refuses-nested-params", refuses(field("params")), ""),
    ("refuses-parameters", refuses(field("presence_penalty")), ""),
    ("refuses-usage", refuses(field("stream_options")), ""),
    ("refuses-blank", refuses(message(content="")), ""),
    ("refuses-null-content", refuses(message(content=None, role="user")), ""),
    ("refuses-last-assistant", refuses(message(content="Welcome!")), ""),
    ("refuses-two-assistants", refuses(message(content="Are you there?")), ""),
    ("refuses-no-user", refuses(lambda request: {each["role"] for each in request.messages} == {"system"}), ""),
    ("refuses-developer", refuses(message(role="developer")), ""),
    (
        "refuses-parts",
        refuses(lambda request: request.messages[0].get("content") == [{"type": "text", "text": "Tell me a joke"}]),
        "",
    ),
    ("refuses-image", refuses(lambda request: part("image_url", dict)(request) and "see" in request.text), ""),
    ("refuses-image-agora", refuses(part("image", object)), ""),
    ("refuses-image-only", refuses(lambda request: part("image_url", dict)(request) and "see" not in request.text), ""),
    ("refuses-tool-result", refuses(message(role="tool")), ""),
    ("refuses-unanswered-call", refuses(message(content="Never mind. Tell me a joke.")), ""),
    ("refuses-bare-tool", refuses(tool("hang_up")), ""),
    ("refuses-tool-schema", refuses(tool("book_table")), ""),
    ("refuses-json-object", refuses(format_of("json_object")), ""),
    ("refuses-json-schema", refuses(format_of("json_schema")), ""),
    ("refuses-no-model", refuses(lambda request: "model" not in request.body), ""),
    ("json-ignored", when(field("response_format"), lambda request, reply: events(piece("It is Paris."))), ""),
    (
        "max-tokens-ignored",
        when(lambda request: request.body.get("max_tokens") == 4, lambda request, reply: events(*[piece("sea ")] * 40)),
        "",
    ),
    ("refuses-whole", refuses(lambda request: request.body["stream"] is False), ""),
    (
        "whole-streams",
        when(lambda request: request.body["stream"] is False, lambda request, reply: events(piece("Hi."))),
        "",
    ),
    ("whole-shape", when(lambda request: request.body["stream"] is False, document({"content": "A joke."})), ""),
]


def key_is(*wanted: str) -> Any:
    """Find requests with such a key, "" for none, in either header."""

    def is_it(request: Request) -> bool:
        key = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("api-key", "")
        return any(key.startswith(each) and bool(key) == bool(each) for each in wanted)

    return is_it


def strangers(reply: Any) -> Fault:
    """Answer those without the right key otherwise."""
    return on_errors(lambda request, good: reply(request) if good.status == 401 else good)


def mistakes(reply: Any) -> Fault:
    """Answer those with a mistake in the body otherwise."""
    return on_errors(lambda request, good: reply(request) if good.status == 400 else good)


MISTAKES: list[tuple[str, Fault, str]] = [
    ("open-to-all", strangers(lambda request: events(piece("Hello."))), ""),
    ("wrong-key-status", strangers(lambda request: error(500)), ""),
    ("key-echoed", strangers(lambda request: error(401, f"No such key: {request.headers.get('authorization')}")), ""),
    ("api-key-header", lambda request, reply: error(401) if "api-key" in request.headers else reply, ""),
    ("mistake-500", mistakes(lambda request: error(500)), ""),
    ("mistake-200", mistakes(lambda request: replace(error(400), status=200)), ""),
    ("error-shape", mistakes(lambda request: document({"detail": [{"msg": "Field required"}]}, 422)), ""),
    (
        "traceback",
        mistakes(lambda request: error(400, 'Traceback (most recent call last):\n  File "a.py", line 1')),
        "",
    ),
    ("large-body", lambda request, reply: error(413) if len(request.content) > 1_000_000 else reply, ""),
]


def timed(**fields: Any) -> Fault:
    """Change how the long answer is sent."""
    return when(lambda request: request.is_long, lambda request, reply: replace(reply, **fields))


def is_one_of_five(request: Request) -> bool:
    return "code word" in request.text


def is_plain(request: Request) -> bool:
    return request.text == "What is two and two?" and "session_id" not in request.body


def behind(is_it: Any, count: int, then: Any) -> Callable[[], Fault]:
    """Return what makes a fault: after `count` requests of a kind, replies are changed."""

    def make() -> Fault:
        seen = 0

        def fault(request: Request, reply: Reply) -> Reply | None:
            nonlocal seen
            changed = then(request, reply) if seen >= count else reply
            seen += reply.status == 200 and bool(is_it(request))
            return changed

        return fault

    return make


def counting(tokens: Any) -> Fault:
    """Count prompt tokens otherwise: `tokens` gets the messages and the number of the request."""

    def fault(request: Request, reply: Reply) -> Reply:
        usage = {"prompt_tokens": tokens(request.messages, request.number), "completion_tokens": 3}
        parts = [frame(chunk({}, choices=[], usage=usage)) if b'"usage"' in each else each for each in reply.parts]
        return replace(reply, parts=parts) if reply.is_stream else reply

    return fault


PACE: list[tuple[str, Fault, str]] = [
    ("slow-first-word", timed(before_head=1.6, pauses={20: 0.25}), "pace"),
    ("gaps", timed(pauses={-1: 0.005, 10: 1.1}), "pace"),
    ("headers-early", timed(pauses={1: 0.4}), "pace"),
    ("buffered", timed(before_head=0.6), "pace"),
    ("clumps", timed(pauses={20: 0.6}), "pace"),
    ("refuses-long", refuses(lambda request: request.is_long), ""),
    ("not-kept", header(connection="close"), ""),
    (
        "queued",
        when(is_one_of_five, lambda request, reply: replace(reply, waits_in_line=True, pauses={-1: 0.03})),
        "at-once",
    ),
    ("fails-at-once", when(lambda request: "is ember" in request.text, lambda request, reply: error(503)), ""),
    ("crossed", when(lambda request: "is ember" in request.text, lambda request, reply: events(piece("amber"))), ""),
    ("hangup-hurts", refuses(message(content="Stop. What time is it?")), ""),
    (
        "abandoned-block",
        behind(
            lambda request: request.text == "Tell me a long story.",
            20,
            lambda request, reply: replace(reply, before_head=1.3),
        )(),
        "abandoned",
    ),
    (
        "resent-fails",
        behind(
            lambda request: request.body.get("session_id") == "check-resent",
            1,
            lambda request, reply: error(503) if request.body.get("session_id") == "check-resent" else reply,
        )(),
        "resent",
    ),
    ("resent-hurts", behind(is_plain, 1, lambda request, reply: error(503) if is_plain(request) else reply)(), "six"),
    (
        "history-doubled",
        counting(lambda messages, number: prompt_tokens(messages if len(messages) == 1 else messages * 2)),
        "",
    ),
    ("remembers-strangers", counting(lambda messages, number: prompt_tokens(messages) + 30 * number), "history"),
]
FAULTS = [*FORM, *CHUNKS, *CALLS, *SPEECH, *REQUESTS, *MISTAKES, *PACE]
