"""A turn that is sent again: what becomes of the one that is being answered, and who is none of its business."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import Call, Caller, Heard, turn
from served import Served

from firstword import App
from firstword.testing import Upstream, script
from firstword.testing.witness import Record

Serve = Callable[..., Served]
SORRY = "I am sorry."
SAID = script.events(script.says("It is noon."))
STALLS = script.stalls_after("It is")
SLOW = script.events(script.role(), script.text("It"), script.wait(0.5), script.words(" is noon."), script.finish())
MARGIN = 0.25  # seconds: a process that waits for a core sees a close and the next request in either order
NOTHING = {"in_use": 0, "turns": 0}


@pytest.fixture(params=[None, "h11"], ids=["ours", "asgi"])
def served(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Served]:
    """A server that would rather apologise than be silent, under our own protocol and under plain ASGI."""
    more = {"http": request.param} if request.param else {}
    server = Served(App(base_url=upstream.base_url, apology=SORRY), **more)
    yield server
    server.stop()


@pytest.fixture
def caller(served: Served) -> Caller:
    return Caller(served.url)


def body_of(marker: str, *scripts: script.Script, **fields: Any) -> dict[str, Any]:
    """Return a turn of a session of this test's own; the n-th time that the model is asked, it does the n-th script."""
    return turn(**{"user": marker, "scripts": list(scripts), "session_id": marker, "turn_id": 1, **fields})


async def rest_of(call: Call) -> Heard:
    """Read a reply to its end."""
    async for _ in call.listens():
        pass
    return call.heard


def check_one_at_a_time(records: list[Record]) -> None:
    """Assert that the model had been let go of each time that it was asked again."""
    for one, next_one in itertools.pairwise(records):
        assert one.closed_by == "peer" and one.closed is not None and one.closed <= next_one.requested + MARGIN


# --- superseded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("silent", [script.never_answers(), script.sends_only_the_role()], ids=["nothing", "a role"])
async def test_before_the_first_word_the_older_one_gets_a_true_status(
    caller: Caller, served: Served, upstream: Upstream, marker: str, silent: script.Script, stream: bool
) -> None:
    """The model is slow, and the engine sends the turn again: the older request is no apology's business."""
    body = body_of(marker, silent, SAID, stream=stream)
    del body["turn_id"]
    async with caller.dials(body) as first:
        await upstream.wait_asked(marker)
        second = await caller.hears({**body, "stream": True})
        heard = await rest_of(first)

    assert (heard.status, heard.error["code"]) == (409, "superseded")
    assert heard.headers["x-should-retry"] == "false"
    assert second.text == "It is noon." and second.done
    check_one_at_a_time(await upstream.wait_asked(marker, 2))
    assert await asyncio.to_thread(served.left_open) == NOTHING


async def test_after_words_the_older_one_ends_by_an_error_and_nothing_is_said_twice(
    caller: Caller, served: Served, upstream: Upstream, marker: str
) -> None:
    """Two words have left already: no apology follows them, no `[DONE]`, and no word of the other reply."""
    body = body_of(marker, STALLS, SAID)
    del body["turn_id"]
    async with caller.dials(body) as first:
        await first.hears_word("It")
        second = await caller.hears(body)
        heard = await rest_of(first)

    assert heard.status == 200 and heard.error["code"] == "superseded" and not heard.done
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in heard.chunks[:-1]) == "It is"
    assert second.text == "It is noon." and second.done
    check_one_at_a_time(await upstream.wait_asked(marker, 2))
    assert await asyncio.to_thread(served.left_open) == NOTHING


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", ["", "It is"])
async def test_agora_s_engine_has_nothing_to_say_of_it(
    caller: Caller, upstream: Upstream, marker: str, words: str, stream: bool
) -> None:
    """On a 409 it would speak its `failure_message`, over the reply to the later request."""
    silent = script.stalls_after(words) if words else script.never_answers()
    body = body_of(marker, silent, SAID, stream=stream)
    async with caller.dials(body) as first:
        await (first.hears_word('" is"') if words and stream else upstream.wait_asked(marker))
        second = await caller.hears(body_of(marker, silent, SAID))
        heard = await rest_of(first)

    assert heard.status == 200 and SORRY not in heard.body.decode() and b"error" not in heard.body
    assert not stream or (heard.text, heard.finish_reasons, heard.done) == (words, ["stop"], True)
    assert second.text == "It is noon." and second.done


async def test_a_revised_turn_supersedes_under_the_same_number(caller: Caller, upstream: Upstream, marker: str) -> None:
    """The engine has understood one more word; the number is the same."""
    async with caller.dials(body_of(marker, STALLS, SAID)) as first:
        await first.hears_word('" is"')
        second = await caller.hears(body_of(marker, STALLS, SAID, messages=turn("Hello again")["messages"]))
        heard = await rest_of(first)

    assert (heard.text, heard.finish_reasons) == ("It is", ["stop"]) and second.text == "It is noon."


async def test_an_engine_that_goes_on_with_its_own_tool_cuts_nothing_off(
    caller: Caller, upstream: Upstream, marker: str
) -> None:
    """It runs the call as soon as that is whole, and sends the result under the same number, before our `[DONE]`."""
    call = script.tool_call("clock", "{}", id="c1")
    calls = script.events(script.role(), call, script.finish("tool_calls"), script.wait(0.2), script.done())
    body = body_of(marker, calls, SAID)
    async with caller.dials(body) as first:
        await first.hears_word('"finish_reason":"tool_calls"')
        asked = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        result = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
        messages = [*body["messages"], {"role": "assistant", "content": None, "tool_calls": [asked]}, result]
        second = await caller.hears({**body, "messages": messages})
        heard = await rest_of(first)

    assert heard.done and heard.finish_reasons == ["tool_calls"]
    assert second.text == "It is noon." and second.done


async def test_without_numbers_the_same_body_is_the_same_turn(caller: Caller, upstream: Upstream, marker: str) -> None:
    """An engine that says who is on the line, and not which turn it is."""
    body = body_of(marker, STALLS, SAID)
    del body["turn_id"]
    async with caller.dials(body) as first:
        await first.hears_word("It")
        second = await caller.hears(body)
        heard = await rest_of(first)

    assert heard.error["code"] == "superseded" and second.text == "It is noon."


NEIGHBOURS: dict[str, dict[str, Any]] = {
    "another session": {"session_id": "another"},
    "another number": {"turn_id": 2},
    "no session": {"session_id": None},
    "another app": {"app_id": "another"},
}


@pytest.mark.parametrize("fields", NEIGHBOURS.values(), ids=NEIGHBOURS)
async def test_another_turn_is_left_alone(
    caller: Caller, upstream: Upstream, marker: str, fields: dict[str, Any]
) -> None:
    """All else is the same, to the last byte."""
    async with caller.dials(body_of(marker, SLOW, SAID)) as first:
        await first.hears_word("It")
        second = await caller.hears(body_of(marker, SLOW, SAID, **fields))
        heard = await rest_of(first)

    assert heard.text == second.text == "It is noon." and heard.done


@pytest.mark.parametrize(("header", "value"), [("authorization", "Bearer "), ("api-key", ""), ("x-api-key", "")])
async def test_another_key_is_another_caller(
    caller: Caller, upstream: Upstream, marker: str, header: str, value: str
) -> None:
    """A session's name is the caller's own word: with another key it may be anybody's."""
    body = body_of(marker, SLOW, SAID)
    async with caller.dials(body, headers={header: f"{value}one"}) as first:
        await first.hears_word("It")
        second = await caller.hears(body, headers={header: f"{value}two"})
        heard = await rest_of(first)

    assert heard.text == second.text == "It is noon."


async def test_a_side_question_of_a_session_without_numbers_is_left_alone(
    caller: Caller, upstream: Upstream, marker: str
) -> None:
    """The same conversation under another system prompt, as a summary of it is asked for."""
    body = body_of(marker, SLOW, SAID)
    del body["turn_id"]
    aside = {**body, "messages": [{"role": "system", "content": "Summarise."}, *body["messages"]]}
    async with caller.dials(body) as first:
        await first.hears_word("It")
        second = await caller.hears(aside)
        heard = await rest_of(first)

    assert heard.text == second.text == "It is noon."


async def test_with_the_rule_none_both_are_answered(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Nothing is shared."""
    caller = Caller(serve(App(base_url=upstream.base_url, resent="none")).url)
    async with caller.dials(body_of(marker, SLOW, SAID)) as first:
        await first.hears_word("It")
        second = await caller.hears(body_of(marker, SLOW, SAID))
        heard = await rest_of(first)

    assert heard.text == second.text == "It is noon."
