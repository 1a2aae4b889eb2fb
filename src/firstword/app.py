"""App: what a user writes down, and an ASGI application. `building.py` makes the server of it.

It freezes with the first turn: what is added later would answer some callers and not others.
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
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .admission import Gate
from .building import Built
from .errors import ConfigError, Error
from .model import Model
from .own import own
from .roster import check_new
from .serving import Setup, serve
from .stages.hooks import check_takes
from .tools.function import Function
from .transport import Transport
from .written import write_down

if TYPE_CHECKING:
    from .voices import Voice

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
    voice: what says replies to engines that want sound, "espeak" or "openai:...", or a Voice of your own.
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
        strict: bool | None = None,
        keys: Sequence[str] | None = None,
        open: bool | None = None,
        platform: str | None = None,
        session: Sequence[str] | None = None,
        note_interruptions: bool | None = None,
        keep_images: int | None = None,
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
        shape: str | None = None,
        tool_rounds: int | None = None,
        tool_timeout: float | None = None,
        tool_max_result: int | None = None,
        resent: str | None = None,
        agora_app_id: str | None = None,
        agora_basic_key: str | None = None,
        agora_basic_secret: str | None = None,
        agora_area: str | None = None,
        agora_agents_api_base_url: str | None = None,
        voice: str | Voice | None = None,
        voice_base_url: str | None = None,
        voice_api_key: str | None = None,
        agora_webhook_secret: str | None = None,
        warm: bool | None = None,
        debug: bool | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "models")}
        given["hedge_after"] = "none" if hedge_after is None else hedge_after
        try:
            self._written = write_down(models, given)
        except ConfigError as error:
            # In a file that is run (`python3 custom_llm.py`) this is the operator's mistake: a sentence is enough.
            if sys._getframe(1).f_globals.get("__name__") == "__main__":
                raise SystemExit(f"firstword: {error}") from None
            raise
        self._built: Built | None = None
        self._transport: Transport | None = None  # one of a test's, which leads to scripted models

    @property
    def settings(self) -> Any:
        """What was set, here or in the environment."""
        return self._written.settings

    @property
    def gate(self) -> Gate:
        """Who may come in."""
        return self._written.gate

    @property
    def setup(self) -> Setup:
        """How it is served."""
        return self._written.setup

    # --- what the user writes down -----------------------------------------------------------------

    def before_turn(self, hook: F) -> F:
        """Call `hook(turn)` before the model is asked: change `turn.messages`, or raise a RequestError."""
        self._check_thawed("before_turn")
        check_takes(hook, "turn")
        self._written.before.append(hook)
        return hook

    def on_chunk(self, hook: F) -> F:
        """Call `hook(turn, chunk)` with every chunk that leaves; if it returns a Chunk, that one leaves instead.

        It is a plain function, and runs on the event loop in the middle of a reply: it must not wait for anything.
        """
        self._check_thawed("on_chunk")
        if inspect.iscoroutinefunction(hook):
            raise ConfigError("An on_chunk hook is async.", hint="write a plain `def`, or a stage if it has to wait")
        check_takes(hook, "turn", "chunk")
        self._written.on_chunk.append(hook)
        return hook

    def read_aloud(self, hook: F) -> F:
        """Call `hook(turn, text)` with the words of a voice engine's reply; what it returns is heard instead.

        The text has no markup any more and ends where a word does. A plain function, as on_chunk hooks are.
        """
        self._check_thawed("read_aloud")
        if inspect.iscoroutinefunction(hook):
            raise ConfigError("A read_aloud hook is async.", hint="write a plain `def`, or a stage if it has to wait")
        check_takes(hook, "turn", "text")
        self._written.read_aloud.append(hook)
        return hook

    def after_turn(self, hook: F) -> F:
        """Call `hook(turn)` when the turn is over, off the reply's path; `turn.reply.text` is what was sent."""
        self._check_thawed("after_turn")
        check_takes(hook, "turn")
        self._written.after.append(hook)
        return hook

    def on_event(self, hook: F) -> F:
        """Call `hook(event)` with every event that Agora's engine tells by webhook; needs `agora_webhook_secret`."""
        self._check_thawed("on_event")
        check_takes(hook, "event")
        self._written.on_event.append(hook)
        return hook

    def redact(self, function: F) -> F:
        """Have `function(text)` return a text without what must not be kept, for transcripts and traces."""
        self._check_thawed("redact")
        check_takes(function, "text")
        self._written.redact = function
        return function

    def stage(self, stage: F) -> F:
        """Put `async def stage(turn, send, call_next)` around the model; the first one added is the outermost."""
        self._check_thawed("stage")
        if inspect.isclass(stage) or (inspect.isfunction(stage) and not inspect.iscoroutinefunction(stage)):
            raise ConfigError(
                "A stage is not an async function.", hint="write `async def stage(turn, send, call_next)`"
            )
        check_takes(stage, "turn", "send", "call_next")
        self._written.stages.append(stage)
        return stage

    def model(self, name: str) -> Callable[[F], F]:
        """Let `"model": name` be answered by a function: `async def f(turn)` that yields words, and other shapes."""
        self._check_thawed("model")
        check_new(name, [*self._written.functions, *(each.name for each in self._written.models)])

        def add(function: F) -> F:
            self._written.functions[name] = own(function)
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
            self._written.toolbox.add(Function(function, name=name, description=description, **more))  # type: ignore[arg-type]
            return function

        return add if function is None else add(function)

    def add_tools(self, *things: Any) -> None:
        """Let models call these too: a function, a Tool, a Source of tools, or "kind:..." for one of tools/.

        Raises ConfigError.
        """
        self._check_thawed("add_tools")
        for thing in things:
            self._written.toolbox.add(thing)

    def voice(self, function: F) -> F:
        """Let `voice(text)` say replies to engines that want sound: it returns or yields WAV, PCM at 16 kHz or Sounds.

        What it returns None for the App's other voice says. Raises ConfigError.
        """
        from .voices._own import check_voice

        self._check_thawed("voice")
        check_voice(function)
        if self._written.voice_function is not None:
            raise ConfigError("There are two voice functions.", hint="let one call the other")
        self._written.voice_function = function
        return function

    def run(self, host: str | None = None, port: int | None = None) -> None:
        """Serve until CTRL+C. Raises SystemExit with a sentence when the configuration is wrong."""
        port = self.settings.port if port is None else port
        serve(self, host=host or self.settings.host, port=port)

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
        built = self._built or self._build()
        if built.is_opening:
            await built.opened()
        await built.server(scope, receive, send)

    async def _live(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Serve ASGI's lifespan: connect before the first turn, let go of everything after the last."""
        await receive()
        try:
            built = self._build()
        except ConfigError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await built.opened()
        built.watch()  # not for whoever has no lifespan: a test's clock that jumps is not to be woken
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

    def retire(self) -> None:
        """Say at `/ready` that no more turns should come; those that do are answered."""
        if self._built is not None:
            self._built.retire()

    def note_refusal(self, error: Error) -> None:
        """Count bytes that were no request, or a connection too many, which no turn is made of."""
        if self._built is not None:
            self._built.note_refusal(error)

    async def close(self) -> None:
        """Wait for after_turn hooks, then close every connection. For whoever mounts the App without its lifespan."""
        if self._built is not None:
            await self._built.close()

    # --- building ----------------------------------------------------------------------------------

    def _check_thawed(self, what: str) -> None:
        if self._built is not None:
            raise ConfigError(
                f"app.{what} came after the first turn, when the App is frozen.",
                hint="write it where the App is made, before app.run()",
            )

    def _twin(self, transport: Transport, **changed: Any) -> App:
        """Return an App that was written down as this one, but for `changed`, and has served nobody: for tests."""
        twin = copy.copy(self)
        settings = self.settings.model_copy(update={"warm": False, "metrics_dir": None})
        twin._written = replace(self._written.copy(), settings=settings, **changed)
        twin._built, twin._transport = None, transport
        return twin

    def _build(self) -> Built:
        """Make what serves, once, within the event loop that it will live in."""
        if self._built is None:
            self._built = Built(self._written, self._transport)
        return self._built
