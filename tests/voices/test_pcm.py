"""Sound as numbers: what a tone is at another rate, and which WAV files are read."""

from __future__ import annotations

import io
import random
import struct
import wave

import pytest
from sounds import level, pitch, sine

from firstword import ConfigError
from firstword.voices import RATE_HZ, Sound
from firstword.voices._pcm import Resampler, read_wav, resampled, samples, wav

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("hz", [100, 1_000, 3_000])
def test_a_tone_keeps_its_pitch_its_level_and_its_length(rate_hz: int, hz: int) -> None:
    """A second of a sine, at the rates that voices have."""
    pcm = resampled(sine(1.0, hz, rate_hz=rate_hz), rate_hz)

    assert len(pcm) == 2 * RATE_HZ
    assert pitch(pcm) == pytest.approx(hz, rel=0.001)
    assert level(pcm[2000:-2000]) == pytest.approx(0.5 / 2**0.5, rel=0.1)


@pytest.mark.parametrize(("rate_hz", "hz"), [(24_000, 10_500), (44_100, 11_000), (48_000, 12_000), (48_000, 20_000)])
def test_what_the_lower_rate_cannot_hold_is_taken_out(rate_hz: int, hz: int) -> None:
    """A hiss over 8,000 Hz would come back as a whistle below it."""
    assert level(resampled(sine(0.5, hz, rate_hz=rate_hz), rate_hz)) < 0.5 / 2**0.5 / 30


@pytest.mark.parametrize("rate_hz", RATES)
def test_sound_that_comes_in_pieces_is_the_same_sound(rate_hz: int) -> None:
    """Pieces of a stream end anywhere, within a sample too."""
    whole = sine(0.1, 700, rate_hz=rate_hz)
    expected = resampled(whole, rate_hz)
    chance = random.Random(3)
    for size in (1, 2, 3, 7, 1000):
        resampler, made, place = Resampler(rate_hz), b"", 0
        while place < len(whole):
            step = chance.randint(1, size)
            made += resampler.feed(whole[place : place + step])
            place += step
        assert made + resampler.end() == expected


def test_the_loudest_sound_is_not_turned_over() -> None:
    """A square wave overshoots in a filter: beyond the loudest sample there is the loudest, not the opposite."""
    square = struct.pack("<h", 32767) * 240 + struct.pack("<h", -32768) * 240
    values = samples(resampled(square * 4, 24_000))
    assert max(values) == 32767 and min(values) == -32768


@pytest.mark.parametrize("rate_hz", [0, 100, 1_000_000])
def test_a_rate_that_nobody_means_is_refused(rate_hz: int) -> None:
    """A broken head of a file says that it has one sample a second, or a million."""
    with pytest.raises(ValueError, match="samples a second"):
        Resampler(rate_hz)


# --- WAV --------------------------------------------------------------------------------------------


def by_python(pcm: bytes, *, rate_hz: int = RATE_HZ, channels: int = 1, width: int = 2) -> bytes:
    """Return a WAV file as Python's own library writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate_hz)
        out.writeframes(pcm)
    return file.getvalue()


def chunked(kind: int, data: bytes, *, bits: int, channels: int = 1, extra: bytes = b"", before: bytes = b"") -> bytes:
    """Return a WAV file of any kind."""
    width = bits // 8 * channels
    form = struct.pack("<HHIIHH", kind, channels, RATE_HZ, RATE_HZ * width, width, bits) + extra
    parts = before + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


TONE = sine(0.05, 440)
VALUES = samples(TONE)


def test_our_own_file_is_read_by_others_and_theirs_by_us() -> None:
    """Python's `wave` is the judge."""
    with wave.open(io.BytesIO(wav(TONE))) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (RATE_HZ, 1, 2)
        assert read.readframes(10_000) == TONE
    assert read_wav(by_python(TONE, rate_hz=8_000)) == (TONE, 8_000)


@pytest.mark.parametrize(
    "file",
    [
        by_python(TONE),
        by_python(b"".join(struct.pack("<hh", value, value) for value in VALUES), channels=2),
        by_python(b"".join(struct.pack("<i", value << 8)[:3] for value in VALUES), width=3),
        by_python(b"".join(struct.pack("<i", value << 16) for value in VALUES), width=4),
        chunked(3, b"".join(struct.pack("<f", value / 32767) for value in VALUES), bits=32),
        chunked(3, b"".join(struct.pack("<d", value / 32767) for value in VALUES), bits=64),
        chunked(0xFFFE, TONE, bits=16, extra=struct.pack("<HHI", 22, 16, 4) + b"\x01\x00" + bytes(14)),
        chunked(1, TONE, bits=16, before=b"LIST\x03\x00\x00\x00abc\x00"),
        wav(TONE)[:40] + b"\xff\xff\xff\xff" + TONE,
        wav(TONE)[:4] + b"\xff\xff\xff\xff" + wav(TONE)[8:40] + b"\xff\xff\xff\x7f" + TONE,
    ],
    ids=["16", "stereo", "24", "32", "float", "double", "extensible", "list", "streamed", "streamed-too"],
)
def test_a_file_of_any_usual_kind_is_the_same_tone(file: bytes) -> None:
    """Widths, channels, and a length that was not known when the head was written."""
    assert read_wav(file) == (TONE, RATE_HZ)


def test_a_file_of_eight_bits_is_about_the_same_tone() -> None:
    """The only width without a sign."""
    pcm, _ = read_wav(by_python(bytes((value >> 8) + 128 for value in VALUES), width=1))
    assert all(abs(mine - theirs) < 256 for mine, theirs in zip(samples(pcm), VALUES, strict=True))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "no WAV"),
        (b"ID3 and so on, an MP3", "no WAV"),
        (wav(TONE)[:20], "head is cut off|no sound"),
        (chunked(85, b"xx", bits=16), "compressed"),
        (chunked(1, b"xx", bits=12), "compressed"),
        (chunked(1, b"xx", bits=16, channels=0), "no channel"),
        (b"RIFF\x00\x00\x00\x00WAVEdata\x02\x00\x00\x00ab", "does not say"),
        (wav(b"")[:36], "no sound"),
    ],
    ids=["empty", "mp3", "cut", "compressed", "bits", "channels", "headless", "soundless"],
)
def test_what_is_no_such_file_is_told(file: bytes, said: str) -> None:
    """Another kind of file, or a broken one: a sentence, and no crash."""
    with pytest.raises(ValueError, match=said):
        read_wav(file)


def test_every_beginning_of_a_file_is_read_or_refused() -> None:
    """A file that was cut anywhere never raises anything but what it says it raises."""
    file = by_python(TONE, channels=2)
    for size in range(len(file)):
        try:
            pcm, _ = read_wav(file[:size])
            assert len(pcm) % 2 == 0
        except ValueError:
            pass


def test_a_sound_is_made_of_files(tmp_path: object) -> None:
    """A greeting is read where the App is made: WAV by what it holds, else PCM of the rate that was given."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "hello.wav").write_bytes(by_python(sine(0.5, 440, rate_hz=8_000), rate_hz=8_000))
    (folder / "hello.raw").write_bytes(sine(0.5, 440, rate_hz=24_000))

    for sound in (Sound.from_file(folder / "hello.wav"), Sound.from_file(folder / "hello.raw", rate_hz=24_000)):
        assert sound.seconds == 0.5
        assert pitch(sound.pcm) == pytest.approx(440, rel=0.01)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Sound.from_file(folder / "away.wav")
    (folder / "broken.wav").write_bytes(wav(TONE)[:30])
    with pytest.raises(ConfigError, match="cannot be read"):
        Sound.from_file(folder / "broken.wav")
