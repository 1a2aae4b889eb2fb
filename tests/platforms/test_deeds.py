"""How ElevenLabs, Agora and plain OpenAI are told to end or transfer a call, or say that they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from actions_of_a_test import ELEVENLABS, END_CALL, TO_AGENT, TO_NUMBER, tool

from firstword import ActionError, Turn, plugins
from firstword.action import Action, Agent, Deed
from firstword.platforms import Asked

REASON = {"reason": "The call is transferred."}
OVER = {"reason": "The conversation is over."}
PERSON = "A call is transferred to you."
NUMBER = "+15551234567"


def deed(platform: str, action: Action, **fields: Any) -> Deed:
    """Return what an engine is told to a request with these fields."""
    body = {"model": "m1", "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
    dialect = plugins.load("platforms", platform)
    turn: Turn = dialect.read(Asked(body, {}, {}, "/chat/completions", None))
    found: Deed = dialect.act(turn, action)
    return found


SPOKEN = tool("end_call", ["reason"], reason=None, system__message_to_speak=None)
NEWER = tool(
    "transfer_to_number",
    ["transfer_number", "agent_message"],
    **dict.fromkeys(["reason", "transfer_number", "agent_message", "system__message_to_speak"]),
)


# A parameter that the words may have, and one that they must.
BOTH = tool(
    "transfer_to_number",
    ["client_message"],
    **dict.fromkeys(["transfer_number", "system__message_to_speak", "client_message"]),
)


@pytest.mark.parametrize(
    ("tools", "action", "say", "call"),
    [
        (ELEVENLABS, Action(), "", ("end_call", OVER)),
        (ELEVENLABS, Action(say="Bye."), "Bye.", ("end_call", OVER)),
        ([tool("end_call")], Action(say="Bye."), "Bye.", ("end_call", OVER)),
        (
            [tool("end_call", reason=None, message=None)],
            Action(say="Bye."),
            "",
            ("end_call", {**OVER, "message": "Bye."}),
        ),
        ([SPOKEN], Action(say="Bye."), "", ("end_call", {**OVER, "system__message_to_speak": "Bye."})),
        ([SPOKEN], Action(), "", ("end_call", OVER)),
        (
            [TO_NUMBER],
            Action("+1 (555) 123-4567", "One moment."),
            "",
            (
                "transfer_to_number",
                {**REASON, "transfer_number": NUMBER, "client_message": "One moment.", "agent_message": PERSON},
            ),
        ),
        (
            [TO_NUMBER],
            Action("sip:desk@a.example"),
            "",
            (
                "transfer_to_number",
                {**REASON, "transfer_number": "sip:desk@a.example", "client_message": "", "agent_message": PERSON},
            ),
        ),
        (
            [NEWER],
            Action(NUMBER, "One moment."),
            "",
            (
                "transfer_to_number",
                {
                    **REASON,
                    "transfer_number": NUMBER,
                    "agent_message": PERSON,
                    "system__message_to_speak": "One moment.",
                },
            ),
        ),
        (
            [BOTH],
            Action(NUMBER, "One moment."),
            "",
            (
                "transfer_to_number",
                {"transfer_number": NUMBER, "client_message": "One moment."},
            ),
        ),
        ([TO_AGENT], Action("0", "One moment."), "One moment.", ("transfer_to_agent", {**REASON, "agent_number": 0})),
    ],
)
def test_elevenlabs_has_a_system_tool_called(tools: Any, action: Action, say: str, call: Any) -> None:
    """In the shape of the request's own schema; the words stand in the call or before it, never in both."""
    assert deed("elevenlabs", action, tools=tools) == Deed(say, call)


@pytest.mark.parametrize(
    ("tools", "to", "said"),
    [
        (None, None, "switch end_call on"),
        ([END_CALL], NUMBER, "switch transfer_to_number on"),
        ([END_CALL, TO_NUMBER], "1", "switch transfer_to_agent on"),
        (ELEVENLABS, "Billing", "does not know an agent by its name"),
        (
            [tool("transfer_to_number", transfer_number={"type": "string", "enum": ["+49301"]})],
            NUMBER,
            "does not know this destination",
        ),
        ([tool("end_call", ["language"], language=None)], None, "'language'"),
    ],
)
def test_what_an_elevenlabs_agent_has_not_is_said(tools: Any, to: str | None, said: str) -> None:
    """An error that names what is to be switched on."""
    with pytest.raises(ActionError) as caught:
        deed("elevenlabs", Action(to), tools=tools)
    assert said in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("fields", "agent"),
    [
        ({"agent_id": "a-1"}, Agent("a-1", None)),
        ({"channel": "room-7"}, Agent(None, "room-7")),
        ({"params": {"agent_id": 7, "channel": "room-7"}}, Agent("7", "room-7")),
    ],
)
def test_an_agent_of_agoras_leaves_after_the_reply(fields: dict[str, Any], agent: Agent) -> None:
    """By its id, else as the one in its channel."""
    assert deed("agora", Action(say=" Bye. "), **fields) == Deed("Bye.", None, agent)


def test_the_agents_id_is_a_session_and_stays_here() -> None:
    """Agora gives each conversation an agent of its own; a provider must not see the field."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "agent_id": "a-1"}
    turn = plugins.load("platforms", "agora").read(Asked(body, {}, {}, "/", None))
    assert turn.session == "a-1" and "agent_id" not in turn.request


@pytest.mark.parametrize(
    ("platform", "action", "fields", "said"),
    [
        ("agora", Action(), {}, "`channel` or `agent_id`"),
        ("agora", Action(NUMBER), {"agent_id": "a-1"}, "cannot be told to transfer"),
        ("openai", Action(), {"tools": ELEVENLABS}, "FIRSTWORD_PLATFORM"),
        ("openai", Action(NUMBER), {}, "FIRSTWORD_PLATFORM"),
    ],
)
def test_what_an_engine_cannot_do_is_said(platform: str, action: Action, fields: Any, said: str) -> None:
    """A transfer on Agora, an agent that nobody knows, an API without calls."""
    with pytest.raises(ActionError) as caught:
        deed(platform, action, **fields)
    assert said in str(caught.value) and caught.value.hint
