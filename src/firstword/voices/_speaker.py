"""The process that speaks: libespeak-ng in a process of its own, told by lines on stdin, heard by bytes on stdout.

It is run by its path and imports nothing of firstword, so that it starts in a moment. A fault of the C library ends
this process and no call; it ends by itself when its parent is gone.

At start it says one line, `{"rate_hz": 22050}` or `{"error": "..."}`. For each line `{"text", "voices"}` it answers
with a line `{"words": [[position, sample], ...], "samples": n}`, then pieces of PCM at 16,000 samples a second, each
behind its length (4 bytes, little-endian); the length 0 ends the answer. `voices` are names to try, in order.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

sys.path.append(str(Path(__file__).parent))  # behind the standard library: nothing of it is hidden
import _pcm  # type: ignore[import-not-found]

LIBRARIES = (
    "libespeak-ng.so.1",
    "libespeak-ng.so",
    "libespeak-ng.1.dylib",
    "/opt/homebrew/lib/libespeak-ng.1.dylib",
    "/usr/local/lib/libespeak-ng.1.dylib",
)
PIECE = 4_410  # samples of the library's that are brought to our rate in one go: 0.2 seconds

# From espeak-ng's speak_lib.h.
SYNCHRONOUS, POS_CHARACTER, UTF8, OK = 2, 1, 1, 0
LIST_TERMINATED, WORD = 0, 1


class Event(ctypes.Structure):
    """`espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Library:
    """libespeak-ng. Raises OSError when it, or its data, is not there."""

    def __init__(self) -> None:
        self._library = _load()
        self.rate_hz = self._library.espeak_Initialize(SYNCHRONOUS, 0, None, 0)
        if self.rate_hz <= 0:
            raise OSError("its data is missing")
        self._pcm = bytearray()
        self._words: list[tuple[int, int]] = []
        self._callback = Callback(self._take)  # kept, because the library keeps no reference to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def say(self, text: str, voices: list[str]) -> tuple[bytes, list[tuple[int, int]]]:
        """Return the PCM of a text, and where its words begin: the character, counted from 1, and the sample."""
        if voices and voices[0] != self._voice:
            known = (name for name in voices if self._library.espeak_SetVoiceByName(name.encode()) == OK)
            next(known, None)
            self._voice = voices[0]
        self._pcm.clear()
        self._words.clear()
        data = text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, POS_CHARACTER, 0, UTF8, None, None)
        return bytes(self._pcm), list(self._words)

    def _take(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._pcm += ctypes.string_at(wave, count * 2)
        number = 0
        while events[number].type != LIST_TERMINATED:
            if events[number].type == WORD:
                self._words.append((events[number].text_position, events[number].sample))
            number += 1
        return 0


def _load() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError("the library libespeak-ng is not installed")


def answer(library: Library, request: dict[str, Any], out: BinaryIO) -> None:
    """Say one text."""
    pcm, words = library.say(request["text"], request["voices"])
    _line(out, {"words": words, "samples": len(pcm) // 2, "rate_hz": library.rate_hz})
    if sys.byteorder == "big":
        pcm = _pcm.packed(_pcm.samples(pcm))
    resampler = _pcm.Resampler(library.rate_hz)
    for place in range(0, len(pcm), PIECE * 2):
        _piece(out, resampler.feed(pcm[place : place + PIECE * 2]))
    _piece(out, resampler.end())
    out.write(bytes(4))
    out.flush()


def _piece(out: BinaryIO, pcm: bytes) -> None:
    if pcm:
        out.write(len(pcm).to_bytes(4, "little") + pcm)
        out.flush()


def _line(out: BinaryIO, value: Any) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


def main() -> None:
    """Speak until nobody asks any more."""
    out = sys.stdout.buffer
    try:
        library = Library()
    except OSError as error:
        _line(out, {"error": str(error)})
        return
    _line(out, {"rate_hz": library.rate_hz})
    for line in sys.stdin.buffer:
        answer(library, json.loads(line), out)


if __name__ == "__main__":
    main()
