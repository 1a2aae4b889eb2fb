"""A client as the caller: a small program that is run in the client's own environment.

`make clients` makes those of Python, and the first test that asks for Node that of Node. Without one the tests are
skipped, and say so; in CI that is a failure.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import ROOT
from tool_streams import STREAMS

from firstword.testing import script

HERE = Path(__file__).parent
NODE = HERE / "node"

# Whatever a developer's shell holds: a test asks nobody but the server that it names, and a client's packages are
# compiled once, into its environment, and not again by each test file.
KEYS = ("OPENAI_", "LIVEKIT_", "LLM_", "FIRSTWORD_", "LANGCHAIN_", "LANGSMITH_", "PYTHONDONTWRITEBYTECODE")

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


def without(what: str) -> NoReturn:
    """Skip the test; in CI, which installs what the tests need, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def python_of(environment: str) -> str:
    """Return the Python of `.venv-<environment>`; `here` is the one that runs the tests."""
    if environment == "here":
        return sys.executable
    folder = ROOT / f".venv-{environment}"
    if not (folder / ".made").exists():
        without(f"{environment} is not installed; hint: make clients")
    return str(folder / "bin" / "python")


def node() -> str:
    """Return the `node` command, once the packages are installed as the lock file says."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        without("there is no node and npm on this machine")
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".package-lock.json"
    with lock.open() as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(install, cwd=NODE, capture_output=True, text=True, timeout=50)
            if done.returncode:
                without(f"npm ci failed: {done.stderr.strip()[-300:]}")
    return found


@contextmanager
def running(program: str, environment: str) -> Iterator[Program]:
    """Run a program of this folder in its environment, `node` or one of Python; it lives as long as the tests."""
    command = [node() if environment == "node" else python_of(environment), str(HERE / program)]
    settings = {name: value for name, value in os.environ.items() if not name.startswith(KEYS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings) as process:
        yield Program(process)
        process.kill()
