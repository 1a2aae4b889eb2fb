"""Wings are found by their names: our own files first, then what another package offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from caller import Caller
from served import Served

from firstword import App, ConfigError, Model, plugins
from firstword.testing import Upstream

Serve = Callable[[App], Served]

PLATFORMS = [
    "agora",
    "deepgram",
    "did",
    "elevenlabs",
    "hume",
    "livekit",
    "openai",
    "pipecat",
    "tavus",
    "telnyx",
    "vapi",
]
PROVIDERS = ["anthropic", "cerebras", "deepseek", "demo", "gemini", "groq", "local", "mistral", "openai"]

PACKAGE = '''
"""A package of somebody else's."""
from firstword.platforms.openai import OpenAI


class Shouts(OpenAI):
    def read(self, body, **more):
        turn = super().read(body, **more)
        turn.messages[-1]["content"] = turn.text.upper()
        return turn


class Echo:
    def answer(self, request, *, id, created):
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": "echo"}
        for delta, reason in (({"role": "assistant", "content": "Echo: " + request["model"]}, None), ({}, "stop")):
            yield 0.0, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


shouts, echo = Shouts(), Echo()
'''
ENTRY_POINTS = """
[firstword.platforms]
shouts = their_package:shouts

[firstword.providers]
echo = their_package:echo
demo = their_package:echo
"""


@pytest.fixture
def their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package is installed, with a platform and two providers, one of them named as one of ours."""
    (tmp_path / "their_package.py").write_text(PACKAGE, encoding="utf-8")
    folder = tmp_path / "their_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their_package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("platforms", PLATFORMS), ("providers", PROVIDERS)],
)
def test_our_own_files_are_found(kind: str, names: list[str]) -> None:
    """Each is a file of its own, and holds an object named after the kind; parts of them (`_errors`) are none."""
    assert plugins.known(kind) == names
    assert len({type(plugins.load(kind, name)) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["agroa", "", "_errors", "openai.check", "../settings", "__init__", "Agora"])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    """The operator mistyped, or tried to reach what is no wing."""
    for kind, known in (("platforms", ", ".join(PLATFORMS)), ("providers", ", ".join(PROVIDERS))):
        with pytest.raises(ConfigError) as caught:
            plugins.load(kind, name)
        assert repr(name) in caught.value.message and caught.value.hint == f"one of: {known}"


def test_a_model_of_an_unknown_provider_is_refused_at_once() -> None:
    """The mistake is in the code: it is told when the App is written."""
    with pytest.raises(ConfigError, match="There is no provider 'opnai'"):
        App([Model("gpt-5-mini", provider="opnai")])


@pytest.mark.usefixtures("their_package")
def test_another_packages_names_are_known() -> None:
    """Its names stand beside ours, once."""
    assert plugins.known("platforms") == sorted([*PLATFORMS, "shouts"])
    assert plugins.known("providers") == sorted([*PROVIDERS, "echo"])


@pytest.mark.usefixtures("their_package")
def test_ours_come_first() -> None:
    """A package that takes one of our names does not get our callers and their keys."""
    assert type(plugins.load("providers", "demo")).__module__.startswith("firstword.providers.demo")


@pytest.mark.usefixtures("their_package")
async def test_another_packages_wings_serve_a_turn(serve: Serve, upstream: Upstream) -> None:
    """Its platform reads the request, its provider answers by the prefix of the model's name."""
    shouting = Caller(serve(App(base_url=upstream.base_url, platform="shouts")).url)
    assert (await shouting.says("Hello there.")).text == "HELLO THERE."

    echoing = Caller(serve(App(["echo:one", Model("two", provider="echo")])).url)
    assert [(await echoing.says(model=name)).text for name in ("one", "two")] == ["Echo: one", "Echo: two"]
