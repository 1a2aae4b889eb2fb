"""Whose traces are kept, and by what: no library, the host's provider, several workers, and what cannot work."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys

import pytest
from caller import Caller
from collector import Collector, traced
from command import Run
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult, StaticSampler

from firstword import App
from firstword.errors import ConfigError
from firstword.testing import Upstream, script

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))


async def test_without_a_library_of_ours_the_trace_is_passed_on(upstream: Upstream, marker: str) -> None:
    """Traces are off: the caller's headers reach the model as they came, and a bad one does not."""

    async def two(caller: Caller) -> None:
        headers = {"traceparent": PARENT, "tracestate": "rojo=1"}
        await caller.says(user=f"{marker} good", scripts=[ANSWER], headers=headers)
        await caller.says(user=f"{marker} bad", scripts=[ANSWER], headers={**headers, "traceparent": PARENT.upper()})
        await caller.says(user=f"{marker} none", scripts=[ANSWER])

    await traced(App(base_url=upstream.base_url), two)
    (good,), (bad,), (none,) = [await upstream.wait_asked(f"{marker} {kind}") for kind in ("good", "bad", "none")]
    assert (good.header("traceparent"), good.header("tracestate")) == (PARENT, "rojo=1")
    assert {record.header(name) for record in (bad, none) for name in ("traceparent", "tracestate")} == {None}


async def test_the_hosts_own_provider_is_used_and_left_open(
    upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The App is mounted in an application that keeps traces already: its exporter gets ours, with our ids."""
    from opentelemetry import trace

    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("FIRSTWORD_TRACES", "otlp")
    headers = {"traceparent": PARENT}
    for number in range(2):  # two Apps, one after the other, share the host's tracer
        app = App(base_url=upstream.base_url)
        user = f"{marker} {number}"
        await traced(app, lambda caller, user=user: caller.says(user=user, scripts=[ANSWER], headers=headers))

    spans = kept.get_finished_spans()
    assert [span.name for span in spans] == ["chat m1", "POST /chat/completions"] * 2
    (record,) = await upstream.wait_asked(f"{marker} 0")
    assert record.header("traceparent") == f"00-{TRACE}-{spans[0].context.span_id:016x}-01"
    with provider.get_tracer("host").start_as_current_span("still open"):
        pass
    assert kept.get_finished_spans()[-1].name == "still open"


async def test_a_disabled_library_makes_no_spans(
    collector: Collector, upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SDK_DISABLED switches all of it off; what the caller says is passed on, and nothing is made up."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    async def two(caller: Caller) -> None:
        await caller.says(user=f"{marker} one", scripts=[ANSWER], headers={"traceparent": PARENT})
        await caller.says(user=f"{marker} none", scripts=[ANSWER])

    await traced(App(base_url=upstream.base_url), two)
    assert collector.spans == []
    (one,), (none,) = [await upstream.wait_asked(f"{marker} {kind}") for kind in ("one", "none")]
    assert (one.header("traceparent"), none.header("traceparent")) == (PARENT, None)


async def test_a_sampler_that_breaks_ends_no_turn(
    upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The host application's own sampler raises: the turn is answered, and is not kept."""
    from opentelemetry import trace

    class Breaks(StaticSampler):
        def should_sample(self, *given: object, **more: object) -> SamplingResult:
            raise ValueError("a secret")

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(sampler=Breaks(Decision.DROP)))
    monkeypatch.setenv("FIRSTWORD_TRACES", "otlp")
    heard = []

    async def one(caller: Caller) -> None:
        heard.append(await caller.says(user=marker, scripts=[ANSWER]))
        metrics = await caller.hears(method="GET", path="/metrics")
        assert b"firstword_turns_in_progress 0.0" in metrics.body

    await traced(App(base_url=upstream.base_url), one)
    assert heard[0].text == FRIEND
    assert "mistake in a sampler of traces type=ValueError" in caplog.text and "secret" not in caplog.text


def test_settings_that_the_library_does_not_take_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of no length: a sentence instead of a traceback."""
    monkeypatch.setenv("FIRSTWORD_TRACES", "otlp")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")

    async def build() -> None:
        with pytest.raises(ConfigError, match="OpenTelemetry does not take its settings") as caught:
            App(warm=False)._build()
        assert "OTEL_" in (caught.value.hint or "")

    asyncio.run(build())


def test_a_library_that_is_missing_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces are switched on where OpenTelemetry is not installed; where they are off, nobody looks for it."""
    monkeypatch.setitem(sys.modules, "firstword.telemetry.traces", None)

    async def build() -> None:
        App(warm=False)._build()
        monkeypatch.setenv("FIRSTWORD_TRACES", "console")
        with pytest.raises(ConfigError) as caught:
            App(warm=False)._build()
        assert caught.value.hint == "pip install 'firstword[traces]'"

    asyncio.run(build())


def test_nothing_is_loaded_for_traces_that_nobody_keeps() -> None:
    """A server without them starts as quickly as before."""
    code = (
        "import asyncio, sys; from firstword import App\n"
        "async def build(): App(warm=False)._build()\n"
        "asyncio.run(build()); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"


async def test_each_worker_sends_its_own(collector: Collector, upstream: Upstream, marker: str, serving: Run) -> None:
    """Two processes, one collector: no span is lost when they are told to stop, and each says whose it is."""
    process = serving("--workers", "2", FIRSTWORD_DRAIN_TIMEOUT="2", OTEL_BSP_SCHEDULE_DELAY="20")
    caller, headers, count = process.caller(), {"traceparent": PARENT}, 0
    while len({turn.resource["process.pid"] for turn in collector.named("POST ")}) < 2:  # one listens later
        said = [caller.says(user=f"{marker} {count + each}", scripts=[ANSWER], headers=headers) for each in range(10)]
        assert {heard.text for heard in await asyncio.gather(*said)} == {FRIEND}
        count += 10
    process.tell(signal.SIGTERM)
    await asyncio.to_thread(process.ends)
    turns, asks = collector.named("POST "), collector.named("chat ")
    assert len(turns) == len(asks) == count
    assert {ask.parent for ask in asks} == {turn.span for turn in turns}


async def test_the_console_shows_a_span_a_line(upstream: Upstream, marker: str, serving: Run) -> None:
    """To try it without a collector."""
    process = serving(FIRSTWORD_TRACES="console", OTEL_BSP_SCHEDULE_DELAY="50", OTEL_SERVICE_NAME="mine")
    await process.caller().says(user=marker, scripts=[ANSWER])
    (line,) = re.findall(r'^{"name": "POST .*$', process.says(r'(?m)^{"name": "POST .*$')[0], re.MULTILINE)
    span = json.loads(line)
    assert span["attributes"]["firstword.outcome"] == "answered"
    assert span["resource"]["attributes"]["service.name"] == "mine"
