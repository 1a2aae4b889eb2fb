"""Sound as numbers: WAV files read and written, channels mixed, and any rate brought to 16,000 samples a second. Pure.

PCM here is what the wire has: 16-bit signed little-endian samples of one channel. Python's `audioop` is gone since
3.13, and this is little enough. It imports nothing of firstword: a process that only speaks reads it as well.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from operator import mul

RATE_HZ = 16_000
RATES_HZ = (4_000, 192_000)  # from a bad telephone to a studio
HALF_WIDTH = 5  # samples on each side that make one of ours, at the lower of the two rates
PASSED = 0.92  # share of what the lower rate can hold that is let through

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MAX_CHANNELS = 64


def samples(pcm: bytes) -> array[int]:
    """Return PCM as numbers, whatever the order of bytes on this machine."""
    values = array("h", pcm)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def packed(values: array[int]) -> bytes:
    """Return numbers as PCM."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


class Resampler:
    """Bring PCM of another rate to ours as it comes, in pieces of any length.

    Each sample of ours is a weighted sum of those around its moment (a windowed sinc), which takes out what the lower
    rate cannot hold. Raises ValueError for a rate that nobody means.
    """

    def __init__(self, rate_hz: int) -> None:
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            raise ValueError(f"{rate_hz} samples a second are not sound")
        common = math.gcd(rate_hz, RATE_HZ)
        self._step = rate_hz // common  # of theirs, for each `_phases` of ours
        self._phases = RATE_HZ // common
        self._narrow = min(1.0, RATE_HZ / rate_hz)
        self._half = math.ceil(HALF_WIDTH / self._narrow)
        # How far each of `_phases` samples in turn is from the next, and its weights: made when it is first needed.
        self._cycle: list[tuple[int, list[float]] | None] = [None] * self._phases
        self._number = 0  # which of them is next
        self._values = [0.0] * (self._half - 1)  # theirs that still count; the first stands at -(half - 1)
        self._odd = b""  # half a sample
        self._due = 0  # samples of ours that what came so far is worth, in 1/`_step`

    def feed(self, pcm: bytes) -> bytes:
        """Return what of the sound is settled by now."""
        data = self._odd + pcm if self._odd else pcm
        if len(data) % 2:
            self._odd, data = data[-1:], data[:-1]
        else:
            self._odd = b""
        if self._step == self._phases:
            return data
        values = samples(data)
        self._due += len(values) * self._phases
        self._values += map(float, values)  # a product of two floats is the quickest
        return self._settle()

    def end(self) -> bytes:
        """Return the rest."""
        if self._step == self._phases:
            return b""
        self._values += [0.0] * (2 * self._half)
        return self._settle()

    def _settle(self) -> bytes:
        """Return the samples of ours for which all of theirs are here. The inner loop is what a voice costs."""
        values, width, cycle, number = self._values, 2 * self._half, self._cycle, self._number
        step, phases = self._step, self._phases
        settled = ((len(values) - width + 1) * phases - 1 - number * step % phases) // step + 1
        count = max(min(settled, -(-self._due // step)), 0)
        place, made = 0, []
        for _ in range(count):
            advance, taps = cycle[number] or self._make(number)
            made.append(sum(map(mul, taps, values[place : place + width])))
            place += advance
            number += 1
            if number == phases:
                number = 0
        self._number = number
        self._due -= count * step
        del values[:place]
        try:
            return packed(array("h", map(round, made)))
        except OverflowError:  # louder than can be said
            return packed(array("h", (max(-32768, min(32767, round(value))) for value in made)))

    def _make(self, number: int) -> tuple[int, list[float]]:
        """Return the weights for a moment behind the sample in the middle, and how far it is to the next moment."""
        phase = number * self._step % self._phases
        after = phase / self._phases
        cut = self._narrow * PASSED
        taps = []
        for position in range(1 - self._half, self._half + 1):
            x = position - after
            window = 0.5 + 0.5 * math.cos(math.pi * x / (self._half + 1))
            turned = math.pi * x * cut
            taps.append(window * (math.sin(turned) / turned if turned else 1.0))
        whole = sum(taps)
        self._cycle[number] = made = ((phase + self._step) // self._phases, [tap / whole for tap in taps])
        return made


def resampled(pcm: bytes, rate_hz: int) -> bytes:
    """Return whole PCM at our rate. Raises ValueError."""
    resampler = Resampler(rate_hz)
    return resampler.feed(pcm) + resampler.end()


def is_wav(data: bytes) -> bool:
    """True when bytes are the beginning of a WAV file."""
    return data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"


def read_wav(data: bytes) -> tuple[bytes, int]:
    """Return the PCM of a WAV file, channels mixed, and its rate.

    A file that was written as a stream, which says a length that it has not, is read as far as it goes.
    Raises ValueError, which says what is wrong with it.
    """
    if not is_wav(data):
        raise ValueError("it is no WAV file")
    form: tuple[int, int, int, int] | None = None
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"fmt " and size >= 16:
            form = _read_form(data[place : place + size])
        elif name == b"data":
            if form is None:
                raise ValueError("it does not say what its sound is like")
            kind, channels, rate_hz, bits = form
            return _mixed(data[place : place + size], kind, channels, bits), rate_hz
        place += size + size % 2
    raise ValueError("there is no sound in it")


def _read_form(chunk: bytes) -> tuple[int, int, int, int]:
    try:
        kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
        if kind == _EXTENSIBLE:
            (kind,) = struct.unpack_from("<H", chunk, 24)
    except struct.error:
        raise ValueError("its head is cut off") from None
    if kind not in (_PCM, _FLOAT) or bits not in ((32, 64) if kind == _FLOAT else (8, 16, 24, 32)):
        raise ValueError("it is compressed, or in a form that is not read here")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise ValueError("it has no channel, or too many")
    return kind, channels, rate_hz, bits


def _mixed(data: bytes, kind: int, channels: int, bits: int) -> bytes:
    """Return 16-bit PCM of one channel."""
    width = bits // 8
    data = data[: len(data) // (width * channels) * width * channels]
    if kind == _FLOAT:
        floats = struct.unpack(f"<{len(data) // width}{'f' if bits == 32 else 'd'}", data)
        values = array("h", (_whole(value) for value in floats))
    elif bits == 8:  # the only width without a sign
        values = array("h", ((value - 128) << 8 for value in data))
    else:
        high = bytearray(len(data) // width * 2)  # the two bytes of each sample that weigh most
        high[0::2], high[1::2] = data[width - 2 :: width], data[width - 1 :: width]
        values = samples(bytes(high))
    if channels > 1:
        parts = [values[channel::channels] for channel in range(channels)]
        values = array("h", (sum(each) // channels for each in zip(*parts, strict=True)))
    return packed(values)


def _whole(value: float) -> int:
    return 0 if value != value else round(max(-1.0, min(1.0, value)) * 32767)


def wav(pcm: bytes, rate_hz: int = RATE_HZ) -> bytes:
    """Return PCM as a WAV file."""
    form = struct.pack("<HHIIHH", _PCM, 1, rate_hz, 2 * rate_hz, 2, 16)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", len(pcm)) + pcm
