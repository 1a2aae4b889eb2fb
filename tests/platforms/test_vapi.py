"""Vapi's requests: who is on the line, what never reaches the model's server, and how its calls end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from actions_of_a_test import VAPI, tool
from caller import Caller
from served import Served

from firstword import ActionError, App, BadRequest, Turn
from firstword.action import Action
from firstword.platforms import Asked
from firstword.platforms.vapi import APOLOGY, platform
from firstword.testing import Upstream, fails, says, script, talk

Serve = Callable[[App], Served]


def read(**fields: Any) -> Turn:
    body = {"model": "m1", "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return platform.read(Asked(body, {}, {}, "/chat/completions", None))


@pytest.mark.parametrize(
    ("fields", "session", "user"),
    [
        ({}, None, None),
        ({"call": {"id": "c-1", "type": "inboundPhoneCall"}, "customer": {"number": "+1555"}}, "c-1", "+1555"),
        ({"call": {"id": "c-1", "customer": {"number": "+1555"}}}, "c-1", "+1555"),
        ({"call": {"id": 7}, "customer": {"number": ""}}, "7", None),
        ({"call": None, "customer": None, "phoneNumber": None, "metadata": None}, None, None),
        ({"call": ["odd"], "customer": "odd"}, None, None),
        ({"call": {"id": {"odd": 1}, "customer": ["odd"]}}, None, None),
    ],
)
def test_who_is_on_the_line(fields: dict[str, Any], session: str | None, user: str | None) -> None:
    """The call's id is the session; without it nothing is shared."""
    turn = read(**fields)
    assert (turn.session, turn.user) == (session, user)


async def test_what_vapi_adds_stays_here(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A strict provider refuses a field that it does not know."""
    turns: list[Turn] = []
    app = App(base_url=upstream.base_url, platform="vapi")

    @app.before_turn
    async def look(turn: Turn) -> None:
        turns.append(turn)

    extra = {
        "call": {"id": "c-1"},
        "phoneNumber": {"number": "+1555"},
        "customer": {"number": "+1666"},
        "metadata": {"colour": "red"},
    }
    heard = await Caller(serve(app).url).says("Hello", user=marker, temperature=0.3, **extra)

    (record,) = upstream.seen(marker)
    assert (heard.text, record.body["temperature"]) == ("Hello", 0.3)
    assert not extra.keys() & record.body.keys()
    assert turns[0].engine == extra and turns[0].session == "c-1"


def test_the_request_is_checked_as_any_other() -> None:
    """A 400 names the field."""
    with pytest.raises(BadRequest) as caught:
        read(messages=[])
    assert caught.value.param == "messages"


def test_a_filler_stays_as_it_is() -> None:
    """Nothing is documented that would have it spoken sooner."""
    assert platform.filler("One moment. ") == "One moment. "


def destination(**schema: Any) -> list[dict[str, Any]]:
    return [tool("transferCall", ["destination"], destination={"type": "object", **schema})]


NUMBER = "+15551234567"
BARE = [{"type": "function", "function": {"name": "transferCall", "parameters": {}}}]
OLDER = {"functions": [{"name": "endCall", "parameters": {"type": "object", "properties": {}}}]}


@pytest.mark.parametrize(
    ("request_", "action", "call"),
    [
        ({"tools": VAPI}, Action(), ("endCall", {})),
        (OLDER, Action(), ("endCall", {})),
        ({"tools": [tool("end_call_tool")]}, Action(), ("end_call_tool", {})),
        ({"tools": [tool("end_call_tool"), *VAPI]}, Action(), ("endCall", {})),
        ({"tools": [tool("endCall", ["reason"], reason=None)]}, Action(), ("endCall", {"reason": "..."})),
        ({"tools": VAPI}, Action("+1 555 123-4567"), ("transferCall", {"destination": NUMBER})),
        ({"tools": BARE}, Action("sip:desk@a.example"), ("transferCall", {"destination": "sip:desk@a.example"})),
        ({"tools": BARE}, Action("Billing"), ("transferCall", {"destination": "Billing"})),
        (
            {"tools": destination()},
            Action(NUMBER),
            ("transferCall", {"destination": {"type": "number", "number": NUMBER}}),
        ),
        (
            {"tools": destination()},
            Action("sip:desk@a.example"),
            ("transferCall", {"destination": {"type": "sip", "sipUri": "sip:desk@a.example"}}),
        ),
        (
            {"tools": destination()},
            Action("Billing"),
            ("transferCall", {"destination": {"type": "assistant", "assistantName": "Billing"}}),
        ),
    ],
)
def test_what_ends_or_transfers_a_call(request_: dict[str, Any], action: Action, call: Any) -> None:
    """The assistant's own tool, in the shape of its schema; the words stand before the call."""
    deed = platform.act(read(**request_), Action(action.to, "Goodbye. "))

    assert deed.call is not None and deed.say == "Goodbye." and deed.agent is None
    name, arguments = deed.call
    assert (name, {**arguments, **({"reason": "..."} if "reason" in arguments else {})}) == call


@pytest.mark.parametrize(
    ("tools", "to", "said"),
    [
        (None, None, '{"type": "endCall"}'),
        ([None, {}, {"function": 5}, {"function": {"name": 5}}], None, '{"type": "endCall"}'),
        ([VAPI[0]], NUMBER, '{"type": "transferCall"}'),
        (VAPI, "+15550000000", "does not know this destination"),
        ([tool("transferCall", [], reason=None)], NUMBER, "takes no destination"),
        ([tool("endCall", ["mood"], mood=None)], None, "'mood'"),
    ],
)
def test_what_an_assistant_has_not_is_said(tools: Any, to: str | None, said: str) -> None:
    """An error that names the tool to switch on, or the parameter that nobody knows."""
    with pytest.raises(ActionError) as caught:
        platform.act(read(tools=tools), Action(to))
    assert said in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, None), (400, "content_policy_violation"), (401, "invalid_api_key"), (404, None), (500, None)],
)
async def test_an_error_of_any_kind_is_words_on_vapi(status: int, code: str | None) -> None:
    """An HTTP error can end the call, also one that no other try could mend; elsewhere it is told as it is."""
    refuses = script.json_document({"error": {"message": "No.", "type": "t", "code": code}}, status=status)
    call = {"call": {"id": "c-1"}}

    heard = await talk(models=refuses, request=call)
    assert (heard.status, heard.text, heard.done, heard.finish_reason) == (200, APOLOGY, True, "stop")
    whole = await talk(models=refuses, request=call, stream=False)
    assert (whole.status, whole.text) == (200, APOLOGY)
    own = await talk(models=refuses, request=call, apology="Pardon?")
    assert own.text == "Pardon?"
    plain = await talk(models=refuses)
    assert plain.status == status and not plain.text


async def test_what_is_wrong_with_the_request_itself_is_told_on_vapi_as_well() -> None:
    """Vapi never sends such a request; who tries the server by hand has to see why."""
    score = await talk(models=says("Hi"), say=[{"role": 5}], request={"call": {"id": "c-1"}})  # type: ignore[dict-item]
    assert score.status == 400 and score.error is not None


async def test_a_program_that_reads_json_gets_the_error_on_vapi() -> None:
    """Words would not be JSON."""
    request = {"call": {"id": "c-1"}, "response_format": {"type": "json_object"}}
    score = await talk(models=fails(503), request=request)
    assert score.status == 503 and not score.text
