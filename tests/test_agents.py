"""Agora's agents are told to leave: by which requests, and what becomes of those that fail. A server plays its API."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from actions_of_a_test import AGORA, BYE, CALLS, LEAVE, ON_AGORA
from caller import Caller
from served import Served

from firstword import App, ConfigError, Turn
from firstword.action import Agent
from firstword.agents import ANSWER_TIMEOUT, Agents
from firstword.testing import Upstream
from firstword.transport import Transport

BASIC = "Basic " + base64.b64encode(b"key:secret").decode()


class Agora(ThreadingHTTPServer):
    """Answers as `answers` say, in order, and then 200 with nothing; `asked` is what was asked for."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, str | None, int]] = []
        self.has_asked = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Agora

    def do_GET(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        self.rfile.read(size)
        self.server.asked.append((self.command, self.path, self.headers.get("authorization"), size))
        status, value = self.server.answers.pop(0) if self.server.answers else (200, None)
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.has_asked.release()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def agora() -> Iterator[Agora]:
    server = Agora()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


ROOT = "/api/conversational-ai-agent/v2/projects/app/agents"
FOUND = {"data": {"count": 1, "list": [{"agent_id": "agent-1", "start_ts": 1, "status": "RUNNING"}]}}
NONE = {"data": {"count": 0, "list": []}}
TWO = {"data": {"count": 2, "list": [{"agent_id": "agent-1"}, {"agent_id": "agent-2"}]}}
A_TURN = Turn(request={"messages": []}, session="s")


def agents(transport: Transport, agora: Agora, **more: Any) -> Agents:
    return Agents(
        transport,
        **{"app_id": "app", "key": "key", "secret": "secret", "base_url": agora.url, "pauses": (0, 0), **more},
    )


async def test_an_agent_whose_id_is_known_is_told_to_leave(transport: Transport, agora: Agora) -> None:
    """One POST without a body, with the customer's ID and secret; the id is one part of the path, whatever it is."""
    for id in ("agent-1", "../../a?b#c/é"):
        await agents(transport, agora).leave(Agent(id, "room-7"), A_TURN, due=0.0)

    escaped = "..%2F..%2Fa%3Fb%23c%2F%C3%A9"
    assert agora.asked == [("POST", f"{ROOT}/{id}/leave", BASIC, 0) for id in ("agent-1", escaped)]


@pytest.mark.parametrize(
    ("answer", "leaves", "logged"),
    [
        ((200, FOUND), True, ""),
        ((200, NONE), False, ""),
        ((200, {"data": {"list": None}}), False, ""),
        ((200, TWO), False, "several agents"),
        ((200, ["odd"]), False, "no list"),
        ((200, {"data": {"list": ["odd"]}}), False, "no list"),
        ((200, b"<html>"), False, "no list"),
        ((200, None), False, "no list"),
        ((401, {"detail": "the secret is wrong", "reason": "InvalidPermission"}), False, "answered 401"),
        ((404, None), False, "answered 404"),
        ((200, b"x" * 70_000), False, "too long"),
    ],
    ids=str,
)
async def test_an_agent_is_found_by_its_channel(
    transport: Transport, agora: Agora, caplog: pytest.LogCaptureFixture, answer: Any, leaves: bool, logged: str
) -> None:
    """Its id is given out when it starts, after `llm.params` was written: the channel is known before."""
    agora.answers.append(answer)
    with caplog.at_level(logging.INFO, "firstword"):
        await agents(transport, agora).leave(Agent(None, "room 7&state=4"), A_TURN, due=0.0)

    assert [each[:2] for each in agora.asked] == [
        ("GET", f"{ROOT}?channel=room+7%26state%3D4&state=2"),
        *([("POST", f"{ROOT}/agent-1/leave")] if leaves else []),
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(logged) and logged in "".join(messages)
    assert "secret" not in "".join(messages) and BASIC not in "".join(messages)


@pytest.mark.parametrize(
    ("statuses", "count", "logged"),
    [([404], 1, ""), ([503], 2, ""), ([403], 1, "answered 403"), ([429, 500, 500], 3, "answered 500")],
    ids=str,
)
async def test_a_request_that_failed_is_sent_again_while_that_may_help(
    transport: Transport, agora: Agora, caplog: pytest.LogCaptureFixture, statuses: list[int], count: int, logged: str
) -> None:
    """The line stays open until one succeeds. One that is gone already is no error; a refusal stays one."""
    agora.answers += [(status, {"detail": "d", "reason": "r"}) for status in statuses]
    await agents(transport, agora).leave(Agent("agent-1", None), A_TURN, due=0.0)

    assert len(agora.asked) == count
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == bool(logged) and logged in "".join(errors)


async def test_an_api_that_is_away_is_an_error_in_the_log(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens there: three tries, and a line that says what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    gone = Agents(transport, app_id="a", key="k", secret="s", base_url=url, pauses=(0, 0))
    await gone.leave(Agent("agent-1", None), A_TURN, due=0.0)
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "agent does not leave" in error and "hint: check the AGORA_ settings" in error


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "https://api.agora.io/api/conversational-ai-agent/v2/projects/app/agents"),
        ({"area": "cn"}, "https://api.sd-rtn.com/cn/api/conversational-ai-agent/v2/projects/app/agents"),
        ({"base_url": "http://x/"}, "http://x/api/conversational-ai-agent/v2/projects/app/agents"),
        ({"base_url": "http://x", "area": "cn"}, "http://x/cn/api/conversational-ai-agent/v2/projects/app/agents"),
    ],
    ids=str,
)
async def test_each_area_has_its_host(transport: Transport, agora: Agora, more: dict[str, str], url: str) -> None:
    """As Agora documents them, and as its SDK reads the variable that changes the host."""
    assert agents(transport, agora, **{"base_url": "", **more})._url == url


async def test_a_host_that_is_none_is_a_configuration_error(transport: Transport, agora: Agora) -> None:
    """Told at start."""
    with pytest.raises(ConfigError):
        agents(transport, agora, base_url="api.agora.io")


async def test_a_call_is_ended_on_true_wires(
    serve: Callable[[App], Served], upstream: Upstream, agora: Agora, marker: str
) -> None:
    """A caller, a server, a model, Agora's API: each in its place. The server's stop waits for the farewell."""
    app = App(base_url=upstream.base_url, **AGORA, agora_agents_api_base_url=agora.url)

    @app.tool
    def hang_up(turn: Turn) -> str:
        """Hang up."""
        turn.end_call(say=BYE)
        return "hanging up"

    served = serve(app)
    heard = await Caller(served.url).says(user=marker, script=CALLS, **ON_AGORA)

    assert (heard.text, heard.finish_reasons, heard.done, agora.asked) == (BYE, ["stop"], True, [])
    await asyncio.to_thread(served.stop)
    assert agora.asked == [("POST", LEAVE, BASIC, 0)] and agora.has_asked.acquire(timeout=ANSWER_TIMEOUT)
    [record] = await upstream.wait_settled(marker)
    assert not ON_AGORA.keys() & record.body.keys()
