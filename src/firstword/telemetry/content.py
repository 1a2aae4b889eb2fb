"""What people said in a turn, as it is kept: only when the operator asks for it, and never before redaction."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

from ..message import words
from ..turn import Turn
from .out import as_json
from .redaction import Redact

log = logging.getLogger("firstword")

_escaped = re.compile(r"\\[bfnrt]")
_term = re.compile(r"[A-Za-z_\-]{1,32}").fullmatch
MAX_DOCUMENT = 16 * 1024  # signs of a tool's arguments or result that are read as JSON
MAX_MESSAGES = 50  # of a conversation, the last ones


def term(text: Any) -> str:
    """Return what should be one word of a protocol, as a role is; whoever sends it could write anything."""
    return text if isinstance(text, str) and _term(text) else "other"


class Content:
    """What was said in turns, after `redact`."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def name(self, text: str) -> str:
        """Return the name of a session, a user or a channel: an engine may call a caller by a phone number."""
        return self._redact(text)

    def _document(self, text: str) -> str:
        """Return a text that may be JSON, where a line break is two signs, one of them a letter of the next word."""
        if text.lstrip()[:1] not in ("{", "["):
            return self._redact(text)
        try:
            if len(text) <= MAX_DOCUMENT:
                return as_json(self._within(json.loads(text)))
        except (ValueError, RecursionError):
            pass
        return self._redact(_escaped.sub(" ", text))

    def _within(self, value: Any) -> Any:
        """Return the same value, redacted: each text, each name, and each number that is somebody's."""
        if isinstance(value, dict):
            return {self._redact(name): self._within(each) for name, each in value.items()}
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, str):
            return self._redact(value)
        if value is None or isinstance(value, bool):
            return value
        kept = self._redact(str(value))
        return value if kept == str(value) else kept

    def _list(self, values: list[Any]) -> list[Any]:
        """Return the same list, redacted; one number may be spread over its texts and numbers."""
        kept = [self._within(each) for each in values]
        if any(isinstance(each, (dict, list)) for each in kept):
            return kept
        whole = " ".join(map(str, kept))
        redacted = self._redact(whole)
        return kept if redacted == whole else [redacted]

    def messages(self, turn: Turn) -> dict[str, Any]:
        """Return what the conventions for generative AI want in a span; `tools` is a list of the same for each tool."""
        instructions, said = [], []
        for message in turn.messages[-MAX_MESSAGES:]:
            text = self._redact(words(message.get("content")))
            part = {"type": "text", "content": text}
            if message.get("role") in ("system", "developer"):
                instructions.append(part)
            else:
                said.append({"role": term(message.get("role")), "parts": [part]})
        answer = {"type": "text", "content": self._redact(turn.reply.text)}
        replied = {"role": "assistant", "parts": [answer], "finish_reason": term(turn.reply.finish_reason or "error")}
        found: dict[str, Any] = {
            "gen_ai.input.messages": as_json(said),
            "gen_ai.output.messages": as_json([replied]),
            "tools": [
                {
                    "gen_ai.tool.call.arguments": self._document(called.arguments),
                    "gen_ai.tool.call.result": self._document(called.result),
                }
                for called in turn.called
            ],
        }
        if instructions:
            found["gen_ai.system_instructions"] = as_json(instructions)
        return found

    def transcript(self, turn: Turn) -> dict[str, Any]:
        """Return one turn as the log has it: what the caller said last, the reply, and the tools between them."""
        found: dict[str, Any] = {"caller": self._redact(turn.text), "reply": self._redact(turn.reply.text)}
        if turn.called:
            found["tools"] = [
                {
                    "name": "" if called.outcome == "unknown" else called.name,
                    "arguments": self._document(called.arguments),
                    "result": self._document(called.result),
                }
                for called in turn.called
            ]
        return found

    async def write(self, turn: Turn) -> None:
        """Write the line of a turn that is over; it is made in a thread."""
        said = await asyncio.to_thread(self.transcript, turn)
        fields: dict[str, Any] = {"message": "transcript", "id": turn.id, **said}
        log.info("transcript id=%s said=%s", turn.id, as_json(said), extra={"fields": fields})
