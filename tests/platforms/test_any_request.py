"""Whatever comes, a platform makes a turn of it or refuses it by name; nothing else is raised, and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword import ActionError, BadRequest, plugins
from firstword.action import Action
from firstword.platforms import Asked, named
from firstword.platforms._detect import MARKS, detected

Json = dict[str, Any]
NAMES = [mark.name for mark in MARKS]
NAMES += ["metadata", "customer", "user_id", "session_id", "options", "time", "id", "number", "prosody", "scores"]
NAMES += [
    "telnyx_end_user_target",
    "tools",
    "functions",
    "tool_choice",
    "presence",
    "vpids",
    "source",
    "conversation_id",
]
TOOLS = ["end_call", "endCall", "end_call_tool", "hang_up", "hangup", "transfer", "transfer_call", "transferCall"]
TOOLS += ["transfer_to_number", "transfer_to_agent"]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(TOOLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)
MESSAGES = st.lists(
    st.builds(
        lambda role, content, more: {**more, "role": role, "content": content},
        st.sampled_from(["system", "user", "assistant", "tool", ""]),
        st.text(max_size=5) | st.none() | st.just([{"type": "text", "text": "Hi"}]),
        FIELDS,
    ),
    max_size=3,
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(st.sampled_from(["to", "target", "reason", "destination"]), VALUES, max_size=3)
        | VALUES,
        "required": st.lists(st.sampled_from(["to", "reason", "mood"]), max_size=2) | VALUES,
    },
)
LISTED = st.lists(
    st.builds(
        lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
        st.sampled_from(TOOLS),
        SCHEMAS | VALUES,
    )
    | VALUES,
    max_size=4,
)
PLATFORMS = plugins.known("platforms")
MADE = {"prosody", "custom_session_id"}  # Hume's, which are of no field of the body


@given(fields=FIELDS, messages=MESSAGES | VALUES, query=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=3)))
@settings(max_examples=100, deadline=None)
def test_a_body_becomes_a_turn_or_is_refused_by_name(fields: Json, messages: Any, query: dict[str, str]) -> None:
    """Every engine's own fields, with values of any kind, in every platform."""
    sent = json.dumps({**fields, "messages": messages})
    assert detected(Asked(json.loads(sent), {}, query, "/", None)) in PLATFORMS
    for name in PLATFORMS:
        try:
            turn = named(name).read(Asked(json.loads(sent), {}, query, "/chat/completions", None))
        except BadRequest as refusal:
            assert refusal.param
            continue
        assert turn.platform == name and all(isinstance(message, dict) for message in turn.messages)
        for known in (turn.session, turn.user, turn.channel):
            assert known is None or (isinstance(known, str) and known)
        marks = turn.engine.get("messages")
        assert marks is None or len(marks) == len(turn.messages)
        # Each field is the model's or the engine's: nothing is lost, and nothing is made up.
        left = turn.request.keys() - {"messages"}
        kept = (turn.engine.keys() & fields.keys()) - MADE
        if "params" not in fields or name != "agora":
            assert left | kept == fields.keys() - {"messages"} and not left & (kept - query.keys())
        assert [each.item for each in turn.history] == turn.messages


@given(tools=LISTED, choice=VALUES)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("to", [None, "+15551234567", "sip:desk@a.example", "billing", "1"])
def test_what_an_engine_lists_is_called_or_there_is_an_action_error(to: str | None, tools: Any, choice: Any) -> None:
    """Tools of any shape: a call is of one that is listed, with arguments that are JSON."""
    for name in PLATFORMS:
        body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools, "tool_choice": choice}
        platform = named(name)
        turn = platform.read(Asked(json.loads(json.dumps(body)), {}, {}, "/chat/completions", None))
        try:
            deed = platform.act(turn, Action(to))
        except ActionError as refusal:
            assert refusal.hint
            continue
        assert deed.call is not None and deed.call[0] in TOOLS
        json.dumps(deed.call[1])
