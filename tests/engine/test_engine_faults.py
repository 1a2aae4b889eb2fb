"""What the fake engine finds fault with: replies that a strict engine loses, and what a script expects in vain."""

from __future__ import annotations

from typing import Any

import pytest
from engine_call import Call, calling, scripted

from firstword.engine.script import read_script
from firstword.testing import Upstream, says, script

SLOW = script.events(script.says("One two three four five six.", every=0.2))


def metadata(**fields: Any) -> script.Step:
    """Send Agora's own first event."""
    about = {"id": "c1", "object": "chat.completion.custom_metadata", "choices": [], "metadata": fields}
    return script.event(about)


# --- what a strict engine stumbles over ------------------------------------------------------------------


CALL = [script.tool_call("f", "{}", id="c1"), script.finish("tool_calls"), script.done()]


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([script.text("One."), script.finish()], "no [DONE] at the end"),
        ([script.text("One."), script.done()], "no finish_reason"),
        ([script.text("One."), script.finish(), script.finish(), script.done()], "more than one finish_reason"),
        ([script.event("{"), script.text("One."), script.finish(), script.done()], "an event is no JSON object"),
        ([script.event({"id": "c1"}), script.finish(), script.done()], "an event has no `choices`"),
        (
            [script.text("One."), metadata(interruptable=False), script.finish(), script.done()],
            "metadata that is not in the first event is not read",
        ),
        (
            [script.tool_call("f", "{}", id="c1"), script.finish(), script.done()],
            "calls of tools are lost: the finish_reason is 'stop'",
        ),
        (
            [script.tool_call("f", "{}", id="c1", index=1), script.finish("tool_calls"), script.done()],
            "the calls of tools are not counted from 0",
        ),
        ([script.tool_call("f", "{}"), *CALL[1:]], "a tool's call begins without an id or a name"),
        ([script.tool_call("f", "{", id="c1"), *CALL[1:]], "the arguments of a tool's call are no JSON object"),
        ([CALL[0], script.tool_call("f", "", id="c1"), *CALL[1:]], "the id or the name of a tool's call is said twice"),
        (
            [script.event(script.chunk({"tool_calls": [{"id": "c1", "function": {"name": "f"}}]})), *CALL[1:]],
            "a piece of a tool's call has no index or no function",
        ),
        ([script.event(script.chunk({"audio": {"data": "?"}})), *CALL[1:]], "sound that is not base64"),
    ],
    ids=str,
)
async def test_what_a_strict_engine_stumbles_over_is_named(
    upstream: Upstream, marker: str, parts: list[script.Step], fault: str
) -> None:
    """One thing at a time is not as engines read it."""
    async with calling(**scripted(upstream, marker, script.events(script.role(), *parts), says("Fine."))) as call:
        marks = await call.plays("say Hello")

    assert marks.faults == [fault]


async def test_a_good_reply_has_no_faults_and_a_count_of_tokens_is_passed_over(upstream: Upstream, marker: str) -> None:
    """Metadata, words, reasoning that nobody hears, and usage behind the end."""
    steps = [script.reasoning("Hm."), script.words("One two. Three."), script.finish(), script.usage(), script.done()]
    answers = scripted(upstream, marker, script.events(metadata(interruptable=True), script.role(), *steps))
    async with calling(**answers) as call:
        marks = await call.plays("say Hello")

    assert (marks.faults, marks.error, marks.text, marks.finish_reason) == ([], None, "One two. Three.", "stop")
    assert marks.chunks == 8 and marks.connect is not None and marks.connect > 0
    times = [marks.first_byte, marks.first_event, marks.first_word, marks.first_sentence, marks.total]
    assert None not in times and times == sorted(times)  # type: ignore[type-var]


async def test_marks_tell_the_pace_of_a_reply(upstream: Upstream, marker: str) -> None:
    """A word every 0.2 s: the sentence comes with the sixth, and no gap is shorter."""
    async with calling(**scripted(upstream, marker, SLOW)) as call:
        marks = await call.plays("say Count")

    assert marks.first_word is not None and marks.first_sentence is not None and marks.longest_gap is not None
    assert marks.first_word >= 0.19 and marks.first_sentence >= 1.19 and marks.longest_gap >= 0.19


async def test_a_model_that_calls_tools_without_end_is_cut_off(upstream: Upstream, marker: str) -> None:
    """Each answer is a call of the engine's tool."""
    async with calling(**scripted(upstream, marker, script.events(script.role(), *CALL))) as call:
        marks = await call.plays("tool f 1\nsay Hello")

    assert marks.requests == 8 and marks.error == "The model called tools 8 times in one turn."


# --- what is expected ---------------------------------------------------------------------------------


async def _fails(call: Call, text: str) -> list[str]:
    await call.player.play(read_script(text))
    return call.player.failures


async def test_what_is_expected_and_not_so_is_told_by_line(upstream: Upstream, marker: str) -> None:
    """Some hold, some do not."""
    expectations = [
        'contains "JOKE"',
        'not contains "story"',
        "heard joke",
        "first_word < 5",
        "chunks >= 5",
        "status == 200",
        "finish_reason == stop",
        "interrupted == false",
        "tools == []",
        'contains "story"',
        "not heard joke",
        "total > 99",
        "filler == Well.",
        "interrupted_at < 1",
    ]
    async with calling(**scripted(upstream, marker, says("This is a joke."))) as call:
        found = await _fails(call, "say Hello\n" + "".join(f"expect {each}\n" for each in expectations))

    assert [each.partition(",")[0] for each in found] == [
        'line 11: expected contains "story"',
        "line 12: expected not heard joke",
        "line 13: expected total > 99",
        "line 14: expected filler == Well.",
        "line 15: expected interrupted_at < 1",
    ]
    assert found[0].endswith('and it was "This is a joke."') and found[4].endswith("and it did not happen")


async def test_a_turn_that_fails_is_a_failure_unless_it_was_expected(upstream: Upstream, marker: str) -> None:
    """A script says nothing of the first 503, and wants the second."""
    async with calling(**scripted(upstream, marker, script.refuses(503, "Overloaded."))) as call:
        found = await _fails(call, "\nsay One\nsay Two\nexpect status == 503\n")

    assert found == ["line 2: The server answered 503: Overloaded."]


async def test_before_the_first_turn_nothing_can_be_expected(upstream: Upstream, marker: str) -> None:
    """The line stands in the wrong place."""
    async with calling(**scripted(upstream, marker, says("One."))) as call:
        assert await _fails(call, "expect status == 200\nagain") == [
            "line 1: expected status == 200, and there was no turn yet"
        ]
        await call.plays("say Hello\nspeak Bye.\nagain")  # and a command has come since
        assert call.shown.notes == ["there is no turn to send again"] * 2


async def test_a_call_can_be_played_again_from_its_lines(upstream: Upstream, marker: str) -> None:
    """What was done is kept as a script, comments left out."""
    lines = ["set greeting_message Hi!", "interrupt One", "say Tell me a joke", "expect heard One"]
    async with calling(**scripted(upstream, marker, says("One two."))) as call:
        await call.plays("# a joke\n\n" + "\n\n".join(lines))

    assert call.player.lines == lines and call.player.failures == []
    assert call.shown.heard == "Hi!One "
    assert call.shown.users == ["Tell me a joke"]
