"""The examples run, and so does what the user's documents show.

Rules: an example is loaded from its file as a user would, and called over HTTP; what it asks is asked of the scripted
model, and read from that model's own records.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import re
import threading
from binascii import a2b_base64
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from api_of_a_test import Api
from caller import Caller, turn
from conftest import ROOT
from served import Served
from sounds import pitch, sine

import firstword
from firstword import App, errors
from firstword.server.routes import AUDIO_PATHS, CHAT_PATHS
from firstword.settings.brain import Brain
from firstword.testing import Upstream, script
from firstword.voices._pcm import read_wav, wav

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / name for name in ("README.md", "README-CN.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
READMES = DOCUMENTS[:2]
TESTING = ROOT / "docs" / "testing.md"

Load = Callable[[str], ModuleType]
Serve = Callable[[App], Served]


def blocks(document: Path, kind: str) -> list[str]:
    """Return the code blocks of one kind."""
    found = re.findall(rf"^```{kind}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> Load:
    """Load an example by its name; its models are the scripted one."""
    for name in ("LLM_BASE_URL", "OPENAI_BASE_URL", "DEEPSEEK_BASE_URL"):
        monkeypatch.setenv(name, upstream.base_url)

    def load_file(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_file


# --- the examples ----------------------------------------------------------------------------------


async def test_a_document_that_fits_the_question_is_told_to_the_model(
    load: Load, serve: Serve, upstream: Upstream
) -> None:
    """A caller asks about a parcel, which two documents of before_turn_rag.py know something about."""
    caller = Caller(serve(load("before_turn_rag").app).url)

    heard = await caller.says("When will my delivery be here?", user="rag")

    [record] = await upstream.wait_settled("rag")
    assert heard.text == "When will my delivery be here?"
    assert record.body["messages"] == [
        {"role": "system", "content": "Answer from these facts:\nA parcel takes two working days."},
        {"role": "user", "content": "When will my delivery be here?"},
    ]


async def test_a_question_that_no_document_knows_reaches_the_model_as_it_is(
    load: Load, serve: Serve, upstream: Upstream
) -> None:
    """A caller of before_turn_rag.py says something that no title holds."""
    caller = Caller(serve(load("before_turn_rag").app).url)

    await caller.says("Tell me a joke!", user="rag-none")

    [record] = await upstream.wait_settled("rag-none")
    assert record.body["messages"] == [{"role": "user", "content": "Tell me a joke!"}]


async def test_a_function_is_heard_while_it_still_looks_up(load: Load, serve: Serve) -> None:
    """The database behind own_model.py is slow: it answers when the caller has heard the first sentence."""
    module = load("own_model")
    look_up, heard_first = module.look_up, threading.Event()

    async def look_up_slowly(number: str) -> str:
        await asyncio.to_thread(heard_first.wait, 5)
        return str(await look_up(number))

    module.look_up = look_up_slowly
    caller = Caller(serve(module.app).url)

    async with caller.dials(turn("Where is order 42?", model="orders")) as call:
        await call.hears_word("Let me look up order 42. ")
        assert b"Friday" not in call.heard.body
        heard_first.set()
        async for _ in call.listens():
            pass

    heard = call.heard
    assert heard.text == "Let me look up order 42. It arrives on Friday."
    assert (heard.finish_reasons, heard.done) == (["stop"], True)


async def test_a_function_asks_back_when_the_number_is_missing(load: Load, serve: Serve) -> None:
    """The caller of own_model.py names no order; the plain function beside it is asked as well."""
    caller = Caller(serve(load("own_model").app).url)

    assert (await caller.says("Where is it?", model="orders")).text.startswith("Which order do you mean?")
    assert (await caller.says(model="greeter")).text == "Good day, how can I help?"


@pytest.mark.parametrize(
    ("asked", "answered", "key"),
    [
        ("gpt-5-mini", "gpt-5-mini", "key-1"),
        ("deepseek-chat", "deepseek-chat", "key-2"),
        ("any", "gpt-5-mini", "key-1"),
    ],
)
async def test_each_model_is_asked_with_its_own_key(
    load: Load, serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, asked: str, answered: str, key: str
) -> None:
    """The caller of two_models.py names the first model, the second, or one that is not in the list."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-1")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "key-2")
    caller = Caller(serve(load("two_models").app).url)

    heard = await caller.says(
        "Hello", model=asked, user=f"two-{asked}", headers={"authorization": "Bearer the-caller's"}
    )

    [record] = await upstream.wait_settled(f"two-{asked}")
    assert heard.text == "Hello"
    assert (record.body["model"], record.header("authorization")) == (answered, f"Bearer {key}")


async def test_a_mounted_app_answers_beside_the_routes_of_fastapi(
    load: Load, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fastapi_mount.py has a route of its own; at its end no connection to the model may be left open."""
    with Upstream.start() as own:
        monkeypatch.setenv("LLM_BASE_URL", own.base_url)
        served = serve(cast(App, load("fastapi_mount").web))
        caller = Caller(served.url)

        heard = await caller.says("Hello there", path="/llm/chat/completions")

        assert (heard.text, heard.done) == ("Hello there", True)
        assert (await caller.hears(path="/hello", method="GET")).json == {"say": "hello"}
        assert (await caller.hears(path="/llm/health", method="GET")).json == {"status": "ok"}
        served.stop()
        assert (await own.wait_connections(open=0)).open == 0


@pytest.mark.parametrize("streamed", [True, False])
async def test_no_long_number_is_spoken(load: Load, serve: Serve, streamed: bool) -> None:
    """The model of stage_redact.py cuts one number in two, ends with another, and says a short one."""
    caller = Caller(serve(load("stage_redact").app).url)
    said = [script.text(part) for part in ("Dial 08", "00", " now,", " wait 20 seconds,", " say 4711")]
    body = turn(script=script.events(script.role(), *said, script.finish(), script.done()), stream=streamed)

    heard = await caller.hears(body)

    text = heard.text if streamed else heard.json["choices"][0]["message"]["content"]
    assert text == "Dial (hidden) now, wait 20 seconds, say (hidden)"


async def test_a_table_is_looked_up_and_booked_once(load: Load, serve: Serve, upstream: Upstream) -> None:
    """The model of tools.py looks for a table, books it, and the engine sends the turn twice."""
    module = load("tools")
    caller = Caller(serve(module.app).url)
    scripts = [
        script.events(script.role(), script.tool_call("free_tables", '{"day":"friday"}', id="a"), script.finish()),
        script.events(script.role(), script.tool_call("book", '{"day":"friday","hour":21}', id="b"), script.finish()),
        script.events(script.says("It is booked.")),
    ]
    asked = {"session_id": "s1", "turn_id": 1, "user_uid": "Ann"}

    heard = await caller.says("A table on Friday at nine", user="table-1", scripts=scripts, **asked)
    again = await caller.says("A table on Friday at nine", user="table-2", scripts=scripts, **asked)

    results = [record.body["messages"][-1]["content"] for record in await upstream.wait_settled("table-1", count=3)]
    assert (heard.text, again.text) == ("Let me look at the book. It is booked.",) * 2
    assert results[1:] == ["[19,21]", "A table is booked for friday at 21."]
    assert module.booked == [("friday", 21, "Ann")]


async def test_a_recorded_greeting_is_played_and_all_else_is_said_by_the_voice(
    load: Load, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder of audio.py has one recording; the speech endpoint says everything else."""
    api = Api(cast(Any, serve))
    api.says("/v1/audio/speech", sine(0.5, 440, rate_hz=24_000), kind="audio/pcm")
    monkeypatch.setenv("FIRSTWORD_VOICE_BASE_URL", f"{api.url}/v1")
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "Welcome!.wav").write_bytes(wav(sine(1.0, 880, rate_hz=8_000), 8_000))
    monkeypatch.chdir(tmp_path)
    caller = Caller(serve(load("audio").app).url)
    path = "/audio/chat/completions"

    greeting = await caller.hears({"messages": [{"role": "assistant", "content": "Welcome!"}]}, path=path)
    answer = await caller.hears(turn("Good day.", stream=False), path=path)

    played, said = (
        read_wav(a2b_base64(each.json["choices"][0]["message"]["audio"]["data"])) for each in (greeting, answer)
    )
    assert (len(played[0]), round(pitch(played[0]), -1)) == (32_000, 880)
    assert (len(said[0]), round(pitch(said[0]), -1)) == (16_640, 440)
    assert [asked.json["input"] for asked in api.asked] == ["Good day."]
    assert api.asked[0].json["voice"] == "coral"


def test_every_example_is_short_and_is_run_here() -> None:
    """Somebody adds an example and forgets its test, or lets one grow over 40 lines."""
    mine = Path(__file__).read_text()

    assert EXAMPLES
    assert [each.stem for each in EXAMPLES if f'load("{each.stem}")' not in mine] == []
    assert [each.name for each in EXAMPLES if len(each.read_text().splitlines()) >= 40] == []


# --- the documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_python_block_of_a_document_runs(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader copies a block into a file of its own: it needs nothing that the block does not say."""
    for name in ("OPENAI_API_KEY", "DEEPSEEK_API_KEY", "WEATHER_KEY", "PETS_KEY", "CRM_KEY"):
        monkeypatch.setenv(name, f"key-of-{name}")
    monkeypatch.chdir(ROOT / "tests" / "tools")  # where petstore.yaml is
    for position, block in enumerate(blocks(document, "python")):
        code = compile(block, f"{document.name} block {position + 1}", "exec", dont_inherit=True)
        exec(code, {"__name__": "copied"})


@pytest.mark.parametrize("position", range(len(blocks(TESTING, "python"))))
def test_every_test_that_the_page_on_testing_shows_passes(position: int) -> None:
    """A reader copies one into a test file: it is green from the start."""
    copied: dict[str, Any] = {"__name__": "copied"}
    exec(compile(blocks(TESTING, "python")[position], f"testing.md block {position + 1}", "exec"), copied)
    tests = [each for name, each in copied.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        asyncio.run(test()) if inspect.iscoroutinefunction(test) else test()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_python_block_of_the_readme_is_a_file_to_serve(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader saves a block as `my_brain.py`, for `firstword serve my_brain.py`, which looks for an `app`."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-1")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "key-2")
    for block in blocks(readme, "python"):
        saved: dict[str, object] = {"__name__": "my_brain"}
        exec(compile(block, "my_brain.py", "exec"), saved)
        assert isinstance(saved["app"], App)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_function_of_the_readme_fits_into_custom_llm(readme: Path) -> None:
    """A reader copies a block without `app = App()` to above the last two lines of `custom_llm.py`."""
    *rest, last, end = (ROOT / "custom_llm.py").read_text(encoding="utf-8").splitlines(keepends=True)
    assert last.startswith("if __name__")
    functions = [block.replace("app = App()\n", "") for block in blocks(readme, "python") if "app = App()\n" in block]
    new = [block for block in functions if '"parrot"' not in block]  # that one is in the file

    assert len(new) >= 3
    for block in new:
        source = "".join([*rest, block, "\n\n", last, end])
        exec(compile(source, "custom_llm.py", "exec"), {"__name__": "custom_llm"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    """A file was moved, or a heading renamed. Links out of the repository are not followed."""
    text = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", prose(document))  # what is shown as code is no link
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("kind", ["bash", "python", "json"])
def test_both_readmes_show_the_same_code(kind: str) -> None:
    """The Chinese README is for other readers, not about another program."""
    english, chinese = (blocks(readme, kind) for readme in READMES)

    assert english
    assert english == chinese


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_readme_names_every_setting_with_its_default(readme: Path) -> None:
    """A setting is added, renamed or given another default."""
    shown = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", prose(readme), re.MULTILINE))
    expected = {}
    for name, field in Brain.model_fields.items():
        aliases = getattr(field.validation_alias, "choices", [f"FIRSTWORD_{name.upper()}"])
        default = field.get_default(call_default_factory=True)
        text = str(default).lower() if isinstance(default, bool) else str(default)
        text = ",".join(default) if isinstance(default, list) else text
        expected[aliases[0]] = "–" if default in (None, []) else f"`{text}`"

    assert shown == expected


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_readme_names_every_error_and_path(readme: Path) -> None:
    """An error that a caller can meet (of a tool's only the model hears), or a route, is added without a word on it."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.Error)]
    codes = {each.code for each in classes if each.code is not None and each is not errors.ToolError}
    paths = {"/models", "/v1/models", "/health", "/ready", "/docs", "/openapi.json", *CHAT_PATHS, *AUDIO_PATHS}
    text = prose(readme)

    assert [word for word in sorted(codes | paths) if f"`{word}`" not in text] == []


def test_the_guide_explains_every_public_name() -> None:
    """A public name is added without a heading of its own in the guide."""
    headings = re.findall(r"^#+ .*$", prose(ROOT / "docs" / "guide.md"), re.MULTILINE)

    assert [name for name in firstword.__all__ if not any(f"`{name}`" in heading for heading in headings)] == []


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
