"""What is set from outside: every setting by its name, which source wins, and what a wrong value is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from firstword import App, ConfigError, Model
from firstword.settings import Settings, load, proxy_url
from firstword.settings.running import Running

# Every setting: its name outside, the text that is set there, what it means; and another value, given to the App.
SETTINGS: list[tuple[str, str, str, Any, Any]] = [
    ("base_url", "LLM_BASE_URL", "https://one.example/v1", "https://one.example/v1", "https://two.example/v1"),
    ("api_key", "LLM_API_KEY", "sk-one", SecretStr("sk-one"), "sk-two"),
    ("model", "LLM_MODEL", "gpt-5-mini", "gpt-5-mini", "llama3:8b"),
    ("strict", "LLM_STRICT", "true", True, False),
    ("models", "FIRSTWORD_MODELS", "m1, groq:m2", ["m1", "groq:m2"], ["m3"]),
    ("keys", "FIRSTWORD_KEYS", "one, two", [SecretStr("one"), SecretStr("two")], ["three"]),
    ("open", "FIRSTWORD_OPEN", "true", True, False),
    ("platform", "FIRSTWORD_PLATFORM", "openai", "openai", "agora"),
    ("session", "FIRSTWORD_SESSION", "bearer", ["bearer"], ["header:x-call", "body:call.id"]),
    ("note_interruptions", "FIRSTWORD_NOTE_INTERRUPTIONS", "yes", True, False),
    ("keep_images", "FIRSTWORD_KEEP_IMAGES", "2", 2, 3),
    ("host", "FIRSTWORD_HOST", "127.0.0.1", "127.0.0.1", "::1"),
    ("port", "FIRSTWORD_PORT", "8001", 8001, 8002),
    ("max_body", "FIRSTWORD_MAX_BODY", "1000", 1000, 2000),
    ("body_timeout", "FIRSTWORD_BODY_TIMEOUT", "1.5", 1.5, 2.5),
    ("connect_timeout", "FIRSTWORD_CONNECT_TIMEOUT", "1.5", 1.5, 2.5),
    ("first_token_timeout", "FIRSTWORD_FIRST_TOKEN_TIMEOUT", "1.5", 1.5, 2.5),
    ("reasoning_timeout", "FIRSTWORD_REASONING_TIMEOUT", "1.5", 1.5, 2.5),
    ("stall_timeout", "FIRSTWORD_STALL_TIMEOUT", "1.5", 1.5, 2.5),
    ("turn_timeout", "FIRSTWORD_TURN_TIMEOUT", "1.5", 1.5, 2.5),
    ("hedge_after", "FIRSTWORD_HEDGE_AFTER", "p95", "p95", 2.5),
    ("hedge_share", "FIRSTWORD_HEDGE_SHARE", "0.5", 0.5, 0.2),
    ("fillers", "FIRSTWORD_FILLERS", "One moment.|Let me see.", ["One moment.", "Let me see."], ["Yes."]),
    ("fill_after", "FIRSTWORD_FILL_AFTER", "2.5", 2.5, 3.5),
    ("apology", "FIRSTWORD_APOLOGY", "Sorry.", "Sorry.", "I am sorry."),
    ("on_cut", "FIRSTWORD_ON_CUT", "finish", "finish", "error"),
    ("shape", "FIRSTWORD_SHAPE", "think", "think", "speech"),
    ("tool_rounds", "FIRSTWORD_TOOL_ROUNDS", "2", 2, 7),
    ("tool_timeout", "FIRSTWORD_TOOL_TIMEOUT", "2.5", 2.5, 3.5),
    ("tool_max_result", "FIRSTWORD_TOOL_MAX_RESULT", "1000", 1000, 2000),
    ("resent", "FIRSTWORD_RESENT", "join", "join", "none"),
    ("agora_app_id", "AGORA_APP_ID", "a1", "a1", "a2"),
    ("agora_basic_key", "AGORA_BASIC_KEY", "k1", SecretStr("k1"), "k2"),
    ("agora_basic_secret", "AGORA_BASIC_SECRET", "s1", SecretStr("s1"), "s2"),
    ("agora_area", "AGORA_AREA", "cn", "cn", "global"),
    ("agora_agents_api_base_url", "AGORA_AGENTS_API_BASE_URL", "http://127.0.0.1:1", "http://127.0.0.1:1", "http://b"),
    ("agora_webhook_secret", "FIRSTWORD_AGORA_WEBHOOK_SECRET", "h1", SecretStr("h1"), "h2"),
    ("voice", "FIRSTWORD_VOICE", "openai:tts", "openai:tts", "openai:tts-2"),
    ("voice_base_url", "FIRSTWORD_VOICE_BASE_URL", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1", "http://b/v1"),
    ("voice_api_key", "FIRSTWORD_VOICE_API_KEY", "sk-one", SecretStr("sk-one"), "sk-two"),
    ("warm", "FIRSTWORD_WARM", "false", False, True),
    ("debug", "FIRSTWORD_DEBUG", "1", True, False),
    # What is the operator's alone: settings/running.py
    ("hosts", "FIRSTWORD_HOSTS", "a.example, *.b.example", ["a.example", "*.b.example"], ["c.example"]),
    ("image_hosts", "FIRSTWORD_IMAGE_HOSTS", "a.example, *", ["a.example", "*"], ["none"]),
    ("plain_http", "FIRSTWORD_PLAIN_HTTP", "true", True, False),
    ("keys_file", "FIRSTWORD_KEYS_FILE", "keys", "keys", "others"),
    ("jwt_secret", "FIRSTWORD_JWT_SECRET", "s1", SecretStr("s1"), "s2"),
    ("jwt_key_file", "FIRSTWORD_JWT_KEY_FILE", "key.pem", "key.pem", "other.pem"),
    ("jwt_jwks", "FIRSTWORD_JWT_JWKS", "https://a.example/jwks", "https://a.example/jwks", "https://b.example/jwks"),
    ("jwt_issuer", "FIRSTWORD_JWT_ISSUER", "https://a.example", "https://a.example", "https://b.example"),
    ("jwt_audience", "FIRSTWORD_JWT_AUDIENCE", "voice", "voice", "other"),
    ("url_secret", "FIRSTWORD_URL_SECRET", "s1, s2", [SecretStr("s1"), SecretStr("s2")], ["s3"]),
    ("trusted_proxies", "FIRSTWORD_TRUSTED_PROXIES", "10.0.0.0/8, ::1", ["10.0.0.0/8", "::1"], ["10.1.1.1"]),
    ("operator_key", "FIRSTWORD_OPERATOR_KEY", "o1", SecretStr("o1"), "o2"),
    ("operator_host", "FIRSTWORD_OPERATOR_HOST", "0.0.0.0", "0.0.0.0", "::1"),
    ("operator_port", "FIRSTWORD_OPERATOR_PORT", "9090", 9090, 9091),
    ("max_connections", "FIRSTWORD_MAX_CONNECTIONS", "500", 500, 600),
    ("max_turns", "FIRSTWORD_MAX_TURNS", "20", 20, 30),
    ("max_turns_per_key", "FIRSTWORD_MAX_TURNS_PER_KEY", "20", 20, 30),
    ("max_turns_per_session", "FIRSTWORD_MAX_TURNS_PER_SESSION", "2", 2, 3),
    ("requests_per_minute", "FIRSTWORD_REQUESTS_PER_MINUTE", "60", 60.0, 30.0),
    ("requests_per_minute_per_key", "FIRSTWORD_REQUESTS_PER_MINUTE_PER_KEY", "60", 60.0, 30.0),
    ("requests_per_minute_per_session", "FIRSTWORD_REQUESTS_PER_MINUTE_PER_SESSION", "60", 60.0, 30.0),
    ("tokens_per_minute", "FIRSTWORD_TOKENS_PER_MINUTE", "6000", 6000.0, 3000.0),
    ("tokens_per_minute_per_key", "FIRSTWORD_TOKENS_PER_MINUTE_PER_KEY", "6000", 6000.0, 3000.0),
    ("tokens_per_minute_per_session", "FIRSTWORD_TOKENS_PER_MINUTE_PER_SESSION", "6000", 6000.0, 3000.0),
    ("prices", "FIRSTWORD_PRICES", "prices.txt", "prices.txt", "other.txt"),
    ("budget", "FIRSTWORD_BUDGET", "99.95", 99.95, 5.0),
    ("budget_per_key", "FIRSTWORD_BUDGET_PER_KEY", "9.5", 9.5, 5.0),
    ("budget_per_session", "FIRSTWORD_BUDGET_PER_SESSION", "0.5", 0.5, 5.0),
    ("budget_period", "FIRSTWORD_BUDGET_PERIOD", "day", "day", "total"),
    ("max_messages", "FIRSTWORD_MAX_MESSAGES", "100", 100, 200),
    ("max_images", "FIRSTWORD_MAX_IMAGES", "3", 3, 4),
    ("max_image", "FIRSTWORD_MAX_IMAGE", "1000000", 1_000_000, 2_000_000),
    ("shed_after", "FIRSTWORD_SHED_AFTER", "0.5", 0.5, 0.1),
    ("metrics_dir", "FIRSTWORD_METRICS_DIR", "/tmp/one", Path("/tmp/one"), Path("/tmp/two")),
    ("log", "FIRSTWORD_LOG", "json", "json", "human"),
    ("log_level", "FIRSTWORD_LOG_LEVEL", "warning", "warning", "debug"),
    ("log_session", "FIRSTWORD_LOG_SESSION", "true", True, False),
    ("log_transcripts", "FIRSTWORD_LOG_TRANSCRIPTS", "true", True, False),
    ("redact", "FIRSTWORD_REDACT", "none", "none", "auto"),
    ("traces", "FIRSTWORD_TRACES", "console", "console", "none"),
    ("traces_content", "FIRSTWORD_TRACES_CONTENT", "true", True, False),
    ("console", "FIRSTWORD_CONSOLE", "true", True, False),
    ("redis_url", "FIRSTWORD_REDIS_URL", "redis://one", SecretStr("redis://one"), "redis://two"),
    ("redis_prefix", "FIRSTWORD_REDIS_PREFIX", "voice", "voice", "other"),
    ("redis_timeout", "FIRSTWORD_REDIS_TIMEOUT", "0.01", 0.01, 0.02),
    ("limits_without_store", "FIRSTWORD_LIMITS_WITHOUT_STORE", "closed", "closed", "open"),
    ("keep_alive", "FIRSTWORD_KEEP_ALIVE", "620", 620, 90),
    ("drain_delay", "FIRSTWORD_DRAIN_DELAY", "2", 2.0, 3.0),
    ("drain_timeout", "FIRSTWORD_DRAIN_TIMEOUT", "20", 20.0, 30.0),
    ("hung_after", "FIRSTWORD_HUNG_AFTER", "2", 2.0, 3.0),
]
EACH = pytest.mark.parametrize(("field", "name", "text", "meant", "other"), SETTINGS, ids=[row[0] for row in SETTINGS])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _shown(value: Any) -> Any:
    """Return a value with its secrets readable."""
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_every_setting_is_tried_here() -> None:
    """Someone adds a setting: the table above has to know it, and its default must be another value."""
    assert [row[0] for row in SETTINGS] == list(Settings.model_fields)
    assert not [row[0] for row in SETTINGS if getattr(load(), row[0]) == row[3]]


@EACH
def test_the_environment_is_read(
    field: str, name: str, text: str, meant: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator exports a variable."""
    monkeypatch.setenv(name, text)
    assert getattr(load(), field) == meant


def test_a_dotenv_file_is_not_read(folder: Path) -> None:
    """A folder of somebody else's must not decide which provider gets a key."""
    (folder / ".env").write_text("LLM_API_KEY=sk-one\nLLM_BASE_URL=https://elsewhere.example\n", encoding="utf-8")
    assert load().api_key is None and load().base_url == "https://api.openai.com/v1"


@EACH
def test_what_is_given_beats_the_environment(
    field: str, name: str, text: str, meant: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code says it: nothing outside changes it."""
    monkeypatch.setenv(name, text)
    assert _shown(getattr(load(**{field: other}), field)) == other


@EACH
def test_empty_means_unset(
    field: str, name: str, text: str, meant: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's template sets every variable, most of them to nothing; the code gives what it does not know."""
    default = getattr(load(), field)
    monkeypatch.setenv(name, "")
    assert getattr(load(), field) == default
    assert getattr(load(**{field: None}), field) == default


@EACH
def test_every_setting_can_be_given_to_the_app(field: str, name: str, text: str, meant: Any, other: Any) -> None:
    """`App(...)` takes the brain's, but for where it listens: that is `run`'s to say. The rest is the operator's."""
    if field in ("host", "port") or field in Running.model_fields:
        with pytest.raises(TypeError):
            App(**{field: other})
    elif field == "models":  # an App takes Models as well
        assert [model.name for model in App(models=other)._written.models] == other
    else:
        assert _shown(getattr(App(**{field: other}).settings, field)) == other


@pytest.mark.parametrize("text", ["sk-one\n", "  sk-one ", "sk-one\r\n"])
def test_a_key_may_come_from_a_file(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted secret ends with a line break, which no header could hold."""
    monkeypatch.setenv("LLM_API_KEY", text)
    monkeypatch.setenv("FIRSTWORD_KEYS", f"{text},two")
    settings = load()
    assert settings.api_key == SecretStr("sk-one")
    assert settings.keys == [SecretStr("sk-one"), SecretStr("two")]


# --- wrong values ---------------------------------------------------------------------------------

WRONG = [
    ("FIRSTWORD_PORT", "s3cret"),
    ("FIRSTWORD_PORT", "70000"),
    ("FIRSTWORD_PORT", "-1"),
    ("FIRSTWORD_OPEN", "s3cret"),
    ("FIRSTWORD_WARM", "s3cret"),
    ("FIRSTWORD_DEBUG", "2"),
    ("FIRSTWORD_MAX_BODY", "20MB"),
    ("FIRSTWORD_MAX_BODY", "0"),
    *((f"FIRSTWORD_{name}_TIMEOUT", text) for name in ("BODY", "CONNECT", "FIRST_TOKEN") for text in ("0", "-5", "5s")),
    *((f"FIRSTWORD_{name}_TIMEOUT", text) for name in ("STALL", "TURN") for text in ("0", "nan", "inf")),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_named_and_never_shown(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that names the variable; the value stays out of it, for it may be a key in the wrong place."""
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError) as caught:
        App()

    message = caught.value.message
    assert name in message and message.endswith(".") and message.count(". ") == 0 and "\n" not in message
    assert caught.value.hint
    assert "s3cret" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_all_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes need not be mended one after the other."""
    monkeypatch.setenv("FIRSTWORD_PORT", "eight thousand")
    monkeypatch.setenv("FIRSTWORD_WARM", "lukewarm")
    with pytest.raises(ConfigError, match=r"FIRSTWORD_PORT: .*; FIRSTWORD_WARM: "):
        App()


def test_a_value_that_is_none_of_several_kinds_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hedge_after` is a number or a word, so there are two things to say of "fast", and one name to say them of."""
    monkeypatch.setenv("FIRSTWORD_HEDGE_AFTER", "fast")
    with pytest.raises(ConfigError, match=r"a valid number.*, or input should be 'p95' or 'none'") as caught:
        App()
    assert str(caught.value).count("FIRSTWORD_HEDGE_AFTER") == 1


@pytest.mark.parametrize("given", [{"turn_timeout": -1}, {"max_body": "lots"}, {"keys": [42]}])
def test_a_wrong_argument_is_told_in_the_same_way(given: dict[str, Any]) -> None:
    """The mistake is in the code: it has the setting's one name."""
    (field,) = given
    with pytest.raises(ConfigError, match=f"FIRSTWORD_{field.upper()}: "):
        App(**given)


@pytest.mark.parametrize("text", ["sk one", "sk\none", "sk-“one”", "sk-one\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_at_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key was pasted with a space, a curly quote or the line after it: it would fail in every call."""
    monkeypatch.setenv("LLM_API_KEY", text)
    for write in (App, lambda: Model("gpt-5-mini", api_key=text)):
        with pytest.raises(ConfigError) as caught:
            write()
        assert "LLM_API_KEY" in str(caught.value) and text not in str(caught.value)


@pytest.mark.parametrize("text", ["example.com/v1", "ftp://example.com", "https:///v1", "http://[::1", "http://a:b/v1"])
def test_a_wrong_url_is_refused_at_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme was forgotten, or the port is no number; a URL may hold a key, so it is not shown."""
    monkeypatch.setenv("LLM_BASE_URL", text)
    with pytest.raises(ConfigError) as caught:
        App()
    assert "LLM_BASE_URL" in str(caught.value) and text not in str(caught.value)


def test_an_empty_gate_key_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stray comma must not become a key that everybody knows."""
    monkeypatch.setenv("FIRSTWORD_KEYS", "one,,two")
    with pytest.raises(ConfigError, match="FIRSTWORD_KEYS"):
        App()


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "host", "found"),
    [
        ({}, "api.openai.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "api.openai.com", "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, "api.openai.com", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128"}, "api.openai.com", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "api.openai.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "openai.com"}, "api.openai.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "api.openai.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, "api.openai.com", "http://proxy:3128"),
    ],
)
def test_the_proxy_is_found_as_other_tools_find_it(
    environment: dict[str, str], host: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's machine names its proxy in the environment."""
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert proxy_url(host) == found


@pytest.mark.parametrize("text", ["socks5://proxy:1080", "http://", "http://proxy:port"])
def test_a_wrong_proxy_is_refused_at_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy speaks another protocol, or its port is no number; an App that needs no proxy does not mind."""
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        App()
    App(base_url="http://127.0.0.1:8080/v1")


@pytest.mark.parametrize(("name", "near"), [("FIRSTWORD_KEY", "FIRSTWORD_KEYS"), ("FIRSTWORD_TIMOUT", "")])
def test_a_setting_that_does_not_exist_is_refused(name: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate key in a misspelt variable would leave the door open."""
    monkeypatch.setenv(name, "s3cret")
    with pytest.raises(ConfigError) as caught:
        App()
    assert name in caught.value.message and near in (caught.value.hint or "") and "s3cret" not in str(caught.value)


def test_the_names_of_the_trade_have_no_second_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one way to say where the model is."""
    monkeypatch.setenv("FIRSTWORD_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError):
        App()
