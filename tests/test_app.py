"""The App: which model answers, when it freezes, where it may be mounted, and how long a turn may take."""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import pytest
from caller import Caller, Heard
from fastapi import FastAPI
from served import Served

import firstword
from firstword import App, ConfigError, Model, Timeline, Turn
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]


async def asks(app: App, serve: Serve, upstream: Upstream, named: str | None, marker: str) -> tuple[Heard, list[Any]]:
    """Let a caller name a model, or none; return what was heard and which models the upstream was asked for."""
    heard = await Caller(serve(app).url).says(model=named, user=marker, pace=0)
    return heard, [record.body["model"] for record in upstream.seen(marker)]


# --- which model answers --------------------------------------------------------------------------


async def test_without_models_the_callers_choice_goes_through(server: Served, upstream: Upstream) -> None:
    """The App names no models: whatever the request names is asked for, as it is."""
    names = ["gpt-5-mini", "llama3:8b", "openai/gpt-5", "openai:gpt-5", "模型"]
    for name in names:
        assert (await Caller(server.url).says(model=name, user="app-through")).text == "Hello"
    assert [record.body["model"] for record in upstream.seen("app-through")] == names


@pytest.mark.parametrize(
    ("model", "asked_for"),
    [
        ("gpt-5-mini", "gpt-5-mini"),
        ("openai:gpt-5-mini", "gpt-5-mini"),
        ("llama3:8b", "llama3:8b"),
        (Model("gpt-5-mini"), "gpt-5-mini"),
        (Model("llama3:8b", provider="openai"), "llama3:8b"),
    ],
    ids=str,
)
async def test_any_other_name_means_the_first_model(
    serve: Serve, upstream: Upstream, model: Model | str, asked_for: str
) -> None:
    """The operator decides which model answers; an engine that names none, or another one, still gets it."""
    caller = Caller(serve(App([model, "second"], base_url=upstream.base_url)).url)
    for named in ("anything", "", None, asked_for, "second"):
        assert (await caller.says(model=named, user=f"app-first-{model}")).text == "Hello"
    asked = [record.body["model"] for record in upstream.seen(f"app-first-{model}")]
    assert asked == [asked_for, asked_for, asked_for, asked_for, "second"]


async def test_a_model_that_is_named_is_asked_where_it_lives(serve: Serve, upstream: Upstream) -> None:
    """Two models behind two URLs, each with its own key: the name decides."""
    with Upstream.start() as elsewhere:
        app = App(
            [Model("near", upstream.base_url, "key-near"), Model("far", elsewhere.base_url, "key-far")],
            api_key="key-of-the-server",
            open=True,
        )
        caller = Caller(serve(app).url)
        for name, place in (("near", upstream), ("far", elsewhere)):
            assert (await caller.says(model=name, user=f"app-{name}")).text == "Hello"
            (record,) = place.seen(f"app-{name}")
            assert (record.body["model"], record.header("authorization")) == (name, f"Bearer key-{name}")


async def test_the_demo_is_always_there(serve: Serve, upstream: Upstream) -> None:
    """A new user hears something before there is a key, whatever the App names."""
    app = App(["gpt-5-mini"], base_url=upstream.base_url)
    heard, asked = await asks(app, serve, upstream, "demo", "app-demo")
    assert "demo model" in heard.text and asked == []


@pytest.mark.parametrize("model", ["demo", "demo:demo", Model("mine", provider="demo")], ids=str)
async def test_the_demo_can_be_the_first_model(serve: Serve, upstream: Upstream, model: Model | str) -> None:
    """A server that needs no provider at all."""
    heard, asked = await asks(App([model], base_url=upstream.base_url), serve, upstream, "any", f"app-{model}")
    assert "demo model" in heard.text and asked == []


async def test_a_request_without_a_model_is_refused_with_the_mend(serve: Serve, upstream: Upstream) -> None:
    """No `model` in the request, none in the App, none in the environment: nobody can know which one is meant."""
    heard, asked = await asks(App(base_url=upstream.base_url), serve, upstream, None, "app-no-model")
    assert (heard.status, heard.error["param"], asked) == (400, "model", [])
    assert "LLM_MODEL" in heard.error["message"]


async def test_a_request_without_a_model_gets_the_default(
    serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLM_MODEL names the model for those who do not."""
    monkeypatch.setenv("LLM_MODEL", "the-default")
    heard, asked = await asks(App(base_url=upstream.base_url), serve, upstream, None, "app-default")
    assert (heard.text, asked) == ("Hello", ["the-default"])


async def test_the_default_may_be_a_function(serve: Serve) -> None:
    """`App(model=...)` names a function of the user's: a server that never asks anybody."""
    app = App(base_url="http://127.0.0.1:9/v1", model="parrot", warm=False)

    @app.model("parrot")
    async def parrot(turn: Turn) -> str:
        return f"{turn.model} says {turn.text}"

    assert (await Caller(serve(app).url).says("Hello", model=None)).text == "parrot says Hello"


async def test_the_list_names_what_can_be_named(serve: Serve, upstream: Upstream) -> None:
    """With models of its own the App lists these, its functions and the demo; what the upstream has is not offered."""
    app = App(["gpt-5-mini", "llama3:8b"], base_url=upstream.base_url)
    app.model("parrot")(lambda turn: "Polly.")
    listed = await Caller(serve(app).url).hears(path="/models", method="GET")
    assert [model["id"] for model in listed.json["data"]] == ["demo", "gpt-5-mini", "llama3:8b", "parrot"]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: App(["a", "b", "a"]), "two models 'a'"),
        (lambda: App(["a"]).model("a"), "two models 'a'"),
        (lambda: App([""]), "no name"),
        (lambda: App(["openai:"]), "no name"),
        (lambda: App(base_url="api.openai.com/v1"), "not an http or https URL"),
        (lambda: App([Model("a", "ftp://example.com")]), "not an http or https URL"),
        (lambda: App(platform="agoraa"), "no platform 'agoraa'"),
    ],
)
def test_what_cannot_work_is_told_when_the_app_is_written(write: Callable[[], Any], said: str) -> None:
    """A wrong App says so at once, with the mend; not when somebody calls."""
    with pytest.raises(ConfigError) as caught:
        write()
    assert said in caught.value.message and caught.value.hint


def test_two_functions_of_one_name_are_refused() -> None:
    """The second would silently take the first one's callers."""
    app = App()
    app.model("mine")(lambda turn: "one")
    with pytest.raises(ConfigError, match="two models 'mine'"):
        app.model("mine")


def test_a_key_is_never_shown() -> None:
    """A Model or the settings in a traceback or a log line."""
    app = App([Model("a", api_key="sk-secret")], api_key="sk-secret", keys=["sk-secret"])
    assert "sk-secret" not in repr(app._written.models) + repr(app.settings) + str(app.settings)


# --- freezing -------------------------------------------------------------------------------------


async def test_the_app_is_frozen_once_it_serves(serve: Serve, upstream: Upstream) -> None:
    """What is added later would answer some callers and not others: it is refused, in a sentence that says so."""
    app = App(base_url=upstream.base_url)
    assert (await Caller(serve(app).url).says()).done

    async def late(turn: Turn) -> str:
        return "Too late."

    for name in ("before_turn", "after_turn", "stage", "model"):
        with pytest.raises(
            ConfigError, match=f"app.{name} came after the first turn, when the App is frozen"
        ) as caught:
            getattr(app, name)("late" if name == "model" else late)
        assert "before app.run()" in str(caught.value)


# --- where it stands ------------------------------------------------------------------------------


async def test_it_answers_within_another_app_that_does_not_start_it(upstream: Upstream) -> None:
    """Mounted in FastAPI, which passes no lifespan on: the first turn builds it, `close` ends it."""
    app = App(base_url=upstream.base_url)
    over: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(over.put)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await app.close()

    api = FastAPI(lifespan=lifespan)
    api.get("/hello")(lambda: "Hello from FastAPI.")
    api.mount("/llm", app)
    served = Served(api)  # type: ignore[arg-type]
    try:
        caller = Caller(served.url)
        heard = await caller.says("Hello there.", path="/llm/chat/completions")
        assert (heard.status, heard.text, heard.done) == (200, "Hello there.", True)
        assert over.get(timeout=2).reply.text == "Hello there."
        assert (await caller.hears(path="/llm/health", method="GET")).json == {"status": "ok"}
        assert (await caller.hears(path="/hello", method="GET")).json == "Hello from FastAPI."
    finally:
        served.stop()
    assert app._built is not None and app._built.transport.open_count == 0


async def test_two_apps_live_in_one_process(serve: Serve, upstream: Upstream) -> None:
    """Each has its own models, hooks, keys and connections."""
    one, two = (App([name], base_url=upstream.base_url, api_key=f"key-{name}") for name in ("one", "two"))
    one.before_turn(lambda turn: turn.messages.append({"role": "user", "content": "And one."}))
    callers = [Caller(serve(app).url) for app in (one, two)]

    assert [(await caller.says("Hello", user="app-two-apps")).text for caller in callers] == ["And one.", "Hello"]
    records = upstream.seen("app-two-apps")
    assert [record.header("authorization") for record in records] == ["Bearer key-one", "Bearer key-two"]
    assert [record.body["model"] for record in records] == ["one", "two"]


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_that_takes_too_long_before_a_word_is_a_504(
    serve: Serve, upstream: Upstream, stream: bool
) -> None:
    """The model is silent and its own limits are generous: the turn's limit ends it."""
    served = serve(App(base_url=upstream.base_url, turn_timeout=0.2))
    heard = await Caller(served.url).says(script=script.never_answers(), stream=stream, user=f"app-turn-{stream}")

    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    assert "0.2 seconds" in heard.error["message"]
    (record,) = await upstream.wait_closed(f"app-turn-{stream}")
    assert record.closed_by == "peer"
    assert served.left_open() == {"in_use": 0, "turns": 0}


async def test_a_turn_that_takes_too_long_after_a_word_is_told_in_the_stream(serve: Serve, upstream: Upstream) -> None:
    """The model talks on and on: the caller has the words, and then an error instead of a false end."""
    on_and_on = [*script.stalls_after("One"), script.repeat(script.text(" and on"), script.wait(0.02))]
    served = serve(App(base_url=upstream.base_url, turn_timeout=0.2))
    heard = await Caller(served.url).says(script=on_and_on)

    assert heard.text.startswith("One and on") and heard.finish_reasons == []
    assert (heard.status, heard.error["code"], heard.done, heard.whole) == (200, "upstream_timeout", False, True)
    assert served.left_open() == {"in_use": 0, "turns": 0}


@pytest.mark.parametrize("model", ["m1", "demo", "generator", "sender"])
async def test_the_marks_of_a_turn_are_in_order(serve: Serve, upstream: Upstream, model: str) -> None:
    """Metrics are made from these marks: each is there, none before the one before it."""
    app = App(base_url=upstream.base_url)
    over: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(over.put)

    @app.model("generator")
    async def generator(turn: Turn) -> AsyncIterator[str]:
        yield "Hello."

    @app.model("sender")
    async def sender(turn: Turn, send: firstword.Send) -> None:
        await send(firstword.Chunk(script.chunk({"content": "Hello."}, "stop")))

    assert (await Caller(serve(app).url).says(model=model, pace=0)).done
    timeline = over.get(timeout=2).timeline
    assert timeline.left is None
    marks = [getattr(timeline, field.name) for field in fields(Timeline) if field.name != "left"]
    assert None not in marks and marks == sorted(marks)


def test_models_are_a_list() -> None:
    """`App(models="gpt")` is no list of the models g, p and t."""
    with pytest.raises(ConfigError, match="not a list"):
        App("gpt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"(?s)neither a name nor a Model.*hint: write models=\["):
        App([{"name": "gpt"}])  # type: ignore[list-item]


def test_a_function_without_a_name_is_refused() -> None:
    """`@app.model` was written like `@app.tool`: without its name nobody could ever ask for it."""
    with pytest.raises(ConfigError, match=r'hint: write @app.model\("parrot"\)'):

        @App().model  # type: ignore[arg-type]
        async def parrot(turn: Turn) -> str:
            return turn.text


async def test_a_cancellation_of_somebody_elses_is_a_mistake(serve: Serve, upstream: Upstream) -> None:
    """A model awaits a task that was cancelled: nobody hung up, and the caller is told."""
    app = App(base_url=upstream.base_url)

    @app.model("careless")
    async def careless(turn: Turn) -> str:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
        return "never said"

    served = serve(app)
    if sys.version_info >= (3, 11):  # 3.10 cannot tell whose cancellation it is
        heard = await Caller(served.url).says(model="careless")
        assert (heard.status, heard.error["type"]) == (500, "server_error")
    assert (await Caller(served.url).says("Hello")).text == "Hello"


async def test_a_model_that_exits_ends_its_turn_only(serve: Serve, upstream: Upstream) -> None:
    """`sys.exit()` in a function of the user's is a mistake, and not the end of all calls."""
    app = App(base_url=upstream.base_url)

    @app.model("leaver")
    async def leaver(turn: Turn) -> str:
        sys.exit(3)

    served = serve(app)
    heard = await Caller(served.url).says(model="leaver")
    assert heard.status == 500
    assert (await Caller(served.url).says("Hello")).text == "Hello"
