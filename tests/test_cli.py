"""The command, and a file that is run: real processes, told to start, to serve and to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from caller import Caller, turn
from command import Run, wait_for
from conftest import ROOT

from firstword import __version__
from firstword.testing import Upstream, script

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
LOCAL = ("--host", "127.0.0.1", "--port", "0")
MINE = """
import os
from firstword import App

app = App()


@app.model("mine")
async def mine(turn):
    return f"one from {os.getpid()}"
"""


@pytest.fixture
def free_port() -> str:
    """A port that was free a moment ago, for what prints the port it was asked for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


# --- what is served -------------------------------------------------------------------------------


def test_serve_without_a_file_serves_a_plain_app_and_shows_a_line_that_works(run: Run, free_port: str) -> None:
    """A new user types two words, copies the line that is printed, and hears something without any key."""
    process = run(FIRSTWORD, "serve", "--port", free_port)
    process.caller()
    line = process.says(r"curl -N [^\n]+\\\n[^\n]+")[0]
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    heard = subprocess.run(["sh", "-c", line.replace('"demo",', '"demo","pace":0,')], capture_output=True, timeout=10)

    assert heard.stdout.endswith(b"data: [DONE]\n\n") and b'"Hello!"' in heard.stdout
    process.tell(signal.SIGTERM)
    assert process.ends() in (0, -signal.SIGTERM)


async def test_serve_takes_the_custom_llm_of_the_folder(run: Run, tmp_path: Path) -> None:
    """No FILE is named; there is a custom_llm.py here."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL)
    assert (await process.caller().says(model="mine")).text.startswith("one from ")


async def test_serve_takes_a_file_elsewhere_and_its_neighbours(run: Run, tmp_path: Path) -> None:
    """The file lies in another folder and imports what lies beside it."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "words.py").write_text("HELLO = 'Hello from beside it.'")
    (tmp_path / "agents" / "sales.py").write_text(
        f"import words\n{MINE}".replace('f"one from', 'words.HELLO and f"one from')
    )
    process = run(sys.executable, "-m", "firstword", "serve", "agents/sales.py", *LOCAL)
    assert (await process.caller().says(model="mine")).text.startswith("one from ")


async def test_two_workers_share_a_port_and_end_together(run: Run, tmp_path: Path, free_port: str) -> None:
    """Two processes answer; when the first one is told to stop, no process is left."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", free_port, "--workers", "2")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()

    pids = set()
    for _ in range(200):
        pids.add((await caller.says(model="mine")).text.removeprefix("one from "))
        if len(pids) == 2:
            break
    assert len(pids) == 2 and str(process.pid) not in pids
    process.tell(signal.SIGTERM)
    assert process.ends() in (0, -signal.SIGTERM)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers share one socket")
def test_each_worker_listens_for_itself(run: Run) -> None:
    """The kernel deals calls out evenly among listening sockets; from a shared one the first to wake takes them."""
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    port = int(process.says(r"Uvicorn running on http://[\d.]+:(\d+) ")[1])

    def listening() -> int:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)

    for _ in range(1000):  # a worker says that it has started before it listens
        if listening() == 2:
            break
        time.sleep(0.005)
    assert listening() == 2


async def test_a_worker_that_dies_is_replaced(run: Run, tmp_path: Path) -> None:
    """The kernel ends one of two workers; soon there are two again, and every call is answered."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    dead = (await caller.says(model="mine")).text.removeprefix("one from ")
    os.kill(int(dead), signal.SIGKILL)

    process.says(rf"(?s)Child process \[{dead}\] died.*Application startup complete")
    heard = [(await caller.says(model="mine")).text for _ in range(10)]
    assert all(text.startswith("one from ") and dead not in text for text in heard)


async def test_a_changed_file_is_served_anew(run: Run, tmp_path: Path, free_port: str) -> None:
    """A developer saves the file: the next call hears the new words."""
    file = tmp_path / "custom_llm.py"
    file.write_text(MINE)
    process = run(FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", free_port, "--reload")
    caller = process.caller()
    assert (await caller.says(model="mine")).text.startswith("one from ")

    for _ in range(5):  # a change before the reloader's first look is none to it: save it again
        file.write_text(MINE.replace("one from", "two, after it was saved, from"))
        with contextlib.suppress(AssertionError):
            process.says(r"(?s)Application startup complete.*Application startup complete", within=3)
            break
    assert (await caller.says(model="mine")).text.startswith("two")
    process.tell(signal.SIGINT)
    assert process.ends() == 0


async def test_a_crowd_of_callers_keeps_no_probe_out(run: Run, free_port: str) -> None:
    """All connections are taken by callers who say nothing; the operator's port counts none, and refuses none."""
    process = run(FIRSTWORD, "serve", *LOCAL, FIRSTWORD_MAX_CONNECTIONS="4", FIRSTWORD_OPERATOR_PORT=free_port)
    port = process.says(r"Uvicorn running on http://[\d.]+:(\d+)")[1]
    process.says("Application startup complete")
    wait_for(int(free_port))
    inside = Caller(f"http://127.0.0.1:{free_port}")
    with contextlib.ExitStack() as held:

        def dial(port: str) -> socket.socket:
            return held.enter_context(socket.create_connection(("127.0.0.1", int(port))))

        kept = [dial(free_port) for _ in range(6)]
        crowd = [dial(port) for _ in range(4)]
        for path in ("/health", "/ready", "/metrics"):
            assert (await inside.hears(path=path, method="GET")).status == 200
        assert dial(port).recv(100).startswith(b"HTTP/1.1 503")
        for each in (*kept, *crowd):
            each.settimeout(0)
            with pytest.raises(BlockingIOError):  # it is kept
                each.recv(1)


async def test_a_public_url_prints_the_block_for_ai_studio(run: Run) -> None:
    """The user's port is public: what AI Studio wants is printed as it is to be pasted."""
    process = run(FIRSTWORD, "serve", *LOCAL, "--public-url", "https://x-8000.app.github.dev/")
    block = json.loads(process.says(r"(?ms)^\{\n.*?^\}\n")[0])
    assert block["llm"]["url"] == "https://x-8000.app.github.dev/chat/completions"


async def test_run_takes_its_arguments_before_the_settings(run: Run, tmp_path: Path) -> None:
    """`app.run(host, port)` in a file that is run as a script; the environment says otherwise."""
    (tmp_path / "mine.py").write_text(f'{MINE}\napp.run("127.0.0.1", 0)\n')
    process = run(sys.executable, "mine.py", FIRSTWORD_PORT="1", FIRSTWORD_HOST="192.0.2.1")
    assert (await process.caller().says(model="mine")).text.startswith("one from ")


async def test_the_file_to_edit_serves_by_itself(run: Run, free_port: str) -> None:
    """`python3 custom_llm.py`, as the README says: uvicorn's own line is shown, and the model answers."""
    process = run(sys.executable, str(ROOT / "custom_llm.py"), FIRSTWORD_PORT=free_port)
    caller = process.caller()
    process.says(rf"INFO:     Uvicorn running on http://0\.0\.0\.0:{free_port} \(Press CTRL\+C to quit\)\n")

    assert (await caller.says("Hello there.")).text == "Hello there."
    assert (await caller.says("Hello there.", model="parrot")).text == "You said: Hello there."


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--reload"]], ids=str)
def test_a_held_key_is_not_offered_to_the_world(run: Run, more: list[str]) -> None:
    """The operator sets LLM_API_KEY and no gate keys: it does not start, and says what to do."""
    process = run(FIRSTWORD, "serve", "--port", "0", *more, LLM_API_KEY="sk-held")
    assert process.ends() == 1
    assert process.output.startswith("firstword: The server holds a key (LLM_API_KEY, ")
    assert "\nhint: set FIRSTWORD_KEYS" in process.output
    assert "Traceback" not in process.output and "sk-held" not in process.output and "Uvicorn" not in process.output


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
async def test_open_offers_it_all_the_same(run: Run, upstream: Upstream, free_port: str, more: list[str]) -> None:
    """Something else guards the door: `--open` says so, to every process that serves."""
    process = run(FIRSTWORD, "serve", "--port", free_port, "--open", *more, LLM_API_KEY="sk-held")
    heard = await process.caller().says("Hello", headers={"host": "x.example"}, user=f"open{more}")
    assert heard.text == "Hello"
    assert upstream.seen(f"open{more}")[0].header("authorization") == "Bearer sk-held"


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no file 'mine.py'."),
        ("", "'mine.py' has no `app`."),
        ("app = 42", "'mine.py' has no `app`."),
        ("import firstword\napp = firstword.App", "'mine.py' has no `app`."),
        ("import firstword\napp = firstword.App(base_url='nowhere')", "The base URL is not an http or https URL."),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence(run: Run, tmp_path: Path, content: str | None, said: str) -> None:
    """The file is not there, holds no App, or an App that cannot work: a sentence and a hint, no traceback."""
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    process = run(FIRSTWORD, "serve", "mine.py", *LOCAL)
    assert process.ends() == 1
    assert process.output.startswith(f"firstword: {said}\nhint: ") and process.output.count("\n") == 2


def test_a_bug_in_the_file_shows_where_it_is(run: Run, tmp_path: Path) -> None:
    """The user's own mistake is the one thing that needs its traceback."""
    (tmp_path / "mine.py").write_text("import firstword\nnonsense\n")
    process = run(FIRSTWORD, "serve", "mine.py", *LOCAL)
    assert process.ends() == 1
    assert 'mine.py", line 2' in process.output and "NameError: name 'nonsense' is not defined" in process.output
    assert process.output.count("  File ") == 1 and "cli.py" not in process.output  # nothing of how we came to it


def test_a_file_that_is_no_python_shows_the_line(run: Run, tmp_path: Path) -> None:
    """A bracket is missing: nothing of the file was run, so there is no step of it to show but the line."""
    (tmp_path / "mine.py").write_text("import firstword\napp = firstword.App(\n")
    process = run(FIRSTWORD, "serve", "mine.py", *LOCAL)
    assert process.ends() == 1
    assert 'mine.py", line 2' in process.output and "SyntaxError: " in process.output
    assert process.output.count("  File ") == 1


def test_the_command_tells_its_version(run: Run) -> None:
    """Somebody reports a mistake, and is asked which version it is."""
    process = run(FIRSTWORD, "--version")
    assert process.ends() == 0 and process.output == f"firstword {__version__}\n"


@pytest.mark.parametrize(
    "command", [[FIRSTWORD, "serve"], [sys.executable, str(ROOT / "custom_llm.py")]], ids=["serve", "file"]
)
def test_a_wrong_setting_is_told_in_a_sentence(run: Run, command: list[str]) -> None:
    """A variable is wrong: it is named, its value is not."""
    process = run(*command, FIRSTWORD_PORT="s3cret")
    assert process.ends() == 1
    assert process.output.startswith("firstword: A setting is wrong: FIRSTWORD_PORT: ")
    assert "\nhint: " in process.output and process.output.count("\n") == 2 and "s3cret" not in process.output


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--reload"]], ids=str)
def test_a_port_in_use_is_told_in_a_sentence(run: Run, more: list[str]) -> None:
    """Another server has the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = run(FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", port, *more)
        assert process.ends() == 1
    said = process.output.partition("firstword: ")[2]  # before it, that the plain relay is served
    assert said.startswith(f"Port {port} is in use: another server listens on it.\nhint: ") and said.count("\n") == 2


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
def test_the_port_of_other_workers_is_in_use(run: Run, free_port: str, more: list[str]) -> None:
    """The same command twice: the second must not take half of the first one's calls."""
    listen = (FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", free_port)
    run(*listen, "--workers", "2").says("Uvicorn running on")  # its workers need not listen yet
    second = run(*listen, *more)
    assert second.ends() == 1 and f"Port {free_port} is in use" in second.output


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("nonsense", "NameError: name 'nonsense' is not defined\n"),
        ("app = None", "firstword: 'mine.py' has no `app`.\nhint: "),
        ("firstword.App(base_url='nowhere')", "firstword: The base URL is not an http or https URL.\nhint: "),
    ],
)
def test_workers_that_cannot_start_are_not_started_again_and_again(
    run: Run, tmp_path: Path, mistake: str, said: str
) -> None:
    """What was right when the command began is wrong in the workers, as after a half-done deployment."""
    (tmp_path / "mine.py").write_text(
        f"import multiprocessing, firstword\napp = firstword.App()\nif multiprocessing.parent_process():\n    {mistake}"
    )
    process = run(FIRSTWORD, "serve", "mine.py", *LOCAL, "--workers", "2")
    assert process.ends() == 3
    assert said in process.output and "failed to start, stopping the parent process" in process.output
    assert 1 <= process.output.count(said) <= 2  # each worker's own


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    """A new user types the name of the program."""
    process = run(FIRSTWORD)
    assert process.ends() in (0, 2)
    assert "serve" in process.output and "Serve an App until CTRL+C." in process.output


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_running_turn_is_finished_before_the_end(run: Run, by: signal.Signals, more: list[str]) -> None:
    """A deployment, or CTRL+C, while somebody is being answered: they hear all of it, then the process ends."""
    process = run(FIRSTWORD, "serve", *LOCAL, *more)
    slowly = [*script.stalls_after("One"), script.wait(0.3), script.text(" two"), script.finish(), script.done()]
    async with process.caller().dials(turn(script=[*slowly, script.end()])) as call:
        await call.hears_word("One")
        process.tell(by)
        async for _ in call.listens():
            pass
    assert (call.heard.text, call.heard.done, call.heard.whole) == ("One two", True, True)
    assert await asyncio.to_thread(process.ends, 5) in (0, -by)
    assert "Traceback" not in process.output


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
async def test_turns_that_do_not_end_are_ended_when_the_drain_is_over(
    run: Run, tmp_path: Path, upstream: Upstream, more: list[str]
) -> None:
    """One model has stalled, one never spoke; after the drain (here 1 s) the callers are told, and nothing is left."""
    (tmp_path / "mine.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", "mine.py", *LOCAL, *more, FIRSTWORD_DRAIN_TIMEOUT="1")
    caller, marker = process.caller(), f"cli-drain{more}"
    stalled, silent = (
        asyncio.create_task(caller.says(script=steps, user=marker))
        for steps in (script.stalls_after("One"), script.never_answers())
    )
    await upstream.wait_asked(marker, count=2)
    process.tell(signal.SIGTERM)

    heard = [await stalled, await silent]
    assert [each.status for each in heard] == [200, 503] and all(each.whole for each in heard)
    assert [each.error["code"] for each in heard] == ["server_stopping"] * 2
    assert heard[0].text == "One" and not heard[0].done
    assert process.ends(5) in (0, -signal.SIGTERM)
    assert {record.closed_by for record in await upstream.wait_closed(marker, count=2)} == {"peer"}
    assert "Traceback" not in process.output and process.output.count("outcome=server_stopping") == 2
