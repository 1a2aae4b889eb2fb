"""What one turn takes of the limits, and that all of it comes back, once, however the turn ends.

It asks twice: when its caller is known, before the body is read; and when all is known, before a model is asked.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..admission.callers import household
from ..admission.grant import UNLIMITED, Allowance, Grant
from ..errors import BadRequest, BudgetExceeded, Error, Overloaded, TooManyRequests
from ..turn import Turn
from ..who import caller_of, digest
from .meters import HELD, RATE, SPENT, STORE, Ask, Meters, Refusal
from .prices import MONTH, TOTAL, Price, Prices, millionths, money, period
from .usage import answer_of, prompt_of

MINUTE = 60.0
LASTS = 600.0  # seconds after which what a turn holds is free, if whoever held it is gone
MANY = 1_000_000
SOON = 1.0  # seconds until one of the turns in progress may be over
TURNS, REQUESTS, TOKENS, BUDGET = "max_turns", "requests_per_minute", "tokens_per_minute", "budget"
PER_KEY, PER_SESSION = "_per_key", "_per_session"
WHO = {"": "The server", PER_KEY: "This client", PER_SESSION: "This session"}
WHAT = {
    TURNS: "has {} turns in progress, and may have no more.",
    REQUESTS: "has made its {} requests of this minute.",
    TOKENS: "has used its {} tokens of this minute.",
    BUDGET: "has spent its budget.",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How much may be taken, and what was.

    overall, per_session, per_key: by all callers, each session, and each client whose key says nothing else.
    period: in which the budget of a client, and that of all, may be spent: "day", "month" or "total".
    prices: what models cost; None = nobody wants to know.
    refused: requests that were, by the limit's name. cost: in millionths, by model.
    """

    meters: Meters
    overall: Allowance = UNLIMITED
    per_key: Allowance = UNLIMITED
    per_session: Allowance = UNLIMITED
    period: str = MONTH
    prices: Prices | None = None
    refused: Counter[str] = field(default_factory=Counter)
    cost: Counter[str] = field(default_factory=Counter)

    @property
    def are_any(self) -> bool:
        """True when there is something to count for every turn."""
        return self.prices is not None or not self.overall == self.per_key == self.per_session == UNLIMITED


class Lease:
    """What one turn holds."""

    __slots__ = ("_asked", "_key", "_name", "_pending", "_taken", "_terms", "_turn")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._name = os.urandom(8).hex()
        self._key: tuple[str, Allowance] = ("", terms.per_key)
        self._asked: list[Ask] = []  # what is being asked for, of whoever has not answered yet
        self._taken: list[Ask] = []
        self._pending: Awaitable[Refusal | None] | None = None
        self._turn: Turn | None = None

    def enter(self, grant: Grant, address: str) -> Error | None:
        """Ask for what can be asked before the body is read. Returns why there is none, if that is known at once.

        address: where the caller is, for one who has no key; empty = on this machine.
        """
        allowance = _of_key(grant.allowance, self._terms.per_key)
        whose = whose_key(grant, address)
        self._key = (whose, allowance)
        asks = _at_the_door("", "", self._terms.overall) + _at_the_door(PER_KEY, whose, allowance)
        return self._refused(self._take(asks))

    async def hold(self, turn: Turn, is_again: Callable[[Turn], bool] | None = None) -> Error | None:
        """Ask for the rest. Returns why there is none. In this process nothing is waited for.

        is_again: says whether the turn is one in progress, sent again: it takes that one's place in its session.
        Raises BadRequest for a model without a price, where there is a budget.
        """
        refusal = await self._answer()
        if refusal is None:
            refusal = self._refused(self._take(self._of_turn(turn, is_again)))
        if refusal is None:
            refusal = await self._answer()
        return refusal

    def settle(self) -> None:
        """Say what the turn has cost, once it is over. Doing it twice is harmless."""
        turn, prices = self._turn, self._terms.prices
        if turn is None or turn.used is None or prices is None or turn.cost is not None:
            return
        whole = 0
        for used in turn.used:
            price = prices.of(used.model)
            if price is not None:
                cost = price.of(used)
                whole += cost
                self._terms.cost[prices.label(used.model)] += cost
        turn.cost = money(whole)

    def release(self) -> None:
        """Give back what is held, and what was not used. Doing it twice is harmless."""
        self.settle()  # done already, unless the turn ended in the middle of its end
        taken, self._taken = self._taken, []
        back = [ask for ask in self._asked if ask.kind == HELD]  # nobody knows whether that was taken
        self._asked = []
        turn, self._turn = self._turn, None
        tokens = cost = 0
        if turn is not None:
            tokens = sum(used.prompt + used.completion for used in turn.used or ())
            cost = 0 if turn.cost is None else int(turn.cost.scaleb(6))
        for ask in taken:
            if ask.kind == HELD:
                back.append(ask)
            elif ask.name.startswith(TOKENS):
                back.append(ask._replace(amount=ask.amount - tokens))
            elif ask.kind == SPENT:
                back.append(ask._replace(amount=ask.amount - cost))
        back = [ask for ask in back if ask.amount]
        if back:
            self._terms.meters.give_back(back, self._name)

    # --- what is asked for --------------------------------------------------------------------------

    def _of_turn(self, turn: Turn, is_again: Callable[[Turn], bool] | None) -> list[Ask]:
        """Return what is asked for when the turn is known, and begin to count its tokens where somebody wants to know.

        Raises BadRequest.
        """
        terms = self._terms
        whose, allowance = self._key
        scopes = [("", "", terms.overall), (PER_KEY, whose, allowance)]
        asks: list[Ask] = []
        session = None if terms.per_session == UNLIMITED else _whose_session(turn)
        if session is not None:
            scopes.append((PER_SESSION, session, terms.per_session))
            asks += _at_the_door(PER_SESSION, session, terms.per_session)
            if terms.per_session.concurrent is not None and is_again is not None and is_again(turn):
                # The older one is on its way out: there are two for a moment only.
                asks = [ask._replace(limit=MANY) if ask.kind == HELD else ask for ask in asks]
        scopes = [scope for scope in scopes if scope[2].tokens is not None or scope[2].budget is not None]
        if scopes:
            asks += self._of_tokens(turn, scopes)
        if scopes or terms.prices is not None:
            self._turn, turn.used = turn, []
        return asks

    def _of_tokens(self, turn: Turn, scopes: Sequence[tuple[str, str, Allowance]]) -> list[Ask]:
        terms = self._terms
        asks: list[Ask] = []
        price = None if terms.prices is None else terms.prices.expected(turn.model)
        prompt, answer = prompt_of(turn.request), answer_of(turn.request)
        for scope, whose, share in scopes:
            if share.tokens is not None:
                asks.append(Ask(TOKENS + scope, whose, RATE, prompt + answer, _whole(share.tokens), MINUTE))
            if share.budget is not None:
                when, left = period(TOTAL if scope == PER_SESSION else terms.period, time.time())
                cost = _priced(price).guess(prompt, answer)
                asks.append(Ask(BUDGET + scope, f"{whose} {when}", SPENT, cost, millionths(share.budget), left))
        return asks

    def _take(self, asks: list[Ask]) -> Refusal | None:
        """Take it, or leave what answers later in `_pending`."""
        if not asks:
            return None
        answer = self._terms.meters.take(asks, self._name)
        if answer is None:
            self._taken += asks
        elif isinstance(answer, Refusal):
            return answer
        else:
            self._asked, self._pending = asks, answer
        return None

    async def _answer(self) -> Error | None:
        """Wait for what answers later, if anything does."""
        if self._pending is None:
            return None
        refusal = await self._pending
        if refusal is None:
            self._taken += self._asked
        self._asked, self._pending = [], None
        return self._refused(refusal)

    def _refused(self, refusal: Refusal | None) -> Error | None:
        if refusal is None:
            return None
        self._terms.refused[refusal.ask.name] += 1
        return told(refusal)


def _priced(price: Price | None) -> Price:
    if price is None:
        said = "This model has no price, and what it costs is held against a budget."
        raise BadRequest(said, param="model", hint="name another, or let the operator add it to FIRSTWORD_PRICES")
    return price


def _at_the_door(scope: str, whose: str, share: Allowance) -> list[Ask]:
    """Return what each request takes, whatever it says."""
    asks = []
    if share.requests is not None:
        asks.append(Ask(REQUESTS + scope, whose, RATE, 1, _whole(share.requests), MINUTE))
    if share.concurrent is not None:
        asks.append(Ask(TURNS + scope, whose, HELD, 1, share.concurrent, LASTS))
    return asks


def _of_key(own: Allowance, usual: Allowance) -> Allowance:
    """Return what a key may take: what its own line says, else the usual."""
    if own == UNLIMITED:
        return usual
    return Allowance(
        usual.requests if own.requests is None else own.requests,
        usual.tokens if own.tokens is None else own.tokens,
        usual.concurrent if own.concurrent is None else own.concurrent,
        usual.budget if own.budget is None else own.budget,
    )


def _whole(limit: float) -> int:
    return max(round(limit), 1) if limit > 0 else 0


def whose_key(grant: Grant, address: str) -> str:
    """Return whose limits a request is held against: the gate key's name, else the session that a URL was signed for,
    else the caller's own key, else the address.

    Of a key and of a session only a digest. Of an IPv6 address the half that a network gives away as one.
    """
    if grant.name:
        return f"key {grant.name}"
    if grant.session is not None:  # all calls of an engine come from its few addresses
        return f"session {digest(grant.session)}"
    if grant.key is not None:
        return f"caller {hashlib.sha256(grant.key.encode()).hexdigest()[:32]}"
    return f"at {household(address)}" if address else "at this machine"


def _whose_session(turn: Turn) -> str | None:
    """Return whose limits a turn of a session is held against; None when it is of none.

    A session that the gate knows is one, whatever the body says of channels and agents.
    """
    grant = turn.grant
    return caller_of(turn) if grant.session is None else digest([grant.name, grant.session])


def told(refusal: Refusal) -> Error:
    """Return what a caller is told of a refusal: which limit it was, in words, and when there is more."""
    ask, after = refusal
    scope = next((end for end in (PER_KEY, PER_SESSION) if ask.name.endswith(end)), "")
    what = ask.name.removesuffix(scope)
    if what == STORE:
        said = "The server cannot count its limits just now, and takes no turns without."
        return Overloaded(said, retry_after=after or SOON, hint="ask again soon")
    said = f"{WHO[scope]} {WHAT[what].format(ask.limit)}"
    if what == BUDGET:
        hint = "its operator can raise it" if after is None else f"there is more in {_time(after)}"
        return BudgetExceeded(said, retry_after=after, hint=hint)
    if what == TURNS:
        return TooManyRequests(said, retry_after=SOON, hint="ask again when one of them is over")
    if after is None:
        return TooManyRequests(said, hint="its operator can raise the limit")
    return TooManyRequests(said, retry_after=after, hint=f"there is more in {_time(after)}")


def _time(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 100:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.0f} hours"
