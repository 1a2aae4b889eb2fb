"""The instruments of the benchmarks: they count every turn, and they do not pass an answer that is not whole."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from benchmarks import measure, report, run
from benchmarks.instruments import Figures, build, missing, run_load, run_upstream
from benchmarks.servers import SERVERS

OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
FINISH = '{"choices": [{"delta": {}, "finish_reason": "stop"}]}'
DONE = "[DONE]"
VOICE = {"first_ms": 20, "chunks": 5, "gap_ms": 5}


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
        words = {"mode": "ttft", "to": address, "chunks": 2, "turns": 5, "seconds": 5}
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


def test_the_rows_of_a_round_make_a_report() -> None:
    """One short round straight at the upstream: every measurement has its row, and the report its line."""
    pace = run.Pace(rounds=1, first_token=0.1, voice=0.1, barge_in=0.2, streams=(5,))
    with run_upstream() as upstream:
        rows = [
            {"round": 1, "server": "direct", **row}
            for row in run.measure_server(SERVERS["direct"], upstream, pace, core=0)
        ]
    text = report.write(report.Run(facts={"machine": "this one"}, rows=rows, reference="direct"))

    assert [row["what"] for row in rows] == ["start", "ttft", "voice", "cancel"]
    assert [row.get("errors", 0) for row in rows] == [0, 0, 0, 0]
    assert text.count("\n| direct |") == 4
    assert "| machine | this one |" in text
