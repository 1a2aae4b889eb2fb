"""Models whose servers refuse what they do not know are asked in their own form, over the wire; others as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_of_a_test import Api
from caller import Caller
from served import Served
from strict_servers import JUDGES, Strict
from test_contract_requests import R1, R2, R3, R4, R6, R7

from firstword import App, ConfigError, Model
from firstword.providers.anthropic import Anthropic
from firstword.providers.cerebras import Cerebras
from firstword.providers.deepseek import DeepSeek
from firstword.providers.gemini import Gemini
from firstword.providers.groq import Groq
from firstword.providers.mistral import Mistral
from firstword.providers.openai import OpenAI
from firstword.roster import speaks
from firstword.testing import script

Serve = Callable[[App], Served]
AGORAS = {"R1": R1, "R2": R2, "R3": R3, "R4": R4, "R6": R6, "R7": R7}


def there(server: Strict, provider: str, **more: Any) -> Model:
    """A model behind one of the strict servers."""
    return Model("m", base_url=server.base_url, api_key="any", provider=provider, **more)


@pytest.mark.parametrize("name", JUDGES)
async def test_an_engine_talks_to_every_provider(name: str, serve: Serve) -> None:
    """Agora's requests, marks and all, and each is answered; the last server is strict without a name."""
    strict = Strict(Api(serve), JUDGES[name])
    caller = Caller(serve(App([there(strict, name, strict=name == "openai")], open=True, warm=False)).url)

    for request in AGORAS.values():
        heard = await caller.hears(request)
        assert (heard.status, heard.text) == (200, "Hello."), heard.body
    assert len(strict.bodies) == len(AGORAS)
    assert (await caller.hears({**R2, "stream": False})).json["choices"][0]["message"]["content"] == "Hello."


async def test_the_same_server_refuses_a_model_that_nobody_called_strict(serve: Serve) -> None:
    """The test above would say nothing otherwise; and the caller is told in the server's words."""
    strict = Strict(Api(serve), JUDGES["openai"])
    caller = Caller(serve(App([there(strict, "openai")], open=True, warm=False)).url)

    heard = await caller.hears(R2)
    assert heard.status == 400 and "Conversation roles must alternate" in heard.error["message"]


async def test_llm_strict_is_about_llm_base_url(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user only sets the environment: a gateway of his own, before a model with a narrow template."""
    strict, other = Strict(Api(serve), JUDGES["openai"]), Strict(Api(serve), lambda body: None)
    monkeypatch.setenv("LLM_BASE_URL", strict.base_url)
    monkeypatch.setenv("LLM_STRICT", "true")
    alone = Caller(serve(App(warm=False)).url)
    models = ["first", Model("elsewhere", base_url=other.base_url, api_key="any")]
    listed = Caller(serve(App(models, api_key="any", open=True, warm=False)).url)

    assert (await alone.hears(R2)).text == (await listed.hears({**R2, "model": "first"})).text == "Hello."
    assert (await listed.hears({**R2, "model": "elsewhere"})).text == "Hello."
    [body] = other.bodies
    assert [each["role"] for each in body["messages"]] == [
        "system",
        "assistant",
        "user",
        "assistant",
        "assistant",
        "user",
    ]


async def test_each_model_of_a_race_gets_its_own_form(serve: Serve) -> None:
    """The first one fails, and the next is asked: what was done for one is not done to the other."""
    broken = Strict(Api(serve), lambda body: "I never answer", status=503)
    groq = Strict(Api(serve), JUDGES["groq"])
    models = [there(broken, "mistral"), Model("g", base_url=groq.base_url, api_key="any", provider="groq")]
    caller = Caller(serve(App(models, open=True, warm=False)).url)

    heard = await caller.hears({**R2, "user": "u1", "seed": 7})
    assert (heard.status, heard.text) == (200, "Hello.")
    [first], [second] = broken.bodies, groq.bodies
    assert first["random_seed"] == 7 and "user" not in first and first["messages"][1]["content"] == "..."
    assert (second["seed"], second["user"]) == (7, "u1") and second["messages"][1]["role"] == "assistant"


@pytest.mark.parametrize("name", ["mistral", "groq", "gemini"])
async def test_a_tool_is_called_and_its_result_is_taken(name: str, serve: Serve) -> None:
    """Two rounds: the second request holds the call, with an id of ours, and what came of it, which is nothing."""
    strict = Strict(Api(serve), JUDGES[name])
    app = App([there(strict, name)], open=True, warm=False)

    @app.tool
    def clock() -> str:
        """Tell the time."""
        strict.says = [script.chunk({"role": "assistant", "content": "Noon."}), script.chunk({}, "stop")]
        return ""

    call = {"index": 0, "id": "", "function": {"name": "clock", "arguments": "{}"}}
    strict.says = [script.chunk({"role": "assistant", "tool_calls": [call]}), script.chunk({}, "tool_calls")]
    heard = await Caller(serve(app).url).hears(R2)

    assert (heard.text, len(strict.bodies)) == ("Noon.", 2)


async def test_a_history_leaves_with_as_many_messages_as_it_came(serve: Serve) -> None:
    """20 messages went into another server, and 74 came out of it: it added its own memory of the same turns."""
    lax = Strict(Api(serve), lambda body: None)
    caller = Caller(serve(App([there(lax, "openai")], open=True, warm=False)).url)
    said = [{"role": ("user", "assistant")[at % 2], "content": f"sentence {at}"} for at in range(19)]
    history = [{"role": "system", "content": "Be brief."}, *said]

    for turn_id in range(1, 5):
        request = {**R1, "turn_id": turn_id, "channel": "room-7", "session_id": "s1", "messages": history}
        assert (await caller.hears(request)).status == 200
    assert [body["messages"] for body in lax.bodies] == [history] * 4


# --- who is meant -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        ("https://api.groq.com/openai/v1", Groq),
        ("https://API.Groq.com/openai/v1/", Groq),
        ("https://api.groq.com/openai/v1/chat/completions", Groq),
        ("https://api.mistral.ai/v1", Mistral),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", Gemini),
        ("https://api.deepseek.com", DeepSeek),
        ("https://api.cerebras.ai/v1", Cerebras),
        ("https://api.anthropic.com/v1/", Anthropic),
        ("https://api.openai.com/v1", OpenAI),
        ("http://localhost:11434/v1", OpenAI),
        ("https://groq.com.example/v1", OpenAI),
        ("https://example.com/api.groq.com/v1", OpenAI),
    ],
)
def test_a_provider_is_known_by_its_host(base_url: str, kind: type[OpenAI]) -> None:
    """Somebody who only sets LLM_BASE_URL names no provider; his callers must be heard all the same."""
    assert type(speaks(Model("m"), base_url, strict=False)) is kind
    assert type(speaks(Model("m", base_url=base_url), "http://localhost/v1", strict=False)) is kind


def test_a_provider_that_is_named_is_the_one() -> None:
    """A gateway of somebody's own that speaks as Mistral does; strictness comes on top."""
    mine = Model("m", base_url="https://models.example/v1", provider="mistral")
    assert type(speaks(mine, "https://api.groq.com/openai/v1", strict=True)) is Mistral

    strict = speaks(Model("m", strict=True), "https://models.example/v1", strict=False)
    assert isinstance(strict, OpenAI) and strict.accepts.alternates and not strict.accepts.empty
    plain = speaks(Model("m"), "https://models.example/v1", strict=False)
    assert isinstance(plain, OpenAI) and plain.accepts.alternates is False


def test_what_cannot_be_strict_is_told_at_start() -> None:
    """The demo answers in the process, and takes everything."""
    with pytest.raises(ConfigError, match="A model of 'demo' cannot be strict") as told:
        App([Model("demo", provider="demo", strict=True)])
    assert "leave `strict` out" in str(told.value)
    App(["demo"], strict=True)


async def test_the_same_provider_by_its_short_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """`"mistral:mistral-small-latest"`, with the key of its own name."""
    monkeypatch.setenv("MISTRAL_API_KEY", "sk-mistral")
    app = App(["mistral:mistral-small-latest", "gemini:gemini-flash"])
    [first, second] = app._written.models

    assert (first.name, first.provider, first.api_key) == ("mistral-small-latest", "mistral", "sk-mistral")
    assert (second.provider, second.api_key) == ("gemini", None)
