"""The demo model: what it says and when, and that no request upsets it."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import msgspec
import pytest
from demo_talk import LINE, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from firstword.providers import Embedded
from firstword.providers.demo import count_tokens, provider

CHINESE_LINE = "我是 firstword 的演示模型；换一个模型名，就能听到真正的模型。"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 640, 480, 8, 2, 0, 0, 0) + b"\0\0\0\0"


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# --- the stream -----------------------------------------------------------------------------------


def test_the_stream_has_the_strict_form() -> None:
    """A plain question: role first, words after it, then one empty delta with the reason."""
    heard = ask("hello", model="demo")

    assert heard.chunks[0] == {
        "id": "chatcmpl-1234",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "demo",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
    }
    assert all(chunk.keys() == heard.chunks[0].keys() for chunk in heard.chunks)
    assert all(list(delta) == ["content"] and delta["content"] for delta in heard.deltas()[1:-1])
    assert heard.choices()[-1] == {"index": 0, "delta": {}, "finish_reason": "stop"}


def test_the_model_of_the_reply_is_the_one_asked_for() -> None:
    """One request names a model, one names none, one is odd."""
    assert [ask("hi", **named).chunks[0]["model"] for named in ({"model": "m1"}, {}, {"model": 3})] == [
        "m1",
        "demo",
        "demo",
    ]


def test_words_come_at_a_speaking_pace_and_the_first_at_once() -> None:
    """Nobody says anything about the pace; then someone does."""
    heard = ask("tell me a joke")

    assert heard.waits[:2] == [0, 0]
    assert set(heard.waits[2:-1]) == {1 / 3}
    assert all(len(delta["content"].split()) == 1 for delta in heard.deltas()[1:-1])
    assert max(ask("hi", pace=50).waits) == 1 / 50
    assert sum(ask("hi", pace=0).waits) == 0


@pytest.mark.parametrize("pace", [-1, "fast", None, True, math.inf, math.nan, [3]])
def test_a_pace_that_makes_no_sense_is_ignored(pace: Any) -> None:
    """The extra field holds something that is no number of words a second."""
    assert max(ask("hi", pace=pace).waits) == 1 / 3


def test_the_next_word_is_not_thought_of_before_it_is_wanted() -> None:
    """A caller hangs up after the first chunk of a request that is broken further on."""
    played = provider.answer({"messages": [None]}, id="x", created=1)

    assert next(played)[1]["choices"][0]["delta"]["role"] == "assistant"


def test_usage_is_counted_only_when_asked_and_as_emitted() -> None:
    """The same question with and without `include_usage`."""
    heard = ask("one 你好", stream_options={"include_usage": True})
    usage = heard.chunks[-1]["usage"]

    assert heard.chunks[-1]["choices"] == []
    assert usage["prompt_tokens"] == 3  # "one", two characters
    assert usage["completion_tokens"] == count_tokens(heard.text())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert all("usage" not in chunk for chunk in ask("one 你好").chunks)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("hello", 2), ("hello world", 4), ("你好，世界", 5), (" \n", 1), ("a" * 400_000, 100_000)],
)
def test_tokens_are_counted_by_one_rule(text: str, tokens: int) -> None:
    """Four letters, one sign, one Chinese character: each is a token with the space before it."""
    assert count_tokens(text) == tokens


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_the_tokens_allowed(field: str) -> None:
    """Five tokens are allowed; then more than the answer has; then nonsense."""
    heard = ask("hello there", stream_options={"include_usage": True}, **{field: 5})

    assert ask("hello there").text().startswith(heard.text())
    assert (heard.finish, heard.chunks[-1]["usage"]["completion_tokens"]) == ("length", 5)
    assert ask("hello", **{field: 10_000}).finish == "stop"
    assert ask("hello", **{field: -1}).text().endswith(LINE)


def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    """Once as a string, once as a list in which a later one comes first in the answer."""
    assert ask("tell me a joke", stop=" Because").text() == "Why did the developer go broke?"
    heard = ask("tell me a joke", stop=["Because", "broke"])
    assert (heard.text(), heard.finish) == ("Why did the developer go ", "stop")


def test_each_of_n_choices_gets_the_answer_and_an_end() -> None:
    """Three choices; then more than are given."""
    heard = ask("hello", n=3, stream_options={"include_usage": True})

    assert len({heard.text(index) for index in range(3)}) == 1
    assert [sum(c["finish_reason"] == "stop" for c in heard.choices(index)) for index in range(4)] == [1, 1, 1, 0]
    assert heard.chunks[-1]["usage"]["completion_tokens"] == 3 * count_tokens(heard.text())
    assert ask("hello", n=100).choices(7) and not ask("hello", n=100).choices(8)


# --- the words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Hello!", "Hello! I heard you say: Hello!"),
        ("Hello, how are you?", "Hello! I am well, thank you for asking."),
        ("the rain in Spain", "I heard you say: the rain in Spain."),
        ("what is 2 plus 3", "2 plus 3 is 5."),
        ("What's two times three?", "2 times 3 is 6."),
        ("10 divided by 4", "10 divided by 4 is 2.5."),
        ("0.1 + 0.2", "0.1 plus 0.2 is 0.3."),
        ("7 - 9 please", "7 minus 9 is -2."),
        ("what is 6*7", "6 times 7 is 42."),
        ("twenty one plus two", "I heard you say: twenty one plus two."),
        ("5 divided by zero", "Nothing can be divided by zero."),
        ("call 555-1234 on 2024-05-06", "I heard you say: call 555-1234 on 2024-05-06."),
        ("Can you count to five?", "1, 2, 3, 4, 5."),
        ("what is your name", "My name is Demo."),
        ("Thanks!", "You are welcome."),
        ("good bye", "Goodbye, it was nice to talk to you."),
        ("# *Big* [news] 🎉", "I heard you say: Big news."),
        ("नमस्ते दोस्त", "I heard you say: नमस्ते दोस्त."),
        ("", "I did not hear any words. Please say something."),
        ("  👍 ", "I did not hear any words. Please say something."),
        (None, "I did not hear any words. Please say something."),
        ([{"type": "text", "text": "one"}, 5, {"text": "two"}], "I heard you say: one two."),
    ],
)
def test_the_answer_is_about_what_was_said(said: Any, answer: str) -> None:
    """One user message; the answer ends by saying that this is the demo."""
    assert ask(said).text() == f"{answer} {LINE}"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("你好", "您好！我听到您说：你好。"),
        ("二加十二等于几", "2加12等于14。"),
        ("请数到三", "1, 2, 3。"),
        ("谢谢", "不客气。"),
        ("play 周杰伦", "我听到您说：play 周杰伦。"),
    ],
)
def test_chinese_is_answered_in_chinese_a_few_characters_at_a_time(said: str, answer: str) -> None:
    """Any Chinese character among the words makes it Chinese."""
    heard = ask(said)

    assert heard.text() == answer + CHINESE_LINE
    assert all(len(delta["content"]) <= 3 for delta in ask("讲个故事").deltas()[1:-1] if delta["content"][0] > "\u4e00")


def test_a_long_speech_is_quoted_in_short() -> None:
    """Thirty words, then a word without an end, then a text of megabytes."""
    assert "one " * 20 not in ask("word " * 30).text()
    assert ask("word " * 30).text().startswith("I heard you say: " + "word " * 19 + "word, and so on.")
    assert len(ask("x" * 3_000_000).text()) < 300
    assert len(ask("天" * 3_000_000).text()) < 120


def test_counting_stops_at_twenty() -> None:
    """Someone asks for a thousand."""
    assert ask("count to 1000").text().startswith("I count to twenty and no further: 1, 2, ")
    assert " 20. " in ask("count to 1000").text()


def test_a_directive_is_spoken_as_it_is() -> None:
    """The last message is the assistant's own: the engine wants that text synthesised."""
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Welcome back, Ann."}]

    assert ask(messages).text() == f"Welcome back, Ann. {LINE}"


def test_a_system_prompt_is_not_answered() -> None:
    """It comes last in one conversation and stands alone in another."""
    prompt = {"role": "system", "content": "Tell a joke."}

    assert ask([{"role": "user", "content": "thanks"}, prompt]).text() == f"You are welcome. {LINE}"
    assert ask([prompt]).text().startswith("I did not hear any words.")


# --- pictures -------------------------------------------------------------------------------------


def test_a_picture_is_described_by_type_and_size() -> None:
    """A PNG of 640 by 480 in a data URL, and a question about it."""
    heard = ask([{"type": "text", "text": "what is this"}, image(data_url(PNG, "image/png"))])

    assert (
        heard.text()
        == f"I got one picture: image/png, 640 by 480 pixels, 33 bytes. I heard you say: what is this. {LINE}"
    )
    assert (
        "我收到一张图片：image/png，宽640像素，高480像素，33字节。"
        in ask([{"type": "text", "text": "这是什么"}, image(data_url(PNG, "image/png"))]).text()
    )


def test_a_picture_elsewhere_is_told_by_its_host_alone() -> None:
    """The URL has a password, a path and a query."""
    text = ask([image("https://ann:secret@pictures.example.com:8443/a.png?key=k")]).text()

    assert text == f"I got one picture: one at pictures.example.com. {LINE}"


def test_several_pictures_are_summed_up() -> None:
    """Six pictures, a sound and a file in one message."""
    parts = [image(data_url(PNG, "image/png")), image("https://a.example/1"), image("data:?"), *[image("x")] * 3]
    text = ask([*parts, {"type": "input_audio"}, {"type": "file"}]).text()

    assert text.startswith("I got 6 pictures: image/png, 640 by 480 pixels, 33 bytes; one at a.example; one that I ")
    assert "; and 2 more; 33 bytes in all. I got a piece of audio" in text
    assert "I got a file" in text


# --- anything at all ------------------------------------------------------------------------------

words = some.one_of(
    some.text(max_size=20), some.sampled_from(["call f", "add 1 and 2 in Rome", "你好", "data:a/b,%", "#"])
)
anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.sampled_from(["type", "text", "image_url", "url", "function", "name", "x"]), inner, max_size=4
        )
        | some.dictionaries(
            some.sampled_from(["properties", "anyOf", "$ref", "pattern", "items", "minimum"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
roles = some.sampled_from(["user", "assistant", "tool", "system", "developer"])
messages = some.lists(
    some.fixed_dictionaries(
        {},
        optional={
            "role": roles | anything,
            "content": anything,
            "tool_calls": anything,
            "tool_call_id": words,
            "name": words,
        },
    ),
    min_size=1,
    max_size=4,
)
functions = some.builds(
    lambda parameters: {"type": "function", "function": {"name": "f", "parameters": parameters}}, anything
)
forms = some.builds(lambda schema: {"type": "json_schema", "json_schema": {"schema": schema}}, anything)
fields = {
    "tools": some.lists(functions | anything, max_size=3) | anything,
    "response_format": forms | anything,
    "stream_options": some.just({"include_usage": True}) | anything,
    "n": some.integers(-1, 9) | anything,
    **dict.fromkeys(["model", "stop", "tool_choice", "parallel_tool_calls", "pace", "max_tokens"], anything),
}


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(some.fixed_dictionaries({"messages": messages}, optional=fields))
def test_no_request_upsets_it(request: dict[str, Any]) -> None:
    """Every field but `messages` holds any JSON at all."""
    played = list(provider.answer(request, id="chatcmpl-1", created=1))
    chunks = [msgspec.json.decode(msgspec.json.encode(chunk)) for _, chunk in played]

    assert all(0 <= wait <= 60 for wait, _ in played)
    assert all(len(chunk["choices"]) == 1 or chunk is chunks[-1] for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for index in {choice["index"] for choice in choices}:
        deltas = [choice for choice in choices if choice["index"] == index]
        assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
        assert [bool(choice["finish_reason"]) for choice in deltas] == [False] * (len(deltas) - 1) + [True]
        for call in (call for choice in deltas for call in choice["delta"].get("tool_calls", [])):
            assert isinstance(msgspec.json.decode(call["function"]["arguments"]), dict)


def test_the_demo_is_a_provider_that_answers_in_the_process() -> None:
    """What `Model("demo:demo")` is told by."""
    assert isinstance(provider, Embedded)
    assert provider.name == "demo"
