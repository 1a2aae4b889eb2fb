"""ElevenLabs' conversational AI: OpenAI's request, with what its agents add around it.

Source: ElevenLabs' custom LLM documentation. `elevenlabs_extra_body` is what the integrator's client sends when a
conversation starts; it and `user_id` are kept in `turn.engine` and never reach a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..turn import Turn
from .openai import check, identity

EXTRA = "elevenlabs_extra_body"
ENGINE_FIELDS = frozenset({EXTRA, "user_id"})
# Under which names integrators put the conversation's id into the extra body.
SESSION_NAMES = ("session_id", "conversation_id")


class ElevenLabs:
    """Read a request of an ElevenLabs agent."""

    def read(
        self, body: dict[str, Any], *, headers: Mapping[str, str], query: Mapping[str, str], path: str, key: str | None
    ) -> Turn:
        """Return the turn; `body` is taken over. Raises BadRequest that names the field."""
        check(body)
        engine = {name: body.pop(name) for name in body.keys() & ENGINE_FIELDS}
        extra = engine.get(EXTRA)
        said = extra if isinstance(extra, dict) else {}
        return Turn(
            request=body,
            stream=bool(body.get("stream")),
            key=key,
            headers=headers,
            query=query,
            path=path,
            engine=engine,
            session=next(filter(None, (identity(said.get(name)) for name in SESSION_NAMES)), None),
            user=identity(engine.get("user_id")) or identity(said.get("user_id")),
        )

    def filler(self, words: str) -> str:
        """Return the words with `... ` behind them: the engine then speaks them at once, and waits for more."""
        return words.rstrip(" \n.…。!！?？,，") + "... "


platform = ElevenLabs()
