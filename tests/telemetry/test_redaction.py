"""What is taken out of a text before it is kept: planted canaries of every kind, in every spelling, and what stays."""

from __future__ import annotations

import re
import string
import time

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from firstword.telemetry.redaction import LEAST, LEFT_OUT, MAX_TEXT, redact, redactor

SAID = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CHINESE = "零一二三四五六七八九"
GAPS = ["", " ", "  ", "-", ".", " - ", ", ", "/", " . ", "\n", "\u00a0", "\u2011", "\u200b", ") (", "..."]
ODD = [
    "\ufe0f\u20e3",
    "\u202c",
    "=",
    "~",
    "][",
    "\x00",
    "**",
    "\u2066",
    " > ",
    "\u061c ",
]  # key caps, marks of direction
AROUND = ["", "Call me at ", "my number is: ", "Ja, ", "我的号码", "x", "(", "tel:", '{"phone": "', "and "]
BEHIND = ["", " please.", "!", " and thanks", "。", '"}', ")", "x", "\n", ", ok?"]


def digits_left(text: str) -> int:
    """Return how many digits stand together at most, whatever the spelling."""
    text = re.sub(r"\[\w+\]", "|", text)
    runs = re.split(r"[^\W\d_]+|\|", text)
    return max((sum(sign.isdecimal() for sign in run) for run in runs), default=0)


def planted(canary: str) -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(AROUND), st.sampled_from(BEHIND)).map(lambda pair: pair[0] + canary + pair[1])


numbers = st.lists(st.integers(0, 9), min_size=LEAST, max_size=20)


@given(numbers, st.data())
def test_no_number_survives_however_it_is_set_apart(number: list[int], data: st.DataObject) -> None:
    """Digits as speech recognition writes them: in one piece, one by one, in groups, with marks that nobody sees."""
    parts = [str(digit) for digit in number]
    spelt = parts[0] + "".join(data.draw(st.sampled_from(GAPS + ODD)) + part for part in parts[1:])
    found = redact(data.draw(planted(spelt)))
    assert digits_left(found) == 0 or digits_left(found) < LEAST
    assert "[" in found


@given(
    numbers,
    st.sampled_from(["٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⁰¹²³⁴⁵⁶⁷⁸⁹", "⓪①②③④⑤⑥⑦⑧⑨"]),
    st.data(),
)
def test_no_number_survives_in_another_script(number: list[int], script: str, data: st.DataObject) -> None:
    """A caller's own digits are Arabic, Indic, or full-width."""
    spelt = data.draw(st.sampled_from(["", " ", "-"])).join(script[digit] for digit in number)
    assert not any(sign in script for sign in redact(data.draw(planted(spelt))))


@given(numbers, st.sampled_from([" ", ", ", "-", " dash ", ". ", " and "]), st.data())
def test_no_number_survives_that_is_spoken(number: list[int], gap: str, data: st.DataObject) -> None:
    """Five five five, one two three four; oh for zero, capitals, digits among the words."""
    words = [data.draw(st.sampled_from([SAID[digit], SAID[digit].title(), str(digit)])) for digit in number]
    words = [data.draw(st.sampled_from(["zero", "oh", "Oh"])) if word == "zero" else word for word in words]
    around = f"Call {gap.join(words)} please"
    assert redact(around) in [f"Call {name} please" for name in ("[number]", "[card]", "[key]")]


@given(numbers, st.sampled_from(["", " ", "、", "-"]))
def test_no_number_survives_in_chinese(number: list[int], gap: str) -> None:
    """一三八 ... as it is spoken, with 幺 for one."""
    spelt = gap.replace("、", ",").join(CHINESE[digit] for digit in number)
    for each in (spelt, spelt.replace("一", "幺")):
        assert redact(f"我的电话是{each}。") == "我的电话是[number]。"


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_a_phone_number_of_every_country_is_found(region: str) -> None:
    """The judge is the library that knows them: an example of each kind, in each of its spellings."""
    for kind in PhoneNumberType.values():
        number = phonenumbers.example_number_for_type(region, kind)
        if number is None:
            continue
        for form in (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.RFC3966):
            spelt = phonenumbers.format_number(number, form)
            if sum(sign.isdecimal() for sign in spelt) >= LEAST:
                found = redact(f"Ring {spelt}, it is mine")
                assert digits_left(found) == 0, (spelt, found)


def luhn(digits: list[int]) -> int:
    """Return the digit that makes a card's number of these."""
    doubled = [digit if place % 2 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return -sum(doubled) % 10


@given(
    st.sampled_from(["4", "51", "2221", "34", "6011", "35", "62", "30"]),
    st.lists(st.integers(0, 9), min_size=11, max_size=11),
    st.sampled_from(["", " ", "-", "4"]),
)
def test_a_card_is_called_one(prefix: str, rest: list[int], gap: str) -> None:
    """Of every network, in groups of four, one by one, in one piece."""
    digits = [int(sign) for sign in prefix] + rest
    whole = "".join(map(str, [*digits, luhn(digits)]))
    spelt = " ".join(re.findall(".{1,4}", whole)) if gap == "4" else gap.join(whole)
    assert redact(f"It is {spelt}, until May") == "It is [card], until May"


def iban(country: str, account: str) -> str:
    """Return an IBAN with its check digits (ISO 13616)."""
    number = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


@given(
    st.sampled_from(["DE", "GB", "FR", "NO", "MT", "LC"]),
    st.text(string.ascii_uppercase, max_size=4),
    st.text(string.digits, min_size=11, max_size=20),
    st.sampled_from(["", " ", "-"]),
    st.booleans(),
    st.booleans(),
)
def test_no_account_survives(country: str, bank: str, number: str, gap: str, is_small: bool, is_wrong: bool) -> None:
    """In groups or in one piece, in small letters, and with a digit misheard, so that no check digit is right."""
    whole = iban(country, bank + number)
    if is_wrong:
        whole = whole[:-1] + str((int(whole[-1]) + 1) % 10)
    spelt = gap.join(re.findall(".{1,4}", whole.lower() if is_small else whole))
    found = redact(f"Pay to {spelt} today")
    assert spelt not in found and digits_left(found) < LEAST
    assert number[-6:] not in re.sub(r"\W", "", found)


@given(st.emails(), st.sampled_from(["", "mail ", "<", "mailto:", "«"]), st.sampled_from(["", ".", ">", " ok", "»"]))
def test_no_address_survives(address: str, before: str, behind: str) -> None:
    """Whatever signs the standard allows before the @."""
    assert address not in redact(before + address + behind)
    assert address.partition("@")[2] not in redact(before + address + behind)


@pytest.mark.parametrize(
    "text",
    [
        "jane dot doe at example dot com",
        "Jane Dot Doe At Mail Dot Example Dot Co Dot UK",
        "jane underscore doe at example dot com",
        "jane at example dot com",
        "jane @ example . com",
        "jané@exämple.de",
        "用户@例子.广告",
        "jane＠example．com",
        "jane@localhost",
    ],
)
def test_no_spoken_address_survives(text: str) -> None:
    """As speech recognition writes it."""
    assert redact(f"Write to {text}, please") == "Write to [email], please"


@given(
    st.sampled_from(
        ["sk-", "sk-proj-", "sk_live_", "gsk_", "hf_", "ghp_", "github_pat_", "glpat-", "xoxb-", "AIza", "AKIA"]
    ),
    st.text(string.ascii_letters + string.digits, min_size=16, max_size=60),
    st.sampled_from(["", "key=", "my key is ", '"', "Bearer ", "https://host/?api_key="]),
)
def test_no_key_survives(prefix: str, rest: str, before: str) -> None:
    """Those of the well-known places, wherever they were pasted."""
    found = redact(f"{before}{prefix}{rest} there")
    assert rest not in found and rest[4:12] not in found


@given(st.text(string.ascii_letters + string.digits + "_-", min_size=24, max_size=60), st.sampled_from(["", "a "]))
def test_no_long_word_of_letters_and_digits_survives(key: str, before: str) -> None:
    """A key of a place that nobody knows."""
    if any(sign.isdigit() for sign in key) and any(sign.isalpha() for sign in key):
        assert key not in redact(f"{before}{key} there")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "[key]"),
        ("password: hunter2", "[key]"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: [key]"),
        ("https://jane:pw@host.example/x", "https://[key]@host.example/x"),
        ("0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f", "[key]"),
    ],
)
def test_what_opens_a_door_is_taken_out(text: str, kept: str) -> None:
    """Tokens, passwords, and URLs with one in them."""
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "Two of us at eight, or three at nine.",
        "It costs 12.50 euros, or 1,200 a year.",
        "On 24 May 2026 at five o'clock.",
        "Take bus 42 to gate B12.",
        "There is one in ten thousand.",
        "一个人有两只手，十个手指。",
        "Look at the dot, and dash to the door at once.",
        "internationalisation and counterrevolutionaries",
        "",
    ],
)
def test_plain_words_stay(text: str) -> None:
    """Prices, dates, times and counts of everyday are no secrets."""
    assert redact(text) == text


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    """Whatever was said, nothing is raised, and what is redacted stays as it is when it is redacted again."""
    once = redact(text)
    assert digits_left(redact(once)) < LEAST


@pytest.mark.parametrize(
    "piece",
    ["a", "1 ", "one ", "dot ", "a dot ", "at dot ", "x@", "a.", "AB12", "-", " ", "+ ", "1 and ", "ab12 ", "sk-"],
)
def test_no_text_takes_long(piece: str) -> None:
    """Somebody says what makes a pattern try again and again; the lock of all threads is held meanwhile."""
    text = (piece * MAX_TEXT)[:MAX_TEXT]
    began = time.perf_counter()
    redact(text)
    assert time.perf_counter() - began < 0.5


# --- the user's own function ----------------------------------------------------------------------


def test_the_users_function_comes_first() -> None:
    """It sees the text as it was; what it leaves in is taken out all the same."""
    seen: list[str] = []

    def own(text: str) -> str:
        seen.append(text)
        return text.replace("Jane", "[name]") + " jane@example.com"

    assert redactor(own=own, is_auto=True)("Jane 5551234567") == "[name] [number] [email]"
    assert seen == ["Jane 5551234567"]
    assert redactor(own=own, is_auto=False)("Jane 5551234567") == "[name] 5551234567 jane@example.com"
    assert redactor(own=None, is_auto=False)("Jane 5551234567") == "Jane 5551234567"


def breaks(text: str) -> str:
    raise ValueError(text)


@pytest.mark.parametrize("own", [breaks, lambda text: None, lambda text: text.encode(), lambda text: [text]])
def test_what_a_function_fails_at_is_left_out(own: object, caplog: pytest.LogCaptureFixture) -> None:
    """It raises, or forgets to return: the words are not written raw, nor into the log of the mistake."""
    for is_auto in (True, False):
        assert redactor(own=own, is_auto=is_auto)("Jane's secret words") == LEFT_OUT  # type: ignore[arg-type]
    assert "mistake in redact" in caplog.text and "Jane" not in caplog.text


def test_a_long_text_is_cut_where_nothing_is_cut_in_half() -> None:
    """The end of what is looked at may be the beginning of an address, which nobody finds: it goes as well."""
    local = "jane.doe.of.the.long.name"
    text = "word " * (MAX_TEXT // 5 - 4) + local + "@example.com" + " more" * 100
    found = redactor(own=None, is_auto=True)(text)
    assert found.endswith(" [cut]") and "jane" not in found and len(found) < MAX_TEXT
