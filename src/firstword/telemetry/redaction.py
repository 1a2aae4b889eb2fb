"""Take out of a text what tells who somebody is, or opens a door: numbers, addresses, accounts, keys.

Rather too much than too little: what is taken out by mistake costs a word of a log, and what is left in costs more. So
nothing is asked whether it is valid. A digit that was misheard is still most of somebody's number.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TypeAlias

Redact: TypeAlias = Callable[[str], str]

LEFT_OUT = "[left out]"  # stands for a text that could not be redacted
LEAST = 7  # digits that make a number somebody's; local phone numbers have as many
MAX_TEXT = 4096  # signs of one text that are looked at
MARGIN = 256  # signs at the end of a text that is cut: half of what would be found is found by nobody

log = logging.getLogger("firstword")

EMAIL, CARD, IBAN, KEY, NUMBER = "[email]", "[card]", "[iban]", "[key]", "[number]"

# What stands between the digits of one number: whatever is no letter. Blanks, also those that nobody sees, the marks of
# all its spellings, brackets, what makes a digit a key cap or turns the direction of writing, and control signs.
_GAP = r"[\W_]"
# A digit as it is spoken. "Double five" and "one hundred" hold more digits than words, which makes no difference here.
_SAID = (
    "zero|oh|nought|naught|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    "sixteen|seventeen|eighteen|nineteen|twenty|thirty|fou?rty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|"
    "double|triple|treble"
)
_LATIN = "a-zA-ZÀ-ɏ"  # letters of which a word that is spoken is made; a Chinese one beside it is another word
_CHINESE = "零〇一二三四五六七八九幺两"
# What people say between them.
_BETWEEN = r"(?:and|dash|hyphen|minus|dot|point|space|slash|plus|um|uh|er|then)"
_DRAWN = "²³¹⁰⁴-⁹₀-₉①-⑨⓪❶-❾"  # digits that are no decimals to Unicode
_DIGIT = rf"(?:\d|[{_DRAWN}{_CHINESE}]|(?<![{_LATIN}])(?:{_SAID}|o)(?![{_LATIN}]))"
_run = re.compile(rf"\+?{_DIGIT}(?:{_GAP}{{0,4}}(?:{_BETWEEN}{_GAP}{{1,4}})?{_DIGIT})*", re.IGNORECASE)
_digit = re.compile(_DIGIT, re.IGNORECASE)

_LOCAL = r"[\w.!#$%&'*+/=?^`{|}~\-]"
_email = re.compile(rf"(?<!{_LOCAL}){_LOCAL}+\s?[@＠]\s?[\w\-]+(?:\s?[.．。]\s?[\w\-]+)*")
_PART = r"[\w\-]{1,64}"
_SPELT = rf"{_PART}(?:\s{{1,3}}(?:dot|underscore|dash|hyphen|minus|plus)\s{{1,3}}{_PART}){{0,6}}"
_spoken_email = re.compile(
    rf"(?<![\w\-]){_SPELT}\s{{1,3}}at\s{{1,3}}{_PART}(?:\s{{1,3}}dot\s{{1,3}}{_PART}){{1,6}}", re.I
)

# Two letters, two digits, then groups; the check digits of one that was misheard would be wrong.
_iban = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]{4}){2,7}(?:[ \-]?[A-Z0-9]{1,3})?(?![^\W_])", re.I)
_LEAST_IN_AN_IBAN = 8  # digits; every country's account numbers have more

_in_a_url = re.compile(r"(?<=://)[^\s/@]+@")
_keys = (
    # What is said to be one: in a header, a URL or a sentence.
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=\-]{6,}"),
    re.compile(
        r"(?i)\b(?:api[_\- ]?key|access[_\- ]?key|token|secret|password|passwd|pwd)\b[\"']?\s*[:=]\s*[\"']?[^\s\"'&]+"
    ),
    # What begins as those of the well-known places do.
    re.compile(r"(?i)(?<![^\W_])(?:sk|pk|rk|gsk|hf|gh[opsur]|github_pat|glpat|xox[abeprs]|fw)[_\-][\w\-]{8,}"),
    re.compile(r"(?<![^\W_])(?:AKIA|ASIA|AIza|ya29\.|eyJ)[\w.\-]{8,}"),
)
_long_word = re.compile(r"[\w+/=\-]{20,}")  # letters and digits, longer than any word of a language


def redact(text: str) -> str:
    """Return a text without e-mail addresses, account and card numbers, keys, and all other runs of digits.

    Digits may be written in any script, be set apart, or be spelt out, as speech recognition does: seven of them are
    somebody's number. English and Chinese words are known.
    """
    text = _in_a_url.sub(f"{KEY}@", text)
    text = _email.sub(EMAIL, text)
    text = _spoken_email.sub(EMAIL, text)
    text = _iban.sub(lambda found: IBAN if _digits(found[0]) >= _LEAST_IN_AN_IBAN else found[0], text)
    for key in _keys:
        text = key.sub(KEY, text)
    text = _long_word.sub(lambda found: KEY if _is_mixed(found[0]) else found[0], text)
    return _run.sub(_number, text)


def _digits(text: str) -> int:
    return sum(sign.isdecimal() for sign in text)


def _is_mixed(word: str) -> bool:
    """True for letters and digits in one long word, as keys have them."""
    return any(sign.isalpha() for sign in word) and any(sign.isdecimal() for sign in word)


def _number(found: re.Match[str]) -> str:
    digits = _digit.findall(found[0])
    if len(digits) < LEAST:
        return found[0]
    values = [int(digit) for digit in digits if digit.isdecimal()]
    return CARD if len(values) == len(digits) and _is_card(values) else NUMBER


def _is_card(digits: list[int]) -> bool:
    """True for a number of a payment card: its last digit is the check of all (ISO/IEC 7812-1, Luhn)."""
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return 12 <= len(digits) <= 19 and sum(doubled) % 10 == 0


def redactor(*, own: Redact | None, is_auto: bool) -> Redact:
    """Return what makes a text fit to be kept: the user's own function first, then `redact`.

    A text for which the function raises, or returns no text, is left out. It runs in a thread.
    """

    def keep(text: str) -> str:
        short = text[:MAX_TEXT]
        if own is not None:
            try:
                changed = own(short)
            except Exception as error:
                # What it says may be the very words.
                log.error("mistake in redact type=%s hint: the text was left out", type(error).__name__)
                return LEFT_OUT
            if not isinstance(changed, str):
                log.error("mistake in redact returned=%s hint: it must return a str", type(changed).__name__)
                return LEFT_OUT
            short = changed
        kept = redact(short) if is_auto else short
        return kept if len(text) <= MAX_TEXT else f"{kept[:-MARGIN]} [cut]"

    return keep
