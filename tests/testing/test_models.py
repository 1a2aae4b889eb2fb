"""The scripted models: what each does, and when, as a caller hears it."""

from __future__ import annotations

from typing import Any

import pytest

from firstword import App
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

SORRY = "I'm sorry, I lost the line."


async def hears(*models: Any, **more: Any) -> Score:
    """Talk to an App in front of these models, which asks each of them once, and the next one after a failure."""
    return await talk(models=list(models), **{"hedge_after": None, "hedge_share": 0.0, **more})


@pytest.mark.parametrize(
    ("model", "score", "ended"),
    [
        (says("one two"), [(0.0, "one two")], 0.0),
        (says("one two", every=0.1), [(0.1, "one"), (0.2, " two")], 0.2),
        (drips("one two", 0.2), [(0.2, "one"), (0.4, " two")], 0.4),
        (thinks("let me see", "one two", every=0.1), [(0.3, "one two")], 0.3),
        (after(0.5, says("one two")), [(0.5, "one two")], 0.5),
        (after(0.5, drips("one two", 0.2)), [(0.7, "one"), (0.9, " two")], 0.9),
        (after(0.5, after(0.25, lambda record: says("one"))), [(0.75, "one")], 0.75),
        (script.events(script.says("one two")), [(0.0, "one two")], 0.0),
        ([script.wait(0.25), *script.forgets_done("one two")], [(0.25, "one two")], 0.25),
    ],
)
async def test_a_good_model_says_its_words_at_their_time(model: Any, score: list[Any], ended: float) -> None:
    """A whole answer, however it comes."""
    heard = await hears(model)
    assert heard == score
    assert (heard.status, heard.done, heard.finish_reason, heard.ended) == (200, True, "stop", ended)


@pytest.mark.parametrize(
    ("model", "status", "ended"),
    [
        (silent(), 504, 4.0),
        (after(1.0, silent()), 504, 4.0),
        (fails(), 500, 0.0),
        (fails(503, retry_after=2.5), 503, 0.0),
        (fails(429), 429, 0.0),
        (fails(400), 400, 0.0),
        (fails(401), 401, 0.0),
        (after(0.5, fails(500)), 500, 0.5),
        (refuses_connection(), 502, 0.0),
        (after(0.25, after(0.25, refuses_connection())), 502, 0.5),
        (never_connects(), 504, 4.0),
        (lambda record: refuses_connection(), 502, 0.0),
        (cuts(""), 502, 0.0),
    ],
)
async def test_a_bad_model_fails_in_its_own_way_and_time(model: Any, status: int, ended: float) -> None:
    """Before the first word: the caller gets a true status."""
    heard = await hears(model)
    assert heard == []
    assert (heard.status, heard.ended, heard.left_open, heard.asked) == (status, ended, 0, [(0.0, "first")])
    assert heard.headers.get("retry-after") == ("2.5" if status == 503 else None)


@pytest.mark.parametrize(("model", "ended"), [(cuts("one two"), 0.0), (stalls("one two"), 5.0)])
async def test_a_model_that_breaks_off_has_said_its_words(model: Any, ended: float) -> None:
    """After the first word: an error event, and no end."""
    heard = await hears(model)
    assert heard == [(0.0, "one two")]
    assert (heard.status, heard.done, heard.ended, heard.left_open) == (200, False, ended, 0)


async def test_each_request_may_meet_another_model() -> None:
    """In turn, by how many that model was asked, and the last one ever after; a function may stand among them."""

    async def main() -> list[str]:
        first = then(fails(500), lambda record: says(f"try {record.attempt}"), says("ever after"))
        async with Phone(models=[first, says("second")]) as phone:
            heard = [(await phone.talk()).text for _ in range(4)]
            asked = [(record.body["model"], record.attempt) for record in phone.seen]
            assert asked == [("first", 1), ("second", 1), ("first", 2), ("first", 3), ("first", 4)]
            return heard

    assert await run(main) == ["second", "try 2", "ever after", "ever after"]


# --- the way to it --------------------------------------------------------------------------------


async def test_a_refused_connection_is_known_at_once_and_one_never_made_after_its_time() -> None:
    """As with a real dial: the same errors, the same limit."""
    score = await hears(refuses_connection(), connect_timeout=2.0)
    assert (score.status, score.ended, score.asked, score.seen) == (502, 0.0, [(0.0, "first")], [])
    assert score.error is not None and score.error["message"].startswith(
        "The model's server could not be reached: conn"
    )

    score = await hears(never_connects(), connect_timeout=2.0)
    assert (score.status, score.ended, score.left_open) == (504, 2.0, 0)


async def test_a_server_that_goes_away_refuses_the_next_connection() -> None:
    """The kept connection is closed under the second request, the pool dials anew, and nobody is there."""

    async def main() -> tuple[Score, Score]:
        async with Phone(models=[then(says("one"), refuses_connection()), says("two")]) as phone:
            return await phone.talk(), await phone.talk()

    first, second = await run(main)
    assert (first, second) == ([(0.0, "one")], [(0.0, "two")])
    assert second.asked == [(0.0, "first"), (0.0, "second")]


async def test_https_needs_no_certificate() -> None:
    """The place is the App's own; the wire is within the loop."""
    assert await talk(App(base_url="https://api.example/v1"), models=cuts("one two"), apology=SORRY) == [
        (0.0, f"one two {SORRY}")
    ]
