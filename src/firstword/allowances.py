"""What the operator's settings allow: the limits of a server, the prices of its models, the sizes of requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .admission.grant import Allowance
from .errors import ConfigError
from .limits import Limits
from .limits.meters import Meters
from .limits.prices import Price, Prices, load_prices
from .limits.sizes import Sizes
from .model import Model
from .roster import EMBEDDED, HOUSED, where
from .rounds.call_tools import Offer
from .rounds.jobs import Jobs
from .rounds.toolbox import Toolbox, knows_strict
from .rounds.use import Limits as ToolLimits

BUDGETS = ("budget", "budget_per_key", "budget_per_session")


def prices_of(settings: Any, models: Sequence[Model]) -> dict[str, Price] | None:
    """Return the table of prices; None when there is none. Raises ConfigError, also for a listed model without one."""
    if settings.prices is None:
        for name in BUDGETS:
            if getattr(settings, name) is not None:
                hint = "set FIRSTWORD_PRICES to a file of lines like: gpt-5-mini input=0.25 output=2"
                raise ConfigError(f"FIRSTWORD_{name.upper()} is set, and nothing says what models cost.", hint=hint)
        return None
    table = load_prices(settings.prices)
    Prices(table, _free(models)).check(each.name for each in models)
    return table


def limits_of(
    settings: Any,
    models: Sequence[Model],
    functions: Iterable[str],
    table: dict[str, Price] | None,
    meters: Meters | None = None,
) -> Limits:
    """Return how much callers may take, counted by `meters`. Raises ConfigError when the usual model has no price."""
    prices = None
    if table is not None:
        usual = models[0].name if models else settings.model or ""
        prices = Prices(table, _free(models) | {*functions}, usual=usual, has_list=bool(models))
        prices.check([usual] if usual else [])

    def share(scope: str, turns: int | None) -> Allowance:
        requests, tokens, budget = (
            getattr(settings, f"{name}{scope}") for name in ("requests_per_minute", "tokens_per_minute", "budget")
        )
        return Allowance(requests, tokens, turns, budget)

    return Limits(
        meters=meters,
        most_turns=settings.max_turns or None,
        shed_after=settings.shed_after,
        overall=share("", None),
        per_key=share("_per_key", settings.max_turns_per_key),
        per_session=share("_per_session", settings.max_turns_per_session),
        period=settings.budget_period,
        prices=prices,
    )


def sizes_of(settings: Any) -> Sizes | None:
    """Return what a request may hold; None when that has no bound."""
    sizes = Sizes(settings.max_messages, settings.max_images, settings.max_image)
    return sizes if sizes.are_any else None


def offer_of(settings: Any, toolbox: Toolbox, models: Sequence[Model], jobs: Jobs) -> Offer:
    """Return the tools that models are offered, and how often and for how long they may be called."""
    limits = ToolLimits(settings.tool_rounds, settings.tool_timeout, settings.tool_max_result, settings.debug)
    urls = [where(each, settings.base_url) for each in models] or [settings.base_url]
    return Offer(toolbox, jobs, limits, strict=all(map(knows_strict, urls)))


def _free(models: Sequence[Model]) -> set[str]:
    """Return the names of models that run here."""
    return {EMBEDDED, HOUSED, *(each.name for each in models if each.provider in (EMBEDDED, HOUSED))}
