"""Make a turn of a request: whose dialect it is, whose session, and what is done against silence for it.

Whose session a turn belongs to is looked for in one order: the path (`/s/<session>/...`), the places that the App names
(FIRSTWORD_SESSION), and then where the platform has it. What stood in the body and was used does not reach the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .. import plugins
from ..admission import read_key
from ..errors import BadRequest, ConfigError
from ..links import Links
from ..platforms import Asked, named
from ..platforms._detect import detected
from ..platforms.openai import identity
from ..policy import Policy
from ..turn import Turn
from .routes import AUDIO_PATHS, Route

AUTO = "auto"
BEARER = "bearer"
MAX_SESSION = 512  # signs
KEYS = frozenset({"authorization", "api-key", "x-api-key"})  # headers, see `read_key`


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
    is_key = kind == "header" and name.strip().lower() in KEYS  # which is for `bearer`: a session's name is no secret
    if kind in ("header", "query", "body") and name.strip() and not is_key:
        return Place(kind, name.strip().lower() if kind == "header" else name.strip())
    raise ConfigError(
        "A place for the session's name is not understood.",
        hint="write FIRSTWORD_SESSION=header:x-session-id,query:session_id,body:session_id, or bearer",
    )


class Reader:
    """Reads the requests of one App: `platform` is a name, or "auto"; `session` are the places of its name.

    links: where the parts of messages may lead.
    """

    def __init__(self, platform: str, session: Sequence[Place], policy: Policy, links: Links) -> None:
        self._platform = None if platform == AUTO else platform
        self._places = tuple(session)
        self._policy = policy
        self._links = links
        self._spoken: dict[str, Policy] = {}  # by platform, for those that hear no error
        self._known: frozenset[str] | None = None

    def is_platform(self, name: str) -> bool:
        """True for the name of a platform."""
        if self._known is None:
            self._known = frozenset(plugins.known("platforms"))  # other packages' too: not looked for at each start
        return name in self._known

    def must_speak(self, route: Route) -> bool:
        """True when the path or the setting says that it is an engine's whose calls end with an error."""
        name = route.platform or self._platform
        return name is not None and named(name).apology is not None

    def read(self, asked: Asked, route: Route) -> Turn:
        """Return the turn that a request asks for. Raises BadRequest that names the field."""
        session, path = route.session, []
        for kind, name in self._places:
            if session is not None:
                break
            path = name.split(".") if kind == "body" else []
            session = identity(_at(asked.body, path)) if path else _found(asked, kind, name)
        if session is not None and len(session) > MAX_SESSION:
            raise BadRequest(f"The session's name is longer than {MAX_SESSION} signs.", hint="send its digest")
        name = route.platform or self._platform or detected(asked)
        platform = named(name)
        turn = platform.read(asked)
        self._links.check(turn.messages)
        if path and session is not None:
            # Taken out only now: the platform may be known by it, or need it as well.
            _take(turn.request, path, session)
            if path[0] == "params" and path[1:]:  # which Agora's dialect lifts to the root
                _take(turn.request, path[1:], session)
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
    """Return the session's name, if it stands in this place outside the body."""
    if kind == "header":
        return asked.headers.get(name) or None
    if kind == "query":
        return asked.query.get(name) or None
    # Not the key itself: a session's name may be logged, and kept.
    key = read_key(asked.headers)
    return None if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _at(body: Any, path: Sequence[str]) -> Any:
    """Return what stands at a path in a body; None when there is nothing."""
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _take(body: dict[str, Any], path: Sequence[str], session: str) -> None:
    """Take the session's name out of a body where it stands at this path, and the objects that it leaves empty."""
    name, *rest = path
    inner = body.get(name)
    if rest and isinstance(inner, dict):
        _take(inner, rest, session)
        if not inner:
            del body[name]
    elif not rest and identity(inner) == session:
        del body[name]
