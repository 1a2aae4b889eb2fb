"""Cerebras: OpenAI's dialect at another place, which refuses every field that it does not know with a 400.

Source: the types of its Python library, cerebras-cloud-sdk 1.91.
"""

from __future__ import annotations

from ._accepts import MESSAGES, SPOKEN, Accepts
from .openai import OpenAI

FIELDS = (
    "clear_thinking disable_reasoning frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages "
    "min_completion_tokens min_tokens model model_parameters n parallel_tool_calls prediction presence_penalty "
    "prompt_cache_key reasoning_effort reasoning_format response_format seed service_tier stop stream stream_options "
    "temperature tool_choice tools top_logprobs top_p user"
)


class Cerebras(OpenAI):
    """The OpenAI dialect, at Cerebras."""

    base_url = "https://api.cerebras.ai/v1"
    accepts = Accepts(
        fields=frozenset(FIELDS.split()),
        message_fields={
            **MESSAGES,
            "assistant": SPOKEN | {"reasoning", "tool_calls"},
            "tool": MESSAGES["tool"] | {"name"},
            "call": MESSAGES["call"] | {"index"},
        },
    )


provider = Cerebras()
