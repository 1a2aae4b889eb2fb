"""What a server takes of a conversation, and a request brought into that form.

Most servers take everything that OpenAI's does and pass over what they do not know: nothing is done for them. The rules
themselves are in `history.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..history import alternating, known, with_known_fields, with_one_system, with_roles, without_empty

# What the OpenAI API knows (its reference, and the types of its Python library).
ROOT = (
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier "
    "stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
SPOKEN = frozenset({"role", "content", "name"})
MESSAGES: Mapping[str, frozenset[str]] = {
    "system": SPOKEN,
    "developer": SPOKEN,
    "user": SPOKEN,
    "assistant": SPOKEN | {"audio", "function_call", "refusal", "tool_calls"},
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": SPOKEN,
    "call": frozenset({"id", "type", "function"}),
    "function call": frozenset({"name", "arguments"}),
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
}
TOOL = frozenset({"type", "function"})
FUNCTION = frozenset({"name", "description", "parameters", "strict"})


@dataclass(frozen=True, slots=True)
class Accepts:
    """What a server takes.

    empty: text without a word. one_system: only a first system message is taken, or heeded. alternates: caller and
    model have to take turns, the caller first and last; that asks for one system message as well.
    fields, message_fields: all fields that it knows, of the request and of messages (see `with_known_fields`); None:
    it passes over the others, or may know more.
    names, roles: what it calls some fields and roles.
    """

    empty: bool = True
    one_system: bool = False
    alternates: bool = False
    fields: frozenset[str] | None = None
    message_fields: Mapping[str, frozenset[str]] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    def strictly(self) -> Accepts:
        """Return the same in the plainest form, which every server takes."""
        return replace(
            self,
            empty=False,
            one_system=True,
            alternates=True,
            fields=frozenset(ROOT.split()) if self.fields is None else self.fields,
            message_fields=MESSAGES if self.message_fields is None else self.message_fields,
            roles={**self.roles, "developer": "system"},
        )


ANYTHING = Accepts()


def fitted(body: dict[str, Any], accepts: Accepts) -> dict[str, Any]:
    """Return a request as a server takes it. Its calls and results are in pairs already (`calls.mended`)."""
    messages = body["messages"]
    if type(messages) is list:
        # The names first: the rules that follow go by them. Then what says nothing, for when it is gone two messages
        # of one speaker may stand in a row. Fields last: the rules before may look at them.
        if accepts.roles:
            messages = with_roles(messages, accepts.roles)
        if not accepts.empty:
            messages = without_empty(messages)
        if accepts.alternates:
            messages = alternating(messages)
        elif accepts.one_system:
            messages = with_one_system(messages)
        if accepts.message_fields is not None:
            messages = with_known_fields(messages, accepts.message_fields)
        body = {**body, "messages": messages}
    for name, its_name in accepts.names.items():
        if name in body:
            value = body.pop(name)
            body.setdefault(its_name, value)
    if accepts.fields is not None:
        body = known(body, accepts.fields)
        if isinstance(body.get("tools"), list):
            body = {**body, "tools": [_known_tool(tool) for tool in body["tools"]]}
    return body


def _known_tool(tool: Any) -> Any:
    """Return a tool without what only an engine understands; one that is no function is the server's own."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    kept = known(tool, TOOL)
    return {**kept, "function": known(kept["function"], FUNCTION)} if "function" in kept else kept
