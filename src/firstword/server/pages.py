"""The ordinary pages: health, readiness, the list of models, the documentation. Never on the path of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from .. import clock
from ..admission import Gate
from ..errors import Error, MethodNotAllowed, NotFound
from ..telemetry import Metrics
from .request import read_headers
from .writers import ASGISend, refuse, send_body, send_json

Scope: TypeAlias = MutableMapping[str, Any]

READY_FOR = 5.0  # seconds that an answer of /ready is kept, so that a prober cannot make us dial

# A page of text: nothing in it may run, and nothing is fetched from elsewhere.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
}


class Info(Protocol):
    """What the pages tell of the server."""

    async def models(self, key: str | None) -> list[dict[str, Any]]:
        """Return the models as the OpenAI API lists them."""

    async def unready(self) -> list[str]:
        """Return what keeps the server from serving, a sentence each."""

    def states(self) -> dict[str, str]:
        """Return the state of each model that others stand in for, by name."""


class Pages:
    """Answer every request that is not a turn."""

    def __init__(self, gate: Gate, info: Info, metrics: Metrics) -> None:
        self._gate = gate
        self._info = info
        self._counted = metrics
        self._checked: tuple[float, list[str]] | None = None
        self._checking = asyncio.Lock()
        self._is_retiring = False
        self._pages: dict[str, Callable[[Scope, ASGISend], Awaitable[None]]] = {
            "/": self._docs,
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/models": self._models,
            "/v1/models": self._models,
            "/docs": self._docs,
            "/openapi.json": self._openapi,
        }

    @property
    def paths(self) -> list[str]:
        """Every path that is answered here."""
        return list(self._pages)

    def retire(self) -> None:
        """Be unready from now on: the server is told to stop."""
        self._is_retiring = True

    async def answer(self, path: str, scope: Scope, send: ASGISend) -> None:
        """Answer one request; an error is told as the API tells errors."""
        try:
            page = self._pages.get(path or "/")
            if page is None:
                raise NotFound("There is nothing at this path.", hint="POST to /chat/completions; GET /docs lists all")
            if scope["method"] not in ("GET", "HEAD"):
                hint = "a turn is a POST to /chat/completions" if scope["method"] == "POST" else None
                raise MethodNotAllowed(f"{path or '/'} takes GET.", allow=["GET", "HEAD"], hint=hint)
            await page(scope, send)
        except Error as error:
            self._counted.note_refusal(error)
            await refuse(send, error)

    async def _health(self, scope: Scope, send: ASGISend) -> None:
        """The process runs."""
        await send_json(send, 200, {"status": "ok"}, {})

    async def _ready(self, scope: Scope, send: ASGISend) -> None:
        """The process can serve: an upstream is within reach."""
        if self._is_retiring:
            value = {"status": "unready", "reasons": ["The server is being stopped."], "models": self._info.states()}
            await send_json(send, 503, value, {"connection": "close"})
            return
        async with self._checking:
            if self._checked is None or clock.now() - self._checked[0] > READY_FOR:
                self._checked = (clock.now(), await self._info.unready())
            reasons = self._checked[1]
        value = {"status": "unready" if reasons else "ready", "reasons": reasons, "models": self._info.states()}
        await send_json(send, 503 if reasons else 200, value, {})

    async def _metrics(self, scope: Scope, send: ASGISend) -> None:
        """What was counted since the start, for Prometheus."""
        headers = read_headers(scope["headers"])
        self._gate.admit_operator(headers, scope.get("client"))
        kind, page = await self._counted.page(headers.get("accept", ""))
        await send_body(send, 200, kind, page, {})

    async def _models(self, scope: Scope, send: ASGISend) -> None:
        """The models that a request may name."""
        grant = self._gate.admit(read_headers(scope["headers"]), scope.get("client"))
        await send_json(send, 200, {"object": "list", "data": await self._info.models(grant.key)}, {})

    async def _docs(self, scope: Scope, send: ASGISend) -> None:
        """The documentation, as a page."""
        from .openapi import page

        await send_body(send, 200, "text/html; charset=utf-8", page().encode(), PAGE_HEADERS)

    async def _openapi(self, scope: Scope, send: ASGISend) -> None:
        """The documentation, as an OpenAPI document."""
        from .openapi import document

        await send_json(send, 200, document(), {})
