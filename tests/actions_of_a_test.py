"""What the tests of actions share: Apps on each platform, the engines' tools, and what of a reply is a call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from firstword import App
from firstword.testing import Score, script

BYE = "Goodbye."
ENDED = [("end_call", {"reason": "The conversation is over."})]  # what ElevenLabs is told
CALLS = script.events(
    script.role(), script.tool_call("hang_up", "{}", id="c1"), script.finish("tool_calls"), script.done()
)
AGORA = {"agora_app_id": "app", "agora_basic_key": "key", "agora_basic_secret": "secret"}
LEAVE = "/api/conversational-ai-agent/v2/projects/app/agents/agent-1/leave"
ON_AGORA = {"agent_id": "agent-1", "channel": "room-7", "turn_id": 1}


def tool(name: str, required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    """Return an engine's tool as its request lists it; each parameter is a string unless a schema is given."""
    named = {key: value or {"type": "string"} for key, value in properties.items()}
    parameters = {"type": "object", "properties": named, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


# As ElevenLabs documents them; an agent's own may have `system__message_to_speak` in place of `message`.
END_CALL = tool("end_call", ["reason"], reason=None)
TO_NUMBER = tool(
    "transfer_to_number",
    ["transfer_number", "client_message", "agent_message"],
    **dict.fromkeys(["reason", "transfer_number", "client_message", "agent_message"]),
)
TO_AGENT = tool("transfer_to_agent", ["agent_number"], reason=None, agent_number={"type": "integer"})
ELEVENLABS = [END_CALL, TO_NUMBER, TO_AGENT]
# As a Vapi assistant sends them, with one destination in its settings.
VAPI = [
    {"type": "function", "function": {"name": "endCall", "description": "End the call."}},
    tool("transferCall", ["destination"], destination={"type": "string", "enum": ["+15551234567"]}),
]


def app_on(platform: str, **more: Any) -> App:
    return App(**{"base_url": "http://model.test/v1", "model": "m", "platform": platform, **AGORA, **more})


def calls(score: Score) -> list[tuple[str, Any]]:
    """Return the calls of a reply; asserts the strict form: one a chunk, counted from 0, one ending, one id."""
    if score.chunks and score.chunks[0].get("object") == "chat.completion":
        items = score.chunks[0]["choices"][0]["message"].get("tool_calls") or []
    else:
        deltas = [choice["delta"] for chunk in score.chunks for choice in chunk["choices"]]
        reasons = [choice["finish_reason"] for chunk in score.chunks for choice in chunk["choices"]]
        found = [each["tool_calls"] for each in deltas if "tool_calls" in each]
        items = [item for [item] in found]
        assert [each["index"] for each in items] == list(range(len(items)))
        assert not any("tool_calls" in each and each.get("content") for each in deltas)
        assert [bool(each.get("role")) for each in deltas].count(True) == 1 and deltas[0]["role"] == "assistant"
        assert sum(reason is not None for reason in reasons) == 1
        for name in ("id", "created", "model"):
            assert len({chunk[name] for chunk in score.chunks}) == 1
    assert score.done and score.finish_reason == ("tool_calls" if items else "stop")
    assert all(each["id"] and each["type"] == "function" for each in items)
    return [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in items]


def deltas(score: Score) -> list[tuple[Mapping[str, Any], str | None]]:
    """Return a reply's deltas and endings, the ids of its calls left out."""
    found = []
    for chunk in score.chunks:
        for choice in chunk["choices"]:
            delta = dict(choice["delta"])
            if "tool_calls" in delta:
                delta["tool_calls"] = [{k: v for k, v in each.items() if k != "id"} for each in delta["tool_calls"]]
            found.append((delta, choice["finish_reason"]))
    return found
