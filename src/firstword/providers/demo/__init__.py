"""The demo model: answers in the process, needs no key and no network.

It speaks at a speaking pace, answers what was said, calls a tool that the words name, fills a JSON schema,
describes pictures, and says that it is the demo. Rules: the same request always gets the same answer; nothing in a
request raises. It counts tokens in its own way, not as a GPT does: a token is a Chinese character, a run of up to four
letters or digits, or any other sign, each with the space before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from ...message import words as text_of
from .instance import instance
from .schema import STEPS
from .words import CHINESE, HAN, LONGEST_NAME, QUOTED, answer, last_said, last_words, name_words, numbers

PACE = 3.0  # words a second, as a person speaks
SLOWEST = 60.0  # seconds for a word, whatever pace is asked for
JSON_HASTE = 10  # times as fast: JSON is not listened to
MOST_CHOICES = 8
MOST_TOOLS = 64  # that are looked at
MOST_CALLS = 8
LONGEST_PIECE = 8  # tokens in a chunk without a space
COUNTED = 20_000  # characters of a request or an answer that are read for tokens; after that a token is four of them

_TOKEN = re.compile(rf"\s*(?:[{HAN}]|[^\W_{HAN}]{{1,4}}|\S)|\s+")
_SMALL_WORDS = "in|for|of|at|about|from|on|to|into|with|named|called"
# "weather in New York, please" holds "New York"; a phrase goes on to the next small word or comma.
_PHRASE = re.compile(
    rf"\b({_SMALL_WORDS})\s+(.{{1,80}}?)"
    rf"(?=\s+(?:{_SMALL_WORDS}|and|or|please|today|tomorrow|now|right)\b|[,;:!?]|\.(?:\s|$)|$)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"]{1,200})"|“([^”]{1,200})”|「([^」]{1,200})」|《([^》]{1,200})》')
_NOTHING_SAID = frozenset(("me", "you", "us", "it", "them", "that", "this", "here"))


class _Call(NamedTuple):
    """A tool to be called, with whole JSON arguments."""

    name: str
    arguments: str


class Demo:
    """The demo model: answers in the process, needs no key and no network."""

    name = "demo"

    def answer(self, request: Mapping[str, Any], *, id: str, created: int) -> Iterator[tuple[float, dict[str, Any]]]:
        """Yield (seconds to wait before it, one chat.completion.chunk as a dict)."""
        model = request.get("model")
        head = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model if isinstance(model, str) and model else self.name,
        }
        choices = range(min(_count(request.get("n")) or 1, MOST_CHOICES))
        spoken = 0
        for wait, tokens, delta, finish in _deltas(request, id):
            for index in choices:
                spoken += tokens
                choice = {"index": index, "delta": dict(delta), "finish_reason": finish}
                yield (0.0 if index else wait), {**head, "choices": [choice]}
        if _mapping(request.get("stream_options")).get("include_usage") is True:
            asked = prompt_tokens(request)
            usage = {"prompt_tokens": asked, "completion_tokens": spoken, "total_tokens": asked + spoken}
            yield 0.0, {**head, "choices": [], "usage": usage}


provider = Demo()


def count_tokens(text: str) -> int:
    """Return the number of tokens in a text, by this module's own rule."""
    return _tokens([text])


def _tokens(texts: Iterable[str]) -> int:
    """Return the number of tokens in some texts, of which the first `COUNTED` characters are read."""
    counted, unread, left = 0, 0, COUNTED
    for text in texts:
        if left:
            counted += sum(1 for _ in _TOKEN.finditer(text, 0, left))
        unread += max(0, len(text) - left)
        left -= min(left, len(text))
    return counted + math.ceil(unread / 4)


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Return the tokens of all that was said before, and of the tools and format asked for; pictures count nothing."""
    texts = [text_of(message.get("content")) for message in request["messages"]]
    forms = [request.get("tools"), request.get("response_format")]
    forms += [message.get("tool_calls") for message in request["messages"]]
    return _tokens([*texts, *(_json(form) for form in forms if form)])


def _deltas(request: Mapping[str, Any], id: str) -> Iterator[tuple[float, int, dict[str, Any], str | None]]:
    """Yield (wait, tokens, delta, finish_reason) of one choice."""
    yield 0.0, 0, {"role": "assistant", "content": ""}, None
    calls = _calls(request)
    for index, call in enumerate(calls):
        function = {"name": call.name, "arguments": call.arguments}
        entry = {"index": index, "id": f"call_{id[-24:]}{index}", "type": "function", "function": function}
        yield 0.0, count_tokens(call.name) + count_tokens(call.arguments), {"tool_calls": [entry]}, None
    if calls:
        yield 0.0, 0, {}, "tool_calls"
        return
    filled = _filled(request)
    tokens, finish = _cut(request, answer(request["messages"]) if filled is None else filled)
    gap = _gap(request) / (JSON_HASTE if filled is not None else 1)
    wait = 0.0
    for piece in _pieces(tokens):
        yield wait, len(piece), {"content": "".join(piece)}, None
        wait = gap
    yield 0.0, 0, {}, finish


def _gap(request: Mapping[str, Any]) -> float:
    """Return the seconds between two words; the extra field `pace` is words a second, 0 waits for nothing."""
    pace = request.get("pace")
    if isinstance(pace, bool) or not isinstance(pace, (int, float)) or not 0 <= pace < math.inf:
        pace = PACE
    return min(1 / pace, SLOWEST) if pace else 0.0


def _cut(request: Mapping[str, Any], text: str) -> tuple[list[str], str]:
    """Return the tokens of a text up to what `stop` and `max_tokens` allow, and the finish_reason."""
    stop = request.get("stop")
    for ending in stop if isinstance(stop, list) else [stop]:
        if isinstance(ending, str) and ending:
            text = text.partition(ending)[0]
    tokens = _TOKEN.findall(text)
    most = _count(request.get("max_completion_tokens")) or _count(request.get("max_tokens")) or len(tokens)
    return tokens[:most], "stop" if most >= len(tokens) else "length"


def _pieces(tokens: list[str]) -> Iterator[list[str]]:
    """Yield the tokens of each chunk: a word with the space before it, or two Chinese characters."""
    piece: list[str] = []
    for token in tokens:
        paired = CHINESE.search(token) and sum(map(bool, map(CHINESE.search, piece))) == 2
        if piece and (token[0].isspace() or paired or len(piece) == LONGEST_PIECE):
            yield piece
            piece = []
        piece.append(token)
    if piece:
        yield piece


def _filled(request: Mapping[str, Any]) -> str | None:
    """Return the JSON that `response_format` asks for, None when it asks for plain words."""
    wanted = _mapping(request.get("response_format"))
    if wanted.get("type") not in ("json_object", "json_schema"):
        return None
    messages = request["messages"]
    schema = _mapping(wanted.get("json_schema")).get("schema") if wanted["type"] == "json_schema" else None
    if not isinstance(schema, Mapping):
        return _json({"answer": answer(messages, line=False), "model": Demo.name})
    heard = last_words(messages)
    return _json(instance(schema, words=_few(heard), said=numbers(heard)))


def _calls(request: Mapping[str, Any]) -> list[_Call]:
    """Return the calls to make: only in answer to the user, so that a tool's result is told, not asked for again."""
    choice = request.get("tool_choice")
    tools = {tool["name"][:LONGEST_NAME]: tool.get("parameters") for tool in _offered(request)}
    if not tools or choice == "none" or last_said(request["messages"]).get("role") != "user":
        return []
    heard = last_words(request["messages"])
    if isinstance(choice, Mapping):
        wanted = _mapping(choice.get("function")).get("name")
        names = [name for name in tools if isinstance(wanted, str) and name == wanted[:LONGEST_NAME]]
    else:
        names = _named(list(tools), heard, must=choice == "required")
    if request.get("parallel_tool_calls") is False:
        names = names[:1]
    names = names[:MOST_CALLS]
    said = [*numbers(heard), *_phrases(heard)]
    steps = STEPS // max(1, len(names))
    return [_Call(name, _arguments(tools[name], heard, said=said, steps=steps)) for name in names]


def _offered(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    tools = request.get("tools")
    for tool in tools[:MOST_TOOLS] if isinstance(tools, list) else ():
        function = _mapping(_mapping(tool).get("function"))
        if isinstance(function.get("name"), str) and function["name"]:
            yield function


def _named(names: list[str], heard: str, *, must: bool) -> list[str]:
    """Return the names whose words were all heard; when one `must` be called, at least the nearest."""
    whole = {word.lower() for word in re.findall(r"[A-Za-z0-9_.-]+", heard)}
    words = {*name_words(heard), *re.findall(r"[a-z0-9]+", heard.lower())}
    called = [name for name in names if name.lower() in whole or words.issuperset(name_words(name) or [name])]
    if called or not must:
        return called
    return [max(names, key=lambda name: len(words.intersection(name_words(name))))]


def _arguments(parameters: Any, heard: str, *, said: list[Any], steps: int) -> str:
    asked = parameters if isinstance(parameters, Mapping) else {}
    made = instance(asked, words=_few(heard), said=said, steps=steps)
    return _json(made if isinstance(made, dict) else {})


def _phrases(heard: str) -> list[str]:
    """Return what the words seem to be about: names first, then what follows a small word, then what is quoted."""
    found = [(small.lower(), phrase.strip("\"'“”「」 ")) for small, phrase in _PHRASE.findall(heard)]
    found = [(small, phrase) for small, phrase in found if phrase and phrase.lower() not in _NOTHING_SAID]
    # "I want to know the weather in Paris": what follows "to" is a place less often than not, unless it has a capital.
    found.sort(key=lambda each: 0 if each[1][0].isupper() else 1 if each[0] != "to" else 2)
    phrases = [phrase for _, phrase in found if not phrase.replace(".", "").isdigit()]
    return phrases + ["".join(groups) for groups in _QUOTED.findall(heard)]


def _few(heard: str) -> str:
    return " ".join(heard.split(maxsplit=QUOTED)[:QUOTED])[: QUOTED * 10]


def _count(value: Any) -> int | None:
    """Return a positive whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _json(value: Any) -> str:
    """Return compact JSON; an empty object for what JSON cannot hold."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return "{}"
