"""Anthropic: its API in OpenAI's dialect, which passes over fields that it does not know, and refuses empty text.

Source: its page on OpenAI compatibility. It puts all system messages in front by itself.
"""

from __future__ import annotations

from ._accepts import Accepts
from .openai import OpenAI


class Anthropic(OpenAI):
    """The OpenAI dialect, at Anthropic."""

    base_url = "https://api.anthropic.com/v1"
    accepts = Accepts(empty=False)


provider = Anthropic()
