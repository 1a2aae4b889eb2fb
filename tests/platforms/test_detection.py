"""Whose engine a request comes from is seen from marks, each as narrow as the documents allow, and never from words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden_requests import CASES, asked
from hypothesis import given, settings
from hypothesis import strategies as st

from firstword import App, plugins
from firstword.platforms import Asked
from firstword.platforms._detect import MARKS, Mark, detected, found
from firstword.testing import says, talk

Json = dict[str, Any]
HI = [{"role": "user", "content": "Hi"}]
DATE = "2026-01-30T12:51:16.946Z"


def request(query: dict[str, str] | None = None, *, message: Json | None = None, **body: Any) -> Asked:
    """Return a request of somebody: with a model, as nearly all have, unless the body says None of it."""
    fields = {"model": "m1", "stream": True, "messages": [{**HI[0], **(message or {})}], **body}
    return Asked({k: v for k, v in fields.items() if v is not None}, {}, query or {}, "/chat/completions", None)


# For each mark: what it finds, and what looks like it and is somebody else's.
SHAPES: dict[tuple[str, str, str], tuple[list[Asked], list[Asked]]] = {
    ("elevenlabs", "body", "elevenlabs_extra_body"): (
        [request(elevenlabs_extra_body={"session_id": "s"}), request(elevenlabs_extra_body={})],
        [request(user_id="u"), request(extra_body={"session_id": "s"})],
    ),
    ("vapi", "body", "call"): (
        [request(call={"id": "c"}), request(call={"orgId": "o", "type": "webCall"})],
        [request(call="c"), request(call={"name": "f"}), request(call=["id"])],
    ),
    ("vapi", "body", "phoneNumber"): (
        [request(phoneNumber={"number": "+15550100"})],
        [request(phoneNumber="+15550100"), request(customer={"number": "+15550123"}), request(metadata={"a": "b"})],
    ),
    ("telnyx", "body", "extra_metadata"): (
        [request(extra_metadata={"telnyx_end_user_target": "+15550123"})],
        [request(extra_metadata="x"), request(metadata={"telnyx_end_user_target": "+15550123"})],
    ),
    ("hume", "query", "custom_session_id"): (
        [request({"custom_session_id": "s"})],
        [request({"session_id": "s"}), request(custom_session_id="s")],
    ),
    ("hume", "message", "models"): (
        [request(message={"models": {"prosody": {"scores": {"Joy": 0.5}}}})],
        [
            request(message={"models": ["gpt-5"]}),
            request(message={"models": {"gpt-5": 1}}),
            request(models=["a/b", "c/d"]),  # OpenRouter's list of models to fall back on
            request(message={"time": {"begin": 1, "end": 2}}),
        ],
    ),
    ("did", "message", "created_at"): (
        [request(model=None, message={"created_at": DATE}), request(model=None, message={"created_at": DATE[:19]})],
        [
            request(message={"created_at": DATE}),  # a chat page that sends its own rows, and names a model
            request(model=None, message={"created_at": 1767000000}),
            request(model=None, message={"created_at": "yesterday"}),
            request(model=None, options={"num_ctx": 4096}),
            request(options={"num_ctx": 4096}),  # Ollama's
        ],
    ),
    ("agora", "body", "turn_id"): (
        [request(turn_id=4)],
        [request(turn_id="turn_abc"), request(turn_id=None), request(turn_id=True)],
    ),
    ("agora", "body", "interruptable"): (
        [request(interruptable=True), request(interruptable=False)],
        [request(interruptable="yes"), request(interruptible=True)],
    ),
    ("agora", "message", "turn_id"): ([request(message={"turn_id": 2})], [request(message={"turn_id": "t"})]),
    ("agora", "message", "metadata"): (
        [
            request(message={"metadata": {"source": "asr", "user": "1002"}}),
            request(message={"metadata": {"vpids": ["ann"]}}),
        ],
        [
            request(message={"metadata": {"source": "web", "user": "ann"}}),  # LangChain's users send such
            request(message={"metadata": {"langgraph_node": "agent"}}),
            request(message={"metadata": None}),
            request(message={"metadata": {"source": {"asr": 1}}}),
            request(metadata={"source": "asr"}),
        ],
    ),
    ("agora", "body", "context"): (
        [request(context={"presence": {}}), request(context={"appId": "a"})],
        [
            request(context={"conversation_id": "c", "user_id": "u"}),  # MLflow's agents
            request(context=[1, 2]),  # Ollama's
            request(context="text"),
        ],
    ),
    ("agora", "body", "agent_uid"): ([request(agent_uid="1001")], [request(agent_uid={}), request(agent_uid="")]),
    ("agora", "body", "user_uid"): ([request(user_uid=1002)], [request(user_uid=[1]), request(user="1002")]),
    ("agora", "body", "app_id"): ([request(app_id="A1")], [request(app_id={"id": 1}), request(appId="A1")]),
    ("agora", "body", "agent_id"): ([request(agent_id="a-1")], [request(agent_id=True), request(agent="a-1")]),
    ("agora", "body", "channel"): ([request(channel="room-7")], [request(channel={"name": "x"})]),
    ("agora", "body", "params"): ([request(params={"channel": "room-7"})], [request(params="x"), request(params=[])]),
    ("agora", "query", "channel"): ([request({"channel": "room-7"})], [request({"channel": ""})]),
    ("agora", "query", "agent_id"): ([request({"agent_id": "a-1"})], [request({"agent_id": ""}), request({"id": "a"})]),
}


def key(mark: Mark) -> tuple[str, str, str]:
    return mark.platform, mark.where, mark.name


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: " ".join(key(mark)))
def test_each_mark_finds_its_engine_and_nobody_elses_requests(mark: Mark) -> None:
    """Its own shape, and those of other clients and providers that have a field of that name, or one like it."""
    its_own, others = SHAPES[key(mark)]

    assert [found(each) for each in its_own] == [mark] * len(its_own)
    assert [detected(each) for each in others] == ["openai"] * len(others)


def test_every_mark_has_a_reason_and_is_of_an_engine_that_there_is() -> None:
    """A line is added to the table, or one is written twice."""
    assert [key(mark) for mark in MARKS] == list(SHAPES)
    assert {mark.platform for mark in MARKS} < set(plugins.known("platforms"))
    assert all(mark.why for mark in MARKS) and {mark.where for mark in MARKS} <= {"body", "message", "query", "header"}


# Every root parameter of OpenAI's chat completions, as its API reference has them.
OPENAI: Json = {
    "audio": {"voice": "alloy", "format": "pcm16"},
    "frequency_penalty": 0.1,
    "function_call": "auto",
    "functions": [{"name": "f", "parameters": {}}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 100,
    "max_tokens": 100,
    "metadata": {"source": "asr", "user": "1002", "channel": "web", "turn_id": "4"},
    "modalities": ["text", "audio"],
    "model": "gpt-5",
    "moderation": {"model": "omni-moderation-latest"},
    "n": 1,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "Hi"},
    "presence_penalty": 0.1,
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "s",
    "seed": 1,
    "service_tier": "auto",
    "stop": ["."],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "end_call", "parameters": {}}}],
    "top_logprobs": 3,
    "top_p": 0.9,
    "user": "ann",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}
# What other providers, proxies and tracers let clients add.
OTHERS: Json = {
    "options": {"num_ctx": 4096},  # Ollama
    "keep_alive": "5m",
    "models": ["a/b"],  # OpenRouter
    "provider": {"order": ["a"]},
    "transforms": ["middle-out"],
    "plugins": [{"id": "web"}],
    "route": "fallback",
    "session_id": "s-1",
    "trace": {"trace_id": "t"},
    "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},  # vLLM
    "chat_template_kwargs": {"enable_thinking": False},
    "safe_prompt": True,  # Mistral
    "random_seed": 1,
    "litellm_metadata": {"tags": ["a"]},
    "langsmith_extra": {"metadata": {}},
    "custom_inputs": {"user": "ann"},  # MLflow
    "thinking": {"type": "disabled"},
    "enable_thinking": False,
    "user_id": "u",
}


def test_a_request_of_plain_openai_is_plain_openai() -> None:
    """Every documented root field, one by one and all together, with messages of every role and kind."""
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}], "name": "boss"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}], "audio": {"id": "a"}},
        {"role": "tool", "tool_call_id": "c", "content": "{}"},
        {"role": "assistant", "content": "Yes.", "refusal": None, "reasoning_content": "hm", "annotations": []},
    ]
    fields = {**OPENAI, **OTHERS}
    for each in [*({name: value} for name, value in fields.items()), OPENAI, fields]:
        assert detected(request(messages=messages, **each)) == "openai", each


MARKED = sorted({mark.name for mark in MARKS})
WORDS = st.text(max_size=20) | st.sampled_from([*MARKED, '{"call": {"id": "c"}}', "?custom_session_id=s", "prosody"])
CONTENTS = WORDS | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=2) | st.none()


@given(contents=st.lists(CONTENTS, min_size=1, max_size=4), case=st.sampled_from(CASES))
@settings(max_examples=80, deadline=None)
def test_no_word_of_a_prompt_or_a_caller_changes_what_is_seen(contents: list[Any], case: Json) -> None:
    """Whatever is said, in whatever message: a caller who speaks of prosody is not Hume."""
    before = detected(asked(case))
    changed = json.loads(json.dumps(case))
    for position, message in enumerate(changed["body"]["messages"]):
        message["content"] = contents[position % len(contents)]

    assert detected(asked(changed)) == before
    said = [{"role": role, "content": content} for role, content in zip(("system", "user") * 2, contents, strict=False)]
    assert detected(request(messages=said)) == "openai"


@pytest.mark.parametrize("messages", [None, "text", {}, [], [None, 5, "x"], [[]], [{"turn_id": 1}]])
def test_a_body_that_is_none_is_looked_at_without_a_fault(messages: Any) -> None:
    """Garbage is told to its sender by the check that comes after."""
    body = {"messages": messages, "call": None, "metadata": 5}
    assert detected(Asked(body, {}, {}, "/", None)) == ("agora" if messages == [{"turn_id": 1}] else "openai")


@pytest.mark.parametrize(
    ("platform", "path", "seen"),
    [
        ("auto", "/chat/completions", "vapi"),
        ("auto", "/telnyx/chat/completions", "telnyx"),
        ("auto", "/openai/v1/chat/completions", "openai"),
        ("agora", "/chat/completions", "agora"),
        ("openai", "/chat/completions", "openai"),
        ("agora", "/hume/chat/completions", "hume"),
    ],
)
async def test_the_path_counts_before_the_setting_and_the_setting_before_what_is_seen(
    platform: str, path: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that looks like Vapi's, through the whole server."""
    monkeypatch.setenv("FIRSTWORD_PLATFORM", platform)
    app = App(base_url="http://model.test/v1", model="m")
    call = {"call": {"id": "c-1"}}

    score = await talk(app, models=says("Hello."), path=path, request=call)

    assert score.turn is not None and score.turn.platform == seen
    assert ("call" in score.seen[0].body) == (seen != "vapi")  # a field of somebody else's is the model's
