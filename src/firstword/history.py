"""The conversation made ready for a model: each rule is one function from messages to messages.

Pure. A rule returns the very list that it was given when there is nothing to do, and never changes a message in place:
hooks, jobs and other models of a race hold the same ones. Which rules are for whom, and in what order: docs/history.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .message import words

Json = dict[str, Any]

SILENT = "..."  # what stands where somebody said nothing, for a server that refuses a place without words
SYSTEM = ("system", "developer")
HEARD = 60  # letters of a reply that was cut off which the model is told as the last ones that were heard

# Scripts that put no space between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


# --- the engine's side ------------------------------------------------------------------------------


def joined(messages: list[Json]) -> list[Json]:
    """Return a conversation in which nobody says the same twice in a row.

    Engines that speculate or try again leave the caller's words two times, or the beginning of a sentence before the
    whole of it. Of two user messages in a row the first one goes when it is equal to the other, or is text that the
    other begins with, up to the end of a word. Whatever else stands in a row stays.
    """
    kept: list[Json] = []
    before = None
    for each in messages:
        role = each.get("role")
        if role == before == "user" and _is_begun_by(each, kept[-1]):
            kept[-1] = each
        else:
            kept.append(each)
        before = role
    return kept if len(kept) < len(messages) else messages


def _is_begun_by(whole: Json, part: Json) -> bool:
    if _but_content(whole) != _but_content(part):  # another speaker's name
        return False
    said, begun = whole.get("content"), part.get("content")
    if said == begun:
        return True
    if not isinstance(said, str) or not isinstance(begun, str) or not begun.strip() or not said.startswith(begun):
        return False
    last, following = begun[-1], said[len(begun)]
    if unicodedata.category(following).startswith("M"):  # an accent of the last letter
        return False
    if not last.isalnum() or not following.isalnum():
        return True
    return bool(_UNSPACED.match(last) or _UNSPACED.match(following))


def with_note(messages: list[Json], cut: int | None) -> list[Json]:
    """Return a conversation in which a system message tells the model that its last reply was cut off.

    cut: where that reply stands, None if there is none. Nothing is said when another reply came since, or nobody spoke.

    The note stands right behind the reply, which is before the caller's new words: what comes before stays the same
    from turn to turn, and so does a provider's cache of it. Servers that take no system message there get it in front,
    by `with_one_system`.
    """
    if cut is None or not 0 <= cut < len(messages) or messages[cut].get("role") != "assistant":
        return messages
    behind = cut + 1
    while behind < len(messages) and messages[behind].get("role") == "tool":
        behind += 1
    since = messages[behind:]
    note = {"role": "system", "content": _note(messages[cut])}
    if not since or since[0] == note or any(each.get("role") == "assistant" for each in since):
        return messages
    if all(each.get("role") in SYSTEM for each in since):
        return messages
    return [*messages[:behind], note, *since]


def _note(message: Json) -> str:
    heard = " ".join(words(message.get("content")).split())
    if not heard:
        return "The caller interrupted your last reply before a word of it was heard."
    last = heard[-HEARD:]
    if last != heard and heard[-HEARD - 1] != " ":
        last = last.partition(" ")[2] or last  # not half a word, unless it is endless
    return f'The caller interrupted your last reply. The last words that were heard are: "{last}"'


# --- the provider's side ----------------------------------------------------------------------------


def with_roles(messages: list[Json], roles: Mapping[str, str]) -> list[Json]:
    """Return a conversation with other names for some roles: `{"developer": "system"}`."""
    if not any(each.get("role") in roles for each in messages):
        return messages
    return [{**each, "role": roles[each["role"]]} if each.get("role") in roles else each for each in messages]


def without_empty(messages: list[Json]) -> list[Json]:
    """Return a conversation in which every message says something, for servers that refuse empty text.

    A message without a word goes, and so does an empty part beside an image. What has to stay gets `SILENT` for its
    words: the caller's turn at the end, or a tool's result; a message that calls tools says null.
    """
    kept = list(_said(messages))
    if not any(each.get("role") not in SYSTEM for each in kept):
        kept.append({"role": "user", "content": SILENT})
    same = len(kept) == len(messages) and all(mine is theirs for mine, theirs in zip(kept, messages, strict=True))
    return messages if same else kept


def _said(messages: Sequence[Json]) -> Iterator[Json]:
    last = max((at for at, each in enumerate(messages) if each.get("role") not in SYSTEM), default=-1)
    for position, each in enumerate(messages):
        content, role = each.get("content"), each.get("role")
        said = _without_blank_parts(content)
        if said is None and role == "assistant":
            said = each.get("refusal") or None  # words too
        if said is not None:
            yield each if said is content else {**each, "content": said}
        elif each.get("tool_calls") or each.get("function_call") or each.get("audio"):
            yield each if content is None else {**each, "content": None}
        elif role in ("tool", "function") or (role == "user" and position == last):
            yield {**each, "content": SILENT}


def _without_blank_parts(content: Any) -> Any:
    """Return `content` without empty text; None when nothing is left."""
    if isinstance(content, str):
        return content if content.strip() else None
    if not isinstance(content, list):
        return content
    kept = [part for part in content if not _is_blank(part)]
    return (content if len(kept) == len(content) else kept) or None


def _is_blank(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and not str(part.get("text") or "").strip()


def with_one_system(messages: list[Json]) -> list[Json]:
    """Return a conversation with one system message, the first, for servers that take or heed no other.

    What stands further back moves there, in its order: as words of the caller it would no longer be an instruction.
    """
    system = [each for each in messages if each.get("role") in SYSTEM]
    if not system or (len(system) == 1 and messages[0] is system[0]):
        return messages
    whole = system[0]
    for each in system[1:]:
        whole = _one(whole, each)
    return [whole, *(each for each in messages if each.get("role") not in SYSTEM)]


def alternating(messages: list[Json]) -> list[Json]:
    """Return a conversation in which caller and model take turns, the caller first and last, behind one system message.

    What one of them said in a row is put together. Where one of them is missed, a message says `SILENT`: the caller
    before a greeting, or at the end; the model between a tool's result and the caller. Calls keep their results. A last
    message that the model is to go on with (`prefix`) stays the last.
    """
    ordered = with_one_system(messages)
    kept: list[Json] = []
    for each in ordered:
        role = each.get("role")
        before = kept[-1].get("role") if kept else "system"
        if role == before and role in ("user", "assistant") and not kept[-1].get("tool_calls"):
            kept[-1] = _one(kept[-1], each)
            continue
        if role == "assistant" and before in SYSTEM:
            kept.append({"role": "user", "content": SILENT})
        elif role == "user" and before in ("tool", "function"):
            kept.append({"role": "assistant", "content": SILENT})
        elif role == "assistant" and before == "assistant":  # calls that nobody answered
            kept.append({"role": "user", "content": SILENT})
        kept.append(each)
    if not kept or (kept[-1].get("role") in ("assistant", *SYSTEM) and kept[-1].get("prefix") is not True):
        kept.append({"role": "user", "content": SILENT})
    same = len(kept) == len(messages) and all(mine is theirs for mine, theirs in zip(kept, messages, strict=True))
    return messages if same else kept


def _one(first: Json, second: Json) -> Json:
    """Return two messages as one. A name that only one of them has is nobody's any more."""
    both = {**first, **second, "content": _together(first.get("content"), second.get("content"))}
    if first.get("name") != second.get("name"):
        both.pop("name", None)
    return {**both, "role": first["role"]}


def _together(first: Any, second: Any) -> Any:
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def with_known_fields(messages: list[Json], fields: Mapping[str, frozenset[str]]) -> list[Json]:
    """Return a conversation without the fields that a server does not know.

    fields: what a message of each role may have, and what is within it: "call" (one of `tool_calls`), "function call"
    (what stands in that), and parts by their type ("text", "image_url"). What has no entry there stays as it is.
    """
    kept = [_known_message(each, fields) for each in messages]
    return kept if any(mine is not theirs for mine, theirs in zip(kept, messages, strict=True)) else messages


def _known_message(message: Json, fields: Mapping[str, frozenset[str]]) -> Json:
    kept: Json = known(message, fields.get(str(message.get("role"))))
    calls, content = kept.get("tool_calls"), kept.get("content")
    if isinstance(calls, list):
        kept = _with(kept, "tool_calls", [_known_call(each, fields) for each in calls])
    if isinstance(content, list):
        kept = _with(kept, "content", [known(part, fields.get(_type(part))) for part in content])
    return kept


def _known_call(call: Any, fields: Mapping[str, frozenset[str]]) -> Any:
    kept = known(call, fields.get("call"))
    function = kept.get("function") if isinstance(kept, dict) else None
    return _with(kept, "function", known(function, fields.get("function call"))) if isinstance(function, dict) else kept


def _type(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, dict) else ""


def _with(thing: Json, name: str, value: Any) -> Json:
    """Return a thing with another value, the same one when nothing within the value is another."""
    old = thing[name]
    if isinstance(value, list) and all(mine is theirs for mine, theirs in zip(value, old, strict=True)):
        return thing
    return thing if value is old else {**thing, name: value}


def known(thing: Any, fields: frozenset[str] | None) -> Any:
    """Return an object without the fields that are not among `fields`; the same one when it has no other."""
    if fields is None or not isinstance(thing, dict) or thing.keys() <= fields:
        return thing
    return {name: value for name, value in thing.items() if name in fields}


def _but_content(message: Json) -> Json:
    return {name: value for name, value in message.items() if name != "content"}
