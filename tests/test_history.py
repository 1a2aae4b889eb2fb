"""A conversation is made ready for a model: what each rule makes of it, and what none of them may do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from firstword.history import (
    SILENT,
    alternating,
    joined,
    known,
    with_known_fields,
    with_note,
    with_one_system,
    with_roles,
    without_empty,
)
from firstword.providers._accepts import MESSAGES

Json = dict[str, Any]
Said = list[tuple[str, Any]]

IMAGE = {"type": "image_url", "image_url": {"url": "https://images.example/one.png"}}
OTHER = {"type": "image_url", "image_url": {"url": "https://images.example/two.png"}}
BLANK = {"type": "text", "text": ""}
WORDS = {"type": "text", "text": "What is this?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


def told(said: Any) -> list[Json]:
    """Messages of (role, content); a call and its result are ("call", content) and ("tool", content)."""
    return [
        {"role": "assistant", "content": content, "tool_calls": [CALL]}
        if role == "call"
        else {"role": role, "content": content, **({"tool_call_id": "c1"} if role == "tool" else {})}
        for role, content in said
    ]


def check(rule: Callable[[list[Json]], list[Json]], before: list[Json], after: list[Json]) -> None:
    """A rule makes `after` of `before`, changes no message, and leaves what is right already as the very same list."""
    given = copy.deepcopy(before)
    made = rule(before)

    assert made == after
    assert before == given
    assert (made is before) == (after == before)
    assert rule(made) is made


# --- joined -----------------------------------------------------------------------------------------

JOINED: dict[str, tuple[Said, Said]] = {
    "the same twice": ([("user", "Book a table"), ("user", "Book a table")], [("user", "Book a table")]),
    "the beginning, then the whole": ([("user", "Book a"), ("user", "Book a table")], [("user", "Book a table")]),
    "step by step": ([("user", "I"), ("user", "I am"), ("user", "I am here")], [("user", "I am here")]),
    "within a conversation": (
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hi!"), ("user", "Hi"), ("user", "Hi")],
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hi!"), ("user", "Hi")],
    ),
    "an apostrophe ends a word": ([("user", "I don"), ("user", "I don't know")], [("user", "I don't know")]),
    "a space at the end": ([("user", "Hello "), ("user", "Hello Bob")], [("user", "Hello Bob")]),
    "Chinese, which has no spaces": ([("user", "帮我订"), ("user", "帮我订一张票")], [("user", "帮我订一张票")]),
    "Japanese": ([("user", "おは"), ("user", "おはよう")], [("user", "おはよう")]),
    "Thai": ([("user", "สวัสดี"), ("user", "สวัสดีครับ")], [("user", "สวัสดีครับ")]),
    "silence twice": ([("user", ""), ("user", "")], [("user", "")]),
    "nothing said twice": ([("user", None), ("user", None)], [("user", None)]),
    "the same picture twice": ([("user", [WORDS, IMAGE]), ("user", [WORDS, IMAGE])], [("user", [WORDS, IMAGE])]),
}
NOT_JOINED: dict[str, Said] = {
    "half a word": [("user", "Book a tab"), ("user", "Book a table")],
    "half a number": [("user", "1"), ("user", "15")],
    "a letter without its accent": [("user", "cafe"), ("user", "cafe\u0301 creme")],
    "the whole, then its beginning": [("user", "Book a table"), ("user", "Book a")],
    "two sentences": [("user", "Hello"), ("user", "Are you there?")],
    "the same with a reply between": [("user", "Hello"), ("assistant", "Hi"), ("user", "Hello")],
    "another picture": [("user", [WORDS, IMAGE]), ("user", [WORDS, OTHER])],
    "a picture, and the same words without it": [("user", [WORDS, IMAGE]), ("user", "What is this?")],
    "the model said it twice": [("assistant", "Hello"), ("assistant", "Hello")],
    "a system message twice": [("system", "Be brief."), ("system", "Be brief.")],
    "silence, then words": [("user", ""), ("user", "Hello")],
    "a blank, then words": [("user", " "), ("user", " Hello")],
}


@pytest.mark.parametrize("name", JOINED)
def test_what_a_caller_said_once_stands_there_once(name: str) -> None:
    """An engine that speculates, or tries again, leaves the same words twice."""
    before, after = JOINED[name]
    check(joined, told(before), told(after))


@pytest.mark.parametrize("name", NOT_JOINED)
def test_whatever_else_stands_in_a_row_stays(name: str) -> None:
    """Two sentences are two sentences, and nobody knows that half a word was one."""
    check(joined, told(NOT_JOINED[name]), told(NOT_JOINED[name]))


def test_two_callers_who_say_the_same_are_two() -> None:
    """A room with several people; their names are beside their words."""
    messages = [{"role": "user", "content": "Hello", "name": name} for name in ("Ann", "Bob")]
    check(joined, messages, messages)


# --- with_note --------------------------------------------------------------------------------------

HEARD = 'The caller interrupted your last reply. The last words that were heard are: "{}"'
UNHEARD = "The caller interrupted your last reply before a word of it was heard."
START: Said = [("system", "Be brief."), ("user", "Tell me a joke")]


@pytest.mark.parametrize(
    ("spoken", "note"),
    [
        ("Why did the", HEARD.format("Why did the")),
        ("  Why\n did the ", HEARD.format("Why did the")),
        ([{"type": "text", "text": "Why did the"}], HEARD.format("Why did the")),
        ("One. " * 50 + "Two.", HEARD.format("One. " * 11 + "Two.")),
        ("x" * 100, HEARD.format("x" * 60)),
        ("从前" * 50, HEARD.format("从前" * 30)),
        ("", UNHEARD),
        (None, UNHEARD),
        ([], UNHEARD),
    ],
    ids=str,
)
def test_a_model_is_told_what_was_heard_last_of_the_reply_that_was_cut_off(spoken: Any, note: str) -> None:
    """The caller spoke into the reply; a few words are enough to know where."""
    before: Said = [*START, ("assistant", spoken)]
    then: Said = [("user", "A story"), ("user", "instead")]
    check(lambda each: with_note(each, 2), told(before + then), told([*before, ("system", note), *then]))


def test_a_note_stands_behind_the_results_of_the_reply_that_was_cut_off() -> None:
    """A call and its result are not torn apart."""
    before: Said = [*START, ("call", "Let me"), ("tool", "12:00")]
    after = told([*before, ("system", HEARD.format("Let me")), ("user", "Stop")])
    check(lambda each: with_note(each, 2), told([*before, ("user", "Stop")]), after)


@pytest.mark.parametrize(
    ("cut", "since"),
    [
        (2, [("assistant", "Are you still there?"), ("user", "A story")]),
        (2, []),
        (2, [("system", "It is noon.")]),
        (1, [("user", "A story")]),
        (None, [("user", "A story")]),
        (-1, [("user", "A story")]),
        (9, [("user", "A story")]),
    ],
    ids=["another reply since", "nobody spoke", "only a hook did", "no reply", "none cut off", "before all", "nowhere"],
)
def test_nothing_is_said_of_a_reply_that_is_not_the_last_one(cut: int | None, since: Said) -> None:
    """It was long ago, or there is none, or there is nothing to answer."""
    messages = told([*START, ("assistant", "Why did the"), *since])
    check(lambda each: with_note(each, cut), messages, messages)


# --- without_empty ----------------------------------------------------------------------------------

EMPTY: dict[str, tuple[Said, Said]] = {
    "a blank turn at the end": ([*START, ("user", "")], [*START, ("user", SILENT)]),
    "of parts": ([*START, ("user", [BLANK])], [*START, ("user", SILENT)]),
    "null": ([*START, ("user", None)], [*START, ("user", SILENT)]),
    "no part": ([*START, ("user", [])], [*START, ("user", SILENT)]),
    "blanks": ([*START, ("user", " \n ")], [*START, ("user", SILENT)]),
    "a hook's note behind it": (
        [*START, ("user", ""), ("system", "It is noon.")],
        [*START, ("user", SILENT), ("system", "It is noon.")],
    ),
    "a blank turn long ago": ([("user", ""), *START], START),
    "a reply that nobody heard": ([*START, ("assistant", ""), ("user", "Hello")], [*START, ("user", "Hello")]),
    "an empty prompt": ([("system", ""), ("user", "Hello")], [("user", "Hello")]),
    "nothing at all": ([("user", "")], [("user", SILENT)]),
    "only a prompt": ([("system", "Greet the caller.")], [("system", "Greet the caller."), ("user", SILENT)]),
    "no word anywhere": ([("system", ""), ("assistant", None)], [("user", SILENT)]),
    "a call beside no word": (
        [("user", "Time?"), ("call", ""), ("tool", "12:00")],
        [("user", "Time?"), ("call", None), ("tool", "12:00")],
    ),
    "a tool's empty result": (
        [("user", "Time?"), ("call", None), ("tool", "")],
        [("user", "Time?"), ("call", None), ("tool", SILENT)],
    ),
    "an empty part beside a picture": ([("user", [BLANK, IMAGE])], [("user", [IMAGE])]),
    "a picture without words": ([("user", [IMAGE])], [("user", [IMAGE])]),
    "nothing empty": ([*START, ("call", None), ("tool", "12:00")], [*START, ("call", None), ("tool", "12:00")]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_server_that_refuses_empty_text_gets_none(name: str) -> None:
    """Blank speech, a reply that was cut off before its first word; what has to stay gets a sign."""
    before, after = EMPTY[name]
    check(without_empty, told(before), told(after))


def test_a_refusal_is_words_and_audio_is_none() -> None:
    """The model said no, in a field of its own; or it spoke, and its voice is named by an id."""
    refused: Json = {"role": "assistant", "content": None, "refusal": "I cannot."}
    spoken: Json = {"role": "assistant", "content": None, "audio": {"id": "a1"}}
    hello: Json = {"role": "user", "content": "Hello"}

    assert without_empty([hello, refused, hello]) == [hello, {**refused, "content": "I cannot."}, hello]
    check(without_empty, [hello, spoken, hello], [hello, spoken, hello])


# --- with_one_system, alternating, with_roles -------------------------------------------------------

ONE_SYSTEM: dict[str, tuple[Said, Said]] = {
    "two in front": ([("system", "A"), ("system", "B"), ("user", "Hi")], [("system", "A\nB"), ("user", "Hi")]),
    "one in the middle": (
        [("system", "A"), ("user", "Hi"), ("assistant", "Hi!"), ("system", "B"), ("user", "Go on")],
        [("system", "A\nB"), ("user", "Hi"), ("assistant", "Hi!"), ("user", "Go on")],
    ),
    "one, but not first": ([("user", "Hi"), ("system", "A")], [("system", "A"), ("user", "Hi")]),
    "text and parts": ([("system", "A"), ("system", [WORDS])], [("system", [{"type": "text", "text": "A"}, WORDS])]),
    "one first": ([("system", "A"), ("user", "Hi")], [("system", "A"), ("user", "Hi")]),
    "none": ([("user", "Hi")], [("user", "Hi")]),
}
HI: Said = [("user", "Hi")]
ALTERNATING: dict[str, tuple[Said, Said]] = {
    "a greeting": (
        [("system", "A"), ("assistant", "Hello!"), ("user", "Hi")],
        [("system", "A"), ("user", SILENT), ("assistant", "Hello!"), ("user", "Hi")],
    ),
    "a greeting without a prompt": (
        [("assistant", "Hello!"), *HI],
        [("user", SILENT), ("assistant", "Hello!"), *HI],
    ),
    "two sentences of the caller": ([("user", "Hi"), ("user", "Bob here")], [("user", "Hi\nBob here")]),
    "words and a picture": (
        [("user", "Look"), ("user", [IMAGE])],
        [("user", [{"type": "text", "text": "Look"}, IMAGE])],
    ),
    "a reply and a reminder": (
        [*HI, ("assistant", "Hi!"), ("assistant", "Still there?"), ("user", "Yes")],
        [*HI, ("assistant", "Hi!\nStill there?"), ("user", "Yes")],
    ),
    "words, then a call": (
        [*HI, ("assistant", "Let me look."), ("call", None), ("tool", "12:00")],
        [*HI, ("call", "Let me look."), ("tool", "12:00")],
    ),
    "a result, and the caller speaks": (
        [*HI, ("call", None), ("tool", "12:00"), ("user", "Stop")],
        [*HI, ("call", None), ("tool", "12:00"), ("assistant", SILENT), ("user", "Stop")],
    ),
    "results, and an answer": (
        [*HI, ("call", None), ("tool", "1"), ("tool", "2"), ("assistant", "So"), ("user", "Ah")],
        [*HI, ("call", None), ("tool", "1"), ("tool", "2"), ("assistant", "So"), ("user", "Ah")],
    ),
    "a call that nobody answered": (
        [*HI, ("call", None), ("assistant", "So"), ("user", "Ah")],
        [*HI, ("call", None), ("user", SILENT), ("assistant", "So"), ("user", "Ah")],
    ),
    "an answer at the end": ([*HI, ("assistant", "Hi!")], [*HI, ("assistant", "Hi!"), ("user", SILENT)]),
    "a prompt alone": ([("system", "A")], [("system", "A"), ("user", SILENT)]),
    "a system message between": (
        [*HI, ("assistant", "Hi!"), ("system", "A"), ("user", "Go on")],
        [("system", "A"), *HI, ("assistant", "Hi!"), ("user", "Go on")],
    ),
    "what is right already": (
        [("system", "A"), *HI, ("assistant", "Hi!"), ("user", "Go on")],
        [("system", "A"), *HI, ("assistant", "Hi!"), ("user", "Go on")],
    ),
}


@pytest.mark.parametrize("name", ONE_SYSTEM)
def test_a_server_that_heeds_one_system_message_gets_one(name: str) -> None:
    """A hook adds what it knows before the last words; the last system message would be the only one."""
    before, after = ONE_SYSTEM[name]
    check(with_one_system, told(before), told(after))


@pytest.mark.parametrize("name", ALTERNATING)
def test_a_server_that_wants_turns_gets_turns(name: str) -> None:
    """Greetings, reminders and interruptions: on the phone nobody waits for their turn."""
    before, after = ALTERNATING[name]
    check(alternating, told(before), told(after))


def test_what_a_model_is_to_go_on_with_stays_the_last() -> None:
    """Mistral's `prefix`: the beginning of the answer."""
    messages: list[Json] = [
        {"role": "user", "content": "A poem"},
        {"role": "assistant", "content": "Once", "prefix": True},
    ]
    check(alternating, messages, messages)


def test_the_words_of_two_are_nobodys() -> None:
    """Two callers, whose words are put together: one's name over both would be wrong."""
    ann: Json = {"role": "user", "content": "Hello", "name": "Ann"}
    bob: Json = {"role": "user", "content": "Hi", "name": "Bob"}

    check(alternating, [ann, bob], [{"role": "user", "content": "Hello\nHi"}])
    check(alternating, [ann, ann], [{"role": "user", "content": "Hello\nHello", "name": "Ann"}])


def test_a_role_has_another_name_elsewhere() -> None:
    """`developer` is `system` for everybody but OpenAI."""
    check(
        lambda each: with_roles(each, {"developer": "system"}),
        told([("developer", "A"), ("user", "Hi")]),
        told([("system", "A"), ("user", "Hi")]),
    )
    check(lambda each: with_roles(each, {"developer": "system"}), told(HI), told(HI))


# --- with_known_fields ------------------------------------------------------------------------------


def test_a_server_gets_the_fields_that_it_knows() -> None:
    """An engine's marks beside a message, a provider's beside a call, a cache's beside a part."""
    call: Json = {**CALL, "extra_content": {"a": 1}, "function": {**CALL["function"], "parsed": {}}}  # type: ignore[dict-item]
    before: list[Json] = [
        {"role": "user", "content": [{**WORDS, "cache_control": {}}, {**IMAGE, "id": 1}], "time": {"begin": 1}},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "clock"},
        {"role": "narrator", "content": "Meanwhile", "mood": "dark"},
    ]
    after: list[Json] = [
        {"role": "user", "content": [WORDS, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "12:00", "tool_call_id": "c1"},
        {"role": "narrator", "content": "Meanwhile", "mood": "dark"},
    ]
    check(lambda each: with_known_fields(each, MESSAGES), before, after)


def test_what_is_no_object_is_nobodys_to_judge() -> None:
    """A part that is a string, a call that is null: the server says what is wrong with them."""
    odd: list[Json] = [
        {"role": "user", "content": ["words", 7]},
        {"role": "assistant", "tool_calls": [None, {"function": "f"}]},
    ]
    check(lambda each: with_known_fields(each, MESSAGES), odd, odd)
    assert known("words", frozenset()) == "words" and known({"a": 1}, None) == {"a": 1}
