"""Several models, to the moment: who is asked when, what a caller hears of it, and what later turns know.

On the clock that jumps, with the settings that an App has by itself; what needs a real wire is in `test_race.py` and
`test_faults_heard.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firstword import App, Model, Turn, health
from firstword.testing import (
    Phone,
    Score,
    after,
    cuts,
    drips,
    fails,
    never_connects,
    refuses_connection,
    run,
    says,
    script,
    silent,
    stalls,
    talk,
    then,
    thinks,
)

FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line."
ANSWER = says(FRIEND)

# When the second model is asked, after each way in which the first can fail before its first word.
FAILS: dict[str, tuple[Any, float]] = {
    "refuses the connection": (refuses_connection(), 0.0),
    "never connects": (never_connects(), 1.2),
    "closes at once": ([script.close()], 0.0),
    "never answers": (silent(), 1.2),
    "headers then silence": (script.sends_only_headers(), 1.2),
    "the role then silence": (script.sends_only_the_role(), 1.2),
    "comments for ever": (script.comments_for_ever(every=0.1), 1.2),
    "reasoning, slowly": (thinks("let me see", FRIEND, every=1.0), 1.2),
    "reasoning only": (script.only_thinks(), 0.0),
    "429": (fails(429), 0.0),
    "500 after a while": (after(0.7, fails(500)), 0.7),
    "a page": (script.shows_a_page(503), 0.0),
    "an error as the first event": (script.fails_at_once(), 0.0),
    "no word": (script.events(script.role(), script.finish(), script.done()), 0.0),
    "a blank": (script.events(script.role(), script.text("  \n"), script.finish(), script.done()), 0.0),
    "a cut after the role": (cuts(""), 0.0),
}


@pytest.mark.parametrize(("model", "at"), FAILS.values(), ids=FAILS.keys())
async def test_another_model_is_asked_at_once_after_a_failure_and_soon_in_silence(model: Any, at: float) -> None:
    """The caller hears the second one, and is without a word for no longer than it takes to ask it."""
    score = await talk(models=[model, after(0.3, ANSWER)])

    assert score == [(round(at + 0.3, 6), FRIEND)]
    assert score.asked == [(0.0, "first"), (at, "second")]
    assert (score.status, score.done, score.finish_reason, score.left_open) == (200, True, "stop", 0)


MIDWAY: dict[str, tuple[Any, float]] = {
    "an error event": (script.fails_after("one two"), 0.0),
    "a cut": (cuts("one two"), 0.0),
    "no end": (script.ends_after("one two"), 0.0),
    "half a chunk": (script.resets_after("one two"), 0.0),
    "silence": (stalls("one two"), 5.0),
}


@pytest.mark.parametrize(("model", "at"), MIDWAY.values(), ids=MIDWAY.keys())
async def test_after_the_first_word_nobody_else_is_asked(model: Any, at: float) -> None:
    """The apology comes at once after a failure, and after `stall_timeout` in silence."""
    score = await talk(models=[model, ANSWER], apology=SORRY)

    assert (score.text, score.ended, score.asked) == (f"one two {SORRY}", at, [(0.0, "first")])
    assert (score.done, score.left_open) == (True, 0)


async def test_the_first_to_speak_has_the_turn_whoever_was_asked_first() -> None:
    """The second was asked as well; which of the two is heard is a matter of a hundredth."""
    for first, second, heard in ((1.49, 0.3, "first"), (1.51, 0.3, "second")):
        score = await talk(models=[after(first, says("first")), after(second, says("second"))])
        assert score.text == heard and len(score.asked) == 2
        assert [record.closed_by for record in score.seen] == ["peer", "peer"]


async def test_without_hedging_silence_is_waited_for_to_its_end() -> None:
    """Only `first_token_timeout` ends it; a failure costs no wait."""
    for given in ({"hedge_after": None}, {"hedge_share": 0.0}):
        score = await talk(models=[silent(), ANSWER], **given)  # type: ignore[arg-type]
        assert (score, score.asked) == ([(4.0, FRIEND)], [(0.0, "first"), (4.0, "second")])
        assert await talk(models=[fails(500), ANSWER], **given) == [(0.0, FRIEND)]  # type: ignore[arg-type]


async def test_each_model_has_its_own_time_for_the_first_word() -> None:
    """Three that are silent, each asked a little later, and each given up four seconds after it was asked."""
    score = await talk(models=[silent(), silent(), silent()], hedge_share=1.0, apology=SORRY)

    assert score.asked == [(0.0, "first"), (1.2, "second"), (2.4, "third")]
    assert [record.closed for record in score.seen] == pytest.approx([4.0, 5.2, 6.4])
    assert score == [(6.4, SORRY)]


async def test_a_turn_has_an_end_whatever_is_asked() -> None:
    """Words that never end, a word before each limit: the whole turn has one too."""
    score = await talk(models=[drips("word " * 100, every=4.9), ANSWER], hedge_after=None, first_token_timeout=5.0)
    assert (score.ended, score[-1], len(score), score.left_open) == (60.0, (58.8, " word"), 12, 0)
    assert score.longest_silence == 4.9


async def test_a_model_that_fails_is_left_alone_ever_longer_and_found_again() -> None:
    """Three failures; 5 s later one turn asks it, in vain; 10 s after that it is back."""

    async def main() -> list[list[str]]:
        bad = fails(500)
        async with Phone(models=[then(bad, bad, bad, bad, ANSWER), ANSWER]) as phone:
            asked = []
            for pause in (0.0, 0.0, 0.0, 0.0, 4.9, 0.1, 9.9, 0.1, 0.0):
                await asyncio.sleep(pause)
                score = await phone.talk()
                assert score == [(0.0, FRIEND)]
                asked.append([name for _, name in score.asked])
            return asked

    both, second, first = ["first", "second"], ["second"], ["first"]
    assert await run(main) == [both, both, both, second, second, both, second, first, first]
    assert health.COOL == 5.0


async def test_one_turn_at_a_time_finds_out_whether_a_model_is_back() -> None:
    """Two at once after the pause: only one of them risks it."""

    async def main() -> list[str]:
        bad = fails(500)
        async with Phone(models=[then(bad, bad, bad, after(0.1, ANSWER)), after(0.1, ANSWER)]) as phone:
            for _ in range(3):
                await phone.talk()
            await asyncio.sleep(5.0)
            scores = await asyncio.gather(phone.talk(), phone.talk())
            assert scores == [[(0.1, FRIEND)], [(0.1, FRIEND)]]
            return sorted(name for score in scores for _, name in score.asked)

    assert await run(main) == ["first", "second"]


async def test_a_caller_who_interrupts_says_nothing_against_the_model() -> None:
    """Two failures, an interruption after its first word, one more failure: it is still asked first."""

    async def main() -> list[str]:
        first = then(fails(500), fails(500), drips("one two", every=1.0), fails(500))
        async with Phone(models=[first, ANSWER], hedge_after=None) as phone:
            for leaves in (None, None, 1.5, None, None):
                score = await phone.talk(leaves=leaves)
            return [name for _, name in score.asked]

    assert await run(main) == ["first", "second"]


async def test_hedging_learns_how_soon_a_model_speaks() -> None:
    """`hedge_after="p95"`: nineteen of twenty answers began within 0.2 s, so that silence of 0.2 s is unusual."""

    async def main() -> Score:
        first = then(*[after(0.2, ANSWER)] * 20, silent())
        async with Phone(models=[first, ANSWER], hedge_after="p95") as phone:
            for _ in range(20):
                assert await phone.talk() == [(0.2, FRIEND)]
            return await phone.talk()

    score = await run(main)
    assert score == [(0.2, FRIEND)]
    assert score.asked == [(0.0, "first"), (0.2, "second")]


async def test_a_tenth_of_the_turns_may_cost_a_second_request() -> None:
    """The first model is always slow: one turn in ten is hedged, all others wait for it."""

    async def main() -> list[int]:
        async with Phone(models=[after(2.0, says("slow")), says("quick")]) as phone:
            scores = [await phone.talk() for _ in range(41)]
            return [position for position, score in enumerate(scores) if score.text == "quick"]

    hedged = await run(main)
    assert (hedged[0], len(hedged)) == (0, 1 + 4)  # one in advance


async def test_a_model_that_is_left_alone_is_asked_when_all_others_have_failed() -> None:
    """The second fails three times and is back; then the first fails: an apology would be for nobody's fault."""

    async def main() -> Score:
        bad = fails(500)
        async with Phone(models=[bad, then(bad, bad, bad, ANSWER)], apology=SORRY, hedge_share=0.0) as phone:
            for _ in range(3):
                assert await phone.talk() == [(0.0, SORRY)]
            return await phone.talk()

    score = await run(main)
    assert (score, score.asked) == ([(0.0, FRIEND)], [(0.0, "first"), (0.0, "second")])


async def test_a_model_that_is_left_alone_is_not_asked_beside_one_that_is_merely_slow() -> None:
    """Nor when no other model could mend what has failed."""

    async def main() -> None:
        models = [then(after(2.0, ANSWER), fails(400)), fails(500)]
        async with Phone(models=models, apology=SORRY) as phone:
            second = phone.app._build().roster.runners[1].health.breaker(None)
            for _ in range(3):
                second.failed(0.0)
            assert [name for _, name in (await phone.talk()).asked] == ["first"]
            assert [name for _, name in (await phone.talk()).asked] == ["first"]

    await run(main)


async def test_what_an_answer_without_a_word_has_cost_is_known() -> None:
    """It reasoned to its end and counted its tokens: nobody heard them, and they are billed."""
    thinks = script.events(script.role(), script.reasoning("Hm"), script.finish(), script.usage(7, 5), script.done())
    score = await talk(models=[thinks, ANSWER], request={"stream_options": {"include_usage": True}})
    assert score == [(0.0, FRIEND)] and score.turn is not None
    assert score.turn.attempts[0].usage == script.tokens(7, 5)


async def test_the_only_model_of_a_list_is_asked_twice_at_most() -> None:
    """Also when a hook names it: the race and the model's own second try do not add up."""
    app = App([Model("first", base_url="http://first.test/v1", api_key="k")], hedge_share=1.0)

    @app.before_turn
    async def names(turn: Turn) -> None:
        turn.adjust(models=["first"])

    async def main() -> None:
        async with Phone(app, models=fails(500)) as phone:
            for _ in range(3):
                score = await phone.talk()
                assert (score.asked, score.status) == ([(0.0, "first"), (0.1, "first")], 500)
                assert score.turn is not None and [each.why for each in score.turn.attempts] == ["first", "retry"]

    await run(main)


async def test_what_was_overtaken_is_a_slow_answer_too() -> None:
    """One of ten takes 3 s, and is overtaken each time: learnt from the quick ones only, every turn would be hedged."""

    async def main() -> list[float]:
        first = [after(3.0 if number % 10 == 9 else 0.5, ANSWER) for number in range(100)]
        models = [lambda record: first[record.attempt - 1], after(0.1, ANSWER)]
        async with Phone(models=models, hedge_after="p95", hedge_share=1.0) as phone:
            scores = [await phone.talk() for _ in range(100)]
        return [at for score in scores for at, name in score.asked if name == "second"]

    hedged = await run(main)
    assert len(hedged) == 10 and hedged[0] == 1.2 and hedged == sorted(hedged)


async def test_a_turn_of_old_that_is_given_up_lets_nobody_else_find_out() -> None:
    """It was asked before the model failed, and its caller leaves while another turn finds out."""

    async def main() -> list[str]:
        bad, slow = fails(500), thinks("let me see " * 10, FRIEND, every=1.0)
        models = [then(slow, bad, bad, bad, after(3.0, ANSWER)), ANSWER]
        async with Phone(models=models, hedge_after=None, first_token_timeout=30.0) as phone:
            old = asyncio.ensure_future(phone.talk(leaves=7.0))
            await asyncio.sleep(0.1)
            for _ in range(3):
                await phone.talk()
            await asyncio.sleep(5.0)
            finds_out = asyncio.ensure_future(phone.talk())
            await old
            score = await phone.talk()
            assert await finds_out == [(3.0, FRIEND)]
            return [name for _, name in score.asked]

    assert await run(main) == ["second"]
