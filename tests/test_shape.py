"""The stage `shape`: what a caller hears of a model that writes, and that no word of it is lost or said twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword import Chunk, ConfigError, Send, Turn
from firstword.shaping import Shaper
from firstword.stages.shape import shape
from firstword.turn import Aloud


def delta(fields: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def chunk(*choices: dict[str, Any], **fields: Any) -> Chunk:
    named = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": list(choices)}
    return Chunk.from_frame(b"data: " + msgspec.json.encode({**named, **fields}) + b"\n\n")


async def passed(*chunks: Chunk, how: str = "speech", error: Exception | None = None, **fields: Any) -> list[Chunk]:
    """Return what leaves the stage when these chunks come, and then the end, or `error`."""
    left: list[Chunk] = []

    async def send(chunk: Chunk) -> None:
        left.append(chunk)

    async def answer(turn: Turn, send: Send) -> None:
        for each in chunks:
            await send(each)
        if error is not None:
            raise error

    turn = Turn({"messages": []}, platform="agora", **fields)
    try:
        await shape(how)(turn, send, answer)
    except Exception as raised:
        assert raised is error
    return left


async def test_a_shape_that_does_not_exist_is_told() -> None:
    """A hook misspells it."""
    with pytest.raises(ConfigError, match="shape"):
        await shape("auto")(Turn({"messages": []}, shape="spoken"), _nobody, _nothing)


async def _nobody(chunk: Chunk) -> None: ...


async def _nothing(turn: Turn, send: Send) -> None: ...


async def test_who_is_not_spoken_to_pays_one_look_a_turn() -> None:
    """The stage below gets the very `send`, so nothing stands in the way of a chunk."""
    seen: list[Send] = []

    async def answer(turn: Turn, send: Send) -> None:
        seen.append(send)

    for how, turn in (
        ("auto", Turn({"messages": []}, platform="openai")),
        ("none", Turn({"messages": []}, platform="agora")),
        ("speech", Turn({"messages": [], "response_format": {"type": "json_schema"}}, platform="agora")),
    ):
        await shape(how)(turn, _nobody, answer)
    assert seen == [_nobody] * 3
    await shape("auto")(Turn({"messages": []}, platform="openai", aloud=Aloud()), _nobody, answer)
    assert seen[-1] is not _nobody  # its words leave as sound


# --- chunks ---------------------------------------------------------------------------------------


async def test_what_needs_no_change_leaves_as_it_came() -> None:
    """The same objects, with the bytes of the model's server."""
    chunks = [
        chunk(delta({"role": "assistant", "content": ""})),
        chunk(delta({"content": "Hello"})),
        Chunk.from_frame(chunk(delta({"content": " there"})).frame, " there"),
        chunk(delta({"content": [{"type": "text", "text": " you."}]})),
        chunk(delta({"audio": {"data": "AAAA"}})),
        chunk(delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": "**b**"}'}}]})),
        chunk(delta({"refusal": "No."})),
        chunk(delta({}, "stop")),
        chunk(usage={"total_tokens": 5}),
    ]
    left = await passed(*chunks)
    assert all(mine is theirs for mine, theirs in zip(left, chunks, strict=True))


async def test_a_chunk_of_which_nothing_is_heard_is_not_sent() -> None:
    """Emoji, thoughts, and what waits; who speaks and what it cost is told all the same."""
    left = await passed(
        chunk(delta({"role": "assistant", "content": "😀"})),
        chunk(delta({"content": "🎉"})),
        chunk(delta({"reasoning_content": "Hm."})),
        chunk(delta({"reasoning": "Hm.", "reasoning_details": [{"text": "Hm."}], "content": ""})),
        chunk(delta({"reasoning": "Hm.", "content": "Yes"})),
        chunk(delta({"content": "🎉"}), usage={"total_tokens": 5}),
        chunk(delta({"reasoning_content": None, "content": "."})),
        chunk(delta({"reasoning_content": "Hm."}, "stop")),
    )
    assert [(each.data["choices"][0]["delta"], each.finish_reason, each.look().usage) for each in left] == [
        ({"role": "assistant", "content": ""}, None, None),
        ({"content": "Yes"}, None, None),
        ({"content": ""}, None, {"total_tokens": 5}),
        ({"content": "."}, None, None),
        ({}, "stop", None),
    ]


@pytest.mark.parametrize("how", ["speech", "think"])
async def test_refusals_and_parts_are_shaped_as_words_are(how: str) -> None:
    """A refusal is spoken too; Mistral sends its words, and its thoughts, in parts."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    left = await passed(
        chunk(delta({"refusal": "<think>a</think>No."})),
        chunk(delta({"content": [thinking]})),
        chunk(
            delta(
                {"content": [thinking, {"type": "text", "text": "<think>b</think>"}, {"type": "text", "text": "Yes"}]}
            )
        ),
        how=how,
    )
    assert [each.data["choices"][0]["delta"] for each in left] == [
        {"refusal": "No."},
        {"content": [{"type": "text", "text": "Yes"}]},
    ]


async def test_each_choice_is_a_text_of_its_own() -> None:
    """`n: 2`: a star in one is not closed in the other."""
    left = await passed(
        chunk(delta({"content": "*a"}), delta({"content": "b* "}, index=1)),
        chunk(delta({"content": "* c"}), delta({"content": "*d"}, index=1)),
        chunk(delta({}, "stop"), delta({}, "stop", index=1)),
    )
    texts = {0: "", 1: ""}
    for each in left:
        for choice in each.data["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == {0: "a c", 1: "b* *d"}


@pytest.mark.parametrize("begun", ["[", "*a", "`x", "&am", "<b", "see [a](b"])
async def test_what_was_kept_back_leaves_before_what_comes_then(begun: str) -> None:
    """A call, an ending, an ending with words, the end of a reply that has none, and a failure."""
    rest = Shaper()
    said = rest.feed(begun) + rest.end()
    call = chunk(delta({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]}))
    stop, words = chunk(delta({}, "stop"), usage={"total_tokens": 5}), chunk(delta({"content": begun}))

    def told(chunks: Sequence[Chunk]) -> list[tuple[str, bool, str | None]]:
        seen = [(each.text, each.calls, each.finish_reason) for each in chunks]
        whole = "".join(text for text, *_ in seen)
        return [(whole, False, None), *(each for each in seen if each[1] or each[2])]

    assert told(await passed(words, call)) == [(said, False, None), ("", True, None)]
    left = await passed(words, stop)
    assert told(left) == [(said, False, None), ("", False, "stop")] and left[-1] is stop
    assert all(each.look().usage is None for each in left[:-1])
    assert "".join(each.text for each in await passed(words)) == said
    assert "".join(each.text for each in await passed(words, error=ValueError())) == said
    (last,) = await passed(chunk(delta({"content": begun}, "stop")))
    assert (last.text, last.finish_reason) == (said, "stop")


async def test_words_behind_a_call_are_a_text_of_their_own() -> None:
    """A model that says something after its call: emphasis does not go beyond it."""
    call = chunk(delta({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}))
    left = await passed(chunk(delta({"content": "**a"})), call, chunk(delta({"content": "b** c"})))
    assert [each.text for each in left] == ["a", "", "b** c"]


FRAGMENTS = ["*", "**a", "[b](c)", "<think>", "</think>", "d ", "😀", "\n", "`", "# ", "e", "[", "|x", "http", "&"]


@given(
    st.lists(st.tuples(st.sampled_from(["content", "call", "empty"]), st.sampled_from(FRAGMENTS)), max_size=12),
    st.sampled_from(["stop", None, "error"]),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_nothing_is_lost_and_nothing_said_twice(parts: list[tuple[str, str]], ending: str | None) -> None:
    """Words, calls and nothing, in any order, ended, cut off or failed: it is heard as the machine reads it."""
    chunks, machine, heard = [], Shaper(), ""
    for kind, text in parts:
        if kind == "content":
            chunks.append(chunk(delta({"content": text})))
            heard += machine.feed(text)
        elif kind == "call":
            chunks.append(chunk(delta({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})))
            heard += machine.end() + "☎"
        else:
            chunks.append(chunk(delta({})))
    heard += machine.end()
    if ending == "stop":
        chunks.append(chunk(delta({}, "stop")))
    left = asyncio.run(passed(*chunks, error=ValueError() if ending == "error" else None))
    assert "".join("☎" if each.calls else each.text for each in left) == heard
