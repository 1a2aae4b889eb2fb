"""Ask a model: one provider's request sent, its chunks streamed.

Whatever can answer a turn is a `CallNext`: a model behind HTTP (`remote`), one in the process
(`embedded`), or a function of the user's (`own`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import msgspec

from . import clock
from .admission import is_key
from .chunk import Chunk
from .errors import (
    ConfigError,
    Error,
    RequestError,
    Unauthorized,
    UpstreamError,
    UpstreamStatusError,
)
from .limits.usage import counted
from .providers import Embedded, Remote
from .relay import Relay
from .telemetry import LEFT, Counts, status_of
from .trace import Ask, Trace
from .transport import Connection, Transport, split
from .turn import CallNext, Send, Turn

NO_RETRY = {"x-should-retry": "false"}  # what the operator must mend is the same a second later
MAX_ERROR_BODY = 64 * 1024  # bytes of an error page that are worth reading
MAX_LIST = 1024 * 1024  # bytes of a list of models
LIST_TIMEOUT = 3.0  # seconds for it; the page is a help, not a turn


Lines: TypeAlias = tuple[tuple[str, str], ...]  # of a request's head

# Asks a model a second time: the turn, its send, what the first time failed with, and when that was.
Again: TypeAlias = Callable[[Turn, Send, UpstreamError, float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Model:
    """Something that can answer: a provider, a model's name there, and a key.

    `name` is what its server calls it. `base_url` is the App's when left out, and `api_key` then too; a model
    elsewhere needs a key of its own. Without any key the caller's goes through. `strict`: its server refuses what it
    does not know, so it gets the plainest form of a conversation (docs/history.md). `thinks`: its answers begin with
    reasoning, up to `</think>`, although nothing says so, as the template keeps the opening tag to itself.
    """

    name: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    provider: str = "openai"
    strict: bool = False
    thinks: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("A model has no name.", hint="write Model('gpt-5-mini')")
        if self.base_url is not None:
            split(self.base_url)
        if self.api_key is not None and not is_key(self.api_key):
            raise ConfigError(
                "An API key holds a space, a line break or a sign that is not ASCII.",
                hint="check LLM_API_KEY, or the api_key of the Model",
            )


def remote(
    provider: Remote,
    name: str | None,
    base_url: str,
    api_key: str | None,
    transport: Transport,
    *,
    callers_pay: bool = True,
    again: Again | None = None,
    thinks: bool = False,
    counts: Counts | None = None,
) -> CallNext:
    """Return the model `name` behind `base_url`; None means the one that the turn names.

    `callers_pay` says that callers' own keys reach this model when it has none. `again` is called with what failed
    before anything of the answer came, when asking the same once more may help; in a race the race does that. `counts`
    hears of each request that is over.
    """
    origin, _ = split(base_url)
    server = _Server(provider, base_url, transport, thinks, counts)

    async def ask(turn: Turn, send: Send) -> None:
        model = name or turn.model
        key = api_key or turn.key
        if key is None and not origin.is_loopback:
            raise _missing_key(model, callers_pay)
        asked = turn.timeline.asked = clock.now()
        status = LEFT
        try:
            exchange = server.exchange if turn.trace is None else partial(server.traced, turn.trace)
            if turn.used is not None:
                exchange = partial(counted, exchange)
            await exchange(turn, send, model, key, asked)
            status = "200"
            return
        except UpstreamError as error:
            status = status_of(error)
            error.model = error.model or model
            if api_key and error.status in (401, 403):
                raise _own_key_refused(model, origin.authority) from None
            if again is None or error.began or error.again_after is None:
                raise
            failed = error
        except RequestError:
            status = ""  # nothing was sent
            raise
        finally:
            if counts is not None and status:
                counts.note_request(model, status)
        await again(turn, send, failed, asked)

    return ask


@dataclass(frozen=True, slots=True)
class _Server:
    """Where a model is behind HTTP."""

    provider: Remote
    base_url: str
    transport: Transport
    thinks: bool
    counts: Counts | None

    async def traced(self, trace: Trace, turn: Turn, send: Send, model: str, key: str | None, asked: float) -> None:
        """Do the same, and note it in the turn's trace, to which the request says that it belongs."""
        origin, _ = split(self.base_url)
        note = trace.ask(model, provider=dialect(self.provider), host=origin.host, port=origin.port)
        with noting(note, turn):
            await self.exchange(turn, send, model, key, asked, note.headers)

    async def exchange(
        self, turn: Turn, send: Send, model: str, key: str | None, asked: float, more: Lines = ()
    ) -> None:
        """Send one request, and pass its answer on. Raises UpstreamError. more: of the request's head."""
        request = self.provider.request(turn, model=model, base_url=self.base_url, key=key)
        if more:
            request = replace(request, headers=(*request.headers, *more))
        connection = await self.transport.request(request, within=turn.policy.first_token_timeout)
        try:
            turn.timeline.answered = clock.now()
            deadline = asked + turn.policy.first_token_timeout
            if connection.status != 200 or not self.provider.streams(connection.headers):
                body = await read_page(connection, deadline)
                raise self.provider.refuse(connection.status, connection.headers, body, secret=key)
            decoder = self.provider.decoder(turn, secret=key, thinks=self.thinks)
            relay = Relay(turn, send, connection, decoder, deadline=deadline)
            try:
                await relay.run()
            except UpstreamError as error:
                error.began = relay.began
                raise
            finally:
                turn.is_calling = decoder.calling
                if self.counts is not None and decoder.usage is not None:
                    self.counts.note_tokens(model, decoder.usage)
            connection.drain()
        finally:
            connection.release()


def dialect(provider: Any) -> str:
    """Return the name of a provider's dialect, as traces have it."""
    return type(provider).__name__.lower()


@contextmanager
def noting(note: Ask, turn: Turn) -> Iterator[None]:
    """Note in a trace what becomes of a request to a model."""
    try:
        yield
    except BaseException as error:
        note.end(turn.timeline.answered, turn.timeline.spoke, error)
        raise
    note.end(turn.timeline.answered, turn.timeline.spoke, None)


def traced(answer: CallNext, name: str, provider: str) -> CallNext:
    """Return the same model, whose requests stand in the turns' traces.

    Of a model behind HTTP `remote` notes them itself, because its request has to name its parent.
    """

    async def ask(turn: Turn, send: Send) -> None:
        if turn.trace is None:
            await answer(turn, send)
            return
        with noting(turn.trace.ask(name, provider=provider), turn):
            await answer(turn, send)

    return ask


def _missing_key(model: str, callers_pay: bool) -> Error:
    """Say who has to mend it: the caller, when callers' keys are for the provider, else the operator."""
    if callers_pay:
        return Unauthorized(
            "No API key was sent.",
            hint="send the header 'Authorization: Bearer <your provider's key>', or use the model 'demo'",
        )
    return UpstreamStatusError(
        "The server has no key for this model.",
        status=502,
        passed=NO_RETRY,
        model=model,
        hint="its operator must set LLM_API_KEY, or the api_key of the Model: any word if it needs none",
    )


def _own_key_refused(model: str, authority: str) -> Error:
    """The caller has no say in the server's own key: the provider's 401 would send them looking for theirs."""
    error = UpstreamStatusError(
        "The model's server did not accept the server's own key.",
        status=502,
        passed=NO_RETRY,
        model=model,
        hint="the operator of this server must check LLM_API_KEY",
        detail=authority,
    )
    error.retryable = False  # another model would answer, and the mistake would never be seen
    return error


async def read_page(connection: Connection, deadline: float, limit: int = MAX_ERROR_BODY) -> bytes:
    """Return the start of a response that is no stream."""
    page = b""
    try:
        while len(page) < limit:
            data = await connection.read(deadline - clock.now())
            if not data:
                break
            page += data
    except UpstreamError:
        pass  # the status says enough
    return page


def embedded(provider: Embedded) -> CallNext:
    """Return the model that answers in the process, at its own pace."""

    async def play(turn: Turn, send: Send) -> None:
        turn.timeline.asked = turn.timeline.answered = clock.now()
        request = turn.request
        if not turn.stream:
            request = {**request, "stream_options": {"include_usage": True}}
        for pause, data in provider.answer(request, id=turn.id, created=int(time.time())):
            # A reply in one piece needs no pace. 0 is waited too: others must have their turn, a hang-up its effect.
            await asyncio.sleep(pause if turn.stream else 0)
            chunk = Chunk(data)
            turn.hears(chunk)
            # What ends the reply may leave with `[DONE]`; what speaks may not wait.
            turn.corked = not chunk.speaks and (chunk.finish_reason is not None or not data["choices"])
            await send(chunk)

    return play


async def listed(provider: Remote, base_url: str, key: str | None, transport: Transport) -> list[dict[str, Any]]:
    """Return the models that the server behind `base_url` lists; none when it does not say."""
    try:
        connection = await transport.request(provider.models(base_url=base_url, key=key), within=LIST_TIMEOUT)
        try:
            page = await read_page(connection, clock.now() + LIST_TIMEOUT, MAX_LIST)
        finally:
            connection.release()
        models = msgspec.json.decode(page)["data"] if connection.status == 200 else []
        return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
    except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return []
