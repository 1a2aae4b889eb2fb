"""App: what the user wrote down, built once into a server. The only room that knows every other.

It reads the settings, puts the stages in order, and freezes with the first turn: what is added later would
answer some callers and not others.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar, overload

from . import plugins
from .act import Actions, act
from .admission import Gate
from .call_tools import Offer, call_tools
from .errors import ConfigError
from .fill import fill
from .health import Budget
from .hooks import ChunkHook, Hook, before, call, check_takes, on_chunk
from .jobs import Jobs
from .model import Model
from .own import own
from .roster import DIALECT, EMBEDDED, Roster, as_model, check_new, where
from .server import Bounds, Server
from .telemetry import Counts
from .toolbox import Toolbox, knows_strict
from .tools.function import Function
from .transport import Origin, Proxy, Transport, read_proxy, split
from .turn import CallNext, Stage, Turn, compose, foreign
from .use import Limits

log = logging.getLogger("firstword")

F = TypeVar("F", bound=Callable[..., Any])

GARBAGE = 10_000  # things made before the collector looks: a turn leaves hardly any behind, and a look holds up all
THREADS = 64  # for plain functions; Python's own choice is a handful
LEFT_OUT = ""  # for what None is a value of


class App:
    """A custom LLM server, and an ASGI application: run it, or mount it into another one.

    models: what may answer, in order of preference: `Model(...)`, "gpt-5-mini", or "groq:llama-3.3-70b-versatile".
        The one that a request names is asked first; any other name means the order as written. Without `models` the
        request's name goes to `base_url` as it is.
    base_url, api_key: the OpenAI-compatible API behind the server, and the server's own key for it; without a key
        each caller's goes through.
    keys: gate keys of the callers, for a server with a key of its own; `open=True` lets everybody in.
    What is done against silence: see Policy. `hedge_share` is the share of turns that may cost a second request.
    Times are seconds, sizes bytes. What is left out comes from the environment; the README's table lists all.
    Raises ConfigError, which names the setting and the mend.
    """

    def __init__(
        self,
        models: Sequence[Model | str] = (),
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        keys: Sequence[str] | None = None,
        open: bool | None = None,
        platform: str | None = None,
        max_body: int | None = None,
        body_timeout: float | None = None,
        connect_timeout: float | None = None,
        first_token_timeout: float | None = None,
        reasoning_timeout: float | None = None,
        stall_timeout: float | None = None,
        turn_timeout: float | None = None,
        hedge_after: float | str | None = LEFT_OUT,
        hedge_share: float | None = None,
        fillers: Sequence[str] | None = None,
        fill_after: float | None = None,
        apology: str | None = None,
        on_cut: str | None = None,
        tool_rounds: int | None = None,
        tool_timeout: float | None = None,
        tool_max_result: int | None = None,
        agora_app_id: str | None = None,
        agora_basic_key: str | None = None,
        agora_basic_secret: str | None = None,
        agora_area: str | None = None,
        agora_agents_api_base_url: str | None = None,
        warm: bool | None = None,
        debug: bool | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "models")}
        given["hedge_after"] = "none" if hedge_after is None else hedge_after
        try:
            self._write_down(models, given)
        except ConfigError as error:
            # In a file that is run (`python3 custom_llm.py`) this is the operator's mistake: a sentence is enough.
            if sys._getframe(1).f_globals.get("__name__") == "__main__":
                raise SystemExit(f"firstword: {error}") from None
            raise

    def _write_down(self, models: Sequence[Model | str], given: dict[str, Any]) -> None:
        from .settings import load  # here, because pydantic doubles the time of `import firstword`

        self.settings = load(**given)
        if isinstance(models, (str, Model)):
            raise ConfigError("`models` is not a list.", hint="write models=['gpt-5-mini']")
        self._models = [_keyed(as_model(each)) for each in models or self.settings.models]
        self._platform = plugins.load("platforms", self.settings.platform)
        self._functions: dict[str, CallNext] = {}
        self._stages: list[Stage] = []
        self._before: list[Hook] = []
        self._on_chunk: list[ChunkHook] = []
        self._after: list[Hook] = []
        self._toolbox = Toolbox(getattr(self._platform, "engine_tools", frozenset()))
        self._jobs = Jobs()
        self._opening: asyncio.Future[None] | None = None  # of the tools' sources
        self._server: Server | None = None
        self._transport: Transport | None = None
        self._roster: Roster | None = None
        self._policy = self.settings.policy()
        self._extra = Budget(self.settings.hedge_share)
        # What cannot work is told now, not in the first call: a wrong URL, key, proxy, name or provider.
        for each in [Model("any", self.settings.base_url, self._held_key), *self._models]:
            plugins.load("providers", each.provider)
            _proxy_for(split(where(each, self.settings.base_url))[0])
        for position, each in enumerate(self._models):
            check_new(each.name, (other.name for other in self._models[:position]))
        keys = [key.get_secret_value() for key in self.settings.keys]
        holds_key = self._held_key is not None or any(model.api_key for model in self._models)
        self.gate = Gate(keys, holds_key=holds_key, open_to_all=self.settings.open)

    # --- what the user writes down -----------------------------------------------------------------

    def before_turn(self, hook: F) -> F:
        """Call `hook(turn)` before the model is asked: change `turn.messages`, or raise a RequestError."""
        self._check_thawed("before_turn")
        check_takes(hook, "turn")
        self._before.append(hook)
        return hook

    def on_chunk(self, hook: F) -> F:
        """Call `hook(turn, chunk)` with every chunk that leaves; if it returns a Chunk, that one leaves instead.

        It is a plain function, and runs on the event loop in the middle of a reply: it must not wait for anything.
        """
        self._check_thawed("on_chunk")
        if inspect.iscoroutinefunction(hook):
            raise ConfigError("An on_chunk hook is async.", hint="write a plain `def`, or a stage if it has to wait")
        check_takes(hook, "turn", "chunk")
        self._on_chunk.append(hook)
        return hook

    def after_turn(self, hook: F) -> F:
        """Call `hook(turn)` when the turn is over, off the reply's path; `turn.reply.text` is what was sent."""
        self._check_thawed("after_turn")
        check_takes(hook, "turn")
        self._after.append(hook)
        return hook

    def stage(self, stage: F) -> F:
        """Put `async def stage(turn, send, call_next)` around the model; the first one added is the outermost."""
        self._check_thawed("stage")
        if inspect.isclass(stage) or (inspect.isfunction(stage) and not inspect.iscoroutinefunction(stage)):
            raise ConfigError(
                "A stage is not an async function.", hint="write `async def stage(turn, send, call_next)`"
            )
        check_takes(stage, "turn", "send", "call_next")
        self._stages.append(stage)
        return stage

    def model(self, name: str) -> Callable[[F], F]:
        """Let `"model": name` be answered by a function: `async def f(turn)` that yields words, and other shapes."""
        self._check_thawed("model")
        check_new(name, [*self._functions, *(each.name for each in self._models)])

        def add(function: F) -> F:
            self._functions[name] = own(function)
            return function

        return add

    @overload
    def tool(self, function: F) -> F: ...

    @overload
    def tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        filler: str | None = None,
        timeout: float | None = None,
        commits: bool = False,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        filler: str | None = None,
        timeout: float | None = None,
        commits: bool = False,
    ) -> Any:
        """Let models call a function: its types and docstring are the schema, a parameter of type Turn is filled in.

        filler: what the caller hears while it runs. timeout: seconds; None = the App's `tool_timeout`. commits: it
        changes something: once begun it is not cancelled, and runs once a turn. Raises ConfigError.
        """
        self._check_thawed("tool")
        names = dict(sys._getframe(1).f_locals)  # what annotations may mean where the function is written

        def add(function: F) -> F:
            more = {"filler": filler, "timeout": timeout, "commits": commits, "names": names}
            self._toolbox.add(Function(function, name=name, description=description, **more))  # type: ignore[arg-type]
            return function

        return add if function is None else add(function)

    def add_tools(self, *things: Any) -> None:
        """Let models call these too: a function, a Tool, a Source of tools, or "kind:..." for one of tools/.

        Raises ConfigError.
        """
        self._check_thawed("add_tools")
        for thing in things:
            self._toolbox.add(thing)

    def run(self, host: str | None = None, port: int | None = None) -> None:
        """Serve until CTRL+C. Raises SystemExit with a sentence when the configuration is wrong."""
        from .serving import serve

        serve(self, host=host or self.settings.host, port=self.settings.port if port is None else port)

    # --- the ASGI side -----------------------------------------------------------------------------

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        server = self._server or self._build()
        if self._opening is not None and not self._opening.done():
            await asyncio.shield(self._opening)
        await server(scope, receive, send)

    async def _live(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Serve ASGI's lifespan: connect before the first turn, let go of everything after the last."""
        await receive()
        try:
            self._build()
        except ConfigError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        if self._opening is not None:
            await self._opening
        # Plain functions of the user's run in threads, and one that blocks keeps its thread after its caller has left.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        gc.collect()
        gc.freeze()  # what stands now stays: the collector need not walk through it again and again
        gc.set_threshold(GARBAGE, 20, 50)
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        except asyncio.CancelledError:  # CTRL+C for a second time
            await self.close()
            return
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def close(self) -> None:
        """Wait for after_turn hooks, then close every connection. For whoever mounts the App without its lifespan."""
        if self._server is not None:
            await self._server.drain()
            await self._jobs.drain()
            if self._opening is not None:
                self._opening.cancel()
            await self._toolbox.close()
        if self._transport is not None:
            await self._transport.close()

    # --- building ----------------------------------------------------------------------------------

    def _check_thawed(self, what: str) -> None:
        if self._server is not None:
            raise ConfigError(
                f"app.{what} came after the first turn, when the App is frozen.",
                hint="write it where the App is made, before app.run()",
            )

    def _twin(self) -> App:
        """Return an App that was written down as this one and has served nobody, for `firstword.testing`."""
        twin = copy.copy(self)
        written = {name: copy.copy(value) for name, value in vars(self).items() if isinstance(value, (list, dict))}
        vars(twin).update(written)  # what is hung on one of them later is not the other's
        twin.settings = self.settings.model_copy(update={"warm": False})
        twin._extra = Budget(self.settings.hedge_share)
        twin._toolbox, twin._jobs = self._toolbox.copy(), Jobs()
        twin._server = twin._transport = twin._roster = twin._opening = None
        return twin

    @property
    def _held_key(self) -> str | None:
        """The server's own key for `base_url`."""
        return self.settings.api_key.get_secret_value() if self.settings.api_key else None

    def _build(self) -> Server:
        """Make the server, once, within the event loop that it will live in."""
        if self._server is not None:
            return self._server
        settings = self.settings
        if self._transport is None:  # `firstword.testing` brings its own, which leads to scripted models
            self._transport = Transport(connect_timeout=settings.connect_timeout, proxy_for=_proxy_for)
        self._roster = Roster(
            self._models,
            self._functions,
            self._transport,
            base_url=settings.base_url,
            api_key=self._held_key,
            default=settings.model,
            callers_pay=self.gate.passes_keys,
            extra=self._extra,
        )
        self._server = Server(
            compose(self._in_order(), self._roster.ask),
            platform=self._platform,
            gate=self.gate,
            bounds=Bounds(settings.max_body, settings.body_timeout),
            policy=self._policy,
            info=self._roster,
            counts=Counts(),
            after=self._finish if self._after else None,
            actions=Actions(self._platform, self._transport, settings.agora()) if self._may_act else None,
            debug=settings.debug,
        )
        if settings.warm:
            self._roster.keep_warm()
        if self._toolbox.has_sources:
            self._opening = asyncio.ensure_future(self._toolbox.open())
        return self._server

    def _in_order(self) -> list[Stage]:
        """Return the stages, outermost first; each line says why it stands where it does. What is off is not there."""
        stages: list[Stage] = []
        if self._policy.fillers or self._before:  # a hook may ask for some: `turn.adjust(fillers=...)`
            stages.append(fill(self._platform))  # over hooks and stages, which can be the slow ones
        if self._before:
            stages.append(before(self._before))  # hooks change the request that every later stage reads
        if self._on_chunk:
            stages.append(on_chunk(self._on_chunk))  # over the user's stages: the last look at what leaves
        if self._may_act:  # over all who may ask for it but hooks, who have asked before; on_chunk hooks see its words
            only_hooks = not (self._stages or self._toolbox or self._functions or self._on_chunk)
            stages.append(act(only_hooks=only_hooks, waits=bool(self._stages)))
        stages += map(foreign, self._stages)  # the user's own, in the order they were written
        if self._toolbox:
            stages.append(call_tools(self._offer()))  # next to the models: a tool runs once however many are asked
        return stages

    @property
    def _may_act(self) -> bool:
        """True when somebody is there who may ask to end or transfer a call."""
        return bool(self._before or self._stages or self._toolbox or self._functions or self._on_chunk)

    def _offer(self) -> Offer:
        settings = self.settings
        limits = Limits(settings.tool_rounds, settings.tool_timeout, settings.tool_max_result, settings.debug)
        urls = [where(each, settings.base_url) for each in self._models] or [settings.base_url]
        return Offer(self._platform, self._toolbox, self._jobs, limits, strict=all(map(knows_strict, urls)))

    async def _finish(self, turn: Turn) -> None:
        for hook in self._after:
            await call(hook, turn)


def _keyed(model: Model) -> Model:
    """Give a model of a provider with a name of its own the key of that name, when it has none."""
    from .settings import key_of

    if model.api_key or model.provider in (DIALECT, EMBEDDED):
        return model
    return replace(model, api_key=key_of(model.provider))


def _proxy_for(origin: Origin) -> Proxy | None:
    from .settings import proxy_url

    url = None if origin.scheme == "http" or origin.is_loopback else proxy_url(origin.host)
    return read_proxy(url) if url else None
