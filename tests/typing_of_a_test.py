"""`firstword agent`, as somebody types it in a folder of its own, with Agora's API on loopback behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agora_of_a_test import BY_BASIC, BY_TOKEN, Agora
from click.testing import Result
from typer.testing import CliRunner

from firstword.cli import cli

URL = "https://voice.example.com"
BOTH = {**BY_BASIC, **BY_TOKEN}
PIPE = {"AGORA_PIPELINE_ID": "pipe-1"}
Typed = Callable[..., Result]


def typed(*words: str, state: str, api: Agora | None = None, **environment: str) -> Result:
    """Type a command; `api` is whom it reaches, and `state` where it keeps what it remembers."""
    known = {"XDG_STATE_HOME": state, **(environment or BOTH)}
    if api is not None:
        known["AGORA_AGENTS_API_BASE_URL"] = api.url
    return CliRunner().invoke(cli, ["agent", *words], env=known, catch_exceptions=False)


def started(types: Typed, api: Agora, *more: str, **environment: str) -> dict[str, Any]:
    """Start an agent in the channel `room-7`, and return what a program reads of it."""
    words = ["start", "--url", URL, "--channel", "room-7", "--json", *more]
    result = types(*words, api=api, **(environment or BOTH), **PIPE)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found
