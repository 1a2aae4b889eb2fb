"""Gemini: Google's API in OpenAI's dialect, which refuses fields that it does not know with a 400.

Sources: its page on OpenAI compatibility, and what callers of it reported: `seed` and the penalties are unknown to it,
empty text is refused, of several system messages it heeds the last one only, and a request needs more than those.
"""

from __future__ import annotations

from ._accepts import MESSAGES, Accepts
from .openai import OpenAI

FIELDS = (
    "extra_body function_call functions max_completion_tokens max_tokens messages modalities model n reasoning_effort "
    "response_format service_tier stop stream stream_options temperature tool_choice tools top_p"
)


class Gemini(OpenAI):
    """The OpenAI dialect, at Google."""

    base_url = "https://generativelanguage.googleapis.com/v1beta/openai"
    accepts = Accepts(
        empty=False,
        one_system=True,
        fields=frozenset(FIELDS.split()),
        message_fields={
            **MESSAGES,
            # Its signature of what it thought has to come back, or it is a 400.
            "assistant": frozenset({"role", "content", "extra_content", "function_call", "tool_calls"}),
            "tool": frozenset({"role", "content", "name", "tool_call_id"}),
            "call": MESSAGES["call"] | {"extra_content"},
        },
        roles={"developer": "system"},
    )


provider = Gemini()
