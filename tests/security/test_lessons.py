"""What went wrong in others' gateways, each tried with ours; docs/security.md has the list, and all other tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from conftest import ROOT
from events_of_a_test import PATH as EVENTS
from events_of_a_test import event, sign
from served import Served

from firstword import App, Turn, Unauthorized
from firstword.admission import Gate
from firstword.settings import Settings
from firstword.testing import Upstream
from firstword.who import caller_of

Serve = Callable[[App], Served]

SOURCES = sorted((ROOT / "src" / "firstword").rglob("*.py"))


# --- keys -----------------------------------------------------------------------------------------


def test_keys_that_begin_alike_are_different_callers() -> None:
    """CVE-2026-35030: a cache knew a token by its beginning, and another one got in."""
    start = "k" * 500
    one, two = f"{start}1", f"{start}2"
    gate = Gate([one], holds_key=True, open_to_all=False)
    gate.admit({"authorization": f"Bearer {one}"}, None)
    for wrong in (two, start, one[:-1], one + "1", one.upper(), f"{one},"):
        with pytest.raises(Unauthorized):
            gate.admit({"authorization": f"Bearer {wrong}"}, None)
    callers = {caller_of(Turn({"messages": []}, session="s", headers={"authorization": key})) for key in (one, two)}
    assert len(callers) == 2 and None not in callers


@pytest.mark.parametrize(
    "key", ["' OR '1'='1", "'; DROP TABLE keys; --", '" OR ""="', "admin'--", "%27%20OR", "{{7*7}}", "../x"]
)
async def test_a_key_is_compared_and_never_read(serve: Serve, upstream: Upstream, key: str, marker: str) -> None:
    """CVE-2026-42208: the value of Authorization was part of a query, on the path of an error."""
    caller = Caller(serve(App(base_url=upstream.base_url, keys=["gate"])).url)
    for value in (key, f"Bearer {key}", f"Bearer {key.replace(' ', '')}"):
        heard = await caller.hears(turn(user=marker), headers={"authorization": value})
        assert heard.status == 401 and key.encode() not in heard.body
    assert upstream.seen(marker) == []


async def test_each_secret_has_one_use(serve: Serve, upstream: Upstream, marker: str) -> None:
    """CVE-2026-114612: one key served two ends, and what it made for one was good for the other."""
    secrets = {"api_key": "sk-held-1", "keys": ["gate-key-1"], "agora_webhook_secret": "hook-secret-1"}
    caller = Caller(serve(App(base_url=upstream.base_url, voice_api_key="sk-voice-1", **secrets)).url)
    for key in ("sk-held-1", "hook-secret-1", "sk-voice-1"):
        heard = await caller.hears(turn(user=marker), headers={"authorization": f"Bearer {key}"})
        assert heard.status == 401
    body = event(111)
    for secret in ("gate-key-1", "sk-held-1", "sk-voice-1", "hook-secret-1"):
        heard = await caller.hears(body, path=EVENTS, headers={"agora-signature-v2": sign(body, secret)})
        assert heard.status == (200 if secret == "hook-secret-1" else 401)
    assert upstream.seen(marker) == []


# --- words are words ------------------------------------------------------------------------------

TEMPLATES = [
    "{{7*7}}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for x in () %}{% endfor %}",
    "{0.__class__}",
    "{self.__init__.__globals__}",
    "${LLM_API_KEY}",
    "$(id)",
    "`id`",
    "%(key)s %s %n",
    "<%= 7*7 %>",
    "#{7*7}",
    "\\x41\\u0041",
    "__import__('os').system('id')",
]


@pytest.mark.parametrize("path", ["/chat/completions", "/agora/chat/completions", "/vapi/chat/completions"])
async def test_nothing_that_is_said_is_a_template(serve: Serve, upstream: Upstream, path: str, marker: str) -> None:
    """CVE-2026-42203: a prompt was rendered, and ran. Here it reaches the model as the very text that it is."""
    app = App(base_url=upstream.base_url, api_key="sk-held-by-the-server", keys=["gate"])
    caller = Caller(serve(app).url)
    said = [{"role": role, "content": text} for text in TEMPLATES for role in ("system", "user", "assistant")]
    body = turn(messages=[*said, {"role": "user", "content": " ".join(TEMPLATES)}], user=marker, model="{{7*7}}")
    headers = {"authorization": "Bearer gate", "x-session-id": "{{7*7}}"}

    heard = await caller.hears(body, path=path, headers=headers)

    [record] = upstream.seen(marker)
    texts = [each["content"] for each in record.body["messages"]]
    assert record.body["model"] == "{{7*7}}" and all(text in " ".join(texts) for text in TEMPLATES)
    assert "".join(texts).count("{{7*7}}") >= 3 and "49" not in " ".join(texts)
    assert heard.status == 200 and b"sk-held" not in heard.body


def calls(path: Any) -> list[str]:
    """Return the dotted names of what a file calls, and of what it imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            found.append(ast.unparse(node.func))
            found += [f"{ast.unparse(node.func)}(shell)" for each in node.keywords if each.arg == "shell"]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


RUNS_CODE = re.compile(
    r"(eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*)|pickle(\..*)?|marshal(\..*)?|shelve(\..*)?"
    r"|dill|cloudpickle|jinja2(\..*)?|mako|yaml\.(unsafe_load|full_load|load_all)|.*\(shell\)|asyncio\.create_subprocess_shell)"
)


def test_nothing_that_arrives_is_run() -> None:
    """CVE-2026-40217: code was taken over HTTP, to be tried. No room of ours runs text, but for one that reads types.

    `schema` evaluates the annotations of functions that the user wrote (`def f(x: "int")`), as Python's own tools do.
    """
    found = {(path.name, name) for path in SOURCES for name in calls(path) if RUNS_CODE.fullmatch(name)}
    assert found == {("schema.py", "eval")}


# --- nobody changes the server --------------------------------------------------------------------


async def test_no_request_changes_the_server(serve: Serve, upstream: Upstream) -> None:
    """CVE-2026-35029 and its kin: a route that writes settings was open to more people than was thought."""
    app = App(base_url=upstream.base_url, keys=["gate"])
    served = serve(app)
    caller = Caller(served.url)
    before = app.settings.model_dump()
    names = list(Settings.model_fields)
    pages = ["/", "/health", "/ready", "/metrics", "/models", "/v1/models", "/docs", "/openapi.json"]
    others = [
        "/config",
        "/config/update",
        "/settings",
        "/admin",
        "/key/generate",
        "/models/new",
        "/mcp-rest/test/connection",
    ]
    change = {**dict.fromkeys(names, "changed"), "command": "id", "model_list": []}
    for path in [*pages, *others]:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            heard = await caller.hears(change, path=path, method=method, headers={"authorization": "Bearer gate"})
            assert heard.status in (404, 405), (method, path)
    await caller.hears(
        turn(**{**change, "messages": [{"role": "user", "content": "x"}]}), headers={"authorization": "Bearer gate"}
    )
    assert app.settings.model_dump() == before
    assert served.app._built is not None and set(served.app._built.server._pages.paths) == set(pages)


def test_no_setting_is_a_command() -> None:
    """An MCP server or a model is started by a command, which only code writes: no variable of the environment does."""
    assert [
        name for name in Settings.model_fields if re.search("command|mcp|stdio|exec|tools?$|plugin|import", name)
    ] == []


# --- what we are made of --------------------------------------------------------------------------


def test_every_package_is_locked_by_its_hash() -> None:
    """LiteLLM 1.82.7 and 1.107.0 were somebody else's for some hours: what is installed is what was looked at."""
    locks = list((ROOT / "locks").glob("*.txt"))
    assert len(locks) > 5
    for lock in locks:
        text = re.sub(r"\\\n\s*", " ", lock.read_text("utf-8"))
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == [], lock.name
    assert re.search(r'^exclude-newer = "\d+ days"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)


def test_nothing_runs_when_the_interpreter_starts() -> None:
    """Both came as a `.pth` file or a `sitecustomize`: neither is ours, and neither is in what we build."""
    tracked = [
        path
        for path in ROOT.glob("src/**/*")
        if path.suffix == ".pth" or path.stem in ("sitecustomize", "usercustomize")
    ]
    assert tracked == []
