"""Say a reply: its words go to a voice as sentences end, and leave as sound, at the pace at which sound is heard.

Three things go on at once: the model writes (a task), the voice says the piece before (a task), and what it has said
is played (the turn's own). Sound leaves at most `LEAD` seconds before it is heard, so that a caller who interrupts
costs no more than that. Everything else of the reply, calls of the engine's tools and the ending, leaves behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .. import clock
from ..chunk import Chunk
from ..errors import Error, UpstreamSilent, VoiceError
from ..sentences import Sentences
from ..turn import CallNext, Send, Stage, Turn
from ..voices import Sound, Voice
from ..voices._frames import FRAME_SECONDS, Frame, Frames
from ._sound import Shown, whole

log = logging.getLogger("firstword")

LEAD = 1.0  # seconds of sound that may be on its way before they are heard
PATIENCE = 0.5  # seconds without another word after which half a sentence is said, when nothing else is to be heard
MAX_TEXT = 16_000  # signs that wait for the voice; more of them wait at the model
MAX_SOUND = 10.0  # seconds of sound that wait to be heard, when the next piece of text is given to the voice
MAX_EARLY = 40.0  # the same within a piece: a voice that waits there keeps what others need as well, as a process
MAX_WHOLE = 240.0  # seconds of a reply in one piece, which is 10 MB then; and of one piece of text

# Says what a caller hears instead of an error: words, nothing, or None when the error has to be told.
Instead = Callable[[Turn, Any], "str | None"]


def speak(voice: Voice, *, instead: Instead) -> Stage:
    """Return the stage. Raises what the model raises, and VoiceError.

    What fails before the first sound has a status of its own, if there is no apology to be said. After it what came is
    said to its end, then the apology, by `instead`'s word; the ending behind it is the server's, as of every failure.
    """
    slow = _Slowness(voice)

    async def say(turn: Turn, send: Send, call_next: CallNext) -> None:
        await _Speech(turn, send, voice, instead, slow).run(call_next)

    return say


class _Slowness:
    """Says in the log, once, that a voice takes longer to say something than it lasts."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._is_said = False

    def note(self) -> None:
        if not self._is_said:
            self._is_said = True
            # One of the user's own may hold a key, and say it.
            is_ours = type(self._voice).__module__.startswith("firstword.")
            name = repr(self._voice) if is_ours else type(self._voice).__name__
            log.warning("voice is slower than real time, so callers hear gaps voice=%s", name)


class _Speech:
    """One reply. `hear` is the `send` below this stage; `status`, `last` and `has_spoken` are what has left of it."""

    def __init__(self, turn: Turn, send: Send, voice: Voice, instead: Instead, slow: _Slowness) -> None:
        self._turn = turn
        self._send = send
        self._voice = voice
        self._instead = instead
        self._slow = slow
        self.status = 0  # 200 once sound has left
        self.last: Chunk | None = None  # of the model's
        self._shown = Shown(turn)
        self._sentences = Sentences()
        self._texts: deque[str] = deque()  # pieces that wait for the voice
        self._frames: deque[Frame] = deque()  # sound that waits to be heard
        self._cut = Frames()
        self._tail: list[Chunk] = []  # what leaves behind the sound
        self._speaks = False  # the answer
        self._is_over = False  # no more words will come
        self._is_saying = False
        self._is_begun = False  # the piece that is being said has begun to sound
        self._lasted = 0.0  # seconds that it sounds so far
        self._heard_at = 0.0  # when the voice last gave something, or was given something
        self._text_came, self._sound_came, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._saying: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def has_spoken(self) -> bool:
        """True when something was heard."""
        return bool(self.status)

    async def run(self, call_next: CallNext) -> None:
        """Say the answer of `call_next`."""
        answer = self._start(self._ask(call_next))
        self._start_saying()
        try:
            if self._turn.stream:
                await self._play()
            else:
                await self._collect()
            await answer
            await self._end()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(lambda _: self._sound_came.set())
        return task

    def _start_saying(self) -> None:
        self._saying = self._start(self._say())

    # --- the model writes ------------------------------------------------------------------------

    async def _ask(self, call_next: CallNext) -> None:
        turn = self._turn
        try:
            await call_next(turn, self.hear)
            if not (self._speaks or turn.silent or turn.policy.apology is None):
                raise UpstreamSilent(model=turn.model)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._flush()
            self._is_over = True
            self._text_came.set()

    def _fail(self, error: Exception) -> None:
        """Say the apology, if there is one to be said; what nobody has begun to hear is dropped before it."""
        turn = self._turn
        turn.error = error if isinstance(error, Error) else Error("The server made a mistake.")
        said = self._instead(turn, self)
        self._tail.clear()
        if not self.status:
            self._drop()
        if said:
            turn.apologised = True
            self._add(said)

    def _drop(self) -> None:
        assert self._saying is not None
        self._saying.cancel()
        self._sentences, self._cut = Sentences(), Frames()
        self._texts.clear()
        self._frames.clear()
        self._is_saying = False
        self._start_saying()

    async def hear(self, chunk: Chunk) -> None:
        """Take one chunk of the answer; waits when the voice is far behind."""
        self.last = chunk
        self._speaks = self._speaks or chunk.speaks
        self._shown.agree(chunk)
        text = chunk.text or self._shown.refusal(chunk)
        if text:
            self._add(text)
        rest = self._shown.rest(chunk)
        if rest is not None:
            self._flush()  # the words are whole
            self._tail.append(rest)
        while sum(map(len, self._texts)) > MAX_TEXT:
            self._room.clear()
            await self._room.wait()

    def _add(self, text: str) -> None:
        self._texts += self._sentences.feed(text)
        self._text_came.set()

    def _flush(self) -> None:
        rest = self._sentences.take()
        if rest:
            self._texts.append(rest)
            self._text_came.set()

    # --- the voice says --------------------------------------------------------------------------

    async def _say(self) -> None:
        while (text := await self._next_text()) is not None:
            self._cut.begin(text)
            if any(map(str.isalnum, text)):
                await self._make_room(MAX_SOUND)
                self._is_saying, self._is_begun, self._lasted = True, False, 0.0
                self._heard_at = clock.now()
                await self._voice.say(text.strip(), self._hear_sound, turn=self._turn)
                self._is_saying = False
            self._put(self._cut.end())
        self._put(self._cut.rest())

    async def _next_text(self) -> str | None:
        """Return the next piece to be said; None at the end."""
        while not self._texts:
            if self._is_over:
                return None
            self._text_came.clear()
            try:
                async with clock.timeout(PATIENCE if self._sentences.has_words else None):
                    await self._text_came.wait()
            except (TimeoutError, asyncio.TimeoutError):
                if not self._frames:
                    self._flush()
        text = self._texts.popleft()
        self._room.set()
        return text

    async def _hear_sound(self, sound: Sound) -> None:
        turn = self._turn
        self._heard_at = clock.now()
        self._is_begun = self._is_begun or bool(sound.pcm)
        self._lasted += sound.seconds
        if self._lasted > MAX_WHOLE:
            raise VoiceError(f"The voice says one sentence for more than {MAX_WHOLE:g} seconds.")
        if turn.stream and sound.pcm:
            # A turn is done when its last word was heard: its time is for making the reply, not for listening to it.
            turn.adjust(turn_timeout=turn.policy.turn_timeout + sound.seconds)
        self._put(self._cut.add(sound))
        await self._make_room(MAX_EARLY)
        self._heard_at = clock.now()

    async def _make_room(self, most: float) -> None:
        """Wait until no more than so many seconds of sound wait to be heard."""
        while self._turn.stream and len(self._frames) * FRAME_SECONDS > most:
            self._room.clear()
            await self._room.wait()

    def _put(self, frames: Sequence[Frame]) -> None:
        self._frames += frames
        self._sound_came.set()

    # --- it is played ----------------------------------------------------------------------------

    async def _play(self) -> None:
        """Send frames as they are due: at once up to `LEAD` seconds ahead, then as fast as they are heard."""
        began, ran_dry = 0.0, False
        number = 0
        while True:
            if not self._frames:
                if not await self._more():
                    return
                ran_dry = self._is_saying and self._is_begun
                continue
            now, heard = clock.now(), number * FRAME_SECONDS
            if now > began + heard or not number:  # the caller has heard all there was: time begins anew
                began = now - heard
                if ran_dry and number:
                    self._slow.note()
            ran_dry = False
            wait = began + heard + FRAME_SECONDS - LEAD - now
            if wait > 0:
                await asyncio.sleep(wait)
            frame = self._frames.popleft()
            self._room.set()
            self.status = 200
            self._turn.corked = False  # the model's chunks may be; sound leaves at once
            await self._send(self._shown.frame(frame))
            number += 1

    async def _more(self) -> bool:
        """Wait for more sound. False when all was said. Raises VoiceError when the voice fails, or hangs."""
        saying = self._saying
        assert saying is not None
        if saying.done():
            if not saying.cancelled():
                saying.result()
            return False
        self._sound_came.clear()
        stall = self._turn.policy.stall_timeout
        try:
            async with clock.timeout(stall):
                await self._sound_came.wait()
        except (TimeoutError, asyncio.TimeoutError):
            if self._is_saying and clock.now() - self._heard_at >= stall:
                raise VoiceError(f"The voice has said nothing for {stall:g} seconds.", status=504) from None
        return True

    async def _collect(self) -> None:
        """Wait for all of the sound, and send it in one piece."""
        while await self._more():
            if len(self._frames) * FRAME_SECONDS > MAX_WHOLE:
                raise VoiceError(f"The reply lasts more than {MAX_WHOLE:g} seconds.", hint="ask with stream: true")
        if self._frames:
            self.status = 200
            await self._send(whole(self._shown, self._frames))

    async def _end(self) -> None:
        """Send what leaves behind the sound."""
        for chunk in self._shown.ended(self._tail):
            self._turn.corked = True  # `[DONE]` follows at once
            await self._send(chunk)
