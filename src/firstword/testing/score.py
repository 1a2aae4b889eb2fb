"""What the caller of one turn heard, and when."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from firstword import Turn
from firstword.server.request import read_headers
from firstword.testing.witness import Record
from firstword.wire import DONE

DIGITS = 6  # seconds are rounded to microseconds: 0.8 + 0.4 is 1.2


class Score(list[tuple[float, str]]):
    """The words of one reply, as (seconds, words): words that were heard at one moment stand together.

    It is equal to a plain list of such pairs. All seconds are counted from when the request was sent.
    """

    status: int = 0  # 0 when the caller left before the reply began
    headers: Mapping[str, str]  # of the reply, names in lower case
    chunks: list[dict[str, Any]]  # all events of a streamed reply; of one in one piece, that piece
    done: bool = False  # it came to its end: `[DONE]`, or the whole piece
    error: dict[str, Any] | None = None  # the error that the reply was, or ended with
    ended: float = 0.0  # when the turn was over, seconds
    asked: list[tuple[float, str]]  # when each model was asked, seconds and its name; also those without connection
    seen: list[Record]  # the requests that reached the models, with the times of the jumping clock
    left_open: int = 0  # connections that were still answering when the turn was over; 0 in a good house
    sound: list[tuple[float, bytes]]  # the sound of a reply, if it has any: seconds, and 16-bit PCM at 16,000 Hz
    turn: Turn | None = None  # the turn; None for a request that was refused before it was one

    def __init__(self) -> None:
        super().__init__()
        self.headers, self.chunks, self.asked, self.seen, self.sound = {}, [], [], [], []

    @property
    def text(self) -> str:
        """All the words."""
        return "".join(words for _, words in self)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped; None when the reply was cut off."""
        reasons = [choice.get("finish_reason") for chunk in self.chunks for choice in chunk.get("choices") or ()]
        return next((reason for reason in reversed(reasons) if reason), None)

    @property
    def first_word(self) -> float | None:
        """When the first words were heard, in seconds; None when none were. A blank is not heard."""
        return next((at for at, words in self if words.strip()), None)

    @property
    def longest_silence(self) -> float:
        """The longest wait for a word, in seconds: for the first, for the next, or for one that never came."""
        spoken = [at for at, words in self if words.strip()]
        moments = [0.0, *spoken, *([] if self.done and spoken else [self.ended])]
        return round(max(later - earlier for earlier, later in pairwise(moments)), DIGITS)

    def __repr__(self) -> str:
        """Show the words and what became of the turn: it is read when a test has failed."""
        asked = ", ".join(f"{name} at {at:g}" for at, name in self.asked) or "nobody"
        end = "done" if self.done else "no end"
        told = f", error {self.error.get('message')!r}" if self.error else ""
        left = f", {self.left_open} connections left open" if self.left_open else ""
        facts = f"status {self.status}, {end} at {self.ended:g}, finish_reason {self.finish_reason}, asked {asked}"
        return f"{list(self)!r} <{facts}{told}{left}>"


@dataclass
class Ear:
    """The caller's side of one reply, as ASGI brings it: fills in a `Score`."""

    score: Score = field(default_factory=Score)
    _rest: bytes = b""
    _streams: bool = False

    def hears(self, message: Mapping[str, Any], at: float) -> None:
        """Take one ASGI message, `at` seconds after the request."""
        score = self.score
        if message["type"] == "http.response.start":
            score.status = message["status"]
            score.headers = read_headers(message["headers"])
            self._streams = score.headers.get("content-type", "").startswith("text/event-stream")
            return
        self._rest += message.get("body", b"")
        if self._streams:
            *frames, self._rest = self._rest.split(b"\n\n")
            for each in frames:
                self._event(each, at)
        elif not message.get("more_body"):
            self._whole(at)

    def _event(self, frame: bytes, at: float) -> None:
        if frame == DONE[:-2]:
            self.score.done = True
            return
        data = msgspec.json.decode(frame.removeprefix(b"data: "))
        self.score.chunks.append(data)
        self.score.error = data.get("error")
        for choice in (data.get("choices") or ())[:1]:
            self._said(choice.get("delta") or {}, at)

    def _whole(self, at: float) -> None:
        data = msgspec.json.decode(self._rest)
        self.score.error = data.get("error")
        self.score.done = self.score.error is None
        if self.score.done:
            self.score.chunks.append(data)
            self._said(data["choices"][0]["message"] if "choices" in data else data, at)  # D-ID's is a message alone

    def _said(self, delta: Mapping[str, Any], at: float) -> None:
        audio = delta.get("audio")
        if isinstance(audio, dict):
            if audio.get("data"):
                self.score.sound.append((round(at, DIGITS), _decoded(audio["data"])))
            self._words(audio.get("transcript"), at)
        self._words(delta.get("content"), at)

    def _words(self, words: Any, at: float) -> None:
        if not isinstance(words, str) or not words:
            return
        score, at = self.score, round(at, DIGITS)
        if score and score[-1][0] == at:
            words = score.pop()[1] + words
        score.append((at, words))


def _decoded(sound: Any) -> bytes:
    """Return sound as it was before it was written as text; nothing of what is none: a model may send anything."""
    try:
        return a2b_base64(sound)
    except (ValueError, TypeError):
        return b""
