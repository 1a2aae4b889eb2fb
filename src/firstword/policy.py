"""What is done against silence: how long to wait, whom to ask then, and what the caller hears meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError

P95 = "p95"  # hedge after what nineteen of twenty answers of that model took, lately
ON_CUT = ("apologise", "finish", "error")


@dataclass(frozen=True, slots=True)
class Policy:
    """One App's, or one turn's (`turn.adjust`). Times are seconds.

    turn_timeout: the whole turn, counted from when the request was read.
    fillers, fill_after: one of these is spoken, once, when nothing else was by then, counted from there too; () = none.
    hedge_after: silence of a model that was asked, after which the next one is asked as well; "p95" is learnt per
        model; None asks the next one only when one has failed.
    first_token_timeout: a model that was asked and has not spoken by then has failed.
    reasoning_timeout: the same for one that sends its reasoning meanwhile; None = no longer than for any other.
    stall_timeout: silence inside an answer.
    apology: what the caller hears instead of an error; None = the true error.
    models: who may answer, by name and in order of preference; None = all that the App lists, as it lists them.
    on_cut: what follows words that were cut off: "apologise", "finish" or "error"; None = apologise if there is an
        apology, else error.
    Raises ConfigError.
    """

    hedge_after: float | str | None = 1.2
    first_token_timeout: float = 4.0
    reasoning_timeout: float | None = None
    stall_timeout: float = 5.0
    turn_timeout: float = 60.0
    fillers: tuple[str, ...] = ()
    fill_after: float = 1.5
    apology: str | None = None
    on_cut: str | None = None
    models: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("first_token_timeout", "stall_timeout", "turn_timeout", "fill_after"):
            if not is_time(getattr(self, name)):
                raise ConfigError(f"`{name}` is not a number of seconds over 0.", hint=f"write it like {name}=5.0")
        if self.reasoning_timeout is not None and not is_time(self.reasoning_timeout):
            raise ConfigError("`reasoning_timeout` is neither seconds nor None.", hint="write reasoning_timeout=20")
        if self.hedge_after is not None and self.hedge_after != P95 and not is_time(self.hedge_after):
            raise ConfigError(
                "`hedge_after` is neither seconds, 'p95' nor None.", hint="write hedge_after=1.2, or 'p95', or None"
            )
        fillers = _listed(self.fillers)
        if fillers is None:
            raise ConfigError(
                "`fillers` is not a list of words to say.", hint='write fillers=["One moment. "], or [] for none'
            )
        # The answer follows in the same breath: "One moment.Hello." would be read out as one word.
        spaced = tuple(each if each[-1].isspace() else f"{each} " for each in fillers)
        object.__setattr__(self, "fillers", spaced)
        if self.apology is not None and (not isinstance(self.apology, str) or not self.apology.strip()):
            raise ConfigError("`apology` says nothing.", hint="write what the caller shall hear, or None")
        if self.models is not None:
            models = _listed(self.models)
            if not models:
                raise ConfigError("`models` names nobody who may answer.", hint="write models=['gpt-5-mini'], or None")
            object.__setattr__(self, "models", models)
        if self.on_cut is not None and self.on_cut not in ON_CUT:
            raise ConfigError(f"`on_cut` is none of {', '.join(ON_CUT)}.", hint="write on_cut='finish'")

    @property
    def after_a_cut(self) -> str:
        """What follows words that were cut off."""
        return self.on_cut or ("apologise" if self.apology else "error")


def _listed(value: Any) -> tuple[str, ...] | None:
    """Return a list of words, or whatever gives one, as a tuple; None when it is none, or one of them says nothing."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return None
    listed = tuple(value)
    return listed if all(isinstance(each, str) and each.strip() for each in listed) else None


def is_time(value: Any) -> bool:
    """True for a number of seconds over 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
