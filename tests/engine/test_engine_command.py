"""`firstword engine` as people and programs run it: a script, a pipe, a terminal, and a server that is not there."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from engine_call import calling
from served import Served

from firstword import App
from firstword.testing import Upstream, script

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
PACE = json.dumps({"llm": {"vendor": "custom", "style": "openai", "params": {"model": "demo", "pace": 0}}})


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end in an empty folder; `typed` is what comes in."""

    def run(*options: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "llm.json").write_text(PACE)
        command = [FIRSTWORD, "engine", *options]
        known = {**os.environ, **environment}
        return subprocess.run(
            command, cwd=tmp_path, env=known, input=typed, text=True, capture_output=True, timeout=30, check=False
        )

    return run


Engine = Callable[..., Any]


def url_of(served: Served) -> str:
    return f"{served.url}/chat/completions"


@pytest.fixture
def demo(serve: Callable[[App], Served]) -> str:
    """The URL of a server with the demo model."""
    return url_of(serve(App()))


# --- a pipe and a script --------------------------------------------------------------------------------


def test_a_line_through_a_pipe_is_answered(engine: Engine, demo: str) -> None:
    """`echo Hello | firstword engine URL`: the words, what the turn was like, and a summary."""
    ran = engine(demo, "--llm", "llm.json", "--fast", typed="Hello\n")

    assert (ran.returncode, ran.stderr) == (0, "")
    you, agent, marks, wire, summary = ran.stdout.splitlines()
    assert you == "you    Hello" and agent.startswith("agent  Hello! ")
    assert re.fullmatch(r" {7}word [\d.]+ · sentence [\d.]+ · gap [\d.]+ · total [\d.]+ s", marks)
    assert re.fullmatch(r" {7}connect [\d.]+ · byte [\d.]+ · event [\d.]+ · \d+ chunks · stop", wire)
    assert re.fullmatch(r"first word of 1 turn: p50 [\d.]+ s · p95 [\d.]+ s · max [\d.]+ s", summary)


def test_one_command_is_enough_to_hear_something(engine: Engine, tmp_path: Path) -> None:
    """`--serve` without a server anywhere; then with a file that has an App."""
    assert "agent  Hello! " in engine("--serve", "--llm", "llm.json", "--fast", typed="Hello").stdout

    (tmp_path / "mine.py").write_text(
        "from firstword import App\napp = App()\n\n@app.model('demo')\nasync def mine(turn):\n    yield 'It is mine.'\n"
    )
    ran = engine("mine.py", "--serve", "--fast", typed="Hello\n")
    assert (ran.returncode, ran.stderr) == (0, "") and "agent  It is mine." in ran.stdout


def test_programs_get_a_line_for_each_turn(engine: Engine, demo: str, tmp_path: Path) -> None:
    """`--json`: nothing else stands on stdout."""
    (tmp_path / "talk.txt").write_text('say Tell me a joke\ninterrupt "Why"\nsay Again\nagain\nexpect status == 200\n')
    ran = engine(demo, "--llm", "llm.json", "--script", "talk.txt", "--fast", "--json")

    first, second, third = map(json.loads, ran.stdout.splitlines())
    assert (ran.returncode, first["turn"], first["said"], first["finish_reason"]) == (0, 1, "Tell me a joke", "stop")
    assert first["text"] == first["heard"] and first["first_word"] <= first["first_sentence"] <= first["total"]
    assert (second["turn"], second["status"], third["turn"], third["error"]) == (2, 200, 2, None)
    assert ran.stderr == "the same turn again\n"


def test_a_script_whose_expectation_is_not_met_exits_with_1(engine: Engine, demo: str, tmp_path: Path) -> None:
    """For CI: the sentence names the line."""
    (tmp_path / "talk.txt").write_text('# a greeting\nsay Hello\nexpect contains "Bonjour"\nexpect status == 200\n')
    ran = engine(demo, "--llm", "llm.json", "--script", "talk.txt", "--fast")

    assert ran.returncode == 1
    assert ran.stderr.startswith('firstword: line 3: expected contains "Bonjour", and it was "Hello! ')
    assert ran.stderr.count("\n") == 1


def test_a_mistake_in_a_script_exits_with_2(engine: Engine, tmp_path: Path) -> None:
    """Somebody mistypes the third line: it is told before anybody is called."""
    (tmp_path / "talk.txt").write_text("say Hello\n\nshout Hello\n")
    ran = engine("--script", "talk.txt")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("firstword: Line 3: 'shout' is no command.\nhint: one of say, ")


def test_a_mistake_in_a_pipe_ends_the_call(engine: Engine, demo: str) -> None:
    """A command that does not exist comes through a pipe; nobody is there to read on."""
    ran = engine(demo, "--fast", typed="/shout\nHello\n")

    assert ran.returncode == 1 and "There is no command /shout." in ran.stderr
    assert "agent" not in ran.stdout


def test_every_command_of_a_conversation_works_in_a_pipe(engine: Engine, demo: str, tmp_path: Path) -> None:
    """The commands, one after the other; the call is saved, and its script is played again."""
    typed = (
        "/help\n/who 1003 anna\n/presence page=2\n/set greeting_message Good day!\n/image https://example.com/a.png\n"
        "What is this?\n/silence\n/again\n/interrupt Hello\nHello\n\n/speak Bye.\n/save talk.txt\n/quit\nunheard\n"
    )
    ran = engine(demo, "--llm", "llm.json", "--fast", typed=typed)

    assert (ran.returncode, ran.stderr) == (0, "")
    for said in ("agent  Are you still there?", "/quit: hang up", "there is no turn to send again", "agent  Bye."):
        assert said in ran.stdout
    assert "unheard" not in ran.stdout and "saved as talk.txt" in ran.stdout

    kept = (tmp_path / "talk.txt").read_text().splitlines()
    assert kept[4:6] == ["say What is this?", "silence"] and kept[-1] == "speak Bye."
    again = engine(demo, "--llm", "llm.json", "--fast", "--script", "talk.txt")
    assert again.returncode == 0 and again.stdout.count("you    ") == ran.stdout.count("you    ") == 2


# --- servers that do not answer ------------------------------------------------------------------------


def test_nobody_at_the_usual_place_gets_a_hint(engine: Engine) -> None:
    """No URL is named and nothing was started."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something listens on port 8000")
    ran = engine(typed="Hello\n")

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "firstword: There is no server at localhost:8000: connection refused.\n"
        "hint: start a server with `firstword serve`, or talk to one in here with `firstword engine --serve`\n"
    )


def test_nobody_at_a_url_is_told_in_a_sentence(engine: Engine) -> None:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ran = engine(f"http://127.0.0.1:{taken.getsockname()[1]}/chat/completions", typed="Hello\n")

    assert ran.returncode == 1
    assert ": connection refused.\nhint: check the URL" in ran.stderr


async def test_a_server_that_wants_a_key_says_so(engine: Engine, serve: Callable[[App], Served]) -> None:
    """Without a key the turn is refused, with a hint; the option and the environment bring it, and nobody sees it."""
    url = url_of(serve(App(keys=["let-me-in"])))
    async with calling(url) as call:
        marks = await call.plays("say Hello")
    assert (marks.status, marks.error) == (401, "The server answered 401: No key was sent.") and marks.hint

    for options, environment in (([], {"FIRSTWORD_ENGINE_KEY": "let-me-in"}), (["--key", "let-me-in"], {})):
        ran = engine(url, "--llm", "llm.json", "--fast", *options, typed="Hello\n", **environment)
        assert ran.returncode == 0 and "let-me-in" not in ran.stdout + ran.stderr


def test_a_path_that_is_not_whole_gets_a_hint(engine: Engine, serve: Callable[[App], Served]) -> None:
    """The engine adds nothing to the URL: the root is no place for a turn."""
    ran = engine(serve(App()).url, "--fast", typed="Hello\n")

    assert ran.returncode == 1 and "The server answered 4" in ran.stdout and "/chat/completions" in ran.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--llm", "nowhere.json"], "'nowhere.json' cannot be read: no such file or directory."),
        (["--serve", "nowhere.py"], "There is no file 'nowhere.py'."),
        (["ftp://me:secret@localhost/"], "That is not an http or https URL."),
    ],
)
def test_what_the_command_cannot_use_is_told_in_a_sentence(engine: Engine, options: list[str], said: str) -> None:
    """A file is missing, a URL is none; a password in it is not repeated."""
    ran = engine(*options, typed="Hello\n")

    assert ran.returncode == 1 and ran.stderr.startswith(f"firstword: {said}")
    assert "\nhint: " in ran.stderr and "Traceback" not in ran.stderr and "secret" not in ran.stderr


def test_an_app_that_cannot_start_is_told(engine: Engine, tmp_path: Path) -> None:
    """A key is held, and its URL is none."""
    (tmp_path / "mine.py").write_text("from firstword import App\napp = App(base_url='nowhere')\n")
    ran = engine("mine.py", "--serve", typed="Hello\n")

    assert ran.returncode == 1 and "The base URL is not an http or https URL." in ran.stderr


def test_tls_is_spoken_and_certificates_are_looked_at(engine: Engine, tmp_path: Path) -> None:
    """A server with a certificate of the test's own authority, which is trusted in one of two runs."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with (tmp_path / "chain.pem").open("wb") as chain:
        for each in issued.cert_chain_pems:
            chain.write(each.bytes())
    with Upstream.start(tls=(str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))) as upstream:
        url = f"{upstream.base_url}/chat/completions"
        distrusted = engine(url, "--fast", typed="Hello\n")
        trusted = engine(url, "--fast", typed="Hello\n", SSL_CERT_FILE=str(tmp_path / "ca.pem"))

    assert distrusted.returncode == 1 and "its certificate is not trusted" in distrusted.stderr
    assert trusted.returncode == 0 and "agent  Hello\n" in trusted.stdout


def test_what_a_server_says_does_not_move_the_cursor(engine: Engine, tmp_path: Path) -> None:
    """A model says an escape sequence, two lines, and what this terminal has no signs for."""
    (tmp_path / "mine.py").write_text(
        "from firstword import App\napp = App()\n\n@app.model('demo')\nasync def mine(turn):\n"
        "    yield '\\x1b]0;owned\\x07One\\n天气.'\n"
    )
    ran = engine("mine.py", "--serve", "--fast", typed="Hello\n", PYTHONIOENCODING="ascii")

    assert ran.returncode == 0 and "\x1b" not in ran.stdout and "\x07" not in ran.stdout
    assert "agent  ?]0;owned?One\n       ??.\n" in ran.stdout


def test_a_reader_who_has_seen_enough_and_a_closed_stdin_are_no_mistake(demo: str) -> None:
    """`| head -1`, and a program that was started without a stdin."""
    piped = subprocess.run(
        ["sh", "-c", f"printf 'Hello\\nBye\\n' | '{FIRSTWORD}' engine {demo} --fast | head -1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    closed = subprocess.run(
        ["sh", "-c", f"'{FIRSTWORD}' engine {demo} --greeting Hi <&-"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (piped.stdout, piped.stderr) == ("you    Hello\n", "")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "agent  Hi\n", "")


# --- a terminal -----------------------------------------------------------------------------------------


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.output = ""

    def types(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{line}\n".encode())

    def says(self, pattern: str, within: float = 15.0) -> None:
        """Wait until the output matches."""
        until = time.monotonic() + within
        while not re.search(pattern, self.output):
            assert time.monotonic() < until and self._read(), f"never said {pattern!r}: {self.output}"

    def ends(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(10)

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Run the command on a terminal, in a folder with a slow demo."""
    running: list[Terminal] = []

    def start(*options: str) -> Terminal:
        (tmp_path / "llm.json").write_text(PACE)
        running.append(Terminal([FIRSTWORD, "engine", *options, "--llm", "llm.json"], tmp_path))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait(10)


def test_typing_while_it_speaks_interrupts(terminal: Callable[..., Terminal], demo: str, tmp_path: Path) -> None:
    """A person talks over the agent, and the saved call does so too, at the same moment."""
    call = terminal(demo)
    call.says("/help names the commands")
    call.types("Hello")
    call.says("agent  Hello! ")
    call.types("/help")  # waits until it has spoken
    call.types("Stop it")
    call.says(r"interrupted at [\d.]+ s: \d+ of \d+ signs heard")
    call.says("you    Stop it")
    call.says("agent  .* Stop ")
    call.types("/save talk.txt")
    call.says("saved as talk.txt")
    call.types("/shout")
    call.says("There is no command /shout.\nhint: /help names them all")
    call.types("/quit")

    assert call.ends() == 0 and "first word of 2 turns" in call.output
    lines = (tmp_path / "talk.txt").read_text().splitlines()
    assert re.fullmatch(r"interrupt \d\.\d\d", lines[0]) and lines[1] == "say Hello"


def test_a_person_who_is_silent_is_asked(terminal: Callable[..., Terminal], demo: str) -> None:
    """Nothing is typed for a quarter of a second."""
    call = terminal(demo, "--fast", "--silence", "0.25", "--greeting", "Good day!")
    call.says("(?s)agent  Good day!.*agent  Are you still there[?].*agent  Are you still there[?]")
    call.types("/quit")

    assert call.ends() == 0


def test_ctrl_c_hangs_up(terminal: Callable[..., Terminal], server: Served, upstream: Upstream, marker: str) -> None:
    """CTRL+C while the agent speaks: the connection is closed, and the call ends with its summary."""
    call = terminal(url_of(server))
    steps = json.dumps(script.stalls_after("One two"))
    call.says("/help names the commands")
    for line in (f"/param script {steps}", f"/param user {marker}", "/param model m1", "Hello"):
        call.types(line)
    call.says("agent  One ")
    call.process.send_signal(signal.SIGINT)

    assert call.ends() == 0
    assert "first word of 1 turn" in call.output and "Traceback" not in call.output
    [record] = upstream.seen(marker, until="closed", count=1)
    assert record.closed_by == "peer"


def test_ctrl_c_ends_the_server_of_the_call_as_well(terminal: Callable[..., Terminal]) -> None:
    """`--serve`, and CTRL+C while nobody speaks."""
    call = terminal("--serve")
    call.says("/help names the commands")
    call.process.send_signal(signal.SIGINT)

    assert call.ends() == 0 and "Traceback" not in call.output


def test_ctrl_c_ends_a_script_as_a_program_ends(
    server: Served, upstream: Upstream, marker: str, tmp_path: Path
) -> None:
    """A script hangs in a reply without end: CTRL+C, exit code 130, nothing on stderr."""
    steps = json.dumps(script.stalls_after("One two"))
    (tmp_path / "talk.txt").write_text(f"param model m1\nparam user {marker}\nparam script {steps}\nsay Hello\n")
    process = subprocess.Popen(
        [FIRSTWORD, "engine", url_of(server), "--script", "talk.txt", "--fast"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    upstream.seen(marker, until="asked", count=1, within=15)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)

    assert (process.returncode, errors) == (130, "")
