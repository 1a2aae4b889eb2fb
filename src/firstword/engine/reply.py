"""One response, read as the engine reads it: words to speak, calls of its tools, the metadata of the first event.

Pure but for the time. Calls are read strictly: what LiveKit or Pipecat would lose is lost here too, and is a fault.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import UpstreamProtocolError
from ..wire import DONE, FrameReader
from .marks import Marks, Stopwatch

METADATA = "chat.completion.custom_metadata"
PATIENCE = 60.0  # seconds without a byte after which nobody waits any more; Agora documents no limit
MAX_ERROR = 64 * 1024  # bytes of an error body that are read
SAMPLES = 16_000 * 2  # bytes of sound a second: 16 bits, one channel, 16 kHz
# The full stop of "3.5" ends nothing, so a sentence ends with the blank behind it; a Chinese one needs none.
SENTENCE = re.compile(r"[.!?…][\"')\]]*\s|[。！？]")

Json = dict[str, Any]


class Reply:
    """Reads one response into the marks of its turn. `speak` gets the words, and for sound its seconds."""

    def __init__(self, marks: Marks, watch: Stopwatch, speak: Callable[[str, float | None], None]) -> None:
        self._marks = marks
        self._watch = watch
        self._speak = speak
        self._frames = FrameReader()
        self._body = b""  # of a response that is no event stream
        self._streams = False
        self._is_first = True
        self._last_word: float | None = None
        self._text = ""
        self._calls: list[Json] = []
        self._finish: str | None = None
        self._kind = ""
        self._is_cut = False
        self.done = False

    @property
    def text(self) -> str:
        """The words of this response."""
        return self._text

    def connected(self, seconds: float) -> None:
        """Note how long the connection took."""
        if self._marks.connect is None:
            self._marks.connect = seconds

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the response's head."""
        marks = self._marks
        marks.status = status
        marks.requests += 1
        if marks.first_byte is None:
            marks.first_byte = self._watch.read()
        self._kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._streams = status == 200 and self._kind == "text/event-stream"

    def feed(self, data: bytes) -> float | None:
        """Take bytes of the body; return how long the next may take, or None when `[DONE]` was read."""
        if not self._streams:
            self._body = (self._body + data)[:MAX_ERROR]
            return PATIENCE if len(self._body) < MAX_ERROR else None
        try:
            for frame in self._frames.feed(data):
                if self.done:
                    self._marks.fault("something comes after [DONE]")
                    break
                self._event(frame)
        except UpstreamProtocolError:
            self._marks.fail("The server sent an event that has no end.")
            return None
        return None if self.done else PATIENCE

    def broke(self, error: str) -> None:
        """Note that the response was cut off, or never began."""
        self._is_cut = True
        self._marks.fail(error)

    def end(self) -> list[Json]:
        """Take the end of the response, and return the calls of the engine's tools in it."""
        marks = self._marks
        marks.total = self._watch.read()
        if not self._streams:
            if not self._is_cut:
                self._refused()
            return []
        if self._text and marks.first_sentence is None:
            marks.first_sentence = marks.total  # the end ends it
        marks.finish_reason, marks.done = self._finish, self.done
        if not self.done and self._finish is None and not marks.failed:
            marks.fail("The answer has no end: neither a finish_reason nor [DONE] came.")
        elif not self.done:
            marks.fault("no [DONE] at the end")
        elif self._finish is None:
            marks.fault("no finish_reason")
        return [] if marks.failed else self._whole_calls()

    def _event(self, frame: bytes) -> None:
        marks, now = self._marks, self._watch.read()
        if marks.first_event is None:
            marks.first_event = now
        if frame == DONE:
            self.done = True
            return
        try:
            data = msgspec.json.decode(frame[6:])
        except msgspec.DecodeError:
            data = None
        is_first, self._is_first = self._is_first, False
        if not isinstance(data, dict):
            marks.fault("an event is no JSON object")
            return
        marks.chunks += 1
        if data.get("object") == METADATA:
            self._metadata(data, is_first)
            return
        if data.get("error"):
            marks.fail(f"The server broke off with an error: {_message(data).rstrip('.') or 'it has no words'}.")
            return
        choices = data.get("choices")
        if not isinstance(choices, list):
            marks.fault("an event has no `choices`")
            return
        choice = choices[0] if choices else None  # a count of tokens has none
        if not isinstance(choice, dict):
            return
        self._delta(choice.get("delta") or {}, now)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            if self._finish is not None:
                marks.fault("more than one finish_reason")
            self._finish = reason

    def _metadata(self, data: Json, is_first: bool) -> None:
        if not is_first:
            self._marks.fault("metadata that is not in the first event is not read")
            return
        metadata = data.get("metadata")
        if not isinstance(metadata, dict):
            return
        self._marks.interruptable = metadata.get("interruptable") is not False
        if isinstance(metadata.get("tts_params"), dict):
            self._marks.tts_params = metadata["tts_params"]

    def _delta(self, delta: Any, now: float) -> None:
        if not isinstance(delta, dict):
            self._marks.fault("a `delta` is no object")
            return
        words, audio = delta.get("content"), delta.get("audio")
        if isinstance(audio, dict):
            self._sound(audio, now)
        if isinstance(words, str) and words:
            self._words(words, now)
            self._speak(words, None)
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and calls:
            if words:
                self._marks.fault("words and a call of a tool in one chunk")
            if len(calls) > 1:
                self._marks.fault("two calls of tools in one chunk")
            self._call(calls[0])

    def _words(self, words: str, now: float) -> None:
        marks = self._marks
        self._text += words
        marks.text += words
        if marks.first_sentence is None and SENTENCE.search(marks.text):
            marks.first_sentence = now
        if not words.strip():
            return
        if marks.first_word is None:
            marks.first_word = now
        if self._last_word is not None:
            marks.longest_gap = max(marks.longest_gap or 0.0, round(now - self._last_word, 6))
        self._last_word = now

    def _sound(self, audio: Json, now: float) -> None:
        data, transcript = audio.get("data"), audio.get("transcript")
        words = transcript if isinstance(transcript, str) else ""
        try:
            seconds = len(base64.b64decode(data, validate=True)) / SAMPLES if isinstance(data, str) else 0.0
        except binascii.Error:
            self._marks.fault("sound that is not base64")
            return
        self._marks.audio = round(self._marks.audio + seconds, 6)
        if seconds and self._marks.first_word is None:
            self._marks.first_word = now
        if words:
            self._words(words, now)
        if words or seconds:
            self._speak(words, seconds)

    # --- calls of the engine's tools -----------------------------------------------------------------

    def _call(self, piece: Any) -> None:
        function = piece.get("function") if isinstance(piece, dict) else None
        index = piece.get("index") if isinstance(piece, dict) else None
        if not isinstance(function, dict) or type(index) is not int:
            self._marks.fault("a piece of a tool's call has no index or no function")
            return
        arguments = function.get("arguments") or ""
        if index == len(self._calls):
            if not (isinstance(piece.get("id"), str) and piece["id"] and function.get("name")):
                self._marks.fault("a tool's call begins without an id or a name")
            self._calls.append({"id": piece.get("id"), "name": function.get("name"), "arguments": ""})
        elif not 0 <= index < len(self._calls):
            self._marks.fault("the calls of tools are not counted from 0")
            return
        elif piece.get("id") or function.get("name"):
            self._marks.fault("the id or the name of a tool's call is said twice")
        if isinstance(arguments, str):
            self._calls[index]["arguments"] += arguments
        else:
            self._marks.fault("the arguments of a tool's call are not text")

    def _whole_calls(self) -> list[Json]:
        if self._calls and self._finish != "tool_calls":
            self._marks.fault(f"calls of tools are lost: the finish_reason is {self._finish!r}")
            return []
        whole = []
        for call in self._calls:
            if not call["id"] or not call["name"]:
                continue
            try:
                msgspec.json.decode(call["arguments"], type=dict)
            except msgspec.DecodeError:
                self._marks.fault("the arguments of a tool's call are no JSON object")
                continue
            function = {"name": call["name"], "arguments": call["arguments"]}
            whole.append({"id": call["id"], "type": "function", "function": function})
        return whole

    # --- what is no answer ---------------------------------------------------------------------------

    def _refused(self) -> None:
        """Say what a response means that is no event stream."""
        marks = self._marks
        try:
            data = msgspec.json.decode(self._body)
        except msgspec.DecodeError:
            data = None
        if marks.status == 200:
            kind = self._kind or "no content-type"
            hint = "the engine needs text/event-stream, and the whole URL with /chat/completions"
            marks.fail(f"The server answered with {kind}, which is no event stream.", hint)
            return
        said, _, hint = _message(data).partition("\nhint: ")
        told = f": {said.rstrip('.')}" if said else ""
        marks.fail(f"The server answered {marks.status}{told}.", hint.strip() or _HINTS.get(marks.status))


_HINTS = {
    **dict.fromkeys((301, 302, 303, 307, 308), "give the URL that it leads to: no redirection is followed"),
    401: "give the server's key with --key",
    403: "give the server's key with --key",
    404: "nothing is added to the URL: it ends in /chat/completions as a rule",
    405: "nothing is added to the URL: it ends in /chat/completions as a rule",
}


def _message(data: Any) -> str:
    """Return the words of an error body, OpenAI's or nearly; empty when it has none."""
    error = data.get("error", data.get("detail")) if isinstance(data, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
