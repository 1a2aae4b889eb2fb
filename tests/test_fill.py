"""Fillers: words against silence, once a turn, before the answer and as a part of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, CallNext, ConfigError, Forbidden, Model, Policy, Send, Turn
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line."
FILLER = "One moment. "
FILL_AFTER = 0.15
SLACK = 0.25  # seconds that a busy machine may be late
LATE = script.events(
    script.role(), script.wait(0.4), script.words(FRIEND), script.finish(), script.usage(), script.done()
)


@pytest.fixture(params=["ours", "h11"])
def start(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Callable[..., Served]]:
    """Serve an App with a filler, under our own protocol and under another."""
    running: list[Served] = []

    def begin(app: App | None = None, **more: object) -> Served:
        given = {"fillers": [FILLER], "fill_after": FILL_AFTER, "base_url": upstream.base_url, **more}
        other = {} if request.param == "ours" else {"http": request.param}
        running.append(Served(app or App(**given), **other))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for served in running:
        served.stop()


async def test_a_filler_is_said_once_and_the_answer_follows_in_one_reply(start: Callable[..., Served]) -> None:
    """One id, one role, one ending; the usage that was asked for comes too."""
    server = start()
    began = time.monotonic()
    heard = await Caller(server.url).says(script=LATE, stream_options={"include_usage": True})

    assert (heard.text, heard.finish_reasons, heard.done) == (FILLER + FRIEND, ["stop"], True)
    assert len({chunk["id"] for chunk in heard.chunks}) == 1
    assert [chunk["choices"][0]["delta"].get("role") for chunk in heard.chunks if chunk["choices"]].count(
        "assistant"
    ) == 1
    assert heard.chunks[-1]["usage"]
    assert FILL_AFTER <= heard.reads[0][0] - began < FILL_AFTER + SLACK
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


@pytest.mark.parametrize("how", ["quick", "whole", "silenced", "hook"])
async def test_no_filler_where_none_belongs(start: Callable[..., Served], upstream: Upstream, how: str) -> None:
    """The answer is there, the reply is one piece, the turn wants none."""
    app = App(fillers=[FILLER], fill_after=FILL_AFTER, base_url=upstream.base_url)

    @app.before_turn
    async def ask(turn: Turn) -> None:
        if how == "silenced":
            turn.silent = True
        elif how == "hook":
            turn.adjust(fillers=[])

    steps = script.events(script.says(FRIEND, every=0.1)) if how == "quick" else LATE
    heard = await Caller(start(app).url).says(script=steps, stream=how != "whole")
    said = heard.json["choices"][0]["message"]["content"] if how == "whole" else heard.text
    assert said == FRIEND


async def test_a_hook_that_is_slow_is_filled_and_may_say_what_with(
    start: Callable[..., Served], upstream: Upstream
) -> None:
    """Searching takes its time before the model is even asked."""
    app = App(fillers=[FILLER], fill_after=20.0, base_url=upstream.base_url)

    @app.before_turn
    async def search(turn: Turn) -> None:
        turn.adjust(fillers=["Let me look. "], fill_after=FILL_AFTER)
        await asyncio.sleep(0.4)

    heard = await Caller(start(app).url).says(script=script.events(script.says(FRIEND)))
    assert heard.text == f"Let me look. {FRIEND}"


@pytest.mark.parametrize("apology", [SORRY, None])
async def test_what_fails_after_a_filler_is_told_in_the_reply(
    start: Callable[..., Served], apology: str | None
) -> None:
    """The status is sent: an apology, or an error event and no `[DONE]`."""
    steps = [script.wait(0.4), *script.refuses(500, "Broken.")]
    heard = await Caller(start(apology=apology).url).says(script=steps)

    assert heard.status == 200 and heard.text == (FILLER + SORRY if apology else FILLER)
    assert heard.done == (apology is not None)
    assert len({chunk["id"] for chunk in heard.chunks if "error" not in chunk}) == 1


async def test_a_filler_and_a_race_make_one_reply(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """The first model is silent; the filler comes, then the second model."""
    models = [Model(name, base_url=upstream.base_url, api_key="k") for name in ("first", "second")]
    app = App(models=models, fillers=[FILLER], fill_after=FILL_AFTER, hedge_after=0.05, hedge_share=1.0)
    heard = await Caller(start(app).url).says(user=marker, scripts=[script.never_answers(), LATE])

    assert (heard.text, heard.finish_reasons, heard.done) == (FILLER + FRIEND, ["stop"], True)
    assert len({chunk["id"] for chunk in heard.chunks}) == 1


async def test_a_filler_goes_before_a_stage_that_answers_itself(
    start: Callable[..., Served], upstream: Upstream
) -> None:
    """A stage of the user's that is slow."""
    app = App(fillers=[FILLER], fill_after=FILL_AFTER, base_url=upstream.base_url)

    @app.stage
    async def slow(turn: Turn, send: Send, call_next: CallNext) -> None:
        await asyncio.sleep(0.3)
        await call_next(turn, send)

    heard = await Caller(start(app).url).says(script=script.events(script.says(FRIEND)))
    assert heard.text == FILLER + FRIEND


async def test_a_caller_who_leaves_before_the_filler_hears_nothing(
    start: Callable[..., Served], upstream: Upstream, marker: str
) -> None:
    """Its timer ends with the turn."""
    server = start()
    async with Caller(server.url).dials(turn("Hi", user=marker, script=script.never_answers())):
        await upstream.wait_asked(marker)
    await upstream.wait_closed(marker)
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


@pytest.mark.parametrize(
    "given",
    [
        {"fillers": [42]},
        {"fillers": [""]},
        {"apology": " "},
        {"on_cut": "shrug"},
        {"hedge_after": "soon"},
        {"hedge_after": -1},
        {"hedge_share": 2},
        {"fill_after": 0},
    ],
)
def test_what_makes_no_sense_is_told_at_once(given: dict[str, object]) -> None:
    """Before the first call, by name."""
    with pytest.raises(ConfigError) as refused:
        App(**given)  # type: ignore[arg-type]
    assert next(iter(given)) in str(refused.value).lower()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("FIRSTWORD_HEDGE_AFTER", "p95", "hedge_after", "p95"),
        ("FIRSTWORD_HEDGE_AFTER", "none", "hedge_after", None),
        ("FIRSTWORD_HEDGE_AFTER", "0.8", "hedge_after", 0.8),
        ("FIRSTWORD_FILLERS", "One moment.|Let me see, yes.", "fillers", ("One moment. ", "Let me see, yes. ")),
        ("FIRSTWORD_APOLOGY", SORRY, "apology", SORRY),
        ("FIRSTWORD_ON_CUT", "finish", "on_cut", "finish"),
    ],
)
def test_all_of_it_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: object
) -> None:
    """As every setting can."""
    monkeypatch.setenv(name, text)
    assert getattr(App().settings.policy(), field) == value


def test_the_defaults_stand_in_one_place_only_as_far_as_anybody_can_tell() -> None:
    """A Policy made by hand is the one that an App without settings has."""
    assert App().settings.policy() == Policy()


# --- the apology, and the policy of one turn ------------------------------------------------------

EMPTY = script.events(script.role(), script.finish(), script.done())


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_a_word_is_apologised_for(start: Callable[..., Served], stream: bool) -> None:
    """With one model there is nobody else to ask."""
    heard = await Caller(start(apology=SORRY).url).says(script=EMPTY, stream=stream)
    said = heard.text if stream else heard.json["choices"][0]["message"]["content"]
    assert (heard.status, said) == (200, SORRY)


async def test_a_filler_and_then_nothing_is_apologised_for(start: Callable[..., Served]) -> None:
    """A filler is no answer."""
    steps = script.events(script.role(), script.wait(0.3), script.finish(), script.done())
    heard = await Caller(start(apology=SORRY).url).says(script=steps)
    assert (heard.text, heard.finish_reasons, heard.done) == (FILLER + SORRY, ["stop"], True)


async def test_long_reasoning_and_then_nothing_is_apologised_for(start: Callable[..., Served]) -> None:
    """It is too long to be held back, so that the reply has begun; the caller has heard nothing all the same."""
    thoughts = [script.event({"choices": [{"index": 0, "delta": {"reasoning_content": "x" * 60_000}}]})] * 6
    steps = script.events(script.role(), *thoughts, script.finish(), script.done())
    heard = await Caller(start(apology=SORRY, fillers=[]).url).says(script=steps)
    assert (heard.status, heard.text.strip()) == (200, SORRY)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_whose_time_is_over_is_apologised_for(start: Callable[..., Served], stream: bool) -> None:
    """No stage could say it: the turn's task is cancelled."""
    server = start(apology=SORRY, fillers=[], turn_timeout=0.2)
    heard = await Caller(server.url).says(script=script.never_answers(), stream=stream)
    said = heard.text if stream else heard.json["choices"][0]["message"]["content"]
    assert (heard.status, said) == (200, SORRY)
    assert await asyncio.to_thread(server.left_open) == {"in_use": 0, "turns": 0}


async def test_a_bug_is_apologised_for_and_a_callers_mistake_is_not(
    start: Callable[..., Served], upstream: Upstream
) -> None:
    """A hook of the user's breaks, or refuses."""
    app = App(base_url=upstream.base_url, apology=SORRY)

    @app.before_turn
    async def refuse(turn: Turn) -> None:
        if turn.text == "break":
            raise LookupError("a bug")
        raise Forbidden("Not you.")

    caller = Caller(start(app).url)
    assert (await caller.says("break")).text == SORRY
    assert (await caller.says("refuse")).status == 403


async def test_a_whole_answer_is_not_apologised_for(start: Callable[..., Served], upstream: Upstream) -> None:
    """A stage breaks after the last word: no second ending follows the first."""
    app = App(base_url=upstream.base_url, apology=SORRY)

    @app.stage
    async def breaks(turn: Turn, send: Send, call_next: CallNext) -> None:
        await call_next(turn, send)
        raise LookupError("a bug")

    heard = await Caller(start(app).url).says(script=script.events(script.says(FRIEND)))
    assert (heard.text, heard.finish_reasons, heard.done) == (FRIEND, ["stop"], False)
    assert heard.error["message"].startswith("The server made a mistake.")


async def test_half_a_call_to_a_tool_is_not_apologised_for(start: Callable[..., Served]) -> None:
    """Words behind it would be taken for the end of the call."""
    steps = script.events(script.role(), script.tool_call("transfer", '{"amount": 1'))
    heard = await Caller(start(apology=SORRY).url).says(script=steps)
    assert not heard.done and heard.finish_reasons == [] and heard.error["code"] == "upstream_truncated"


CHANGES = [
    ({"turn_timeout": 0.3}, script.never_answers(), 504, ""),
    ({"first_token_timeout": 0.2}, script.never_answers(), 504, ""),
    ({"stall_timeout": 0.2}, script.stalls_after("one two"), 200, "one two"),
    ({"apology": SORRY}, script.refuses(500, "Broken."), 200, SORRY),
    ({"on_cut": "finish"}, script.closes_after("one two"), 200, "one two"),
    ({"fillers": ["Hm."], "fill_after": 0.1}, LATE, 200, f"Hm. {FRIEND}"),
]


@pytest.mark.parametrize("odd", [None, 5, "Hm.", [""], [None], [b"Hm."]])
def test_what_is_no_list_of_words_is_told_so(odd: Any) -> None:
    """A hook may well write None for none; whatever gives words, also only once, is a list of them."""
    with pytest.raises(ConfigError, match="fillers"):
        Policy(fillers=odd)
    if odd is not None:
        with pytest.raises(ConfigError, match="models"):
            Policy(models=odd)
    once = (each for each in ("Hm.", "Well. "))
    assert Policy(fillers=once).fillers == ("Hm. ", "Well. ")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize(("changes", "steps", "status", "said"), CHANGES, ids=[str(row[0]) for row in CHANGES])
async def test_a_hook_changes_the_policy_of_its_turn(
    start: Callable[..., Served],
    upstream: Upstream,
    kind: str,
    changes: dict[str, Any],
    steps: script.Script,
    status: int,
    said: str,
) -> None:
    """Each field, also from a thread, and however generous the App is."""
    app = App(base_url=upstream.base_url)

    async def on_the_loop(turn: Turn) -> None:
        turn.adjust(**changes)

    def in_a_thread(turn: Turn) -> None:
        turn.adjust(**changes)

    app.before_turn(on_the_loop if kind == "async def" else in_a_thread)
    began = time.monotonic()
    heard = await Caller(start(app).url).says(script=steps)
    assert heard.status == status and (status != 200 or heard.text == said)
    assert time.monotonic() - began < 2


async def test_a_hook_gives_its_turn_more_time(start: Callable[..., Served], upstream: Upstream) -> None:
    """The App's own limit would have cut it off."""
    app = App(base_url=upstream.base_url, turn_timeout=0.2)

    @app.before_turn
    def allow(turn: Turn) -> None:
        turn.adjust(turn_timeout=20.0)

    assert (await Caller(start(app).url).says(script=LATE)).text == FRIEND


async def test_an_adjustment_that_makes_no_sense_is_a_mistake(start: Callable[..., Served], upstream: Upstream) -> None:
    """As in the App's own settings, by name."""
    turn = Turn(request={"messages": []})
    with pytest.raises(ConfigError, match="turn_timeout"):
        turn.adjust(turn_timeout=-1)
    assert turn.policy == Policy()


# --- a provider by its name -----------------------------------------------------------------------


async def test_groq_is_asked_with_its_own_key(
    serve: Callable[[App], Served], upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`GROQ_API_KEY`, as Groq's own tools read it; the server then holds a key, and needs gate keys."""
    monkeypatch.setenv("GROQ_API_KEY", "groq-key")
    monkeypatch.setattr("firstword.providers.groq.Groq.base_url", upstream.base_url)
    app = App(["groq:llama-3.3-70b-versatile"], api_key="another", keys=["gate-key"])
    heard = await Caller(serve(app).url).says(user=marker, headers={"authorization": "Bearer gate-key"})

    assert heard.status == 200
    (record,) = upstream.seen(marker)
    assert (record.header("authorization"), record.body["model"]) == ("Bearer groq-key", "llama-3.3-70b-versatile")


async def test_a_key_from_the_environment_is_held_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate is not open because the key stands in another variable; a Model's own key goes first."""
    monkeypatch.setenv("GROQ_API_KEY", "groq-key")
    assert not App(["groq:llama"]).gate.passes_keys
    assert App([Model("llama", provider="groq", api_key="mine")])._written.models[0].api_key == "mine"
    monkeypatch.setenv("GROQ_API_KEY", "")
    assert App(["groq:llama"]).gate.passes_keys
