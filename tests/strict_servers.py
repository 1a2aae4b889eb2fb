"""Model servers that refuse what real ones refuse, in their words; what they take, they answer.

Their lists are those of the providers' own libraries (groq 1.7, mistralai 3.7, cerebras-cloud-sdk 1.91) and pages; the
order of messages is that of the validator in mistral-common, with what its API still refused in 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from api_of_a_test import Api

from firstword.testing import script

Json = dict[str, Any]
Judge = Callable[[Json], str | None]


def names(text: str) -> set[str]:
    return set(text.split())


OPENAI = names(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model n parallel_tool_calls prediction presence_penalty prompt_cache_key reasoning_effort "
    "response_format safety_identifier seed service_tier stop store stream stream_options temperature tool_choice "
    "tools top_logprobs top_p user verbosity web_search_options"
)
GROQ = names(
    "citation_options compound_custom disable_tool_validation documents exclude_domains frequency_penalty "
    "function_call functions include_domains include_reasoning max_completion_tokens max_tokens messages metadata "
    "model n parallel_tool_calls presence_penalty reasoning_effort reasoning_format response_format search_settings "
    "seed service_tier stop store stream stream_options temperature tool_choice tools top_p user"
)
MISTRAL = names(
    "model messages temperature top_p max_tokens stream stop random_seed metadata response_format tools tool_choice "
    "presence_penalty frequency_penalty min_tokens repetition_penalty top_k logprobs top_logprobs prompt_logprobs "
    "top_prompt_logprobs n prediction parallel_tool_calls reasoning_effort prompt_mode guardrails prompt_cache_key "
    "service_tier safe_prompt"
)
CEREBRAS = names(
    "clear_thinking disable_reasoning frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages "
    "min_completion_tokens min_tokens model model_parameters n parallel_tool_calls prediction presence_penalty "
    "prompt_cache_key reasoning_effort reasoning_format response_format seed service_tier stop stream stream_options "
    "temperature tool_choice tools top_logprobs top_p user"
)
GEMINI = names(
    "extra_body function_call functions max_completion_tokens max_tokens messages modalities model n reasoning_effort "
    "response_format service_tier stop stream stream_options temperature tool_choice tools top_p"
)
ROLES: dict[str, set[str]] = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
WITHIN = {"id", "type", "function", "name", "arguments", "description", "parameters", "strict", "text", "image_url"}


def unknown(body: Json, root: set[str], roles: dict[str, set[str]], within: set[str] = WITHIN) -> str | None:
    """Return the first field that a server does not know, by its way."""
    for name in body.keys() - root:
        return str(name)
    for at, each in enumerate(body["messages"]):
        for name in each.keys() - roles.get(each["role"], set()):
            return f"messages.{at}.{name}"
        content = each.get("content")
        parts = [*(content if isinstance(content, list) else []), *(each.get("tool_calls") or [])]
        for thing in [*parts, *(part["function"] for part in parts if "function" in part)]:
            for name in thing.keys() - within:
                return f"messages.{at} within {name}"
    for tool in body.get("tools") or []:
        for name in (tool.keys() | tool["function"].keys()) - within:
            return f"tools {name}"
    return None


def blank(message: Json) -> bool:
    """True for a message that has an empty text somewhere, or no content where it needs some."""
    content = message.get("content")
    if content is None:
        return not message.get("tool_calls")
    if isinstance(content, str):
        return not content.strip()
    return not content or any(part.get("type") == "text" and not part["text"].strip() for part in content)


def groq(body: Json) -> str | None:
    name = unknown(body, GROQ, {**ROLES, "assistant": ROLES["assistant"] | {"reasoning"}})
    return name and f"property '{name}' is unsupported"


def cerebras(body: Json) -> str | None:
    named = {role: fields | {"name"} for role, fields in ROLES.items()}
    name = unknown(body, CEREBRAS, {**named, "assistant": named["assistant"] | {"reasoning"}}, WITHIN | {"index"})
    return name and f"property '{name}' is unsupported"


def deepseek(body: Json) -> str | None:
    roles = [each["role"] for each in body["messages"]]
    wrong = [role for role in roles if role not in ("system", "user", "assistant", "tool")]
    return f"unknown variant `{wrong[0]}`, expected one of `system`, `user`, `assistant`, `tool`" if wrong else None


def gemini(body: Json) -> str | None:
    fields = {
        role: known | ({"name"} if role in ("system", "user", "tool") else set()) for role, known in ROLES.items()
    }
    fields["assistant"] = fields["assistant"] | {"extra_content", "function_call"}
    name = unknown(body, GEMINI, fields, WITHIN | {"extra_content"})
    if name:
        return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    if any(map(blank, body["messages"])):
        return "Unable to submit request because it has an empty text parameter."
    roles = [each["role"] for each in body["messages"]]
    if "system" in roles[1:]:
        return "System message should be the first one"  # it is only not heeded, which nobody would see
    return "contents is not specified" if roles == ["system"] else None


def anthropic(body: Json) -> str | None:
    roles = {each["role"] for each in body["messages"]}
    if any(map(blank, body["messages"])):
        return "messages: text content blocks must contain non-whitespace text"
    return "messages: at least one message is required" if roles <= {"system", "developer"} else None


FOLLOWS = {
    "": "system user",
    "system": "user assistant system",
    "user": "assistant system user",
    "assistant": "assistant user tool",
    "tool": "assistant tool",
}


def mistral(body: Json) -> str | None:
    roles = {**ROLES, "assistant": ROLES["assistant"] | {"prefix"}, "tool": ROLES["tool"] | {"name"}}
    roles.pop("developer")
    name = unknown(body, MISTRAL, roles, WITHIN | {"index"})
    if name:
        return f"Extra inputs are not permitted: {name}"
    if any("parameters" not in tool["function"] for tool in body.get("tools") or []):
        return "Field required: parameters"
    before, waiting = "", 0
    for each in body["messages"]:
        role, calls = each["role"], each.get("tool_calls") or []
        if role not in FOLLOWS[before].split():
            return f"Unexpected role '{role}' after role '{before}'"
        if role == "assistant" and not calls and not each["content"]:
            return "Assistant message must have either content or tool_calls"
        ids = [call["id"] for call in calls] + ([each["tool_call_id"]] if role == "tool" else [])
        if any(re.fullmatch("[a-zA-Z0-9]{9}", id) is None for id in ids):
            return "Tool call id must be a-z, A-Z, 0-9, with a length of 9"
        waiting += len(calls) - (role == "tool")
        if waiting < 0 or (waiting and role not in ("assistant", "tool")):
            return "Not the same number of function calls and responses"
        before = role
    if waiting:
        return "Not the same number of function calls and responses"
    last = body["messages"][-1]
    is_right = last["role"] in ("user", "tool") or last.get("prefix")
    return None if is_right else "Expected last role User or Tool (or Assistant with prefix True) for serving"


def template(body: Json) -> str | None:
    """A gateway that checks OpenAI's schema, before a model with a chat template like Mistral's and Gemma's."""
    name = unknown(body, OPENAI, {role: fields | {"name"} for role, fields in ROLES.items() if role != "developer"})
    if name:
        return f"Extra inputs are not permitted: {name}"
    spoken = body["messages"][body["messages"][0]["role"] == "system" :]
    turns = [each["role"] for each in spoken if each["role"] != "tool" and not each.get("tool_calls")]
    if any(role != ("user", "assistant")[at % 2] for at, role in enumerate(turns)):
        return "Conversation roles must alternate user/assistant/user/assistant/..."
    return None if spoken and spoken[-1]["role"] in ("user", "tool") else "No user query found in messages."


JUDGES: dict[str, Judge] = {
    "anthropic": anthropic,
    "cerebras": cerebras,
    "deepseek": deepseek,
    "gemini": gemini,
    "groq": groq,
    "mistral": mistral,
    "openai": template,
}


class Strict:
    """A server of one kind: `base_url`, and the bodies that reached it."""

    def __init__(self, api: Api, judge: Judge, *, status: int = 400) -> None:
        self._api = api
        self._judge = judge
        self._status = status
        self.base_url = f"{api.url}/v1"
        self.says = [script.chunk({"role": "assistant", "content": "Hello."}), script.chunk({}, "stop")]
        api.answers["/v1/chat/completions"] = self._answer

    @property
    def bodies(self) -> list[Json]:
        return [asked.json for asked in self._api.asked]

    async def _answer(self, api: Api, receive: Any, send: Any) -> None:
        refusal = self._judge(api.asked[-1].json)
        status, kind = (self._status, "application/json") if refusal else (200, "text/event-stream")
        events = [b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in self.says]
        body = b"".join([*events, b"data: [DONE]\n\n"])
        if refusal:
            body = msgspec.json.encode({"error": {"message": refusal, "type": "invalid_request_error"}})
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
