"""What is made of any reply to a turn: no reply, a refusal, something that is no stream, or a stream with its faults.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .calls import judge_calls
from .chunks import judge_chunks
from .findings import Fault, Finding, Level, skipped
from .form import BREAKS, judge_form
from .heard import Heard, short
from .speech import judge_words

NO_ANSWER = Fault(
    "no-answer",
    Level.ERROR,
    "No reply came to a request.",
    "The caller hears silence until the engine gives up.",
    "See the server's log at that moment: a crash, a worker that was killed, a wait without a time limit.",
)
NOT_A_STREAM = Fault(
    "not-a-stream",
    Level.ERROR,
    "`stream: true` is answered with something that is no `text/event-stream`.",
    "Both OpenAI SDKs make an empty stream of it, without an error: the caller hears silence.",
    "Answer `stream: true` with events, under `content-type: text/event-stream`.",
)
FAULTS = (NO_ANSWER, NOT_A_STREAM)
RATE_LIMITED = "it was refused with 429: the server or its provider limits how often it is asked; try later"


def no_reply(heard: Heard) -> list[Finding]:
    """Return the findings of a reply that cannot be judged further: none came, or it says to come back later."""
    if heard.status == 429:
        return [skipped(RATE_LIMITED)]
    return [NO_ANSWER.seen(heard.trouble or "nothing")] if heard.headed is None else []


def judge_turn(
    heard: Heard, body: Mapping[str, Any], refused: Fault, *, secrets: tuple[str, ...] = ()
) -> list[Finding]:
    """Return what is wrong with the reply to a streamed turn; `refused` is the fault when its status is no 200."""
    found = no_reply(heard)
    if found:
        return found
    if heard.status != 200:
        return [refused.seen(status_and_body(heard, secrets))]
    if not heard.is_stream:
        return [
            NOT_A_STREAM.seen(f"{heard.headers.get('content-type') or 'no content-type'}: {short(heard.body, secrets)}")
        ]
    stream = heard.stream
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    found = judge_form(heard)
    if any(finding.fault in BREAKS for finding in found):
        return found  # half a reply lacks more, and it is one thing to mend
    found += judge_chunks(stream, wants_usage=wants_usage)
    offered = tuple(tool["function"]["name"] for tool in body.get("tools") or ())
    found += judge_calls(stream, offered)
    # What is broken on the wire has no words to judge: one fault is told, not two.
    if stream.text or (not found and heard.is_whole):
        found += [] if body.get("response_format") else judge_words(stream)
    if heard.is_cut_by_us and not found:
        return [skipped(f"the reply was {heard.trouble}: see --timeout, or --param max_tokens=100")]
    return found


def status_and_body(heard: Heard, secrets: tuple[str, ...] = ()) -> str:
    """Return in short what a refusal was."""
    return short(f"status {heard.status}: {heard.body[:2000].decode('utf-8', 'replace')}", secrets)
