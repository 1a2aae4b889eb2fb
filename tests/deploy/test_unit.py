"""deploy/firstword.service: systemd takes it, it may do little, and its command runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Process
from conftest import ROOT
from shipped import IN_TURN, assert_are_settings, check, seconds

from firstword.testing import Upstream

GATE = {"authorization": "Bearer gate-two"}
CHANGED = """
from firstword import App

app = App()


@app.model("parrot")
async def parrot(turn):
    return "Another bird."
"""
UNIT = ROOT / "deploy" / "firstword.service"
LINES = re.sub(r"\\\n\s*", " ", UNIT.read_text("utf-8")).splitlines()
PAIRS = [line.split("=", 1) for line in LINES if "=" in line and not line.startswith("#")]
SAID = dict(PAIRS)
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


@needs_systemd
def test_systemd_takes_it() -> None:
    """A name is misspelt, which systemd would leave out with a warning."""
    told = check("systemd-analyze", "verify", "--man=no", UNIT)
    assert "firstword.service" not in told  # of the machine's own units it may say what it likes


@needs_systemd
def test_it_may_do_little() -> None:
    """systemd's own measure of what a broken-in service could do: 0 is nothing, 10 everything."""
    told = check("systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT)
    assert float(re.findall(r"exposure level for firstword.service: ([\d.]+)", told)[0]) <= 2.0
    assert ["SystemCallFilter", "@system-service"] in PAIRS and ["SystemCallFilter", "~@privileged"] in PAIRS
    assert SAID["CapabilityBoundingSet"] == "" and SAID["DynamicUser"] == SAID["NoNewPrivileges"] == "yes"


@needs_systemd
def test_a_name_that_systemd_does_not_know_is_found(tmp_path: Path) -> None:
    """The tool that the first test trusts."""
    wrong = tmp_path / "firstword.service"
    wrong.write_text(UNIT.read_text("utf-8").replace("NoNewPrivileges", "NoNewPriviledges"))
    with pytest.raises(AssertionError, match="Unknown key"):
        assert check("systemd-analyze", "verify", "--man=no", wrong) == ""


def test_a_turn_has_time_to_end() -> None:
    """systemd kills what is left after its timeout; the settings stand for a turn of the usual length."""
    environment = dict(pair.split("=", 1) for pair in SAID["Environment"].split())
    assert_are_settings(environment, {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"})
    assert IN_TURN < float(environment["FIRSTWORD_DRAIN_TIMEOUT"]) < seconds(SAID["TimeoutStopSec"])
    assert SAID["KillMode"] == "mixed" and SAID["Restart"] == "always"
    assert int(SAID["LimitNOFILE"]) >= 65536


@pytest.fixture
def service(tmp_path: Path, upstream: Upstream) -> Iterator[Process]:
    """What systemd starts: its line, in a folder with the files that the unit asks for, which end with a line break."""
    for name, key in (("llm_api_key", "sk-held\n"), ("gate_keys", "gate-one,gate-two\n")):
        (tmp_path / name).write_text(key)
    asked = [value.split(":")[0] for name, value in PAIRS if name == "LoadCredential"]
    assert sorted(asked) == ["gate_keys", "llm_api_key"]
    shutil.copy(ROOT / "custom_llm.py", tmp_path)
    shell, option, line = re.fullmatch(r"(\S+) (-c) '(.*)'", SAID["ExecStart"]).groups()  # type: ignore[union-attr]
    line = line.replace("$$", "$").replace("/opt/firstword/bin", str(Path(sys.executable).parent))
    told = {
        **os.environ,
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "LLM_BASE_URL": upstream.base_url,
        "FIRSTWORD_HOST": "127.0.0.1",
        "FIRSTWORD_PORT": "0",
    }
    process = Process([shell, option, line], tmp_path, told)
    yield process
    process.kill()


async def test_its_command_serves_behind_the_keys_of_its_files(service: Process) -> None:
    """A caller with a gate key, and one who has found out the provider's; then `systemctl stop`."""
    caller = service.caller()
    assert (await caller.says("Hello.", headers=GATE)).text == "Hello."
    assert (await caller.says("Hello.", headers={"authorization": "Bearer sk-held"})).status == 401
    service.tell(signal.SIGTERM)
    assert service.ends(10) in (0, -signal.SIGTERM)
    assert "sk-held" not in service.output and "gate-one" not in service.output


async def test_a_reload_brings_new_workers_with_the_file_as_it_is_now(service: Process, tmp_path: Path) -> None:
    """`systemctl reload`, after the file was changed."""
    caller = service.caller()
    service.says(r"(?s)Application startup complete.*Application startup complete")
    assert SAID["ExecReload"] == "/bin/kill -HUP $MAINPID"
    (tmp_path / "custom_llm.py").write_text(CHANGED)
    service.tell(signal.SIGHUP)
    service.says(r"(?s)(Finished server process.*){2}", within=30)
    assert (await caller.says(model="parrot", headers=GATE)).text == "Another bird."
