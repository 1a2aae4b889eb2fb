"""The lines of the log: what a turn leaves there, for people and for programs, and that writing them ends no turn."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caller import Caller
from command import Run, is_there
from hypothesis import given
from hypothesis import strategies as st
from served import Served

from firstword import App, Model, Turn
from firstword.admission.grant import Grant
from firstword.telemetry.lines import Lines
from firstword.telemetry.out import HumanLine, JsonLine, log_config
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))
COUNTED = script.events(script.role(), script.text(FRIEND), script.finish(), script.usage(11, 3))
TRACE = "0af7651916cd43dd8448eb211c80319c"
MINE = """
from firstword import App
import logging

app = App()


@app.model("breaks")
async def breaks(turn):
    logging.getLogger("other").warning("two\\nlines \\x1b[31mred %s", "\\ud800\\u2028")
    raise ValueError("what was said\\nin two lines")
"""


def turns(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage().startswith("turn ended")]


def read(line: str) -> dict[str, str]:
    """Return the fields of a line for people."""
    return dict(re.findall(r"(\w+)=(\S+)", line))


# --- for programs ---------------------------------------------------------------------------------


def record_of(message: str, fields: Any = None) -> logging.LogRecord:
    record = logging.LogRecord("firstword", logging.INFO, "", 0, message, (), None)
    if fields is not None:
        record.fields = fields
    return record


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(st.characters()), st.none() | st.dictionaries(st.text(st.characters(), max_size=8), anything, max_size=4)
)
def test_a_line_is_one_object_whatever_is_in_it(message: str, fields: Any) -> None:
    """Line breaks, escapes that colour a terminal, half characters, numbers that are none, bytes."""
    line = JsonLine().format(record_of(message, fields))
    assert len(line.splitlines()) == 1
    assert all(sign.isprintable() for sign in line)
    line.encode("utf-8")
    read = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert list(read)[:3] == ["time", "level", "logger"] or fields


def test_a_traceback_is_within_its_line() -> None:
    """A mistake is logged with what it says."""
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "mistake", (), sys.exc_info())
    (line,) = JsonLine().format(record).splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exception"]
    assert HumanLine().format(record).startswith("ERROR:    mistake\nTraceback")


async def test_every_line_of_a_server_is_json(serving: Run, tmp_path: Path, upstream: Upstream, marker: str) -> None:
    """uvicorn's, a turn's, a mistake's with its traceback, one of another library: all that a collector reads."""
    (tmp_path / "mine.py").write_text(MINE)
    process = serving("mine.py", FIRSTWORD_LOG="json", FIRSTWORD_DEBUG="1", FIRSTWORD_DRAIN_TIMEOUT="1")
    caller = process.caller()
    await caller.says(model="breaks")
    await caller.says(user=marker, scripts=[ANSWER])
    process.says(r'"status":200,"outcome":"answered"')
    process.tell(signal.SIGTERM)
    process.ends()
    found = [json.loads(line) for line in process.output.splitlines()]  # the very first one too: `Try it` is for people
    assert len(found) > 6 and all({"time", "level", "logger", "message"} <= set(each) for each in found)
    by_name = {each["message"].split(" id=")[0]: each for each in found}
    assert "ValueError: what was said\nin two lines" in by_name["mistake"]["exception"]
    assert by_name["two\nlines \x1b[31mred ?\u2028"]["logger"] == "other"
    assert {"Application startup complete.", "Finished server process"} <= {name.split(" [")[0] for name in by_name}


async def test_a_turn_has_all_its_times_and_attempts(
    serve: Callable[[App], Served],
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first model thinks for too long, the second calls a tool and answers."""
    monkeypatch.setenv("FIRSTWORD_LOG", "json")
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    app = App(models=models, warm=False, hedge_after=0.1, hedge_share=1.0)

    @app.tool
    async def balance() -> str:
        """Say how much money there is."""
        return "five euros"

    calls = [script.tool_call("balance", "{}", id="c1"), script.tool_call("made_up", "{}", id="c2", index=1)]
    first = script.events(script.role(), *calls, script.finish("tool_calls"))
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "abc-123", "x-session-id": "s1"}
    with caplog.at_level(logging.INFO, "firstword"):
        served = serve(app)
        scripts = [script.never_answers(), first, COUNTED]
        ask = {"scripts": scripts, "stream_options": {"include_usage": True}, "headers": headers}
        assert (await Caller(served.url).says(user=marker, **ask)).text == FRIEND
        await asyncio.to_thread(served.left_open)
    (record,) = turns(caplog)
    found = json.loads(JsonLine().format(record))
    assert found["message"] == "turn ended" and found["status"] == 200 and found["outcome"] == "answered"
    assert (found["platform"], found["stream"], found["model"], found["requests"]) == ("openai", True, "second", 3)
    assert (found["input_tokens"], found["output_tokens"]) == (11, 3)
    assert (found["trace"], found["request"]) == (TRACE, "abc-123")
    seconds = found["seconds"]
    marks = ["gate", "read", "asked", "answered", "first_word", "sent", "heard", "replied", "sentence", "whole"]
    assert list(seconds) == marks
    assert all(seconds[one] <= seconds[next] for one, next in zip(marks[:5], [*marks[1:5], "whole"], strict=True))
    attempts = [(each["model"], each["why"], each["outcome"]) for each in found["attempts"]]
    assert attempts == [
        ("first", "first", "lost"),
        ("second", "hedge", "answered"),
        ("second", "first", "answered"),
    ]
    assert [(tool["name"], tool["outcome"]) for tool in found["tools"]] == [("", "unknown"), ("balance", "answered")]
    assert not {"session", "user", "channel", "error", "truncated"} & set(found)
    assert "s1" not in caplog.text and "Hello" not in JsonLine().format(record)


@pytest.mark.parametrize("tokens", [10**400, -5, True, 1.5, "7", None, [1], float("nan")])
def test_a_count_that_cannot_be_is_left_out(tokens: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A hostile server counts as it likes."""
    from firstword import Chunk

    turn = Turn(request={"messages": []})
    turn.reply.chunks = [Chunk({"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 7}})]
    with caplog.at_level(logging.INFO, "firstword"):
        Lines(as_json=True).write(turn, 200, "answered")
    found = json.loads(JsonLine().format(caplog.records[0]))
    assert "input_tokens" not in found and found["output_tokens"] == 7


# --- for people -----------------------------------------------------------------------------------


async def test_the_line_for_people_has_every_time(
    serve: Callable[[App], Served], upstream: Upstream, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its beginning is what it was: people search for it."""
    with caplog.at_level(logging.INFO, "firstword"):
        served = serve(App(base_url=upstream.base_url))
        await Caller(served.url).says(user=marker, scripts=[ANSWER])
        await asyncio.to_thread(served.left_open)
    (record,) = turns(caplog)
    assert re.fullmatch(
        r"turn ended id=chatcmpl-\w{32} status=200 outcome=answered first_word=\d\.\d{4} seconds=\d\.\d{4}"
        r" gate=\d\.\d{4} read=\d\.\d{4} ask=\d\.\d{4} head=\d\.\d{4} sent=\d\.\d{4}",
        record.getMessage(),
    )
    found = {name: float(value) for name, value in read(record.getMessage()).items() if "." in value}
    order = ["gate", "read", "ask", "head", "first_word", "sent", "seconds"]
    assert [found[name] for name in order] == sorted(found.values())
    assert not hasattr(record, "fields")  # nobody reads them, so nobody makes them


def test_what_did_not_happen_has_no_time(caplog: pytest.LogCaptureFixture) -> None:
    """A hook refused the turn: no model was asked."""
    turn = Turn(request={"messages": []})
    with caplog.at_level(logging.INFO, "firstword"):
        Lines().write(turn, 400, "bad")
        Lines(as_json=True).write(turn, 0, "hung_up")
    assert {read(caplog.messages[0])[name] for name in ("first_word", "ask", "head", "sent")} == {"-1.0000"}
    found = json.loads(JsonLine().format(caplog.records[1]))
    assert found["status"] == 0 and found["seconds"] == {}


def test_whose_turn_it_was_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The client's name is the operator's own; the request's is its caller's, and has to be sane."""
    insane = ["a b", "x" * 65, "a=b", "a\r\nturn ended id=forged", "é", ""]
    with caplog.at_level(logging.INFO, "firstword"):
        for name in ["7f-a.b:C_1", *insane]:
            turn = Turn(request={"messages": []}, grant=Grant(name="shop"), headers={"x-request-id": name})
            Lines().write(turn, 200, "answered")
    assert [read(line)["client"] for line in caplog.messages] == ["shop"] * 7
    assert [read(line).get("request") for line in caplog.messages] == ["7f-a.b:C_1"] + [None] * 6
    assert all(line.isprintable() and line.count("turn ended") == 1 for line in caplog.messages)


async def test_who_was_on_the_line_is_told_on_request_and_redacted(
    serve: Callable[[App], Served],
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine names its callers by their numbers; the operator wants to find a call by the engine's name of it."""
    headers = {"x-session-id": "call-42"}
    ask = {"headers": headers, "scripts": [ANSWER]}
    with caplog.at_level(logging.INFO, "firstword"):
        for wanted in ("false", "true"):
            monkeypatch.setenv("FIRSTWORD_LOG_SESSION", wanted)
            app = App(base_url=upstream.base_url)

            @app.before_turn
            def name(turn: Turn) -> None:
                turn.user, turn.channel = "+1 415 555 0134", "room of\ncall 42"

            served = serve(app)
            await Caller(served.url).says(user=f"{marker} {wanted}", **ask)
            await asyncio.to_thread(served.left_open)
    off, on = turns(caplog)
    assert not any(word in off.getMessage() for word in ("call-42", "0134", "room"))
    assert on.getMessage().endswith(" session=call-42 user=[number] channel=room?of?call?42")
    assert "0134" not in caplog.text


async def test_what_is_logged_is_set(serving: Run, upstream: Upstream, marker: str, free_port: str) -> None:
    """Only what goes wrong: a turn that fails is told, one that goes well is not, and neither is the start."""
    process = serving("--port", free_port, FIRSTWORD_LOG_LEVEL="warning")
    caller = Caller(f"http://127.0.0.1:{free_port}")
    while not await is_there(caller):
        pass
    await caller.says(user=f"{marker} good", scripts=[ANSWER])
    await caller.says(user=f"{marker} bad", scripts=[script.refuses(500, "Broken.")] * 2)
    process.says("WARNING:  turn ended .* outcome=server_error")
    assert "INFO" not in process.output and "outcome=answered" not in process.output


# --- whose log it is ------------------------------------------------------------------------------


def test_the_log_of_others_is_kept_out() -> None:
    """OpenTelemetry's errors hold the URL that it sends to, and that may hold a key."""
    for form in ("human", "json"):
        loggers = log_config(form, "debug")["loggers"]
        assert loggers["opentelemetry"] == loggers["mcp"] == {"handlers": [], "level": "CRITICAL", "propagate": False}
        assert loggers["firstword"]["level"] == "DEBUG"


async def test_a_mounted_app_writes_into_the_log_of_its_host(
    serve: Callable[[App], Served], upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has a formatter of its own: it finds the whole line in the message, and the fields beside it."""
    monkeypatch.setenv("FIRSTWORD_LOG", "json")
    kept: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    logger, keeps = logging.getLogger("firstword"), Keeps()
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(keeps)
    try:
        served = serve(App(base_url=upstream.base_url))
        await Caller(served.url).says(user=marker, scripts=[ANSWER])
        await asyncio.to_thread(served.left_open)
    finally:
        logger.removeHandler(keeps)
    (record,) = [each for each in kept if each.getMessage().startswith("turn ended")]
    assert "outcome=answered" in logging.Formatter("%(message)s").format(record)
    assert record.fields["outcome"] == "answered"  # type: ignore[attr-defined]
