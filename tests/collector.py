"""A collector of OpenTelemetry's: a real HTTP server that takes spans by OTLP and decodes them."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from caller import Caller
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from served import Served

from firstword import App

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True)
class Kept:
    """One span as it arrived; times are nanoseconds since 1970."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str
    state: str
    began: int
    ended: int
    status: int  # 0: unset, 2: an error
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    resource: dict[str, Any]
    scope: str


async def traced(app: App, use: Callable[[Caller], Awaitable[Any]]) -> Any:
    """Serve an App, use it, and stop it, with which the last spans leave."""
    served = Served(app)
    try:
        return await use(Caller(served.url))
    finally:
        await asyncio.to_thread(served.stop)


class Collector:
    """Takes spans while it is used as a `with` block; `status` is what it answers."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Kept] = []
        self.raw = b""  # everything that arrived
        self.headers: list[dict[str, str]] = []
        self.status = status
        self.hold = threading.Event()  # until it is set, no answer is given
        self.hold.set()
        collector = self

        class Taker(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.hold.wait(30)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200:
                    collector.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def take(self, body: bytes) -> None:
        """Take the spans of one request."""
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for scoped in group.scope_spans:
                self.spans += [
                    Kept(
                        name=span.name,
                        kind=KINDS[span.kind],
                        trace=span.trace_id.hex(),
                        span=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        state=span.trace_state,
                        began=span.start_time_unix_nano,
                        ended=span.end_time_unix_nano,
                        status=span.status.code,
                        attributes=_values(span.attributes),
                        events=[(event.name, event.time_unix_nano) for event in span.events],
                        resource=resource,
                        scope=scoped.scope.name,
                    )
                    for span in scoped.spans
                ]

    def named(self, start: str) -> list[Kept]:
        """Return the spans whose names begin so, in the order in which they began."""
        return sorted((span for span in self.spans if span.name.startswith(start)), key=lambda span: span.began)

    def turn(self) -> Kept:
        """Return the one span of a turn."""
        (span,) = self.named("POST ")
        return span


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
