"""Make a turn of a request: whose dialect it is, whose session, and what is done against silence for it.

Whose session a turn belongs to is looked for in one order: the path (`/s/<session>/...`), the places that the App names
(FIRSTWORD_SESSION), and then where the platform has it. What stood in the body and was used is taken out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .. import plugins
from ..admission import read_key
from ..errors import BadRequest, ConfigError
from ..platforms import Asked, named
from ..platforms._detect import detected
from ..platforms.openai import identity
from ..policy import Policy
from ..turn import Turn
from .routes import AUDIO_PATHS, Route

AUTO = "auto"
BEARER = "bearer"
MAX_SESSION = 512  # signs


class Place(NamedTuple):
    """One place where a session's name may stand: `name` in the "header", "query" or "body", or the "bearer" itself."""

    kind: str
    name: str = ""


def places(written: Sequence[str]) -> tuple[Place, ...]:
    """Return the places that are written like `header:x-session-id`. Raises ConfigError."""
    return tuple(map(_place, written))


def _place(written: str) -> Place:
    kind, _, name = written.partition(":")
    if written == BEARER:
        return Place(BEARER)
    if kind in ("header", "query", "body") and name.strip():
        return Place(kind, name.strip().lower() if kind == "header" else name.strip())
    raise ConfigError(
        "A place for the session's name is not understood.",
        hint="write FIRSTWORD_SESSION=header:x-session-id,query:session_id,body:session_id, or bearer",
    )


class Reader:
    """Reads the requests of one App: `platform` is a name, or "auto"; `session` are the places of its name."""

    def __init__(self, platform: str, session: Sequence[Place], policy: Policy) -> None:
        self._platform = None if platform == AUTO else platform
        self._places = tuple(session)
        self._policy = policy
        self._spoken: dict[str, Policy] = {}  # by platform, for those that hear no error
        self._known: frozenset[str] | None = None

    def is_platform(self, name: str) -> bool:
        """True for the name of a platform."""
        if self._known is None:
            self._known = frozenset(plugins.known("platforms"))  # other packages' too: not looked for at each start
        return name in self._known

    def read(self, asked: Asked, route: Route) -> Turn:
        """Return the turn that a request asks for. Raises BadRequest that names the field."""
        session = route.session
        for kind, name in self._places:
            if session is not None:
                break
            session = _found(asked, kind, name)
        if session is not None and len(session) > MAX_SESSION:
            raise BadRequest(f"The session's name is longer than {MAX_SESSION} signs.", hint="send its digest")
        name = route.platform or self._platform or detected(asked)
        platform = named(name)
        turn = platform.read(asked)
        turn.platform = name
        turn.is_audio = route.tail in AUDIO_PATHS
        turn.session = session or turn.session
        turn.policy = self._policy
        if platform.apology is not None and self._policy.apology is None:
            if name not in self._spoken:
                self._spoken[name] = replace(self._policy, apology=platform.apology)
            turn.policy = self._spoken[name]
        return turn


def _found(asked: Asked, kind: str, name: str) -> str | None:
    """Return the session's name, if it stands in this place."""
    if kind == "header":
        return asked.headers.get(name) or None
    if kind == "query":
        return asked.query.get(name) or None
    if kind == BEARER:
        # Not the key itself: a session's name may be logged, and kept.
        key = read_key(asked.headers)
        return None if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return identity(_taken(asked.body, name.split(".")))


def _taken(body: dict[str, Any], path: Sequence[str]) -> Any:
    """Take a value out of a body, and the objects that it leaves empty; None when there is none."""
    inner = body.get(path[0])
    if len(path) == 1:
        return body.pop(path[0]) if identity(inner) is not None else None
    if not isinstance(inner, dict):
        return None
    value = _taken(inner, path[1:])
    if value is not None and not inner:
        del body[path[0]]
    return value
