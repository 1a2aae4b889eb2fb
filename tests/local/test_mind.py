"""One answer of a model, from the conversation to the last word: what fits, what is held back, when it ends."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from stand_in import BEGIN, END, StandIn

from firstword.local.lines import Ended, Order, Words
from firstword.local.mind import Held, speak
from firstword.local.prompt import fit


def shown(prompt: list[int]) -> str:
    """Return a prompt as it can be read, `<` and `>` being its marks."""
    return b"".join({BEGIN: b"<", END: b">"}.get(token, bytes([token % 256])) for token in prompt).decode()


def talk(turns: int, words: str = "x" * 40) -> list[tuple[str, str]]:
    """Return a conversation of so many turns of a user and an assistant."""
    said = [(("user", "assistant")[number % 2], f"{number} {words}") for number in range(turns * 2 - 1)]
    return [("system", "Rules."), *said]


def test_a_conversation_that_fits_is_whole() -> None:
    """The model's own words for the system are there only when nobody else's are."""
    plain = fit([("user", "hello")], StandIn(), room=200)
    ruled = fit([("system", "Rules."), ("user", "hello")], StandIn(), room=200)

    assert shown(plain) == "<system\nBe brief.><user\nhello><assistant\n"
    assert shown(ruled) == "<system\nRules.><user\nhello><assistant\n"
    assert shown(fit([], StandIn(), room=200)) == "<system\nBe brief.><assistant\n"


def test_a_long_call_loses_its_oldest_turns() -> None:
    """The rules stay, a user's turn comes first, and the last words are always there."""
    prompt = shown(fit(talk(50), StandIn(), room=600))

    assert len(prompt) <= 600
    assert prompt.startswith("<system\nRules.><user\n") and prompt.endswith(f"<user\n98 {'x' * 40}><assistant\n")


def test_a_long_call_begins_with_the_same_words_for_many_turns() -> None:
    """Dropped one by one, the oldest turns would make the model read the whole call again, turn after turn."""
    starts = [shown(fit(talk(turns), StandIn(), room=1000))[:60] for turns in range(20, 60)]
    changes = sum(one != other for one, other in pairwise(starts))

    assert 5 < changes < 20, changes


@pytest.mark.parametrize(
    ("rules", "last", "expected"),
    [
        (10, 5000, (10, 163)),  # the end of the last words
        (5000, 10, (163, 10)),  # the beginning of the rules
        (5000, 5000, (86, 87)),
    ],
)
def test_what_alone_is_too_long_is_cut(rules: int, last: int, expected: tuple[int, int]) -> None:
    """Somebody pastes a book into the rules, or reads one out."""
    messages = [("system", "r" * rules), ("user", "gone"), ("user", "l" * (last - 1) + "!")]
    prompt = shown(fit(messages, StandIn(), room=200))

    assert len(prompt) <= 200 and prompt.endswith("!><assistant\n")
    assert (prompt.count("r") - 1, prompt.count("l") + 1) == expected


@pytest.mark.parametrize("seed", range(200))
def test_no_conversation_is_too_long(seed: int) -> None:
    """Any roles, any lengths: the prompt fits, and ends where the model is to speak."""
    dice = random.Random(seed)
    roles = ("system", "user", "assistant", "tool")
    messages = [(dice.choice(roles), "é" * dice.choice((0, 1, 30, 400))) for _ in range(dice.randrange(12))]
    prompt = fit(messages, StandIn(), room=300)

    assert len(prompt) <= 300 and prompt[-10:] == list(b"assistant\n")
    assert prompt.count(BEGIN) == prompt.count(END) + 1


def test_parts_of_a_character_are_held_back() -> None:
    """A token may be a third of a character; one that never becomes whole is shown as such at the end."""
    held = Held([])
    said = [held.add(bytes([byte])) for byte in "a世b".encode()]

    assert said == ["a", "", "", "世", "b"]
    assert (held.add(b"\xe4\xb8"), held.rest()) == ("", "\ufffd")


def test_what_may_be_a_stop_is_held_back_until_it_is_not() -> None:
    """`stop` comes in pieces; its beginning alone must not be swallowed, nor spoken when it is one."""
    held = Held(["END.", "ENOUGH"])

    assert [held.add(piece) for piece in (b"the E", b"N", b"D of")] == ["the ", "", "END of"]
    assert [held.add(piece) for piece in (b" it EN", b"D", b". and")] == [" it ", "", ""]
    assert held.has_stopped


def test_the_beginning_of_a_stop_at_the_end_is_said() -> None:
    """The answer is over, and what was held back was no `stop`."""
    held = Held(["END."])

    assert (held.add(b"the EN"), held.rest(), held.has_stopped) == ("the ", "EN", False)


def test_an_answer_never_leaves_the_window() -> None:
    """More tokens are asked for than there is room for: half of the window is the answer's at most."""
    told = list(speak(StandIn(), Order(1, [("user", "on and on")], most=10**6), lambda: False))

    assert isinstance(told[-1], Ended)
    assert (told[-1].reason, told[-1].said) == ("length", StandIn.window // 2)


@pytest.mark.parametrize("looks", [0, 1, 5])
def test_who_has_left_is_noticed_at_the_next_look(looks: int) -> None:
    """Between two slices of the prompt, or two tokens."""
    seen: list[None] = []

    def has_left() -> bool:
        seen.append(None)
        return len(seen) > looks

    told = list(speak(StandIn(), Order(1, [("user", "on " + "x" * 290)]), has_left))

    assert isinstance(told[-1], Ended) and told[-1].reason == "left"
    assert len(seen) == looks + 1 and len([each for each in told if isinstance(each, Words)]) <= looks


def test_what_was_read_for_somebody_who_has_left_is_not_read_again() -> None:
    """A long call comes over from another model: the turn that gave up has helped the next one."""
    mind, order = StandIn(), Order(1, [("user", "say " + "x" * 900)])
    looks = iter([False, False, True])
    (left,) = speak(mind, order, lambda: next(looks))
    *_, ended = speak(mind, order, lambda: False)

    assert isinstance(left, Ended) and isinstance(ended, Ended)
    assert (left.reason, left.asked, ended.cached) == ("left", 200, 200)
