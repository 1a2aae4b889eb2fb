"""The signs that may begin something which is not heard, and those that end a word or a sentence."""

from __future__ import annotations

import re

BOUND = 200  # signs that are waited for at most, to see whether something is what it began as
URL_BOUND = 2000  # signs of a URL within a link; those of a search, or with a signature, are long

# Emoji=Yes, without digits, # and *, ©®™, ‼⁉, ℹ, Ⓜ, arrows that are no pictures, and what is CJK text (〰〽㊗㊙).
# Source: https://www.unicode.org/Public/UCD/latest/ucd/emoji/emoji-data.txt
EMOJI = (
    "\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2604\u260e\u2611"
    "\u2614\u2615\u2618\u261d\u2620\u2622\u2623\u2626\u262a\u262e\u262f\u2638-\u263a\u2640\u2642\u2648-\u2653\u265f"
    "\u2660\u2663\u2665\u2666\u2668\u267b\u267e\u267f\u2692-\u2697\u2699\u269b\u269c\u26a0\u26a1\u26a7\u26aa\u26ab"
    "\u26b0\u26b1\u26bd\u26be\u26c4\u26c5\u26c8\u26ce\u26cf\u26d1\u26d3\u26d4\u26e9\u26ea\u26f0-\u26f5\u26f7-\u26fa"
    "\u26fd\u2702\u2705\u2708-\u270d\u270f\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e"
    "\u2753-\u2755\u2757\u2763\u2764\u2795-\u2797\u27a1\u27b0\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
    "\U0001f000-\U0001f0ff\U0001f170\U0001f171\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a"
    "\U0001f1e6-\U0001f1ff\U0001f201-\U0001f265\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7f0"
    "\U0001f900-\U0001f9ff\U0001fa00-\U0001faff\U000e0020-\U000e007f"
)
JOINER = "\u200d"  # makes one emoji of two; within Indian and Persian words it is a part of the writing
UNHEARD = "\u200b\ufeff\ufe0e\ufe0f\u20e3"  # no width, or how the sign before is drawn; a keycap keeps its digit
CITATION = "\u3010"  # 【3†source】, as OpenAI's file search writes it
OPENAI_CITATION = "\ue200"  # ... and its web search, in signs that have no meaning elsewhere

INLINE = "\\n*_~`\\[<&\\\\$"  # ASCII signs that may begin something wherever they stand
WIDE = f"{EMOJI}{JOINER}{UNHEARD}{CITATION}{OPENAI_CITATION}"

is_emoji = re.compile(f"[{EMOJI}]").match
find_ascii = re.compile(f"[{INLINE}/]").search
find_any = re.compile(f"[{INLINE}/{WIDE}]").search

# What a piece of text may end with that becomes something with the next: `ht`, ` !`.
ENDS = frozenset("hHtTpPsSwW:!")
TAILS = ("h", "ht", "htt", "http", "https", "http:", "https:", "w", "ww", "www", "!")
may_begin = re.compile(r"(?:(?<![a-z0-9])(?:h(?:t(?:t(?:ps?:?)?)?)?|w{1,3})|(?<![^\s(\[>])!)\Z", re.IGNORECASE).search

_SCHEME = r"(?i:h(?:\Z|t(?:\Z|t(?:\Z|ps?(?:\Z|:(?:\Z|/))))))"
_URL = rf"(?<![A-Za-z0-9])(?:{_SCHEME}|w(?:\Z|w(?:\Z|w(?:\Z|\.)))|W(?:\Z|W(?:\Z|W(?:\Z|\.))))"
find = re.compile(f"[{INLINE}!{WIDE}]|{_URL}").search
# Within a heading or a row of a table, where blanks wait for what comes behind them.
find_in_row = re.compile(f"[{INLINE}!{WIDE} \\t\\r#|]|{_URL}").search

STOPS = frozenset(".!?…:;,。！？：；，、।॥؟،؛。．")  # behind these, no other one is needed
_WIDE_LETTER = re.compile(
    "[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60]"
)


def is_word(sign: str) -> bool:
    """True for an ASCII letter or digit: between two of them, `*` is a part of what is written."""
    return sign.isascii() and sign.isalnum()


def is_blank(sign: str) -> bool:
    """True for a blank, a line break, and where there is no sign at all."""
    return not sign or sign.isspace()


def is_wide(sign: str) -> bool:
    """True for the signs of Chinese, Japanese and Korean, which need no blanks between them."""
    return _WIDE_LETTER.match(sign) is not None


def is_plain(text: str) -> bool:
    """True for text, within a line, in which nothing begins that may not be heard."""
    found = find_ascii(text) if text.isascii() else find_any(text)
    if found is not None or "www" in text or "WWW" in text:
        return False
    return text[-1] not in ENDS or not text[-6:].lower().endswith(TAILS) or may_begin(text[-8:]) is None
