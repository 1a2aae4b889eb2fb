"""What people said in a turn, as it is kept: only when the operator asks for it, and never before redaction."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..message import words
from ..turn import Turn
from .out import as_json
from .redaction import Redact

log = logging.getLogger("firstword")

MAX_MESSAGES = 50  # of a conversation, the last ones


class Content:
    """What was said in turns, after `redact`."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def name(self, text: str) -> str:
        """Return the name of a session, a user or a channel: an engine may call a caller by a phone number."""
        return self._redact(text)

    def messages(self, turn: Turn) -> dict[str, Any]:
        """Return what the conventions for generative AI want in a span; `tools` is a list of the same for each tool."""
        instructions, said = [], []
        for message in turn.messages[-MAX_MESSAGES:]:
            text = self._redact(words(message.get("content")))
            part = {"type": "text", "content": text}
            if message.get("role") in ("system", "developer"):
                instructions.append(part)
            else:
                said.append({"role": str(message.get("role")), "parts": [part]})
        answer = {"type": "text", "content": self._redact(turn.reply.text)}
        replied = {"role": "assistant", "parts": [answer], "finish_reason": str(turn.reply.finish_reason or "error")}
        found: dict[str, Any] = {
            "gen_ai.input.messages": as_json(said),
            "gen_ai.output.messages": as_json([replied]),
            "tools": [
                {
                    "gen_ai.tool.call.arguments": self._redact(called.arguments),
                    "gen_ai.tool.call.result": self._redact(called.result),
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
                    "arguments": self._redact(called.arguments),
                    "result": self._redact(called.result),
                }
                for called in turn.called
            ]
        return found

    async def write(self, turn: Turn) -> None:
        """Write the line of a turn that is over; it is made in a thread."""
        said = await asyncio.to_thread(self.transcript, turn)
        fields: dict[str, Any] = {"message": "transcript", "id": turn.id, **said}
        log.info("transcript id=%s said=%s", turn.id, as_json(said), extra={"fields": fields})
