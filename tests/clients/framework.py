"""A voice framework as the caller: a small program that is run with the Python of the framework's own environment.

`make clients` makes the environments. Without one the tests are skipped, and say so; in CI that is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tool_streams import STREAMS

from firstword.testing import script

# Whatever a developer's shell holds: a test asks nobody but the server that it names.
KEYS = ("OPENAI_", "LIVEKIT_", "LLM_", "FIRSTWORD_")

# What a model says to each of them.
MODERN = [name for name in STREAMS if name != "the older function_call"]
OURS = script.events(script.role(), script.tool_call("balance", "{}", id="call_0"), script.finish("tool_calls"))
THEIRS = script.events(
    script.role(),
    script.text("Let me see."),
    script.tool_call("weather", "", id="call_1", index=0),
    *(script.tool_call(arguments=part, index=0) for part in ('{"city": "Pa', 'ris"}')),
    script.tool_call("clock", "{}", id="call_2", index=1),
    script.finish("tool_calls"),
    script.done(),
)
BESIDE = script.chunk(
    {"content": "Let me see.", "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "clock"}}]}
)
SAID = script.events(script.says("It rains, and it is noon."))


class Program:
    """A running program. It is asked in lines of JSON, and answers each with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, way: str, **asked: Any) -> Any:
        """Let it do something in one of its ways, and return what it says of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"way": way, **asked}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, f"the program ended with {self._process.wait(5)}; see its stderr"
        return json.loads(line)


@contextmanager
def running(framework: str) -> Iterator[Program]:
    """Run `<framework>_caller.py`, which lives as long as the tests."""
    python = ROOT / f".venv-{framework}" / "bin" / "python"
    if not (python.parent.parent / ".made").exists():
        what = f"{framework} is not installed; hint: make clients"
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)
    command = [str(python), str(Path(__file__).parent / f"{framework}_caller.py")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(KEYS)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Program(process)
        process.kill()
