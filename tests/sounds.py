"""Sound for tests: tones whose length tells how many words were said, what of them arrived, and how loud it is."""

from __future__ import annotations

import math
import shutil
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from firstword import App
from firstword.testing.score import Score
from firstword.voices import RATE_HZ
from firstword.voices._frames import FRAME_SIZE
from firstword.voices._pcm import packed, samples

PER_WORD = 0.2  # seconds of tone that `tones` gives a word
AUDIO = {"modalities": ["audio"], "audio": {"voice": "alloy", "format": "wav"}}  # of a request
MISSING = "needs espeak-ng, libespeak-ng1 and sox (apt-get install them); .ci/run installs them"
needs_espeak = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("sox") and shutil.which("soxi")), reason=MISSING
)


def spoken(voice: Callable[..., Any] | None = None, **settings: Any) -> App:
    """Return an App with a voice: `tones`, if none is given."""
    app = App(model="m", **settings)
    app.voice(voice or tones)
    return app


def sine(seconds: float, hz: float, *, rate_hz: int = RATE_HZ, level: float = 0.5) -> bytes:
    """Return a tone as PCM."""
    turn = 2 * math.pi * hz / rate_hz
    return packed(array("h", (round(level * 32767 * math.sin(turn * at)) for at in range(round(seconds * rate_hz)))))


def tones(text: str) -> bytes:
    """Be a voice: 0.2 seconds of a tone for each word."""
    return sine(PER_WORD * len(text.split()), 440)


def level(pcm: bytes) -> float:
    """Return how loud PCM is: its root mean square, 1 being the loudest."""
    values = samples(pcm)
    return math.sqrt(sum(value * value for value in values) / len(values)) / 32768 if values else 0.0


def pitch(pcm: bytes, rate_hz: int = RATE_HZ) -> float:
    """Return the frequency of a tone in Hz, by how often it rises through zero."""
    values = samples(pcm)
    rises = [at for at in range(1, len(values)) if values[at - 1] < 0 <= values[at]]
    return (len(rises) - 1) * rate_hz / (rises[-1] - rises[0])


def audios(chunks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `delta.audio` of all chunks that have one."""
    deltas = [chunk["choices"][0].get("delta") or {} for chunk in chunks if chunk.get("choices")]
    return [delta["audio"] for delta in deltas if delta.get("audio")]


def transcript(score: Score) -> str:
    """Return the words of all sound."""
    return "".join(each["transcript"] for each in audios(score.chunks))


def pcm_of(score: Score) -> bytes:
    """Return all sound that arrived."""
    return b"".join(pcm for _, pcm in score.sound)


def most_ahead(sound: Sequence[tuple[float, bytes]]) -> float:
    """Return the most seconds of sound that had arrived and could not have been heard yet.

    A caller hears from the first frame on, in real time, and waits when there is nothing.
    """
    heard_until = ahead = 0.0
    for at, pcm in sound:
        heard_until = max(heard_until, at) + len(pcm) / 2 / RATE_HZ
        ahead = max(ahead, heard_until - at)
    return ahead


def gaps(sound: Sequence[tuple[float, bytes]]) -> float:
    """Return the seconds in which a caller heard nothing between two frames."""
    heard_until, silence = sound[0][0], 0.0
    for at, pcm in sound:
        silence += max(at - heard_until, 0.0)
        heard_until = max(heard_until, at) + len(pcm) / 2 / RATE_HZ
    return silence


def is_framed(score: Score) -> bool:
    """True when every frame is 40 ms long."""
    return all(len(pcm) == FRAME_SIZE == 1280 for _, pcm in score.sound)
