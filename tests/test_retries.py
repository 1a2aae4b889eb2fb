"""A second try of the same model: when it is made, what it shares with the first, and when it never is.

One model stands alone here, or two that have both failed. A request's `scripts` go to the tries in order.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Model, Turn
from firstword.errors import MAX_WAIT, RETRY_PAUSE, AllModelsFailed, UpstreamStatusError
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))
Serve = Callable[[App], Served]


def alone(upstream: Upstream, **more: Any) -> App:
    return App(base_url=upstream.base_url, warm=False, **more)


PASSING = {
    "500": script.refuses(500, "Broken."),
    "503 HTML": script.shows_a_page(503),
    "408": script.refuses(408, "Too slow."),
    "429": script.rate_limits(),
    "429 with retry-after": script.refuses(429, "Slow down.", headers={"retry-after-ms": "150"}),
    "the first event is an error": script.fails_at_once(),
    "closes unheard": [script.close()],
    "ends with nothing": script.events(),
}


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7.0, 7.0),
        ("0", 0.0, 0.0),
        ("3600.00000000", 3600.0, 3600.0),
        ("9" * 400, MAX_WAIT, MAX_WAIT),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_WAIT, MAX_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.0),
        *((odd, None, None) for odd in ("", "-5", "nan", "inf", "1e9", "soon", "Wed, 99 Oct 2015 07:28:00 GMT", ".")),
    ],
)
def test_a_server_says_in_seconds_or_by_a_date_when_to_come_back(
    said: str, least: float | None, most: float | None
) -> None:
    """What is far away is not taken for nothing: the same would be asked again a tenth of a second later."""
    error = UpstreamStatusError("Slow down.", status=429, passed={"retry-after": said})
    if least is None or most is None:
        assert error.retry_after is None and error.again_after == RETRY_PAUSE
    else:
        assert error.retry_after is not None and least <= error.retry_after <= most
        assert error.again_after is not None and least <= error.again_after <= most
        assert 0 <= int(AllModelsFailed([error]).headers()["retry-after"]) <= MAX_WAIT


def test_a_date_is_counted_from_now() -> None:
    """In ten minutes, by this machine's clock; HTTP's dates have whole seconds."""
    date = formatdate(time.time() + 600, usegmt=True)
    error = UpstreamStatusError("Slow down.", status=429, passed={"retry-after": date})
    assert error.retry_after is not None and 590 < error.retry_after <= 600


@pytest.mark.parametrize("steps", PASSING.values(), ids=PASSING.keys())
async def test_what_may_pass_is_tried_once_more(
    serve: Serve, upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """The caller hears the second try, and nothing of the first."""
    app = alone(upstream)
    turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
    app.after_turn(turns.put)
    heard = await Caller(serve(app).url).says(user=marker, scripts=[steps, ANSWER])

    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, FRIEND, ["stop"], True)
    assert len({chunk["id"] for chunk in heard.chunks}) == 1
    first, second = await upstream.wait_settled(marker, count=2)
    pause = 0.15 if steps is PASSING["429 with retry-after"] else 0.1
    assert second.requested - first.requested >= pause
    attempts = (await asyncio.to_thread(turns.get, timeout=5)).attempts
    assert [(attempt.model, attempt.why, attempt.outcome) for attempt in attempts] == [
        ("m1", "first", "failed"),
        ("m1", "retry", "answered"),
    ]
    assert attempts[0].error and not attempts[1].error
    assert attempts[0].ended is not None and attempts[1].spoke is not None


IN_VAIN = {
    "400": script.rejects("No such field."),
    "401": script.refuses(401, "Bad key."),
    "403": script.refuses(403, "Not you."),
    "404": script.refuses(404, "No such model."),
    "422": script.refuses(422, "Odd."),
    "content policy": script.finds_it_improper(),
    "context length": script.finds_it_too_long(),
    "an error in the stream that is no server's fault": script.events(
        script.error_event("Too long.", code="context_length_exceeded")
    ),
    "no money": script.refuses(429, "You have no credit.", code="insufficient_quota"),
    "says that it is in vain": script.refuses(503, "Down.", headers={"x-should-retry": "false"}),
    "a page": script.shows_a_page(200),
    "a later time than is left": script.rate_limits("7"),
    "something was passed on": script.events(script.role(), script.error_event("It broke.")),
    "words were heard": script.fails_after("one two"),
}


@pytest.mark.parametrize("steps", IN_VAIN.values(), ids=IN_VAIN.keys())
async def test_what_a_second_try_does_not_mend_comes_out_as_itself(
    serve: Serve, upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """Asked once, and told at once; who says `retry-after` is not called again before that."""
    heard = await Caller(serve(alone(upstream, hedge_share=1.0)).url).says(user=marker, scripts=[steps, ANSWER])

    assert heard.error["message"] and heard.text.replace("one two", "") == "" if heard.status == 200 else True
    assert len(await upstream.wait_settled(marker)) == 1
    if steps is IN_VAIN["a later time than is left"]:
        assert (heard.headers["retry-after"], heard.headers.get("x-should-retry")) == ("7", None)


async def test_second_tries_are_a_share_of_the_turns(serve: Serve, upstream: Upstream, marker: str) -> None:
    """A provider that is down shall not get twice the load: one at once, then one in ten turns."""
    caller = Caller(serve(alone(upstream)).url)
    asked = []
    for number in range(12):
        heard = await caller.says(user=f"{marker} {number}", script=script.refuses(503, "Down."))
        asked.append(len(upstream.seen(f"{marker} {number}")))
        # Whoever calls us need not try again what we have tried twice.
        assert heard.headers.get("x-should-retry") == ("false" if asked[-1] == 2 else None)
    assert asked == [2, *[1] * 8, 2, 1, 1]


async def test_a_caller_who_leaves_in_the_pause_is_not_asked_for(serve: Serve, upstream: Upstream, marker: str) -> None:
    """Bifrost#7035 went on for twenty minutes: nobody is asked for a caller who is gone."""
    served = serve(alone(upstream))
    waits = script.refuses(429, "Slow down.", headers={"retry-after-ms": "300"})
    async with Caller(served.url).dials(turn("Hi", user=marker, scripts=[waits, ANSWER])):
        await upstream.wait_settled(marker)
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}
    again = await Caller(served.url).says(user=f"{marker} later", scripts=[ANSWER])
    assert again.text == FRIEND and len(upstream.seen(marker)) == 1


async def test_a_second_try_shares_the_time_of_the_first(serve: Serve, upstream: Upstream, marker: str) -> None:
    """It is silent: the caller waits no longer for both than for one."""
    served = serve(alone(upstream, first_token_timeout=0.4))
    heard = await Caller(served.url).says(user=marker, scripts=[script.refuses(500, "Broken."), script.never_answers()])

    assert (heard.status, heard.headers["x-should-retry"]) == (504, "false")
    first, second = await upstream.wait_closed(marker, count=2)
    assert second.closed is not None and second.closed - first.requested < 0.4 + 0.25


async def test_when_all_have_failed_the_one_that_may_be_well_soonest_is_asked_again(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """The first says "in 300 ms", the second has broken: 100 ms later the second is asked again."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    app = App(models=models, warm=False, open=True)
    limits = script.refuses(429, "Slow down.", headers={"retry-after-ms": "300"})
    steps = [limits, script.events(script.role(), script.error_event("It broke.")), ANSWER]
    heard = await Caller(serve(app).url).says(user=marker, model="any", scripts=steps)

    assert (heard.status, heard.text, heard.done) == (200, FRIEND, True)
    records = await upstream.wait_settled(marker, count=3)
    assert [record.body["model"] for record in records] == ["first", "second", "second"]


@pytest.mark.parametrize("apology", [None, "I am sorry."])
async def test_a_withheld_answer_is_not_sought_elsewhere(
    serve: Serve, upstream: Upstream, marker: str, apology: str | None
) -> None:
    """A content filter took every word away: another model is not asked to say them all the same."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    app = App(models=models, warm=False, open=True, apology=apology)
    withheld = script.events(script.role(), script.finish("content_filter"), script.done())
    heard = await Caller(serve(app).url).says(user=marker, model="any", scripts=[withheld, ANSWER])

    assert len(await upstream.wait_settled(marker)) == 1
    if apology:
        assert (heard.status, heard.text, heard.done) == (200, apology, True)
    else:
        assert (heard.status, heard.error["code"]) == (502, "upstream_silent")
