"""What models cost: the user's own table of prices, and the periods in which money may be spent. Pure.

A line is `MODEL input=0.25 output=2 cached=0.025`: the price of a million tokens, in whatever unit the budgets are in.
The model `*` stands for every other. Money is whole numbers: millionths of the unit, and prices of a million tokens in
them, so that tokens times price is exact, and adding up loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..used import Used

MILLION = 1_000_000
ANY = "*"
MAX_PRICE = Decimal(1_000_000)  # of a million tokens; a larger one is in another unit than was meant
MAX_FILE = 1024 * 1024  # bytes
DAY, MONTH, TOTAL = "day", "month", "total"
_FORM = "write it like: gpt-5-mini input=0.25 output=2 cached=0.025"
_NAMES = ("input", "output", "cached")


class Price(NamedTuple):
    """Millionths of the unit for a million tokens: of a prompt, of an answer, of a prompt that was in the cache."""

    input: int
    output: int
    cached: int

    def of(self, used: Used) -> int:
        """Return what a request has cost, in millionths of the unit; a part of one counts as one."""
        fresh = used.prompt - used.cached
        return -(-(fresh * self.input + used.cached * self.cached + used.completion * self.output) // MILLION)

    def guess(self, prompt: int, answer: int) -> int:
        """Return what so many tokens cost."""
        return self.of(Used("", prompt, answer))


FREE = Price(0, 0, 0)


class Prices:
    """The table. `free` are the names of models that cost nothing, as they run here.

    usual: the model that answers a request which names none. has_list: it answers one that names an unknown model too.
    """

    def __init__(
        self, table: Mapping[str, Price], free: Iterable[str] = (), *, usual: str = "", has_list: bool = False
    ) -> None:
        self._table = dict(table)
        self._free = frozenset(free)
        self._usual = usual
        self._has_list = has_list

    def of(self, model: str) -> Price | None:
        """Return the price of a model; None when it has none."""
        found = self._table.get(model)
        if found is None:
            found = FREE if model in self._free else self._table.get(ANY)
        return found

    def expected(self, model: str) -> Price | None:
        """Return the price of what will answer a request that names `model`; None when that has none."""
        price = self.of(model) if model else None
        return self.of(self._usual) if price is None and (self._has_list or not model) else price

    def label(self, model: str) -> str:
        """Return the name under which a model's cost is counted: one of the table's, however callers write theirs."""
        return model if model in self._table else ANY

    def check(self, models: Iterable[str]) -> None:
        """Raise ConfigError for a model without a price."""
        for model in models:
            if self.of(model) is None:
                hint = f"add a line for it, with 0 if it costs nothing, or one for {ANY!r}: every other model"
                raise ConfigError(f"The model {model!r} has no price in FIRSTWORD_PRICES.", hint=hint)


def load_prices(path: str) -> dict[str, Price]:
    """Return the table that a file holds. Raises ConfigError that names the line."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode()
    except OSError as error:
        said = f"The file of FIRSTWORD_PRICES cannot be read: {error.strerror or 'no such file'}."
        raise ConfigError(said, hint="check its path, and who may read it") from None
    except UnicodeDecodeError:
        raise ConfigError("The file of FIRSTWORD_PRICES is not UTF-8.", hint=_FORM) from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"The file of FIRSTWORD_PRICES is larger than {MAX_FILE} bytes.", hint=_FORM)
    return read_prices(text)


def read_prices(text: str) -> dict[str, Price]:
    """Return the table that these lines are. Raises ConfigError that names the line."""
    table: dict[str, Price] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"FIRSTWORD_PRICES, line {number}"
        if words[0] in table:
            raise ConfigError(f"{place}: {words[0]!r} has a price already.", hint="leave one of the lines out")
        table[words[0]] = _read_price(words[1:], place)
    if not table:
        raise ConfigError("The file of FIRSTWORD_PRICES holds no price.", hint=_FORM)
    return table


def _read_price(words: list[str], place: str) -> Price:
    given: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _NAMES or name in given:
            said = "stands there twice" if name in given else f"is none of {', '.join(_NAMES)}"
            raise ConfigError(f"{place}: {name[:20]!r} {said}.", hint=_FORM)
        try:
            price = Decimal(value)
            if not 0 <= price <= MAX_PRICE:
                raise InvalidOperation
        except InvalidOperation:
            raise ConfigError(f"{place}: `{name}` is not a number from 0 to {MAX_PRICE}.", hint=_FORM) from None
        given[name] = int(price * MILLION)
    missing = [name for name in ("input", "output") if name not in given]
    if missing:
        raise ConfigError(f"{place}: `{missing[0]}` is missing.", hint=_FORM)
    return Price(given["input"], given["output"], given.get("cached", given["input"]))


def millionths(amount: float) -> int:
    """Return an amount of money as it was written, in millionths."""
    return int(Decimal(repr(amount)) * MILLION)


def money(amount: int) -> Decimal:
    """Return millionths as an amount of money."""
    return Decimal(amount).scaleb(-6)


def period(kind: str, at: float) -> tuple[str, float | None]:
    """Return the name of the day, month or whole that the time `at` is in, by UTC, and the seconds left of it."""
    if kind == TOTAL:
        return TOTAL, None
    now = datetime.fromtimestamp(at, timezone.utc)
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == DAY:
        return begin.strftime("%Y-%m-%d"), (begin + timedelta(days=1) - now).total_seconds()
    following = (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
    return begin.strftime("%Y-%m"), (following - now).total_seconds()
