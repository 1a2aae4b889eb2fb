"""The machine that makes text fit to be spoken: the table of what is heard, any cutting, and what it keeps back."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spoken_text import ALL, CASES, tables

from firstword.shaping import Shaper
from firstword.shaping.signs import BOUND, URL_BOUND
from firstword.shaping.words import MAX_WORD, WholeWords

steady = settings(max_examples=300, deadline=None, derandomize=True)

# What begins, ends or looks like markup, in pieces that meet in ways nobody writes.
FRAGMENTS = [
    "*", "**", "***", "_", "__", "~~", "~", "`", "``", "```", "```python\n", "```\n", "~~~\n", "# ", "## ", "#", "- ",
    "* ", "+ ", "• ", "1. ", "> ", ">", "|", " | ", "|---|\n", "|a|b|\n", "---\n", "===", "\n", "\n\n", "\r\n", "[",
    "]", "](", "](https://a.com/x)", "[1]", "[^1]", "[^1]: ", "[x]: https://a.b", "[ ] ", "(", ")", "!", "![a](b)",
    "<", "<br>", "<b>", "</b>", "<td>", "<think>", "</think>", "</thi", '<a href="x">', "<break/>", "<!-- x -->",
    "<!--", "<sub a=b>", "</sub>", "-->", "<3", "<|end|>", "<|", "&", "&amp;", "&#39;", "&nbsp", "\\", "\\*", "\\(",
    "\\)", "$$", "$", "$5", "https://www.ex.com/p?q=1", "http", "h", "ht", "www.", "w", "WWW.A.de", "Http://x.y", "😀",
    "👩\u200d💻", "\ufe0f", "1\ufe0f\u20e3", "❤\ufe0f", "\u200d", "\u200b", "【3†s】", "【重】", "\ue200cite\ue201",
    "\ue200", "hello", "word ", "Hi", " ", "  ", "\t", "。", "重点", "،", "سلام", "สวัสดี", "नमस्ते", "क्\u200dष", "5",
    "2*3", "a_b", "C#", "[laughs]", "<a@b.co>", "é", ".", ",", "?", "@", "/", "//", ":", "=", '"t"',
]  # fmt: skip
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
# What no rule knows anything of, in many scripts.
plain = st.text(
    st.sampled_from("abcxyzABC 0123456789.,;:?'\"()-–—%@=+{}^éßñ重点，。！？سلامนमस्ते한국어日本語שלוםДа€™©®→★"),
    max_size=60,
)


def heard(pieces: Sequence[str], *, markup: bool = True) -> str:
    shaper = Shaper(markup=markup)
    return "".join([*map(shaper.feed, pieces), shaper.end()])


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = [*sorted(place for place in places if place <= len(text)), len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# --- what is heard --------------------------------------------------------------------------------


@pytest.mark.parametrize(("written", "spoken"), ALL)
def test_the_table_is_what_is_heard(written: str, spoken: str) -> None:
    """Whole, sign by sign, and in two pieces at every place."""
    assert heard([written]) == spoken
    assert heard(list(written)) == spoken
    assert {heard([written[:place], written[place:]]) for place in range(len(written) + 1)} == {spoken}


def test_the_page_shows_the_table() -> None:
    """A case is added or changed: `python tests/spoken_text.py` prints what the page has to show."""
    assert tables() in (ROOT / "docs" / "spoken-text.md").read_text("utf-8")
    assert len(ALL) > 120 and len(CASES) > 8


@pytest.mark.parametrize("written", [spoken for _, spoken in ALL if not spoken.startswith(("#", "*"))])
def test_what_is_heard_has_nothing_more_to_take_out(written: str) -> None:
    """Most of it is read a second time as it is; what was escaped or code would be markup again."""
    again = heard([written])
    assert again == written or set(written) & set("*_`<&#$~") or written[:1] in "- |"


# --- any cutting ----------------------------------------------------------------------------------


@given(texts, st.lists(st.integers(1, 80), max_size=6))
@example("a" * 5 + "[" + "x" * (BOUND + 5) + "](https://a.com)", [205, 206, 207])
@example("|" + "-" * (BOUND + 3) + "|\nx", [200, 201, 202])
@example("```" + "`" * BOUND + "\nx", [199, 200, 201])
@example("*" + "a" * BOUND + "*", [200, 201, 202])
@example("See https://" + "a" * 260 + "/x", [260, 261, 262])
@steady
def test_however_a_text_is_cut_the_same_is_heard(text: str, places: list[int]) -> None:
    """The pieces of a model, of a network and of nobody."""
    whole = heard([text])
    assert heard(cut(text, places)) == whole
    assert heard(list(text)) == whole
    thoughts = heard([text], markup=False)
    assert heard(cut(text, places), markup=False) == heard(list(text), markup=False) == thoughts


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=4))
@steady
def test_whatever_is_written_can_be_heard(text: str, places: list[int]) -> None:
    """Signs of all kinds, unassigned ones too."""
    assert heard(cut(text, places)) == heard([text])


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
@steady
def test_a_text_after_another_is_read_from_its_beginning(text: str) -> None:
    """After `end` nothing is left of the text before: a call of a tool parts them."""
    shaper = Shaper()
    shaper.feed("**a ```python\n")
    shaper.end()
    assert shaper.feed(text) + shaper.end() == heard([text])


# --- nothing to take out --------------------------------------------------------------------------


@given(st.lists(plain, max_size=8))
@steady
def test_text_without_markup_is_heard_as_it_is_written(pieces: list[str]) -> None:
    """Byte for byte, in many scripts."""
    text = "x" + "".join(pieces)
    assert heard(["x", *pieces]) == text


@given(st.lists(plain, max_size=8))
@steady
def test_text_without_markup_does_not_wait(pieces: list[str]) -> None:
    """Each piece leaves with itself, but for a last sign or two that may begin a URL or an image."""
    shaper = Shaper()
    shaper.feed("x")
    given = left = "x"
    for piece in pieces:
        given += piece
        left += shaper.feed(piece)
        kept = given[len(left) :]
        assert given.startswith(left) and kept.lower() in {
            "",
            "h",
            "ht",
            "htt",
            "http",
            "https",
            "https:",
            "w",
            "ww",
            "!",
        }


@pytest.mark.parametrize("words", ["Hello there, how are you?", "您好，请问", "مرحبا، كيف", "नमस्ते", "It is 5:30."])
def test_the_very_text_comes_back(words: str) -> None:
    """What is given back is the same object: nobody has to compare it sign by sign."""
    shaper = Shaper()
    shaper.feed("So ")
    assert shaper.feed(words) is words


# --- what is kept back ----------------------------------------------------------------------------

OPEN = [
    "[", "![", "*", "_", "`", "<a ", "<b ", "<!--", "<x@", "&", "$$", "【3", "<|", "\n|", "\n---", "\n#", "\n- ",
    "\n[1", "\n```py", "h", "https://", "www.", "\\", "a ~", "\n>", "[a](", "[a][1", "\ue200",
]  # fmt: skip


@pytest.mark.parametrize("begun", OPEN)
def test_what_never_closes_does_not_hold_a_reply(begun: str) -> None:
    """A bracket, a star or a tag that nobody ends: after so many signs it is text like any other."""
    shaper, most = Shaper(), 0
    given = left = ""
    for piece in ["So ", begun, *["word "] * 1000]:
        given += piece
        left += shaper.feed(piece)
        most = max(most, len(given) - len(left))
    assert most <= (URL_BOUND if "](" in begun else BOUND) + 20
    assert "word word word" in left


@pytest.mark.parametrize(
    ("pieces", "leaving"),
    [
        (["**Sure", "!** ", "One"], ["Sure", "! ", "One"]),
        (["## Me", "nu\n", "Soup"], ["Me", "nu.\n", "Soup"]),
        (["- ", "so", "up\n", "- ", "bread"], ["", "so", "up\n", "", "bread"]),
        (["| A ", "| B |\n", "| C"], ["", "A, B\n", ""]),
        (["Go to htt", "ps://exa", "mple.com", "/a", "/b now"], ["Go to ", "", "", "example.com", " now"]),
        (["Hi 😀", " there"], ["Hi ", "there"]),
        (["A [li", "nk](", "u", ") b"], ["A ", "", "", "link b"]),
        (["<think>Hm", "</think>", "\nHi"], ["", "", "Hi"]),
    ],
)
def test_only_what_is_not_decided_waits(pieces: list[str], leaving: list[str]) -> None:
    """What leaves with each piece: words within markup do not wait for its end."""
    shaper = Shaper()
    assert [shaper.feed(piece) for piece in pieces] == leaving


def test_brackets_within_brackets_are_not_followed_without_end() -> None:
    """Each one that is open costs a look at all that follows: more of them than anybody writes are text."""
    assert heard(["[a [b [c](d) e] f](g)"]) == "a [b c e] f"
    for begun in ("[", "[a]("):
        shaper = Shaper()
        assert shaper.feed("So " + begun * 30).startswith("So " + begun * 20)


def test_a_long_text_costs_its_length() -> None:
    """A hundred thousand signs that may all begin something, at once and in small pieces."""
    for text in (
        "[" * 100_000,
        "[a](" * 25_000,
        "*a " * 30_000,
        "**a** " * 20_000,
        "| a " * 20_000,
        "\n- a" * 20_000,
        "<b><i>" * 15_000,
    ):
        for pieces in ([text], cut(text, range(0, len(text), 50))):
            began = time.process_time()
            heard(pieces)
            assert time.process_time() - began < 15.0


def test_no_emoji_is_heard() -> None:
    """All of Unicode's pictures that have a name of their own, beside the signs that text is written with."""
    kept = [
        chr(code)
        for code in range(0x1F300, 0x1FB00)
        if unicodedata.category(chr(code)) == "So" and heard(["a " + chr(code)]) != "a "
    ]
    assert all(
        "ALCHEMICAL" in unicodedata.name(sign) or "ARROW" in unicodedata.name(sign) or ord(sign) < 0x1F900
        for sign in kept
    )
    assert not [sign for sign in kept if ord(sign) < 0x1F650 or 0x1F680 <= ord(sign) < 0x1F700 or ord(sign) >= 0x1F900]


# --- only reasoning -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**Hi** <think>Hm.</think>😀 [a](b)", "**Hi** 😀 [a](b)"),
        ("<THINK>Hm.</think>\n\n# Hi", "# Hi"),
        ("a <b>b</b> <3 </think> c", "a <b>b</b> <3 c"),
        ("https://example.com *a*", "https://example.com *a*"),
        ("a <thin", "a <thin"),
    ],
)
def test_reasoning_alone_can_be_taken_out(written: str, spoken: str) -> None:
    """For those who show the text as well as speak it."""
    assert heard([written], markup=False) == heard(list(written), markup=False) == spoken


# --- read aloud -----------------------------------------------------------------------------------


def aloud(pieces: Sequence[str]) -> tuple[list[str], str]:
    """Return what a hook is given, and all that is heard."""
    given: list[str] = []

    def read(text: str) -> str:
        given.append(text)
        return text.upper()

    text = WholeWords(Shaper(), read)
    said = "".join([*map(text.feed, pieces), text.end()])
    assert said == "".join(given).upper()
    return given, said


@pytest.mark.parametrize(
    ("pieces", "given"),
    [
        (["It is ", "5", ".50", " euro", "s."], ["It is ", "5.50 ", "euros."]),
        (["Dr", ". W", "ho! "], ["Dr. ", "Who! "]),
        (["**5", "** euros"], ["5 ", "euros"]),
        (["价格", "12", "3元", "。"], ["价格", "123元", "。"]),
        (["one"], ["one"]),
        ([], []),
        (["😀"], []),
    ],
)
def test_a_hook_is_given_whole_words(pieces: list[str], given: list[str]) -> None:
    """A number is not read in halves, and markup is gone."""
    assert aloud(pieces)[0] == given


def test_a_word_without_an_end_does_not_wait_for_ever() -> None:
    """A key, or a script that knows no blanks."""
    given, said = aloud(["x" * 10] * 20)
    assert said == "X" * 200 and max(map(len, given)) <= MAX_WORD + 10


@given(texts, st.lists(st.integers(1, 80), max_size=6))
@steady
def test_what_is_read_aloud_is_all_that_is_heard(text: str, places: list[int]) -> None:
    """Nothing is lost between the words."""
    assert aloud(cut(text, places))[1] == heard([text]).upper()
