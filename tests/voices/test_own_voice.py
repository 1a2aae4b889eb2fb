"""A function of the user's as a voice: its shapes, what it gives, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sounds import AUDIO, sine, tones, transcript

from firstword import App, ConfigError, Turn
from firstword.errors import VoiceError
from firstword.testing import says, talk
from firstword.voices import Hear, Sound
from firstword.voices._own import OwnVoice
from firstword.voices._pcm import wav

TEXT = "Hello there."
TONE = tones(TEXT)


class Other:
    """A voice that notes what it was asked to say."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.closed = False

    async def say(self, text: str, hear: Hear, *, turn: Turn) -> None:
        self.said.append(text)
        await hear(Sound(TONE))

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


async def said(function: Callable[..., Any], other: Any = None) -> bytes:
    """Return all that a voice function gives."""
    sounds: list[Sound] = []

    async def hear(sound: Sound) -> None:
        sounds.append(sound)

    await OwnVoice(function, other or Other()).say(TEXT, hear, turn=Turn({"messages": []}, session="s1"))
    return b"".join(sound.pcm for sound in sounds)


async def coroutine(text: str) -> bytes:
    return tones(text)


def plain(text: str) -> bytes:
    return tones(text)


async def with_turn(text: str, turn: Turn) -> bytes:
    assert turn.session == "s1"
    return tones(text)


async def generator(text: str) -> AsyncIterator[bytes]:
    for place in range(0, len(TONE), 777):  # within a sample, too
        yield TONE[place : place + 777]


def plain_generator(text: str) -> Iterator[bytes]:
    yield TONE[:1001]
    yield TONE[1001:]


def of_sounds(text: str) -> Iterator[Sound | bytes]:
    yield Sound(TONE[:2000])
    yield bytearray(TONE[2000:])


async def wav_bytes(text: str) -> bytes:
    return wav(tones(text))


async def a_sound(text: str) -> Sound:
    return Sound(tones(text))


SHAPES = [coroutine, plain, with_turn, generator, plain_generator, of_sounds, wav_bytes, a_sound]


@pytest.mark.parametrize("function", SHAPES, ids=lambda each: each.__name__)
async def test_every_shape_of_a_function_says_the_same(function: Callable[..., Any]) -> None:
    """Plain or async, at once or in pieces, PCM, WAV or Sounds."""
    assert await said(function) == TONE


async def test_a_wav_file_of_another_rate_is_brought_to_ours() -> None:
    """A greeting that somebody has recorded."""

    async def voice(text: str) -> bytes:
        return wav(sine(0.5, 440, rate_hz=44_100), 44_100)

    assert len(await said(voice)) == 16_000


async def test_a_plain_function_does_not_hold_up_the_loop() -> None:
    """It runs in a thread, and so does each step of a plain generator."""
    threads: list[threading.Thread] = []

    def voice(text: str) -> Iterator[bytes]:
        threads.append(threading.current_thread())
        yield TONE

    await said(voice)
    assert threads != [threading.current_thread()]


async def test_what_it_leaves_to_the_other_voice_the_other_voice_says() -> None:
    """None: a greeting that was recorded, and a voice for all else."""

    async def greets(text: str) -> bytes | None:
        return b"\0\0" if text == "Welcome!" else None

    other = Other()
    assert await said(greets, other) == TONE
    assert other.said == [TEXT]


async def test_an_app_asks_its_function_first_and_then_its_voice() -> None:
    """And closes the voice with itself."""
    other = Other()
    app = App(model="m", voice=other)

    @app.voice
    async def greets(text: str) -> bytes | None:
        return tones(text) if text == "Welcome!" else None

    score = await talk(app, models=says("Welcome! Good day."), request=AUDIO)
    assert transcript(score) == "Welcome! Good day."
    assert other.said == ["Good day."]
    assert other.closed


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_generator_is_closed_when_the_caller_leaves(kind: str) -> None:
    """What it has opened is closed in the turn's own time, not when the collector comes round."""
    closed: list[str] = []
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def steps(text: str) -> AsyncIterator[bytes]:
        try:
            while True:
                yield TONE
        finally:
            closed.append("async")

    def plain_steps(text: str) -> Iterator[bytes]:
        try:
            while True:
                yield TONE
        finally:
            loop.call_soon_threadsafe(closed.append, "plain")

    async def hear(sound: Sound) -> None:
        began.set()
        await asyncio.Event().wait()

    function: Callable[..., Any] = steps if kind == "async" else plain_steps
    saying = asyncio.create_task(OwnVoice(function, Other()).say(TEXT, hear, turn=Turn({"messages": []})))
    await asyncio.wait_for(began.wait(), 10)
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    await asyncio.sleep(0)
    assert closed == [kind]


@pytest.mark.parametrize("result", ["text", 5, [b"a"], {"pcm": b""}], ids=repr)
async def test_what_is_no_sound_is_an_error_that_says_so(result: Any) -> None:
    """Its kind is told, never what it holds."""

    async def voice(text: str) -> Any:
        return result

    with pytest.raises(VoiceError, match=f"gave a {type(result).__name__}, which is no sound"):
        await said(voice)


def test_a_function_that_takes_no_text_is_refused_when_it_is_written() -> None:
    """And so is a second one, and one that comes too late."""
    app = App(model="m")
    with pytest.raises(ConfigError, match="does not take"):
        app.voice(lambda: b"")
    app.voice(lambda text: b"")
    with pytest.raises(ConfigError, match="two voice functions"):
        app.voice(lambda text: b"")
