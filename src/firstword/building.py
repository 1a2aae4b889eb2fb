"""What becomes of an App: the models, stages, connections and the server that are made of what the user wrote down.

`Built` is what lives in one event loop; `written.py` has what it is made of. The order of the stages is one list.
"""

from __future__ import annotations

import asyncio
import logging

from . import plugins
from .allowances import limits_of, offer_of, sizes_of
from .console import Console
from .errors import Error
from .events import Event
from .health import Budget
from .roster import Roster
from .rounds.call_tools import call_tools
from .rounds.jobs import Jobs
from .server import Bounds, Server
from .server.afterwards import AfterTurn, Afterwards
from .server.pages import Pages
from .server.reading import Reader
from .server.watch import watch
from .server.webhook import Webhook
from .sharing import replicas_of, tidy_of
from .stages.act import Actions, act
from .stages.aloud import aloud, read_out
from .stages.fill import fill
from .stages.hooks import before, call, on_chunk
from .stages.shape import shape
from .telemetry import Counts, Metrics, Reading, Values, kept_elsewhere, standing
from .telemetry.content import Content
from .telemetry.lines import Lines
from .telemetry.redaction import redactor
from .telemetry.tracing import keep_traces
from .telemetry.watchdog import Watchdog
from .transport import Transport
from .turn import CallNext, Stage, Turn, compose, foreign
from .written import Written, proxy_for

EMBEDDED_VOICE = "espeak"  # says what no model can, when the App names no voice

log = logging.getLogger("firstword")


class Built:
    """What an App is in one event loop. `transport` is given by tests, and leads to scripted models."""

    def __init__(self, written: Written, transport: Transport | None = None) -> None:
        settings = written.settings
        self._written = written
        self.replicas = shared = replicas_of(settings)
        self.jobs = Jobs()
        counts = Counts()
        self.transport = transport or Transport(connect_timeout=settings.connect_timeout, proxy_for=proxy_for)
        self.roster = Roster(
            written.models,
            written.functions,
            self.transport,
            base_url=settings.base_url,
            api_key=written.held_key,
            strict=settings.strict,
            default=settings.model,
            callers_pay=written.gate.passes_keys,
            extra=Budget(settings.hedge_share),
            counts=counts,
            keeps_traces=settings.traces != "none",
            opened=shared.opened,
        )
        self._stages = in_order(written, self.jobs)
        self._voice = written.voice
        self._content = Content(redactor(own=written.redact, is_auto=settings.redact == "auto"))
        self._traces = keep_traces(settings.traces, self._content if settings.traces_content else None)
        has_voice = written.voice is not None or written.voice_function is not None
        self._webhook = self._listen(counts)
        self._console = Console() if settings.console else None
        afterwards = self._afterwards(counts)
        self._metrics = Metrics(counts, folder=settings.metrics_dir)
        self.limits = limits_of(settings, written.models, written.functions, written.prices, shared.meters)
        self._watchdog: Watchdog | None = None
        counts.readings += [self._reading(afterwards), shared.reading, self._kept]
        port, store = settings.operator_port, shared.state
        self._pages = Pages(
            written.gate, self.roster, self._metrics, operator_port=port, store=store, console=self._console
        )
        self.server = Server(
            aloud(compose(self._stages, self.roster.ask), self._speaking, has_voice=has_voice),
            reader=Reader(settings.platform, written.sessions, written.policy, written.links),
            gate=written.gate,
            bounds=Bounds(settings.max_body, settings.body_timeout, sizes_of(settings)),
            pages=self._pages,
            afterwards=afterwards,
            webhook=self._webhook,
            hosts=written.hosts,
            tidy=tidy_of(settings, shared),
            resent=settings.resent,
            limits=self.limits,
            elsewhere=shared.turns,
        )
        self._open()

    def _open(self) -> None:
        """Begin what need not be ready for the first turn: connections, the voice, tools that run elsewhere."""
        written = self._written
        self.replicas.open(self.roster.states(), self.roster.warn)
        self._warming: asyncio.Future[None] | None = None  # of the voice
        if written.settings.warm:
            self.roster.keep_warm()
            if self._voice is not None:
                self._warming = asyncio.ensure_future(self._voice.open())
        self._watch = watch(written.gate, self.transport)
        openings = [written.toolbox.open()] if written.toolbox.has_sources else []
        openings += [self._watch.open()] if self._watch is not None else []
        self._opening = asyncio.gather(*openings) if openings else None

    @property
    def is_opening(self) -> bool:
        """True until the tools' sources are open, and the gate knows its keys."""
        return self._opening is not None and not self._opening.done()

    def watch(self) -> None:
        """Look for code that holds the loop, in a thread, until the end."""
        self._watchdog = Watchdog()

    async def opened(self) -> None:
        """Wait until they are."""
        if self._opening is not None:
            await asyncio.shield(self._opening)

    def _afterwards(self, counts: Counts) -> Afterwards:
        """Return what is done for turns that are over."""
        written, settings, content = self._written, self._written.settings, self._content
        after: list[AfterTurn] = [self._finish] if written.after else []
        if settings.log_transcripts:
            after.append(content.write)
        return Afterwards(
            counts,
            after=after,
            lines=Lines(as_json=settings.log == "json", redact=content.name if settings.log_session else None),
            console=self._console,
            traces=self._traces,
            actions=Actions(self.transport, settings.agora()) if written.may_act else None,
            webhook=self._webhook,
            debug=settings.debug,
        )

    async def _finish(self, turn: Turn) -> None:
        for hook in self._written.after:
            await call(hook, turn)

    def _speaking(self) -> CallNext:
        """Return what answers turns that leave as sound, made with the first of them."""
        from .server.apology import said_instead
        from .stages.speak import speak
        from .voices._own import OwnVoice

        written = self._written
        if self._voice is None:
            self._voice = plugins.load("voices", EMBEDDED_VOICE)("", check=False)
        voice = self._voice
        if written.voice_function is not None:
            voice = OwnVoice(written.voice_function, voice)
        shows = [on_chunk(written.on_chunk)] if written.on_chunk else []  # they see the words below it, and the sound
        # Over all that says words, fillers too: what is said is sound, whoever says it.
        return compose([*shows, speak(voice, instead=said_instead), *self._stages], read_out(self.roster.ask))

    def _listen(self, counts: Counts) -> Webhook | None:
        """Return what takes an engine's events; None without the secret that they are signed with."""
        settings, has_hooks = self._written.settings, bool(self._written.on_event)
        secret = settings.webhook_secret()
        if secret is None:
            if has_hooks:
                log.warning("on_event hooks hear nothing hint: set FIRSTWORD_AGORA_WEBHOOK_SECRET")
            return None
        return Webhook(
            secret,
            hook=self._tell if has_hooks else None,
            counts=counts,
            debug=settings.debug,
            elsewhere=self.replicas.events,
        )

    def _reading(self, afterwards: Afterwards) -> Reading:
        """Return what tells of connections, breakers and queues, as they are when it is asked."""

        def read() -> Values:
            queue = {"after_turn": afterwards.running, "tools": self.jobs.running, "local": self.roster.waiting}
            if self._webhook is not None:
                queue["on_event"] = self._webhook.running
            return standing(self.transport.hosts(), self.roster.states(), queue)

        return read

    def _kept(self) -> Values:
        """Return what the gate, the limits and the watchdog have counted."""
        limits, refused = self.limits, self._written.gate.refused
        held = 0.0 if self._watchdog is None else self._watchdog.seconds
        return kept_elsewhere(gate=refused, limits=limits.refused, cost=limits.cost, lag=limits.lag, held=held)

    async def _tell(self, event: Event) -> None:
        for hook in self._written.on_event:
            await call(hook, event)

    def retire(self) -> None:
        """Say at `/ready` that no more turns should come."""
        self._pages.retire()

    def note_refusal(self, error: Error) -> None:
        """Count what was refused before it came to the server."""
        self._metrics.note_refusal(error)

    async def close(self) -> None:
        """Wait for after_turn hooks and jobs, then close every connection."""
        await self.server.drain()
        if self._webhook is not None:
            await self._webhook.drain()
        await self.jobs.drain()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        if self._voice is not None:
            await self._voice.close()
        if self._watch is not None:
            await self._watch.close()
        if self._opening is not None:
            self._opening.cancel()
        if self._traces is not None:
            await self._traces.close()
        await self._written.toolbox.close()
        await self.roster.close()
        await self.transport.close()
        await self._metrics.close()
        await self.replicas.close()
        if self._watchdog is not None:
            self._watchdog.close()


def in_order(written: Written, jobs: Jobs) -> list[Stage]:
    """Return the stages, outermost first; each line says why it stands where it does. What is off is not there."""
    stages: list[Stage] = []
    if written.policy.fillers or written.before:  # a hook may ask for some: `turn.adjust(fillers=...)`
        stages.append(fill())  # over hooks and stages, which can be the slow ones
    if written.before:
        stages.append(before(written.before))  # hooks change the request that every later stage reads
    if written.on_chunk:
        stages.append(on_chunk(written.on_chunk))  # over the user's stages: the last look at what leaves
    if written.may_act:  # over all who may ask for it but hooks, who have asked before; on_chunk hooks see its words
        only_hooks = not (written.stages or written.toolbox or written.functions or written.on_chunk)
        stages.append(act(only_hooks=only_hooks, waits=bool(written.stages)))
    if written.settings.shape != "none" or written.before:  # a hook may ask for it: `turn.shape = "speech"`
        # Under act, whose words are the user's own; over stages and tools, whatever speaks in them.
        stages.append(shape(written.settings.shape, written.read_aloud))
    stages += map(foreign, written.stages)  # the user's own, in the order they were written
    if written.toolbox:
        stages.append(
            call_tools(offer_of(written.settings, written.toolbox, written.models, jobs))
        )  # next to the models: a tool runs once however many are asked
    return stages
