"""How Hume, Telnyx, Deepgram, Tavus, LiveKit, Pipecat and D-ID are told to end or transfer a call, or cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from actions_of_a_test import tool

from firstword import ActionError
from firstword.action import Action, Deed
from firstword.platforms import Asked, named

OVER = {"reason": "The conversation is over."}
MOVED = {"reason": "The call is transferred."}
NUMBER = "+15551234567"
BYE = Action(say=" Goodbye. ")
BARE = {"type": "function", "function": {"name": "end_call", "description": "End the call."}}


def deed(name: str, action: Action, tools: Any = None, **fields: Any) -> Deed:
    """Return what an engine is told to a request that lists these tools."""
    body = {"model": "m1", "messages": [{"role": "user", "content": "Hi"}], "tools": tools, **fields}
    platform = named(name)
    return platform.act(platform.read(Asked(body, {}, {}, "/chat/completions", None)), action)


@pytest.mark.parametrize(
    ("name", "listed", "action", "call"),
    [
        ("hume", tool("hang_up"), BYE, ("hang_up", {})),
        ("telnyx", tool("hangup", reason=None), BYE, ("hangup", OVER)),
        ("telnyx", tool("transfer", ["to"], to=None), Action("+1 555 123-4567", "Bye."), ("transfer", {"to": NUMBER})),
        (
            "telnyx",
            tool("transfer", ["target"], target={"type": "string", "enum": ["billing"]}, reason=None),
            Action("billing"),
            ("transfer", {"target": "billing", **MOVED}),
        ),
        ("livekit", BARE, BYE, ("end_call", {})),
        ("livekit", tool("transfer_call", number=None), Action(NUMBER), ("transfer_call", {"number": NUMBER})),
        ("pipecat", tool("end_call"), BYE, ("end_call", {})),
        (
            "pipecat",
            tool("transfer_call", destination=None),
            Action("sip:desk@a.example"),
            ("transfer_call", {"destination": "sip:desk@a.example"}),
        ),
        ("deepgram", tool("end_call", ["reason"], reason=None), BYE, ("end_call", OVER)),
        (
            "deepgram",
            tool("transfer_call", phone_number=None),
            Action(NUMBER),
            ("transfer_call", {"phone_number": NUMBER}),
        ),
        ("tavus", tool("end_call", reason=None, mood=None), BYE, ("end_call", OVER)),
    ],
)
def test_the_engines_own_tool_is_called(name: str, listed: Any, action: Action, call: Any) -> None:
    """By the schema that the request has; the words stand before the call."""
    assert deed(name, action, [tool("other"), listed]) == Deed(action.words, call)


@pytest.mark.parametrize(
    ("name", "listed", "to", "said"),
    [
        ("hume", [], None, "lists no tool 'hang_up'"),
        ("hume", [tool("hang_up")], NUMBER, "Hume cannot be told to transfer a call."),
        ("telnyx", [], None, "add the tool hangup to the assistant"),
        ("telnyx", [tool("hangup")], NUMBER, "add the tool transfer to the assistant"),
        ("telnyx", [tool("transfer")], NUMBER, "takes no destination"),
        ("telnyx", [tool("transfer", to={"enum": ["+49301"]})], NUMBER, "does not know this destination"),
        ("telnyx", [tool("transfer", ["to", "mood"], to=None, mood=None)], NUMBER, "'mood'"),
        ("livekit", [], None, "EndCallTool().tools"),
        ("livekit", [BARE], NUMBER, "a tool transfer_call"),
        ("pipecat", [tool("hang_up")], None, "EndTaskFrame"),
        ("deepgram", None, None, "`agent.think.functions`"),
        ("tavus", [None, 5], NUMBER, "transfer_call"),
        ("did", [BARE], None, "D-ID cannot be told to end a call."),
        ("did", [BARE], NUMBER, "D-ID cannot be told to transfer a call."),
    ],
)
def test_what_an_engine_has_not_is_said(name: str, listed: Any, to: str | None, said: str) -> None:
    """An error that names what is to be switched on, or that there is nothing."""
    with pytest.raises(ActionError) as caught:
        deed(name, Action(to), listed)
    assert said in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("name", ["hume", "telnyx", "livekit", "pipecat", "deepgram", "tavus"])
def test_a_tool_that_may_not_be_called_is_not(name: str) -> None:
    """`tool_choice: "none"`: the engine wants words."""
    tools = [tool(each) for each in ("end_call", "hang_up", "hangup")]
    assert deed(name, Action(), tools).call is not None
    with pytest.raises(ActionError):
        deed(name, Action(), tools, tool_choice="none")
