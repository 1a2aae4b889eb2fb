"""Talk to an App on a clock that jumps: the models are scripted, and the caller tells what was heard, and when.

Rules:
- The App, its server, stages, race, pool and HTTP are the real ones; see `firstword.testing.wires` for the rest.
- A user's own App is played by a copy: it stays as it was, and may go on to be changed and served.
- A caller needs no gate key, since the gate is not what is tested. A model without a key of its own gets the caller's
  if the App passes keys on; if it does not, it fails as it would on the phone.
- Whatever is left open at the end is an error: a connection, a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from dataclasses import fields, replace
from typing import Any

import msgspec

from firstword import App, CallNext, ConfigError, Model, Policy, Send, Turn, clock, plugins
from firstword.admission import Gate
from firstword.providers import Remote
from firstword.testing.clock import JumpingLoop, run
from firstword.testing.exchange import echo
from firstword.testing.models import Scripted
from firstword.testing.score import DIGITS, Ear, Score
from firstword.testing.wires import CALL, Call, Wires, as_models
from firstword.testing.witness import Record
from firstword.transport.connection import DRAIN_TIMEOUT

NAMES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
FILLER = "One moment. "
HEADERS = {"host": "voice.test", "content-type": "application/json", "authorization": "Bearer the-caller"}
POLICY = frozenset(each.name for each in fields(Policy))


async def talk(
    app: App | None = None,
    *,
    models: Scripted | Sequence[Scripted] | None = None,
    say: str | Sequence[Mapping[str, Any]] = "Hello",
    leaves: float | None = None,
    stream: bool = True,
    request: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "/chat/completions",
    **settings: Any,
) -> Score:
    """Have one turn with an App on a clock that jumps, and return what the caller heard, and when.

    app: your own; its hooks, stages and functions are asked as they are. Without one, an App is made of `settings`
        (what `App` takes) in front of as many models as there are, called "first", "second" and so on.
    models: what the App's remote models do, in the order in which it lists them: a script each, or one for a single
        model. Without them every model repeats what the caller said.
    say: the caller's words, or a whole conversation. `request` holds more fields of the body, `headers` of the head.
    leaves: seconds after which the caller hangs up.
    settings: of an App of your own, the fields of `Policy` for this turn: `fill_after=0.8`.
    Raises RuntimeError when something was left open, or can never go on; ConfigError for settings that are wrong.
    """

    async def call() -> Score:
        async with Phone(app, models=models, **settings) as phone:
            return await phone.talk(say, leaves=leaves, stream=stream, request=request, headers=headers, path=path)

    return await run(call)


class Phone:
    """A line to one App, for several turns: what the App learns in one, as that a model fails, it knows in the next.

    Used within `run`: `async with Phone(models=[...]) as phone: await phone.talk("Hello")`. Takes what `talk` takes.
    """

    def __init__(
        self, app: App | None = None, *, models: Scripted | Sequence[Scripted] | None = None, **settings: Any
    ) -> None:
        scripts = None if models is None else as_models(models)
        if app is not None and not isinstance(app, App):
            raise ConfigError("That is not an App.", hint="of an application that mounts one, give the App itself")
        if app is None:
            app = _made(1 if scripts is None else len(scripts), settings)
            settings = {}
        self.app, self._wires = _played(app, scripts, settings)

    async def __aenter__(self) -> Phone:
        if not isinstance(asyncio.get_running_loop(), JumpingLoop):
            raise RuntimeError("A Phone rings on a clock that jumps only.\nhint: use it within `await run(main)`")
        server = self.app._build().server
        server._handler = _noting(server._handler)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        await loop.settle()
        if self._wires.in_use:
            await asyncio.sleep(DRAIN_TIMEOUT)  # an answer that was whole may still have its last bytes to send
        left = self._wires.in_use
        await self.app.close()
        await loop.settle()  # the models' side of each connection ends as well
        if kind is None and left:
            raise RuntimeError(
                f"Connections to models are in use although every turn is over: {left}.\n"
                "hint: whoever takes one from the pool must `release` it"
            )

    @property
    def seen(self) -> list[Record]:
        """All requests that reached the models so far, and what became of each and of its connection."""
        return list(self._wires.ledger.records)

    async def talk(
        self,
        say: str | Sequence[Mapping[str, Any]] = "Hello",
        *,
        leaves: float | None = None,
        stream: bool = True,
        request: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/chat/completions",
    ) -> Score:
        """Have one turn, as `talk` does; several may run at once. Its seconds count from here."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        call, ear = Call(clock.now()), Ear()
        body = self._body(say, stream, request or {})
        token = CALL.set(call)
        try:
            await self._call(call, ear, leaves, scope_of(path, headers or {}, len(body)), body)
        finally:
            CALL.reset(token)
        score = ear.score
        score.ended = round(clock.now() - call.began, DIGITS)
        await loop.settle()
        call.check()
        score.asked = [(round(at - call.began, DIGITS), name) for at, name in call.asked]
        score.seen, score.turn, score.left_open = call.seen, call.turn, self._wires.left_open(call)
        return score

    def _body(self, say: str | Sequence[Mapping[str, Any]], stream: bool, fields: Mapping[str, Any]) -> bytes:
        messages = [{"role": "user", "content": say}] if isinstance(say, str) else say
        named = {} if self.app.settings.model else {"model": "any"}
        return msgspec.json.encode({**named, "messages": messages, "stream": stream, **fields})

    async def _call(self, call: Call, ear: Ear, leaves: float | None, scope: dict[str, Any], body: bytes) -> None:
        """Be the voice engine of one request, and hear the reply until it ends or the caller leaves."""
        incoming = [{"type": "http.request", "body": body}]
        has_left = False

        async def receive() -> MutableMapping[str, Any]:
            nonlocal has_left
            if incoming:
                return incoming.pop()
            if leaves is None:
                await asyncio.get_running_loop().create_future()
            else:
                await asyncio.sleep(call.began + leaves - clock.now())
            has_left = True
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if not has_left:
                ear.hears(message, clock.now() - call.began)

        await self.app(scope, receive, send)


# --- the App that is talked to --------------------------------------------------------------------


def scope_of(path: str, headers: Mapping[str, str], size: int) -> dict[str, Any]:
    """Return what ASGI says of a request."""
    target, _, query = path.partition("?")
    named = {**HEADERS, **headers, "content-length": str(size)}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in named.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("voice.test", 80),
    }


def _made(count: int, settings: Mapping[str, Any]) -> App:
    """Return an App in front of `count` models, each at a place of its own."""
    filled = {"fillers": [FILLER]} if "fill_after" in settings else {}
    given = {**filled, **settings}
    if count == 1:
        return App(**{"base_url": "http://first.test/v1", "model": NAMES[0], **given})
    names = [*NAMES, *(f"model-{number}" for number in range(len(NAMES) + 1, count + 1))][:count]
    return App([Model(name, base_url=f"http://{name}.test/v1", api_key="scripted") for name in names], **given)


def _played(app: App, scripts: Sequence[Scripted] | None, changes: Mapping[str, Any]) -> tuple[App, Wires]:
    """Return a copy of `app` whose models are played by `scripts`, and the way to them."""
    unknown = sorted(changes.keys() - POLICY)
    if unknown:
        raise ConfigError(
            f"`{unknown[0]}` is not a field of Policy.", hint="an App of your own brings all its other settings itself"
        )
    listed, policy = app._written.models, app._written.policy
    remotes = [each.name for each in listed if isinstance(plugins.load("providers", each.provider), Remote)]
    wanted = len(remotes) if listed else 1
    if scripts is None:
        scripts = [echo] * wanted
    if len(scripts) != wanted:
        raise ConfigError(
            f"The App has {wanted} models to be played, and `models` has {len(scripts)} scripts.",
            hint=f"write one for each, in the order of the App: {', '.join(remotes) or 'the one at base_url'}",
        )
    if "fill_after" in changes and not policy.fillers:
        changes = {"fillers": (FILLER,), **changes}
    named = dict(zip(remotes, scripts, strict=True)) if listed else {}
    wires = Wires(named, echo if named else scripts[0], connect_timeout=app.settings.connect_timeout)
    gate = Gate([], holds_key=not app.gate.passes_keys, open_to_all=True)
    return app._twin(wires, policy=replace(policy, **changes), gate=gate), wires


def _noting(handler: CallNext) -> CallNext:
    """Return what answers turns as `handler` does, and tells each call which turn it has become."""

    def answer(turn: Turn, send: Send) -> Awaitable[None]:
        call = CALL.get()
        if call is not None:
            call.turn = turn
        return handler(turn, send)

    return answer
