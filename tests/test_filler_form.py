"""Where a filler belongs, and what it looks like there: not before JSON, audio or a mark, and as the platform wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from served import Served

from firstword import App
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line."
FILLER = "One moment. "
LATE = script.events(script.role(), script.wait(0.4), script.words(FRIEND), script.finish(), script.done())


def app_of(upstream: Upstream, **more: Any) -> App:
    return App(**{"base_url": upstream.base_url, "fillers": [FILLER], "fill_after": 0.15, **more})


PIPECAT = "Every single response MUST begin with a turn completion indicator: ✓, ○ or ◐."


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}},
        {"messages": [{"role": "system", "content": PIPECAT}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "The first character is a digit."}]}]},
    ],
    ids=["json", "json schema", "audio", "pipecat", "first character"],
)
async def test_no_filler_before_what_is_not_for_the_ear_or_begins_with_a_mark(
    serve: Serve, upstream: Upstream, fields: dict[str, Any]
) -> None:
    """A program parses it, or takes off its first character: words before it would break the whole reply."""
    assert (await Caller(serve(app_of(upstream)).url).says(script=LATE, **fields)).text == FRIEND


async def test_a_user_who_types_a_mark_is_filled_all_the_same(serve: Serve, upstream: Upstream) -> None:
    """Only what the operator's prompt demands counts; a response_format of text is for the ear."""
    asks = {"role": "user", "content": "What is the first character ✓?"}
    messages = [{"role": "system", "content": "Be brief."}, asks]
    heard = await Caller(serve(app_of(upstream)).url).says(
        script=LATE, messages=messages, response_format={"type": "text"}
    )
    assert heard.text == FILLER + FRIEND


@pytest.mark.parametrize(
    ("words", "heard"),
    [
        ("One moment.", "One moment... "),
        ("Hm", "Hm... "),
        ("Let me see… ", "Let me see... "),
        ("请稍等。", "请稍等... "),
    ],
)
async def test_a_filler_has_the_form_that_the_platform_wants(
    serve: Serve, upstream: Upstream, words: str, heard: str
) -> None:
    """ElevenLabs speaks at once what ends with three dots and a space."""
    reply = await Caller(serve(app_of(upstream, platform="elevenlabs", fillers=[words])).url).says(script=LATE)
    assert reply.text == heard + FRIEND


async def test_the_whole_reply_has_the_fillers_id_time_and_model(serve: Serve, upstream: Upstream) -> None:
    """The provider calls its model by another name, at another time: an engine takes it for another reply."""
    heard = await Caller(serve(app_of(upstream)).url).says(script=LATE, model="mine")
    named = {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in heard.chunks}
    assert len(named) == 1 and named.pop()[2] == "mine"


async def test_a_reply_in_json_fails_with_the_true_error(serve: Serve, upstream: Upstream) -> None:
    """A program cannot parse an apology."""
    served = serve(app_of(upstream, apology=SORRY, hedge_share=0))
    fields = {"response_format": {"type": "json_object"}}
    heard = await Caller(served.url).says(script=script.refuses(500, "Broken."), **fields)
    assert (heard.status, heard.error["message"]) == (500, "Broken.")
    cut = await Caller(served.url).says(script=script.closes_after('{"a": '), **fields)
    assert (cut.text, cut.done) == ('{"a": ', False) and cut.error["code"] == "upstream_truncated"
