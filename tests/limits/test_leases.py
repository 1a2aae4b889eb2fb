"""What a turn holds comes back, once, whatever happens to it: at every step the caller leaves, or something fails.

Every limit is on. The meters are those of the process behind a ledger, which notes what each turn takes and gives back;
they answer at once, or later, as a store that many share does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Turn
from firstword.admission.grant import Allowance, Grant
from firstword.limits import Limits
from firstword.limits.local import LocalMeters
from firstword.limits.meters import HELD, Ask, Refusal
from firstword.limits.prices import Prices, read_prices
from firstword.testing import Upstream, script

SAYS = script.events(script.says("Hello there, friend."))
SLOWLY = [step for each in SAYS for step in ([each, script.wait(0.003)] if each["do"] == "send" else [each])]
ALL = Allowance(requests=100_000, tokens=10_000_000, concurrent=100, budget=1000.0)


class Ledger(LocalMeters):
    """Meters that note what is held by whom. With `later` they answer after a few steps of the loop, in order.

    Who gives back while it is being asked for does not know whether it has it; what it never had is then no mistake.
    """

    def __init__(self, *, later: bool) -> None:
        super().__init__()
        self.later = later
        self.takes = 0
        self.refuses = False
        self.held: Counter[tuple[str, str]] = Counter()
        self.lost: list[str] = []
        self.asked: dict[str, asyncio.Task[Refusal | None]] = {}  # by lease
        self.unsure: set[str] = set()

    def take(self, asks: Sequence[Ask], lease: str) -> Any:
        """Take it, now or a little later."""
        self.takes += 1
        if not self.later:
            return self._answer(asks, lease)
        self.asked[lease] = asyncio.ensure_future(self._later(asks, lease))
        self.asked[lease].add_done_callback(lambda task: self._over(task, lease))
        return self.asked[lease]

    def _over(self, task: asyncio.Task[Refusal | None], lease: str) -> None:
        del self.asked[lease]
        if task.cancelled():  # as who awaited it was
            self.unsure.add(lease)

    async def _later(self, asks: Sequence[Ask], lease: str) -> Refusal | None:
        for _ in range(3):
            await asyncio.sleep(0)
        return self._answer(asks, lease)

    def _answer(self, asks: Sequence[Ask], lease: str) -> Refusal | None:
        if self.refuses:
            return Refusal(asks[-1], 1.0)
        refusal = super().take(asks, lease)
        if refusal is None:
            self.held.update((ask.name, lease) for ask in asks if ask.kind == HELD)
        return refusal

    def give_back(self, asks: Sequence[Ask], lease: str) -> None:
        """Take it back, behind what is being asked for."""
        if lease in self.asked:
            self.asked[lease].add_done_callback(lambda _: self._back(asks, lease, is_sure=False))
        else:
            self._back(asks, lease, is_sure=lease not in self.unsure)

    def _back(self, asks: Sequence[Ask], lease: str, *, is_sure: bool) -> None:
        for ask in asks:
            if ask.kind == HELD and not self.held[ask.name, lease]:
                if is_sure:
                    self.lost.append(ask.name)
                continue
            if ask.kind == HELD:
                self.held[ask.name, lease] -= 1
            super().give_back([ask], lease)

    def check(self) -> None:
        """Assert that all is back."""
        assert not self.asked
        assert not self.lost and not +self.held, (self.lost, self.held)
        assert self._held == {}


def with_limits(app: App, meters: LocalMeters) -> Limits:
    """Put all limits on an App."""
    prices = Prices(read_prices("* input=1 output=1"))
    limits = Limits(most_turns=1000, meters=meters, overall=ALL, per_key=ALL, per_session=ALL, prices=prices)
    app._build().server.limits = limits
    return limits


@asynccontextmanager
async def app_on(upstream: Upstream, *, later: bool, **more: Any) -> AsyncIterator[tuple[App, Limits, Ledger]]:
    """An App on the test's own loop; all that was taken is back in the end."""
    meters = Ledger(later=later)
    app = App(base_url=upstream.base_url, warm=False, hedge_share=0, **more)
    limits = with_limits(app, meters)
    yield app, limits, meters
    await app.close()
    await settled()
    assert limits.turns == 0
    meters.check()


class Line:
    """An ASGI server's side of one request; the n-th `send` or `receive` fails."""

    def __init__(self, body: dict[str, Any] | bytes, *, send_fails: int = 0, receive_fails: int = 0) -> None:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        half = len(data) // 2
        self.incoming = [{"body": data[:half], "more_body": True}, {"body": data[half:]}]
        self.sent = self.received = 0
        self.send_fails, self.receive_fails = send_fails, receive_fails
        self.status = 0

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        await asyncio.sleep(0)
        if self.received == self.receive_fails:
            return {"type": "http.disconnect"}
        if self.incoming:
            return {"type": "http.request", **self.incoming.pop(0)}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.sent += 1
        if self.sent == self.send_fails:
            raise OSError
        self.status = message.get("status", self.status)

    async def ask(self, app: App, path: str = "/s/7/chat/completions", method: str = "POST") -> None:
        scope = {"type": "http", "method": method, "path": path, "headers": [], "client": ("10.0.0.1", 1)}
        await app(scope, self.receive, self.send)  # type: ignore[arg-type]


async def settled() -> None:
    """Wait until meters that answer later have answered."""
    for _ in range(10):
        await asyncio.sleep(0)


LATER = pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])


@LATER
@pytest.mark.parametrize("fails", ["send_fails", "receive_fails"])
async def test_the_nth_step_of_the_line_fails(upstream: Upstream, marker: str, fails: str, later: bool) -> None:
    """The caller is gone: before the body is there, in the middle of it, at each word."""
    async with app_on(upstream, later=later) as (app, limits, meters):
        for count in range(1, 30):
            body = turn(user=f"{marker} {count}", script=SLOWLY)
            line = Line(body, send_fails=count) if fails == "send_fails" else Line(body, receive_fails=count)
            await asyncio.wait_for(line.ask(app), 5)
            await settled()
            meters.check()
            assert limits.turns == 0
            if max(line.sent, line.received) < count:
                break
        assert count > 2 and meters.takes > 2


@LATER
async def test_the_task_is_cancelled_after_its_nth_step(upstream: Upstream, marker: str, later: bool) -> None:
    """A server that stops cancels the task wherever it is: also while the meters are being asked."""
    async with app_on(upstream, later=later) as (app, limits, meters):
        was_held = 0
        for count in range(60):
            line = Line(turn(user=f"{marker} {count}", script=SLOWLY))
            task = asyncio.ensure_future(line.ask(app))
            for _ in range(count):
                await asyncio.sleep(0)
            was_held += bool(+meters.held)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await settled()
            assert limits.turns == 0, count
            meters.check()
        assert was_held > 10


REQUESTS: dict[str, Any] = {
    "no JSON": b"{",
    "no messages": {},
    "no body": b"",
    "a model that fails": turn(script=script.refuses(500)),
    "a model that is cut off": turn(script=script.closes_after("Hello")),
    "a model that refuses": turn(script=script.refuses(400)),
    "a whole answer": turn(script=SAYS),
    "a reply in one piece": turn(script=SAYS, stream=False),
    "the demo": turn(model="demo", stream=False),
    "no such model": turn(model="local"),
}


@LATER
@pytest.mark.parametrize("refuses", [False, True], ids=["let in", "refused"])
async def test_any_request(upstream: Upstream, later: bool, refuses: bool) -> None:
    """Whatever it is, and whatever the meters say to it."""
    async with app_on(upstream, later=later) as (app, limits, meters):
        meters.refuses = refuses
        for name, body in REQUESTS.items():
            for path in ("/s/7/chat/completions", "/vapi/s/8/chat/completions", "/chat/completions"):
                for method in ("POST", "GET"):
                    line = Line(body)
                    await asyncio.wait_for(line.ask(app, path, method), 10)
                    assert line.status, name
                    await settled()
                    meters.check()
                    assert limits.turns == 0, name


def test_a_lease_is_given_back_once() -> None:
    """Whoever ends a turn a second time takes nothing from another one."""
    meters = Ledger(later=False)
    limits = Limits(meters=meters, per_key=Allowance(concurrent=2))
    leases = [limits.lease(Grant("shop")) for _ in range(2)]
    for lease in leases:
        assert lease is not None and lease.enter(Grant("shop"), "") is None
    for _ in range(2):
        assert leases[0] is not None
        leases[0].release()
    assert meters._held == {("max_turns_per_key", "key shop"): 1} and not meters.lost


async def test_a_refusal_that_comes_later_is_told_all_the_same(upstream: Upstream) -> None:
    """A store is asked while the body is read: what it says is heard before a model is asked."""
    async with app_on(upstream, later=True) as (app, _, meters):
        meters.refuses = True
        line = Line(turn(script=SAYS))
        await line.ask(app)
        assert line.status == 429 and meters.takes == 1


@LATER
async def test_hooks_and_stages_that_fail(upstream: Upstream, later: bool) -> None:
    """The user's own code raises, exits or is cancelled, at each place where it is called."""
    for place in ("before_turn", "on_chunk", "after_turn", "stage"):
        for error in (ValueError("no"), SystemExit(1), asyncio.CancelledError()):
            if place == "after_turn" and not isinstance(error, ValueError):
                continue
            meters = Ledger(later=later)
            app = App(base_url=upstream.base_url, warm=False, hedge_share=0)
            _spoil(app, place, error)
            limits = with_limits(app, meters)
            line = Line(turn(script=SAYS))
            await asyncio.wait_for(asyncio.gather(line.ask(app), return_exceptions=True), 10)
            await app.close()
            await settled()
            meters.check()
            assert limits.turns == 0


def _spoil(app: App, place: str, error: BaseException) -> None:
    if place == "stage":

        @app.stage
        async def stage(turn: Turn, send: Any, call_next: Any) -> None:
            raise error

    else:

        def hook(turn: Turn) -> None:
            raise error

        def on_chunk(turn: Turn, chunk: Any) -> None:
            raise error

        getattr(app, place)(on_chunk if place == "on_chunk" else hook)


# --- real servers and callers -----------------------------------------------------------------------


@pytest.fixture
def line(serve: Callable[[App], Served], upstream: Upstream) -> tuple[Served, Ledger]:
    """A server with every limit on."""
    served = serve(App(base_url=upstream.base_url, first_token_timeout=0.5, turn_timeout=1, hedge_share=0))
    meters = Ledger(later=False)

    async def put() -> None:
        with_limits(served.app, meters)

    served.run(put)
    return served, meters


async def all_is_back(served: Served, meters: Ledger) -> None:
    """Assert that nothing is held, once the turns' last steps are done."""
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}
    meters.check()
    assert served.app._built.server.limits.turns == 0  # type: ignore[union-attr]


async def test_callers_who_hang_up(line: tuple[Served, Ledger], upstream: Upstream, marker: str) -> None:
    """In the middle of the body, before the first word, after it, and with the answer on its way."""
    served, meters = line
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /s/7/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()
    for words in ("", "Hello"):
        steps = [script.head(200, script.EVENT_STREAM), script.role(), *([script.text(words)] if words else [])]
        name = f"{marker} {words}"
        async with Caller(served.url).dials(turn(user=name, script=[*steps, script.wait()])) as call:
            await upstream.wait_asked(name)
            if words:
                await call.hears_word(words)
            assert +meters.held
    await all_is_back(served, meters)
    assert meters.takes >= 5


async def test_turns_that_end_otherwise(line: tuple[Served, Ledger]) -> None:
    """Its time is over; it is sent again and again; several hear one reply; the provider is not there."""
    served, meters = line
    caller = Caller(served.url)
    assert (await caller.says(script=script.never_answers())).status == 504
    stuck = turn(script=[script.head(200, script.EVENT_STREAM), script.text("Hi"), script.wait()])
    for path in ("/s/7/chat/completions", "/tavus/s/7/chat/completions"):
        heard = await asyncio.gather(*(caller.hears(stuck, path=path) for _ in range(4)))
        assert all(each.status in (200, 409, 504) for each in heard)
    await all_is_back(served, meters)


async def test_the_server_stops_in_the_middle(serve: Callable[[App], Served], upstream: Upstream, marker: str) -> None:
    """Its patience ends before the turn does."""
    meters = Ledger(later=False)
    app = App(base_url=upstream.base_url, first_token_timeout=20, hedge_share=0)
    served = Served(app, timeout_graceful_shutdown=0)

    async def put() -> Awaitable[None] | None:
        with_limits(app, meters)
        return None

    served.run(put)
    async with Caller(served.url).dials(turn(user=marker, script=script.never_answers())):
        await upstream.wait_asked(marker)
        assert +meters.held
        await asyncio.to_thread(served.stop)
    meters.check()
    assert app._built is not None and app._built.server.limits.turns == 0
