"""A script of the fake engine is read whole, and whatever is wrong with it is told by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_call import calling
from hypothesis import given
from hypothesis import strategies as st

from firstword.engine.conversation import Interruption
from firstword.engine.line import Wire
from firstword.engine.script import USAGE, ScriptError, read_script, read_step
from firstword.engine.setup import Setup, read_block
from firstword.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shout Hello", "'shout' is no command."),
        ("wait long", "'long' is no number of seconds."),
        ("wait", "'' is no number of seconds."),
        ("again 0", "'0' is no number from 1 to 100."),
        ("again 2 soon", "'soon' is no number of seconds."),
        ("silence please", "nothing may follow."),
        ("interrupt", "it is not said when."),
        ("interrupt 1x", "'1x' is no number of seconds."),
        ("image nowhere.png", "there is no file 'nowhere.png'."),
        ("image mine.txt", "'mine.txt' has no ending of an image."),
        ("speak", "there are no words."),
        ("who", "the uid is missing."),
        ("presence selection", "there is no KEY=VALUE."),
        ("set rate", "a name and a value are needed."),
        ("param model", "a name and a value are needed."),
        ("expect speed < 1", "a turn has no 'speed', but turn, "),
        ("expect quick", "that is nothing that can be expected."),
        ("set speed 1", "There is no setting 'speed'."),
        ("set greting_message Hi", "There is no setting 'greting_message'."),
        ("set max_history many", "The setting max_history is wrong: "),
        ("set max_history -1", "max_history is less than 0."),
        ("set silence_action shout", "silence_action is not 'shout'."),
        ("set api_key abc", "api_key is not for a script to say."),
        ("tool 7up ok", "'7up' is no name of a tool."),
    ],
)
async def test_a_mistake_is_told_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    """The third line is wrong: a sentence, and a hint."""
    (tmp_path / "mine.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    async with calling("http://localhost/") as call:
        with pytest.raises(ScriptError) as wrong:
            await call.plays(f"# one\n\n{line}\n")

    assert wrong.value.message.startswith(f"Line 3: {said}") and wrong.value.hint


def test_a_script_is_read_as_it_is_meant() -> None:
    """Quotes, numbers, blanks at either end, comments, and what is left out."""
    steps = read_script(
        '\n# a call\n  say  "Quoted, please" \nsay\ninterrupt 1.5\ninterrupt "1.5"\ninterrupt the end\nagain\n'
        "again 3 .2\nwho 7 anna ben\npresence a=b=c\nparam temperature 0.2\nparam channel room-7\nsilence\n"
    )

    assert [(each.number, each.verb, *each.values) for each in steps] == [
        (3, "say", "Quoted, please"),
        (4, "say", ""),
        (5, "interrupt", Interruption(after=1.5)),
        (6, "interrupt", Interruption(words="1.5")),
        (7, "interrupt", Interruption(words="the end")),
        (8, "again", 1, None),
        (9, "again", 3, 0.2),
        (10, "who", "7", ["anna", "ben"]),
        (11, "presence", "a", "b=c"),
        (12, "param", "temperature", 0.2),
        (13, "param", "channel", "room-7"),
        (14, "silence"),
    ]


@given(verb=st.sampled_from(sorted(USAGE)), rest=st.text())
def test_whatever_is_typed_is_a_step_or_a_sentence(verb: str, rest: str) -> None:
    """Any text behind any verb."""
    try:
        read_step(f"{verb} {rest}", 1)
    except ScriptError as error:
        assert error.message.startswith("Line 1: ") and error.hint == USAGE[verb]


def test_the_llm_block_of_a_join_request_is_understood() -> None:
    """A whole request is pasted; what has no bearing on a call is passed over, a system message may be text."""
    setup = Setup()
    read_block(
        """{"name": "a", "properties": {"channel": "c", "llm": {"vendor": "custom", "style": "openai",
        "url": "https://host.example/chat/completions", "api_key": "let-me-in", "headers": "{\\"x-tenant\\": \\"a\\"}",
        "params": {"model": "m1"}, "system_messages": "Be brief.", "max_history": 10, "greeting_message": "Hi!",
        "failure_message": null, "input_modalities": ["text", "image"], "output_modalities": ["text"]}}}""",
        setup,
    )

    assert (setup.url, setup.api_key) == ("https://host.example/chat/completions", "let-me-in")
    assert setup.headers == {"x-tenant": "a"}
    assert (setup.params, setup.max_history, setup.failure_message) == ({"model": "m1"}, 10, "")
    assert setup.system_messages == [{"role": "system", "content": "Be brief."}]
    assert "let-me-in" not in repr(setup) and "x-tenant" not in repr(setup)


def test_an_engine_owns_so_many_tools_and_no_more() -> None:
    """The thirty-third is refused; one that is declared anew is no other."""
    setup = Setup()
    for number in range(32):
        setup.own(f"tool{number}", "1")
    setup.own("tool0", "2")
    with pytest.raises(ConfigError, match="An engine owns 32 tools at most"):
        setup.own("another", "1")

    assert len(setup.tools) == 32 and setup.results["tool0"] == "2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "The llm block is not JSON: "),
        ("[]", "The llm block is no JSON object."),
        ('{"llm": {"max_history": "many"}}', "The setting max_history is wrong: "),
        ('{"llm": {"headers": {"a": 1}}}', "The setting headers is wrong: "),
    ],
)
def test_a_block_that_is_none_is_told(text: str, said: str) -> None:
    """The wrong file, or a field of the wrong kind."""
    with pytest.raises(ConfigError) as wrong:
        read_block(text, Setup())

    assert wrong.value.message.startswith(said) and wrong.value.hint


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost/", "http://[::1/", "http://user:pass@localhost/"])
async def test_what_is_no_url_is_told(url: str) -> None:
    """The scheme was forgotten, or it is another one; a password in it is not repeated."""
    with pytest.raises(ConfigError, match="That is not an http or https URL") as wrong:
        Wire(Setup(url=url))

    assert "pass" not in str(wrong.value)


@pytest.mark.parametrize("given", [{"api_key": "two\nlines"}, {"headers": {"x-a": "é"}}, {"headers": {"x\r": "a"}}])
async def test_what_no_header_can_carry_is_told(given: dict[str, Any]) -> None:
    """A key that was read from a file ends with a line break."""
    with pytest.raises(ConfigError, match="cannot be sent"):
        Wire(Setup(**given))
