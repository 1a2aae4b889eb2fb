"""Text is cut where a voice takes breath: what ends a sentence, what does not, and that chunks' own cutting is none."""

from __future__ import annotations

import itertools
import random

import pytest

from firstword.sentences import MOST, Sentences

LONG = "word " * 100

CASES: list[tuple[str, list[str]]] = [
    ("One two three. Four! Five? Six", ["One two three. ", "Four! ", "Five? ", "Six"]),
    ("It costs $3.14 at example.com. Yes.", ["It costs $3.14 at example.com. ", "Yes."]),
    ("Dr. Smith and Mrs. Jones, e.g. him. Good.", ["Dr. Smith and Mrs. Jones, ", "e.g. him. ", "Good."]),
    ("J. R. Smith is here. So am I. Yes.", ["J. R. Smith is here. ", "So am I. ", "Yes."]),
    ('He said "Go." Then he went.', ['He said "Go." ', "Then he went."]),
    ("Wait... what? No.", ["Wait... ", "what? ", "No."]),
    ("1. Open the door. 2. Go in.", ["1. Open the door. ", "2. Go in."]),
    ("It was 1999. Then it was not.", ["It was 1999. ", "Then it was not."]),
    ("First line\nSecond line\n\nThird", ["First line\n", "Second line\n", "\nThird"]),
    ("你好，世界。今天天气很好！你呢？", ["你好，世界。", "今天天气很好！", "你呢？"]),
    ("今天天气很好，我们走吧，好吗？好。", ["今天天气很好，", "我们走吧，好吗？", "好。"]),
    ("「はい。」と言った。", ["「はい。", "」と言った。"]),
    ("كيف حالك؟ أنا بخير.", ["كيف حالك؟", " أنا بخير."]),
    ("नमस्ते। आप कैसे हैं?", ["नमस्ते।", " आप कैसे हैं?"]),
    ("Well, that is a question, is it not? Yes, it is.", ["Well, that is a question, ", "is it not? ", "Yes, it is."]),
    ("Certainly, sir, at once. And then, sir, we go.", ["Certainly, sir, ", "at once. ", "And then, sir, we go."]),
    ("*** ... !!! One.", ["*** ... !!! One."]),
    ("One. 😀 Two.", ["One. ", "😀 Two."]),
    ("   ", ["   "]),
    ("", []),
]


def pieces(text: str, cuts: list[int]) -> list[str]:
    """Return the pieces of a text that comes in these parts."""
    sentences = Sentences()
    places = [0, *sorted(cuts), len(text)]
    found = [piece for low, high in itertools.pairwise(places) for piece in sentences.feed(text[low:high])]
    rest = sentences.take()
    return [*found, rest] if rest else found


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text[:20] for text, _ in CASES])
def test_a_text_is_cut_where_a_voice_takes_breath(text: str, expected: list[str]) -> None:
    """Several scripts; decimals, abbreviations and initials end nothing; the first clause of all is early."""
    assert pieces(text, []) == expected


@pytest.mark.parametrize(
    "text", [text for text, _ in CASES] + [LONG, "字" * 1000, "x" * 2000], ids=lambda text: text[:20]
)
def test_the_cutting_of_chunks_changes_nothing(text: str) -> None:
    """The same text comes sign by sign, and in random parts."""
    expected = pieces(text, [])
    chance = random.Random(7)
    assert "".join(expected) == text
    assert pieces(text, list(range(len(text)))) == expected
    for _ in range(20):
        assert pieces(text, [chance.randint(0, len(text)) for _ in range(5)]) == expected


@pytest.mark.parametrize("text", [LONG, "字" * 1000, "x" * 2000], ids=["words", "ideographs", "one word"])
def test_a_text_without_end_is_cut_all_the_same(text: str) -> None:
    """A model that never ends a sentence must not make the caller wait for the last word."""
    assert all(len(piece) <= 2 * MOST for piece in pieces(text, []))
    assert len(pieces(text, [])) > 1


def test_a_sentence_is_finished_by_the_blank_behind_it() -> None:
    """The dot alone may be that of 3.14; the blank is the first sign that tells."""
    sentences = Sentences()
    assert sentences.feed("It is 3.") == []
    assert sentences.feed("5.") == []
    assert sentences.feed(" ") == ["It is 3.5. "]
    assert not sentences.has_words


def test_marks_without_a_word_do_not_gather_without_end() -> None:
    """A model that draws a line of dots, or sends blanks: they leave in pieces, and are the text again."""
    for sign in (".", " "):
        found = pieces(sign * 10_000, [])
        assert max(map(len, found)) == 2 * MOST
        assert "".join(found) == sign * 10_000
