"""The page on what a model is told shows what the rules do, and what each provider accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import ROOT

from firstword import images, plugins
from firstword.calls import mended
from firstword.history import (
    alternating,
    joined,
    with_known_fields,
    with_note,
    with_one_system,
    with_roles,
    without_empty,
)
from firstword.providers._accepts import MESSAGES
from firstword.providers.openai import OpenAI

Json = dict[str, Any]

PAGE = (ROOT / "docs" / "history.md").read_text("utf-8")
RULES: dict[str, Callable[[list[Json]], list[Json]]] = {
    "joined": joined,
    "with_note": lambda messages: with_note(messages, 1),
    "mended": mended,
    "with_roles": lambda messages: with_roles(messages, {"developer": "system"}),
    "without_empty": without_empty,
    "with_one_system": with_one_system,
    "alternating": alternating,
    "with_known_fields": lambda messages: with_known_fields(messages, MESSAGES),
}


def sections() -> dict[str, str]:
    """Return what stands under each heading that names a rule."""
    found = re.findall(r"^##+ [^\n]*: `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(found)


def test_every_rule_has_its_section() -> None:
    """A rule is added."""
    assert sections().keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_does_what_the_page_shows(name: str) -> None:
    """Before and after."""
    before, after = map(json.loads, re.findall(r"```json\n(.*?)```", sections()[name], re.DOTALL))
    assert before != after
    assert RULES[name](before) == after


def providers() -> dict[str, OpenAI]:
    ours = plugins.ours("providers")
    speaking = {name: provider for name, provider in ours.items() if isinstance(provider, OpenAI)}
    return {**speaking, "strict": OpenAI().strictly()}


def test_every_provider_stands_in_the_table_as_it_is() -> None:
    """A provider is added, or accepts something else."""
    told = {}
    for line in re.findall(r"^\| `?(\w+)`? \| .* \|$", PAGE, re.MULTILINE):
        told.setdefault(line, [row for row in PAGE.splitlines() if re.match(rf"\| `?{line}`? \|", row)])
    for name, provider in providers().items():
        accepts, cells = provider.accepts, [cell.strip() for cell in told[name][0].strip("|").split("|")]
        assert name == "strict" or provider.base_url.split("/")[2] in cells[1]
        assert cells[2] == ("passed on" if accepts.fields is None else "taken out")
        assert (accepts.fields is None) == (accepts.message_fields is None)
        assert cells[3] == ("passed on" if accepts.empty else "replaced")
        assert cells[4] == ("one, the first" if accepts.one_system or accepts.alternates else "anywhere")
        assert cells[5] == ("alternate" if accepts.alternates else "any order")
        assert cells[6] == (", ".join(f"`{each}`" for each in accepts.names.values()) or "–")
        assert name == "strict" or len(told[name]) == 2, "its source is missing"


def test_the_bounds_of_kept_images_are_told_as_they_are() -> None:
    """A constant is changed."""
    minutes, sessions = int(images.KEPT / 60), f"{images.MAX_SESSIONS:,}"
    one, all_ = images.MAX_BYTES_OF_ONE >> 20, images.MAX_BYTES >> 20
    text = " ".join(PAGE.split())
    assert f"A session's go {minutes} minutes after its last turn; there are at most {sessions} sessions" in text
    assert f"{one} MiB for each and {all_} MiB for all" in text
