"""What a caller hears instead of an error: whether there is anything, and the chunks that say it."""

from __future__ import annotations

import time
from typing import Any, Protocol

from ..chunk import Chunk
from ..errors import (
    AllModelsFailed,
    BudgetExceeded,
    Overloaded,
    RequestError,
    Stopping,
    Superseded,
    TooManyRequests,
    UpstreamError,
    UpstreamSilent,
    VoiceError,
)
from ..platforms import of
from ..turn import Turn

# Of what no other try could mend: nothing was wrong with the request, and somebody waits for a word.
SPOKEN_FOR = (AllModelsFailed, UpstreamSilent)
# Of what is refused for want of room. Nothing is wrong with the request here either, but a client may ask again.
REFUSED = (BudgetExceeded, Overloaded, TooManyRequests)


class Begun(Protocol):
    """What of a writer decides: its `status` is 0 before anything was sent, `last` is the last chunk that was."""

    status: int
    last: Chunk | None

    @property
    def has_spoken(self) -> bool:
        """True when there was something to hear."""


def said_instead(turn: Turn, writer: Begun) -> str | None:
    """Return the words that end a failed turn, maybe none at all; None when the error itself has to be told.

    A caller's mistake, and what no other try could mend (400, 401, a content policy), is told as it is; so is every
    error to a program that reads the reply, and to an engine that plays audio and would not speak our words. A turn
    that was sent again is answered elsewhere.
    """
    error, policy = turn.error, turn.policy
    if isinstance(error, Superseded):
        # Of no error at all may an engine hear that ends the call then, or speaks: the later request is answered.
        return "" if of(turn).apology is not None or of(turn).speaks_errors else None
    if turn.wants_json or turn.wants_audio:
        return None
    if not writer.status:
        if isinstance(error, REFUSED):
            return policy.apology if of(turn).apology is not None else None
        final = isinstance(error, UpstreamError) and not (error.retryable or isinstance(error, SPOKEN_FOR))
        if final and of(turn).apology is not None:
            final = False  # there is no telling this engine: an error of any kind ends the call
        return None if final or isinstance(error, (RequestError, Stopping)) else policy.apology
    if writer.last is None or turn.is_calling or _calls(writer.last) or (writer.has_spoken and _ends(writer.last)):
        return None  # half a call to a tool: words behind it would be taken for its end; or nothing is missing
    how = policy.after_a_cut
    if not writer.has_spoken or (turn.filled and turn.timeline.spoke is None):
        how = "apologise"  # a filler, or reasoning, and no word of the answer: there is nothing to finish
    if how == "error" or (how == "apologise" and not policy.apology):
        return None
    if how == "finish":
        return ""
    return policy.apology if writer.last.text[-1:].isspace() else f" {policy.apology}"


def left_to_say(turn: Turn, writer: Begun, words: str | None) -> str | None:
    """Return the same for a turn that leaves as sound: what there was to say the voice has said, or cannot say.

    So nothing but an ending is left, once something was heard. A voice that fails ends what it has begun.
    """
    if turn.apologised:
        return ""
    if not writer.status:
        return words if isinstance(turn.error, Superseded) else None  # there was nothing to say
    voice_failed = isinstance(turn.error, VoiceError) and turn.policy.on_cut != "error"
    return None if words is None and not voice_failed else ""


def conclusion(turn: Turn, words: str, last: Chunk | None) -> list[Chunk]:
    """Return the chunks that say `words` and end the reply, in the name of the `last` one that was sent."""
    named: dict[str, Any] = {"created": int(time.time())}
    if last is not None:
        named.update({name: last.data[name] for name in ("id", "object", "created", "model") if last.data.get(name)})
    ending = turn.chunk({}, "stop", **named)
    if not words:
        return [ending]
    said = {"content": words} if last is not None else {"role": "assistant", "content": words}
    return [turn.chunk(said, **named), ending]


def _ends(chunk: Chunk) -> bool:
    look = chunk.look()
    return chunk.finish_reason is not None or (not look.choices and look.usage is not None)


def _calls(chunk: Chunk) -> bool:
    return any(choice.delta is not None and choice.delta.tool_calls for choice in chunk.look().choices or ())
