"""What is known of a model from earlier turns: the breaker, the times, the budget. Time is a number here."""

from __future__ import annotations

from firstword.health import COOL, ENOUGH, FAILURES, MAX_COOL, Breaker, Budget, Health


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(int(FAILURES)):
        breaker.failed(at)
    return breaker


def test_a_breaker_opens_after_failures_in_a_row() -> None:
    """One word in time, and all is forgotten."""
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.spoke()
    assert breaker.state(0.0) == "closed"
    assert opened().state(0.0) == "open" and not opened().may_ask(COOL - 0.1)


def test_a_model_that_is_always_overtaken_is_left_alone_too() -> None:
    """Slowness is a failure, of half the weight."""
    breaker = Breaker()
    for _ in range(int(FAILURES)):
        breaker.overtaken(0.0)
    assert breaker.state(0.0) == "closed"
    for _ in range(int(FAILURES)):
        breaker.overtaken(0.0)
    assert breaker.state(0.0) == "open"


def test_one_turn_at_a_time_finds_out_whether_it_is_back() -> None:
    """The others go elsewhere meanwhile; what the probe finds counts, and one that was left finds nothing."""
    breaker = opened()
    assert breaker.may_ask(COOL)
    breaker.asked(COOL)
    assert not breaker.may_ask(COOL)
    breaker.left()
    assert breaker.may_ask(COOL)
    breaker.asked(COOL)
    breaker.spoke()
    assert breaker.state(COOL) == "closed"


def test_every_failed_probe_doubles_the_pause_up_to_a_bound() -> None:
    """A model that is away for an hour is not asked every five seconds."""
    breaker, at, pauses = opened(), 0.0, []
    for _ in range(6):
        pause = 0.0
        while not breaker.may_ask(at + pause):
            pause += COOL
        pauses.append(pause)
        at += pause
        breaker.asked(at)
        breaker.failed(at)
    assert pauses == [COOL, COOL * 2, COOL * 4, COOL * 8, MAX_COOL, MAX_COOL]


def test_many_turns_that_fail_together_are_one_failure() -> None:
    """A hundred callers in one bad second: it is left alone for the first pause, not for the longest."""
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(0.0)
        breaker.overtaken(0.0)
    assert not breaker.may_ask(COOL - 0.1) and breaker.may_ask(COOL)
    breaker = opened()
    breaker.failed(1.0, 7.0)
    breaker.failed(1.0, 2.0)
    assert not breaker.may_ask(7.9) and breaker.may_ask(8.0)


def test_a_model_that_says_when_it_is_back_is_taken_at_its_word() -> None:
    """`retry-after: 7`, at the first failure; an hour is not believed."""
    breaker = Breaker()
    breaker.failed(0.0, 7.0)
    assert not breaker.may_ask(6.9) and breaker.may_ask(7.0)
    breaker = Breaker()
    breaker.failed(0.0, 3600.0)
    assert breaker.may_ask(MAX_COOL)


def test_each_callers_key_has_a_breaker_of_its_own() -> None:
    """One caller's empty account is not another's."""
    health = Health()
    for _ in range(int(FAILURES)):
        health.breaker("poor").failed(0.0)
    assert not health.breaker("poor").may_ask(0.0) and health.breaker("rich").may_ask(0.0)
    assert health.state(0.0) == "open"
    for number in range(2000):
        health.breaker(str(number))
    assert health.breaker("poor").may_ask(0.0)


def test_the_time_to_hedge_is_learnt() -> None:
    """Nineteen of twenty; nothing is said before enough is known, and what is long ago is forgotten."""
    health = Health()
    for number in range(ENOUGH - 1):
        health.spoke_after(number)
    assert health.p95() is None
    for number in range(100):
        health.spoke_after(number / 100)
    assert health.p95() == 0.94  # 95 of 100 took no longer


def test_a_budget_is_a_share_of_the_turns() -> None:
    """One at once, then one in ten; a quiet night does not save up for a storm."""
    budget = Budget(0.1)
    assert budget.spend() and not budget.spend()
    spent = 0
    for _ in range(1000):
        budget.turns += 1
        spent += budget.spend()
    assert 95 <= spent <= 100
    budget.turns += 10_000
    assert sum(budget.spend() for _ in range(100)) == 10
    none = Budget(0.0)
    none.turns += 1
    assert not none.spend()
