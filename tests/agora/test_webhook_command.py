"""`firstword webhook` as a process of its own: who sets notifications up sees them come."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import Process
from events_of_a_test import AGENT, CHANNEL, SECRET, a_turn, event, finished, tell

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
SET = {"FIRSTWORD_AGORA_WEBHOOK_SECRET": SECRET}
Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run the command in an empty folder, on a free port."""
    running: list[Process] = []

    def start(*words: str, **environment: str) -> Process:
        command = [FIRSTWORD, "webhook", "--host", "127.0.0.1", "--port", "0", *words]
        running.append(Process(command, tmp_path, {**os.environ, "PYTHONUNBUFFERED": "1", **environment}))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


async def test_events_are_shown_as_they_come(run: Run) -> None:
    """An agent joins, fails, and its turns are told; what people said is not shown, nor the secret."""
    process = run(**SET)
    engine = process.caller()
    for body in (
        event(101),
        event(110, {"module": "llm", "code": 502, "message": "bad\x1b[2Jgateway"}),
        event(103, {"contents": [{"role": "user", "content": "private words"}]}),
        finished(a_turn(2, 1799, llm_ttft=281.4), a_turn(3, None)),
        event(777),
    ):
        assert (await tell(engine, body)).status == 200
    process.says(r"777  unknown")

    assert "/webhooks/agora" in process.output
    process.says(rf"\d\d:\d\d:\d\d  101  agent_joined  {AGENT}  {CHANNEL}\n")
    process.says(r"110  agent_error .*\n    message: bad\?\[2Jgateway\n    module: llm\n    code: 502\n")
    process.says(r"    turn 2: e2e 1799  llm_ttft 281 ms\n    turn 3: no times\n")
    assert "private words" not in process.output and SECRET not in process.output

    assert (await engine.hears(path="/chat/completions")).status == 404
    assert (await tell(engine, event(101), signature="0" * 64)).status == 401
    process.tell(signal.SIGINT)
    process.ends()
    assert "Traceback" not in process.output


async def test_a_program_gets_all_of_it(run: Run) -> None:
    """One line of JSON for each event; the secret by an option."""
    process = run("--json", "--secret", SECRET)
    await tell(process.caller(), event(103, {"contents": [{"role": "user", "content": "你好"}]}, noticeId="n1"))
    found = json.loads(process.says(r'(\{"kind": 103.*\})\n')[1])
    assert (found["name"], found["id"]) == ("agent_history", "n1")
    assert found["payload"]["contents"] == [{"role": "user", "content": "你好"}]


@pytest.mark.parametrize(("environment", "says"), [({}, "FIRSTWORD_AGORA_WEBHOOK_SECRET is not set"), (SET, "in use")])
def test_what_keeps_it_from_starting_is_told(
    tmp_path: Path, deaf_port: int, environment: dict[str, str], says: str
) -> None:
    """No secret, or another program on the port."""
    command = [FIRSTWORD, "webhook", "--host", "127.0.0.1", "--port", str(deaf_port)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1 and says in done.stderr and "hint: " in done.stderr
    assert "Traceback" not in done.stderr and SECRET not in done.stderr
