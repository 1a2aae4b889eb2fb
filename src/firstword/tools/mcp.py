"""An MCP server as a source of tools: connected in the background, asked again when it is away.

Rules:
- One task owns a server: it connects, listens and leaves, because what the SDK opens must be closed where it was
  opened. A turn's call goes through what that task holds, and fails at once when it lets go.
- While a server is away there are none of its tools; a turn goes on without them.
- A server's names, texts and results are data. A command to run (`stdio:`) is the operator's: it is written in code,
  and never taken from a setting or a request.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import logging
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from .. import clock
from ..errors import ConfigError, Error, ToolError
from ..turn import Turn
from . import _templates as templates
from ._checks import NAME, check_headers, check_limits, check_url
from ._mcp_words import MAX_DESCRIPTION, MAX_REASON, called, chosen, result
from ._outside import LONGEST_WAIT, UNKNOWN, Outside

START_TIMEOUT = 60.0  # seconds for a server's first words; a command may have to be downloaded before it runs
LIST_TIMEOUT = 10.0  # seconds for its list of tools, and so for the answer to whether it is still there
CHECK_AFTER = 30.0  # seconds after which it is asked for the list again, notice or not: it also keeps the line open
LOOK_PAUSE = 0.05  # seconds between two looks; a server may send notices without end
RETRY_AFTER = 0.5  # seconds before a server that is away is tried again; doubled each time
MAX_RETRY_AFTER = 30.0
CLOSE_TIMEOUT = 2.0  # seconds to take leave of a server before it is just left
INSTALL = 'pip install "firstword[mcp]"'
MAX_PAGES = 32  # of a list of tools

log = logging.getLogger("firstword")


class MCP:
    """An MCP server, `"https://tools.example/mcp"` (streamable HTTP) or a command, `["python", "server.py"]`.

    `"stdio:python server.py"` is a command as well. `only` are the server's own names of the tools to offer, all when
    left out; `prefix` stands before each name. `headers` (HTTP) and `env` (command) may hold `${NAME}`, which is read
    from the environment now, and so may the URL's query. `private` says that the URL's host is one of your own
    network. `commits` is what all its tools are; left out, those that the server calls read-only do not commit.

    Raises ConfigError when something in it cannot be meant, or the `mcp` package is not installed.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        only: Collection[str] = (),
        prefix: str = "",
        headers: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        filler: str | None = None,
        timeout: float | None = None,
        commits: bool | None = None,
        private: bool = False,
    ) -> None:
        _check_installed()
        if prefix and not NAME.fullmatch(prefix):
            raise ConfigError(f"The prefix {prefix!r} cannot begin a name.", hint='prefix="crm_"')
        if isinstance(only, str):
            raise ConfigError("The chosen tools of an MCP server are one text.", hint='only=["find"]')
        check_limits("an MCP server", timeout=timeout, filler=filler)
        command = _command(server)
        if command is not None and headers:
            raise ConfigError("An MCP server that is a command has no headers.", hint='env={"KEY": "${NAME}"}')
        if command is None and env:
            raise ConfigError("An MCP server behind a URL has no environment.", hint="headers={...}")
        self._only = frozenset(only)
        self._prefix = prefix
        self._filler = filler
        self._timeout = timeout
        self._commits = commits
        self._command = command
        self._env = {name: templates.fixed(text, os.environ) for name, text in (env or {}).items()}
        self._headers = {name: templates.fixed(text, os.environ) for name, text in (headers or {}).items()}
        check_headers(self._headers)
        self._url = ""
        self._outside = Outside()
        if command is None:
            origin = check_url(str(server), private=private)
            place, _, query = str(server).partition("?")
            pairs = [(key, templates.fixed(text, os.environ)) for key, text in parse_qsl(query, keep_blank_values=True)]
            self._url = templates.fixed(place) + (f"?{urlencode(pairs, quote_via=quote)}" if pairs else "")
            self._outside = Outside(private=[origin.host] if private else [])
        self.name = command[0].rpartition("/")[2] if command is not None else urlsplit(self._url).hostname or ""
        self._task: asyncio.Task[None] | None = None
        self._reset()

    def __repr__(self) -> str:
        return f"MCP({self.name!r})"

    def _reset(self) -> None:
        self._closing = False
        self._wake = asyncio.Event()  # something may have changed: look at the list
        self._client: Any = None  # the SDK's, while the server is here
        self._tools: tuple[MCPTool, ...] = ()
        self._complaints: tuple[str, ...] = ()
        self._scope: Any = None

    @property
    def tools(self) -> Sequence[MCPTool]:
        """The tools that there are right now; none while the server is away."""
        return self._tools

    async def open(self) -> None:
        """Begin to connect. Returns at once."""
        if self._task is None:
            self._reset()
            self._task = asyncio.get_running_loop().create_task(self._stay())

    async def close(self) -> None:
        """Take leave of the server, in CLOSE_TIMEOUT seconds, and end its process if it is one of ours."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self._wake.set()
        if self._client is not None:
            await asyncio.wait([task], timeout=CLOSE_TIMEOUT)
        if self._scope is not None:
            self._scope.cancel()
        try:
            await asyncio.wait([task])
        finally:
            await self._outside.close()

    # --- the one task that owns the server --------------------------------------------------------

    async def _stay(self) -> None:
        """Stay connected until `close`."""
        import anyio

        pause, away = RETRY_AFTER, False
        with anyio.CancelScope() as self._scope:
            while not self._closing:
                began = clock.now()
                try:
                    await self._be_connected()
                except Exception as error:
                    level = logging.DEBUG if away and self._client is None else logging.WARNING  # once each time
                    log.log(level, "mcp server is away server=%s reason=%r", self.name, _reason(error))
                lived = self._client is not None and clock.now() - began > pause
                self._client, self._tools, away = None, (), True
                if self._closing:
                    return
                # A server that is away, or that hangs up at once, is asked ever more rarely.
                pause = RETRY_AFTER if lived else pause
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_RETRY_AFTER)

    async def _be_connected(self) -> None:
        """Connect, and look at the list whenever something may have changed. Raises when the server is away."""
        await asyncio.to_thread(
            importlib.import_module, "firstword.tools._mcp_wire"
        )  # a second at first: not on the loop
        import anyio
        from mcp import Client, types

        async def notice(message: Any) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                self._wake.set()

        self._wake.clear()
        server = Client(self._way(), cache=None, read_timeout_seconds=START_TIMEOUT, message_handler=notice)
        async with server as client:
            await self._look(client)
            self._client = client
            log.info("mcp server is here server=%s tools=%d", self.name, len(self._tools))
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, client)
                while not self._closing:
                    with anyio.move_on_after(CHECK_AFTER):
                        await self._wake.wait()
                    self._wake.clear()
                    if not self._closing:
                        await self._look(client)
                        await asyncio.sleep(LOOK_PAUSE)
                group.cancel_scope.cancel()

    def _way(self) -> AbstractAsyncContextManager[Any]:
        from ._mcp_wire import over_http, over_stdio

        if self._command is not None:
            return over_stdio(self._command, self._env, self._wake.set)
        return over_http(self._url, self._headers, self._outside, self._wake.set)

    async def _look(self, client: Any) -> None:
        """Take the list of tools as it is now."""
        import anyio

        listed: list[Any] = []
        cursor = None
        with anyio.fail_after(LIST_TIMEOUT):
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                cursor = page.next_cursor
                if not cursor:
                    break
        kept, out = chosen(listed, only=self._only, prefix=self._prefix)
        self._complain([*out, *sorted(self._only - {tool.name for tool in listed})])
        self._tools = tuple(self._made(name, tool) for name, tool in kept.items())

    def _made(self, name: str, tool: Any) -> MCPTool:
        schema = {**tool.input_schema, "type": "object"}  # some leave the type out
        said = tool.description or tool.title or ""
        reads_only = tool.annotations is not None and tool.annotations.read_only_hint is True
        return MCPTool(
            name=name,
            description=said[:MAX_DESCRIPTION],
            parameters=schema,
            filler=self._filler,
            timeout=self._timeout,
            commits=not reads_only if self._commits is None else self._commits,
            source=self,
            theirs=tool.name,
        )

    def _complain(self, names: Sequence[str]) -> None:
        """Say once which tools are not offered: names that clash, schemas that are too large, ones that are missing."""
        complaints = tuple(called(name) for name in names)
        if complaints and complaints != self._complaints:
            log.warning("mcp tools are left out server=%s tools=%s", self.name, ", ".join(complaints))
        self._complaints = complaints

    async def _listen(self, client: Any) -> None:
        """Hear of changes by the subscription that newer servers have; older ones send a notice without."""
        from mcp import MCPError
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

        pause = RETRY_AFTER
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._wake.set()  # what changed since the last look was not heard
                    async for _ in changes:
                        pause = RETRY_AFTER  # it holds; the notice itself comes to `notice`, as an older server's does
            except ListenNotSupportedError:
                return
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                log.debug("mcp subscription ended server=%s reason=%r", self.name, _reason(error))
            self._wake.set()  # the list may have changed unheard, or the server be away
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_AFTER)

    # --- a turn's call -----------------------------------------------------------------------------

    async def ask(self, tool: MCPTool, arguments: dict[str, Any]) -> Any:
        """Call a tool at the server. Raises ToolError: it is away, it failed, or it took too long."""
        from mcp import MCPError
        from mcp.types import PARSE_ERROR

        client = self._client
        if client is None:
            raise ToolError("The server of this tool is away.", tool=tool.name)
        unknown = f" {UNKNOWN}" if tool.commits else ""
        garbled = f"The tool's server gave no answer that could be understood.{unknown}"
        try:
            async with clock.timeout(tool.timeout):
                said = await client.call_tool(tool.theirs, arguments, read_timeout_seconds=LONGEST_WAIT)
            return result(said)
        except (TimeoutError, asyncio.TimeoutError):
            message = f"The tool did not answer within {tool.timeout} seconds.{unknown}"
        except MCPError as error:
            message = f"The tool failed: {error.message[:MAX_REASON]}"
            if self._client is not client or _is_loss(error):
                message = f"The connection to the tool's server was lost.{unknown}"
            elif error.code == PARSE_ERROR:  # the SDK's own as well: an answer that is no JSON, or too large
                message = garbled
        except ToolError as error:
            message = error.message
        except Exception as error:
            # The SDK's own: a result that does not fit the server's schema, a connection that closed under it.
            log.debug("mcp call failed server=%s reason=%r", self.name, _reason(error))
            message = garbled
        raise ToolError(message, tool=tool.name)


@dataclass(slots=True, eq=False)
class MCPTool:
    """One tool of an MCP server; `theirs` is the server's own name for it."""

    name: str
    description: str
    parameters: dict[str, Any]
    filler: str | None
    timeout: float | None
    commits: bool
    source: MCP = field(repr=False)
    theirs: str
    strict: bool = False

    async def call(self, arguments: dict[str, Any], turn: Turn) -> Any:
        """Return the server's structured result, else its text. Raises ToolError."""
        return await self.source.ask(self, arguments)


tool = MCP


def _check_installed() -> None:
    try:
        found = importlib.metadata.version("mcp")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if not found.startswith("2."):
        said = f"is there as {found}" if found else "is not installed"
        raise ConfigError(f"An MCP server needs version 2 of the mcp package, which {said}.", hint=INSTALL)


def _command(server: str | Sequence[str]) -> list[str] | None:
    """Return the command that starts a server, or None when it is behind a URL. No shell ever reads it."""
    if isinstance(server, str):
        if not server.startswith("stdio:"):
            return None
        try:
            server = shlex.split(server.removeprefix("stdio:"))
        except ValueError:
            server = []
    words = list(server)
    if not words or not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise ConfigError("The command of an MCP server is none.", hint='MCP(["python", "server.py"])')
    return words


def _is_loss(error: Any) -> bool:
    from mcp.types import CONNECTION_CLOSED

    return bool(error.code == CONNECTION_CLOSED)


def _reason(error: BaseException) -> str:
    """Say why in words of our own: what others raise may hold a URL, a key or what was said."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]  # type: ignore[attr-defined]
    cause = error.__cause__
    if isinstance(cause, Error):
        return cause.message.replace("The model's server", "it")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if isinstance(code, int) else type(error).__name__
