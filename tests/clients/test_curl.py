"""curl as the caller: the lines that stand in the README, typed into a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from conftest import ROOT
from served import Served

from firstword.testing import Upstream, script

LINE = (
    "curl -N localhost:8000/chat/completions -H 'Content-Type: application/json' -H 'Authorization: Bearer KEY' -d "
    '\'{"messages":[{"role":"user","content":"Hello, how are you?"}],"stream":true,"model":"your-model"}\''
)

README = re.findall(r"^```bash\n(curl .*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True, scope="module")
def _curl() -> None:
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no curl on this machine")


@contextmanager
def typed(line: str, server: Served) -> Iterator[subprocess.Popen[str]]:
    """Run a line of the README in a shell, against `server`."""
    command = ["sh", "-c", "exec " + line.replace("localhost:8000", f"localhost:{server.port}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("line", [LINE, *README])
def test_the_line_hears_the_model(server: Served, line: str) -> None:
    """A new user copies a line as it stands; the model, or the demo, answers event by event."""
    with typed(line.replace('"model":"demo",', '"model":"demo","pace":0,'), server) as curl:
        events = curl.communicate(timeout=10)[0].split("\n\n")

    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert events[-2:] == ["data: [DONE]", ""]
    assert said == "Hello, how are you?" or said.startswith("Hello! I am well, thank you for asking.")


def test_the_readme_shows_such_lines() -> None:
    """The README is written anew, and the test above tries nothing of it."""
    assert len(README) >= 2


def test_the_words_are_shown_as_they_come_and_a_break_reaches_the_upstream(server: Served, upstream: Upstream) -> None:
    """The model stalls after one word; the user sees that word and then presses CTRL+C."""
    marker = uuid4().hex
    body = {
        "model": "your-model",
        "stream": True,
        "user": marker,
        "messages": [{"role": "user", "content": "Hello"}],
        "script": script.stalls_after("Once"),
    }
    line = LINE.partition(" -d ")[0] + " -d " + shlex.quote(json.dumps(body))
    with typed(line, server) as curl:
        assert curl.stdout is not None
        lines = [curl.stdout.readline() for _ in range(3)]
        curl.terminate()

    (record,) = upstream.seen(marker, until="closed", count=1)
    assert '"content":"Once"' in lines[2]
    assert record.closed_by == "peer"
