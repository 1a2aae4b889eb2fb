"""What the fake engine sends, compared with the golden requests of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_call import calling, scripted
from test_contract_requests import DATA_URL, R1, R2, R3, R5, R6, R7, SYSTEM

from firstword.testing import Record, Upstream, says, script

OTHER = "Why did the chicken cross the road? To get to the other side."
WEATHER = script.events(
    script.role(),
    script.tool_call("get_weather", '{"city":"Paris"}', id="call_1"),
    script.finish("tool_calls"),
    script.done(),
)


def bodies(upstream: Upstream, marker: str, count: int) -> list[Any]:
    """Return the bodies of the requests of a test."""
    found: list[Record] = upstream.seen(marker, until="asked", count=count)
    return [record.body for record in found]


def plain(body: Any) -> Any:
    """Return a request without what one engine adds to every turn."""
    added = ("turn_id", "timestamp", "interruptable")
    messages = [{k: v for k, v in each.items() if k not in (*added, "metadata")} for each in body["messages"]]
    return {**{k: v for k, v in body.items() if k not in added}, "messages": messages}


async def test_a_plain_vendor_sends_no_field_of_its_own(upstream: Upstream, marker: str) -> None:
    """R1: system, greeting, a question, and two sampling parameters."""
    params = {"model": "m1", "temperature": 0.7, "max_tokens": 150}
    settings = {"vendor": "openai", "params": params, "greeting_message": "Hi, how can I help?"}
    async with calling(**scripted(upstream, marker, says("One.")), system_messages=[SYSTEM], **settings) as call:
        await call.plays("say Tell me a joke")

    assert bodies(upstream, marker, 1) == [R1]


async def test_what_was_heard_and_what_was_generated_are_told_apart(upstream: Upstream, marker: str) -> None:
    """R2: a greeting, a reply that is interrupted at a word, a silence prompt, and the user speaks again."""
    # When the engine looks at the clock: greeting, user, request, interruption, silence, user, request.
    now = [1767000001.0, 1767000010.0, 1767000011.0, 1767000012.5, 1767000030.0, 1767000035.0, 1767000036.0]
    settings = {"params": {"model": "m1"}, "greeting_message": "Hi!"}
    joke = script.events(script.role(), script.text(OTHER), script.finish(), script.done())  # generated at once
    answers = scripted(upstream, marker, joke, says("Once."))
    async with calling(**answers, now=now, system_messages=[SYSTEM], **settings) as call:
        await call.plays('interrupt "the"\nsay Tell me a joke\nsilence\nsay A story instead')

    first, second = bodies(upstream, marker, 2)
    began = second["messages"][3]
    assert 0 <= began["timestamp"] - 1767000011000 < 1000  # when the first word came
    began["timestamp"] = 1767000011000
    assert second == R2
    assert first == {**R2, "turn_id": 2, "timestamp": 1767000010000, "messages": R2["messages"][:3]}


async def test_identity_presence_and_voices_are_told(upstream: Upstream, marker: str) -> None:
    """R3: keys in llm.params, what the user has selected, and whose voice it is."""
    async with calling(**scripted(upstream, marker, says("One.")), now=[1767000100.0] * 2) as call:
        call.conversation.memory.turn = 4
        await call.plays(
            'param model m1\nparam app_id A1\nparam channel room-7\nparam user_uid "1002"\nparam agent_uid "1001"\n'
            'who 1002 speaker1\npresence selection="Pythagorean theorem"\nsay What does this mean?'
        )

    assert bodies(upstream, marker, 1) == [{**R3, "interruptable": True}]  # as in R2, and in every turn


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("openai", {"type": "image_url", "image_url": {"url": DATA_URL}}),
        ("agora", {"type": "image", "image_url": DATA_URL}),
    ],
)
async def test_an_image_goes_out_once_and_is_not_remembered(
    upstream: Upstream, marker: str, form: str, part: Any
) -> None:
    """R4: either shape, from a `data:` URL; the next turn has the words alone."""
    async with calling(**scripted(upstream, marker, says("A dog.")), vendor="openai") as call:
        await call.plays(f"set image_form {form}\nimage {DATA_URL}\nsay What is this?\nsay And now?")

    first, second = bodies(upstream, marker, 2)
    assert first["messages"] == [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    assert [each["content"] for each in second["messages"]] == ["What is this?", "A dog.", "And now?"]


async def test_an_image_may_come_from_a_file_and_without_words(upstream: Upstream, marker: str, tmp_path: Path) -> None:
    """R4: a message that is an image only, read from a file."""
    (tmp_path / "dog.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    async with calling(**scripted(upstream, marker, says("A dog.")), vendor="openai") as call:
        await call.plays(f"image {tmp_path / 'dog.png'}\nsay")

    [body] = bodies(upstream, marker, 1)
    assert body["messages"] == [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}]


async def test_where_all_is_sound_the_greeting_is_a_directive(upstream: Upstream, marker: str) -> None:
    """R5: audio only; the last message is the assistant's, and the server has to speak it."""
    settings = {"params": {"audio": R5["audio"]}, "output_modalities": ["audio"], "greeting_message": "Welcome!"}
    async with calling(**scripted(upstream, marker, says("Welcome!")), vendor="openai", **settings) as call:
        await call.player.begin()

    assert bodies(upstream, marker, 1) == [R5]
    assert call.shown.heard == "Welcome!"


async def test_a_recogniser_that_heard_nothing_sends_a_blank(upstream: Upstream, marker: str) -> None:
    """R6: the user coughs."""
    settings = {"vendor": "openai", "params": {"model": "m1"}, "system_messages": [SYSTEM]}
    async with calling(**scripted(upstream, marker, says("Pardon?")), **settings) as call:
        await call.plays("say")

    assert bodies(upstream, marker, 1) == [R6]


async def test_the_engine_runs_its_own_tools_and_asks_again(upstream: Upstream, marker: str) -> None:
    """R7: the model calls a tool of the engine's; the second request has the call and its result."""
    answers = scripted(upstream, marker, WEATHER, says("21 degrees."))
    async with calling(**answers, vendor="openai", params={"model": "m1"}) as call:
        marks = await call.plays('tool get_weather {"celsius":21}\nsay Weather in Paris?')

    first, second = bodies(upstream, marker, 2)
    assert first == {**R7, "messages": R7["messages"][:1]}
    assert second == R7
    assert (marks.tools, marks.requests, marks.text, marks.finish_reason) == (["get_weather"], 2, "21 degrees.", "stop")
    assert call.conversation.memory.messages[-1]["content"] == "21 degrees."


async def test_only_the_end_of_a_long_history_is_sent(upstream: Upstream, marker: str) -> None:
    """max_history is 3: the system's message stays, the oldest others go; half a call of a tool goes too."""
    answers = scripted(upstream, marker, WEATHER, says("21 degrees."), says("One."), says("Two."))
    async with calling(**answers, vendor="openai", system_messages=[SYSTEM], max_history=3) as call:
        await call.plays("tool get_weather 21\nsay Weather?\nsay Really?\nsay Sure?")

    *_, third, fourth = ([each["content"] for each in body["messages"]] for body in bodies(upstream, marker, 4))
    assert third == ["Be brief.", "21 degrees.", "Really?"]  # the tool's result would stand first, without its call
    assert fourth == ["Be brief.", "Really?", "One.", "Sure?"]


async def test_a_turn_that_is_sent_again_is_the_very_same(upstream: Upstream, marker: str) -> None:
    """An engine that speculates sends a turn three more times, and closes each before the last."""
    slow = script.events(script.says("One two three.", every=0.5))
    async with calling(**scripted(upstream, marker, says("One."), slow, slow, says("Four."))) as call:
        await call.plays("say Hello\nagain 3 0.1\nsay Bye")

    *same, last = bodies(upstream, marker, 5)
    assert same == [same[0]] * 4
    assert [each["content"] for each in last["messages"]] == ["Hello", "Four.", "Bye"]
    closed = [record.closed_by for record in upstream.seen(marker)]
    assert closed[1:3] == ["peer", "peer"]


async def test_the_request_is_what_an_engine_sends(upstream: Upstream, marker: str) -> None:
    """A POST to exactly the URL; the key in its header, which wins over one of the user's headers."""
    answers = scripted(upstream, marker, says("One."))
    headers = {**answers["headers"], "Authorization": "Bearer other", "X-Tenant": "a"}
    url = answers["url"].removesuffix("/v1/chat/completions") + "/exactly?session=7"
    async with calling(url, headers=headers, api_key="secret") as call:
        await call.plays("say Hello")

    [record] = upstream.seen(marker)
    assert (record.method, record.path) == ("POST", "/exactly?session=7")
    assert (record.header("authorization"), record.header("x-tenant")) == ("Bearer secret", "a")
    assert record.header("content-type") == "application/json"
    assert json.loads(json.dumps(record.body))["stream"] is True
