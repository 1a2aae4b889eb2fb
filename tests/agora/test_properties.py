"""What an agent is started with, made of options and a file; what is doubtful in it, and what of it may be shown."""

from __future__ import annotations

from typing import Any

import pytest

from firstword import ConfigError
from firstword.agora.properties import Wish, doubts, full_url, joining, shown

CHAT = "/chat/completions"


def wish(**more: Any) -> Wish:
    return Wish(**{"channel": "room-7", "uid": 1, "users": ["*"], "app_id": "A", "pipeline_id": "p", **more})


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("https://voice.example.com", f"https://voice.example.com{CHAT}"),
        (" https://voice.example.com/ ", f"https://voice.example.com{CHAT}"),
        ("https://voice.example.com?session=7#x", f"https://voice.example.com{CHAT}?session=7"),
        ("https://voice.example.com/v1/chat/completions", "https://voice.example.com/v1/chat/completions"),
        ("https://voice.example.com/mine", "https://voice.example.com/mine"),
    ],
)
def test_only_a_url_without_a_path_gets_one(url: str, full: str) -> None:
    """The engine appends nothing, and a path of one's own is meant."""
    assert full_url(url) == full


@pytest.mark.parametrize(
    "url",
    ["", "voice.example.com", "ftp://voice.example.com", "https://", "https://x:y", "http://[1", "http://x:99999"],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """A scheme was forgotten, or a port is none."""
    with pytest.raises(ConfigError, match="no URL"):
        full_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, []),
        ("https://voice.example.com/chat/completions", []),
        ("https://8.8.8.8/chat/completions/", []),
        ("https://[2606:4700::1111]/chat/completions", []),
        ("https://localhost/chat/completions", ["never speaks"]),
        ("https://127.0.0.1:8000/chat/completions", ["never speaks"]),
        ("https://192.168.1.7/chat/completions", ["never speaks"]),
        ("https://100.64.1.1/chat/completions", ["never speaks"]),
        ("https://[::1]:8000/chat/completions", ["never speaks"]),
        ("https://laptop/chat/completions", ["never speaks"]),
        ("https://laptop.LOCAL./chat/completions", ["never speaks"]),
        ("https://2130706433/chat/completions", ["never speaks"]),
        ("http://voice.example.com/chat/completions", ["not https"]),
        ("https://voice.example.com/v1", ["does not end in"]),
        ("http://10.0.0.1/v1", ["never speaks", "not https", "does not end in"]),
    ],
)
def test_a_url_that_the_engine_will_not_reach_is_doubtful(url: str | None, words: list[str]) -> None:
    """Each doubt is a sentence of its own."""
    found = doubts(url)
    assert len(found) == len(words)
    assert all(word in doubt for word, doubt in zip(words, found, strict=True))


def test_options_go_over_the_file_and_the_rest_stays() -> None:
    """Without a URL the file's own server is asked, and only the model is another."""
    old = {"url": "https://x", "vendor": "openai", "params": {"model": "old", "top_p": 1}}
    mine = {"llm": old, "idle_timeout": 0}
    found = joining(wish(model="new", greeting="Hi", key="k", properties=mine))
    new = {**old, "params": {"model": "new", "top_p": 1}, "api_key": "k", "greeting_message": "Hi"}
    assert found["llm"] == new and found["idle_timeout"] == 0
    assert old["params"] == {"model": "old", "top_p": 1} and set(old) == {"url", "vendor", "params"}
    assert "llm" not in joining(wish())


@pytest.mark.parametrize("llm", [None, [], "x", {"params": []}])
def test_a_file_with_another_form_is_gone_over(llm: Any) -> None:
    """What is no object holds nothing to keep."""
    found = joining(wish(url="https://x.example", properties={"llm": llm}))["llm"]
    assert found["url"] == f"https://x.example{CHAT}" and found["params"]["channel"] == "room-7"


@pytest.mark.parametrize(
    "properties", [None, {}, {"llm": {"url": "x"}}, {"tts": {"vendor": "x"}}, {"llm": {}, "tts": {}}]
)
def test_half_an_agent_is_refused_without_a_pipeline(properties: Any) -> None:
    """It would not speak, or not think."""
    with pytest.raises(ConfigError, match="Nothing says how"):
        joining(wish(pipeline_id=None, properties=properties))


def test_a_whole_agent_needs_no_pipeline() -> None:
    """One model that does all is enough, and so is a server with a voice."""
    assert joining(wish(pipeline_id=None, properties={"mllm": {"vendor": "x"}}))["mllm"]
    assert joining(wish(pipeline_id=None, url="https://x", properties={"tts": {"vendor": "x"}}))["tts"]


def test_what_is_secret_is_not_shown() -> None:
    """By its name, at any depth; numbers and names stay."""
    llm = {"api_key": "k", "headers": [{"Authorization": "Bearer x"}], "params": {"max_tokens": 5}}
    tts = {"params": {"secret_access_key": "", "voice": "v"}}
    assert shown({"token": "t", "llm": llm, "tts": tts}) == {
        "token": "***",
        "llm": {"api_key": "***", "headers": [{"Authorization": "***"}], "params": {"max_tokens": 5}},
        "tts": tts,
    }
