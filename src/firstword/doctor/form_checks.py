"""The checks of the form of a reply: a plain turn, another language, a tool call, JSON, and a reply in one piece."""

from __future__ import annotations

from typing import Any

from . import calls, chunks, form, speech
from .answers import FAULTS as ANSWERS
from .answers import NO_ANSWER, judge_turn, no_reply, status_and_body
from .findings import Check, Fault, Finding, Level, ok
from .heard import decoded, short
from .patient import Patient
from .shapes import QUESTION, SYSTEM, WEATHER, said

REFUSES_PLAIN = Fault(
    "refuses-plain",
    Level.ERROR,
    "The plainest turn of an engine is refused.",
    "The caller hears the failure message at each turn.",
    "Read what the server says; a system message, temperature and max_tokens are in each engine's turn.",
)
MAY_BUFFER = Fault(
    "buffering-header",
    Level.ADVICE,
    "The reply lacks `x-accel-buffering: no`.",
    "An nginx on the way, or a platform that is built on it, then gathers the words and sends them in clumps.",
    "Send the header with each event stream.",
)
MAY_CACHE = Fault(
    "cache-header",
    Level.ADVICE,
    "The reply's `cache-control` lacks `no-cache` or `no-transform`.",
    "A proxy may keep a reply, or compress it and hold it back.",
    "Send `cache-control: no-cache, no-transform` with each event stream.",
)
NOT_CALLED = Fault(
    "tool-not-called",
    Level.WARNING,
    "A tool that `tool_choice` demands is not called.",
    "The engine's own tools never run: `tools` or `tool_choice` is lost on the way, or the model knows no tools.",
    "Pass `tools` and `tool_choice` on to the model as they came.",
)
REFUSES_TOOLS = Fault(
    "refuses-tools",
    Level.ERROR,
    "A turn with an engine's tool is refused.",
    "With tools set in the engine, each turn is refused.",
    "Accept `tools` and `tool_choice`, and pass them on.",
)
NOT_AS_ASKED = Fault(
    "json-ignored",
    Level.WARNING,
    "`response_format` is accepted, and the answer is not such JSON.",
    "Whoever asks for JSON parses what comes, and breaks.",
    "Pass response_format on to the model; a model that cannot do it should refuse.",
)
TOKENS_IGNORED = Fault(
    "max-tokens-ignored",
    Level.WARNING,
    "`max_tokens` is accepted and not heeded.",
    "What an operator sets in `llm.params` (temperature, too, most likely) has no effect.",
    "Pass the request's parameters on to the model.",
)
WHOLE_REFUSED = Fault(
    "refuses-whole",
    Level.WARNING,
    "A turn with `stream: false` is refused.",
    "Tests and tools, and D-ID, ask for the reply in one piece.",
    "Answer it with one JSON object.",
)
WHOLE_STREAMS = Fault(
    "whole-streams",
    Level.WARNING,
    "A turn with `stream: false` is answered with an event stream.",
    "The client parses the reply as JSON, and breaks.",
    "Collect the chunks and answer with one `chat.completion` object.",
)
WHOLE_SHAPE = Fault(
    "whole-shape",
    Level.WARNING,
    "The reply to `stream: false` is no `chat.completion` with a message and a `finish_reason`.",
    "The client finds no `choices[0].message.content`.",
    "Answer with id, object, created, model, and choices that hold a message and a finish_reason.",
)
MOST_TOKENS = 4
MOST_WORDS = 12  # that as many tokens may make, generously


async def _plain(patient: Patient) -> list[Finding]:
    body = patient.body(
        SYSTEM, said("Hi, how can I help?", "assistant"), said("Tell me a joke"), temperature=0.7, max_tokens=150
    )
    heard = await patient.ask(body)
    found = judge_turn(heard, body, REFUSES_PLAIN, secrets=patient.secrets)
    if heard.is_stream:
        if heard.headers.get("x-accel-buffering", "").strip().lower() != "no":
            found.append(MAY_BUFFER.seen())
        caching = heard.headers.get("cache-control", "").lower()
        if "no-transform" not in caching or not ("no-cache" in caching or "no-store" in caching):
            found.append(MAY_CACHE.seen(f"cache-control: {short(caching) or 'none'}"))
    return found or [ok(f"{len(heard.stream.events)} events")]


async def _languages(patient: Patient) -> list[Finding]:
    body = patient.body(said("你好！请用一句中文回答：今天好吗？😀"))
    heard = await patient.ask(body)
    found = judge_turn(heard, body, REFUSES_PLAIN, secrets=patient.secrets)
    return found or [ok(f"{len(heard.body)} bytes of UTF-8")]


async def _tool_call(patient: Patient) -> list[Finding]:
    chosen = {"type": "function", "function": {"name": "get_weather"}}
    body = patient.body(said(QUESTION), tools=[WEATHER], tool_choice=chosen)
    heard = await patient.ask(body)
    found = judge_turn(heard, body, REFUSES_TOOLS, secrets=patient.secrets)
    if not found and not heard.stream.calls:
        found.append(NOT_CALLED.seen(f"{len(heard.stream.text.split())} words came instead"))
    return found or [ok("the call is in the strict form")]


async def _as_json(patient: Patient) -> list[Finding]:
    wanted = {"type": "json_object"}
    body = patient.body(said("Answer in JSON with the key city, which is Paris."), response_format=wanted)
    heard = await patient.ask(body)
    if early := no_reply(heard):
        return early
    text = heard.stream.text.strip() if heard.is_stream else ""
    if text and not isinstance(decoded(text.encode()), dict):
        return [NOT_AS_ASKED.seen(short(text))]
    return [ok(f"status {heard.status}")]


async def _max_tokens(patient: Patient) -> list[Finding]:
    body = patient.body(said("Tell me a long story about the sea."), max_tokens=MOST_TOKENS)
    heard = await patient.ask(body)
    if early := no_reply(heard):
        return early
    words = len(heard.stream.text.split()) if heard.is_stream else 0
    if words > MOST_WORDS:
        return [TOKENS_IGNORED.seen(f"max_tokens {MOST_TOKENS}, {words} words")]
    return [ok(f"{words} words")]


async def _whole(patient: Patient) -> list[Finding]:
    heard = await patient.ask(patient.body(said("Tell me a joke"), stream=False))
    if early := no_reply(heard):
        return early
    if heard.status != 200:
        return [WHOLE_REFUSED.seen(status_and_body(heard, patient.secrets))]
    if heard.kind == "text/event-stream" or heard.body.lstrip().startswith(b"data:"):
        return [WHOLE_STREAMS.seen(heard.headers.get("content-type", "no content-type"))]
    if wrong := wrong_whole(heard.json):
        return [WHOLE_SHAPE.seen(f"{wrong}: {short(heard.body, patient.secrets)}")]
    return [ok("one chat.completion")]


def wrong_whole(reply: Any) -> str:
    """Return what a whole reply lacks; empty when it has all."""
    if not isinstance(reply, dict):
        return "no JSON object"
    if reply.get("object") != "chat.completion":
        return "no object chat.completion"
    lacks = [name for name in ("id", "created", "model") if not reply.get(name)]
    listed = reply.get("choices")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    message = first.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        lacks.append("choices[0].message.content")
    if not first.get("finish_reason"):
        lacks.append("finish_reason")
    return f"no {', no '.join(lacks)}" if lacks else ""


CHECKS = (
    Check(
        "form",
        "a plain turn, its reply line by line",
        _plain,
        (*ANSWERS, REFUSES_PLAIN, *form.FAULTS, *chunks.FAULTS, MAY_BUFFER, MAY_CACHE),
        is_quick=True,
    ),
    Check("speech", "a turn in Chinese, and what a voice would make of the words", _languages, speech.FAULTS),
    Check("tool-call", "a call of the engine's own tool", _tool_call, (REFUSES_TOOLS, NOT_CALLED, *calls.FAULTS)),
    Check("json", "an answer in JSON", _as_json, (NOT_AS_ASKED,)),
    Check("max-tokens", "an answer of four tokens", _max_tokens, (TOKENS_IGNORED,)),
    Check(
        "whole",
        "a reply in one piece, `stream: false`",
        _whole,
        (WHOLE_REFUSED, WHOLE_STREAMS, WHOLE_SHAPE, NO_ANSWER),
        is_quick=True,
    ),
)
