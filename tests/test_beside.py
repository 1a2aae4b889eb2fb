"""A model in a process of its own: in line, left, crashed and ended, seen from the caller's end of the wire."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caller import Call, Caller, turn
from conftest import ROOT
from served import Served

from firstword import App, Model, beside
from firstword.local.lines import Order, Ready, Words, line, read_told

Serve = Callable[[App], Served]

ENTRY_POINTS = "".join(f"{name} = stand_in:{name}\n" for name in ("provider", "hopeless", "nowhere"))
PATIENCE = 30.0  # seconds
MUCH = 100_000  # tokens: more than is ever said in a test


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package is installed whose models run beside the server."""
    folder = tmp_path / "stand_in-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stand_in\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[firstword.providers]\n{ENTRY_POINTS}")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def served(serve: Serve) -> Served:
    """A server whose only model runs beside it."""
    return serve(made())


@pytest.fixture
def caller(served: Served) -> Caller:
    """Somebody who calls it."""
    return Caller(served.url)


def made(provider: str = "provider", **settings: Any) -> App:
    """Return an App with one model that runs beside it, and that may take its time to start on a busy machine."""
    return App([Model("small", provider=provider)], **{"first_token_timeout": PATIENCE, **settings})


async def report(caller: Caller) -> dict[str, int]:
    """Return what the process has read and said until now."""
    seen: dict[str, int] = json.loads((await caller.says("report")).text)
    return seen


async def test_words_come_as_they_are_said(caller: Caller) -> None:
    """The tokens of this model are bytes: a character that is not ASCII comes in up to four of them."""
    heard = await caller.says("say Grüße, 世界 🎈", stream_options={"include_usage": True})

    assert (heard.text, heard.finish_reasons, heard.done) == ("Grüße, 世界 🎈", ["stop"], True)
    assert heard.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "G"}
    usage = heard.chunks[-1]["usage"]
    assert usage["completion_tokens"] == len("Grüße, 世界 🎈".encode()) and usage["prompt_tokens"] > 20
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in heard.chunks}) == 1
    assert usage["total_tokens"] == usage["completion_tokens"] + usage["prompt_tokens"]


async def test_a_reply_in_one_piece(caller: Caller) -> None:
    """`stream: false`: usage is always told."""
    heard = await caller.says("say hello", stream=False)

    choice = heard.json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")
    assert heard.json["usage"]["completion_tokens"] == 5


async def test_an_answer_without_a_word_is_whole(caller: Caller) -> None:
    """The model ends before it began."""
    heard = await caller.says("say ")

    assert (heard.text, heard.finish_reasons, heard.done) == ("", ["stop"], True)
    assert heard.chunks[0]["choices"][0]["delta"]["role"] == "assistant"


async def test_max_tokens_and_stop_end_an_answer(caller: Caller) -> None:
    """One is a length, the other is not, and is not said."""
    cut = await caller.says("say one two", max_tokens=5)
    stopped = await caller.says("say one two three", stop=["two", "never"])

    assert (cut.text, cut.finish_reasons) == ("one t", ["length"])
    assert (stopped.text, stopped.finish_reasons) == ("one ", ["stop"])


async def test_what_was_read_before_is_not_read_again(caller: Caller) -> None:
    """The next turn of a call begins with the words of the last one."""
    before = [{"role": "user", "content": "say hello " + "x" * 500}, {"role": "assistant", "content": "hello"}]
    await caller.hears(turn(messages=before[:1]))
    usage = {"stream_options": {"include_usage": True}}
    heard = await caller.hears(turn(messages=[*before, {"role": "user", "content": "say bye"}], **usage))
    seeded = await caller.hears(turn(messages=[*before, {"role": "user", "content": "say bye"}], seed=1, **usage))

    assert heard.chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 500
    assert seeded.chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 0  # the same seed, the same sums


async def test_callers_are_answered_in_the_order_in_which_they_came(caller: Caller, served: Served) -> None:
    """Three at once; the first is not interrupted, and the last does not overtake."""
    ended: list[str] = []

    async def says(words: str) -> None:
        await caller.says(words, max_tokens=70)
        ended.append(words)

    async with caller.dials(turn("on and on", max_tokens=70)) as first:
        await first.hears_word("role")
        others = []
        for words in ("say second", "say third", "say fourth"):
            others.append(asyncio.ensure_future(says(words)))
            await in_line(served, len(others))
        async for _ in first.listens():
            assert ended == []
        await asyncio.gather(*others)

    assert first.heard.finish_reasons == ["length"]
    assert ended == ["say second", "say third", "say fourth"]


async def in_line(served: Served, count: int) -> None:
    """Wait until so many callers stand in line, one who is answered left out."""

    async def look() -> None:
        while True:
            housed = served.app._built.roster._housed["provider"]
            if len(housed._line._waiters or ()) == count:
                return
            await asyncio.sleep(0.005)

    await asyncio.to_thread(served.run, look)


async def holds_the_line(served: Served) -> None:
    """Wait until the process has an order, and has not ended it."""

    async def look() -> None:
        process = served.app._built.roster._housed["provider"]._starting.result()
        while process._hearing is None:
            await asyncio.sleep(0)

    await asyncio.to_thread(served.run, look)


async def test_who_hangs_up_is_not_spoken_to_any_more(caller: Caller) -> None:
    """Barge-in: the model says one more word at most, and the next caller is answered at once."""
    async with caller.dials(turn("on and on", max_tokens=MUCH)) as call:
        await call.hears_word("role")
        before = call.heard.body.count(b"content")
        call.hangs_up()
    said = (await report(caller))["said"]

    assert 1 <= said < before + 700, "it talked on for a second"


async def test_a_prompt_is_not_read_to_its_end_for_somebody_who_has_left(caller: Caller, served: Served) -> None:
    """A long conversation takes seconds to read; the caller is gone after the first slice."""
    await caller.says("say hello")
    async with caller.dials(turn("slowly " + "x" * 8000)) as call:
        await holds_the_line(served)
        call.hangs_up()
    seen = await report(caller)

    assert seen["orders"] == 3 and seen["read"] < 6000


async def test_who_leaves_the_line_is_forgotten(caller: Caller, served: Served) -> None:
    """The second of three hangs up while the first is still answered: the model never hears of them."""
    async with caller.dials(turn("on and on", max_tokens=200)) as first:
        await first.hears_word("role")
        async with caller.dials(turn("say never")) as second:
            await in_line(served, 1)
            second.hangs_up()
        await in_line(served, 0)
        third = asyncio.ensure_future(report(caller))
        async for _ in first.listens():
            pass
        assert (await third)["orders"] == 2


async def test_nobody_waits_in_line_for_longer_than_for_a_first_word(serve: Serve) -> None:
    """The model is busy: the second caller is told, or another model is asked, and the first goes on."""
    caller = Caller(serve(made(first_token_timeout=2.0)).url)
    while (await caller.says("say hello")).status != 200:
        pass  # it is still being loaded
    async with caller.dials(turn("on and on", max_tokens=MUCH)) as first:
        await first.hears_word("role")
        heard = await caller.says("say hello")
        assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
        assert "one caller at a time" in heard.error["message"]
        before = len(first.heard.body)
        await anext_read(first)
        assert len(first.heard.body) > before
    assert (await caller.says("say hello")).text == "hello"


async def test_a_process_that_ends_within_an_answer_is_started_again(serve: Serve) -> None:
    """A crash of the model costs one answer, and not the server."""
    caller = Caller(serve(made()).url)
    heard = await caller.says("die one two")

    assert heard.text == "one two" and heard.error["code"] == "upstream_truncated"
    assert (await caller.says("say hello")).text == "hello"


async def test_a_process_that_ends_without_a_word_is_asked_once_more(caller: Caller) -> None:
    """The second try dies as well: that is the end of it."""
    first = (await report(caller))["pid"]
    heard = await caller.says("die ")

    assert (heard.status, heard.error["code"]) == (502, "upstream_unreachable")
    assert (await report(caller))["pid"] != first


async def test_a_process_that_was_killed_meanwhile_is_not_missed(caller: Caller) -> None:
    """The system was short of memory and ended the process, between two turns."""
    os.kill((await report(caller))["pid"], 9)

    assert (await caller.says("say hello")).text == "hello"


async def test_a_process_that_hangs_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nobody any more, and does not even notice that its caller has left."""
    monkeypatch.setattr(beside, "STUCK", 0.2)
    caller = Caller(serve(made(stall_timeout=0.2)).url)
    first = (await report(caller))["pid"]
    heard = await caller.says("stall one")

    assert heard.text == "one" and heard.error["code"] == "upstream_timeout"
    assert (await report(caller))["pid"] != first


async def test_a_schema_that_no_grammar_can_hold_is_refused(caller: Caller) -> None:
    """The process finds out, not the server."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "impossible"}}}
    heard = await caller.says("say hello", response_format=schema)

    assert (heard.status, heard.error["param"]) == (400, "response_format")
    assert (await caller.says("say hello")).text == "hello"


@pytest.mark.parametrize(
    ("provider", "said"),
    [("hopeless", "The model cannot be loaded."), ("nowhere", "The model's process cannot be started.")],
)
async def test_a_model_that_cannot_be_loaded_is_told(serve: Serve, provider: str, said: str) -> None:
    """A library is missing, or is another machine's: the server serves what else it has."""
    caller = Caller(serve(made(provider)).url)
    heard = await caller.says("say hello")
    ready = await caller.hears(None, path="/ready", method="GET")

    assert (heard.status, heard.error["message"]) == (502, said)
    assert ready.status == 503 and len(ready.json["reasons"]) == 1 and "small" not in ready.json["reasons"][0][:4]
    assert (await caller.says("Hello", model="demo")).status == 200


async def test_it_stands_in_for_a_model_that_is_away(serve: Serve) -> None:
    """The provider is not reachable: the call goes on with what this machine can do."""
    away = Model("large", "http://127.0.0.1:9/v1", "key")
    caller = Caller(
        serve(App([away, Model("small", provider="provider")], open=True, first_token_timeout=PATIENCE)).url
    )

    assert (await caller.says("say hello")).text == "hello"


async def test_its_process_ends_with_the_server(serve: Serve) -> None:
    """CTRL+C: nothing is left running."""
    served = serve(made())
    pid = (await report(Caller(served.url)))["pid"]
    await asyncio.to_thread(served.stop)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_ends_when_its_server_was_killed() -> None:
    """Nobody could say goodbye: the input ends, in the middle of an answer."""
    command = [sys.executable, str(ROOT / "tests" / "stand_in.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line(Order(1, [("user", "on and on")], most=MUCH)))
        process.stdin.flush()
        assert isinstance(read_told(process.stdout.readline()), Ready)
        assert read_told(process.stdout.readline()) == Words(1, "o")
        process.stdin.close()
        for _ in process.stdout:
            pass
        assert process.wait(10) == 0


async def test_the_loop_goes_on_while_the_model_works(caller: Caller, served: Served) -> None:
    """The model reckons without a pause. The loop's ticks are counted beside it, and in the same time without it."""
    await caller.says("say hello")

    async def ticks() -> int:
        counted, until = 0, time.monotonic() + 0.5
        while time.monotonic() < until:
            await asyncio.sleep(0.001)
            counted += 1
        return counted

    quiet = await asyncio.to_thread(served.run, ticks)
    async with caller.dials(turn("spin", max_tokens=MUCH)):
        await holds_the_line(served)
        busy = await asyncio.to_thread(served.run, ticks)

    assert busy > quiet / 10


async def anext_read(call: Call) -> None:
    """Read on in a reply."""
    async for _ in call.listens():
        return
