"""`firstword agent`, as a person types it, and Agora's API on loopback: what is sent, and what is printed."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agora_of_a_test import APP_ID, BASIC, BY_BASIC, BY_TOKEN, CERTIFICATE, KEY, SECRET, Agora, agora, read_token
from typing_of_a_test import BOTH, PIPE, URL, Typed, started, typed

from firstword.agora.account import read_account


@pytest.fixture
def api() -> Iterator[Agora]:
    """Agora's API of the global area."""
    with agora() as running:
        yield running


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Somebody who types commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(typed, state=str(tmp_path / "state"))


@pytest.fixture(params=["global", "cn"])
def area(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- start ---------------------------------------------------------------------------------------------


def test_an_agent_is_started_with_a_pipeline_and_the_server_s_url(types: Typed, api: Agora) -> None:
    """The README's way: a project of AI Studio, and the address of the server that was just started."""
    result = types(
        "start", "--url", URL, "--llm-key", "sk-1", "--model", "m1", "--greeting", "Hello!", "--channel", "room-7",
        api=api, **BOTH, **PIPE,
    )  # fmt: skip
    assert result.exit_code == 0 and "agent-1" in result.stdout and "room-7" in result.stdout

    asked = api.last
    assert (asked.method, asked.path) == ("POST", f"/api/conversational-ai-agent/v2/projects/{APP_ID}/join")
    assert asked.body["pipeline_id"] == "pipe-1" and asked.body["name"].startswith("firstword-")
    assert {**asked.properties, "token": "..."} == {
        "channel": "room-7",
        "token": "...",
        "agent_rtc_uid": "1001",
        "remote_rtc_uids": ["*"],
        "idle_timeout": 120,
        "llm": {
            "vendor": "custom",
            "style": "openai",
            "url": "https://voice.example.com/chat/completions",
            "api_key": "sk-1",
            "greeting_message": "Hello!",
            "params": {"model": "m1", "channel": "room-7", "app_id": APP_ID, "agent_uid": "1001"},
        },
    }
    assert "warning" not in result.output and "sk-1" not in result.output


def test_each_area_has_its_path(types: Typed, area: str) -> None:
    """Mainland China's API has another prefix; the same command, by an option or by the environment."""
    with agora(area) as api:
        started(types, api, "--area", area)
        assert started(types, api, **BOTH, AGORA_AREA=area.upper())["area"] == area
        assert api.last.path.startswith("/cn/api/" if area == "cn" else "/api/")
        assert types("stop", api=api).exit_code == 0  # where it was started


def test_with_the_customer_s_key_each_request_has_it(types: Typed, api: Agora) -> None:
    """AGORA_BASIC_KEY and AGORA_BASIC_SECRET, and no certificate: the agent joins without a token, which is said."""
    result = types("start", "--url", URL, api=api, **BY_BASIC, **PIPE)
    assert result.exit_code == 0 and "without a token" in result.stderr
    assert api.last.authorization == BASIC and "token" not in api.last.properties


def test_without_the_customer_s_key_a_token_is_made_here(types: Typed, api: Agora) -> None:
    """Only the certificate: both the request and the agent have tokens, of the channel, the uid and a day."""
    started(types, api, "--uid", "77", **BY_TOKEN)
    kind, token = api.last.authorization.split("=", 1)
    assert kind == "agora token"

    asks, joins = read_token(token), read_token(api.last.properties["token"])
    assert (asks.app_id, asks.expires_in, joins.expires_in) == (APP_ID, 3600, 86400)
    rtc, rtm = joins.services[1], joins.services[2]
    assert rtc == ({1: 86400, 2: 86400, 3: 86400, 4: 86400}, ["room-7", "77"])
    assert rtm == ({1: 86400}, ["77"])
    assert asks.services[1][1] == ["room-7", "77"]


def test_the_certificate_never_leaves_the_machine(types: Typed, api: Agora) -> None:
    """Every command, both ways to prove who asks: not one byte of it is on the wire, in the output or in the file."""
    output = ""
    for environment in (BOTH, BY_TOKEN):
        id = started(types, api, **environment)["agent_id"]
        for words in (["status"], ["say", "Hi"], ["update", "--new-token"], ["history"], ["turns"], ["stop", id]):
            result = types(*words, api=api, **environment)
            assert result.exit_code == 0, result.output
            output += result.output
    wire = b"".join(asked.raw for asked in api.asked)
    assert len(api.asked) == 14
    for secret in (CERTIFICATE, SECRET, KEY):
        assert secret.encode() not in wire and secret not in output
        assert secret not in Path("state/firstword/agents.json").read_text()


def test_a_file_with_all_properties_starts_an_agent_without_a_pipeline(types: Typed, api: Agora) -> None:
    """A whole request as Agora's documents show it; the options go over what it says, and the rest stays."""
    whole = {"name": "ignored", "properties": {"tts": {"vendor": "x"}, "idle_timeout": 5, "channel": "other",
             "llm": {"max_history": 8, "params": {"temperature": 0.5, "model": "old"}}}}  # fmt: skip
    Path("agent.json").write_text(json.dumps(whole))
    result = types(
        "start", "--properties", "agent.json", "--model", "new", "--url", URL, "--channel", "room-7", api=api
    )
    assert result.exit_code == 0, result.output

    asked = api.last
    assert "pipeline_id" not in asked.body
    assert asked.properties["tts"] == {"vendor": "x"} and asked.properties["idle_timeout"] == 5
    assert asked.properties["channel"] == "room-7" and asked.properties["llm"]["max_history"] == 8
    assert asked.properties["llm"]["params"]["temperature"] == 0.5
    assert asked.properties["llm"]["params"]["model"] == "new"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), ("{,}", "is not JSON"), ("[]", "holds no JSON object"), ("[" * 100_000, "is not JSON"),
     ('{"llm": {}}', "Nothing says how the agent")],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_starts_nothing(types: Typed, api: Agora, content: str | None, says: str) -> None:
    """A typing error in the file, the wrong file, or half of what an agent needs."""
    if content is not None:
        Path("agent.json").write_text(content)
    result = types("start", "--properties", "agent.json", api=api)
    assert (result.exit_code, api.asked) == (1, [])
    assert says in result.output and "hint: " in result.output and "Traceback" not in result.output


def test_a_url_that_the_engine_will_not_reach_is_told(types: Typed, api: Agora) -> None:
    """The commonest complaint: the agent starts but never speaks. It is started all the same."""
    result = types("start", "--url", "http://localhost:8000", api=api, **BOTH, **PIPE)
    assert result.exit_code == 0 and len(api.agents) == 1
    assert result.stderr.count("warning: ") == 2 and "the agent starts but never speaks" in result.stderr


def test_a_url_that_is_none_starts_nothing(types: Typed, api: Agora) -> None:
    """The scheme was forgotten."""
    result = types("start", "--url", "voice.example.com", api=api, **BOTH, **PIPE)
    assert (result.exit_code, api.asked) == (1, []) and "no URL" in result.output


def test_wait_says_when_the_agent_runs(types: Typed, api: Agora) -> None:
    """It needs two looks until it runs."""
    api.statuses = ["STARTING", "RUNNING"]
    assert started(types, api, "--wait")["status"] == "RUNNING"
    assert [asked.method for asked in api.asked] == ["POST", "GET", "GET"]


def test_wait_says_why_the_agent_does_not_run(types: Typed, api: Agora) -> None:
    """A key of its speech service is wrong. It is named, so that it can be looked at."""
    api.statuses = ["FAILED"]
    result = types("start", "--wait", "--url", URL, api=api, **BOTH, **PIPE)
    assert result.exit_code == 1 and "FAILED instead of running: as told" in result.output
    assert "agent-1" in result.output


def test_a_key_need_not_stand_on_the_command_line(types: Typed, api: Agora) -> None:
    """Whoever may list the machine's processes reads what is typed there."""
    started(types, api, **BOTH, AGORA_LLM_KEY="sk-2")
    assert api.last.properties["llm"]["api_key"] == "sk-2"


# --- the settings ----------------------------------------------------------------------------------------


def test_settings_stand_in_a_file_and_the_environment_wins(types: Typed, api: Agora) -> None:
    """The starter script's own file, with everything that people write into such files."""
    lines = [
        "# my project", f"AGORA_APP_ID={APP_ID}", f'export AGORA_APP_CERT="{CERTIFICATE}"  # primary', "",
        "AGORA_PIPELINE_ID='pipe-9'", "AGORA_CHANNEL_NAME=from-file # a comment", "AGORA_AREA=", "nonsense",
    ]  # fmt: skip
    Path(".env.local").write_text("\ufeff" + "\r\n".join(lines), "utf-8")
    result = types("start", "--url", URL, "--json", api=api, AGORA_PIPELINE_ID="pipe-1")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["channel"] == "from-file"
    assert api.last.body["pipeline_id"] == "pipe-1" and ".env.local" in result.stderr
    read_token(api.last.properties["token"])


def test_a_file_does_not_say_who_gets_the_key(tmp_path: Path) -> None:
    """In a folder of somebody else's: the host is the operator's to name, in the environment."""
    (tmp_path / ".env.local").write_text("AGORA_AGENTS_API_BASE_URL=http://elsewhere.example\nAGORA_AREA=cn\n")
    found = read_account(BOTH, tmp_path)
    assert (found.base_url, found.area) == (None, "cn")
    assert read_account({**BOTH, "AGORA_AGENTS_API_BASE_URL": "http://a"}, tmp_path).base_url == "http://a"
    assert CERTIFICATE not in repr(found) and SECRET not in repr(found)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"PATH": ""}, "AGORA_APP_ID is not set"),
        ({"AGORA_APP_ID": APP_ID}, "Neither AGORA_APP_CERT nor"),
        ({"AGORA_APP_ID": APP_ID, "AGORA_BASIC_KEY": KEY}, "AGORA_BASIC_SECRET is not set"),
        ({"AGORA_APP_ID": APP_ID, "AGORA_BASIC_SECRET": SECRET}, "AGORA_BASIC_KEY is not set"),
        ({**BOTH, "AGORA_AREA": "europe"}, "neither `global` nor `cn`"),
        ({"AGORA_APP_ID": APP_ID, "AGORA_APP_CERT": "short-certificate"}, "32 signs long"),
        ({**BOTH, "AGORA_AGENTS_API_BASE_URL": "nowhere"}, "URL"),
    ],
)
def test_what_is_missing_is_named(types: Typed, environment: dict[str, str], says: str) -> None:
    """A new user has set half of it."""
    result = types("status", "agent-1", **environment)
    assert result.exit_code == 1 and says in result.output and "hint: " in result.output
    assert SECRET not in result.output and "short-certificate" not in result.output


def test_a_file_that_is_no_text_is_told(types: Typed) -> None:
    """Saved by an editor in another encoding, or the wrong file altogether."""
    for content in (b"\xff\xfe\x00A", b"A" * 70_000):
        Path(".env.local").write_bytes(content)
        result = types("status", "agent-1")
        assert result.exit_code == 1 and ".env.local" in result.output


# --- the agent that is meant --------------------------------------------------------------------------------


def test_the_agent_started_last_needs_no_name(types: Typed, api: Agora) -> None:
    """Started, asked, stopped: nobody copies an id. The file is the user's alone, and what is stopped is struck out."""
    started(types, api)
    file = Path("state/firstword/agents.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    assert "RUNNING" in types("status", api=api).stdout
    assert types("stop", api=api).exit_code == 0
    assert api.last.path.endswith("/agents/agent-1/leave") and api.last.body is None
    assert json.loads(file.read_text()) == []
    result = types("stop", api=api)
    assert result.exit_code == 1 and "No agent was started from here" in result.output


def test_each_channel_has_its_last_agent(types: Typed, api: Agora) -> None:
    """Two channels, and one of them twice; another project's agent is nobody's business."""
    for channel in ("a", "b", "a"):
        assert types("start", "--url", URL, "--channel", channel, api=api, **BOTH, **PIPE).exit_code == 0
    assert len(json.loads(Path("state/firstword/agents.json").read_text())) == 2
    for words, id in ((["--channel", "a"], "agent-3"), (["--channel", "b"], "agent-2"), ([], "agent-3")):
        types("status", *words, api=api)
        assert api.last.path.endswith(f"/agents/{id}")
    result = types("status", api=api, **{**BY_BASIC, "AGORA_APP_ID": "f" * 32})
    assert "No agent was started from here" in result.output


def test_an_agent_that_somebody_else_started_is_found_by_its_channel(types: Typed, api: Agora) -> None:
    """Started in AI Studio; with several in the channel, nobody guesses."""
    api.agents = {"theirs": "room-9"}
    assert types("interrupt", "--channel", "room-9", api=api).exit_code == 0
    assert api.last.path.endswith("/agents/theirs/interrupt")
    api.agents["another"] = "room-9"
    assert "2 agents run in the channel: theirs, another" in types("stop", "--channel", "room-9", api=api).output
    assert "No agent runs in the channel 'empty'" in types("stop", "--channel", "empty", api=api).output


@pytest.mark.parametrize("content", ["", "nonsense", "{}", '[{"app_id": 1}]', "\udcff"])
def test_a_broken_file_is_as_good_as_none(types: Typed, api: Agora, content: str) -> None:
    """A full disk, a crash, an editor."""
    file = Path("state/firstword/agents.json")
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert types("status", api=api).exit_code == 1
    started(types, api)
    assert types("status", api=api).exit_code == 0


def test_a_file_that_cannot_be_written_stops_nobody(types: Typed, api: Agora) -> None:
    """A read-only home: the agent runs, and its id is printed."""
    Path("state").write_text("in the way")
    result = types("start", "--url", URL, api=api, **BOTH, **PIPE)
    assert result.exit_code == 0 and "cannot be written" in result.stderr and "agent-1" in result.stdout


@pytest.mark.parametrize("id", ["../../x", "a/b", "..", "a?b", "a b", "é", "x" * 129])
def test_an_id_that_is_none_is_not_asked_for(types: Typed, api: Agora, id: str) -> None:
    """Something else was pasted: it must not lead to another path."""
    result = types("stop", id, api=api)
    assert (result.exit_code, api.asked) == (1, []) and "no agent's id" in result.output


# --- the other commands ------------------------------------------------------------------------------------


def test_say_speaks_up_to_512_bytes(types: Typed, api: Agora) -> None:
    """Bytes, not signs: 170 signs of Chinese fit, 171 do not, and are not sent."""
    started(types, api)
    assert types("say", "你" * 170, api=api).exit_code == 0
    assert api.last.body == {"text": "你" * 170, "priority": "INTERRUPT", "interruptable": True}
    assert types("say", "Bye", "--priority", "append", "--firm", api=api).exit_code == 0
    assert api.last.body == {"text": "Bye", "priority": "APPEND", "interruptable": False}

    count = len(api.asked)
    for words, says in ((["你" * 171], "513 bytes"), ([" "], "nothing to say"), (["Hi", "--priority", "x"], "none of")):
        result = types("say", *words, api=api)
        assert result.exit_code == 1 and says in result.output
    assert len(api.asked) == count


def test_update_shows_what_it_sends_and_replaces_params_whole(types: Typed, api: Agora) -> None:
    """Another model: who is on the line is sent along, since params that are not there would be gone."""
    started(types, api, "--model", "old")
    Path("p.json").write_text('{"llm": {"system_messages": [], "api_key": "sk-3", "params": {"a": 1}}}')
    result = types("update", "--model", "new", "--properties", "p.json", "--new-token", api=api)
    assert result.exit_code == 0 and "replaced whole" in result.stderr

    own = {"model": "new", "channel": "room-7", "app_id": APP_ID, "agent_uid": "1001"}
    assert api.last.properties["llm"] == {"system_messages": [], "api_key": "sk-3", "params": own}
    assert read_token(api.last.properties["token"]).services[1][1] == ["room-7", "1001"]
    assert json.loads(result.stdout) == {
        "llm": {"system_messages": [], "api_key": "***", "params": own}, "token": "***",
    }  # fmt: skip
    assert "nothing to change" in types("update", api=api).output


def test_history_is_told_in_order_and_only_of_an_agent_that_runs(types: Typed, api: Agora) -> None:
    """Two say something; after the end Agora has it no more, and the hint says who has."""
    started(types, api)
    assert "Nothing was said" in types("history", api=api).stderr
    api.said = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "你好"}, {}]
    assert types("history", api=api).stdout == "assistant: Hi!\nuser: 你好\n?: \n"
    assert json.loads(types("history", "--json", api=api).stdout) == api.said
    api.agents.clear()
    result = types("history", api=api)
    assert result.exit_code == 1 and "(404, TaskNotFound" in result.output and "103" in result.output


def a_turn(number: int) -> dict[str, Any]:
    parts = {"algorithm_processing": 200, "asr_ttlw": 740, "llm_ttft": 281.4, "llm_ftfs": 5, "tts_ttfb": 153}
    return {
        "turn_id": number,
        "start": {"start_at": 1767000000000, "type": "voice_input"},
        "end": {"end_at": 1767000002000, "type": "ok"},
        "metrics": {
            "e2e_latency_ms": 1799,
            "segmented_latency_ms": [{"name": name, "latency": value} for name, value in parts.items()],
        },
    }


def test_turns_of_all_pages_stand_in_one_table(types: Typed, api: Agora) -> None:
    """120 turns are three pages; the engine tells nothing of one, and nonsense of another."""
    started(types, api)
    assert "no turn so far" in types("turns", api=api).stderr
    odd = {"turn_id": "x", "start": [], "end": None, "metrics": {"e2e_latency_ms": True, "segmented_latency_ms": 7}}
    api.turns = [a_turn(number) for number in range(1, 119)] + [odd, {}]
    lines = types("turns", api=api).stdout.splitlines()
    assert lines[0].split() == [
        "turn", "began", "with", "ended", "e2e", "asr", "llm_ttft", "sentence", "tts", "algorithm", "transport",
    ]  # fmt: skip
    assert lines[1].split() == ["1", "voice_input", "ok", "1799", "740", "281", "5", "153", "200", "-"]
    assert lines[-1].split() == ["-"] * 10 and len(lines) == 121 and max(map(len, lines)) < 100
    assert [asked.path.split("?")[1] for asked in api.asked[-3:]] == [
        f"page_index={page}&page_size=50" for page in (1, 2, 3)
    ]
    assert json.loads(types("turns", "--json", api=api).stdout) == api.turns


def test_status_shows_times_as_people_read_them(types: Typed, api: Agora) -> None:
    """And for programs, what Agora said."""
    started(types, api)
    said = types("status", api=api).stdout
    assert "2025-12-2" in said and "stopped" not in said and "as told" in said
    assert json.loads(types("status", "--json", api=api).stdout)["start_ts"] == 1767000000


def test_a_person_gets_a_token_for_the_channel(types: Typed, api: Agora) -> None:
    """To hear the agent, somebody joins: the token alone is the output, so that it can be piped."""
    started(types, api)
    made = read_token(types("token", "--uid", "1002", **BY_TOKEN).stdout.strip())
    assert made.services[1] == ({1: 3600, 2: 3600, 3: 3600, 4: 3600}, ["room-7", "1002"])
    assert "AGORA_APP_CERT is not set" in types("token", "--channel", "x", **BY_BASIC).output
