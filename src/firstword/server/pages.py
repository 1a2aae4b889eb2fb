"""The ordinary pages: health, readiness, the list of models, the documentation. Never on the path of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from .. import clock
from ..admission import NOBODY, Gate, Grant
from ..console import Console, page
from ..errors import Error, MethodNotAllowed, NotFound
from ..telemetry import Metrics
from .admitting import admitted, bound
from .request import read_headers, read_query
from .routes import Route
from .writers import ASGISend, refuse, send_body, send_json

Scope: TypeAlias = MutableMapping[str, Any]

READY_FOR = 5.0  # seconds that an answer of /ready is kept, so that a prober cannot make us dial

# A page of text: nothing in it may run, and nothing is fetched from elsewhere.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
}


PUBLIC = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready", "/console"})  # what a stranger may see
OPERATORS = frozenset({"/metrics", "/console/turns"})
INSIDE = OPERATORS | {"/health", "/ready", "/console"}  # what goes to the operator's port, when there is one


class Info(Protocol):
    """What the pages tell of the server."""

    async def models(self, key: str | None) -> list[dict[str, Any]]:
        """Return the models as the OpenAI API lists them."""

    async def unready(self) -> list[str]:
        """Return what keeps the server from serving, a sentence each."""

    def states(self) -> dict[str, str]:
        """Return the state of each model that others stand in for, by name."""


class Pages:
    """Answer every request that is not a turn.

    A page is for whom the gate lets in, unless it stands in PUBLIC or OPERATORS. operator_port: where those of INSIDE
    are, and only those; None: they are beside the others. store: says how the store that replicas share is.
    console: what shows the last turns; None: there is no page.
    """

    def __init__(
        self,
        gate: Gate,
        info: Info,
        metrics: Metrics,
        *,
        operator_port: int | None = None,
        store: Callable[[], str] | None = None,
        console: Console | None = None,
    ) -> None:
        self._gate = gate
        self._info = info
        self._counted = metrics
        self._store = store
        self._checked: tuple[float, list[str]] | None = None
        self._checking = asyncio.Lock()
        self._is_retiring = False
        self._operator_port = operator_port
        self._pages: dict[str, Callable[[Scope, ASGISend, Grant], Awaitable[None]]] = {
            "/": self._docs,
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/models": self._models,
            "/v1/models": self._models,
            "/docs": self._docs,
            "/openapi.json": self._openapi,
        }
        self._console = console
        if console is not None:
            self._pages |= {"/console": self._show, "/console/turns": self._turns}

    @property
    def paths(self) -> list[str]:
        """Every path that is answered here."""
        return list(self._pages)

    def retire(self) -> None:
        """Be unready from now on: the server is told to stop."""
        self._is_retiring = True

    def is_inside(self, scope: Scope) -> bool:
        """True for a request that came to the operator's port."""
        return self._operator_port is not None and (scope.get("server") or ("", None))[1] == self._operator_port

    async def answer(self, path: str, scope: Scope, send: ASGISend, where: Route | None = None) -> None:
        """Answer one request, to `where` if its path says more; an error is told as the API tells errors."""
        try:
            tail = (path if where is None else where.tail) or "/"
            page = self._pages.get(tail) if self._is_here(tail, scope) else None
            if page is None:
                raise NotFound("There is nothing at this path.", hint="POST to /chat/completions; GET /docs lists all")
            if scope["method"] not in ("GET", "HEAD"):
                hint = "a turn is a POST to /chat/completions" if scope["method"] == "POST" else None
                raise MethodNotAllowed(f"{tail} takes GET.", allow=["GET", "HEAD"], hint=hint)
            await page(scope, send, await self._admit(tail, scope, where))
        except Error as error:
            self._counted.note_refusal(error)
            await refuse(send, error)

    def _is_here(self, path: str, scope: Scope) -> bool:
        return self._operator_port is None or (path in INSIDE) == self.is_inside(scope)

    async def _admit(self, path: str, scope: Scope, where: Route | None) -> Grant:
        if path in PUBLIC:
            return NOBODY
        headers, client = read_headers(scope["headers"]), scope.get("client")
        if path in OPERATORS:
            self._gate.admit_operator(headers, client)
            return NOBODY
        query, session = read_query(scope.get("query_string", b"")), None if where is None else where.session
        grant = await admitted(self._gate, headers, client, query=query, session=session)
        if where is not None:
            bound(where, grant)
        return grant

    async def _health(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The process runs."""
        await send_json(send, 200, {"status": "ok"}, {})

    async def _ready(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The process can serve: an upstream is within reach. Why not, and which models there are, operators see.

        With `?models=no` upstreams do not count: an apology is better heard from us than an error from a balancer.
        """
        is_operator = self._gate.is_operator(read_headers(scope["headers"]), scope.get("client"))
        if self._is_retiring:
            reasons, headers = ["The server is being stopped."], {"connection": "close"}
        else:
            asks = read_query(scope.get("query_string", b"")).get("models") != "no"
            reasons, headers = await self._reasons() if asks else self._gate.unready(), {}
        value: dict[str, Any] = {"status": "unready" if reasons else "ready"}
        if is_operator:
            value.update(reasons=reasons, models=self._info.states())
            if self._store is not None:
                value["store"] = self._store()  # one that is away keeps nobody from serving
        await send_json(send, 503 if reasons else 200, value, headers)

    async def _reasons(self) -> list[str]:
        async with self._checking:
            if self._checked is None or clock.now() - self._checked[0] > READY_FOR:
                self._checked = (clock.now(), [*self._gate.unready(), *await self._info.unready()])
            return self._checked[1]

    async def _metrics(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """What was counted since the start, for Prometheus."""
        kind, page = await self._counted.page(read_headers(scope["headers"]).get("accept", ""))
        await send_body(send, 200, kind, page, {})

    async def _show(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The console: a page that holds nothing, and asks for what it shows."""
        body, headers = page()
        await send_body(send, 200, "text/html; charset=utf-8", body, headers)

    async def _turns(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """What the console shows."""
        assert self._console is not None
        await send_json(send, 200, self._console.data(self._info.states()), {})

    async def _models(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The models that a request may name."""
        models = await self._info.models(grant.key)
        if grant.models is not None:
            models = [each for each in models if each["id"] in grant.models]
        await send_json(send, 200, {"object": "list", "data": models}, {})

    async def _docs(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The documentation, as a page."""
        from . import openapi

        await send_body(send, 200, "text/html; charset=utf-8", openapi.page().encode(), PAGE_HEADERS)

    async def _openapi(self, scope: Scope, send: ASGISend, grant: Grant) -> None:
        """The documentation, as an OpenAPI document."""
        from .openapi import document

        await send_json(send, 200, document(), {})
