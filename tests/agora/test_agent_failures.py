"""`firstword agent` when something is wrong: Agora refuses, says nonsense or nothing, or a part is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agora_of_a_test import APP_ID, BY_TOKEN, SECRET, Agora, agora
from typing_of_a_test import BOTH, PIPE, URL, Typed, started, typed

from firstword.agora.account import read_account
from firstword.agora.project import Project
from firstword.agora.refusals import AgoraError


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


STATUSES = [
    (400, "InvalidFieldValue", "did not understand", "the field"),
    (401, "Unauthorized", "did not accept the credentials", "AGORA_BASIC_KEY"),
    (403, "ServiceNotEnabled", "does not allow", "turn on Conversational AI"),
    (403, "AccountSuspended", "does not allow", "balance"),
    (404, "TaskNotFound", "no such agent", "AGORA_AREA"),
    (409, "TaskConflict", "of this name", "--name"),
    (418, "Odd", "answered 418", "AGORA_AREA"),
    (422, "ResourceQuotaLimitExceeded", "a limit", "higher limit"),
    (429, "RateLimit", "too many requests", "wait"),
    (500, "InternalError", "Agora failed", "support"),
    (502, "BadGateway", "Agora failed", "support"),
    (503, "ResourceAllocationFailed", "could not start", "no room"),
    (504, "Timeout", "too slow", "again"),
    (307, "Moved", "answered 307", "AGORA_AGENTS_API_BASE_URL"),
]


@pytest.mark.parametrize(
    ("status", "reason", "says", "hint"), STATUSES, ids=[f"{each[0]}-{each[1]}" for each in STATUSES]
)
def test_each_status_says_what_to_do(types: Typed, api: Agora, status: int, reason: str, says: str, hint: str) -> None:
    """Agora refuses: its own words are passed on, as one line, without what is secret; it is asked once."""
    api.says("/join", status, {"detail": f"{SECRET}\x1b[31m\nno good", "reason": reason})
    result = types("start", "--url", URL, api=api, **BOTH, **PIPE)
    assert (result.exit_code, len(api.asked)) == (1, 1)
    first, second = result.output.strip().split("\nhint: ")
    assert says in first and f"({status}, {reason}: *** [31m no good)." in first and hint in second
    assert not Path("state").exists()


def test_a_token_that_is_refused_has_another_hint(types: Typed, api: Agora) -> None:
    """The certificate of another project."""
    wrong = {"AGORA_APP_ID": APP_ID, "AGORA_APP_CERT": "0" * 32}
    result = types("status", "agent-1", api=api, **wrong)
    assert result.exit_code == 1 and "AGORA_APP_CERT" in result.output and "clock" in result.output


@pytest.mark.parametrize("body", [{"message": "bad", "statusCode": "InvalidRequest"}, {}, [], "x", 7, b"<html>", b""])
def test_errors_of_any_form_are_told(types: Typed, api: Agora, body: Any) -> None:
    """The older form, none, or a gateway's page."""
    api.says("/leave", 400, body)
    api.agents["agent-1"] = "x"
    result = types("stop", "agent-1", api=api)
    assert result.exit_code == 1 and "did not understand the request (400" in result.output
    assert "Traceback" not in result.output and "<html>" not in result.output


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff", b"[]", b'"x"', b"7", b"null", b'{"agent_id": 7}', b"{}"])
@pytest.mark.parametrize("words", [["start", "--url", URL], ["status", "a"], ["history", "a"], ["turns", "a"]])
def test_a_200_with_something_else_is_told(types: Typed, api: Agora, words: list[str], body: bytes) -> None:
    """A captive portal, or an API that has changed."""
    for end in ("/join", "/agents/a", "/history", "/turns"):
        api.says(end, 200, body)
    result = types(*words, api=api, **BOTH, **PIPE)
    assert result.exit_code == 1 and "something else than it describes" in result.output
    assert len(api.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b'{"agent_id": 7}'])
def test_what_was_done_is_done_whatever_the_answer_holds(types: Typed, api: Agora, body: bytes) -> None:
    """Nothing of the answer to `speak` is needed."""
    api.says("/speak", 200, body)
    assert types("say", "Hi", "agent-1", api=api).exit_code == 0


def test_stopping_what_is_gone_forgets_it(types: Typed, api: Agora) -> None:
    """The agent has left by itself: it is an error, once."""
    started(types, api)
    api.agents.clear()
    assert "404" in types("stop", api=api).output
    assert "No agent was started from here" in types("stop", api=api).output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["say", "half \ud83d", "agent-1"], "cannot be encoded"),
        (["update", "agent-1", "--properties", "nan.json"], "cannot be encoded"),
        (["start", "--channel", "x" * 65, "--url", URL], "at most 64 bytes"),
        (["interrupt", "--channel", "\ud83d" * 30], "cannot be encoded"),
    ],
)
def test_what_cannot_be_sent_is_told(types: Typed, api: Agora, words: list[str], says: str) -> None:
    """A terminal of another encoding, a number that is none, a name that is too long."""
    Path("nan.json").write_text('{"llm": {"params": {"temperature": NaN}}}')
    result = types(*words, api=api, **BOTH, **PIPE)
    assert result.exit_code == 1 and says in result.output and "hint: " in result.output


def test_a_proxy_that_is_none_is_told(types: Typed, api: Agora) -> None:
    """A typing error in the shell's profile."""
    result = types("status", "agent-1", api=api, **BOTH, HTTPS_PROXY="nonsense://x")
    assert (result.exit_code, api.asked) == (1, []) and "HTTPS_PROXY" in result.output


def test_an_api_that_is_not_there_is_told(types: Typed, api: Agora) -> None:
    """No network."""
    api.stop()
    result = types("status", "agent-1", api=api)
    assert result.exit_code == 1 and "could not be reached (ConnectError)" in result.output


def test_an_api_that_says_nothing_is_left(api: Agora) -> None:
    """It takes the request and is silent; what was asked for may have been done."""
    api.says("/agents/agent-1", 200, None)
    account = read_account({**BOTH, "AGORA_AGENTS_API_BASE_URL": api.url}, Path("nowhere"))
    with Project(account, channel="room-7", uid=1, within=0.2) as project, pytest.raises(AgoraError) as caught:
        project.status("agent-1")
    assert "did not answer within 0.2 seconds" in str(caught.value) and "may have been done" in str(caught.value)


def test_turns_end_though_the_api_never_says_which_page_is_the_last(api: Agora) -> None:
    """It says that there is always one more, and has none."""
    api.says("/turns", 200, {"turns": [], "pagination": {"is_last_page": False}})
    account = read_account({**BOTH, "AGORA_AGENTS_API_BASE_URL": api.url}, Path("nowhere"))
    with Project(account, channel="room-7", uid=1) as project:
        assert project.turns("agent-1") == []
    assert len(api.asked) == 1


def test_without_the_sdk_its_install_line_is_told(types: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install firstword`, and no more."""
    monkeypatch.setitem(sys.modules, "agora_agent.client", None)
    result = types("status", "agent-1")
    assert result.exit_code == 1 and 'pip install "firstword[agora]"' in result.output


def test_the_old_token_builder_is_told_off(types: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mere presence changes what the SDK makes."""
    old = "class RtcTokenBuilder:\n    @staticmethod\n    def buildTokenWithRtm(*all):\n        return '006old'\n"
    (tmp_path / "agora_token_builder.py").write_text(old)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = types("status", "agent-1", **BY_TOKEN)
    sys.modules.pop("agora_token_builder", None)
    assert result.exit_code == 1 and "pip uninstall agora-token-builder" in result.output


def _hears_ctrl_c() -> None:
    """A shell's background job, as a whole CI run may be, is deaf to CTRL+C, and so is what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_while_it_starts_says_that_it_may_run(tmp_path: Path, api: Agora) -> None:
    """The real command in a process of its own, while the agent still starts: it is not lost."""
    api.statuses = ["STARTING"]
    known = {**os.environ, **BOTH, **PIPE, "AGORA_AGENTS_API_BASE_URL": api.url, "XDG_STATE_HOME": str(tmp_path)}
    command = [str(Path(sys.executable).parent / "firstword"), "agent", "start", "--url", URL, "--wait"]
    process = subprocess.Popen(
        command, env=known, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=_hears_ctrl_c
    )
    deadline = time.monotonic() + 30
    while len(api.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in said
    assert "The agent is agent-1; it is ended by: firstword agent stop" in said
    assert "firstword: stopped. An agent that was started goes on" in said
    assert "agent-1" in (tmp_path / "firstword" / "agents.json").read_text()
