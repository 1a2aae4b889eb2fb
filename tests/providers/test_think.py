"""Reasoning in an answer's own text: what stands between `<think>` and `</think>` is no speech.

Rules:
- Each answer is read whole, and cut at random: as much is said and thought, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword import App, Model
from firstword.chunk import Chunk
from firstword.providers.openai import Decoder
from firstword.testing import cuts, fails, says, script, talk
from firstword.wire import DONE, frame

steady = settings(max_examples=60, deadline=None, derandomize=True)


def choice(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    named = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": list(choices)}
    return frame(msgspec.json.encode({**named, **fields}))


def text(words: str) -> bytes:
    return event(choice({"content": words}))


ROLE = event(choice({"role": "assistant", "content": ""}))
STOP = event(choice({}, "stop"))


def read(events: Sequence[bytes], *, thinks: bool = False) -> list[Chunk]:
    decoder = Decoder(turn_id="t", model="m", wants_usage=True, secret=None, thinks=thinks)
    chunks: list[Chunk] = []
    for each in events:
        words = decoder.words(each)
        chunks += decoder.feed(each) if words is None else [words]
    return chunks + decoder.end()


def said(chunks: Sequence[Chunk], index: int = 0) -> tuple[str, str]:
    """Return (reasoning, words) of a choice."""
    deltas = [each["delta"] for chunk in chunks for each in chunk.data["choices"] if each["index"] == index]
    return (
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
    )


def answer(*pieces: str) -> list[bytes]:
    return [ROLE, *map(text, pieces), STOP, DONE]


CASES = [
    ("<think>Hm.</think>Hello.", "Hm.", "Hello."),
    ("<think>\nHm.\n</think>\n\nHello.", "\nHm.\n", "Hello."),
    ("<think>\n\n</think>\n\nHello.", "\n\n", "Hello."),
    ("<think></think>Hello.", "", "Hello."),
    ("<THINK>Hm.</Think>Hello.", "Hm.", "Hello."),
    ("<thinking>Hm.</thinking> Hello.", "Hm.", "Hello."),
    ("<reasoning>Hm.</reasoning>Hello.", "Hm.", "Hello."),
    ("<thought>Hm.</thought>Hello.", "Hm.", "Hello."),
    ("\n\n<think>Hm.</think>\n\nHello.", "Hm.", "\n\nHello."),
    ("<think>Is 3 < 4 or </b>?</think>Yes.", "Is 3 < 4 or </b>?", "Yes."),
    ("<think>Hm, </thi then", "Hm, </thi then", ""),
    ("<think>Hm, </thi", "Hm, </thi", ""),
    ("<think>", "", ""),
    ("<think>Hm.</think>", "Hm.", ""),
    ("<think>Hm.</think>  \n", "Hm.", ""),
    ("<think>One.</think>A <think>two</think>.", "One.", "A <think>two</think>."),
    ("<thin", "", "<thin"),
    ("<", "", "<"),
    ("<3 you", "", "<3 you"),
    ("<thinks>", "", "<thinks>"),
    ("<think >a", "", "<think >a"),
    ("<b>Hello</b>", "", "<b>Hello</b>"),
    ("Hello. <think>Hm.</think>", "", "Hello. <think>Hm.</think>"),
    ("Hello.", "", "Hello."),
    ("  Hello.", "", "  Hello."),
    ("", "", ""),
]


@pytest.mark.parametrize(("answered", "thought", "words"), CASES)
@given(data=st.data())
@steady
def test_reasoning_is_told_from_words(answered: str, thought: str, words: str, data: st.DataObject) -> None:
    """However the tags are cut, and whatever else begins with `<`."""
    places = sorted(data.draw(st.sets(st.integers(0, len(answered)))))
    pieces = [answered[a:b] for a, b in zip([0, *places], [*places, len(answered)], strict=True)]
    assert said(read(answer(*pieces))) == (thought, words)


@given(pieces=st.lists(st.sampled_from(["<", "<think>", "</think>", "<thi", "nk>", "</", "a ", "\n", "b", "think"])))
@steady
def test_nothing_is_lost_but_tags(pieces: list[str]) -> None:
    """Random pieces of tags: cut as they are, whole, or sign by sign, as much is thought and said."""
    whole = "".join(pieces)
    assert said(read(answer(*pieces))) == said(read(answer(whole))) == said(read(answer(*whole)))
    thought, words = said(read(answer(whole)))
    if not whole.lstrip().startswith("<think>"):
        assert (thought, words) == ("", whole)


def test_what_turns_out_to_be_no_tag_is_given_at_once() -> None:
    """As soon as the next sign tells, together with it; nothing else waits."""
    decoder = Decoder(turn_id="t", model="m", wants_usage=False, secret=None)
    given = [[chunk.text for chunk in decoder.feed(each)] for each in [ROLE, *map(text, ["<", "t", "ha", "t"])]]
    assert given == [[""], [], [], ["<tha"], ["t"]]


@pytest.mark.parametrize("words", ["Hello there.", "<3 you", "<b>Hi</b> there", "< 5 euros", "  Hello"])
def test_an_answer_without_reasoning_keeps_its_bytes(words: str) -> None:
    """The same events come out, and those in the middle of it are known at sight as before."""
    events = [ROLE, text(words), *map(text, [" one", " two", " three", " four"]), STOP]
    assert [chunk.frame for chunk in read(events)] == events

    decoder = Decoder(turn_id="t", model="m", wants_usage=False, secret=None)
    for each in events[:3]:
        decoder.feed(each)
    assert decoder.words(events[3]) is not None


def test_a_chunk_thinks_or_speaks_but_a_tag_does_neither() -> None:
    """What the race and the clocks of a turn ask of each chunk."""
    chunks = read(answer("<think>", "Let me", " see", ".</thi", "nk>", "\n\n", "Hello", "."))
    assert [(each.reasons, each.speaks) for each in chunks] == [
        (False, False),
        *[(True, False)] * 3,
        *[(False, True)] * 2,
        (False, False),
    ]
    assert chunks[-2].frame == text(".")


def test_the_end_may_come_with_the_closing_tag() -> None:
    """A server that sends its last words, its ending and its count of tokens in one chunk."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    last = event(choice({"content": "</think>\nYes."}, "stop"), usage=usage)
    chunks = read([event(choice({"role": "assistant", "content": "<think>Hm."})), last])

    assert said(chunks) == ("Hm.", "Yes.")
    assert (chunks[0].data["choices"][0]["delta"]["role"], chunks[-1].finish_reason) == ("assistant", "stop")
    assert chunks[-1].data["usage"] == usage


def test_a_call_after_reasoning_stays_a_call() -> None:
    """A model thinks, then calls a tool, with the closing tag or without."""
    function = {"name": "f", "arguments": "{}"}
    call = event(choice({"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]}))
    for closing in ("</think>", ""):
        chunks = read([ROLE, text(f"<think>Hm.{closing}"), call, event(choice({}, "tool_calls"))])
        assert said(chunks) == ("Hm.", "")
        assert [each.calls for each in chunks] == [False, False, True, False] and chunks[2].frame == call


def test_each_of_several_choices_thinks_for_itself() -> None:
    """`n: 2`, in events of one choice and of both; the second begins later."""
    events = [
        event(choice({"content": "<think>one"}), choice({"content": "No"}, index=1)),
        event(choice({"content": "</think>Yes"}), choice({"content": " tag"}, index=1)),
        event(choice({"content": "<think>three</think>Well"}, index=2)),
        *(event(choice({}, "stop", index)) for index in range(3)),
    ]
    chunks = read(events)
    assert [said(chunks, index) for index in range(3)] == [("one", "Yes"), ("", "No tag"), ("three", "Well")]


def test_what_was_kept_back_is_given_when_the_answer_is_cut_off() -> None:
    """The connection ends behind `<thi`: no tag, and so words; behind `</thi`, reasoning."""
    assert said(read([ROLE, text("<thi")])) == ("", "<thi")
    assert said(read([ROLE, text("<think>Hm</thi")])) == ("Hm", "")


def test_text_that_is_sent_in_parts_is_left_alone() -> None:
    """Mistral's servers have a part of their own for reasoning."""
    parts = event(choice({"content": [{"type": "text", "text": "<think>Hm.</think>"}]}))
    assert [each.frame for each in read([ROLE, parts, STOP])] == [ROLE, parts, STOP]


# --- without an opening tag -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (["Hm.", "</thi", "nk>\n\n", "Yes", "."], ("Hm.", "Yes.")),
        (["<think>Hm.</think>Yes."], ("<think>Hm.", "Yes.")),
        (["</think>Yes."], ("", "Yes.")),
    ],
)
def test_an_answer_may_begin_inside(pieces: list[str], told: tuple[str, str]) -> None:
    """`Model(..., thinks=True)`: the template has written the opening tag."""
    assert said(read(answer(*pieces), thinks=True)) == told


def test_an_answer_that_never_thought_is_said_after_all() -> None:
    """The model stopped by itself without a closing tag: what came is all that it has to say."""
    thought, words = said(read(answer("Hello", " there", " </th"), thinks=True))
    assert (thought, words) == ("Hello there </th", "Hello there </th")


def test_an_answer_that_says_it_is_reasoning_is_none() -> None:
    """The template wrote no opening tag, the model did, and stopped before a closing one: nobody hears its thoughts."""
    assert said(read(answer("\n<thi", "nk>Let me", " see"), thinks=True)) == ("\n<think>Let me see", "")


@pytest.mark.parametrize("ending", ["length", "tool_calls", "content_filter"])
def test_reasoning_that_was_cut_off_is_not_said(ending: str) -> None:
    """The tokens are used up within it, or it ends in a call."""
    events = [ROLE, text("Let me see"), event(choice({}, ending))]
    assert said(read(events, thinks=True)) == ("Let me see", "")


def test_long_reasoning_without_an_end_is_not_said() -> None:
    """An answer of many pages that nobody has closed is no answer."""
    pieces = ["Let me see. " * 50] * 10
    assert said(read(answer(*pieces), thinks=True)) == ("".join(pieces), "")


def test_a_server_that_tells_reasoning_itself_is_believed() -> None:
    """A reasoning parser was switched on: no closing tag will come, and the words are words, at once."""
    events = [ROLE, event(choice({"reasoning_content": "Hm."})), text("Yes"), text(".")]
    decoder = Decoder(turn_id="t", model="m", wants_usage=False, secret=None, thinks=True)
    chunks = [chunk for each in events for chunk in decoder.feed(each)]
    assert said(chunks) == ("Hm.", "Yes.") and [each.frame for each in chunks] == events


# --- what a caller hears --------------------------------------------------------------------------


async def test_reasoning_does_not_win_a_race() -> None:
    """The first model thinks aloud from the start and the second speaks: the second has the turn."""
    thinker = script.events(
        script.role(), script.words("<think>Let me see.", 0.1), script.wait(9.0), script.text("</think>Late."),
        script.finish(), script.done(),
    )  # fmt: skip
    score = await talk(models=[thinker, says("Hello.")], hedge_after=1.0)

    assert (score, score.turn.answered_by) == ([(1.0, "Hello.")], "second")


async def test_a_filler_is_said_while_a_model_thinks_aloud() -> None:
    """Its thoughts are no words, so the silence goes on."""
    thinker = script.events(
        script.role(), script.text("<think>Hm."), script.wait(2.0), script.text("</think>\n\nYes."), script.finish(),
        script.done(),
    )  # fmt: skip
    assert await talk(models=thinker, fill_after=0.8) == [(0.8, "One moment. "), (2.0, "Yes.")]


async def test_a_model_that_shows_its_thoughts_has_longer() -> None:
    """`reasoning_timeout` counts for thoughts in tags as for others."""
    thinker = script.events(
        script.role(), script.text("<think>Hm."), script.wait(6.0), script.text("</think>Yes."), script.finish(),
        script.done(),
    )  # fmt: skip
    assert (await talk(models=thinker, apology="Sorry.")).text == "Sorry."
    assert await talk(models=thinker, reasoning_timeout=8.0, apology="Sorry.") == [(6.0, "Yes.")]


async def test_a_model_that_only_thinks_has_said_nothing() -> None:
    """The answer ends within its reasoning: the caller hears the apology, or the next model."""
    only = script.events(script.says("<think>Let me see."))
    assert (await talk(models=only, apology="Sorry.")).text == "Sorry."
    assert (await talk(models=[only, says("Hello.")])).text == "Hello."


async def test_a_model_is_known_to_think() -> None:
    """The App says so of one model; another one's answers are what they are."""
    app = App(
        [
            Model("r1", base_url="http://a.test/v1", api_key="k", thinks=True),
            Model("b", base_url="http://b.test/v1", api_key="k"),
        ]
    )
    thinker = script.events(script.says("Let me see.</think>\n\nYes."))
    assert (await talk(app, models=[thinker, says("No.")])).text == "Yes."
    assert (await talk(app, models=[fails(500), says("a</think>b")])).text == "a</think>b"


async def test_a_reply_in_one_piece_has_its_reasoning_apart() -> None:
    """`stream: false`."""
    score = await talk(models=says("<think>Hm. Well.</think>\n\nYes, I do."), stream=False)
    assert score.text == "Yes, I do."


async def test_an_answer_that_is_cut_off_in_its_reasoning_says_nothing() -> None:
    """The connection is lost: nothing was heard, and so the next model is asked."""
    assert (await talk(models=[cuts("<think>Let me"), says("Hello.")])).text == "Hello."
