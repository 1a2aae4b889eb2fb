"""What people say is written only on request, and never before redaction: canaries in all that a process writes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from collector import Collector
from command import Run
from hypothesis import given
from hypothesis import strategies as st
from served import Served

from firstword import App, Chunk, Turn
from firstword.telemetry.content import Content
from firstword.telemetry.out import HumanLine, JsonLine
from firstword.telemetry.redaction import LEFT_OUT, redactor
from firstword.testing import Upstream, script
from firstword.turn import Called

# One of each kind, as they are said, written and pasted.
CANARIES = {
    "phone": "+1 (415) 555-0134",
    "spaced": "4 1 5 5 5 5 0 1 7 9",
    "spoken": "nine eight seven, six five four three",
    "card": "4539 5787 6362 1486",
    "email": "jane.doe@example.com",
    "dotted": "john dot roe at example dot org",
    "iban": "DE89 3704 0044 0532 0130 00",
    "key": "sk-proj-Zx81kQpL0aTTe44mWq",
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.s5Jq",
}
TAILS = ["555-0134", "0 1 7 9", "seven, six", "6362 1486", "jane.doe", "dot roe", "0532 0130", "TTe44mWq", "s5Jq"]
WHOLE = " and ".join(CANARIES.values())


def written(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that was logged, in both forms."""
    return "\n".join(form.format(record) for record in caplog.records for form in (HumanLine(), JsonLine()))


def transcripts(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonLine().format(each)) for each in caplog.records if each.msg.startswith("transcript")]


async def says_all(app: App, upstream: Upstream, marker: str, serve: Callable[[App], Served]) -> str:
    """Have a turn in which everybody says the canaries: caller, model, tool and names; return the metrics."""

    @app.tool
    async def look(what: str) -> str:
        """Look it up."""
        return f"Found {WHOLE}"

    @app.before_turn
    def names(turn: Turn) -> None:
        turn.user, turn.channel = CANARIES["phone"], CANARIES["email"]

    arguments = json.dumps({"what": WHOLE})
    first = script.events(script.role(), script.tool_call("look", arguments, id="c1"), script.finish("tool_calls"))
    scripts = [first, script.events(script.says(f"You said {WHOLE}."))]
    served = serve(app)
    headers = {"x-session-id": CANARIES["phone"], "authorization": f"Bearer {CANARIES['key']}"}
    heard = await Caller(served.url).says(f"I am {WHOLE}", user=marker, scripts=scripts, headers=headers)
    assert WHOLE in heard.text  # the caller hears all of it
    await asyncio.to_thread(served.left_open)
    page = await Caller(served.url).hears(method="GET", path="/metrics")
    await asyncio.to_thread(served.stop)
    assert page.status == 200
    return page.body.decode()


EVERYTHING = {
    "FIRSTWORD_LOG": "json",
    "FIRSTWORD_LOG_SESSION": "true",
    "FIRSTWORD_LOG_TRANSCRIPTS": "true",
    "FIRSTWORD_TRACES": "otlp",
    "FIRSTWORD_TRACES_CONTENT": "true",
}


@pytest.mark.parametrize("wanted", [{}, EVERYTHING], ids=["default", "everything"])
async def test_no_canary_is_written(
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, str],
) -> None:
    """Log, traces and metrics, with all that can be switched on, and as it is when nobody switches anything on."""
    caplog.set_level(logging.DEBUG)
    running: list[Served] = []

    def serve(app: App) -> Served:
        running.append(Served(app))
        return running[-1]

    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for name, value in wanted.items():
            monkeypatch.setenv(name, value)
        app = App(base_url=upstream.base_url)
        page = await says_all(app, upstream, marker, serve)

    said = written(caplog) + collector.raw.decode("utf-8", "replace") + page
    assert [tail for tail in TAILS if tail in said] == []
    assert bool(collector.spans) == bool(wanted)
    if wanted:
        (told,) = transcripts(caplog)
        assert told["caller"].startswith("I am [number] and [email] and [email] and [iban] and [key]")
        assert told["tools"][0]["name"] == "look" and told["reply"].startswith("You said [number]")
    else:
        assert "I am" not in said and "You said" not in said


@given(
    st.permutations(sorted(CANARIES)),
    st.sampled_from([" and ", ", ", "; ", ". Then ", "\n", " | "]),
    st.sampled_from(["I am ", "", "我的", '"']),
)
def test_no_canary_survives_beside_another(order: list[str], between: str, before: str) -> None:
    """In any order, one behind the other: what is found first must not hide what comes next."""
    text = before + between.join(CANARIES[name] for name in order)
    turn = Turn(request={"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]})
    turn.reply.chunks = [Chunk({"choices": [{"index": 0, "delta": {"content": piece}}]}) for piece in text]
    turn.called.append(Called("look", json.dumps({"what": text}), text, "answered", 0.1))
    content = Content(redactor(own=None, is_auto=True))
    said = json.dumps([content.transcript(turn), content.messages(turn), content.name(text)], ensure_ascii=False)
    assert [tail for tail in TAILS if tail in said] == []


@pytest.mark.parametrize(
    "parts",
    [["5551", "2345"], [5, 5, 5, 1, 2, 3, 4], ["five", "five", "five", 1, 2, 3, 4], ["jane at", "example dot com"]],
)
def test_a_number_in_parts_is_one_number(parts: list[object]) -> None:
    """A model gives a tool the digits one by one, or a number in its groups."""
    turn = Turn(request={"messages": []})
    turn.called.append(Called("dial", json.dumps({"digits": parts, "days": ["Monday", 3]}), "{}", "answered", 0.1))
    (told,) = Content(redactor(own=None, is_auto=True)).transcript(turn)["tools"]
    found = json.loads(told["arguments"])
    assert found["days"] == ["Monday", 3] and found["digits"] in (["[number]"], ["[email]"])


def test_a_role_and_a_reason_are_words_of_the_protocol() -> None:
    """A client, or a model's server, writes what it likes where one of a few words belongs."""
    turn = Turn(
        request={"messages": [{"role": "Jane, 555 123 4567", "content": "x"}, {"role": "user", "content": "y"}]}
    )
    turn.reply.chunks = [turn.chunk({"content": "z"}, "I am Jane"), turn.chunk({})]
    told = Content(redactor(own=None, is_auto=True)).messages(turn)
    assert [each["role"] for each in json.loads(told["gen_ai.input.messages"])] == ["other", "user"]
    assert json.loads(told["gen_ai.output.messages"])[0]["finish_reason"] == "other"
    assert "Jane" not in json.dumps(told)


async def test_a_transcript_is_a_line_of_its_own(serving: Run, upstream: Upstream, marker: str) -> None:
    """For people too: what the caller said last, and the reply, behind the name of the turn."""
    process = serving(FIRSTWORD_LOG_TRANSCRIPTS="true")
    caller = process.caller()
    scripts = [script.events(script.says("Ring 555 123 4567."))]
    heard = await caller.says("Where\ncan I ring?", user=marker, scripts=scripts)
    name = heard.headers["x-request-id"]
    found = process.says(rf"INFO:     transcript id={name} said=(.*)\n")
    assert json.loads(found[1]) == {"caller": "Where\ncan I ring?", "reply": "Ring [number]."}


async def test_a_caller_who_leaves_has_a_transcript_of_what_was_sent(
    serve: Callable[[App], Served],
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A barge-in: the words that left are kept, and nothing more."""
    monkeypatch.setenv("FIRSTWORD_LOG_TRANSCRIPTS", "true")
    caplog.set_level(logging.INFO, "firstword")
    served = serve(App(base_url=upstream.base_url))
    begins = [script.head(200, script.EVENT_STREAM), script.role(), script.text("one two"), script.wait()]
    body = {"model": "m1", "stream": True, "user": marker, "scripts": [begins]}
    ask = {**body, "messages": [{"role": "user", "content": "Count"}]}
    async with Caller(served.url).dials(ask) as call:
        await call.hears_word("one two")
    while not transcripts(caplog):
        await asyncio.sleep(0.01)
    (told,) = transcripts(caplog)
    assert (told["caller"], told["reply"]) == ("Count", "one two")


async def test_a_function_that_breaks_leaves_the_words_out(
    serve: Callable[[App], Served],
    upstream: Upstream,
    marker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's own redaction has a bug: nothing is written raw, the turn is answered, and the log says so."""
    monkeypatch.setenv("FIRSTWORD_LOG_TRANSCRIPTS", "true")
    caplog.set_level(logging.INFO, "firstword")
    app = App(base_url=upstream.base_url)

    @app.redact
    def breaks(text: str) -> str:
        raise ValueError(text)

    served = serve(app)
    scripts = [script.events(script.says("Secret words."))]
    heard = await Caller(served.url).says("More secret words", user=marker, scripts=scripts)
    assert heard.text == "Secret words."
    while not transcripts(caplog):
        await asyncio.sleep(0.01)
    assert transcripts(caplog)[0]["caller"] == transcripts(caplog)[0]["reply"] == LEFT_OUT
    assert "mistake in redact type=ValueError" in caplog.text and "ecret words" not in written(caplog)


def test_a_function_has_to_take_a_text() -> None:
    """It is checked where it is written, as every hook is, and comes before the first turn."""
    from firstword import ConfigError

    with pytest.raises(ConfigError):
        App().redact(lambda: "")
    app = App()
    assert app.redact(str.strip) is str.strip
    app._built = object()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"app\.redact"):
        app.redact(str.strip)
