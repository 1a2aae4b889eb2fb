"""The meters of one process: what they let through and what they refuse, and nobody waits in vain. Time is a number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstword.limits.local import MOMENT, LocalMeters
from firstword.limits.meters import HELD, RATE, SPENT, Ask

MINUTE = 60.0


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def rate(amount: int = 1, limit: int = 6, whose: str = "ann") -> Ask:
    return Ask("requests_per_key", whose, RATE, amount, limit, MINUTE)


def held(limit: int = 2, whose: str = "ann") -> Ask:
    return Ask("max_turns_per_key", whose, HELD, 1, limit, None)


def spent(amount: int, limit: int = 100, seconds: float | None = 3600.0, whose: str = "ann 2026-11") -> Ask:
    return Ask("budget_per_key", whose, SPENT, amount, limit, seconds)


def test_a_bucket_holds_one_minute_and_fills_in_one() -> None:
    """Six a minute: six at once, then one every ten seconds; after a quiet minute six again, and no more."""
    time = Time()
    meters = LocalMeters(now=time)
    assert [meters.take([rate()], "a") is None for _ in range(7)] == [True] * 6 + [False]
    refusal = meters.take([rate()], "a")
    assert refusal is not None and refusal.retry_after == pytest.approx(10.0) and refusal.ask.name == "requests_per_key"
    time.at += 10.0
    assert [meters.take([rate()], "a") is None for _ in range(2)] == [True, False]
    time.at += 3600.0
    assert [meters.take([rate()], "a") is None for _ in range(7)] == [True] * 6 + [False]


def test_each_has_a_bucket_of_its_own() -> None:
    """One caller's flood is not another's."""
    meters = LocalMeters(now=Time())
    assert [meters.take([rate(whose="ann")], "a") is None for _ in range(7)][-1] is False
    assert meters.take([rate(whose="bob")], "a") is None


def test_what_is_larger_than_the_bucket_waits_for_a_full_one() -> None:
    """A long conversation costs more tokens than there are in a minute: it is answered, and the next one waits."""
    time = Time()
    meters = LocalMeters(now=time)
    assert meters.take([rate(9)], "a") is None
    refusal = meters.take([rate(9)], "a")
    assert refusal is not None and refusal.retry_after is not None
    assert refusal.retry_after == pytest.approx(90.0)
    time.at += refusal.retry_after
    assert meters.take([rate(9)], "a") is None


def test_what_was_not_used_is_given_back_and_what_was_used_beyond_it_is_taken() -> None:
    """Tokens are guessed before the model is asked, and counted after."""
    meters = LocalMeters(now=Time())
    assert meters.take([rate(6)], "a") is None and meters.take([rate()], "b") is not None
    meters.give_back([rate(4)], "a")
    assert meters.take([rate(4)], "b") is None
    meters.give_back([rate(-6)], "b")
    refusal = meters.take([rate()], "c")
    assert refusal is not None and refusal.retry_after == pytest.approx(70.0)


def test_all_is_taken_or_nothing() -> None:
    """The second of two limits is reached: the first one has not counted the turn that was refused."""
    meters = LocalMeters(now=Time())
    assert meters.take([rate(), held(1)], "a") is None
    for _ in range(50):
        refusal = meters.take([rate(), held(1)], "b")
        assert refusal is not None and refusal.ask == held(1)
    meters.give_back([held(1)], "a")
    assert [meters.take([rate()], "c") is None for _ in range(6)] == [True] * 5 + [False]


def test_what_is_held_is_forgotten_once_it_is_given_back() -> None:
    """A day of callers leaves nothing behind."""
    meters = LocalMeters(now=Time())
    for number in range(1000):
        assert meters.take([held(whose=str(number))], "a") is None
        meters.give_back([held(whose=str(number))], "a")
    assert len(meters) == 0


def test_money_is_spent_until_the_limit_is_reached() -> None:
    """The turn that crosses the line is answered; none after it, until the period is over."""
    meters = LocalMeters(now=Time())
    assert meters.take([spent(60)], "a") is None and meters.take([spent(60)], "b") is None
    refusal = meters.take([spent(1)], "c")
    assert refusal is not None and refusal.retry_after == 3600.0
    assert meters.take([spent(1, whose="ann 2026-12")], "c") is None
    meters.give_back([spent(30)], "b")
    assert meters.take([spent(1)], "c") is None


@pytest.mark.parametrize("ask", [rate(limit=0), held(0), spent(1, 0)], ids=lambda ask: ask.kind)
def test_a_limit_of_nothing_lets_nobody_in(ask: Ask) -> None:
    """A key is shut by writing 0."""
    assert LocalMeters(now=Time()).take([ask], "a") is not None


def test_what_is_given_back_to_a_meter_that_was_forgotten_lets_nobody_spend_more() -> None:
    """So many others came meanwhile that the meter is new: it has nothing to take back."""
    meters = LocalMeters()
    meters.give_back([spent(60)], "a")
    assert [meters.take([spent(50)], str(each)) is None for each in range(3)] == [True, True, False]


def test_the_meters_that_were_not_used_for_longest_are_forgotten() -> None:
    """Somebody makes up sessions: memory does not grow, and the meters of another limit stay."""
    meters = LocalMeters(3, now=Time())
    assert meters.take([spent(100)], "a") is None
    for number in range(100):
        assert meters.take([rate(6, whose=str(number))], "a") is None
    assert len(meters) == 4
    assert meters.take([spent(1)], "a") is not None
    assert meters.take([rate(whose="99")], "a") is not None and meters.take([rate(whose="5")], "a") is None


# --- whatever comes ---------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 9)), min_size=1, max_size=60)


@given(STEPS, st.integers(1, 8))
def test_no_more_is_let_through_than_the_rate_allows(steps: list[tuple[float, int]], limit: int) -> None:
    """Whoever asks for whatever whenever: within any stretch of time a bucket gives what it holds and what flows in."""
    time = Time()
    meters = LocalMeters(now=time)
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        time.at += pause
        if meters.take([rate(amount, limit)], "a") is None:
            taken.append((time.at, amount))
    largest = max([limit, *(amount for _, amount in taken)])
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            amount = sum(each for _, each in taken[first : last + 1])
            assert amount <= limit * (taken[last][0] - taken[first][0]) / MINUTE + largest + limit * MOMENT * 60


@given(STEPS, st.integers(1, 8))
def test_whoever_waits_as_long_as_told_is_let_through(steps: list[tuple[float, int]], limit: int) -> None:
    """Nobody starves: no ask is put off for a second time, and none for longer than it is worth."""
    time = Time()
    meters = LocalMeters(now=time)
    for pause, amount in steps:
        time.at += pause
        refusal = meters.take([rate(amount, limit)], "a")
        if refusal is not None:
            assert refusal.retry_after is not None and 0 < refusal.retry_after <= MINUTE * 9
            time.at += refusal.retry_after
            assert meters.take([rate(amount, limit)], "a") is None


@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_never_more_are_held_than_may_be(chance: random.Random, limit: int) -> None:
    """Turns come and go in any order: as many as may be are there, and all come back."""
    meters = LocalMeters(now=Time())
    there = 0
    for _ in range(100):
        if there and chance.random() < 0.5:
            meters.give_back([held(limit)], "a")
            there -= 1
        else:
            let_in = meters.take([held(limit)], "a") is None
            assert let_in == (there < limit)
            there += let_in
    for _ in range(there):
        meters.give_back([held(limit)], "a")
    assert len(meters) == 0
