"""The READMEs say what the code does: each setting, error, option and line to type, in both languages.

What the documents show is run by `test_examples.py`; here is compared what they tell.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer
from conftest import ROOT
from pydantic_settings import BaseSettings

from firstword import errors
from firstword.cli import cli
from firstword.settings import Settings
from firstword.settings.brain import Brain
from firstword.settings.running import Running

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README-CN.md"
RUNNING = ROOT / "docs" / "running.md"
BOTH = pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=lambda path: path.name)

# What a server that holds a key and no gate keys says when it does not start.
HELD = "The server holds a key (LLM_API_KEY, or a Model's api_key):"

# Raised at start only, a base that is never raised by that name, or told to the model.
NEVER_SENT = {errors.Error, errors.ConfigError, errors.RequestError, errors.ToolError}


def rows(readme: Path, first: str) -> list[list[str]]:
    """Return the cells of every table row whose first cell matches `first`."""
    cells = [line.strip("|").split(" | ") for line in readme.read_text("utf-8").splitlines() if line.startswith("| ")]
    trimmed = [[cell.strip() for cell in row] for row in cells]
    return [row for row in trimmed if re.fullmatch(first, row[0])]


def blocks(readme: Path) -> list[tuple[str, str]]:
    """Return every code block as (language, text), its comments and the words of its pictures left out."""
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [
        (kind, re.sub(r'\[.*?\]|".*?"|\|.*?\||(?<=: ).*|(?<=as ).*|(?<=loop ).*', "", text, flags=re.MULTILINE))
        if kind == "mermaid"
        else (kind, re.sub(r"(^|\s)#.*", "", text))
        for kind, text in found
    ]


def headings(readme: Path) -> list[str]:
    """Return the levels of the headings, in order."""
    text = re.sub(r"^ *```.*?^ *```$", "", readme.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+(?= )", text, re.MULTILINE)


def names_of(settings: type[BaseSettings]) -> list[str]:
    """Return the names outside of these settings."""
    return [
        getattr(field.validation_alias, "choices", [f"FIRSTWORD_{name.upper()}"])[0]
        for name, field in settings.model_fields.items()
    ]


@BOTH
def test_every_setting_stands_in_the_table(readme: Path) -> None:
    """Somebody adds a setting: its name outside, its default and its meaning, in the order of the code."""
    shown = rows(readme, r"`(LLM|FIRSTWORD|AGORA)_[A-Z_]+`")
    assert [row[0].strip("`") for row in shown] == names_of(Brain)
    assert all(len(row) == 3 and all(row) for row in shown)


def test_every_setting_of_the_operator_stands_in_the_guide() -> None:
    """Somebody adds one: docs/running.md has its name, its default and the words of the code, in the code's order."""
    shown = rows(RUNNING, r"`FIRSTWORD_[A-Z_]+`")
    told = [str(field.description).rstrip(".") for field in Running.model_fields.values()]
    assert [row[0].strip("`") for row in shown] == names_of(Running)
    assert [row[2][: len(text)] for row, text in zip(shown, told, strict=True)] == told
    assert all(len(row) == 3 and all(row) for row in shown)


def test_a_setting_is_of_one_kind() -> None:
    """It is the brain's or the operator's, and stands in one table."""
    assert list(Settings.model_fields) == [*Brain.model_fields, *Running.model_fields]


def test_a_setting_is_explained_in_the_words_of_the_code() -> None:
    """A description is changed in the code; the README must not tell the old one."""
    shown = [row[2] for row in rows(ENGLISH, r"`(LLM|FIRSTWORD|AGORA)_[A-Z_]+`")]
    told = [str(field.description).rstrip(".") for field in Brain.model_fields.values()]
    assert [text[: len(start)] for text, start in zip(shown, told, strict=True)] == told


@BOTH
def test_every_error_that_a_caller_can_meet_stands_in_the_table(readme: Path) -> None:
    """Somebody adds an error: its status and its code have a row, with a cause and what to do."""
    shown = {row[1].strip("`"): row for row in rows(readme, r"\d{3}|.*502")}
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.Error)]
    told = {str(each.code): each.status for each in classes if each not in NEVER_SENT and each.code}

    assert set(told) <= set(shown)
    assert [code for code, status in told.items() if str(status) not in shown[code][0]] == []
    assert all(len(row) == 4 and all(row) for row in shown.values())
    assert "null" in shown  # a mistake of ours, which has no code


@BOTH
def test_every_option_of_the_command_is_named(readme: Path) -> None:
    """Somebody adds an option to `firstword serve`."""
    command = typer.main.get_command(cli)
    options = [name for option in command.commands["serve"].params for name in option.opts]  # type: ignore[attr-defined]
    named = [name for name in options if name.startswith("--")]
    assert len(named) > 3
    assert [name for name in named if f"`{name}`" not in readme.read_text("utf-8")] == []


@pytest.mark.parametrize(("name", "page"), [("agent", "agent.md"), ("webhook", "webhook.md")])
def test_every_option_of_the_other_commands_is_on_their_page(name: str, page: str) -> None:
    """Somebody adds a command to `firstword agent`, or an option to one."""
    command = typer.main.get_command(cli).commands[name]  # type: ignore[attr-defined]
    text = (ROOT / "docs" / page).read_text("utf-8")
    inner = getattr(command, "commands", {})
    assert [each for each in inner if f"| `{each}" not in text] == []
    options = {opt for each in (inner or {name: command}).values() for option in each.params for opt in option.opts}
    assert [each for each in sorted(options) if each.startswith("--") and f"`{each}" not in text] == []


@BOTH
def test_what_the_user_will_see_is_quoted_as_it_is(readme: Path) -> None:
    """A message is worded anew: a user who searches the README for it must find it."""
    text = readme.read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    for quoted in (HELD, "No key was sent.", "turn ended id=", "request refused status="):
        assert quoted in sources
    assert f"{HELD} on 0.0.0.0" in text
    assert "Uvicorn running on http://0.0.0.0:8000 (Press CTRL+C to quit)" in text
    assert "No key was sent." in text and "turn ended id=" in text and "request refused status=" in text


def test_both_readmes_are_built_alike() -> None:
    """A chapter is added in one language only."""
    assert headings(ENGLISH) == headings(CHINESE)
    assert len(headings(ENGLISH)) > 10


def test_both_readmes_show_the_same_code() -> None:
    """Comments, and the words within a picture, are in the reader's language; all else is the same."""
    english, chinese = blocks(ENGLISH), blocks(CHINESE)
    assert [kind for kind, _ in english] == [kind for kind, _ in chinese]
    for (_, mine), (_, theirs) in zip(english, chinese, strict=True):
        assert mine == theirs


def test_each_readme_leads_to_the_other() -> None:
    """A reader of the other language lands on the wrong page."""
    assert "(README-CN.md)" in ENGLISH.read_text("utf-8") and "(README.md)" in CHINESE.read_text("utf-8")


def test_every_example_is_run_by_a_test() -> None:
    """Somebody adds a file to examples/, and nothing notices when it breaks."""
    tests = (ROOT / "tests" / "test_examples.py").read_text("utf-8")
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    assert [example.name for example in examples if f'load("{example.stem}")' not in tests] == []


def test_the_documents_name_no_machine_and_no_key() -> None:
    """A path of somebody's own machine, or a real key, was pasted."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.*")]
    for document in documents:
        found = re.search(r"/(home|Users)/\w+|sk-[A-Za-z0-9]{16,}", document.read_text("utf-8"))
        assert found is None, f"{document.name}: {found}"


def test_every_client_stands_in_the_table() -> None:
    """A client is run by a new test, or its package is locked anew: the page tells what was tested, and with which."""
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    tests = sorted((ROOT / "tests" / "clients").glob("test_*.py"))
    assert len(tests) > 4 and [test.name for test in tests if f"(../tests/clients/{test.name})" not in page] == []

    node = (ROOT / "tests" / "clients" / "node" / "package.json").read_text("utf-8")
    locked = {
        f"{name} {version}" for name, version in re.findall(r'"(openai|ai|@ai-sdk/openai-compatible)": "(.*?)"', node)
    }
    packages = {
        "dev": ["openai"],
        "openai2": ["openai"],
        "livekit": ["livekit-agents"],
        "pipecat": ["pipecat-ai"],
        "schemathesis": ["schemathesis"],
        "agents": ["pydantic-ai-slim", "langchain-openai"],
    }
    for file, names in packages.items():
        lock = (ROOT / "locks" / f"{file}.txt").read_text("utf-8")
        found = re.findall(rf"^({'|'.join(names)})==(\S+)", lock, re.MULTILINE)
        locked |= {f"{name} {version}" for name, version in found}
    assert len(locked) == 10 and [each for each in sorted(locked) if f" {each} |" not in page] == []


def test_what_holds_for_each_client_is_what_is_tested() -> None:
    """A situation or a client is added to the tests, or one can do less than the page says."""
    tests = ast.parse((ROOT / "tests" / "clients" / "test_every_client.py").read_text("utf-8"))
    noted = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tests.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("CLIENTS", "INSTEAD", "RAISES")
        if isinstance(node.targets[0], ast.Name)
    }
    clients, instead = list(noted["CLIENTS"]), noted["INSTEAD"]
    functions = [node for node in tests.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    situations = [each for each in functions if each.name.startswith("test_")]
    meant = [
        [str(ast.get_docstring(each)), *(instead.get(each.name, {}).get(client, "✓") for client in clients)]
        for each in situations
    ]
    page = ROOT / "docs" / "clients.md"
    shown = [row for row in rows(page, ".*") if len(row) == len(clients) + 1]
    assert len(meant) > 10 and [[cell.removesuffix(" |") for cell in row] for row in shown] == [
        ["Situation", *clients],
        *meant,
    ]

    raised = [[client, *(f"`{error}`" for error in errors)] for client, errors in noted["RAISES"].items()]
    assert [row[0] for row in raised] == clients
    assert [row for row in raised if row not in rows(page, ".*")] == []
