"""A server that is stopped or restarted, or loses a process, while people talk: no turn is lost that need not be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import h11
import pytest
from caller import Call, Caller, Heard, turn
from command import Process, Run

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
LOCAL = ("--host", "127.0.0.1", "--port", "0")
TWO = (FIRSTWORD, "serve", *LOCAL, "--workers", "2")
# It says which process answers, and takes its time: a restart finds turns in progress.
MINE = """
import asyncio
import os
from firstword import App

app = App()


@app.model("mine")
async def mine(turn):
    yield f"{os.getpid()} "
    for _ in range(5):
        await asyncio.sleep(0.02)
        yield "word "
    yield "end"


@app.model("held")
async def held(turn):
    yield f"{os.getpid()} is on the line"
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


class Kept:
    """A caller who keeps one connection for many turns, and opens another only when told that this one ends."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self.connections = 0

    async def says(self, path: str = "/chat/completions", method: str = "POST") -> Heard:
        """Send one turn and read its whole reply."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
            self._h11 = h11.Connection(h11.CLIENT)
            self.connections += 1
        reader, writer = self._streams
        body = json.dumps(turn(model="mine")).encode() if method == "POST" else b""
        head = [("host", "x"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        for event in (
            h11.Request(method=method, target=path, headers=head),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            writer.write(self._h11.send(event) or b"")
        heard = Heard()
        while not heard.whole:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                assert data or heard.status, "the connection was closed under a request"
                self._h11.receive_data(data)
            elif isinstance(event, h11.Response):
                heard.status = event.status_code
                heard.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                heard.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                heard.whole = True
        if self._h11.our_state is h11.MUST_CLOSE:
            await self.close()
        else:
            self._h11.start_next_cycle()
        return heard

    async def close(self) -> None:
        """Let go of the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@contextlib.asynccontextmanager
async def talking(url: str, heard: list[Heard]) -> AsyncIterator[None]:
    """Have two callers with kept connections, and three who dial for each turn, talk without a pause."""
    over = False

    async def keep() -> None:
        caller = Kept(url)
        while not over:
            heard.append(await caller.says())
        await caller.close()

    async def dial() -> None:
        caller = Caller(url)
        while not over:
            heard.append(await caller.says(model="mine"))

    calls = [asyncio.create_task(each()) for each in (keep, keep, dial, dial, dial)]
    try:
        yield
    finally:
        over = True
        await asyncio.gather(*calls)


def pid_of(heard: Heard) -> int:
    """Return the process that answered."""
    return int(heard.text.split()[0])


async def until(heard: list[Heard], process: Process, enough: int, *, but: set[int]) -> set[int]:
    """Wait until so many processes have answered besides some, and return them."""
    while len(pids := {pid_of(each) for each in heard} - but) < enough:
        assert process._process.poll() is None, process.output
        await asyncio.sleep(0.01)
    return pids


async def test_a_rolling_restart_loses_no_turn(run: Run, tmp_path: Path) -> None:
    """Two workers, five callers who never stop; on SIGHUP both workers are replaced, twice. Everybody hears it all."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    heard: list[Heard] = []
    async with talking(process.caller().url, heard):
        old = await until(heard, process, 2, but=set())
        for _ in range(2):
            process.tell(signal.SIGHUP)
            old |= await until(heard, process, 2, but=old)
    assert len(old) == 6
    assert [each.status for each in heard if each.status != 200 or not each.done] == []
    assert all(each.text.endswith("word word word word word end") for each in heard)
    process.tell(signal.SIGTERM)
    assert process.ends(15) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output


async def test_a_worker_that_is_killed_takes_only_its_own_turns_with_it(run: Run, tmp_path: Path) -> None:
    """Turns are in progress on both workers when one is killed: the other's come to their end, and so do new ones."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    async with contextlib.AsyncExitStack() as stack:
        calls: list[Call] = []
        while len({pid_of(call.heard) for call in calls}) < 2:
            calls.append(await stack.enter_async_context(caller.dials(turn(model="held"))))
            await calls[-1].hears_word("on the line")
        dead = pid_of(calls[0].heard)
        os.kill(dead, signal.SIGKILL)
        (tmp_path / "go").touch()
        for call in calls:
            with contextlib.suppress(ConnectionError, h11.RemoteProtocolError):
                async for _ in call.listens():
                    pass
        lost = [pid_of(call.heard) for call in calls if not call.heard.done]
        assert lost and set(lost) == {dead}
    process.says(rf"(?s)Child process \[{dead}\] died.*Application startup complete")
    heard = [await caller.says(model="mine") for _ in range(20)]
    assert all(each.done for each in heard) and dead not in map(pid_of, heard)


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
async def test_a_balancer_hears_of_the_end_before_it_comes(run: Run, tmp_path: Path, more: list[str]) -> None:
    """SIGTERM: /ready says no, turns are answered all the same, each the last of its connection; then nobody is."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, *more, FIRSTWORD_DRAIN_DELAY="4", FIRSTWORD_DRAIN_TIMEOUT="6")
    caller = process.caller()
    kept = Kept(caller.url)
    assert (await kept.says("/ready", "GET")).status == 200
    async with caller.dials(turn(model="held")) as call:
        await call.hears_word("on the line")
        process.tell(signal.SIGTERM)
        while (ready := await caller.hears(path="/ready", method="GET")).status == 200:
            pass
        assert ready.json["reasons"] == ["The server is being stopped."]
        while "connection" not in (late := await caller.says(model="mine")).headers:
            assert late.done  # by the other worker, to which the signal is still on its way
        assert late.done and late.headers["connection"] == "close"
        assert kept.connections == 1 and (await kept.says()).done  # on the connection that it has had
        with pytest.raises(ConnectionRefusedError):
            while True:
                assert (await caller.says(model="mine")).done
        assert not call.heard.done
        (tmp_path / "go").touch()
        async for _ in call.listens():
            pass
        assert call.heard.done
    assert process.ends(10) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output and "outcome=server_stopping" not in process.output


async def test_a_process_without_a_supervisor_has_its_drain_on_sighup_too(run: Run, tmp_path: Path) -> None:
    """`systemctl reload` with one worker, or a terminal that is closed: the turn in progress comes to its end."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "1", FIRSTWORD_DRAIN_DELAY="1")
    caller = process.caller()
    async with caller.dials(turn(model="held")) as call:
        await call.hears_word("on the line")
        process.tell(signal.SIGHUP)
        while (await caller.hears(path="/ready", method="GET")).status == 200:
            pass
        (tmp_path / "go").touch()
        async for _ in call.listens():
            pass
        assert call.heard.done
    assert process.ends(10) in (0, -signal.SIGHUP)


async def test_a_kept_connection_may_bring_one_more_turn_while_the_server_stops(run: Run, tmp_path: Path) -> None:
    """An engine's connection is idle at SIGTERM, and nobody listens any more: its next turn is its last."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL)
    caller = process.caller()
    kept = Kept(caller.url)
    assert (await kept.says()).done
    process.tell(signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        while True:
            await caller.says(model="mine")
    last = await kept.says()
    assert last.done and last.headers["connection"] == "close" and kept.connections == 1
    assert process.ends(3) in (0, -signal.SIGTERM)  # at once, and not when the drain would be over


async def test_a_worker_that_cannot_come_back_leaves_the_others_alone(run: Run, tmp_path: Path) -> None:
    """The file was broken beneath a running server, and a worker dies: the other answers everybody meanwhile."""
    file = tmp_path / "custom_llm.py"
    file.write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    file.write_text("nonsense")
    dead = pid_of(await caller.says(model="mine"))
    os.kill(dead, signal.SIGKILL)
    process.says(r"failed to start. The others stay")
    heard = [await caller.says(model="mine") for _ in range(20)]
    assert all(each.done for each in heard) and len(set(map(pid_of, heard))) == 1

    file.write_text(MINE)
    process.says(r"(?s)failed to start. The others stay.*Application startup complete", within=20)
    heard.clear()
    async with talking(caller.url, heard):
        await until(heard, process, 2, but=set())


async def test_a_restart_with_a_broken_file_changes_nothing(run: Run, tmp_path: Path) -> None:
    """SIGHUP after a half-done deployment: the old workers stay."""
    file = tmp_path / "custom_llm.py"
    file.write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    file.write_text("nonsense")
    process.tell(signal.SIGHUP)
    process.says("did not come up: the old ones stay")
    heard: list[Heard] = []
    async with talking(caller.url, heard):
        await until(heard, process, 2, but=set())
    assert all(each.done for each in heard)


async def test_a_worker_can_be_added_and_taken_away(run: Run, tmp_path: Path) -> None:
    """SIGTTIN adds a third worker to two, SIGTTOU takes it away, and nobody notices."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    heard: list[Heard] = []
    async with talking(caller.url, heard):
        process.tell(signal.SIGTTIN)
        await until(heard, process, 3, but=set())
        process.tell(signal.SIGTTOU)
        gone = await asyncio.to_thread(
            process.says, r"(?s)Retired child process \[(\d+)\].*Finished server process", 20
        )
    assert all(each.done for each in heard)
    assert int(gone[1]) not in {pid_of(await caller.says(model="mine")) for _ in range(20)}


async def test_a_successor_may_take_its_time(run: Run, tmp_path: Path) -> None:
    """The new file loads a model first, for longer than a worker may be silent; of many signals one counts."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO)
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    slow = "import os, time\nif os.path.exists('slow'):\n    os.unlink('slow')\n    time.sleep(6)\n"
    (tmp_path / "custom_llm.py").write_text(slow + MINE)
    (tmp_path / "slow").write_text("")
    heard: list[Heard] = []
    async with talking(caller.url, heard):
        old = await until(heard, process, 2, but=set())
        for _ in range(20):
            process.tell(signal.SIGHUP)
            await asyncio.sleep(0.01)
        await until(heard, process, 2, but=old)
    assert all(each.done for each in heard) and "did not come up" not in process.output

    (tmp_path / "slow").write_text("")
    process.tell(signal.SIGHUP)
    while (tmp_path / "slow").exists():
        await asyncio.sleep(0.01)
    process.tell(signal.SIGTERM)  # while it waits for the slow one
    assert await asyncio.to_thread(process.ends, 4) in (0, -signal.SIGTERM)
    assert process.output.count("Retired child process") <= 4


HANGS = (
    MINE
    + """

@app.model("hangs")
async def hangs(turn):
    import time
    yield f"{os.getpid()} is on the line"
    time.sleep(600)
"""
)
IMPATIENT = "from firstword.serving import workers; workers.END_WITHIN = 0.5\nfrom firstword.cli import main; main()"


async def test_a_worker_that_hangs_is_ended_when_it_was_told_to(run: Run, tmp_path: Path) -> None:
    """A turn blocks its worker for good: neither a restart nor the end of the server waits for it for ever."""
    (tmp_path / "custom_llm.py").write_text(HANGS)
    process = run(sys.executable, "-c", IMPATIENT, *TWO[1:], FIRSTWORD_DRAIN_TIMEOUT="0.5")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()

    async def hang() -> None:
        async with caller.dials(turn(model="hangs")) as call:
            await call.hears_word("on the line")

    await hang()
    process.tell(signal.SIGHUP)
    await asyncio.to_thread(process.says, r"Child process \[\d+\] does not end: it is killed", 20)
    await hang()
    process.tell(signal.SIGTERM)
    assert await asyncio.to_thread(process.ends, 10) in (0, -signal.SIGTERM)
