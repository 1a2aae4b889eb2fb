"""What the tests of shipped files share: the files, the tools that look at them, the settings they may name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from firstword.settings import Settings

TOOLS = ROOT / ".venv-shipping" / "bin"
needs_tools = pytest.mark.skipif(not TOOLS.exists(), reason="`make .venv-shipping/.made` installs the tools for this")

NAMES = {
    getattr(field.validation_alias, "choices", [f"FIRSTWORD_{name.upper()}"])[0]: name
    for name, field in Settings.model_fields.items()
}
IN_TURN = float(Settings.model_fields["turn_timeout"].default)  # seconds


class _Strict(yaml.SafeLoader):
    """YAML as Docker and Kubernetes read it: a key that stands twice is an error, where PyYAML takes the last one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{sorted(twice)} twice,{node.start_mark}"
        return node


def documents(path: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file, by its path in the repository."""
    return [each for each in yaml.load_all((ROOT / path).read_text("utf-8"), _Strict) if each]


def check(*command: str | Path, stdin: str | None = None) -> str:
    """Run a tool and return what it said; assert that it found nothing wrong."""
    done = subprocess.run(list(map(str, command)), input=stdin, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_are_settings(environment: dict[str, Any], others: set[str] | None = None) -> None:
    """Assert that a server would start with these variables: their names are known, and their values are possible."""
    assert set(environment) - (others or set()) <= set(NAMES), "no such setting"
    given = {name: str(value) for name, value in environment.items() if name in NAMES and value not in (None, "")}
    Settings(**{_field(name): value for name, value in given.items()})


def _field(name: str) -> str:
    return name if Settings.model_fields[NAMES[name]].validation_alias else NAMES[name]


def seconds(text: str) -> float:
    """Return a duration as Docker, nginx or systemd write it."""
    found = re.fullmatch(r"(\d+)(s|m|h)?", text)
    assert found, text
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]
