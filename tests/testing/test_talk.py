"""`talk()`: what the caller of an App hears, and when, to the moment; whose App it is, and what is left of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from requests_of_a_test import says_to

from firstword import App, CallNext, ConfigError, Forbidden, Model, Send, Turn
from firstword.testing import (
    Phone,
    after,
    drips,
    fails,
    run,
    says,
    script,
    silent,
    stalls,
    talk,
)

SORRY = "I'm sorry, I lost the line."


async def test_a_silent_model_is_hedged_and_the_caller_hears_a_filler() -> None:
    """The first model never speaks; the second answers 0.4 s after it was asked."""
    score = await talk(models=[silent(), after(0.4, says("hello"))], fill_after=0.8, hedge_after=1.2)

    assert score == [(0.8, "One moment. "), (1.6, "hello")]
    assert score.asked == [(0.0, "first"), (1.2, "second")]


async def test_a_turn_of_a_minute_takes_no_time() -> None:
    """The longest that there is: the turn's own limit."""
    began = time.perf_counter()
    score = await talk(models=silent(), first_token_timeout=100.0, turn_timeout=60.0, apology=SORRY)

    assert score == [(60.0, SORRY)]
    assert score.ended > 20 * (time.perf_counter() - began)


def test_a_plain_test_talks_by_asyncio_run() -> None:
    """Without pytest-asyncio."""
    assert asyncio.run(talk(models=says("hello"))) == [(0.0, "hello")]


def test_whoever_imports_it_waits_for_nothing() -> None:
    """A test suite imports it in each of its processes: what is heavy is loaded with the first App."""
    code = "import sys, firstword.testing; print([name for name in ('pydantic', 'uvicorn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- the score ------------------------------------------------------------------------------------


async def test_words_of_one_moment_stand_together() -> None:
    """Four chunks that come at once are one thing to a caller; what comes later is another."""
    assert await talk(models=says("one two three four")) == [(0.0, "one two three four")]
    assert await talk(models=drips("one two", every=0.1)) == [(0.1, "one"), (0.2, " two")]


async def test_a_score_tells_all_of_a_good_turn() -> None:
    """Everything that can be asked of it."""
    score = await talk(models=drips("one two three", every=0.5), say="Hello there")

    assert (score.status, score.done, score.finish_reason, score.error) == (200, True, "stop", None)
    assert (score.text, score.first_word, score.longest_silence, score.ended) == ("one two three", 0.5, 0.5, 1.5)
    assert score.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in score.chunks] == [
        "",
        "one",
        " two",
        " three",
        None,
    ]
    assert (score.asked, score.left_open) == ([(0.0, "first")], 0)
    [record] = score.seen
    assert record.body["messages"] == [{"role": "user", "content": "Hello there"}]
    assert (record.requested, record.ended, record.closed_by) == (0.0, 1.5, "peer")
    assert [at for at, _ in record.writes] == [0.0, 0.0, 0.5, 1.0, 1.5, 1.5, 1.5, 1.5]
    assert score.turn is not None and score.turn.text == "Hello there"
    assert repr(score) == (
        "[(0.5, 'one'), (1.0, ' two'), (1.5, ' three')] <status 200, done at 1.5, finish_reason stop, asked first at 0>"
    )


async def test_a_score_tells_all_of_a_bad_turn() -> None:
    """Silence, then a true status; and words, then an error in their midst."""
    score = await talk(models=[silent(), fails(429, retry_after=7)], hedge_after=None)

    assert score == [] and score.first_word is None
    assert (score.status, score.done, score.finish_reason, score.headers["retry-after"]) == (503, False, None, "7")
    assert score.error is not None and score.error["code"] == "all_models_failed"
    assert (score.ended, score.longest_silence, score.left_open) == (4.0, 4.0, 0)
    assert repr(score).startswith(
        "[] <status 503, no end at 4, finish_reason None, asked first at 0, second at 4, error"
    )

    score = await talk(models=stalls("one two"))
    assert score == [(0.0, "one two")]
    assert (score.status, score.done, score.ended, score.longest_silence) == (200, False, 5.0, 5.0)
    assert score.error is not None and score.error["code"] == "upstream_timeout"


async def test_what_still_comes_at_the_moment_of_the_end_belongs_to_the_turn() -> None:
    """The model has some more to send behind its `[DONE]`: its connection is not left open by that."""
    score = await talk(models=script.events(script.says("hello"), [script.comment()] * 20))

    assert (score, score.left_open) == ([(0.0, "hello")], 0)
    assert score.seen[0].ended == 0.0


async def test_a_reply_in_one_piece_is_heard_when_it_is_whole() -> None:
    """`stream: false`: its words come with the last of them."""
    score = await talk(models=drips("one two", every=0.5), stream=False)

    assert score == [(1.0, "one two")]
    assert (score.status, score.done, score.finish_reason) == (200, True, "stop")
    assert (await talk(models=fails(401), stream=False)).error["message"]  # type: ignore[index]


async def test_a_request_that_is_refused_is_no_turn() -> None:
    """The body makes no sense: nobody is asked."""
    score = await talk(models=says("hello"), request={"messages": "none"})

    assert (score.status, score.turn, score.asked, score.seen) == (400, None, [], [])


async def test_the_request_may_hold_anything() -> None:
    """A whole conversation, fields of the body, headers, a path with a query."""
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "So"},
    ]
    score = await talk(
        say=said,
        request={"temperature": 0.5, "turn_id": 4},
        headers={"x-session": "7"},
        path="/v1/chat/completions?a=b",
    )

    assert score.text == "So"  # a model without a script repeats what was said
    assert score.seen[0].body["temperature"] == 0.5
    turn = score.turn
    assert turn is not None and turn.messages == said
    assert (turn.number, turn.headers["x-session"], turn.query, turn.path) == (
        4,
        "7",
        {"a": "b"},
        "/v1/chat/completions",
    )


# --- the caller leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaves", "heard", "asked"),
    [
        (0.0, [], ["first"]),
        (0.5, [], ["first"]),
        (1.0, [(0.8, "One moment. ")], ["first"]),
        (1.5, [(0.8, "One moment. ")], ["first", "second"]),
        (1.9, [(0.8, "One moment. "), (1.7, "one")], ["first", "second"]),
        (9.0, [(0.8, "One moment. "), (1.7, "one"), (2.2, " two")], ["first", "second"]),
    ],
    ids=["at once", "in silence", "in the filler", "while two are asked", "in the answer", "after the end"],
)
async def test_a_caller_may_leave_at_any_moment(leaves: float, heard: list[Any], asked: list[str]) -> None:
    """Nothing is heard from then on, nobody else is asked, and no connection answers any more."""
    models = [silent(), drips("one two", every=0.5)]
    score = await talk(models=models, leaves=leaves, fill_after=0.8, hedge_after=1.2)

    assert score == heard
    assert [name for _, name in score.asked] == asked
    assert score.left_open == 0 and score.done == (leaves == 9.0)
    assert score.ended == min(leaves, 2.2)
    assert all(record.closed is not None and record.closed <= score.ended for record in score.seen if not score.done)


async def test_what_is_said_to_a_caller_who_has_left_is_not_heard() -> None:
    """A stage says good-bye, whatever happens."""
    app = App(model="m")

    @app.stage
    async def part(turn: Turn, send: Send, call_next: CallNext) -> None:
        try:
            await call_next(turn, send)
        finally:
            await send(turn.chunk({"content": " Bye."}))

    assert await talk(app, models=drips("one two", 0.5)) == [(0.5, "one"), (1.0, " two Bye.")]
    assert await talk(app, models=drips("one two", 0.5), leaves=0.75) == [(0.5, "one")]


# --- whose App it is ------------------------------------------------------------------------------


def users_app() -> App:
    """What somebody wrote into a file: hooks of both kinds, a stage, a function, two models, gate keys."""
    app = App(
        ["gpt-5-mini", Model("llama", base_url="https://gateway.example/v1", api_key="llama-key")],
        base_url="https://api.example/v1",
        api_key="held-key",
        keys=["gate-key"],
        fillers=["Let me see. "],
        fill_after=3.0,
    )
    app.after = []  # type: ignore[attr-defined]

    @app.before_turn
    def look_up(turn: Turn) -> None:
        time.sleep(0.01)
        assert threading.current_thread().name.startswith("jumping")
        turn.messages = [{"role": "system", "content": "Facts."}, *turn.messages]

    @app.before_turn
    async def ask(turn: Turn) -> None:
        await asyncio.sleep(0.25)
        if turn.text == "refuse":
            raise Forbidden("Not you.")

    @app.stage
    async def shout(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def louder(chunk: Any) -> None:
            await send(chunk.with_text(chunk.text.upper()) if chunk.text else chunk)

        await call_next(turn, louder)

    @app.after_turn
    def keep(turn: Turn) -> None:
        app.after.append(turn.reply.text)  # type: ignore[attr-defined]

    @app.model("parrot")
    async def parrot(turn: Turn) -> Any:
        await asyncio.sleep(0.5)
        yield turn.text

    return app


async def test_a_users_own_app_is_played_with_all_that_hangs_on_it() -> None:
    """Both models are scripted; a plain `def` hook takes no time, an `async def` one the time that it waits."""
    app = users_app()
    score = await talk(app, models=[fails(503), after(0.5, says("hello there"))])

    assert score == [(0.75, "HELLO THERE")]
    assert score.asked == [(0.25, "gpt-5-mini"), (0.25, "llama")]
    first, second = score.seen
    assert first.body["messages"][0] == {"role": "system", "content": "Facts."}
    assert (first.header("host"), first.header("authorization")) == ("api.example", "Bearer held-key")
    assert (second.header("host"), second.header("authorization")) == ("gateway.example", "Bearer llama-key")
    assert score.turn is not None and score.turn.answered_by == "llama"
    assert app.after == ["HELLO THERE"]  # type: ignore[attr-defined]


async def test_a_users_own_functions_and_the_demo_are_their_own() -> None:
    """Only what is behind a connection is scripted."""
    score = await talk(users_app(), say="polly", request={"model": "parrot"})
    assert (score, score.asked) == ([(0.75, "POLLY")], [])

    score = await talk(App(["demo", "gpt-5-mini"], api_key="k"), request={"model": "demo"}, models=silent())
    assert score.done and score.text and score.asked == []


async def test_a_policy_may_be_given_for_the_talk() -> None:
    """The App keeps its own."""
    app = users_app()
    models = [after(1.0, says("hello")), silent()]
    assert await talk(app, models=models, fill_after=0.1) == [(0.1, "Let me see. "), (1.25, "HELLO")]
    assert await talk(app, models=models, fillers=[]) == [(1.25, "HELLO")]
    assert await talk(App(), models=after(1.0, says("hi")), fill_after=0.2) == [(0.2, "One moment. "), (1.0, "hi")]
    assert app._written.policy.fill_after == 3.0


async def test_a_users_own_app_stays_as_it_was() -> None:
    """It may be changed and talked to again; what one talk teaches (a breaker, a budget) the next does not know."""
    app = users_app()
    for _ in range(5):
        score = await talk(app, models=[fails(503), says("hello")], say="x")
        assert score.asked == [(0.25, "gpt-5-mini"), (0.25, "llama")]

    @app.before_turn
    async def later(turn: Turn) -> None:
        await asyncio.sleep(1)

    assert await talk(app, models=[says("hello"), silent()]) == [(1.25, "HELLO")]
    for _ in range(3):  # a hedge each: there is a budget for one in ten, and every talk has its own
        assert await talk(app, models=[silent(), says("hello")]) == [(2.45, "HELLO")]
    assert (app._built, app._transport) == (None, None)


async def test_an_app_that_has_served_already_can_be_talked_to() -> None:
    """It is frozen, and its connections are those of another loop."""
    app = App(warm=False)
    assert (await says_to(app, model="demo"))[0] == 200

    assert await talk(app, models=says("hello"), request={"model": "any"}) == [(0.0, "hello")]


async def test_what_is_hung_on_an_app_meanwhile_is_not_asked() -> None:
    """A copy is talked to: that of the moment when the talk began."""
    app = App(model="m")

    @app.before_turn
    async def first(turn: Turn) -> None:
        turn.state["first"] = True

    async def main() -> list[float]:
        async with Phone(app, models=says("hello")) as phone:

            @app.before_turn
            async def later(turn: Turn) -> None:
                await asyncio.sleep(1)

            return [(await phone.talk()).ended, (await talk(app, models=says("hello"))).ended]

    assert await run(main) == [0.0, 1.0]


async def test_a_hook_of_the_users_may_refuse() -> None:
    """Its own error, as a caller gets it."""
    score = await talk(users_app(), say="refuse")
    assert (score.status, score.ended, score.asked) == (403, 0.25, [])


async def test_a_caller_needs_no_gate_key_and_a_model_gets_the_callers_own() -> None:
    """Without any key in the App each caller's goes through, here as there."""
    score = await talk(App(base_url="https://api.example/v1"), request={"model": "any-name"})

    [record] = score.seen
    assert (score.status, record.header("authorization"), record.body["model"]) == (
        200,
        "Bearer the-caller",
        "any-name",
    )
    assert (await talk(App(model="usual"))).asked == [(0.0, "usual")]


@pytest.mark.parametrize(
    ("app", "given", "message"),
    [
        (App(["a", "b"]), {"models": [silent()]}, "has 2 models to be played, and `models` has 1"),
        (App(["a", "b"]), {"models": [silent()] * 3}, "has 2 models to be played, and `models` has 3"),
        (App(), {"models": [silent()] * 2}, "has 1 models to be played"),
        (App(), {"base_url": "http://elsewhere.test/v1"}, "`base_url` is not a field of Policy"),
        (App(), {"turn_timeout": -1}, "turn_timeout"),
        (None, {"turn_timeout": -1}, "FIRSTWORD_TURN_TIMEOUT"),
        (None, {"models": "hello"}, "no list of scripted models"),
        (None, {"models": ["hello"]}, "no list of scripted models"),
        ([], {}, "That is not an App"),
        (None, {"fill_after": 0.1, "fillers": [""]}, "fillers"),
    ],
)
async def test_what_makes_no_sense_is_told(app: Any, given: dict[str, Any], message: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigError, match=message):
        await talk(app, **given)
