"""DeepSeek: OpenAI's dialect at another place, which passes over fields that it does not know.

Source: its API reference. It has four roles and refuses any other, and one name for the most tokens of an answer. What
it reasoned has to come back with a tool's result, so no field of a message is taken out.
"""

from __future__ import annotations

from ._accepts import Accepts
from .openai import OpenAI


class DeepSeek(OpenAI):
    """The OpenAI dialect, at DeepSeek."""

    base_url = "https://api.deepseek.com/v1"
    accepts = Accepts(names={"max_completion_tokens": "max_tokens"}, roles={"developer": "system"})


provider = DeepSeek()
