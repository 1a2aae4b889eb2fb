"""The fake engine on a clock that jumps: the same scripts, and each mark at its exact time."""

from __future__ import annotations

import json

import pytest

from firstword import App, Turn
from firstword.testing import fails, play, says, script, silent, then

DRIPPING = says("One, two. Three, four.", every=0.5)


async def test_every_mark_is_exact() -> None:
    """A word every half second, at the model's pace: the voice is faster, and waits for it."""
    [marks] = await play("say Count", models=DRIPPING)

    assert (marks.connect, marks.first_byte, marks.first_word, marks.first_sentence) == (0.0, 0.5, 0.5, 1.5)
    assert (marks.longest_gap, marks.total, marks.heard) == (0.5, 2.0, "One, two. Three, four.")


async def test_words_are_heard_at_a_speaking_pace() -> None:
    """Ten signs a second: the second word, "two. ", is over after the ten signs of both."""
    [marks] = await play('set rate 10\ninterrupt "two"\nsay Count', models=says("One, two. Three, four."))

    assert (marks.interrupted_at, marks.heard, marks.total) == (1.0, "One, two. ", 0.0)


async def test_a_chinese_sign_takes_as_long_as_three_letters() -> None:
    """Four signs until the interruption, as long as twelve letters: 0.8 s at 15 a second."""
    [marks] = await play("interrupt 天气\nsay 你好", models=says("今天天气很好。"))

    assert (marks.interrupted_at, marks.heard) == (0.8, "今天天气")


async def test_a_hang_up_reaches_the_model_at_that_moment() -> None:
    """The user interrupts after 1.2 s; the App notices, and nothing is left open, or `play` raises."""
    ended: list[float] = []
    app = App(model="any")

    @app.after_turn
    async def over(turn: Turn) -> None:
        ended.append(round((turn.timeline.ended or 0.0) - turn.timeline.received, 6))

    [marks] = await play("interrupt 1.2\nsay Count", app, models=DRIPPING)

    assert (marks.interrupted_at, marks.text, ended) == (1.2, "One, two.", [1.2])


async def test_fillers_prompts_and_repeats_fall_due_at_their_times() -> None:
    """The model is silent, then well; the engine fills at 1.5 s, and asks after each 4 s of the user's silence."""
    spoken: list[list[str]] = []
    app = App(model="any")

    @app.before_turn
    def note(turn: Turn) -> None:
        spoken.append([f"{message.source}: {message.spoken}" for message in turn.history])

    first, *again, last = await play(
        'set filler_words ["One moment. "]\nset silence_timeout 4\ninterrupt 3\nsay Hello\nagain 2 1\nwait 9\nsay Bye',
        app,
        models=then(silent(), silent(), says("Hello.")),
    )

    assert (first.filler, first.interrupted_at) == ("One moment. ", 3.0)
    assert [(marks.interrupted_at, marks.text) for marks in again] == [(1.0, ""), (None, "Hello.")]
    assert last.turn == 4 and spoken[-1] == [
        "asr: Hello",
        "llm: Hello.",
        "silence: Are you still there?",
        "silence: Are you still there?",
        "asr: Bye",
    ]


async def test_our_server_s_calls_of_an_engine_s_tool_are_strict() -> None:
    """The model calls the engine's tool in an odd form; our server mends it, and the engine runs it."""
    call = {"tool_calls": [{"function": {"name": "look", "arguments": {"at": "it"}}}]}
    odd = script.events(script.role(), script.event(script.chunk(call)), script.finish("stop"), script.done())

    [marks] = await play('tool look {"seen":true}\nsay Look', models=then(odd, says("Seen.")))

    assert (marks.tools, marks.text, marks.faults) == (["look"], "Seen.", [])


async def test_what_a_script_expects_and_is_not_so_fails_the_test() -> None:
    """A sentence for each; a turn that failed is one too."""
    with pytest.raises(AssertionError, match=r"line 2: expected first_word < 0.5, and it was 0.5") as wrong:
        await play("say Count\nexpect first_word < 0.5\nsay More", models=then(DRIPPING, fails(503)))

    assert "line 3: The server answered 503" in str(wrong.value)
    assert json.dumps(str(wrong.value)).count("line") == 2


async def test_no_filler_is_said_once_words_have_come() -> None:
    """The first word comes at 0.5 s, and the reply is long: the engine's filler at 1.5 s would be in its way."""
    [marks] = await play("set filler_words Well.\nsay Count", models=DRIPPING)

    assert (marks.filler, marks.total) == (None, 2.0)


async def test_a_reply_that_may_not_be_cut_off_is_heard_to_its_end() -> None:
    """The user interrupts after a second, and the hook has forbidden it."""
    app = App(model="any")

    @app.before_turn
    def important(turn: Turn) -> None:
        turn.interruptable = False

    [marks] = await play("interrupt 1\nsay Count", app, models=DRIPPING)

    assert (marks.held_on, marks.interrupted, marks.heard) == (True, False, "One, two. Three, four.")


async def test_of_a_turn_that_is_sent_again_the_last_is_heard_whole() -> None:
    """Twice more, and the first of them is closed after a second."""
    _, first, last = await play("say Count\nagain 2 1", models=DRIPPING)

    assert (first.interrupted_at, first.text) == (1.0, "One, two.")
    assert (last.interrupted_at, last.text) == (None, "One, two. Three, four.")


async def test_what_was_said_before_a_tool_was_called_is_remembered_once() -> None:
    """The model says that it will look, calls the engine's tool, and says what it found."""
    looks = script.events(
        script.role(),
        script.words("Let me look. "),
        script.tool_call("look", "{}", id="c1"),
        script.finish("tool_calls"),
        script.done(),
    )
    heard: list[list[tuple[str, str]]] = []
    app = App(model="any")

    @app.before_turn
    def note(turn: Turn) -> None:
        heard.append([(message.role, message.spoken) for message in turn.history])

    marks, _ = await play(
        "tool look 21\nsay Look\nsay Thanks", app, models=then(looks, says("It is 21."), says("Yes."))
    )

    assert marks.heard == "Let me look. It is 21."
    assert heard[-1] == [
        ("user", "Look"),
        ("assistant", "Let me look. "),
        ("tool", "21"),
        ("assistant", "It is 21."),
        ("user", "Thanks"),
    ]
