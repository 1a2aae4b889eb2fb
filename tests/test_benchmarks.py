"""The instruments of the benchmarks: they count every turn, and they do not pass an answer that is not whole."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from benchmarks import goals, machine, measure, plots, report, run
from benchmarks.instruments import (
    Figures,
    InstrumentError,
    Upstream,
    build,
    missing,
    missing_tls,
    run_load,
    run_upstream,
)
from benchmarks.rows import Row, Run
from benchmarks.servers import SERVERS, lacks, program_version

OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
FINISH = '{"choices": [{"delta": {}, "finish_reason": "stop"}]}'
DONE = "[DONE]"
VOICE: dict[str, str | float] = {"first_ms": 20, "chunks": 5, "gap_ms": 5}
MOMENT = run.Pace(rounds=1, first_token=0.1, voice=0.1, barge_in=0.2, streams=(5,))


@pytest.fixture(scope="module", autouse=True)
def _instruments() -> None:
    """Compile both programs; a machine that cannot is passed over, but never in CI."""
    if (reason := missing()) and not os.environ.get("CI"):
        pytest.skip(reason)
    build()


def written(data: str, turn: int) -> bytes:
    """One event in an HTTP chunk of its own; a digit stands for the content chunk of that number, sent now."""
    if data.isdigit():
        text = f"{data} of {turn} at {time.monotonic_ns()} "
        data = f'{{"choices": [{{"delta": {{"content": "{text}"}}, "finish_reason": null}}]}}'
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


@asynccontextmanager
async def serving(head: bytes, events: list[str], end: bytes, *, turn_off_by: int) -> AsyncIterator[str]:
    """A server that answers every request so, and hangs up when the answer has no end; yields its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(65536):
            turn = int(request.rpartition(b" id=")[2].partition(b")")[0]) + turn_off_by
            writer.write(head + b"".join(written(event, turn) for event in events) + end)
            if not end:
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def two_chunks_from(head: bytes, events: list[str], end: bytes, *, turn_off_by: int = 0) -> Figures:
    """What the load generator says of 5 turns that should have two content chunks each."""
    async with serving(head, events, end, turn_off_by=turn_off_by) as address:
        words: dict[str, str | float] = {"mode": "ttft", "to": address, "chunks": 2, "turns": 5, "seconds": 5}
        return await asyncio.to_thread(run_load, words)


def test_every_turn_of_one_client_is_timed_on_both_ways() -> None:
    """Twenty turns, every other one beside the server: ten and ten arrive whole, on one connection each."""
    with run_upstream() as upstream:
        figures = run_load({"mode": "ttft", "to": upstream.address, "beside": upstream.address, "turns": 20})

    assert (figures.turns, figures.whole, figures.errors, figures.chunks, figures.connections) == (20, 20, 0, 20, 2)
    assert (len(figures.first_ns), len(figures.beside_ns)) == (10, 10)
    assert min(figures.first_ns) > 0


def test_every_chunk_of_many_streams_arrives() -> None:
    """Ten streams of five chunks, for half a second: all arrive, and none before it was sent."""
    with run_upstream() as upstream:
        figures = run_load({"mode": "voice", "to": upstream.address, "streams": 10, "seconds": 0.5, **VOICE})
        stats = upstream.stats()

    assert figures.turns == figures.whole == 125
    assert figures.chunks == stats.sent == 125 * 5
    assert min(figures.delay_ns) > 0
    assert min(figures.first_ns) >= 20e6


def test_a_dropped_turn_is_seen_by_the_upstream() -> None:
    """Turns are dropped on their way: the upstream saw each of them break off, after the client's close."""
    with run_upstream() as upstream:
        figures = run_load({"mode": "cancel", "to": upstream.address, "streams": 10, "seconds": 0.5, **VOICE})
        while (stats := upstream.stats()).speaking:
            pass  # a turn that nobody drops ends by itself within 40 ms

    closes = dict(zip(figures.drops[::2], figures.drops[1::2], strict=True))
    seen = {turn: moment for turn, moment, whole in stats.ended if not whole}
    assert figures.dropped + figures.whole == figures.turns == 125
    assert figures.dropped == len(closes)
    assert seen
    assert all(moment > closes[turn] for turn, moment in seen.items())


async def test_an_answer_written_another_way_is_whole() -> None:
    """Other blanks, no role chunk, no fields but those that matter: a server may write its own JSON."""
    figures = await two_chunks_from(OK, ["0", "1", FINISH, DONE], END)

    assert (figures.whole, figures.errors) == (5, 0)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(["0", "0", "1", FINISH, DONE], id="a chunk twice"),
        pytest.param(["0", FINISH, DONE], id="a chunk missing"),
        pytest.param(["1", "0", FINISH, DONE], id="out of order"),
        pytest.param(["0", "1", DONE], id="no finish"),
        pytest.param(["0", "1", FINISH, FINISH, DONE], id="two finishes"),
        pytest.param(["0", "1", FINISH], id="no DONE"),
        pytest.param(["0", "1", FINISH, DONE, DONE], id="DONE twice"),
        pytest.param(["0", "1", FINISH, DONE, "2"], id="a chunk behind DONE"),
        pytest.param(["0", "1", '{"error": {"message": "x"}}', FINISH, DONE], id="an error in the stream"),
        pytest.param(["0", '{"choices":\n\n[]}', "1", FINISH, DONE], id="a torn event"),
    ],
)
async def test_an_answer_that_is_not_whole_is_counted_as_wrong(events: list[str]) -> None:
    """A server that loses, repeats, tears or invents a chunk must not be timed as if it had served the turn."""
    figures = await two_chunks_from(OK, events, END)

    assert (figures.turns, figures.whole, figures.wrong) == (5, 0, 5)


async def test_an_answer_to_another_turn_is_counted_as_wrong() -> None:
    """A server that mixes two callers' answers up: all is well with them but whose they are."""
    figures = await two_chunks_from(OK, ["0", "1", FINISH, DONE], END, turn_off_by=1)

    assert (figures.turns, figures.whole, figures.wrong) == (5, 0, 5)


async def test_a_status_and_a_lost_connection_are_errors_of_their_own() -> None:
    """The first server says 503, the second hangs up in the middle of its answer."""
    refused = await two_chunks_from(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", [], END)
    broken = await two_chunks_from(OK, ["0"], b"")

    assert (refused.refused, refused.whole) == (5, 0)
    assert (broken.broken, broken.whole) == (5, 0)


def test_a_percentile_is_a_time_that_was_measured() -> None:
    """Nearest rank, from a hundred samples down to none."""
    samples = list(range(100, 0, -1))

    assert [measure.percentile(samples, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert measure.percentile([7], 0.5) == 7
    assert measure.percentile([], 0.5) is None


@pytest.fixture(scope="module")
def model() -> Iterator[Upstream]:
    """The mock upstream, with TLS where that can be."""
    if (reason := missing_tls()) and not os.environ.get("CI"):
        print(f"without TLS: {reason}")
    with run_upstream(tls=not reason or bool(os.environ.get("CI"))) as upstream:
        yield upstream


def a_round_of(name: str, model: Upstream, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Every measurement of one server once, with turns of a moment."""
    monkeypatch.setattr(measure, "TURN", VOICE)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.04)
    cores = machine.share_cores().server
    measured = run.measure_server(SERVERS[name], model, MOMENT, cores=cores)
    return [{"round": 1, "server": name, **row} for row in measured]


def test_the_rows_of_a_round_make_a_report(model: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """One short round straight at the upstream: every measurement has its row, and the report its line."""
    rows = a_round_of("direct", model, monkeypatch)
    text = report.write(Run(facts={"machine": "this one"}, rows=rows, reference="direct"))

    assert [row["what"] for row in rows] == ["start", "ttft", "voice", "cancel"]
    assert [row.get("errors", 0) for row in rows] == [0, 0, 0, 0]
    assert text.count("\n| direct |") == 4
    assert "| machine | this one |" in text


@pytest.mark.parametrize(
    "name", ["nginx", "nginx-tls", "firstword-full", "firstword-2", "firstword-tls", "litellm", "portkey"]
)
def test_a_server_serves_every_turn_of_a_round(name: str, model: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry as the benchmark starts it; one that is not installed is passed over, but in CI only a peer may be."""
    server = SERVERS[name]
    if (reason := lacks(server)) and (not os.environ.get("CI") or name in ("litellm", "portkey")):
        pytest.skip(reason)
    rows = a_round_of(name, model, monkeypatch)

    assert [row["what"] for row in rows] == ["start", "ttft", "voice", "cancel"]
    assert [row.get("errors", 0) for row in rows] == [0, 0, 0, 0]
    assert all(row["turns"] > 0 for row in rows[1:])
    assert rows[2]["delay_p50_ms"] > 0 and rows[2]["memory_mb"] > 1
    assert not server.program or program_version(server)[0].isdigit()


def test_where_the_upstream_speaks_tls_nothing_is_in_the_clear(model: Upstream) -> None:
    """Somebody asks without TLS at the port that is for TLS."""
    if model.tls_port is None:
        pytest.skip(str(missing_tls()))
    figures = run_load({"mode": "ttft", "to": model.tls_address, "turns": 3, "seconds": 2})

    assert (figures.turns, figures.broken) == (3, 3)


def test_a_server_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody asked for it: the others run, and the reason is told. Who asks for it by name hears it as an error."""
    monkeypatch.setenv("BENCH_NGINX", "/nowhere/nginx")
    chosen = run.choose_servers(None)

    assert "nginx" not in chosen and {"direct", "firstword", "naive"} <= set(chosen)
    assert "left out: nginx: nginx was not found" in capsys.readouterr().err
    assert run.choose_reference(None, chosen) == "firstword"
    with pytest.raises(InstrumentError, match="BENCH_NGINX"):
        run.choose_servers(["firstword", "nginx"])


def test_more_streams_than_files_may_be_open_are_refused_beforehand() -> None:
    """Not in the third round, by a server that breaks off."""
    with pytest.raises(InstrumentError, match="open files"):
        run.raise_limits(10_000_000)


def test_an_import_is_timed_without_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that takes 50 ms to import: the start of the interpreter is not among them."""
    (tmp_path / "slow.py").write_text("import time; time.sleep(0.05)")
    monkeypatch.chdir(tmp_path)
    row = measure.import_time("slow", cores=machine.share_cores().server)

    assert row["bare_ms"] > 0
    # Two differences of times: on a busy machine each is off by some.
    assert 50 - row["bare_ms"] < row["import_ms"] < 50 + 10 * row["bare_ms"]


# --- the goals and the pictures, of figures that were made up -------------------------------------------


def made_up(name: str, times: float = 1.0, *, errors: int = 0) -> list[Row]:
    """Two rounds of a server that takes so many times what nginx takes."""
    rows: list[Row] = [{"what": "start", "first_turn_after_s": 0.5, "memory_mb": 40.0}]
    rows += [{"what": "ttft", "added_p50_us": 100 * times, "added_p99_us": 400 * times, "cpu_us_per_turn": 80 * times}]
    rows += [{"what": "cancel", "closed_p99_ms": 4.0}]
    for streams in (200, 500, 1000):
        figures = {"delay_p50_ms": 0.2 * times, "delay_p99_ms": 4.0 * times, "cpu_us_per_turn": 900 * times}
        rows += [{"what": "voice", "streams": streams, "errors": errors, "turns": 9, "memory_mb": 60.0, **figures}]
    return [{"round": number, "server": name, **row} for number in (1, 2) for row in rows]


def reached(run: Run) -> dict[str, list[str]]:
    """The cells of the table of goals, by the figure's name."""
    lines = [line.strip("| ").split(" | ") for line in goals.write(run).splitlines()[2:]]
    return {figure: cells for figure, *cells in lines}


def test_goals_are_reached_or_missed_by_the_figures_of_the_run() -> None:
    """Twice what nginx takes, and with TLS four times, and a turn lost in each round at every number of streams."""
    rows = made_up("nginx") + made_up("firstword", 2.0, errors=1) + made_up("firstword-tls", 4.0)
    table = reached(Run(facts={}, rows=rows, reference="nginx"))

    assert table["added TTFT p50, one client, x nginx"] == ["2.00", "1.3", "**no**", "1", "**no**"]
    assert table["added TTFT p99, one client, x nginx"] == ["2.00", "2", "yes", "1.5", "**no**"]
    assert table["500 streams: errors"] == ["2.00", "0", "**no**", "-", "-"]
    assert table["500 streams: chunk delay p99, ms"] == ["8.00", "8", "yes", "-", "-"]
    assert table["1000 streams: chunk delay p50, ms"] == ["0.40", "-", "-", "0.5", "yes"]
    assert table["TLS upstream: CPU per voice turn, 1000 streams, x plain"][:3] == ["2.00", "1.3", "**no**"]
    assert table["memory that 1000 streams add, MB"] == ["20.0", "30", "yes", "10", "**no**"]
    assert table["barge-in to the upstream's close, p99, ms"] == ["4.00", "5", "yes", "-", "-"]


def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    """A run without nginx and without TLS."""
    table = reached(Run(facts={}, rows=made_up("firstword"), reference="firstword"))

    assert table["added TTFT p50, one client, x nginx"] == ["-", "1.3", "-", "1", "-"]
    assert table["TLS upstream: CPU per one-chunk turn, x plain"] == ["-", "1.3", "-", "-", "-"]
    assert table["`import firstword`, ms"] == ["-", "150", "-", "-", "-"]
    assert table["1000 streams: errors"] == ["0.00", "0", "yes", "-", "-"]


def test_a_server_with_a_tls_upstream_is_compared_with_its_like() -> None:
    """nginx takes twice as long with TLS, firstword four times: twice its like, not four times the other."""
    rows = made_up("nginx") + made_up("nginx-tls", 2.0) + made_up("firstword-tls", 4.0)
    text = report.write(Run(facts={}, rows=rows, reference="nginx"))
    line = next(line for line in text.splitlines() if line.startswith("| firstword-tls | -"))

    assert line.startswith("| firstword-tls | - | **400** (400 .. 400) | 2.00 |")


def test_the_report_shows_its_pictures(tmp_path: Path) -> None:
    """Three servers, one of which loses turns: three pictures, beside the report, under the names it gives them."""
    if reason := plots.missing():
        pytest.skip(reason)
    rows = made_up("direct", 0.01) + made_up("nginx") + made_up("firstword", 1.1) + made_up("naive", 90, errors=8)
    run_ = Run(facts={}, rows=rows, reference="nginx")
    pictures = plots.draw(run_, tmp_path, "now")
    text = report.write(run_, pictures)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["now-cpu.png", "now-first-token.png", "now-streams.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and f"]({path.name})" in text for path in pictures.values())


def test_names_at_one_end_of_the_curves_do_not_overlap() -> None:
    """Three that want one place stand around it, and push on who is near; who is far away stays."""
    assert plots.spread([0.5, 0.5, 0.5, 0.9], 0.1) == pytest.approx([0.4, 0.5, 0.6, 0.9])
    assert plots.spread([0.1, 0.2, 0.25], 0.2) == pytest.approx([-0.0167, 0.1833, 0.3833], abs=1e-3)
    assert plots.spread([], 0.1) == []
