"""What every test may ask for: a real upstream process, a real server around an App, a caller that counts bytes."""

from __future__ import annotations

import os
import queue
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from caller import Caller
from collector import Collector
from command import Process, Run
from redis_of_a_test import RedisServer
from requests_of_a_test import Line
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream
from firstword.transport import Transport

ROOT = Path(__file__).parent.parent


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note how it ended: `.ci/run` tries failing tests again only when all the others were run."""
    cache = getattr(session.config, "cache", None)
    if cache is not None:
        cache.set("firstword/ended", int(exitstatus))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine() -> None:
    """A developer's own keys and proxies must not decide whether a test passes."""
    for name in list(os.environ):
        if name.startswith(("LLM_", "FIRSTWORD_", "OPENAI_", "GROQ_", "AGORA_", "OTEL_")) or name.lower().endswith(
            "_proxy"
        ):
            del os.environ[name]


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A scripted model in a process of its own; requests carry their scripts, so that all tests share it."""
    with Upstream.start() as process:
        yield process


@pytest.fixture
def run(tmp_path: Path, upstream: Upstream) -> Iterator[Run]:
    """Run commands in an empty folder, the scripted model behind them."""
    running: list[Process] = []

    def start(*command: str, **environment: str) -> Process:
        known = {**os.environ, "LLM_BASE_URL": upstream.base_url, "PYTHONUNBUFFERED": "1", **environment}
        running.append(Process(list(command), tmp_path, known))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A store of this test's own."""
    server = RedisServer()
    yield server
    server.kill()


@pytest.fixture
def serve() -> Iterator[Callable[[App], Served]]:
    """Serve Apps under uvicorn, each in a thread with a loop of its own."""
    running: list[Served] = []

    def start(app: App) -> Served:
        running.append(Served(app))
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture
def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and the variables that lead to it."""
    monkeypatch.setenv("FIRSTWORD_TRACES", "otlp")
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


@pytest.fixture
def serving(tmp_path: Path, upstream: Upstream) -> Iterator[Run]:
    """Run `firstword serve` in an empty folder, the scripted model behind it; `--port` may come again."""
    command = (str(Path(sys.executable).parent / "firstword"), "serve", "--host", "127.0.0.1", "--port", "0")
    running: list[Process] = []

    def start(*more: str, **environment: str) -> Process:
        known = {**os.environ, "LLM_BASE_URL": upstream.base_url, "PYTHONUNBUFFERED": "1", **environment}
        running.append(Process([*command, *more], tmp_path, known))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture
def app(upstream: Upstream) -> App:
    """An App for a test to put its hooks on."""
    return App(base_url=upstream.base_url)


@pytest.fixture
def over(app: App) -> queue.SimpleQueue[Turn]:
    """The turns of `app` as an after_turn hook gets them."""
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(turns.put)
    return turns


@pytest.fixture
def server(serve: Callable[[App], Served], upstream: Upstream) -> Served:
    """The plain server that a new user runs, in front of the scripted model."""
    return serve(App(base_url=upstream.base_url))


@pytest.fixture
def caller(server: Served) -> Caller:
    """Somebody who calls `server`."""
    return Caller(server.url)


@pytest.fixture
def marker(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A pool of its own; whatever a test does with it, nothing is left."""
    pool = Transport()
    yield pool
    assert pool.in_use == 0
    await pool.close()
    assert pool.open_count == 0


@pytest.fixture
def line(transport: Transport, upstream: Upstream, request: pytest.FixtureRequest) -> Line:
    """Requests of this test through that pool."""
    return Line(transport, upstream, request.node.name)
