"""What several workers have counted is told by whichever is asked, and never less of it than before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from caller import Caller
from command import Process
from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families

from firstword.telemetry import Counts, Metrics, common_folder
from firstword.telemetry.folder import Folder
from firstword.telemetry.tally import Snapshot, Tally

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
BOTH_SERVE = r"(?s)Application startup complete.*Application startup complete"
Run = Callable[..., Process]
MINE = """
import os
from firstword import App

app = App()


@app.model("mine")
async def mine(turn):
    return str(os.getpid())
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run commands in a folder with an App of two words."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    running: list[Process] = []

    def start(*command: str, **environment: str) -> Process:
        known = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        running.append(Process(list(command), tmp_path, known))
        return running[-1]

    yield start
    for process in running:
        process.kill()


def counted(value: float, name: str = "fillers") -> Snapshot:
    """Return what somebody has counted of one thing."""
    tally = Tally()
    tally.add(name, (), value)
    tally.spread("cancel_seconds").note(0.01)
    tally.take({"turns_in_progress": {(): 1.0}})
    return tally.snapshot()


async def told(caller: Caller) -> dict[str, float]:
    """Return what the page tells, summed over all labels but those of time."""
    heard = await caller.hears(method="GET", path="/metrics")
    assert heard.status == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(heard.body.decode()):
        for sample in family.samples:
            if "le" not in sample.labels:
                name = sample.name.removeprefix("firstword_")
                found[name] = found.get(name, 0.0) + sample.value
    return found


# --- real workers ---------------------------------------------------------------------------------


async def test_no_count_falls_when_a_worker_is_killed_in_mid_run(run: Run) -> None:
    """Two workers answer, and the kernel kills one: what was told before is told ever after."""
    process = run(FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", "0", "--workers", "2")
    process.says(BOTH_SERVE, within=40)
    caller = process.caller()
    asked, last, pids = 0, 0.0, set()

    async def look() -> dict[str, float]:
        nonlocal last
        seen = await told(caller)
        assert last <= seen.get("turns_total", 0.0) <= asked
        last = seen.get("turns_total", 0.0)
        return seen

    async def ask(times: int) -> None:
        nonlocal asked
        for _ in range(times):
            pids.add((await caller.says(model="mine")).text)
            asked += 1
            await look()

    while len(pids) < 2:
        await ask(5)
    dead = pids.pop()
    before = await look()
    while last != asked:  # whoever is asked, the other's last second may be missing
        before = await look()
    assert before["workers"] == before["worker_starts_total"] == 2
    os.kill(int(dead), signal.SIGKILL)
    process.says(rf"(?s)Child process \[{dead}\] died.*Application startup complete", within=40)
    await ask(10)

    after = await look()
    while after["workers"] != 2 or last != asked:
        after = await look()
    assert after["worker_starts_total"] == 3 and after["turn_seconds_count"] == last
    assert after["process_resident_memory_bytes"] > 0


async def test_the_workers_of_another_supervisor_share_a_folder_that_is_named(run: Run, tmp_path: Path) -> None:
    """uvicorn's own --workers starts them: the variable names the folder, which is made if need be."""
    folder = tmp_path / "counts" / "here"
    command = (sys.executable, "-m", "uvicorn", "custom_llm:app", "--workers", "2", "--port", "0")
    process = run(*command, FIRSTWORD_METRICS_DIR=str(folder), PYTHONPATH=str(tmp_path))
    process.says(BOTH_SERVE, within=40)
    caller = process.caller()
    seen = await told(caller)
    while seen["workers"] < 2:
        seen = await told(caller)
    assert seen["worker_starts_total"] == 2 and folder.stat().st_mode & 0o077 == 0


async def test_one_process_writes_nothing(run: Run, tmp_path: Path) -> None:
    """A single process needs no folder, and a read-only disk is all the same to it."""
    (tmp_path / "temporary").mkdir()
    process = run(FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", "0", TMPDIR=str(tmp_path / "temporary"))
    caller = process.caller()
    await caller.says(model="mine")
    assert (await told(caller))["workers"] == 1
    assert list((tmp_path / "temporary").iterdir()) == []


def test_nothing_is_left_of_the_folder_when_all_have_ended(run: Run, tmp_path: Path) -> None:
    """`serve --workers` makes it where TMPDIR says, and takes it away."""
    place = tmp_path / "temporary"
    place.mkdir()
    listen = ("--host", "127.0.0.1", "--port", "0", "--workers", "2")
    process = run(FIRSTWORD, "serve", *listen, TMPDIR=str(place))
    process.says(BOTH_SERVE, within=40)
    assert [each.name.startswith("firstword-") for each in place.iterdir()] == [True]
    process.tell(signal.SIGTERM)
    process.ends()
    assert list(place.iterdir()) == []


# --- the folder -----------------------------------------------------------------------------------


def test_who_is_gone_still_counts_and_what_was_true_of_him_does_not(tmp_path: Path) -> None:
    """Three workers; one has left in peace. His counters stay, his turns in progress do not."""
    one, two, three = (Folder(tmp_path) for _ in range(3))
    for folder, value in ((one, 1), (two, 10), (three, 100)):
        folder.write(counted(value))
    three.leave(counted(200))
    tally, pids = one.read(counted(2))

    assert tally.counters["fillers"] == {(): 212}
    assert sum(tally.spreads["cancel_seconds"][()].counts) == 3
    assert tally.gauges["turns_in_progress"] == {(): 2}
    assert pids == [os.getpid()]
    three.write(counted(300))  # a scrape that was given up, and comes to its end late
    assert two.read(counted(10))[0].counters["fillers"] == {(): 212}


def test_a_crash_loop_fills_no_disk(tmp_path: Path) -> None:
    """A worker starts, counts and is killed, a hundred times: there is one file of all of them."""
    keeper = Folder(tmp_path)
    keeper.write(counted(0))
    for _ in range(100):
        crashed = Folder(tmp_path)
        crashed.write(counted(1))
        os.close(crashed._life or -1)  # as the kernel does
    assert keeper.read(counted(0))[0].counters["fillers"] == {(): 100}
    assert len(list(tmp_path.iterdir())) == 4  # the gate, those that are gone, and the two of the keeper


CRASHES = """
import os, sys
from pathlib import Path
from firstword.telemetry.folder import Folder
from firstword.telemetry.tally import Snapshot, Tally

def counted(value):
    tally = Tally()
    tally.add("fillers", (), value)
    return tally.snapshot()

def dying_at(step, function, calls):
    def call(*given, **more):
        calls.append(function)
        if len(calls) == step:
            os.kill(os.getpid(), 9)
        return function(*given, **more)
    return call

for step in range(1, 100):
    place = Path(sys.argv[1], str(step))
    for value in (10, 100):
        gone = Folder(place)
        gone.write(counted(value))
        gone.leave(counted(value))
    pid = os.fork()
    if not pid:
        calls = []
        for name in ("replace", "unlink", "write_bytes", "read_bytes", "mkdir", "iterdir"):
            setattr(Path, name, dying_at(step, getattr(Path, name), calls))
        Folder(place).read(counted(1))
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print(status, *(Folder(place).read(Snapshot())[0].counters["fillers"][()] for _ in range(2)))
    if not status:
        break
"""


def test_a_worker_may_be_killed_at_any_step_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """One that takes in two that are gone is killed before its n-th step on the disk, for every n."""
    command = [sys.executable, "-c", CRASHES, str(tmp_path)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, cwd=ROOT)
    *killed, whole = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(killed) > 10 and whole == [0, 111, 111]
    for status, *found in killed:
        assert status == signal.SIGKILL and found in ([110, 110], [111, 111])


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"counters": 5}', b"\xff" * 100])
def test_a_file_that_another_version_has_written_is_left_out(tmp_path: Path, text: bytes) -> None:
    """A folder that outlives an update holds what nobody can read any more."""
    (tmp_path / "gone.json").write_bytes(text)
    (tmp_path / "123-0123abcd.json").write_bytes(text)
    (tmp_path / "notes.txt").write_text("somebody's own")
    assert Folder(tmp_path).read(counted(1))[0].counters["fillers"] == {(): 1}
    assert (tmp_path / "notes.txt").exists()


def test_nothing_of_anybody_else_s_is_taken_away(tmp_path: Path) -> None:
    """The operator names a folder in which other programs keep files, whose names begin with a number too."""
    others = [tmp_path / name for name in ("2026-11-26.json", "2026-11-26T10.lock", "7.json", "12-monthly.new")]
    for each in others:
        each.write_text("{}")
    Folder(tmp_path).read(counted(1))
    assert all(each.exists() for each in others)


def test_a_disk_that_is_full_takes_no_count_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written any more, and a worker has died: what the others had counted is still told."""
    one, two, dead = (Folder(tmp_path) for _ in range(3))
    for folder, value in ((one, 1), (two, 10), (dead, 100)):
        folder.write(counted(value))
    os.close(dead._life or -1)  # as the kernel does

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    tally, _ = one.read(counted(2))
    assert tally.counters["fillers"] == {(): 112} and tally.gauges["turns_in_progress"] == {(): 2}
    monkeypatch.undo()
    assert two.read(counted(10))[0].counters["fillers"] == {(): 111}  # the first has not written its second


def test_a_worker_that_stands_still_in_the_gate_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped while it was alone, and may never go on: the others tell what stands there."""
    monkeypatch.setattr("firstword.telemetry.folder.PATIENCE", 0.05)
    one, two = Folder(tmp_path), Folder(tmp_path)
    one.write(counted(1))
    two.write(counted(10))
    with two._alone():
        assert one.read(counted(2))[0].counters["fillers"] == {(): 12}
        with pytest.raises(OSError):
            Folder(tmp_path).write(counted(100))


def test_who_tidies_up_temporary_files_finds_none_that_is_old(tmp_path: Path) -> None:
    """A server runs for weeks. Without its lock a worker would be taken for gone, and be counted twice."""
    gone, worker = Folder(tmp_path), Folder(tmp_path)
    gone.write(counted(1))
    gone.leave(counted(1))
    worker.read(counted(2))
    for each in tmp_path.iterdir():
        os.utime(each, (1.0, 1.0))
    worker.write(counted(3))
    assert {each.name for each in tmp_path.iterdir() if each.stat().st_mtime < 2} == {"gate.lock"}  # made anew


def test_a_folder_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    """Somebody has emptied the place for temporary files."""
    worker = Folder(tmp_path / "here")
    worker.write(counted(1))
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(FileNotFoundError):
        worker.write(counted(2))
    worker.write(counted(3))
    assert worker.read(counted(3))[0].counters["fillers"] == {(): 3}


def test_what_another_version_counts_otherwise_is_left_out() -> None:
    """A metric is gone, has become another kind, or has other bounds: the rest is added up."""
    tally = Tally()
    tally.spread("cancel_seconds").note(0.5)
    other = counted(3)
    other.counters.update({"long_gone": [([], 1.0)], "turns_in_progress": [([], 5.0)]})
    other.spreads = {"cancel_seconds": [([], [1, 2, 3], 9.0)], "fillers": [([], [1], 9.0)]}
    tally.merge(other)
    assert tally.counters["fillers"] == {(): 3} and set(tally.counters) == {"fillers"}
    assert tally.spreads["cancel_seconds"][()].sum == 0.5


async def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file stands where the folder should be: each page tells what is counted here, and the log has one line."""
    (tmp_path / "file").write_text("")
    counts = Counts()
    metrics = Metrics(counts, folder=tmp_path / "file")
    for _ in range(2):
        kind, page = await metrics.page()
        assert b"firstword_workers 1.0" in page and kind.startswith("text/plain")
    await metrics.close()
    assert len(caplog.records) == 1 and "hint: check FIRSTWORD_METRICS_DIR" in caplog.text


def test_the_workers_are_given_a_folder_unless_they_have_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The supervisor's own start: a folder is named for as long as it runs; one of the operator's stays."""
    with common_folder():
        made = Path(os.environ["FIRSTWORD_METRICS_DIR"])
        assert made.is_dir()
    assert "FIRSTWORD_METRICS_DIR" not in os.environ and not made.exists()
    monkeypatch.setenv("FIRSTWORD_METRICS_DIR", str(tmp_path))
    with common_folder():
        assert os.environ["FIRSTWORD_METRICS_DIR"] == str(tmp_path)
    assert tmp_path.exists()


async def test_workers_that_are_asked_at_once_tell_the_same(tmp_path: Path) -> None:
    """Eight count and are asked again and again, all at the same time: nobody tells less than another before."""
    counts = [Counts() for _ in range(8)]
    workers = [Metrics(each, folder=tmp_path) for each in counts]
    last = 0

    async def ask(number: int) -> None:
        nonlocal last
        for _ in range(10):
            counts[number].add("fillers")
            least = last
            _, page = await workers[number].page()
            (line,) = [line for line in page.decode().splitlines() if line.startswith("firstword_fillers_total ")]
            seen = int(float(line.split()[1]))
            assert seen >= least
            last = max(last, seen)

    await asyncio.gather(*map(ask, range(8)))
    assert last == 80
    for each in workers:
        await each.close()
    with contextlib.suppress(FileNotFoundError):
        assert Folder(tmp_path).read(Snapshot())[0].counters["fillers"] == {(): 80}
