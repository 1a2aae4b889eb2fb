"""Groq: OpenAI's dialect at another place, which refuses every field that it does not know with a 400.

Sources: the types of its Python library, groq 1.7, for what it knows; its page on OpenAI compatibility for what it
refuses although they list it. `stream_options` is in its API reference only.
"""

from __future__ import annotations

from ._accepts import MESSAGES, Accepts
from .openai import OpenAI

FIELDS = (
    "citation_options compound_custom disable_tool_validation documents exclude_domains frequency_penalty "
    "function_call functions include_domains include_reasoning max_completion_tokens max_tokens messages metadata "
    "model n parallel_tool_calls presence_penalty reasoning_effort reasoning_format response_format search_settings "
    "seed service_tier stop store stream stream_options temperature tool_choice tools top_p user"
)
PLAIN = frozenset({"role", "content"})


class Groq(OpenAI):
    """The OpenAI dialect, at Groq."""

    base_url = "https://api.groq.com/openai/v1"
    accepts = Accepts(
        fields=frozenset(FIELDS.split()),
        message_fields={
            **MESSAGES,
            "system": PLAIN,
            "developer": PLAIN,
            "user": PLAIN,
            "assistant": PLAIN | {"function_call", "reasoning", "tool_calls"},
        },
    )


provider = Groq()
