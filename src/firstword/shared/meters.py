"""The meters that replicas share: one step in the store takes all that a turn asks for, by the store's own clock.

What a replica holds when it dies is free by itself after a while. What was spent or given back while the store was away
is told to it when it is back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .. import clock
from ..limits.local import LocalMeters
from ..limits.meters import HELD, RATE, SPENT, STORE, Ask, Refusal
from .line import Word
from .script import Script
from .store import AWAY, Store

Without: TypeAlias = Literal["local", "open", "closed"]

RETRY_AFTER = 1.0  # seconds until a turn that was refused because the store is away may try again
FOREVER = 400 * 86_400.0  # seconds without use after which what is spent "for ever" is forgotten
LONGEST = 86_400.0  # seconds that a caller is told to wait for a rate, whatever the store says
LEAST = 0.001  # seconds; the store lets go at once of what lives for none
MAX_OWED = 10_000  # meters whose spending is remembered for a store that is away
MAX_KEPT = 2_000  # turns whose leases are remembered for it: the store takes so many back in some 50 ms

# A rate is kept as the moment when its bucket is full again, and behind it the moment when that was written. One in the
# future was written before the store's clock was put back: what was missing in the bucket then is missing now, or
# whoever has emptied it would be refused for as long as the clock was put back by.
_EMPTY = """
local function put(key, now, full)
  local lasts = math.ceil((full - now) * 1000) + 1000
  redis.call('SET', key, string.format('%.6f %.6f', full, now), 'PX', lasts)
end
local function empty(key, now)
  local full, at = string.match(redis.call('GET', key) or '0', '^(%S+) ?(%S*)$')
  full, at = tonumber(full), tonumber(at) or 0
  if at > now then
    full = full - at + now
    put(key, now, full)
  end
  return math.max(full - now, 0)
end
"""

# What is held is kept as leases with the moment when each is free by itself, and money as a number. All is taken, or
# nothing.
# KEYS: the meters. ARGV: the lease, then of each meter its kind, amount, limit and seconds.
# Returns the position of what there is not enough of, and in how many seconds there is (-1 = unknown); or nothing.
TAKE = Script(
    _EMPTY
    + """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local full = {}
for i, key in ipairs(KEYS) do
  local kind, amount, limit, seconds = ARGV[i*4-2], tonumber(ARGV[i*4-1]), tonumber(ARGV[i*4]), tonumber(ARGV[i*4+1])
  if kind == 'held' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) + amount > limit then return {i, '-1'} end
  elseif kind == 'rate' then
    if limit <= 0 then return {i, '-1'} end
    local missing, worth = empty(key, now), amount * seconds / limit
    local late = math.min(missing + worth - seconds, missing)
    if late > 0.000001 then return {i, string.format('%.6f', late)} end
    full[i] = now + missing + worth
  elseif tonumber(redis.call('GET', key) or 0) >= limit then
    return {i, '-1'}
  end
end
for i, key in ipairs(KEYS) do
  local kind, amount, seconds = ARGV[i*4-2], tonumber(ARGV[i*4-1]), tonumber(ARGV[i*4+1])
  if kind == 'held' then
    for each = 1, amount do redis.call('ZADD', key, now + seconds, ARGV[1] .. ' ' .. each) end
    local lasts = math.ceil(seconds * 1000)
    if redis.call('PTTL', key) < lasts then redis.call('PEXPIRE', key, lasts) end
  elseif kind == 'rate' then
    put(key, now, full[i])
  elseif amount ~= 0 then
    redis.call('INCRBY', key, ARGV[i*4-1])
    redis.call('PEXPIRE', key, math.ceil(seconds * 1000))
  end
end
return {}
"""
)

GIVE_BACK = Script(
    _EMPTY
    + """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
for i, key in ipairs(KEYS) do
  local kind, amount, limit, seconds = ARGV[i*4-2], tonumber(ARGV[i*4-1]), tonumber(ARGV[i*4]), tonumber(ARGV[i*4+1])
  if kind == 'held' then
    for each = 1, amount do redis.call('ZREM', key, ARGV[1] .. ' ' .. each) end
  elseif kind == 'rate' and limit > 0 then
    local full = now + empty(key, now) - amount * seconds / limit
    if full > now then
      put(key, now, full)
    else
      redis.call('DEL', key)
    end
  elseif kind == 'spent' and amount ~= 0 then
    if redis.call('DECRBY', key, ARGV[i*4-1]) > 0 then
      redis.call('PEXPIRE', key, math.ceil(seconds * 1000))
    else
      redis.call('DEL', key)  -- it has forgotten what was taken: nobody may spend more by that
    end
  end
end
"""
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The answer of the store to a turn that asks, once it is awaited."""

    meters: SharedMeters
    asks: Sequence[Ask]
    lease: str
    reply: Awaitable[Any]

    def __await__(self) -> Generator[Any, None, Refusal | None]:
        reply = yield from self.reply.__await__()
        return self.meters.answer(self.asks, self.lease, reply)


@dataclass(frozen=True, slots=True)
class _Back:
    """Leases that are over, and when the store lets go of them by itself, in monotonic seconds."""

    asks: Sequence[Ask]
    lease: str
    until: float


class SharedMeters:
    """Counts in the store. without: what is done while it is away.

    "local": each process counts by itself, with the same limits; "open": nobody is refused; "closed": everybody is.
    """

    def __init__(self, store: Store, without: Without) -> None:
        self._store = store
        self._without = without
        self._local = LocalMeters()
        self._here: dict[str, set[tuple[str, str]]] = {}  # of each lease, what was taken in this process
        self._owed: OrderedDict[str, tuple[Ask, int]] = OrderedDict()  # spent, and not told yet
        self._kept: deque[_Back] = deque()  # given back, and perhaps not there; what came first is first
        store.when_there(self._return)

    def take(self, asks: Sequence[Ask], lease: str) -> Refusal | Awaitable[Refusal | None] | None:
        """Take all of it, or nothing and say why."""
        if not self._store.is_there:
            return self.answer(asks, lease, AWAY)
        self._pay()
        return _Asked(self, asks, lease, self._store.run(TAKE, *self._words(asks, lease)))

    def give_back(self, asks: Sequence[Ask], lease: str) -> None:
        """Take back `amount` of each."""
        here = self._here.pop(lease, set())
        if here:
            self._local.give_back([ask for ask in asks if (ask.name, ask.whose) in here], lease)
        for ask in asks:
            if ask.kind == SPENT:
                self._owe(ask, ask.amount)
        # What is held, also when it was taken here: the store may have been asked, and have been too late.
        held = [ask for ask in asks if ask.kind == HELD]
        rest = held + [ask for ask in asks if ask.kind == RATE and (ask.name, ask.whose) not in here]
        if held:
            lasts = max(ask.seconds or 0.0 for ask in held)
            self._deliver(_Back(held, lease, clock.now() + lasts), rest)
        elif rest:
            self._store.tell_run(GIVE_BACK, *self._words(rest, lease))
        if self._store.is_there:
            self._pay()

    def answer(self, asks: Sequence[Ask], lease: str, reply: Any) -> Refusal | None:
        """Return what the reply of the store means, or what is done without one."""
        if reply == []:
            return None
        try:
            ask, after = asks[int(reply[0]) - 1], float(reply[1])
            return Refusal(ask, ask.seconds if ask.kind == SPENT else min(after, LONGEST) if after >= 0 else None)
        except (TypeError, ValueError, LookupError):
            pass  # it is away, or knows another script by this name
        if self._without == "closed":
            return Refusal(asks[0]._replace(name=STORE), RETRY_AFTER)
        refusal = self._local.take(asks, lease) if self._without == "local" else None
        if refusal is None:
            for ask in asks:
                if ask.kind == SPENT:
                    self._owe(ask, -ask.amount)
            if self._without == "local":
                self._here.setdefault(lease, set()).update((ask.name, ask.whose) for ask in asks)
        return refusal

    def _deliver(self, back: _Back, asks: Sequence[Ask]) -> None:
        """Give back, and remember what is held of it until the store has said that it was done."""

        def delivered(reply: asyncio.Future[Any]) -> None:
            if reply.cancelled() or reply.result() is AWAY:
                self._keep(back)

        self._store.deliver(GIVE_BACK, *self._words(asks, back.lease)).add_done_callback(delivered)

    def _keep(self, back: _Back) -> None:
        if len(self._kept) >= MAX_KEPT:  # what came last was mostly taken when the store was away: it has less of that
            while self._kept and self._kept[0].until < clock.now():
                self._kept.popleft()
        if len(self._kept) < MAX_KEPT:
            self._kept.append(back)

    def _return(self) -> None:
        """Give back once more what may not have come, unless it is free by itself meanwhile. Twice is harmless."""
        kept, self._kept = self._kept, deque()
        for back in kept:
            if clock.now() < back.until:
                self._deliver(back, back.asks)

    def _words(self, asks: Sequence[Ask], lease: str) -> tuple[Any, ...]:
        """Return what a script is told, its keys first."""
        keys = [self._store.name("limit", ask.name, ask.whose) for ask in asks]
        words: list[Word] = [lease]
        for ask in asks:
            seconds = FOREVER if ask.seconds is None else max(ask.seconds, LEAST)
            words += (ask.kind, ask.amount, ask.limit, seconds)
        return (keys, *words)

    def _owe(self, ask: Ask, amount: int) -> None:
        """Remember so much to be given back to the store; what is below zero was spent."""
        key = self._store.name("limit", ask.name, ask.whose)
        owed = self._owed.pop(key, (ask, 0))[1] + amount
        if owed:
            self._owed[key] = (ask, owed)
        if len(self._owed) > MAX_OWED:
            self._owed.popitem(last=False)

    def _pay(self) -> None:
        """Tell the store what was spent while it was away."""
        if self._owed:
            owed = [ask._replace(amount=amount) for ask, amount in self._owed.values()]
            self._owed.clear()
            self._store.tell_run(GIVE_BACK, *self._words(owed, ""))
