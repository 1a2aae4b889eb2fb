"""A function is a tool: what it is called with, where it runs, and what is refused when the App is written."""

from __future__ import annotations

import asyncio
import enum
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from firstword import App, ConfigError, ToolError, Turn
from firstword.rounds.toolbox import Toolbox, definition, knows_strict
from firstword.tools import Source, Tool
from firstword.tools.function import Function
from firstword.tools.function import tool as found

TURN = Turn(request={"messages": []})


async def double(number: int, turn: Turn) -> Any:
    """Double a number."""
    return number * 2, threading.get_ident(), turn


def treble(number: int) -> Any:
    """Treble a number."""
    return number * 3, threading.get_ident()


async def test_an_async_function_runs_on_the_loop_and_a_plain_one_in_a_thread() -> None:
    """The turn is filled in; the arguments are what the signature says."""
    assert await Function(double).call({"number": "4"}, TURN) == (8, threading.get_ident(), TURN)
    result, thread = await Function(treble).call({"number": 4}, TURN)
    assert result == 12 and thread != threading.get_ident()


async def test_what_returns_a_coroutine_is_awaited() -> None:
    """A partial, a lambda, or an object whose `__call__` is async."""
    assert (await Function(functools.partial(double, 3), name="double").call({}, TURN))[0] == 6

    class Later:
        async def __call__(self, number: int) -> int:
            """Say it back."""
            await asyncio.sleep(0)
            return number

    assert await Function(Later(), name="later").call({"number": 5}, TURN) == 5


async def test_what_does_not_fit_names_the_tool() -> None:
    """The error is the model's to read, and the log's to count."""
    with pytest.raises(ToolError) as caught:
        await Function(treble).call({"number": "many"}, TURN)
    assert (caught.value.tool, caught.value.code) == ("treble", "tool_error")


def test_a_tool_says_what_it_is() -> None:
    """Its name and its docstring, or what it was given in their place."""
    tool: Tool = Function(double, filler="One moment.", timeout=5, commits=True)
    assert (tool.name, tool.description, tool.strict) == ("double", "Double a number.", True)
    assert (tool.filler, tool.timeout, tool.commits) == ("One moment.", 5, True)

    tool = Function(double, name="twice", description="Twice.")
    assert definition(tool, strict=True)["function"] == {
        "name": "twice",
        "description": "Twice.",
        "parameters": tool.parameters,
        "strict": True,
    }
    assert "strict" not in definition(tool, strict=False)["function"]


@pytest.mark.parametrize(
    ("url", "knows"),
    [
        ("https://api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai", True),
        ("https://api.mistral.ai/v1", False),
        ("http://127.0.0.1:11434/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
    ],
)
def test_strict_is_said_to_those_who_know_the_word(url: str, knows: bool) -> None:
    """Others may refuse a field that they do not know."""
    assert knows_strict(url) is knows


# --- the App ----------------------------------------------------------------------------------------


def test_the_decorator_gives_back_what_it_decorates() -> None:
    """With parentheses and without; types that stand in the same function are known."""
    app = App()

    class Number(enum.Enum):
        """A number."""

        ONE = 1

    @app.tool
    async def one(number: Number | None = None) -> None: ...

    @app.tool(name="second", timeout=3)
    async def two(number: int) -> None: ...

    assert asyncio.iscoroutinefunction(one) and asyncio.iscoroutinefunction(two)
    assert list(app._written.toolbox.now()) == ["one", "second"]
    assert app._written.toolbox.now()["second"].timeout == 3


async def test_a_tool_may_use_what_is_defined_below_it_and_itself() -> None:
    """Tools within a function that makes the App: their helpers stand behind them, and one calls itself."""

    @App().tool
    def count(down: int) -> str:
        return f"{down} {count(down - 1)}" if down else end()

    def end() -> str:
        return "done"

    assert await Function(count).call({"down": 2}, TURN) == "2 1 done"


def test_tools_are_added_as_functions_tools_and_strings() -> None:
    """A string names a kind, and what it makes."""
    app = App()
    app.add_tools(double, Function(treble, name="thrice"), f"function:{__name__}:treble")
    assert list(app._written.toolbox.now()) == ["double", "thrice", "treble"]
    assert found(f"{__name__}:double").name == "double"


async def yields(number: int) -> Any:
    yield number


class NoSchema:
    name, parameters, timeout, filler = "x", {"type": "string"}, None, None

    async def call(self, arguments: Any, turn: Turn) -> None: ...


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (yields, "yields"),
        (42, "neither a function nor a Tool"),
        (NoSchema, "neither a function nor a Tool"),
        (NoSchema(), "no JSON schema"),
        (lambda number: number, "has no type"),
        (lambda: None, "cannot have the name"),
        (Function(treble, name="with space"), "cannot have the name"),
        (Function(treble, name="x" * 65), "cannot have the name"),
        (Function(treble, name="7th"), "cannot have the name"),
        (Function(treble, timeout=0), "timeout"),
        (Function(treble, timeout=True), "timeout"),
        (Function(treble, filler="  "), "says nothing"),
        ("mcq:https://x", "There is no tool"),
        ("function:nowhere:x", "There is no function"),
        ("function:", "There is no tool"),
        ("function", "There is no tool"),
        ("../app:x", "There is no tool"),
        (double, "two tools 'double'"),
    ],
    ids=str,
)
def test_what_is_no_tool_is_refused_at_once(thing: Any, said: str) -> None:
    """A mistake in the code is told when the App is written, with the mend."""
    app = App()
    app.add_tools(double)
    with pytest.raises(ConfigError) as caught:
        app.add_tools(thing)
    assert said in caught.value.message and caught.value.hint


@pytest.mark.parametrize("add", [lambda app: app.tool(treble), lambda app: app.add_tools(treble)])
async def test_a_tool_that_comes_too_late_is_refused(add: Callable[[App], None]) -> None:
    """The App is frozen: some turns would have it and others not."""
    app = App(warm=False)
    app._build()
    with pytest.raises(ConfigError):
        add(app)
    await app.close()


# --- sources ----------------------------------------------------------------------------------------


class Shelf:
    """A source that brings tools once it is open."""

    def __init__(self, *tools: Tool, breaks: bool = False) -> None:
        self.all = tools
        self.tools: list[Tool] = []
        self.breaks = breaks
        self.closed = 0

    async def open(self) -> None:
        if self.breaks:
            raise RuntimeError("not today")
        self.tools.extend(self.all)

    async def close(self) -> None:
        self.closed += 1
        self.tools.clear()


async def test_a_source_brings_its_tools_while_it_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """One that breaks costs its own tools only; a name that is there already stays whose it is."""
    box = Toolbox()
    shelf, broken = Shelf(Function(double), Function(treble)), Shelf(Function(double), breaks=True)
    assert isinstance(shelf, Source)
    mine = Function(treble)
    for thing in (mine, broken, shelf):
        box.add(thing)
    assert box and box.has_sources and list(box.now()) == ["treble"]

    await box.open()
    assert list(box.now()) == ["treble", "double"] and box.now()["treble"] is mine
    box.now()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]

    await box.close()
    assert list(box.now()) == ["treble"] and (shelf.closed, broken.closed) == (1, 1)


async def test_a_tool_may_be_its_own_source() -> None:
    """It has connections of its own: it is opened and closed with the App, and its name is known at once."""

    class Remote(Shelf):
        name, description, strict, filler, timeout, commits = "remote", "", False, None, None, False
        parameters = {"type": "object"}  # noqa: RUF012

        async def call(self, arguments: dict[str, Any], turn: Turn) -> str:
            return "far away"

    box, remote = Toolbox(), Remote()
    remote.all = (remote,)
    box.add(remote)
    with pytest.raises(ConfigError):
        box.add(Function(treble, name="remote"))
    await box.open()
    assert list(box.now().values()) == [remote] and remote.tools == [remote]
    await box.close()
    assert remote.closed == 1


@pytest.mark.parametrize("lifespan", [True, False])
async def test_the_app_opens_its_sources_and_closes_them(lifespan: bool) -> None:
    """With its own lifespan before the first turn; mounted without one, by its first request."""
    shelf = Shelf(Function(double))
    app = App(warm=False)
    app.add_tools(shelf)
    events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    if lifespan:
        living = asyncio.ensure_future(app({"type": "lifespan"}, events.get, said.put))
        await events.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
    else:
        await app({"type": "http", "method": "GET", "path": "/health", "headers": []}, events.get, said.put)
    assert list(app._written.toolbox.now()) == ["double"]

    if lifespan:
        await events.put({"type": "lifespan.shutdown"})
        await living
    else:
        await app.close()
    assert shelf.closed == 1
