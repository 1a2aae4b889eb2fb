"""The ordinary pages: what they say, to whom, and that the documentation and the routes are the same."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from caller import Caller, turn
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator
from served import Served
from sounds import MISSING, needs_espeak

from firstword import App, Model
from firstword.server.openapi import document
from firstword.server.pages import Pages
from firstword.server.routes import AUDIO_PATHS, CHAT_PATHS
from firstword.telemetry import Counts, Metrics
from firstword.testing import Upstream
from firstword.testing.exchange import MODELS

DOCUMENTED = [(path, method) for path, methods in document()["paths"].items() for method in methods]
GET_PATHS = [path for path, method in DOCUMENTED if method == "get"]


@pytest.fixture(scope="module")
def pages(upstream: Upstream) -> Iterator[Caller]:
    """Somebody who looks at the pages of the plain server."""
    server = Served(App(base_url=upstream.base_url))
    yield Caller(server.url)
    server.stop()


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A port that refuses connections until the test calls `listen()`."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def url_of(bound: socket.socket) -> str:
    """The base URL of a model's server on that port."""
    return f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


async def look(caller: Caller, path: str, **headers: str) -> tuple[int, Any]:
    """Return the status and the JSON of a page."""
    heard = await caller.hears(path=path, method="GET", headers=headers)
    return heard.status, heard.json


async def names(caller: Caller, path: str = "/models", **headers: str) -> list[str]:
    """Return the models that are listed."""
    status, page = await look(caller, path, **headers)
    assert (status, page["object"]) == (200, "list")
    assert all(model["object"] == "model" and model["owned_by"] for model in page["data"])
    return [model["id"] for model in page["data"]]


# --- health and readiness --------------------------------------------------------------------------------


async def test_health_says_that_the_process_runs(serve: Callable[[App], Served], deaf: socket.socket) -> None:
    """It does even when no model can be reached: to restart us would not help."""
    caller = Caller(serve(App(base_url=url_of(deaf), warm=False)).url)

    assert await look(caller, "/health") == (200, {"status": "ok"})


async def test_ready_says_that_a_model_can_be_reached(pages: Caller) -> None:
    """The scripted model's server is there."""
    assert await look(pages, "/ready") == (200, {"status": "ready", "reasons": [], "models": {}})


async def test_not_ready_says_why_and_names_no_host(
    serve: Callable[[App], Served], deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens where the model should be; then somebody does."""
    caller = Caller(serve(App(base_url=url_of(deaf), warm=False)).url)

    first = await look(caller, "/ready")
    assert (first[0], first[1]["status"], len(first[1]["reasons"])) == (503, "unready", 1)
    assert "refused" in first[1]["reasons"][0]
    assert "127.0.0.1" not in first[1]["reasons"][0]

    deaf.listen()
    assert await look(caller, "/ready") == first  # kept for a while: whoever asks often cannot make us dial
    monkeypatch.setattr("firstword.server.pages.READY_FOR", 0.0)
    assert await look(caller, "/ready") == (200, {"status": "ready", "reasons": [], "models": {}})


async def test_a_balancer_need_not_know_of_the_models(serve: Callable[[App], Served], deaf: socket.socket) -> None:
    """The provider is away for every replica alike: callers are to hear the apology, and not the balancer's error."""
    away = Caller(serve(App(base_url=url_of(deaf), warm=False)).url)

    assert (await look(away, "/ready"))[0] == 503
    assert await look(away, "/ready?models=no") == (200, {"status": "ready", "reasons": [], "models": {}})


async def test_one_model_within_reach_is_enough(
    serve: Callable[[App], Served], upstream: Upstream, deaf: socket.socket
) -> None:
    """Of two servers one is away."""
    two = App([Model("away", base_url=url_of(deaf)), "here"], base_url=upstream.base_url, warm=False)

    assert (await look(Caller(serve(two).url), "/ready"))[0] == 200


async def test_of_several_models_each_has_its_reason(serve: Callable[[App], Served], deaf: socket.socket) -> None:
    """All are away, two of them at one place: the operator sees which reason is whose, and still no host."""
    there, elsewhere = url_of(deaf), url_of(deaf).replace("/v1", "/v2")
    away = App(
        [Model("one", base_url=there), Model("two", base_url=elsewhere), Model("three", base_url=there)], warm=False
    )

    status, page = await look(Caller(serve(away).url), "/ready")
    assert (status, [reason.partition(": ")[0] for reason in page["reasons"]]) == (503, ["one, three", "two"])
    assert "127.0.0.1" not in str(page["reasons"])


# --- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/models", "/v1/models", "/models/", "/v1/models/"])
async def test_ours_are_listed_before_the_upstreams(pages: Caller, upstream: Upstream, path: str) -> None:
    """The caller's key goes with the question, as it would with a turn."""
    assert await names(pages, path, authorization="Bearer sk-lister") == ["demo", *MODELS]

    record = [each for each in upstream.seen("", until="now") if each.path == "/v1/models"][-1]
    assert (record.method, record.header("authorization")) == ("GET", "Bearer sk-lister")


async def test_named_models_and_functions_are_all_that_is_listed(
    serve: Callable[[App], Served], upstream: Upstream
) -> None:
    """Any other name would be answered by the first of them, so the upstream's own list would mislead."""
    models: list[Model | str] = ["small", Model("large", base_url="http://127.0.0.1:1/v1", api_key="sk-large")]
    app = App(models, base_url=upstream.base_url, warm=False)
    app.model("parrot")(lambda turn: turn.text)
    caller = Caller(serve(app).url)

    assert await names(caller) == ["demo", "small", "large", "parrot"]


async def test_ours_are_listed_when_the_upstream_is_away(serve: Callable[[App], Served], deaf: socket.socket) -> None:
    """Nobody listens there; a new user still sees the demo."""
    assert await names(Caller(serve(App(base_url=url_of(deaf), warm=False)).url)) == ["demo"]


async def test_with_gate_keys_only_who_has_one_sees_the_list(
    serve: Callable[[App], Served], upstream: Upstream
) -> None:
    """The list is asked for with the server's own key, and tells what it may use."""
    app = App(base_url=upstream.base_url, api_key="sk-held-list", keys=["gate"])
    caller = Caller(serve(app).url)

    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer sk-held-list"}):
        status, page = await look(caller, "/models", **headers)
        assert (status, page["error"]["code"]) == (401, "invalid_api_key")
    assert await names(caller, authorization="Bearer gate") == ["demo", *MODELS]
    keys = [each.header("authorization") for each in upstream.seen("", until="now") if each.path == "/v1/models"]
    assert keys[-1] == "Bearer sk-held-list"
    assert "Bearer gate" not in keys


# --- the documentation ----------------------------------------------------------------------------------------


async def test_the_document_is_valid_openapi(pages: Caller) -> None:
    """Version 3.1, as it is served."""
    status, page = await look(pages, "/openapi.json")

    assert (status, page["openapi"]) == (200, "3.1.0")
    assert list(OpenAPIV31SpecValidator(page).iter_errors()) == []


@pytest.mark.parametrize(("path", "method"), DOCUMENTED)
async def test_what_is_documented_is_answered(pages: Caller, path: str, method: str) -> None:
    """Every path, with its method."""
    if "audio" in path and needs_espeak.args[0]:
        pytest.skip(MISSING)
    # What is streamed as sound lasts as long as it is heard.
    heard = await pages.hears(turn("Hi", model="demo", pace=0, stream=False), path=path, method=method.upper())

    assert heard.status == 200
    documented = document()["paths"][path][method]["responses"]["200"]["content"]
    assert heard.headers["content-type"].partition(";")[0] in documented


def test_what_is_answered_is_documented() -> None:
    """But for the root, which is the documentation, and the paths that only a mistaken paste leads to."""
    app = App(warm=False)
    plain = {path for path in CHAT_PATHS | AUDIO_PATHS if path.count("/chat/completions") == 1}

    assert {path for path, _ in DOCUMENTED} == plain | set(Pages(app.gate, app, Metrics(Counts())).paths) - {"/"}


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_the_page_runs_nothing_and_fetches_nothing(pages: Caller, path: str) -> None:
    """It is served on the port that the internet sees."""
    heard = await pages.hears(path=path, method="GET")

    assert (heard.status, heard.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = heard.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert (heard.headers["x-content-type-options"], heard.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    page = heard.body.decode()
    assert not re.search(r"<script|<img|<link|<iframe|@import|\son\w+=|(?:src|href)=[\"']?(?:https?:)?//", page)
    assert all(f"<code>{documented}</code>" in page for documented, _ in DOCUMENTED)


@pytest.mark.parametrize("path", ["/", *GET_PATHS])
async def test_head_is_get_without_the_body(pages: Caller, path: str) -> None:
    """Uptime checks ask so."""
    asked = await pages.hears(path=path, method="GET")
    heard = await pages.hears(path=path, method="HEAD")

    assert (heard.status, heard.body, heard.whole) == (200, b"", True)
    changing = {"date": "", **({"content-length": ""} if path == "/metrics" else {})}  # it tells of memory and CPU
    assert {**heard.headers, **changing} == {**asked.headers, **changing}


async def test_no_page_is_kept_by_a_cache(pages: Caller) -> None:
    """What a page says is true now."""
    for path in GET_PATHS:
        assert (await pages.hears(path=path, method="GET")).headers["cache-control"] == "no-store"


# --- mounted ---------------------------------------------------------------------------------------------------


async def test_a_mounted_app_answers_under_its_prefix(upstream: Upstream) -> None:
    """`app.mount("/llm", firstword_app)` in somebody's FastAPI server, which keeps its own routes."""
    app = App(base_url=upstream.base_url, warm=False)
    host = FastAPI()
    host.mount("/llm", app)

    @host.get("/health")
    def health() -> str:
        return "the host's own"

    server = Served(host)  # type: ignore[arg-type]
    try:
        caller = Caller(server.url)
        for path in sorted(CHAT_PATHS):
            heard = await caller.says("Hello there.", path=f"/llm{path}")
            assert (heard.status, heard.text, heard.done) == (200, "Hello there.", True)
        for path in GET_PATHS:
            assert (await caller.hears(path=f"/llm{path}", method="GET")).status == 200
        assert (await look(caller, "/health"))[1] == "the host's own"
        assert (await look(caller, "/llm/health"))[1] == {"status": "ok"}
        assert (await look(caller, "/llm/nowhere"))[1]["error"]["code"] == "not_found"
        # The document names its server by a path that is right wherever it is mounted.
        where = (await look(caller, "/llm/openapi.json"))[1]["servers"][0]["url"]
        assert PurePosixPath("/llm", where, "chat/completions") == PurePosixPath("/llm/chat/completions")
    finally:
        server.run(app.close)
        server.stop()
