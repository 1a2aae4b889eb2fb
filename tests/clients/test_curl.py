"""curl as the caller: the line that stands in the README, typed into a shell."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from served import Served

from firstword.testing import Upstream, script

LINE = (
    "curl -N localhost:8000/chat/completions -H 'Content-Type: application/json' -H 'Authorization: Bearer KEY' -d "
    '\'{"messages":[{"role":"user","content":"Hello, how are you?"}],"stream":true,"model":"your-model"}\''
)


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


def test_the_official_line_hears_the_model(server: Served, upstream: Upstream) -> None:
    """A new user copies the line; the model echoes its words, event by event."""
    with typed(LINE, server) as curl:
        events = curl.communicate(timeout=10)[0].split("\n\n")

    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert events[-2:] == ["data: [DONE]", ""]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello, how are you?"


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
