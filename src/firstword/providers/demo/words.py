"""What the demo model says: short spoken sentences in English or Chinese, by fixed rules.

Rules: the same words always get the same answer; nothing needs a screen, so no markup and no emoji is said, not even
the caller's own; only the first `LIMIT` characters of what was said are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from ...message import words as text_of
from .pictures import Picture, pictures

Messages = Sequence[Mapping[str, Any]]

LIMIT = 4_000  # characters
QUOTED = 20  # words of the caller's that are said back, or twice as many Chinese characters
LONGEST_NAME = 64  # characters of a tool's name
REPEATED = 80  # words of a tool's result
HAN = "\u3400-\u9fff"  # Chinese characters, for a character class

_SPEAKERS = ("user", "assistant", "tool", "function")
CHINESE = re.compile(f"[{HAN}]")
_TIMES = re.compile(r"(?<=\d)\s*\*\s*(?=\d)")
# Markup, control characters, arrows, symbols and emoji; the joiners that Persian and Hindi are written with stay.
_UNSPOKEN = re.compile(
    "[*#`~|<>{}\\[\\]\\\\^\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e"
    "\u2190-\u21ff\u2460-\u27bf\u2b00-\u2bff\ufe0f\ud800-\udfff\U0001f000-\U0001faff\U000e0000-\U000e007f]"
)
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty",
    "零 一 二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六 十七 十八 十九 二十",
)
_SPELLED = {"两": 2, **{word: value for row in _COUNTED for value, word in enumerate(row.split())}}
_WORD = re.compile(r"(?<![A-Za-z0-9_-])(?<!ty )[A-Za-z]+(?![A-Za-z0-9_])|[零一二两三四五六七八九十]+")
# What touches a letter, or a dash or slash with a digit, is a part of something else, such as a date.
_NUMBER = r"(?<![A-Za-z0-9_./-])(-?\d{1,12}(?:\.\d{1,6})?)(?![A-Za-z0-9_]|[./-]\d)"
# The order is that of `_Language.operators`.
_OPERATORS: tuple[tuple[str, Callable[[Fraction, Fraction], Fraction]], ...] = (
    (r"\s*(?:plus|\+|加上?)\s*", lambda one, other: one + other),
    (r"\s*(?:minus|减去?)\s*|\s+-\s+", lambda one, other: one - other),
    (r"\s*(?:times|multiplied by|x|×|乘以?)\s*", lambda one, other: one * other),
    (r"\s*(?:divided by|over|÷|除以)\s*|\s+/\s+", lambda one, other: one / other),
)


class _Language(NamedTuple):
    """All that is said in one language; `{}` stands for what was heard, found or reckoned."""

    line: str
    gap: str  # between two sentences
    stop: str
    and_so_on: str
    heard: str
    nothing: str
    greeting: str  # patterns, in this and the next, that are compiled when first needed
    hello: str
    rules: tuple[tuple[str, str], ...]  # pattern, answer
    operators: tuple[str, ...]
    reckoned: str
    by_zero: str
    counting: str
    no_further: str
    tool: str
    empty: str
    picture: str
    pictures: str
    in_all: str
    sent_along: str
    pixels: str
    elsewhere: str
    unreadable: str
    more: str
    audio: str
    file: str


_ENGLISH = _Language(
    line="This is the demo model of firstword; name another model to hear a real one.",
    gap=" ",
    stop=".",
    and_so_on=", and so on.",
    heard="I heard you say: {}",
    nothing="I did not hear any words. Please say something.",
    greeting=r"\W*(?:hi|hello|hey|howdy|greetings|good (?:morning|afternoon|evening))\b",
    hello="Hello!",
    rules=(
        (r"\bjoke\b", "Why did the developer go broke? Because he used up all his cache."),
        (
            r"\bstory\b",
            "Once there was a lighthouse keeper who spoke to every ship that passed. Most ships never answered. "
            "One night the fog was so thick that no light could be seen, so she sang instead. In the morning "
            "a small boat lay safe at her door, and its captain said: I have always heard you, I only never had "
            "time to reply. From that day on the two of them talked every evening, and no ship was lost again.",
        ),
        (
            r"\bwhat (?:else )?can you do\b|^help\W*$",
            "I can say back what I hear, add two numbers, count to twenty, tell a joke or a story, call a tool "
            "that you name, fill a form, and describe a picture.",
        ),
        (r"\byour name\b|\bwho are you\b|\bwhat are you\b", "My name is Demo."),
        (r"\bhow are you\b", "I am well, thank you for asking."),
        (r"\bthank(?:s| you)\b", "You are welcome."),
        (r"\b(?:good ?bye|bye|see you|good night)\b", "Goodbye, it was nice to talk to you."),
    ),
    operators=("plus", "minus", "times", "divided by"),
    reckoned="{} {} {} is {}.",
    by_zero="Nothing can be divided by zero.",
    counting=rf"\bcount\b.{{0,30}}?\bto {_NUMBER}",
    no_further="I count to twenty and no further:",
    tool="The {} tool says: {}",
    empty="nothing",
    picture="I got one picture: {}.",
    pictures="I got {} pictures: {}.",
    in_all="{} bytes in all",
    sent_along="{}, {}{} bytes",
    pixels="{} by {} pixels, ",
    elsewhere="one at {}",
    unreadable="one that I cannot read",
    more="and {} more",
    audio="I got a piece of audio, which I cannot listen to.",
    file="I got a file, which I cannot open.",
)

_MANDARIN = _Language(
    line="我是 firstword 的演示模型；换一个模型名，就能听到真正的模型。",
    gap="",
    stop="。",
    and_so_on="，等等。",
    heard="我听到您说：{}",
    nothing="我没有听到内容，请再说一遍。",
    greeting=r"\W*(?:你好|您好|嗨|哈喽|早上好|下午好|晚上好)",
    hello="您好！",
    rules=(
        ("笑话", "程序员为什么总分不清万圣节和圣诞节？因为八进制的三十一等于十进制的二十五。"),
        (
            "故事",
            "从前有一位守灯塔的人，每有船经过，她都会打招呼，可是很少有船回答。一天夜里雾很大，谁也看不见灯光，"
            "她就唱起歌来。第二天早上，一条小船平安地停在门口，船长说：我一直都听得到您，只是从来没有时间回答。"
            "从那天起，他们每天晚上都聊天，再也没有船迷路。",
        ),
        (
            "你会什么|你能做什么|能做些什么|帮助",
            "我能复述您的话，做加减乘除，数到二十，讲笑话和故事，调用您说出名字的工具，还能描述图片。",
        ),
        ("你叫什么|您叫什么|你的名字|您的名字|你是谁|您是谁", "我叫演示。"),
        ("你好吗|您好吗|最近怎么样", "我很好，谢谢关心。"),
        ("谢谢|感谢", "不客气。"),
        ("再见|拜拜|晚安", "再见，很高兴和您聊天。"),
    ),
    operators=("加", "减", "乘以", "除以"),
    reckoned="{}{}{}等于{}。",
    by_zero="零不能做除数。",
    counting=rf"数.{{0,6}}?到\s*{_NUMBER}",
    no_further="我最多数到二十：",
    tool="{} 工具说：{}",
    empty="没有内容",
    picture="我收到一张图片：{}。",
    pictures="我收到{}张图片：{}。",
    in_all="共{}字节",
    sent_along="{}，{}{}字节",
    pixels="宽{}像素，高{}像素，",
    elsewhere="一张在 {}",
    unreadable="一张无法读取",
    more="还有{}张",
    audio="我收到一段音频，不过我听不了。",
    file="我收到一个文件，不过我打不开。",
)


def last_said(messages: Messages) -> Mapping[str, Any]:
    """Return the last message that somebody said: not the system's; an empty one when nobody did."""
    said = (message for message in reversed(messages) if message.get("role") in _SPEAKERS)
    return next(said, {})


def last_words(messages: Messages) -> str:
    """Return the user's last words as they can be spoken, at most `LIMIT` characters."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return speakable(text_of(message.get("content")))
    return ""


def speakable(text: str) -> str:
    """Return the first `LIMIT` characters on one line, without markup and emoji."""
    return " ".join(_UNSPOKEN.sub("", _TIMES.sub(" × ", text[:LIMIT])).split())


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, as digits or spelled up to twenty."""
    values = map(Fraction, re.findall(_NUMBER, _in_digits(text)))
    return [int(value) if value.denominator == 1 else float(value) for value in values]


def _in_digits(text: str) -> str:
    """Return a text with the numbers that are spelled, up to twenty, written in digits."""
    return _WORD.sub(lambda word: str(_SPELLED.get(word[0].lower(), word[0])), text)


def answer(messages: Messages, *, line: bool = True) -> str:
    """Return the answer to the last message; with `line`, it ends by saying that this is the demo."""
    last = last_said(messages)
    directive = last.get("role") == "assistant"
    heard = speakable(text_of(last.get("content"))) if directive else last_words(messages)
    language = _MANDARIN if CHINESE.search(heard) else _ENGLISH
    if last.get("role") in ("tool", "function"):
        sentences = list(_results(messages, language))
    elif directive and heard:
        sentences = [heard]  # an engine asks for these very words to be spoken
    else:
        sentences = [*_parts(last.get("content"), language)]
        if _has_words(heard):
            sentences += _to(heard, language)
        elif not sentences:
            sentences = [language.nothing]
    return language.gap.join([*sentences, language.line] if line else sentences)


def _to(heard: str, language: _Language) -> Iterator[str]:
    """Yield the sentences that answer what was heard."""
    if re.match(language.greeting, heard, re.IGNORECASE):
        yield language.hello
    counted = _in_digits(heard)
    reply = _reckoned(counted, language) or _counted(counted, language)
    rules = (answer for pattern, answer in language.rules if re.search(pattern, heard, re.IGNORECASE))
    yield reply or next(rules, "") or language.heard.format(_shortened(heard, language, most=QUOTED))


def _reckoned(heard: str, language: _Language) -> str | None:
    """Return the result of the first sum in the words."""
    for (sign, reckon), name in zip(_OPERATORS, language.operators, strict=True):
        if found := re.search(f"{_NUMBER}(?:{sign}){_NUMBER}", heard, re.IGNORECASE):
            one, other = Fraction(found[1]), Fraction(found[2])
            try:
                result = reckon(one, other)
            except ZeroDivisionError:
                return language.by_zero
            return language.reckoned.format(_spoken(one), name, _spoken(other), _spoken(result))
    return None


def _counted(heard: str, language: _Language) -> str | None:
    """Return the numbers up to the one that was asked for."""
    found = re.search(language.counting, heard, re.IGNORECASE)
    most = int(Fraction(found[1])) if found else 0
    if most < 1:
        return None
    counted = ", ".join(map(str, range(1, min(most, 20) + 1))) + language.stop
    return f"{language.no_further} {counted}" if most > 20 else counted


def _spoken(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.4f}".rstrip("0").rstrip(".")


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _shortened(text: str, language: _Language, *, most: int) -> str:
    """Return the first `most` words, or so many characters as they may have, as a sentence."""
    short = " ".join(text.split(maxsplit=most)[:most])[: most * (2 if language is _MANDARIN else 8)]
    if len(short) < len(text):
        return short.rstrip(" ,.;:!?，。；：！？、") + language.and_so_on
    return text if text.endswith((".", "!", "?", "…", "。", "！", "？")) else text + language.stop


def _results(messages: Messages, language: _Language) -> Iterator[str]:
    """Yield what each tool of the last step says."""
    names: dict[Any, Any] = {}
    results: list[Mapping[str, Any]] = []
    for message in messages:
        if message.get("role") in ("tool", "function"):
            results.append(message)
        elif message.get("role") not in ("system", "developer"):
            results = []
            calls = message.get("tool_calls")
            functions = [call for call in (calls if isinstance(calls, list) else ()) if isinstance(call, Mapping)]
            names = {str(call.get("id")): call.get("function") for call in functions}
    for message in results[:4]:
        function = names.get(str(message.get("tool_call_id")))
        name = message.get("name") or (function.get("name") if isinstance(function, Mapping) else None)
        said = speakable(", ".join(_leaves(text_of(message.get("content"))[:LIMIT]))) or language.empty
        spoken_name = " ".join(name_words(name[:LONGEST_NAME])) if isinstance(name, str) else ""
        yield " ".join(language.tool.format(spoken_name, _shortened(said, language, most=REPEATED)).split())


def _leaves(text: str) -> list[str]:
    """Return the values of a JSON text, each with its name before it; any other text as it is."""
    if not text.lstrip().startswith(("{", "[")):
        return [text]
    try:
        return list(_named(msgspec.json.decode(text), ""))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return [text]


def _named(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _named(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _named(each, name)
    else:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        yield f"{name.replace('_', ' ')} {text}".strip()


def name_words(name: str) -> list[str]:
    """Return the words of a snake_case, kebab-case or camelCase name in lower case, without those that tell nothing."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    found = re.findall(r"[^\W_]+", apart.lower())
    return [word for word in found if word not in ("get", "fetch", "the", "a", "tool")] or found


def _parts(content: Any, language: _Language) -> Iterator[str]:
    """Yield a sentence on the pictures of a message, one on its audio and one on its files."""
    seen, count = pictures(content)
    described = [_described(picture, language) for picture in seen[:4]]
    if count == 1:
        yield language.picture.format(described[0])
    elif seen:
        if count > 4:
            described.append(language.more.format(count - 4))
        size = sum(picture.size for picture in seen if picture)
        if size and count == len(seen):  # of pictures that were not looked at, nobody knows
            described.append(language.in_all.format(size))
        yield language.pictures.format(count, "; ".join(described))
    kinds = [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    if "input_audio" in kinds:
        yield language.audio
    if "file" in kinds:
        yield language.file


def _described(picture: Picture | None, language: _Language) -> str:
    if picture is None:
        return language.unreadable
    if picture.host:
        return language.elsewhere.format(picture.host)
    pixels = language.pixels.format(*picture.pixels) if picture.pixels else ""
    return language.sent_along.format(picture.kind, pixels, picture.size)
