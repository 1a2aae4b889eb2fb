"""docs/security.md: each line has its tests, which are there, and no lesson of others is missing."""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from conftest import ROOT

PAGE = ROOT / "docs" / "security.md"

# What happened to others, as their projects and the lists of vulnerabilities call it.
LESSONS = """
MAL-2026-2144 CVE-2026-42208 CVE-2026-35030 CVE-2026-49468 CVE-2026-48710 CVE-2026-42203 CVE-2026-40217
CVE-2026-35029 CVE-2026-47101 CVE-2026-47102 CVE-2026-114612 PYSEC-2026-4068 CVE-2024-6587 CVE-2025-66405
CVE-2026-110719 CVE-2026-55245 CVE-2026-45331 CVE-2026-45400 CVE-2026-24779 CVE-2026-25960 CVE-2026-108719
PYSEC-2026-4069 LiteLLM#39293 LiteLLM#39964 CVE-2025-11203 hive#1903 LiteLLM#25447 LiteLLM#13551 LiteLLM#29955
any-llm#975 CVE-2025-66416 CVE-2026-32871
"""


@lru_cache
def names_in(file: str) -> frozenset[str]:
    """Return the names of the tests of one file; none when it is not there."""
    path = ROOT / file
    if not path.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def cited(text: str) -> list[tuple[str, str]]:
    """Return the tests that a text names, as (file, name)."""
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)


def rows(chapter: str) -> list[list[str]]:
    """Return the cells of each row of the table in a chapter of the page, the head left out."""
    text = PAGE.read_text("utf-8").split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return cells[2:]


def test_each_test_that_the_page_names_is_there() -> None:
    """A test is renamed, or taken out, and a threat is held by nothing any more."""
    found = cited(PAGE.read_text("utf-8"))
    assert len(found) > 50
    assert [f"{file}::{name}" for file, name in found if name not in names_in(file)] == []


def test_each_threat_and_each_lesson_has_a_test() -> None:
    """Somebody adds a line, and believes that it holds."""
    threats, lessons = rows("Threats"), rows("Lessons of others")
    assert len(threats) > 20 and len(lessons) > 15
    assert [row[0] for row in threats if len(row) != 4 or not row[1] or not cited(row[2])] == []
    assert [row[0] for row in lessons if len(row) != 4 or not all(row[:3]) or not cited(row[3])] == []


def test_no_lesson_is_missing() -> None:
    """A row is dropped when the page is written anew."""
    text = PAGE.read_text("utf-8")
    assert [each for each in LESSONS.split() if each not in text] == []
