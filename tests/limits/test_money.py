"""What turns cost: the table of prices, what a budget lets through, and that no part of a cent is lost on the way."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from firstword import App, ConfigError, Model, Turn
from firstword.admission.grant import Allowance, Grant
from firstword.errors import BudgetExceeded
from firstword.limits import Limits
from firstword.limits.prices import Prices, load_prices, millionths, money, period, read_prices
from firstword.testing import Phone, after, fails, run, script, silent
from firstword.used import Used

TABLE = """
# what a million tokens cost, in dollars
first      input=0.25 output=2 cached=0.025
second     input=1e1 output=0.1   # a comment
free       input=0 output=0
"""
COUNTS = script.events(script.role(), script.words("One two."), script.finish(), script.usage(1000, 500), script.done())
COST = 0.25 * 1000 / 1e6 + 2 * 500 / 1e6  # 0.00125


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table, in a file that the settings name."""
    path = tmp_path / "prices.txt"
    path.write_text(TABLE, encoding="utf-8")
    monkeypatch.setenv("FIRSTWORD_PRICES", str(path))
    return path


# --- the table --------------------------------------------------------------------------------------


def test_a_table_is_lines_of_names_and_prices() -> None:
    """Comments, blanks, numbers as people write them; a cached prompt costs as much as any, unless a line says less."""
    table = read_prices(TABLE)
    assert table["first"] == (250_000, 2_000_000, 25_000)
    assert table["second"] == (10_000_000, 100_000, 10_000_000) and table["free"] == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no price"),
        ("m input=1", "line 1: `output` is missing"),
        ("m", "line 1: `input` is missing"),
        ("\nm input=1 output=x", "line 2: `output` is not a number"),
        ("m input=-1 output=1", "line 1: `input` is not a number"),
        ("m input=nan output=1", "line 1: `input` is not a number"),
        ("m input=inf output=1", "line 1: `input` is not a number"),
        ("m input=1e9 output=1", "line 1: `input` is not a number"),
        ("m input=1 output=1 price=1", "line 1: 'price' is none of input, output, cached"),
        ("m input=1 output=1 input=1", "line 1: 'input' stands there twice"),
        ("m input=1 output=1\nm input=2 output=1", "line 2: 'm' has a price already"),
        ("m input output=1", "line 1: `input` is not a number"),
    ],
)
def test_a_line_that_is_wrong_is_named(text: str, said: str) -> None:
    """Somebody writes the table by hand."""
    with pytest.raises(ConfigError, match="FIRSTWORD_PRICES") as caught:
        read_prices(text)
    assert said in caught.value.message and caught.value.hint


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A wrong path, a folder, a picture."""
    (tmp_path / "picture").write_bytes(b"\xff\xd8")
    for path in (tmp_path / "none", tmp_path, tmp_path / "picture"):
        with pytest.raises(ConfigError, match="FIRSTWORD_PRICES"):
            load_prices(str(path))


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=50),
    st.decimals(0, 1000, places=6),
    st.decimals(0, 1000, places=6),
)
def test_money_is_exact(uses: list[tuple[int, int, int]], prompt: Decimal, answer: Decimal) -> None:
    """Against the same sum in decimals: each request is rounded up to a millionth, and nothing else is lost."""
    table = Prices(read_prices(f"m input={prompt} output={answer} cached=0.5"))
    price = table.of("m")
    assert price is not None
    whole, exact = 0, Decimal(0)
    for fresh, cached, tokens in uses:
        whole += price.of(Used("m", fresh + cached, tokens, cached))
        exact += (fresh * prompt + cached * Decimal("0.5") + tokens * answer) / 1_000_000
    assert exact <= money(whole) <= exact + Decimal(len(uses)).scaleb(-6)


@pytest.mark.parametrize("amount", [0.1, 0.29, 2.5, 1e-6, 123456.789012, 100])
def test_a_budget_is_what_was_written(amount: float) -> None:
    """0.29 * 1000000 is 290000, and not 289999.99999999994."""
    assert money(millionths(amount)) == Decimal(repr(amount))


def test_a_period_ends_at_midnight_or_with_the_month_by_utc() -> None:
    """A month of 31 days, one of 28, the end of a year."""
    assert period("day", 0.0) == ("1970-01-01", 86400.0)
    assert period("day", 1_767_225_599.0) == ("2025-12-31", 1.0)
    assert period("month", 1_767_225_599.0) == ("2025-12", 1.0)
    assert period("month", 1_738_368_000.0) == ("2025-02", 28 * 86400.0)
    assert period("month", 0.0) == ("1970-01", 31 * 86400.0)
    assert period("total", 0.0) == ("total", None)


# --- at start ---------------------------------------------------------------------------------------


def test_a_budget_without_prices_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever be spent."""
    monkeypatch.setenv("FIRSTWORD_BUDGET_PER_SESSION", "1")
    with pytest.raises(ConfigError, match="FIRSTWORD_BUDGET_PER_SESSION is set"):
        App()


def test_a_listed_model_without_a_price_does_not_start(prices: Path) -> None:
    """Somebody adds a model to the list, and not to the table; the models that run here need none."""
    App(["first", "second", "demo"], api_key="k", open=True)
    with pytest.raises(ConfigError, match="'third' has no price"):
        App(["first", "third"], api_key="k", open=True)
    prices.write_text(TABLE + "* input=9 output=9\n")
    App(["first", "third"], api_key="k", open=True)


async def test_the_usual_model_without_a_price_does_not_start(prices: Path) -> None:
    """LLM_MODEL answers who names none; it may be a function as well, which costs nothing."""
    with pytest.raises(ConfigError, match="'third' has no price"):
        App(model="third")._build()
    app = App(model="parrot", warm=False)
    app.model("parrot")(lambda turn: turn.text)
    app._build()
    await app.close()


# --- in turns ---------------------------------------------------------------------------------------


async def test_a_turn_knows_what_it_has_cost(prices: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An after_turn hook keeps the books; the log has it as well; the process adds up by model."""
    costs: list[Any] = []
    app = App(base_url="http://first.test/v1", model="first")

    @app.after_turn
    def keep(turn: Turn) -> None:
        costs.append(turn.cost)

    async def main() -> None:
        async with Phone(app, models=COUNTS) as phone:
            await phone.talk()
            await phone.talk(stream=False)
            assert phone.app._build().limits.cost == {"first": 2500}

    with caplog.at_level("INFO", "firstword"):
        await run(main)
    assert costs == [Decimal("0.00125")] * 2
    assert [line.endswith(" cost=0.001250") for line in caplog.messages if line.startswith("turn ended")] == [True] * 2


@pytest.mark.parametrize(
    ("scope", "who"), [("", "The server"), ("_per_key", "This client"), ("_per_session", "This session")]
)
async def test_a_spent_budget_is_told(prices: Path, monkeypatch: pytest.MonkeyPatch, scope: str, who: str) -> None:
    """Two turns cost 0.0025. The one that crosses the line is answered, none after it; a session's is for good."""
    monkeypatch.setenv(f"FIRSTWORD_BUDGET{scope.upper()}", "0.002")

    async def main() -> None:
        async with Phone(models=COUNTS) as phone:
            heard = [await phone.talk(path="/s/7/chat/completions") for _ in range(3)]
            assert [score.status for score in heard] == [200, 200, 429]
            error, headers = heard[2].error, heard[2].headers
            assert error is not None and error["code"] == "budget_exceeded"
            assert error["message"].startswith(f"{who} has spent its budget.\nhint: ")
            assert headers["x-should-retry"] == "false"
            if scope == "_per_session":
                assert "retry-after" not in headers and error["message"].endswith("its operator can raise it")
            else:
                assert 0 < int(headers["retry-after"]) <= 31 * 86400
            other = await phone.talk(path="/s/8/chat/completions", headers={"authorization": "Bearer another"})
            assert other.status == (429 if scope == "" else 200)

    await run(main)


async def test_turns_in_progress_hold_what_they_may_cost(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred turns begin at once on the last cent: most are refused, although none has cost anything yet."""
    monkeypatch.setenv("FIRSTWORD_BUDGET", "0.01")

    async def main() -> None:
        async with Phone(models=after(1.0, COUNTS)) as phone:
            request = {"max_tokens": 1000}  # 0.002 and a little
            heard = await asyncio.gather(*(phone.talk(request=request) for _ in range(100)))
            assert [score.status for score in heard].count(200) == 5

    await run(main)


async def test_what_nobody_was_asked_for_costs_nothing(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that refuses, the demo, and a function of one's own; the budget is as it was."""
    monkeypatch.setenv("FIRSTWORD_BUDGET", "0.000001")
    app = App(base_url="http://first.test/v1", model="first")
    app.model("parrot")(lambda turn: turn.text)

    async def main() -> None:
        async with Phone(app, models=fails(400)) as phone:
            for name, status in (("first", 400), ("parrot", 200), ("demo", 200), ("first", 400)):
                score = await phone.talk(request={"model": name})
                assert score.status == status
                assert score.turn is not None and score.turn.cost == 0

    await run(main)


async def test_a_model_without_a_price_is_refused_where_there_is_a_budget(
    prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller names another model of the same provider, to go round the budget; without one, nobody minds."""
    for budget, status in (("", 200), ("1", 400)):
        monkeypatch.setenv("FIRSTWORD_BUDGET_PER_KEY", budget)

        async def main(status: int = status) -> None:
            async with Phone(models=COUNTS) as phone:
                score = await phone.talk(request={"model": "dearest"})
                assert score.status == status
                if status == 400:
                    assert score.error is not None and score.error["param"] == "model" and score.seen == []
                else:
                    assert score.turn is not None and score.turn.cost == 0

        await run(main)


async def test_an_unknown_name_costs_what_the_first_of_the_list_does(
    prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a list, it is the one that answers."""
    monkeypatch.setenv("FIRSTWORD_BUDGET", "1")
    app = App([Model("first", base_url="http://first.test/v1", api_key="k")])

    async def main() -> None:
        async with Phone(app, models=COUNTS) as phone:
            score = await phone.talk(request={"model": "whatever"})
            assert score.turn is not None and score.turn.cost == Decimal("0.00125")

    await run(main)


async def test_a_hedge_costs_as_well(prices: Path) -> None:
    """The first model has the prompt and is silent; the second answers. Both are paid."""
    app = App([Model(name, base_url=f"http://{name}.test/v1", api_key="k") for name in ("second", "first")])

    async def main() -> None:
        async with Phone(app, models=[silent(), COUNTS], hedge_after=1.0) as phone:
            score = await phone.talk("x" * 4000)
            assert score.turn is not None and score.turn.cost is not None
            prompt = next(used.prompt for used in score.turn.used or () if used.model == "second")
            assert prompt == 1004 and score.turn.cost == Decimal("0.00125") + Decimal(prompt) * 10 / 1_000_000

    await run(main)


async def test_a_turn_that_hears_another_s_reply_costs_nothing(prices: Path) -> None:
    """The SDK asks again: the reply is replayed, and is paid for once."""

    async def main() -> None:
        async with Phone(models=COUNTS) as phone:
            path = "/s/7/chat/completions"
            first = await phone.talk(path=path)
            again = await phone.talk(path=path, headers={"x-stainless-retry-count": "1"})
            assert first.text == again.text and again.seen == []
            assert phone.app._build().limits.cost == {"first": 1250}

    await run(main)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 5},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": "many", "completion_tokens": None},
        {"prompt_tokens": 1.5, "completion_tokens": True},
        ["odd"],
        "odd",
        {"prompt_tokens_details": 3},
    ],
    ids=str,
)
async def test_a_count_that_is_not_to_be_believed_is_not(prices: Path, usage: Any) -> None:
    """A server counts wrongly: the guess stands, and the turn is none the worse."""
    odd = script.event(script.chunk({}, choices=[], usage=usage))
    steps = script.events(script.role(), script.words("One two."), script.finish(), odd, script.done())

    async def main() -> None:
        async with Phone(models=steps) as phone:
            score = await phone.talk()
            assert score.text == "One two." and score.done
            assert score.turn is not None and score.turn.used is not None
            (used,) = score.turn.used
            assert not used.is_counted and 0 < used.prompt < 20 and 0 < used.completion + used.prompt < 30

    await run(main)


async def test_a_prompt_that_was_in_the_cache_costs_less(prices: Path) -> None:
    """OpenAI's way to tell it."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 800}}
    counted = script.event(script.chunk({}, choices=[], usage=usage))
    steps = script.events(script.role(), script.words("One."), script.finish(), counted, script.done())

    async def main() -> None:
        async with Phone(models=steps) as phone:
            score = await phone.talk()
            assert score.turn is not None and score.turn.cost == Decimal("0.00007")

    await run(main)


async def test_each_round_of_a_tool_is_paid(prices: Path) -> None:
    """The model calls a tool and is asked again: two requests, the second with a longer prompt."""
    app = App(base_url="http://first.test/v1", model="first")

    @app.tool
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"Sunny in {city}."

    call = [script.tool_call("weather", '{"city": "Rome"}', id="c1"), script.finish("tool_calls"), script.usage(10, 10)]

    async def main() -> None:
        async with Phone(
            app, models=lambda record: [script.events(*call, script.done()), COUNTS][record.attempt - 1]
        ) as phone:
            score = await phone.talk()
            assert score.text == "One two."
            assert score.turn is not None and score.turn.used is not None
            assert [(used.prompt, used.is_counted) for used in score.turn.used] == [(10, True), (1000, True)]
            assert score.turn.cost == Decimal("0.00125") + Decimal("0.000023")  # 22.5 millionths are 23

    await run(main)


async def test_what_was_spent_is_spent_however_the_turn_ends() -> None:
    """It ends in the middle of its end, and nobody has added up yet: the money is gone all the same, and gone once."""
    one = Allowance(budget=0.001)
    limits = Limits(overall=one, prices=Prices(read_prices("m input=1 output=1")))
    for adds_up in (False, True):
        lease, turn = limits.lease(Grant()), Turn(request={"model": "m", "messages": []})
        assert lease is not None and lease.enter(Grant(), "") is None and await lease.hold(turn) is None
        assert turn.used == []
        turn.used.append(Used("m", 400, 200))
        if adds_up:
            lease.settle()
        lease.release()
        assert turn.cost == Decimal("0.0006")
    last = limits.lease(Grant())
    assert last is not None
    assert isinstance(await last.hold(Turn(request={"model": "m", "messages": []})), BudgetExceeded)
    assert limits.cost == {"m": 1200} and limits.refused == {"budget": 1}


def test_the_table_of_the_page_is_one() -> None:
    """The page shows a table: it is read as it stands there, and has what the text says of it."""
    page = (ROOT / "docs" / "limits.md").read_text("utf-8")
    shown = page.partition("```text\n")[2].partition("```")[0]
    assert set(read_prices(shown)) == {"gpt-5-mini", "gpt-5", "*"}
