"""uvicorn's HTTP protocol with a shorter way for turns: one task, one write per event, a hang-up told at once.

A turn's request is taken over from uvicorn's own request cycle when it is of the usual kind: a POST to a chat
path with a body of known and modest length. Every other request, and everything else about a connection
(parsing, keep-alive, pipelining, the drain at shutdown), is uvicorn's as it is.

Rules for a connection, whoever is at its other end:
- Each thing that it may wait for has a time: a head, the next request, a caller who reads, an end.
- What is kept of it is bounded: a head, what stands between two pieces of a body, requests that wait for their turn.
- After bytes that are no request nothing is read any more; those before them are answered first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ..errors import BadRequest, Error, TooManyConnections
from ..transport.alarm import LATE, MOMENT
from .exchange import Exchange
from .head import MAX_HEAD, UNKNOWN, check, origin_form, too_large, without_upgrade
from .routes import CHAT

log = logging.getLogger("firstword")

HEAD_TIMEOUT = 15.0  # seconds for a new connection to send its first head, and for any head from its first byte
WRITE_TIMEOUT = 30.0  # seconds that a caller may leave unread what fills our buffer; nginx gives 60
LINGER = 10.0  # seconds for the last bytes to be read when a connection is closed
MAX_PIPELINED = 16  # requests that wait for the one that is answered; engines send one at a time
USUAL_BODY = 1024 * 1024  # bytes; a larger one (images) comes in pieces, which uvicorn's own way reads with care

_TURN = CHAT.encode()


class VoiceProtocol(HttpToolsProtocol):
    """One connection of a voice engine.

    max_connections: how many a process keeps. operator_port: those to it neither count nor are refused, so that a crowd
    of callers makes no probe fail; they are kept in `aside`, one set for all connections.
    """

    head_timeout = HEAD_TIMEOUT
    write_timeout = WRITE_TIMEOUT
    linger = LINGER

    _exchange: Exchange | None = None  # the turn that is being answered
    _answering: RequestResponseCycle | None = None  # what uvicorn answers, while others wait behind it
    _in_head = False  # a head is coming in
    _is_slow = False  # it did not come in one piece
    _unread = 0  # bytes that came since the last piece of a body, or since a request was whole
    _length = b""  # what the head that is coming in says of its body
    _wants_other = False  # it asks for another protocol
    _fault: Error | None = None  # why it is refused
    _refusal = b""  # the answer to bytes that were no request; nothing is read after them
    _patience: asyncio.TimerHandle | None = None  # for the next head, or for the end
    _patient_until = 0.0  # on the loop's clock
    _is_second = False  # look at a time that has gone by
    _stuck: asyncio.TimerHandle | None = None  # for a caller who does not read

    def __init__(
        self,
        *given: Any,
        max_connections: int | None = None,
        operator_port: int | None = None,
        aside: set[VoiceProtocol] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*given, **more)
        self._max_connections = max_connections
        self._operator_port = operator_port
        self._aside = set() if aside is None else aside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a head before long: a connection that says nothing is not kept for ever."""
        super().connection_made(cast("asyncio.Transport", transport))
        most = self._max_connections
        if self._operator_port is not None and self.server is not None and self.server[1] == self._operator_port:
            self._aside.add(self)
        elif most is not None and len(self.connections) - len(self._aside) > most:
            self._refuse(TooManyConnections("The server keeps as many connections as it may."))
            return
        self._expect_head(self.head_timeout)

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as uvicorn is told to; the timer is set once and looks again later."""
        if self.transport.is_closing():
            self._let_go()
        if self.pipeline or self.transport.is_closing():
            self._answering = self.pipeline[-1][0] if self.pipeline else None  # it is begun now
            super().on_response_complete()
            return
        self._answering = None
        self.server_state.total_requests += 1
        if self._refusal:
            self._tell_refusal()
            return
        self.flow.resume_reading()
        self._expect_head(self.timeout_keep_alive)

    def _expect_head(self, within: float) -> None:
        self._patient_until = self.loop.time() + within
        if self._patience is None:
            self._patience = self.loop.call_later(within, self._lose_patience)

    def _lose_patience(self) -> None:
        """Close a connection that sends no head; look again later when it has sent one since."""
        self._patience = None
        left = self._patient_until - self.loop.time()
        if left < -LATE and not self._is_second:  # the loop was held: what lies there may not have been read
            self._is_second = True
            self._patience = self.loop.call_later(MOMENT, self._lose_patience)
            return
        self._is_second = False
        if left > 0:
            self._patience = self.loop.call_later(left, self._lose_patience)
        elif self._in_head or self.cycle is None or self.cycle.response_complete:
            self._let_go()

    def _let_go(self) -> None:
        """Close the connection; cut it off when the last bytes are not read in time."""
        self.transport.close()
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(self.linger, self.transport.abort)

    def pause_writing(self) -> None:
        """Give a caller who does not read some time."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Take note that the caller reads."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._length = b""
        self._fault = None
        self._in_head = True
        self._is_slow = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and note what says how long the body is."""
        if not self._in_head:
            return  # a trailer, which nobody reads: as a header it would be one that a proxy has not seen
        name = name.lower()
        if name == b"content-length":
            self._length = self._length or value  # behind a transfer-encoding it says nothing
        elif name == b"transfer-encoding":
            self._length = UNKNOWN
        elif name == b"expect":
            super().on_header(name, value)
            return
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take a turn's request over; leave any other to uvicorn. One that is refused ends the reading."""
        self._in_head = False
        self._wants_other = self.parser.should_upgrade()
        if self._wants_other:
            return  # the parser would leave out its body: it is read anew, without that wish
        version = self.parser.get_http_version()
        try:
            check(version, self.headers, self.url, self._length, self._unread)
            if self.url[:1] != b"/":
                self.url = origin_form(self.url, self.headers)
            if len(self.pipeline) >= MAX_PIPELINED:
                raise BadRequest("Too many requests came at once.", hint="read a reply before the next request")
        except Error as error:
            self._fault = error
            raise
        self._unread = 0
        path, _, query = self.url.partition(b"?")
        # A path that is not plain is uvicorn's to decode.
        if path.endswith(_TURN) and b"%" not in path and path.isascii() and version == "1.1" and self._is_usual():
            scope: MutableMapping[str, Any] = cast("MutableMapping[str, Any]", self.scope)
            scope.update(method="POST", path=path.decode(), raw_path=path, query_string=query)
            keep_alive = self.parser.should_keep_alive()
            self._exchange = Exchange(self, scope, keep_alive=keep_alive, is_first=self.cycle is None)
            self.cycle = cast("RequestResponseCycle", self._exchange)
        else:
            before = self.cycle
            super().on_headers_complete()
            if self.pipeline:
                # uvicorn has paused the reading, and the end would not be seen. MAX_PIPELINED is the bound.
                self.flow.resume_reading()
                self._answering = self._answering or before
        if self.cycle is not None and getattr(self.server_state, "is_draining", False):
            self.cycle.keep_alive = False  # the next turn goes to another server

    def _is_usual(self) -> bool:
        """True for a POST with a body of modest length, when no other request is being answered here."""
        if self.parser.get_method() != b"POST" or self.expect_100_continue:
            return False
        if self.root_path or self.limit_concurrency is not None:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        length = self._length
        return len(length) < 8 and length.isdigit() and int(length) <= USUAL_BODY

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, for as long as somebody may want it."""
        self._unread = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Begin the turn: its request is whole."""
        self._unread = 0
        cycle = self.cycle
        if self._wants_other or cycle.response_complete:
            return
        cycle.more_body = False
        if cast("object", cycle) is self._exchange:
            self.flow.resume_reading()  # a long body has paused it, and the end would not be seen
        cycle.message_event.set()
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Begin the turn also before its body is whole: how long that may take is the server's to say."""
        if self._refusal:
            return
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as told:
            self._read_anew(data[told.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._fault or BadRequest("The request is not HTTP/1.1."))
            return
        if self._unread > MAX_HEAD:
            self._refuse(too_large())
        elif self._in_head and not self._is_slow:
            self._is_slow = True
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            self._expect_head(self.head_timeout)
        self._begin()

    def _read_anew(self, rest: bytes) -> None:
        """Read a request again as if it did not ask for another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(BadRequest("This server is no proxy.", hint="POST to /chat/completions"))
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(without_upgrade(method, self.url, version, self.headers) + rest)

    def _refuse(self, error: Error) -> None:
        """Answer bytes that are no request, once those before them are answered. Nothing more is read."""
        body = msgspec.json.encode(error.body())
        headers = {**error.headers(), "content-type": "application/json", "connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = b"%b%bcontent-length: %d\r\n\r\n" % (STATUS_LINE[error.status], lines.encode(), len(body))
        self._refusal = head + body
        log.info("request refused status=%d code=%s", error.status, error.code)
        count = getattr(self.app, "note_refusal", None)  # another application's, in which ours is mounted, has none
        if count is not None:
            count(error)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._tell_refusal()
        elif cycle.more_body and not self.pipeline:  # they were to be its body
            if cycle.response_started:
                self.transport.abort()
            else:
                self._tell_refusal()
                cycle.disconnected = True
                cycle.message_event.set()

    def _tell_refusal(self) -> None:
        self.transport.write(self._refusal)
        self._let_go()

    def _begin(self) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.begun:
            exchange.begun = True
            self._start_asgi_task(cast("RequestResponseCycle", exchange), self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the turn that its caller is gone."""
        for timer in (self._patience, self._stuck):
            if timer is not None:
                timer.cancel()
        self._aside.discard(self)
        super().connection_lost(exc)
        if self._answering is not None:  # uvicorn tells the newest one only
            self._answering.disconnected = True
            self._answering.message_event.set()
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.disconnected = True
            exchange.set()
        elif exchange is not None and exc is not None:
            exchange.break_off()
        self._exchange = self._answering = None
        self.cycle = cast("RequestResponseCycle", None)  # they know us: all is let go of without the collector
