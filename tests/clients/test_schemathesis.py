"""Schemathesis as the caller: the server does what its OpenAPI document says, and the document says all of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from framework import python_of
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream

EXAMPLES = "5"  # for each operation and phase; the phase of coverage has its own, two hundred
AGAIN = ("/v1/chat/completions", "/v1/audio/chat/completions", "/v1/models")  # the same routes under another name


@pytest.mark.timeout(150)
def test_the_document_and_the_server_agree(serve: Callable[[App], Served], upstream: Upstream, tmp_path: Path) -> None:
    """All checks, with requests that the document allows and with those that it does not, in the same order always."""
    app = App(base_url=upstream.base_url, model="m1")

    @app.model("demo")
    async def demo(turn: Turn) -> str:
        """Say at once what the built-in model takes its time for."""
        return "Good day!"

    @app.voice
    def hums(text: str) -> bytes:
        """Be quicker than a real voice."""
        return bytes(1280)

    server = serve(app)
    words = [python_of("schemathesis"), "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    words += [
        "--url",
        server.url,
        "--checks",
        "all",
        "--max-examples",
        EXAMPLES,
        "--generation-deterministic",
        "--workers",
        "2",
    ]
    words += [word for path in AGAIN for word in ("--exclude-path", path)]
    done = subprocess.run([*words, "--no-color"], cwd=tmp_path, capture_output=True, text=True, timeout=140)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert "Tested: 7" in done.stdout
    assert server.left_open() == {"in_use": 0, "turns": 0}
