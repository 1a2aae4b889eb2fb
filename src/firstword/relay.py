"""Pass one answer on as it arrives: what this project exists for.

The pieces of an answer come in the socket's own callback. When nothing stands between the model and the writer
they leave in that very call; else they wait for the turn's task, which passes them on through the stages. The task
wakes in any case for what needs it: the end, a failure, a caller who reads too slowly.
"""

from __future__ import annotations

import math
import re

from . import clock
from .chunk import Chunk
from .errors import UpstreamTimeout, UpstreamTruncated
from .providers import Decoder
from .transport import Connection, late
from .turn import Send, Turn

SENTENCE_ENDS = frozenset(".!?…\n。！？；।؟")
LONG_WORD = 40  # signs; in what is shorter, a sentence ends at the end or not at all
_ends_sentence = re.compile("[.!?…\\n。！？；।؟]").search
END_GRACE = 0.5  # seconds for usage and `[DONE]` after the answer is whole; some servers never send them


class Relay:
    """One answer on its way from `connection` to `send`.

    `deadline` is when the first word must have been spoken; after it the turn's stall_timeout is allowed between two.
    """

    __slots__ = (
        "_at_once",
        "_chunks",
        "_connection",
        "_deadline",
        "_decoder",
        "_gap",
        "_is_full",
        "_may_reason",
        "_send",
        "_sentence_due",
        "_stall",
        "_turn",
        "began",
    )

    def __init__(self, turn: Turn, send: Send, connection: Connection, decoder: Decoder, *, deadline: float) -> None:
        self._turn = turn
        self._send = send
        self._at_once = getattr(send, "at_once", None)  # the writer itself has it; a stage's own `send` has not
        self._connection = connection
        self._decoder = decoder
        self._deadline = deadline
        self._stall = turn.policy.stall_timeout
        longer = turn.policy.reasoning_timeout
        # Until when one that shows its reasoning may take for its first word; None when that makes no difference.
        self._may_reason = None if longer is None else max(deadline, clock.now() + longer)
        self._chunks: list[Chunk] = []  # those that wait for the task
        self._is_full = False  # the caller's socket had no room: wait for it first
        self._sentence_due = math.inf  # a deadline beyond this one means: no sentence has ended for as long as a stall
        self._gap = math.inf  # seconds: the longest silence between two words so far; before the first there is none
        self.began = False  # something was passed on

    async def run(self) -> None:
        """Pass the answer on to its end. Raises UpstreamError when it does not come to one."""
        decoder = self._decoder
        while not decoder.done:
            try:
                more = await self._connection.listen(self._take, self._deadline - clock.now())
            except (UpstreamTimeout, UpstreamTruncated) as error:
                if decoder.finished:
                    return  # every word is here; only the end mark is missing
                if isinstance(error, UpstreamTimeout) and self._turn.timeline.spoke is None:
                    raise late("first token") from None
                raise
            if not more:
                self._chunks += decoder.end()
            await self._pass_on()
            if decoder.failure is not None:
                raise decoder.failure
            if not more:
                return
            if not (decoder.done or decoder.finished) and clock.now() >= self._deadline:
                raise late("stall" if self._turn.timeline.spoke is not None else "first token")
            if decoder.finished:
                self._deadline = min(self._deadline, clock.now() + END_GRACE)

    def _take(self, data: bytes) -> float | None:
        """Take what came, and pass it on if nobody has to wait for that; returns as a Sink does."""
        decoder = self._decoder
        at_once = self._at_once
        timeline = self._turn.timeline
        if at_once is not None and timeline.spoke is not None:
            words = decoder.words(data)
            if words is not None:
                due = clock.now() + self._stall
                if due - self._deadline > self._gap:
                    self._wait_longer(due)
                self._deadline = due
                text = words.text
                if text[-1] in SENTENCE_ENDS or (len(text) > LONG_WORD and _ends_sentence(text)):
                    self._sentence_due = due + self._stall
                elif due > self._sentence_due:
                    self._miss_sentence()
                self._is_full = not at_once(words)
                return None if self._is_full else self._stall
        chunks = decoder.feed(data)
        self.began = self.began or bool(chunks)
        if at_once is None or decoder.failure is not None:
            self._chunks = chunks
            return None
        for chunk in chunks:
            if timeline.spoke is None:
                self._turn.hears(chunk)
            self._hear(chunk, clock.now())
            self._turn.corked = decoder.done or chunk is not chunks[-1]
            if not at_once(chunk):
                self._chunks = chunks[chunks.index(chunk) + 1 :]
                self._is_full = True
                return None
        return None if decoder.finished or decoder.done else self._deadline - clock.now()

    async def _pass_on(self) -> None:
        """Send the chunks of one read, to leave in one write; the last event of all leaves with the `[DONE]` behind it.

        The first word waits for nothing: a stage may take its time over the chunks behind it.
        """
        turn = self._turn
        began = clock.now()
        chunks, self._chunks = self._chunks, []
        if self._is_full:
            self._is_full = False
            await turn.flush()
        last = chunks.pop() if self._decoder.done and chunks and not chunks[-1].speaks else None
        for chunk in chunks:
            turn.corked = turn.timeline.spoke is not None and chunk is not chunks[-1]
            turn.hears(chunk)
            self._hear(chunk, began)
            await self._send(chunk)
        if len(chunks) > 1:
            await turn.flush()  # a stage may have kept the last chunk of the read to itself
        if last is not None:
            turn.corked = True
            await self._send(last)
        if turn.timeline.spoke is not None:
            self._deadline += clock.now() - began  # a slow caller or stage is not the model's silence

    def _hear(self, chunk: Chunk, at: float) -> None:
        """Note that words came, and whether an engine can speak them: it waits for the end of a sentence."""
        if not chunk.speaks:  # a blank, or reasoning: to the caller it is silence
            if self._may_reason is not None and self._sentence_due == math.inf and chunk.reasons:
                self._deadline, self._may_reason = self._may_reason, None
            return
        due = at + self._stall
        if self._gap == math.inf:
            self._gap = self._turn.longest_gap = self._turn.longest_gap or 0.0
        elif due - self._deadline > self._gap:
            self._wait_longer(due)
        self._deadline = due
        if self._sentence_due == math.inf or _ends_sentence(chunk.text):
            self._sentence_due = due + self._stall
        elif chunk.text and due > self._sentence_due:
            self._miss_sentence()

    def _wait_longer(self, due: float) -> None:
        """Note the longest silence so far; what is left of the last deadline tells how long it was."""
        self._gap = self._turn.longest_gap = due - self._deadline

    def _miss_sentence(self) -> None:
        self._sentence_due = self._deadline + self._stall
        self._turn.stalls += self._turn.stream
