"""Which turns leave as sound of ours; all others pass here at the price of a look.

Sound is wanted by a request's `modalities`, or by its path. It is ours to make when the App has a voice; without one
it is the model's, as of gpt-4o-audio, and passes untouched. Two things no model does, so that the voice at hand does
them in any case: what is asked at `/audio/chat/completions`, and a last message of the assistant's, which is a text to
say and no prompt (Agora's directive for greetings).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import BadRequest
from ..message import words
from ..turn import Aloud, CallNext, Send, Turn

FORMATS = ("wav", "pcm16")
MAX_DIRECTIVE = 16_000  # signs, some twenty minutes of speech; all calls would wait while megabytes are read


def aloud(plain: CallNext, make: Callable[[], CallNext], *, has_voice: bool) -> CallNext:
    """Return what answers turns by `plain`, and those that leave as sound by what `make` returns, made with the first.

    Raises BadRequest for a reply in one piece whose format is none of ours, and for a directive that is too long.
    """
    spoken: CallNext | None = None

    def answer(turn: Turn, send: Send) -> Awaitable[None]:
        nonlocal spoken
        if "modalities" not in turn.request and not turn.is_audio:
            return plain(turn, send)
        turn.aloud = wanted(turn, has_voice=has_voice)
        if turn.aloud is None:
            return plain(turn, send)
        if spoken is None:
            spoken = make()
        return spoken(turn, send)

    return answer


def wanted(turn: Turn, *, has_voice: bool) -> Aloud | None:
    """Return how the turn is said; None when that is not ours to do. Then its request is not touched."""
    if not (turn.is_audio or turn.wants_audio):
        return None
    request = turn.request
    last = turn.messages[-1] if turn.messages else {}
    text = words(last.get("content")) if last.get("role") == "assistant" else None
    if text is None and not has_voice and not turn.is_audio:
        return None
    if text is not None and len(text) > MAX_DIRECTIVE:
        raise BadRequest(
            f"The text to be said has more than {MAX_DIRECTIVE} signs.", param="messages", hint="say it in two turns"
        )
    asked = request.get("audio")
    asked = asked if isinstance(asked, dict) else {}
    voice, form = asked.get("voice"), asked.get("format")
    if not turn.stream and form is not None and form not in FORMATS:
        raise BadRequest(
            "`audio.format` is not one that is made here.", param="audio.format", hint=f"one of {', '.join(FORMATS)}"
        )
    for name in ("modalities", "audio", "n"):  # the model writes, once; how it sounds is not its business
        request.pop(name, None)
    if any("audio" in each for each in turn.messages):  # the ids of earlier sound are ours, and unknown to a model
        turn.messages = [{key: each[key] for key in each if key != "audio"} for each in turn.messages]
    return Aloud(voice if isinstance(voice, str) else None, form if isinstance(form, str) else "wav", text)


def read_out(ask: CallNext) -> CallNext:
    """Return what asks a model by `ask`, and answers a directive by its own text."""

    async def answer(turn: Turn, send: Send) -> None:
        text = turn.aloud.text if turn.aloud is not None else None
        if text is None:
            await ask(turn, send)
            return
        delta: dict[str, Any] = {"role": "assistant", "content": text}
        chunk = turn.chunk(delta)
        turn.silent = turn.silent or not chunk.speaks  # a greeting without a word is said without a sound
        turn.hears(chunk)
        await send(chunk)
        await send(turn.chunk({}, "stop"))

    return answer
