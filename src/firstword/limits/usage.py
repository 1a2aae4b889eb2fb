"""How many tokens a turn will use, as a guess, and how many a request to a model has used, as its server counts them.

Where nobody counts, the prompt's bytes and the answer's chunks do: about four bytes of a prompt are a token, and most
servers send a token a chunk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..chunk import Chunk
from ..errors import Error, UpstreamConnectError, UpstreamError, UpstreamStatusError, UpstreamTimeout
from ..turn import Seen, Send, Turn
from ..used import MAX_TOKENS, Used, tokens_in

BYTES = 4  # of a token
MESSAGE = 16  # bytes that a message costs beside its words
PICTURE = 4_000  # bytes that an image counts as, or a sound: about a thousand tokens at OpenAI
ANSWER = 256  # tokens of an answer whose request sets no bound: more than is spoken in a minute
MAX_CHOICES = 128

REFUSALS = (UpstreamConnectError, UpstreamStatusError)


def prompt_of(request: dict[str, Any]) -> int:
    """Return about how many tokens the prompt of a request has."""
    size = _length(request.get("tools"))
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        size += MESSAGE + _length(message.get("tool_calls"))
        if isinstance(content, str):
            size += _size(content)
        elif isinstance(content, list):
            size += sum(map(_part, content))
    return size // BYTES


def answer_of(request: dict[str, Any]) -> int:
    """Return about how many tokens the answer to a request may have."""
    most = request.get("max_completion_tokens") or request.get("max_tokens")
    tokens = min(most, MAX_TOKENS) if type(most) is int and most > 0 else ANSWER
    count = request.get("n")
    return tokens * min(count, MAX_CHOICES) if type(count) is int and count > 0 else tokens


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _part(part: Any) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return _size(text) if isinstance(text, str) else PICTURE


def _length(value: Any) -> int:
    if not value:
        return 0
    try:
        return len(msgspec.json.encode(value))
    except (RecursionError, msgspec.MsgspecError, TypeError):
        return 0  # the provider's dialect will refuse it


class Tap:
    """Counts what one request to a model uses, on the way of its chunks."""

    def __init__(self, turn: Turn, model: str) -> None:
        self._turn = turn
        self._used = Used(model)
        self._usage: Any = None
        self._chunks = 0
        self._is_free = False
        options = turn.request.get("stream_options")
        self._wants_usage = not turn.stream or (isinstance(options, dict) and bool(options.get("include_usage")))

    def on(self, send: Send) -> Send:
        """Return a `send` on whose way chunks are counted."""
        return Seen(self._turn, self._see, send)

    def _see(self, chunk: Chunk) -> Chunk | None:
        """Count one chunk, and keep back what only counts tokens from who has not asked for that."""
        self._chunks += 1
        if chunk.words is not None:
            return chunk
        look = chunk.look()
        if look.usage is None:
            return chunk
        self._usage = look.usage
        if look.choices:
            return chunk
        self._chunks -= 1
        return chunk if self._wants_usage else None

    def failed(self, error: Error) -> None:
        """Note that the request failed: who was not reached, or refused, counts nothing."""
        if isinstance(error, UpstreamTimeout):
            was_read = error.phase != "connect"
        else:
            was_read = isinstance(error, UpstreamError) and not isinstance(error, REFUSALS)
        self._is_free = not (was_read or self._chunks)

    def close(self) -> None:
        """Note what was used; once, when the request is over, however it ended."""
        used = self._used
        if self._is_free:
            return
        prompt, completion = (tokens_in(self._usage, name) for name in ("prompt_tokens", "completion_tokens"))
        used.is_counted = prompt is not None and completion is not None
        used.prompt = prompt_of(self._turn.request) if prompt is None else prompt
        used.completion = self._chunks if completion is None else completion
        used.cached = min(tokens_in(self._usage, "prompt_tokens_details", "cached_tokens") or 0, used.prompt)
        assert self._turn.used is not None
        self._turn.used.append(used)


async def counted(ask: Callable[..., Awaitable[None]], turn: Turn, send: Send, model: str, *more: Any) -> None:
    """Await `ask(turn, send, model, *more)`, and add to `turn.used` what it used."""
    tap = Tap(turn, model)
    try:
        await ask(turn, tap.on(send), model, *more)
    except Error as error:
        tap.failed(error)
        raise
    finally:
        tap.close()
