"""Where a turn goes, and with which key, is the operator's to say: nothing in a request changes it, nor does an answer.

Rules:
- The canary is a second upstream that nobody configured. One connection to it, and a test has failed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from api_of_a_test import Api
from caller import Caller, turn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Served

from firstword import App, ConfigError, Model
from firstword.testing import Upstream
from firstword.upstreams import check_upstream

Serve = Callable[[App], Served]

HELD, GATE, CALLERS = "sk-held-by-the-server", "gate-key-of-a-caller", "sk-of-the-caller"
SENT = {"host", "content-type", "accept", "accept-encoding", "user-agent", "authorization", "content-length"}


@pytest.fixture(scope="module")
def canary() -> Iterator[Upstream]:
    with Upstream.start() as process:
        yield process


@pytest.fixture(scope="module")
def doors(upstream: Upstream) -> Iterator[list[tuple[Served, str, str]]]:
    """Servers in front of one model: (server, the caller's key, the key that the model may see)."""
    made = [
        (Served(App(base_url=upstream.base_url, api_key=HELD, keys=[GATE])), GATE, HELD),
        (Served(App(base_url=upstream.base_url)), CALLERS, CALLERS),
        (Served(App([Model("m1", api_key=HELD)], base_url=upstream.base_url, keys=[GATE])), GATE, HELD),
    ]
    yield made
    for served, _, _ in made:
        served.stop()


# Names under which gateways take an upstream, a key or headers from a request, and some of ours.
_FIELDS = """
base_url api_base api_base_url base endpoint url uri host hostname server upstream target provider providers proxy
proxies http_proxy https_proxy http_client extra_headers extra_body extra_query default_headers headers header
api_key apikey key keys token authorization auth organization project azure_endpoint azure_deployment api_version
deployment_id custom_llm_provider litellm_params fallbacks models model_list route router transforms plugins config
vertex_project region aws_access_key_id aws_bedrock_runtime_endpoint custom_host webhook callback_url LLM_BASE_URL
LLM_API_KEY FIRSTWORD_MODELS params context metadata call assistant credentials custom_llm_extra_body
elevenlabs_extra_body session_id stream_options reasoning response_format voice voice_base_url name model
tool_choice service_tier
"""
_HEADERS = """
x-base-url x-api-base base-url x-upstream x-upstream-url x-target-url x-forwarded-host x-forwarded-for
x-forwarded-proto forwarded x-original-url x-rewrite-url x-host proxy http-proxy https-proxy x-proxy via referer
x-portkey-custom-host x-portkey-provider x-portkey-config x-litellm-api-base x-litellm-api-key openai-organization
openai-base-url x-openai-base-url helicone-target-url helicone-openai-api-base x-stainless-base-url api-key
x-api-key x-model x-provider llm-base-url x-llm-base-url location content-location alt-svc
upgrade-insecure-requests cookie x-session-id x-request-id traceparent tracestate baggage x-script x-marker
"""
FIELDS, HEADERS = _FIELDS.split(), _HEADERS.split()


def values(port: int) -> list[str]:
    """Return ways to write where the canary is."""
    place = f"127.0.0.1:{port}"
    return [
        f"http://{place}/v1",
        f"http://{place}",
        f"{place}",
        f"//{place}/v1",
        f"@{place}/v1",
        f"x@{place}",
        f"http://{place}/v1#",
        f"http://{place}/v1?",
        f"../../..//{place}/v1",
        f"openai:http://{place}/v1",
        f"openai@http://{place}/v1",
        f"http_proxy=http://{place}",
        f"m1\r\nhost: {place}\r\nauthorization: Bearer x\r\n\r\n",
        f"m1 HTTP/1.1\r\nhost: {place}",
        "${LLM_API_KEY}",
        "{{api_key}}",
        "{self.__class__.__init__.__globals__}",
        "groq:llama",
        "local",
        "anthropic",
    ]


class Letter:
    """One request as an attacker writes it; drawn by Hypothesis."""

    def __init__(self, draw: st.DrawFn, port: int) -> None:
        texts = st.sampled_from(values(port))
        nested = st.dictionaries(st.sampled_from(FIELDS), texts, max_size=3)
        anything = st.one_of(texts, st.lists(texts, max_size=2), nested)
        self.body = draw(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6))
        self.headers = draw(st.dictionaries(st.sampled_from(HEADERS), texts, max_size=5))
        self.query = draw(st.dictionaries(st.sampled_from(FIELDS), texts, max_size=4))
        self.message = draw(nested)
        self.path = draw(
            st.sampled_from(["", "/v1", "/agora", "/vapi", "/hume", "/elevenlabs", "/agora/s/{}", "/s/{}"])
        )
        self.path = self.path.replace("{}", quote(draw(texts), safe="")) + "/chat/completions"

    def target(self) -> str:
        """Return the path and the query."""
        query = "&".join(f"{name}={quote(value)}" for name, value in self.query.items())
        return f"{self.path}?{query}" if query else self.path

    def sent(self, marker: str) -> dict[str, Any]:
        """Return the body."""
        body = {"model": "m1", **self.body, "user": marker}
        message = {"role": "user", "content": "Hello", **self.message}
        message["content"] = "Hello"
        return {**body, "stream": True, "messages": [message]}

    def plain_headers(self) -> dict[str, str]:
        """Return the headers, those that could not be sent mended: h11 would refuse them on our own side."""
        return {name: " ".join(value.split()) for name, value in self.headers.items()}


@st.composite
def letters(draw: st.DrawFn, port: int) -> Letter:
    return Letter(draw, port)


@pytest.mark.timeout(120)
def test_nothing_in_a_request_changes_where_it_goes(
    upstream: Upstream, canary: Upstream, doors: list[tuple[Served, str, str]]
) -> None:
    """Portkey's custom host, LiteLLM's api_base, and all their kin: anywhere in a request, in any combination."""
    port = int(canary.base_url.split(":")[2].split("/")[0])
    answered = 0

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(letters(port))
    def tries(letter: Letter) -> None:
        nonlocal answered
        for served, key, seen in doors:
            marker = uuid.uuid4().hex
            headers = {**letter.plain_headers(), "authorization": f"Bearer {key}"}
            send = Caller(served.url).hears(letter.sent(marker), path=letter.target(), headers=headers)
            heard = asyncio.run(send)
            answered += heard.status == 200
            assert HELD.encode() not in heard.body
            for record in upstream.seen(marker):
                assert (record.method, record.path) == ("POST", "/v1/chat/completions")
                assert record.header("host") == upstream.base_url.split("/")[2]
                assert record.header("authorization") == f"Bearer {seen}"
                assert {name for name, _ in record.headers} <= SENT and len(record.headers) <= len(SENT)

    tries()
    assert answered > 20
    assert canary.connections().total == 0


def test_what_is_drawn_is_what_is_sent(canary: Upstream) -> None:
    """The test above would find nothing if its letters held nothing: where the canary is really stands in them."""
    port = int(canary.base_url.split(":")[2].split("/")[0])
    found: list[str] = []

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(letters(port))
    def look(letter: Letter) -> None:
        found.append(f"{letter.sent('x')} {letter.plain_headers()} {letter.target()}")

    look()
    assert sum(str(port) in each for each in found) > 15


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_answer_leads_elsewhere(serve: Serve, canary: Upstream, status: int) -> None:
    """A base URL that was taken over sends us on, to the canary: for a turn, the list of models and a voice."""
    api = Api(serve)
    for path in ("/v1/chat/completions", "/v1/models", "/v1/audio/speech"):
        api.says(
            path, b"", status=status, location=f"{canary.base_url}/chat/completions", refresh=f"0;{canary.base_url}"
        )
    app = App(base_url=f"{api.url}/v1", api_key=HELD, voice="openai:tts")
    caller = Caller(serve(app).url)

    heard = await caller.says("Hello")
    assert (heard.status, heard.error["code"]) == (502, "upstream_protocol_error") and "keys do not follow" in str(
        heard.error
    )
    assert (await caller.hears(path="/models", method="GET")).status == 200
    aloud = turn(modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"}, model="demo", stream=False)
    assert (await caller.hears(aloud)).status == 502

    assert [asked.target for asked in api.asked].count("/v1/audio/speech") == 1 and len(api.asked) >= 3
    assert canary.connections().total == 0


async def test_a_key_of_one_place_is_not_sent_to_another(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A model elsewhere, without a key of its own, on a server whose key is for `base_url`."""
    elsewhere = Model("other", base_url=upstream.base_url + "/x")
    app = App([Model("m1"), elsewhere], base_url=upstream.base_url, api_key=HELD, keys=[GATE])
    caller = Caller(serve(app).url)
    await caller.says("Hello", model="other", user=marker, headers={"authorization": f"Bearer {GATE}"})

    sent = {record.path: record.header("authorization") for record in upstream.seen(marker)}
    assert sent["/v1/x/chat/completions"] is None
    assert set(sent.values()) <= {None, f"Bearer {HELD}"}


# --- what a base URL must be like -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "http://8.8.8.8/v1",
        "http://8.8.8.8:11434/v1",
        "http://[2606:4700::1]/v1",
        "http://2130706433/v1",
        "http://example.com./v1",
    ],
)
def test_a_key_does_not_go_over_the_open_network_as_plain_text(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The s of https was forgotten: the server's key, a model's, the callers', or a voice's."""
    for make in (
        lambda: App(base_url=url, api_key=HELD),
        lambda: App(base_url=url),
        lambda: App([Model("m1", base_url=url, api_key=HELD)]),
        lambda: App(voice="openai:tts", voice_base_url=url, voice_api_key=HELD),
        lambda: App(agora_agents_api_base_url=url, agora_basic_key=HELD, agora_basic_secret=HELD),
    ):
        with pytest.raises(ConfigError, match="plain http") as caught:
            make()
        assert HELD not in str(caught.value) and "FIRSTWORD_PLAIN_HTTP" in str(caught.value)
    App(base_url=url, keys=[GATE])  # no key goes there
    monkeypatch.setenv("FIRSTWORD_PLAIN_HTTP", "true")
    App(base_url=url, api_key=HELD)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost",
        "vllm:8000",
        "10.0.0.5",
        "[fd00::5]",
        "100.64.0.7",
        "gpu.lan",
        "host.docker.internal",
    ],
)
def test_within_one_s_own_network_plain_http_is_usual(host: str) -> None:
    """vLLM, llama.cpp and Ollama speak nothing else."""
    App(base_url=f"http://{host}/v1", api_key=HELD)


@pytest.mark.parametrize("name", ["key", "api_key", "API-KEY", "token", "access_token"])
def test_a_key_does_not_stand_in_a_url(name: str) -> None:
    """LiteLLM#39964: it comes out in logs, tracebacks and at every proxy."""
    with pytest.raises(ConfigError, match="a key in its query") as caught:
        App(base_url=f"https://api.example.com/v1?{name}={HELD}")
    assert HELD not in str(caught.value)
    check_upstream("https://x.example/v1?api-version=2026-01-01", carries_key=True, plain_http=False)
    with pytest.raises(ConfigError):
        App(base_url=f"https://user:{HELD}@api.example.com/v1")


async def test_a_certificate_of_nobody_s_is_not_trusted(serve: Serve, tmp_path: Any) -> None:
    """Somebody stands between us and the model: the key is not sent, and there is no switch to send it all the same."""
    import trustme

    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with Upstream.start(tls=(tmp_path / "cert.pem", tmp_path / "key.pem")) as between:
        caller = Caller(serve(App(base_url=between.base_url, api_key=HELD)).url)
        heard = await caller.says("Hello")
        assert heard.status == 502 and "certificate" in heard.error["message"]
        assert between.seen() == []
