"""Frames of 40 ms: all of the sound, all of the text, and each word where it begins."""

from __future__ import annotations

import random

import pytest

from firstword.voices import RATE_HZ, Sound, Word
from firstword.voices._frames import FRAME_SIZE, Frame, Frames

SECOND = bytes(2 * RATE_HZ)
TIMES = (Word("Hello,", 0.0, 0.4), Word("big", 0.4, 0.6), Word("world.", 0.6, 1.0))


def framed(text: str, *sounds: Sound, frames: Frames | None = None) -> list[Frame]:
    """Return the frames of one piece of text."""
    frames = frames or Frames()
    frames.begin(text)
    return [frame for sound in sounds for frame in frames.add(sound)] + frames.end()


def texts(frames: list[Frame]) -> list[tuple[int, str]]:
    """Return which frame has which text."""
    return [(number, frame.transcript) for number, frame in enumerate(frames) if frame.transcript]


def test_sound_is_cut_into_frames_of_40_ms_and_the_last_is_filled_up() -> None:
    """1,280 bytes each, whatever the pieces were; what is missing at the end is silence."""
    loud = b"\x01\x10" * 2000
    frames = framed("One.", Sound(loud[:1000]), Sound(loud[1000:1001]), Sound(loud[1001:]))

    assert [len(frame.pcm) for frame in frames] == [FRAME_SIZE] * 4
    assert b"".join(frame.pcm for frame in frames) == loud + bytes(4 * FRAME_SIZE - len(loud))


def test_a_word_goes_with_the_frame_in_which_it_begins() -> None:
    """With times, an engine that is interrupted has the words that were heard, and no others."""
    frames = framed("Hello, big world. ", Sound(SECOND, TIMES))

    assert texts(frames) == [(0, "Hello, "), (10, "big "), (15, "world. ")]
    assert [word for frame in frames for word in frame.words] == list(TIMES)


def test_without_times_the_text_goes_with_the_first_sound_of_it() -> None:
    """A speech endpoint tells no times."""
    assert texts(framed("Hello, big world. ", Sound(SECOND))) == [(0, "Hello, big world. ")]


def test_times_count_from_the_beginning_of_the_reply() -> None:
    """The second sentence begins where the frames of the first have ended."""
    frames = Frames()
    first = framed("One. ", Sound(bytes(2000)), frames=frames)
    second = framed("Two. ", Sound(SECOND, (Word("Two.", 0.1, 0.5),)), frames=frames)

    assert len(first) == 2
    assert [(word.text, word.start, word.end) for frame in second for word in frame.words] == [
        ("Two.", pytest.approx(0.18), pytest.approx(0.58))
    ]


@pytest.mark.parametrize(
    "words",
    [
        (),
        (Word("unknown", 0.1, 0.2),),
        (Word("Hello,", 0.0, 0.2), Word("unknown", 0.2, 0.3), Word("world.", 0.3, 2.0)),
        (Word("world.", 0.0, 0.2), Word("Hello,", 0.2, 0.3)),
        (Word("Hello,", 5.0, 6.0),),
        (Word("", 0.0, 0.0), Word("Hello,", -1.0, 0.0)),
    ],
    ids=["none", "unknown", "between", "turned", "late", "odd"],
)
def test_the_transcripts_are_the_text_whatever_a_voice_says_of_its_words(words: tuple[Word, ...]) -> None:
    """Numbers are read out as other words, and a voice may be wrong: not a sign is lost, or said twice."""
    text = "  «Hello, big world.» \n"
    frames = framed(text, Sound(SECOND[:3000], words), Sound(SECOND))
    assert "".join(frame.transcript for frame in frames) == text


def test_a_text_without_sound_goes_with_the_next_sound_and_at_last_with_silence() -> None:
    """A lone mark says nothing, and still is a part of the reply that enters the engine's memory."""
    frames = Frames()
    assert framed("* ", frames=frames) == []
    assert texts(framed("One. ", Sound(SECOND), frames=frames)) == [(0, "* One. ")]
    assert framed(")", frames=frames) == []
    assert frames.rest() == [Frame(bytes(FRAME_SIZE), ")")]
    assert frames.rest() == []


def test_words_that_come_with_later_sound_are_taken_as_well() -> None:
    """A voice that streams tells the times of each piece with it."""
    frames = framed("One two three. ", Sound(SECOND, (Word("One", 0.0, 0.5), Word("two", 0.5, 1.0))), Sound(
        SECOND, (Word("three.", 1.0, 1.5),)
    ))  # fmt: skip
    assert texts(frames) == [(0, "One "), (12, "two "), (25, "three. ")]


def test_any_cutting_of_the_sound_gives_the_same_frames() -> None:
    """Pieces come as the network brings them."""
    chance = random.Random(5)
    loud = bytes(chance.randrange(256) for _ in range(9_999))
    expected = framed("Hello, big world.", Sound(loud, TIMES))
    for _ in range(20):
        place, sounds = 0, [Sound(b"", TIMES)]
        while place < len(loud):
            step = chance.randint(1, 3000)
            sounds.append(Sound(loud[place : place + step]))
            place += step
        assert framed("Hello, big world.", *sounds) == expected
