"""One message of a conversation as its engine tells of it: what was heard of it, who said it, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """What is known of one message. A plain client tells its role and its words only.

    item: the message itself, the very dict of `turn.messages`, as long as nobody has put another one there.
    spoken: its words; of a reply that was interrupted, those that were really heard.
    original: the words that were generated for a reply that was interrupted; None for any other.
    source: where it came from, as the engine says: "asr", "greeting", "silence", "llm" ...
    user, speakers: the uid, and the recognised voices, of who spoke. number: the turn's.
    at, interrupted_at: seconds since 1970.
    """

    item: Mapping[str, Any]
    role: str
    spoken: str
    original: str | None = None
    interrupted: bool = False
    source: str | None = None
    user: str | None = None
    speakers: tuple[str, ...] = ()
    number: int | None = None
    at: float | None = None
    interrupted_at: float | None = None


def words(content: Any) -> str:
    """Return the text of a message's `content`: a string, a list of parts, or null."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))
