"""D-ID's agents: a reply in one piece is its words alone, and an error has its status within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from served import Served

from firstword import App
from firstword.testing import Upstream, cuts, fails, says, script, silent, talk
from firstword.testing.models import Scripted

Json = dict[str, Any]
DATE = "2026-01-30T12:51:16.946Z"
SAYS: list[Json] = [{"role": "user", "content": "Hello", "created_at": DATE}]
ODD = script.events(script.tool_call("f", "{}", id="c1"), script.finish("tool_calls"))
REFUSES = script.events(script.event(script.chunk({"refusal": "I cannot say that."})), script.finish())


@pytest.mark.parametrize(
    ("models", "settings", "content"),
    [
        (says("Hello there."), {}, "Hello there."),
        (fails(503), {"apology": "Sorry."}, "Sorry."),
        (silent(), {"apology": "Sorry.", "turn_timeout": 3.0}, "Sorry."),
        (REFUSES, {}, "I cannot say that."),
        (ODD, {}, ""),
    ],
    ids=["words", "an apology", "too late", "a refusal", "no words"],
)
async def test_a_reply_in_one_piece_is_its_words(models: Scripted, settings: Json, content: str) -> None:
    """`streaming` is off, as it is by default."""
    score = await talk(models=models, say=SAYS, path="/did/chat/completions", stream=False, **settings)
    assert (score.status, score.chunks, score.text) == (200, [{"content": content}], content)
    assert score.turn is not None and (score.turn.error is None or score.turn.apologised)


async def test_a_streamed_reply_is_as_any_other() -> None:
    """D-ID reads the choices, and takes the rest."""
    score = await talk(models=says("Hello there."), say=SAYS, path="/did/chat/completions")
    assert (score.text, score.done, score.finish_reason) == ("Hello there.", True, "stop")
    assert "created_at" not in score.seen[0].body["messages"][0]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_has_its_status_within(stream: bool) -> None:
    """The fields that D-ID documents; what the provider has said stands in them."""
    error = {"message": "No such model.", "type": "invalid_request_error", "code": "model_not_found"}
    refuses = script.json_document({"error": error}, status=404)
    score = await talk(models=refuses, say=SAYS, path="/did/chat/completions", stream=stream)
    assert score.status == 404 and score.error is not None
    assert score.error.items() >= {**error, "status": 404}.items()

    score = await talk(models=fails(500), say=SAYS, path="/did/chat/completions", stream=stream)
    assert score.error is not None and score.error["status"] == score.status >= 500 and score.error["code"]


async def test_an_error_after_the_first_word_has_it_too() -> None:
    """The only place that is left is an event."""
    score = await talk(models=cuts("Hello"), say=SAYS, path="/did/chat/completions", on_cut="error")
    assert score.status == 200 and score.error is not None and score.error["status"] >= 500 and not score.done


async def test_over_a_real_socket_it_is_seen_from_the_dates(
    serve: Callable[[App], Served], upstream: Upstream, marker: str
) -> None:
    """The key comes as `x-api-key`; there is no model, so the server's default is asked."""
    server = serve(App(base_url=upstream.base_url, model="m0"))
    body = {"messages": SAYS, "stream": False, "user": marker, "options": {"description": "A shop"}}
    heard = await Caller(server.url).hears(body, headers={"x-api-key": "sk-caller"})

    [record] = await upstream.wait_settled(marker)
    assert (heard.status, heard.json) == (200, {"content": "Hello"})
    assert record.header("authorization") == "Bearer sk-caller" and record.body["model"] == "m0"
    assert record.body["messages"] == [{"role": "user", "content": "Hello"}] and "options" not in record.body
