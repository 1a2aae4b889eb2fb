"""`firstword check` as people and programs run it: what is printed, and how it ends. Real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Served
from sick import KEY, Sick, error, on_chunks, on_streams, well
from typer.testing import CliRunner

from firstword import App, Turn
from firstword.cli import cli
from firstword.doctor import CHECKS

FIRSTWORD = str(Path(sys.executable).parent / "firstword")


async def run(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run the command; return its exit code and what it printed."""
    known = {**os.environ, "COLUMNS": "100", **environment}
    process = await asyncio.create_subprocess_exec(
        FIRSTWORD, "check", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=known
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_people_read_what_is_wrong_and_how_it_is_mended() -> None:
    """A server with a byte order mark: the fault, what was seen, why, the mend, the count, and the exit code."""
    async with Sick(on_streams(lambda parts: [b"\xef\xbb\xbf", *parts])) as server:
        code, out, err = await run(server.url, "--only", "form,whole", "--model", "m1", FIRSTWORD_CHECK_KEY=KEY)
    assert code == 1
    assert "error    form: The stream begins with a byte order mark. (bom)" in out
    assert "why: openai-python loses the first event." in out and "mend: Encode as UTF-8" in out
    assert "ok       whole: one chat.completion" in out
    assert out.endswith("1 error, 0 warnings, 1 advice, 2 ok, 0 skipped. 3 requests.\n")
    assert err.endswith("/chat/completions: 3 requests, for which its provider may charge you.\n")
    assert KEY not in out + err and "\x1b" not in out + err


async def test_programs_read_json() -> None:
    """One object on stdout, and nothing else anywhere."""
    async with Sick(well) as server:
        code, out, err = await run(server.url, "--quick", "--json", "--key", KEY, "--model", "m1")
    found = json.loads(out)
    assert (code, err, found["exit_code"], found["reached"], found["requests"]) == (
        0,
        "",
        0,
        True,
        len(server.requests),
    )
    assert {"check": "reach", "fault": "private-address"}.items() <= found["findings"][0].items()
    assert [each["check"] for each in found["findings"][1:]] == [check.name for check in CHECKS if check.is_quick]
    assert KEY not in out


async def test_the_same_fault_is_told_once() -> None:
    """Forty replies lack an id: that is one thing to mend, and the checks that saw it too are named."""

    def without_id(chunk: dict[str, Any], at: int) -> dict[str, Any]:
        return {name: value for name, value in chunk.items() if name != "id"}

    async with Sick(on_chunks(without_id)) as server:
        words = [server.url, "--only", "form,blank,agora", "--key", KEY, "--model", "m1"]
        (_, people, _), (code, programs, _) = await run(*words), await run(*words, "--json")
    faults = [each for each in json.loads(programs)["findings"] if each["fault"] == "chunk-id"]
    assert [(each["check"], each["also"]) for each in faults] == [("form", ["agora", "blank"])]
    assert people.count("(chunk-id)") == 1 and "also in: agora, blank\n" in people and code == 1


async def test_what_the_engine_sends_goes_along() -> None:
    """`llm.params` and `llm.headers` of the agent's own configuration, and no key in the body or twice."""
    async with Sick(well) as server:
        more = ["--param", "channel=room-7", "--param", "temperature=0.5", "--header", "X-Session: 7"]
        code, _, _ = await run(server.url, "--only", "blank", "--key", KEY, *more)
        request = server.requests[-1]
    assert code == 0
    assert request.body is not None and (request.body["channel"], request.body["temperature"]) == ("room-7", 0.5)
    assert (request.headers["x-session"], request.headers["authorization"]) == ("7", f"Bearer {KEY}")
    assert "model" not in request.body


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "There is no URL to check.\nhint: firstword check https://"),
        (["llm.example.com/chat"], "This is no http or https URL.\nhint: "),
        (["http://llm.example.com:99999/"], "This is no http or https URL."),
        (["http://[::1/"], "This is no http or https URL."),
        (["ftp://llm.example.com/"], "This is no http or https URL."),
        (["http://x/", "--only", "fomr"], "There is no check 'fomr'.\nhint: did you mean form?"),
        (["http://x/", "--header", "no colon"], "A header is not name:value.\nhint: "),
        (["http://x/", "--header", "x: a\r\nb: c"], "The value of the header 'x' holds signs that no header can."),
        (["http://x/", "--param", "channel"], "A field is not name=value.\nhint: "),
        (["http://x/", "--key", "a b"], "The key holds white space, or signs that no header can.\nhint: "),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(words: list[str], said: str) -> None:
    """A typing error: exit code 2, what is wrong, what to do, and nobody was called."""
    result = CliRunner().invoke(cli, ["check", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"firstword: {said}")
    assert "Traceback" not in result.stderr and "a b" not in result.stderr


async def test_nobody_there_is_an_exit_code_of_its_own() -> None:
    """A script tells a server that is away from one that is ill."""
    code, out, _ = await run("http://nobody.invalid/chat/completions")
    assert code == 2
    assert "The host's name has no address. (no-such-host)" in out
    assert out.endswith("1 error, 0 warnings, 0 advice, 0 ok, 0 skipped. There was nothing to examine.\n")


async def test_the_list_says_what_each_check_costs() -> None:
    """Before paying for it, one looks what it does."""
    code, out, _ = await run("--list")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[:-2]] == [[c.name, str(c.requests)] for c in CHECKS]
    assert out.endswith(f"\n{sum(check.requests for check in CHECKS)} requests in all.\n")


async def test_a_secret_in_the_url_or_a_header_is_not_shown() -> None:
    """Some servers want the key in the query, and echo what they refuse."""
    refuse = error(400, "No such key: hunter2-in-a-query, hunter3-in-a-header.")
    async with Sick(lambda request, reply: refuse) as server:
        url = f"{server.url}?key=hunter2-in-a-query"
        code, out, err = await run(url, "--header", "x-key: hunter3-in-a-header")
    assert code == 1 and "refuses-the-simplest" in out
    assert "hunter" not in out + err


def test_the_command_costs_the_others_nothing() -> None:
    """`firstword serve` starts without the doctor."""
    code = "import sys, firstword.cli; print([name for name in sys.modules if name.startswith('firstword.doctor')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.fixture
def demo() -> Iterator[Served]:
    """Our own server with the built-in model, which speaks quicker than a person."""
    app = App(models=["demo"])

    @app.before_turn
    def hurry(turn: Turn) -> None:
        turn.request["pace"] = 0

    served = Served(app)
    yield served
    served.stop()


async def test_our_own_server_has_no_fault(demo: Served) -> None:
    """The demo, whole: every check, through the command."""
    code, out, _ = await run(f"{demo.url}/chat/completions", "--json")
    found: list[dict[str, Any]] = json.loads(out)["findings"]
    bad = [each for each in found if each["level"] not in ("ok", "skipped") and each["fault"] != "private-address"]
    assert (code, bad) == (0, [])
    assert len(found) == len(CHECKS) + 1
