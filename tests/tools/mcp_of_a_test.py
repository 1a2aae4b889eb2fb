"""MCP servers of a test, as processes, and the ends of ours that talk to them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_of_a_test import some_turn

from firstword.errors import ToolError
from firstword.tools.mcp import MCP

FOLDER = Path(__file__).parent
SERVER, OLD_SERVER = str(FOLDER / "mcp_server.py"), str(FOLDER / "old_mcp_server.py")


class HTTPServer:
    """The server as a process on a port of its own; `legacy` is one of before 2026."""

    def __init__(self, *, legacy: bool = False, port: int = 0, key: str | None = None) -> None:
        command = [sys.executable, SERVER, "http", str(port), *(["legacy"] if legacy else [])]
        env = {**os.environ, **({"MCP_SERVER_KEY": key} if key else {})}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


async def until(met: Callable[[], bool], within: float = 20.0) -> None:
    """Let the loop run until it is so; a server takes seconds to start."""

    async def look() -> None:
        while not met():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), within)


def names(mcp: MCP) -> list[str]:
    return [tool.name for tool in mcp.tools]


async def told(mcp: MCP, name: str, /, **arguments: Any) -> Any:
    [tool] = [tool for tool in mcp.tools if tool.name == name]
    return await tool.call(arguments, some_turn())


async def refused(mcp: MCP, name: str, /, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await told(mcp, name, **arguments)
    assert caught.value.tool == name
    return caught.value.message
