"""The pages on platforms say what the code does: the table of marks, what is kept back, the URLs, the tools."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from platforms.golden_requests import FILES
from test_docs import rows
from test_examples import blocks

from firstword import plugins
from firstword.platforms import named
from firstword.platforms._detect import MARKS
from firstword.server.routes import CHAT, route

OVERVIEW = ROOT / "docs" / "platforms.md"
PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "platforms").glob("*.md"))}
EVERY_PAGE = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def test_every_engine_has_a_page_and_a_row() -> None:
    """Somebody adds a platform; plain OpenAI is no engine, and is on the first page."""
    known = set(plugins.known("platforms"))
    named_there = {
        row[0].strip("`"): row for row in rows(OVERVIEW, r"`[a-z]+`") if len(row) == 4 and row[2] not in PLACES
    }

    assert set(PAGES) == known - {"openai"} and set(named_there) == known
    assert [name for name in PAGES if f"(platforms/{name}.md)" not in named_there[name][1]] == []
    assert {name for name, row in named_there.items() if row[2] == "no"} | {"openai"} == known - {
        mark.platform for mark in MARKS
    }


PLACES = {f"`{mark.name}`" for mark in MARKS}


def test_the_page_prints_the_table_of_marks() -> None:
    """A mark is added, narrowed or moved: the order counts."""
    printed = [row for row in rows(OVERVIEW, r"`[a-z]+`") if len(row) == 4 and row[2] in PLACES]
    assert printed == [[f"`{mark.platform}`", mark.where, f"`{mark.name}`", mark.why] for mark in MARKS]


@EVERY_PAGE
def test_what_is_typed_into_an_engine_is_json_and_leads_to_its_own_path(page: Path) -> None:
    """A comma is missing, or the path of another engine was copied. Base URLs and full ones are told apart by hand."""
    shown = blocks(page, "json") + blocks(page, "text")
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "text"):
        ast.parse(block)

    urls = re.findall(r"https://your-server\.example[^\"\s]*", "".join(shown))
    assert len(urls) == 1
    path = urlsplit(urls[0]).path
    found = route(path if path.endswith(CHAT) else path + CHAT, lambda name: name in PAGES)
    assert found is not None and found.platform == (None if page.stem == "agora" else page.stem)


@EVERY_PAGE
def test_what_is_kept_back_is_named(page: Path) -> None:
    """All that the recorded requests have and the model does not get, at the root and in messages."""
    text = page.read_text("utf-8")
    kept = {f"`{key}`" for key in re.findall(r"`([a-zA-Z_]+)`", text[text.index("**Kept back**") :])}
    for case in FILES[page.stem]:
        if case["turn"]["platform"] != page.stem:
            continue
        gone = {f"`{key}`" for key in case["body"].keys() - case["leaves"].keys()}
        for message, left in zip(case["body"]["messages"], case["leaves"]["messages"], strict=True):
            gone |= {f"`{key}`" for key in message.keys() - left.keys()}
        # A session's own field is taken wherever it is told; the page says so in words.
        assert gone - kept <= ({"`session_id`"} if page.stem == "pipecat" else set())


@EVERY_PAGE
def test_a_page_has_its_sessions_its_table_and_its_sources(page: Path) -> None:
    """Each is built alike, so that a reader finds the same thing in the same place."""
    text = page.read_text("utf-8")
    assert all(each in text for each in ("**Sessions**", "| Works | How |", "**Kept back**", "Sources: "))


@EVERY_PAGE
def test_the_tools_that_an_engine_always_has_are_told(page: Path) -> None:
    """By which the call is ended and transferred, on the engine's page or on that about actions."""
    told = page.read_text("utf-8") + (ROOT / "docs" / "actions.md").read_text("utf-8")
    spoken = {"end_call", "endCall", "end_call_tool", "hang_up", "hangup", "transfer", "transferCall"}
    tools = named(page.stem).engine_tools & (spoken | {"transfer_to_number", "transfer_to_agent"})
    assert [each for each in sorted(tools) if f"`{each}`" not in told] == []


def test_every_setting_that_the_pages_name_is_one() -> None:
    """A name was misremembered, and whoever sets it sees the server refuse to start."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for page in (OVERVIEW, *PAGES.values()):
        settings = set(re.findall(r"\b(?:FIRSTWORD|LLM|AGORA)_[A-Z_]+\b", page.read_text("utf-8")))
        assert [each for each in sorted(settings) if f"| `{each}` |" not in readme] == [], page.name
