"""Groq: OpenAI's dialect at another place."""

from __future__ import annotations

from .openai import OpenAI


class Groq(OpenAI):
    """The OpenAI dialect, at Groq."""

    base_url = "https://api.groq.com/openai/v1"


provider = Groq()
