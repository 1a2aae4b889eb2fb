"""Mistral: OpenAI's dialect with names of its own, which refuses fields that it does not know with a 422.

Sources: the types of its Python library, mistralai 3.7, for what it knows; the validator of mistral-common 1 for the
order of messages. Behind a reply or a tool's result no system message may follow, behind a tool's result, until
lately, no user message, and nothing can end with a reply. Its models on other servers want strict turns.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ._accepts import MESSAGES, Accepts, fitted
from .openai import OpenAI

FIELDS = (
    "frequency_penalty guardrails logprobs max_tokens messages metadata min_tokens model n parallel_tool_calls "
    "prediction presence_penalty prompt_cache_key prompt_logprobs prompt_mode random_seed reasoning_effort "
    "repetition_penalty response_format safe_prompt service_tier stop stream temperature tool_choice tools top_k "
    "top_logprobs top_p top_prompt_logprobs"
)
PLAIN = frozenset({"role", "content"})
ID = re.compile("[a-zA-Z0-9]{9}")  # of a call
NO_PARAMETERS = {"type": "object", "properties": {}}


class Mistral(OpenAI):
    """The OpenAI dialect, at Mistral."""

    base_url = "https://api.mistral.ai/v1"
    accepts = Accepts(
        empty=False,
        alternates=True,
        fields=frozenset(FIELDS.split()),
        message_fields={
            **MESSAGES,
            "system": PLAIN,
            "user": PLAIN,
            "assistant": PLAIN | {"prefix", "tool_calls"},
            "tool": PLAIN | {"name", "tool_call_id"},
        },
        names={"max_completion_tokens": "max_tokens", "seed": "random_seed"},
        roles={"developer": "system"},
    )

    def fit(self, body: dict[str, Any], accepts: Accepts) -> dict[str, Any]:
        """Return a request's body as Mistral accepts it: ids of nine letters and digits, tools with parameters."""
        body = fitted(body, accepts)
        if type(body["messages"]) is list:
            body["messages"] = [_with_its_ids(each) for each in body["messages"]]
        if isinstance(body.get("tools"), list):
            body["tools"] = [_with_parameters(tool) for tool in body["tools"]]
        if body.get("tool_choice") == "required":
            body["tool_choice"] = "any"  # which every version of it knows
        return body


def _with_its_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with ids that Mistral takes: other models and engines have their own."""
    if message.get("role") == "tool":
        return {**message, "tool_call_id": its_id(message.get("tool_call_id"))}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    named = [{**call, "id": its_id(call.get("id"))} if isinstance(call, dict) else call for call in calls]
    return {**message, "tool_calls": named}


def its_id(id: Any) -> str:
    """Return an id of a call in Mistral's form, for the same id always the same one: a result has to find its call."""
    if isinstance(id, str) and ID.fullmatch(id):
        return id
    return hashlib.sha256(str(id).encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _with_parameters(tool: Any) -> Any:
    """Return a tool with its parameters, which may be left out at OpenAI when there are none."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("parameters"), dict):
        return tool
    return {**tool, "function": {**function, "parameters": NO_PARAMETERS}}


provider = Mistral()
