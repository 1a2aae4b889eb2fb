"""Spans of a turn by OpenTelemetry: one for the turn, one for each request to a model, one for each tool that ran.

They are made of the timeline when the turn is over, off the reply's path, with the ids that were drawn when it began,
and leave in a thread of the library's, from a queue that has an end. Where a collector is, and what is sampled, the
standard variables say (OTEL_*). The names of the attributes are those of OpenTelemetry's conventions for HTTP and for
generative AI, as they stood beside version 1.44.0 (github.com/open-telemetry/semantic-conventions-genai).
The library is loaded here, and only when traces are kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer, TraceState

from .. import clock
from ..errors import ConfigError
from ..trace import SAMPLED, Ask, Trace, new_id, passed_on, read
from ..turn import Called, Turn
from ..used import tokens_in
from .content import Content, term

log = logging.getLogger("firstword")

OTLP = "otlp"
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
NAME = "POST /chat/completions"  # of a turn's span; the true path may hold a session, and many of them
ROUTE = "/chat/completions"
FLUSH_TIMEOUT = 3.0  # seconds that the last spans get to leave when the server stops
WELL_KNOWN = {"gemini": "gcp.gemini", "mistral": "mistral_ai"}  # providers that the conventions call by another name
# What a caller may do, a hang-up above all, is no failure of the server.
FAILED = 500  # the lowest status of a failed turn
MAX_NAME = 100  # signs of a name; without a list of models it is whatever the caller wrote

Attributes = dict[str, Any]


class _Ids(IdGenerator):
    """Gives spans the ids that were drawn for them; each thread has its own."""

    def __init__(self) -> None:
        self._next = threading.local()

    def draw(self, trace: str, span: str) -> None:
        """Take the ids of the span that is started next."""
        self._next.trace, self._next.span = int(trace, 16), int(span, 16)

    def generate_trace_id(self) -> int:
        return int(self._next.trace)

    def generate_span_id(self) -> int:
        return int(self._next.span)


class Watched(SpanExporter):
    """Another exporter, of which the log says when spans begin to be lost, and when they arrive again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_well = True
        self._is_over = False

    def export(self, spans: Any) -> SpanExportResult:
        """Export some spans. Never raises."""
        if self._is_over:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE  # what it says may hold the URL, which may hold a key
        is_well = result is SpanExportResult.SUCCESS
        if is_well != self._is_well and not self._is_over:
            self._is_well = is_well
            if is_well:
                log.info("traces arrive again")
            else:
                log.warning("traces do not arrive hint: look at the collector, and at OTEL_EXPORTER_OTLP_ENDPOINT")
        return result

    def shutdown(self) -> None:
        """Give up what is being sent, and what is tried again; say no more."""
        if not self._is_over:
            self._is_over = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


class Traces:
    """Keeps the traces of turns. `content` redacts what people said, if that is kept too; None: it is not.

    provider: the host application's, which is left as it is; None: one of our own, with what `where` names.
    """

    def __init__(
        self, where: str, *, version: str, content: Content | None = None, provider: TracerProvider | None = None
    ) -> None:
        self._watched = Watched(_exporter(where)) if provider is None else None
        self._own = None if self._watched is None else _provider(self._watched, version)
        self._provider = provider or self._own
        assert self._provider is not None
        self._tracer: Tracer = self._provider.get_tracer("firstword", version, SCHEMA)
        ids = getattr(self._tracer, "id_generator", None)
        self._ids = ids if isinstance(ids, _Ids) else _Ids()
        if ids is not None:
            self._tracer.id_generator = self._ids  # type: ignore[attr-defined]  # of this tracer, which is ours alone
        self._is_on = ids is not None  # not with OTEL_SDK_DISABLED
        self._content = content

    @property
    def keeps_content(self) -> bool:
        """True when what was said is kept as well."""
        return self._content is not None

    def begin(self, headers: Mapping[str, str]) -> Trace | None:
        """Return the trace of a turn that begins: its caller's, else a new one. Never raises.

        None: the library is switched off, and the caller has none.
        """
        if not self._is_on:
            return passed_on(headers)
        parent = read(headers)
        trace = Trace(
            parent.trace if parent else new_id(16),
            new_id(8),
            parent.span if parent else "",
            parent.flags if parent else 0,
            parent.state if parent else "",
        )
        assert self._provider is not None
        try:
            decided = self._provider.sampler.should_sample(
                _context(trace), int(trace.id, 16), NAME, SpanKind.SERVER, {}, ()
            )
            trace.flags = SAMPLED if decided.decision is Decision.RECORD_AND_SAMPLE else 0
        except Exception as error:  # the host application's sampler
            log.error("mistake in a sampler of traces type=%s", type(error).__name__)
            trace.flags = 0
        return trace

    async def end_with_content(self, turn: Turn) -> None:
        """Make the spans of a turn that is over, with what was said in it; redacting that is done in a thread."""
        assert self._content is not None
        if turn.trace is not None and turn.trace.is_sampled:
            self.end(turn, await asyncio.to_thread(self._content.messages, turn))

    def end(self, turn: Turn, content: Attributes | None = None) -> None:
        """Make the spans of a turn that is over. Never raises."""
        trace = turn.trace
        if trace is None or not trace.is_sampled or not self._is_on:
            return
        try:
            self._make(turn, trace, content or {})
        except Exception as error:
            log.error("mistake in a trace id=%s type=%s", turn.id, type(error).__name__)

    def _make(self, turn: Turn, trace: Trace, content: Attributes) -> None:
        stamp = _stamp()
        tools = content.pop("tools", [{}] * len(turn.called))
        span = self._start(trace, trace.span, NAME, SpanKind.SERVER, stamp(turn.timeline.received), _context(trace))
        span.set_attributes({**{name: _clean(each) for name, each in _of_turn(turn, trace).items()}, **content})
        for name in ("admitted", "prepared", "asked", "answered", "spoke", "sent", "heard", "replied", "sentence"):
            at = getattr(turn.timeline, name)
            if at is not None:
                span.add_event(f"firstword.{name}", timestamp=stamp(at))
        within = api.set_span_in_context(span)
        for ask in trace.asks:
            self._ask(turn, trace, ask, stamp, within)
        for called, more in zip(turn.called, tools, strict=False):
            self._tool(trace, called, more, stamp, within)
        error = None if trace.outcome == "hung_up" else turn.error
        if trace.status >= FAILED or (error is not None and error.status >= FAILED):
            span.set_status(StatusCode.ERROR, _clean(trace.outcome))
        span.end(stamp(turn.timeline.ended or clock.now()))

    def _ask(self, turn: Turn, trace: Trace, ask: Ask, stamp: Callable[[float], int], within: Any) -> None:
        """Make the span of one request to a model."""
        kind = SpanKind.CLIENT if ask.host else SpanKind.INTERNAL
        span = self._start(trace, ask.span, f"chat {ask.model}", kind, stamp(ask.began), within)
        fate = ask.fate
        error = ask.error or ("" if fate is None else fate.error)
        outcome = "answered" if not error else "left" if error == "cancelled" else "failed"
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": WELL_KNOWN.get(ask.provider, ask.provider),
                "gen_ai.request.model": _clean(ask.model),
                "gen_ai.request.stream": True,
                "firstword.attempt.why": "first" if fate is None else fate.why,
                "firstword.attempt.outcome": outcome if fate is None else fate.outcome or outcome,
            }
        )
        if ask.host:
            span.set_attributes({"server.address": ask.host, "server.port": ask.port})
        if ask.spoke is not None and ask.spoke >= ask.began:
            span.set_attribute("gen_ai.response.time_to_first_chunk", ask.spoke - ask.began)
            span.add_event("firstword.spoke", timestamp=stamp(ask.spoke))
        if len(trace.asks) == 1:
            span.set_attributes(_usage(turn))
        if error and error != "cancelled":
            span.set_attribute("error.type", _clean(error))
            span.set_status(StatusCode.ERROR, _clean(error))
        span.end(stamp(clock.now() if ask.ended is None else ask.ended))

    def _tool(self, trace: Trace, called: Called, more: Attributes, stamp: Callable[[float], int], within: Any) -> None:
        """Make the span of a tool that ran."""
        name = "unknown" if called.outcome == "unknown" else called.name  # else it is the model's own word
        own, began = called.span or new_id(8), stamp(called.began)
        span = self._start(trace, own, f"execute_tool {name}", SpanKind.INTERNAL, began, within)
        span.set_attributes(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.type": "function",
                "firstword.tool.outcome": called.outcome,
                **more,
            }
        )
        if called.outcome in ("failed", "timed_out", "unknown"):
            span.set_attribute("error.type", called.outcome)
            span.set_status(StatusCode.ERROR, called.outcome)
        span.end(stamp(called.began + called.seconds))

    def _start(self, trace: Trace, span: str, name: str, kind: SpanKind, at: int, context: Any) -> Span:
        self._ids.draw(trace.id, span)
        return self._tracer.start_span(_clean(name), context, kind, start_time=at)

    async def close(self) -> None:
        """Send what waits, in FLUSH_TIMEOUT seconds; what does not leave in that time is lost."""
        if self._own is None:
            return  # the host's: it ends what it has begun
        # Not a thread of the pool: the process would wait for it at its end, and for a collector that is away.
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        own = self._own

        def shut() -> None:
            own.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(over.set)

        threading.Thread(target=shut, daemon=True, name="firstword-traces").start()
        try:
            async with clock.timeout(FLUSH_TIMEOUT):
                await over.wait()
        except asyncio.TimeoutError:
            if self._watched is not None:
                self._watched.shutdown()  # else the library's thread tries on, in a process that may live on
            log.warning("traces were left behind seconds=%g", FLUSH_TIMEOUT)


def open_traces(where: str, *, version: str, content: Content | None) -> Traces:
    """Return what keeps traces: the host application's provider if it has set one, else one of our own.

    Raises ConfigError for what the library does not take.
    """
    provider = api.get_tracer_provider()
    try:
        return Traces(
            where, version=version, content=content, provider=provider if isinstance(provider, TracerProvider) else None
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"OpenTelemetry does not take its settings: {type(error).__name__}.",
            hint="check the OTEL_ variables, or set FIRSTWORD_TRACES=none",
        ) from None


def _provider(exporter: SpanExporter, version: str) -> TracerProvider:
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or os.environ.get("OTEL_SERVICE_NAME")
    about: Attributes = {"service.version": version, "process.pid": os.getpid()}  # each worker has its own
    resource = Resource.create(about if named else {"service.name": "firstword", **about})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(where: str) -> SpanExporter:
    if where != OTLP:
        return ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _context(trace: Trace) -> Any:
    """Return the context in which the turn's span is started: its caller's, or an empty one."""
    if not trace.parent:
        return api.set_span_in_context(api.INVALID_SPAN)
    flags, state = TraceFlags(trace.flags), TraceState.from_header([trace.state] if trace.state else [])
    parent = SpanContext(int(trace.id, 16), int(trace.parent, 16), is_remote=True, trace_flags=flags, trace_state=state)
    return api.set_span_in_context(api.NonRecordingSpan(parent))


def _stamp() -> Callable[[float], int]:
    """Return what makes nanoseconds since 1970 of a time on the monotonic clock."""
    offset = time.time() - clock.now()
    return lambda at: int((at + offset) * 1e9)


def _of_turn(turn: Turn, trace: Trace) -> Attributes:
    """Return what a turn's span says of it. What people said or are is not there."""
    answered = turn.answered_by or (turn.asked[-1] if turn.asked else None)
    found: Attributes = {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": trace.status or None,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": next((WELL_KNOWN.get(ask.provider, ask.provider) for ask in trace.asks), "firstword"),
        "gen_ai.request.model": turn.model or None,
        "gen_ai.request.stream": turn.stream,
        "gen_ai.response.model": None if turn.timeline.spoke is None else answered,
        "gen_ai.response.id": turn.id,
        "firstword.turn.id": turn.id,
        "firstword.outcome": trace.outcome,
        "firstword.platform": turn.platform,
        "firstword.client": turn.grant.name or None,
        "firstword.attempts": len(turn.asked),
        "firstword.filled": turn.filled or None,
        "firstword.apologised": turn.apologised or None,
        "firstword.truncated": turn.reply.truncated or None,
        "firstword.again": turn.again or None,
        "firstword.cost": None if turn.cost is None else float(turn.cost),
        "error.type": None if trace.outcome in ("answered", "hung_up") else trace.outcome,
        **_usage(turn),
    }
    if turn.timeline.spoke is not None:
        found["gen_ai.response.time_to_first_chunk"] = turn.timeline.spoke - turn.timeline.received
    if turn.reply.finish_reason:
        found["gen_ai.response.finish_reasons"] = [term(turn.reply.finish_reason)]
    return {name: value for name, value in found.items() if value is not None}


def _clean(value: Any) -> Any:
    """Return a value as every collector takes it: of one with half a character in it the whole batch would be lost."""
    return value[:MAX_NAME].encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _usage(turn: Turn) -> Attributes:
    names = {"prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens"}
    found = {names[name]: tokens_in(turn.reply.usage, name) for name in names}
    return {name: count for name, count in found.items() if count is not None}
