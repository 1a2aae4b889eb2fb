"""What a request may do is asked of the gate here, and holds for the turn that is read of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..admission import Gate, Grant, SignerUnknown
from ..admission.callers import Client
from ..admission.urls import PARAMETERS, SIGNATURE
from ..errors import Forbidden
from ..turn import Turn
from .routes import Route


async def admitted(
    gate: Gate, headers: Mapping[str, str], client: Client, *, query: dict[str, str], session: str | None
) -> Grant:
    """Return what the caller may do, and take the signature out of the query: nobody behind the gate needs it.

    Nothing is waited for, but when a token names a new key of its issuer. Raises as `Gate.admit` does.
    """
    try:
        grant = gate.admit(headers, client, query=query, session=session)
    except SignerUnknown:
        await gate.learn()
        grant = gate.admit(headers, client, query=query, session=session)
    if gate.signs and SIGNATURE in query:
        for name in PARAMETERS:
            query.pop(name, None)
    return grant


def bound(route: Route, grant: Grant) -> Route:
    """Return the route with the session that the caller may speak for. Raises Forbidden when the path names another."""
    if grant.session is None:
        return route
    if route.session not in (None, grant.session):
        raise Forbidden("This key is for another session.", hint="leave /s/<session> out of the path")
    return route._replace(session=grant.session)


def check_model(turn: Turn) -> None:
    """Raise Forbidden when the request names a model that the caller may not ask for."""
    allowed = turn.grant.models
    if allowed is not None and turn.model and turn.model not in allowed:
        raise Forbidden(
            "This key is not for the model that was asked for.", param="model", hint="GET /models lists its"
        )
