"""The house plan holds: arrows point down, dialects do no I/O, rooms are small, each file says what it is for.

Each rule is a function from sources to what breaks it, so that every one is tried on a bad house as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping

import pytest
from conftest import ROOT

Sources = Mapping[str, str]  # by the full name of a module, or the path of a file

# Which floor a room is on. A file imports from its own floor or lower ones, and never in a circle.
FLOORS = {
    **dict.fromkeys(["errors", "clock", "threads", "mistakes"], 1),
    **dict.fromkeys(["wire", "admission", "policy", "health", "settings", "plugins", "schema", "addresses"], 2),
    **dict.fromkeys(["sentences", "local", "hostnames", "links", "trace"], 2),
    **dict.fromkeys(["action", "message", "chunk", "collect", "calls", "history", "shaping", "transport", "used"], 3),
    **dict.fromkeys(["turn"], 4),
    **dict.fromkeys(["server", "model", "roster", "relay", "race", "own", "serving", "beside", "upstreams"], 6),
    **dict.fromkeys(["providers", "platforms", "telemetry", "tools", "who", "images", "voices", "events"], 5),
    **dict.fromkeys(["limits", "shared", "console"], 5),
    **dict.fromkeys(["stages", "rounds", "agents", "agora"], 6),
    **dict.fromkeys(["app", "building", "written", "allowances", "sharing"], 7),
    **dict.fromkeys(["firstword", "cli", "commands", "doctor", "engine", "__main__", "testing"], 8),
}
DIALECTS = ("wire", "action", "message", "chunk", "collect", "calls", "history", "shaping", "providers", "platforms")
DOES_IO = ("asyncio", "socket", "ssl", "http", "urllib.request", "threading", "subprocess")
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
# Words that say nothing of what a thing is.
BANNED = re.compile(r"(Manager|Handler|Service|Engine|Context|Processor|Factory)s?$")


def room(module: str) -> str:
    """Return the room that a module stands in: what comes after `firstword.`."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, sources: Sources) -> Iterator[tuple[int, str]]:
    """Yield (line, full name) for every import in a module, wherever it stands."""
    is_package = any(other.startswith(f"{module}.") for other in sources)
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"  # a module of that package, else a name in it
                yield node.lineno, inner if inner in sources else base


def ours(module: str, sources: Sources) -> Iterator[tuple[int, str]]:
    """Yield (line, full name) for every import of our own."""
    return ((line, name) for line, name in imports(module, sources) if name.split(".")[0] == "firstword")


# --- the rules ------------------------------------------------------------------------------------


def rooms_without_a_floor(sources: Sources) -> list[str]:
    """Find rooms that the table does not know, and floors of rooms that are gone."""
    return sorted({room(module) for module in sources} ^ set(FLOORS))


def arrows_up(sources: Sources) -> list[str]:
    """Find imports from a higher floor."""
    return [
        f"{module}:{line} imports {target}"
        for module in sources
        for line, target in ours(module, sources)
        if FLOORS[room(target)] > FLOORS[room(module)]
    ]


def circles(sources: Sources) -> list[str]:
    """Find modules that import themselves, by whatever way."""
    arrows = {module: {to for _, to in ours(module, sources)} for module in sources}
    found = []
    for start in arrows:
        reached: set[str] = set()
        pending = list(arrows[start])
        while pending:
            module = pending.pop()
            if module not in reached:
                reached.add(module)
                pending += arrows.get(module, ())
        if start in reached:
            found.append(start)
    return found


def dialects_that_do_io(sources: Sources) -> list[str]:
    """Find imports in the pure rooms of what reads, writes or waits."""
    return [
        f"{module}:{line} imports {name}"
        for module in sources
        if room(module) in DIALECTS
        for line, name in imports(module, sources)
        if name.startswith("firstword.transport") or any(f"{name}.".startswith(f"{io}.") for io in DOES_IO)
    ]


def readers_of_settings(sources: Sources) -> list[str]:
    """Find modules but `written` that import the settings."""
    readers = {module for module in sources for _, to in ours(module, sources) if to == "firstword.settings"}
    return sorted(readers - {"firstword.written"})


def long_files(sources: Sources) -> list[str]:
    """Find files that do not fit the house."""
    lengths = {module: source.count("\n") for module, source in sources.items()}
    return [f"{module} has {lines} lines" for module, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE]


def long_functions(sources: Sources) -> list[str]:
    """Find functions that do more than one thing, by their length."""
    return [
        f"{module}:{node.lineno} {node.name} has {lines} lines"
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]


def files_without_a_word(sources: Sources) -> list[str]:
    """Find files that do not say what they are for."""
    return [module for module, source in sources.items() if not ast.get_docstring(ast.parse(source))]


def banned_names(sources: Sources) -> list[str]:
    """Find classes whose name says nothing."""
    return [
        f"{module}:{node.lineno} {node.name}"
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and BANNED.search(node.name)
    ]


RULES_OF_THE_PACKAGE = [
    rooms_without_a_floor,
    arrows_up,
    circles,
    dialects_that_do_io,
    readers_of_settings,
    banned_names,
]
RULES_OF_EVERY_FILE = [long_files, long_functions, files_without_a_word]


# --- our house ------------------------------------------------------------------------------------


def house() -> dict[str, str]:
    """Return our package's sources, by the full names of the modules."""
    paths = sorted((ROOT / "src" / "firstword").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path.read_text("utf-8") for name, path in zip(names, paths, strict=True)}


def everything() -> dict[str, str]:
    """Return every Python file of the repository that is ours, by its path."""
    folders = ("src", "tests", "examples", "benchmarks")
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths if "node_modules" not in path.parts}


@pytest.mark.parametrize("rule", RULES_OF_THE_PACKAGE, ids=lambda rule: rule.__name__)
def test_the_package_is_built_by_the_plan(rule: Callable[[Sources], list[str]]) -> None:
    """Somebody imports upwards, lets a dialect read a socket, or adds a room without giving it a floor."""
    assert rule(house()) == []


@pytest.mark.parametrize("rule", RULES_OF_EVERY_FILE, ids=lambda rule: rule.__name__)
def test_every_file_can_be_read_at_one_sitting(rule: Callable[[Sources], list[str]]) -> None:
    """A file or a function has grown, or a file does not say what it is for; tests and examples are read too."""
    assert rule(everything()) == []


def test_every_room_stands_on_its_floor_in_the_page_for_contributors() -> None:
    """A room is added to the table above, and not to the one that people read."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = {int(found[1]): found[2] for found in re.finditer(r"(?m)^\| (\d) \w+ \| (.*) \|$", page)}
    told = {floor: set(re.findall(r"`(\w+)/?`", row)) for floor, row in rows.items()}
    missing = [
        (each, floor) for each, floor in FLOORS.items() if each.replace("firstword", "__init__") not in told[floor]
    ]
    assert sorted(rows) == list(range(1, 9)) and missing == []


def test_the_whole_house_is_seen() -> None:
    """The package moved, and the rules above look at nothing."""
    sources = house()
    rooms = ("app", "server", "server.pages", "providers.openai", "wire")
    assert {"firstword", *(f"firstword.{name}" for name in rooms)} <= set(sources)
    assert len(list(ours("firstword.app", sources))) > 10
    assert len(everything()) > len(sources) > 30


# --- a bad house ----------------------------------------------------------------------------------

DOCUMENTED = '"""What it is for."""\n'
LONG = "".join(f"    line = {number}\n" for number in range(MOST_LINES_OF_A_FUNCTION))


def built(changes: Mapping[str, str]) -> dict[str, str]:
    """Return a small good house with some changes in it; names without `firstword.`."""
    rooms = {**dict.fromkeys(FLOORS, DOCUMENTED), **changes}
    return {name if name == "firstword" else f"firstword.{name}": source for name, source in rooms.items()}


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (rooms_without_a_floor, {"attic": ""}),
        (arrows_up, {"wire": "from .chunk import Chunk"}),
        (arrows_up, {"wire": "from . import app"}),
        (arrows_up, {"wire": "from firstword import App"}),
        (arrows_up, {"wire": "import firstword.server"}),
        (arrows_up, {"wire": "def later():\n    from .turn import Turn"}),
        (arrows_up, {"wire": "if TYPE_CHECKING:\n    from .turn import Turn"}),
        (arrows_up, {"transport": "from ..model import Model", "transport.dial": "from ..model import Model"}),
        (circles, {"model": "from .own import own", "own": "from .model import Model"}),
        (circles, {"server": "from .pages import Pages", "server.pages": "from . import Server"}),
        (circles, {"server": "", "server.one": "from .two import x", "server.two": "from .one import y"}),
        (dialects_that_do_io, {"wire": "import asyncio"}),
        (dialects_that_do_io, {"platforms": "", "platforms.agora": "from asyncio import sleep"}),
        (dialects_that_do_io, {"platforms": "", "platforms.agora": "from ..transport import Transport"}),
        (dialects_that_do_io, {"chunk": "import http.client"}),
        (dialects_that_do_io, {"chunk": "import urllib.request"}),
        (readers_of_settings, {"model": "from .settings import load"}),
        (readers_of_settings, {"cli": "def later():\n    from . import settings"}),
        (long_files, {"wire": DOCUMENTED + "\n" * MOST_LINES_OF_A_FILE}),
        (long_functions, {"wire": f"def long():\n{LONG}"}),
        (long_functions, {"wire": f"class Long:\n  async def long(self):\n{LONG}"}),
        (files_without_a_word, {"wire": "# What it is for.\n"}),
        (banned_names, {"wire": "class FrameManager: ..."}),
        (banned_names, {"wire": "def make():\n    class Handler: ..."}),
    ],
)
def test_each_rule_finds_what_breaks_it(rule: Callable[[Sources], list[str]], bad: dict[str, str]) -> None:
    """The same house with one fault in it."""
    assert rule(built({})) == []
    assert rule(built(bad)) != []


@pytest.mark.parametrize(
    "good",
    [
        {"chunk": "from . import wire\nfrom .wire import frame"},
        {"server": "from .pages import Pages\nfrom ..turn import Turn", "server.pages": "from ..errors import Error"},
        {"cli": "from firstword import App", "firstword": "from .app import App"},
        {"wire": "from urllib.parse import urlsplit\nimport httptools"},
        {"written": "from .settings import load"},
        {"wire": "class ContextualChunk: ..."},
    ],
    ids=str,
)
def test_no_rule_finds_what_is_not_there(good: dict[str, str]) -> None:
    """Arrows down, within a room, and to packages with like names."""
    for rule in RULES_OF_THE_PACKAGE:
        assert rule(built(good)) == []
