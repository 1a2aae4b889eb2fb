"""The words of a reply: is there anything to speak, and is any of it not fit for a voice?

Pure.
"""

from __future__ import annotations

import re

from .findings import Fault, Finding, Level
from .heard import Stream, short

NO_WORDS = Fault(
    "no-words",
    Level.ERROR,
    "The reply is a success and has no word in it.",
    "The caller hears silence.",
    "See what the model sent: reasoning alone is no speech, nor is text outside of `delta.content`. "
    "Say something else when there is nothing.",
)
THINKING = Fault(
    "thinking",
    Level.WARNING,
    "The spoken text holds the model's thinking, in `<think>` or the like.",
    "Engines speak whatever stands in `content`: the caller hears all of it.",
    "Take it out before it is sent, or turn the model's reasoning off.",
)
REASONING = Fault(
    "reasoning",
    Level.ADVICE,
    "Chunks with `reasoning_content` are sent.",
    "No engine speaks them, and while they come the caller waits.",
    "Turn the model's reasoning off or low for voice; do not pass it on.",
)
MARKUP = Fault(
    "markup",
    Level.WARNING,
    "The spoken text holds Markdown.",
    "A voice says “asterisk asterisk”, or stumbles over it.",
    "Ask for plain spoken sentences in the system message, or take the marks out before they are sent.",
)
TORN = Fault(
    "torn-characters",
    Level.WARNING,
    "The text holds U+FFFD, the mark of a character that was lost.",
    "Somebody on the way decoded pieces of bytes one by one: words in Chinese, or with accents, are damaged.",
    "Decode the model's bytes incrementally, or pass them on as they are.",
)
FAULTS = (NO_WORDS, THINKING, REASONING, MARKUP, TORN)

_THINKING = re.compile(r"</?(think|thinking|reasoning|thought)>|<\|(begin|start)_of_thought\|>", re.IGNORECASE)
_MARKUP = re.compile(
    r"\*\*\S|__\S.*?\S__|```|^#{1,6} \S|^\s*[*-] \S|^\|.*\|\s*$|\[[^\]]+\]\(https?:", re.MULTILINE | re.DOTALL
)


def judge_words(stream: Stream) -> list[Finding]:
    """Return what a voice would make of a reply to a plain question."""
    text = stream.text
    found = []
    reasoning = [delta for _, delta in stream.deltas if delta.get("reasoning_content") or delta.get("reasoning")]
    if not text.strip() and not stream.calls:
        found.append(NO_WORDS.seen(f"{len(stream.events)} events" + (", with reasoning" if reasoning else "")))
    if match := _THINKING.search(text):
        found.append(THINKING.seen(_around(text, match)))
    if reasoning:
        found.append(REASONING.seen(f"{len(reasoning)} chunks"))
    if match := _MARKUP.search(text):
        found.append(MARKUP.seen(_around(text, match)))
    if "\ufffd" in text:
        found.append(TORN.seen(short(text[max(text.index("\ufffd") - 20, 0) :][:60])))
    return found


def _around(text: str, match: re.Match[str]) -> str:
    return short(text[max(match.start() - 20, 0) : match.end() + 20])
