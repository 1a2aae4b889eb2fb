"""What is the operator's alone: a key of its own for it, and a port of its own."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from caller import Caller
from command import Run
from served import Served

from firstword import App, ConfigError
from firstword.admission import Gate
from firstword.errors import Error
from firstword.serving.aside import bound_aside
from firstword.testing import Upstream

AWAY, HERE = ("203.0.113.9", 50000), ("127.0.0.1", 50000)
KEY = "the-operator-s"
SERVE = (sys.executable, "-m", "firstword", "serve", "--host", "127.0.0.1", "--port", "0")


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"host": "localhost", "authorization": f"Bearer {key}"}


def opens(gate: Gate, headers: dict[str, str], client: tuple[str, int]) -> bool:
    """True when the operator's pages are shown."""
    try:
        gate.admit_operator(headers, client)
    except Error:
        return False
    return True


def gate_of(*keys: str, operator: str | None = KEY) -> Gate:
    """A gate in front of a held key."""
    return Gate(keys, holds_key=True, open_to_all=False, operator_key=operator)


# --- the key -----------------------------------------------------------------------------------------------


def test_with_an_operator_s_key_no_other_opens_its_pages() -> None:
    """Not a client's, and not the way from this machine; and it opens no turn."""
    gate = gate_of("client")

    assert opens(gate, bearer(KEY), AWAY) and opens(gate, {"host": "localhost", "x-api-key": KEY}, HERE)
    assert not any(opens(gate, headers, HERE) for headers in (bearer("client"), {"host": "localhost"}, bearer("")))
    with pytest.raises(Error):
        gate.admit(bearer(KEY), AWAY)


def test_without_one_it_is_as_before() -> None:
    """A gate key opens them; without gate keys this machine does."""
    assert opens(gate_of("client", operator=None), bearer("client"), AWAY)
    assert not opens(gate_of("client", operator=None), {"host": "localhost"}, HERE)
    assert opens(gate_of(operator=None), {"host": "localhost"}, HERE)
    assert not opens(gate_of(operator=None), {"host": "localhost"}, AWAY)


def test_only_its_hash_need_be_known() -> None:
    """`sha256:` says so: 64 hex digits alone may be a key."""
    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    by_hash, by_text = gate_of(operator=f"sha256:{hashed}"), gate_of(operator=hashed)

    assert opens(by_hash, bearer(KEY), AWAY) and not opens(by_hash, bearer(f"sha256:{hashed}"), AWAY)
    assert opens(by_text, bearer(hashed), AWAY) and not opens(by_text, bearer(KEY), AWAY)
    for wrong in ("sha256:", "sha256:00", "sha256:" + "x" * 64):
        with pytest.raises(ConfigError, match="FIRSTWORD_OPERATOR_KEY"):
            gate_of(operator=wrong)


async def test_the_pages_of_a_server_follow(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, serve: Callable[[App], Served]
) -> None:
    """Over the wire, with a gate key beside it."""
    monkeypatch.setenv("FIRSTWORD_OPERATOR_KEY", KEY)
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-held", keys=["client"])).url)

    async def seen(key: str) -> list[int]:
        pages = [await caller.hears(path=path, method="GET", headers=bearer(key)) for path in ("/metrics", "/models")]
        ready = await caller.hears(path="/ready", method="GET", headers=bearer(key))
        return [*(each.status for each in pages), len(ready.json)]

    assert [await seen(KEY), await seen("client")] == [[200, 401, 3], [401, 200, 1]]


# --- the port ----------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


INSIDE = ["/metrics", "/health", "/ready"]
OUTSIDE = ["/models", "/docs", "/openapi.json", "/"]


@pytest.mark.parametrize("how", [[], ["--workers", "2"]], ids=["one process", "two workers"])
async def test_the_operator_s_pages_are_on_their_port_and_on_no_other(
    run: Run, port: int, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same processes answer on both; a turn is answered on the callers' port only."""
    monkeypatch.setenv("FIRSTWORD_OPERATOR_PORT", str(port))
    server = run(*SERVE, *how)
    assert server.says(rf"For the operator: http://127\.0\.0\.1:{port}/metrics")
    callers, operator = server.caller(), Caller(f"http://127.0.0.1:{port}")

    for path in INSIDE:
        assert (await operator.hears(path=path, method="GET")).status == 200
        assert (await callers.hears(path=path, method="GET")).status == 404
    for path in OUTSIDE:
        assert (await operator.hears(path=path, method="GET")).status == 404
        assert (await callers.hears(path=path, method="GET")).status == 200
    assert (await callers.says(model="demo", pace=0)).done
    for path in ("/chat/completions", "/s/x/v1/chat/completions", "/webhooks/agora"):
        assert (await operator.hears({"model": "demo"}, path=path)).status == 404
    # What a caller says of the port is not what counts.
    headers = {"host": f"127.0.0.1:{port}", "x-forwarded-port": str(port), "forwarded": f"host=127.0.0.1:{port}"}
    assert (await callers.hears(path="/metrics", method="GET", headers=headers)).status == 404
    server.tell(signal.SIGTERM)
    server.ends()
    assert not re.search(r"Traceback|Error", server.output)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_a_restart_of_all_workers_keeps_the_operator_s_port(
    run: Run, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP: the successors answer on it, and it was never away."""
    monkeypatch.setenv("FIRSTWORD_OPERATOR_PORT", str(port))
    server = run(*SERVE, "--workers", "2")
    server.caller()
    operator = Caller(f"http://127.0.0.1:{port}")
    server.tell(signal.SIGHUP)
    server.says(r"(?s)Retired child process.*Retired child process")

    assert [(await operator.hears(path="/health", method="GET")).status for _ in range(10)] == [200] * 10


async def test_an_app_that_runs_itself_has_both_ports(
    run: Run, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python custom_llm.py`."""
    monkeypatch.setenv("FIRSTWORD_OPERATOR_PORT", str(port))
    (tmp_path / "mine.py").write_text("from firstword import App\n\napp = App()\napp.run('127.0.0.1', 0)\n")
    server = run(sys.executable, "mine.py")

    assert (await server.caller().hears(path="/health", method="GET")).status == 404
    assert (await Caller(f"http://127.0.0.1:{port}").hears(path="/health", method="GET")).status == 200


@pytest.mark.parametrize("how", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_a_port_that_cannot_be_had_is_told_in_a_sentence(
    run: Run, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("FIRSTWORD_OPERATOR_PORT", str(port))
        server = run(*SERVE, *how)
        assert server.ends() == 1
    assert f"The operator's port {port} cannot be had" in server.output and "Traceback" not in server.output


def test_the_operator_s_port_is_not_that_of_the_callers() -> None:
    """It would hide the pages that it is for."""
    with pytest.raises(ConfigError, match="is the callers' port 8000"):
        bound_aside(("127.0.0.1", 8000), 8000)
    assert bound_aside(None, 8000) == []
