"""The voice at hand: real speech, real word times, and a process that may die, hang or be missing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from sounds import AUDIO, MISSING, is_framed, level, needs_espeak, transcript

from firstword import App, ConfigError, Turn
from firstword.errors import VoiceError
from firstword.testing import says, talk
from firstword.turn import Aloud
from firstword.voices import Sound
from firstword.voices.espeak import MOST_PROCESSES, Espeak, timed

CHINESE = "你好，世界"
TEXT = "Hello there, I have 1,234 reasons to call you today."


@pytest.fixture
async def espeak() -> AsyncIterator[Espeak]:
    voice = Espeak()
    yield voice
    await voice.close()
    assert voice._idle == []


async def said(voice: Espeak, text: str, *, wanted: str | None = None) -> list[Sound]:
    """Return what a voice says."""
    sounds: list[Sound] = []

    async def hear(sound: Sound) -> None:
        sounds.append(sound)

    await voice.say(text, hear, turn=Turn({"messages": []}, aloud=Aloud(voice=wanted)))
    return sounds


def pcm(sounds: list[Sound]) -> bytes:
    return b"".join(sound.pcm for sound in sounds)


def script(tmp_path: Path, lines: str) -> str:
    """Return the path of a program that stands in the place of Python, and so of the process that speaks."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_a_machine_of_ours_has_what_these_tests_need() -> None:
    """Skipping them is for a user's machine only."""
    if not os.environ.get("CI"):
        pytest.skip(MISSING)
    assert not needs_espeak.args[0], MISSING


@needs_espeak
async def test_a_sentence_is_said_with_the_times_of_its_words(espeak: Espeak) -> None:
    """The words together are the text, their times go on without a gap, and there is something to hear."""
    sounds = await said(espeak, TEXT)
    words = [word for sound in sounds for word in sound.words]

    assert [word.text for word in words] == TEXT.split()
    assert words[0].start == 0.0
    assert all(word.end == after.start for word, after in pairwise(words))
    assert words[-1].end == pytest.approx(len(pcm(sounds)) / 32_000, abs=0.01)
    assert 3.0 < words[-1].end < 8.0
    assert level(pcm(sounds)) > 0.01
    assert len(sounds) > 1  # it is heard before all of it is made


@needs_espeak
async def test_languages_are_said_in_their_own_way(espeak: Espeak) -> None:
    """A request may name one in `audio.voice`; what is none of espeak's, as `alloy`, means the usual one.

    An English voice calls each of these signs a "Chinese letter", which takes twice as long as to say them.
    """
    usual = len(pcm(await said(espeak, CHINESE)))
    assert len(pcm(await said(espeak, CHINESE, wanted="cmn"))) < 0.7 * usual
    for name in ("alloy", "xx", "../../etc/passwd", "de; rm", ""):
        assert len(pcm(await said(espeak, CHINESE, wanted=name))) == pytest.approx(usual, rel=0.05)
    other = Espeak("cmn")
    assert len(pcm(await said(other, CHINESE))) < 0.7 * usual
    await other.close()


@needs_espeak
@pytest.mark.parametrize("text", ["你好，世界。", "Привет, мир!", "a", "😀 ok", "one\0two", "\ud800", "x" * 600])
async def test_whatever_text_comes_is_said_and_the_next_as_well(espeak: Espeak, text: str) -> None:
    """Scripts, marks, halves of characters and long words end no process and lose no word of the text."""
    words = [word.text for sound in await said(espeak, text) for word in sound.words]
    assert "".join("".join(words).split()) in ("".join(text.split()), "")
    assert [word.text for sound in await said(espeak, "And on.") for word in sound.words] == ["And", "on."]
    assert len(espeak._idle) == 1


@needs_espeak
async def test_the_process_is_kept_for_the_next_sentence(espeak: Espeak) -> None:
    """To start one takes longer than to say something."""
    await espeak.open()
    [kept] = espeak._idle
    await said(espeak, TEXT)
    assert espeak._idle == [kept]


@needs_espeak
async def test_many_calls_share_few_processes(espeak: Espeak) -> None:
    """Twenty at once: each hears its own text, whole."""
    texts = [f"{'word ' * number}end." for number in range(1, 21)]
    for text, sounds in zip(texts, await asyncio.gather(*(said(espeak, text) for text in texts)), strict=True):
        assert [word.text for sound in sounds for word in sound.words] == text.split()
    assert 1 < len(espeak._idle) <= MOST_PROCESSES


@needs_espeak
async def test_a_process_that_was_killed_meanwhile_is_replaced(espeak: Espeak) -> None:
    """The system ends it to save memory: nobody's sentence is lost."""
    await espeak.open()
    os.kill(espeak._idle[0]._process.pid, signal.SIGKILL)
    assert pcm(await said(espeak, TEXT))


@needs_espeak
async def test_a_caller_who_leaves_in_the_middle_of_a_sentence_takes_its_process_along(espeak: Espeak) -> None:
    """The rest of that sentence must not be heard by the next caller."""
    first = asyncio.Event()

    async def hear(sound: Sound) -> None:
        first.set()
        await asyncio.Event().wait()

    saying = asyncio.create_task(espeak.say(TEXT * 5, hear, turn=Turn({"messages": []})))
    await asyncio.wait_for(first.wait(), 10)
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    assert espeak._idle == []
    assert [word.text for sound in await said(espeak, "Hello.") for word in sound.words] == ["Hello."]


@needs_espeak
async def test_a_caller_who_leaves_while_a_process_starts_leaves_none_behind(espeak: Espeak) -> None:
    """Nobody would end it, and Python warns of such a one, which is an error here."""
    saying = asyncio.create_task(said(espeak, TEXT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)
    gc.collect()
    assert espeak._idle == []


HELLO = """echo '{"rate_hz": 22050}'"""
NO_LIBRARY = """echo '{"error": "the library libespeak-ng is not installed"}'"""


async def test_without_the_library_an_app_that_asks_for_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator learns at once what to install."""
    monkeypatch.setattr(sys, "executable", script(tmp_path, NO_LIBRARY))
    with pytest.raises(ConfigError, match="espeak-ng is not installed") as caught:
        App(voice="espeak")
    assert caught.value.hint is not None and "libespeak-ng1" in caught.value.hint


async def test_without_the_library_an_engine_that_wants_sound_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has set a voice, and a greeting is to be said: 501, and what to install."""
    monkeypatch.setattr(sys, "executable", script(tmp_path, NO_LIBRARY))
    score = await talk(App(model="m"), say=[{"role": "assistant", "content": "Welcome!"}], request=AUDIO)

    assert score.status == 501
    assert score.error is not None and score.error["code"] == "voice_unavailable"
    assert "libespeak-ng1" in score.error["message"]
    assert score.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("lines", "said_of_it"),
    [
        ("exit 1", "ended"),
        (f"{HELLO}; exit 0", "ended"),
        ("""echo '{"rate_hz": 22050}'; read line; printf '{"words": [], "samp'""", "ended"),
        (f"""{HELLO}; read line; echo '{{"words": [], "samples": 9, "rate_hz": 22050}}'; printf 'a'""", "ended"),
    ],
    ids=["at start", "before it is asked", "in its line", "in its sound"],
)  # fmt: skip
async def test_a_process_that_dies_is_an_error_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, said_of_it: str
) -> None:
    """A fault in the C library: the sentence fails, the server does not, and nothing is left behind."""
    monkeypatch.setattr(sys, "executable", script(tmp_path, lines))
    voice = Espeak()
    with pytest.raises(VoiceError, match=said_of_it):
        await said(voice, TEXT)
    assert voice._idle == []


async def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the text and says nothing."""
    monkeypatch.setattr(
        sys, "executable", script(tmp_path, """echo '{"rate_hz": 22050}'; read line; exec sleep 1000""")
    )
    monkeypatch.setattr("firstword.voices.espeak.LONGEST_SAY", 0.2)
    voice = Espeak()
    with pytest.raises(VoiceError, match="said nothing for") as caught:
        await said(voice, TEXT)
    assert caught.value.status == 504
    assert voice._idle == []


@pytest.mark.parametrize("name", ["../de", "", " ", "de\n", "x" * 100])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """It becomes the name of a file of the library's."""
    with pytest.raises(ConfigError, match="has no voice"):
        Espeak(name)


@needs_espeak
async def test_a_turn_is_said_by_it() -> None:
    """`App(voice="espeak")`, from the words of the model to frames with their transcript."""
    app = App(model="m", voice="espeak")
    score = await talk(app, models=says(TEXT), request=AUDIO)

    assert transcript(score) == TEXT
    assert is_framed(score)
    assert score.sound[0][0] < 0.5


# --- times, without the library ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "begins", "expected"),
    [
        ("one two", [(1, 0), (5, 100)], [("one", 0.0, 1.0), ("two", 1.0, 2.0)]),
        ("1,234 b", [(1, 0), (2, 70), (4, 80), (7, 100)], [("1,234", 0.0, 1.0), ("b", 1.0, 2.0)]),
        ("(one) two", [(2, 0), (7, 100)], [("(one)", 0.0, 1.0), ("two", 1.0, 2.0)]),
        ("one two", [(1, 0), (5, 100), (0, 150), (4, 160)], [("one", 0.0, 1.0), ("two", 1.0, 2.0)]),
        ("你好，世界", [(1, 0), (1, 50), (4, 100)], [("你好，", 0.0, 1.0), ("世界", 1.0, 2.0)]),
        ("one - two", [(1, 0), (7, 100)], [("one -", 0.0, 1.0), ("two", 1.0, 2.0)]),
        ("", [(1, 0)], []),
        ("one", [], []),
        ("one", [(-5, 0), (99, 100)], [("one", 0.0, 2.0)]),
    ],
    ids=["plain", "number", "bracket", "backwards", "ideographs", "dash", "empty", "none", "outside"],
)  # fmt: skip
def test_words_are_found_where_the_library_says_they_begin(
    text: str, begins: list[tuple[int, int]], expected: list[tuple[str, float, float]]
) -> None:
    """A position counts from 1; the library names some twice, some not at all, and some behind others."""
    assert [(word.text, word.start, word.end) for word in timed(text, begins, 2.0, 100)] == expected
