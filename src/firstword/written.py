"""What the user wrote down: in the App, and in the environment. The only room that reads the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from . import plugins
from .admission import Gate
from .admission.hosts import Hosts
from .allowances import prices_of
from .errors import ConfigError
from .limits.prices import Price
from .links import Links
from .model import Model
from .platforms import named
from .policy import Policy
from .providers import Housed, Remote
from .roster import DIALECT, EMBEDDED, HOUSED, as_model, check_new, speaks, where
from .rounds.toolbox import Toolbox
from .server.reading import AUTO, Place, places
from .serving import Setup
from .sharing import replicas_of
from .stages.hooks import ChunkHook, EventHook, Hook, TextHook
from .telemetry.redaction import Redact
from .transport import Origin, Proxy, Transport, read_proxy, split
from .turn import CallNext, Stage
from .upstreams import check_upstream

if TYPE_CHECKING:
    from .voices import Voice

# What each App has of its own.
_LISTS = ("functions", "stages", "before", "on_chunk", "after", "on_event", "read_aloud")


@dataclass(slots=True)
class Written:
    """What the user wrote down. `settings` is a Settings; its room costs more to import than all the others."""

    settings: Any
    models: list[Model]
    gate: Gate
    hosts: Hosts | None  # the names that the server answers to; None = any
    links: Links
    sessions: tuple[Place, ...]  # where a session's name may stand
    policy: Policy
    toolbox: Toolbox
    functions: dict[str, CallNext] = field(default_factory=dict)  # the user's own models
    stages: list[Stage] = field(default_factory=list)
    before: list[Hook] = field(default_factory=list)
    on_chunk: list[ChunkHook] = field(default_factory=list)
    after: list[Hook] = field(default_factory=list)
    on_event: list[EventHook] = field(default_factory=list)
    prices: dict[str, Price] | None = None
    voice: Voice | None = None
    voice_function: Callable[..., Any] | None = None  # the user's own, which is asked before it
    read_aloud: list[TextHook] = field(default_factory=list)
    redact: Redact | None = None  # the user's own

    def copy(self) -> Written:
        """Return one that says the same; what is added to one of them later is not the other's."""
        lists = {name: getattr(self, name).copy() for name in _LISTS}
        return replace(self, toolbox=self.toolbox.copy(), **lists)

    @property
    def held_key(self) -> str | None:
        """The server's own key for `base_url`."""
        return _held_key(self.settings)

    @property
    def setup(self) -> Setup:
        """How the server is set up."""
        return Setup(**{each.name: getattr(self.settings, each.name) for each in fields(Setup)})

    @property
    def may_act(self) -> bool:
        """True when somebody is there who may ask to end or transfer a call."""
        return bool(self.before or self.stages or self.toolbox or self.functions or self.on_chunk)


def write_down(models: Sequence[Model | str], given: dict[str, Any]) -> Written:
    """Return what is written down, and in the environment. Raises ConfigError for what cannot work.

    A wrong URL, key, proxy, name or provider is told now, not in the first call.
    """
    from .settings import load  # here, because pydantic doubles the time of `import firstword`

    voice = given.pop("voice", None)
    settings = load(**given, voice=voice if isinstance(voice, str) else None)
    if isinstance(models, (str, Model)):
        raise ConfigError("`models` is not a list.", hint="write models=['gpt-5-mini']")
    listed = [_keyed(as_model(each)) for each in models or settings.models]
    engine_tools = frozenset[str]() if settings.platform == AUTO else named(settings.platform).engine_tools
    sessions = places(settings.session)
    held = _held_key(settings)
    for position, each in enumerate(listed):
        check_new(each.name, (other.name for other in listed[:position]))
    replicas_of(settings)
    keys = [key.get_secret_value() for key in settings.keys]
    holds_key = held is not None or any(model.api_key for model in listed)
    gate = Gate(keys, holds_key=holds_key, open_to_all=settings.open, **settings.for_gate())
    for each in [Model("any", settings.base_url, held), *listed]:
        _check(each, settings, held, callers_pay=gate.passes_keys)
    if settings.agora_agents_api_base_url:
        check_upstream(settings.agora_agents_api_base_url, carries_key=True, plain_http=settings.plain_http)
    return Written(
        settings=settings,
        prices=prices_of(settings, listed),
        models=listed,
        sessions=sessions,
        gate=gate,
        hosts=Hosts(settings.hosts) if settings.hosts else None,
        links=Links(settings.image_hosts),
        policy=settings.policy(),
        toolbox=Toolbox(engine_tools),
        voice=_voice(settings, gate) if voice is None or isinstance(voice, str) else _checked(voice),
    )


def _check(model: Model, settings: Any, held: str | None, *, callers_pay: bool) -> None:
    """Raise ConfigError for a model that could not be asked, or not safely. `held`: the key for `base_url`."""
    provider = speaks(model, settings.base_url, strict=settings.strict)
    url = where(model, settings.base_url)
    proxy_for(split(url)[0])
    if isinstance(provider, Housed):
        provider.command()
    elif isinstance(provider, Remote):
        own = model.api_key or (held if url.rstrip("/") == settings.base_url.rstrip("/") else None)
        check_upstream(url, carries_key=bool(own) or callers_pay, plain_http=settings.plain_http)


def _voice(settings: Any, gate: Gate) -> Voice | None:
    """Return the voice that the settings name; None when they name none. Raises ConfigError."""
    if settings.voice is None:
        return None
    name, _, rest = settings.voice.partition(":")
    own = settings.voice_api_key.get_secret_value() if settings.voice_api_key else None
    is_elsewhere = settings.voice_base_url is not None
    if is_elsewhere:
        check_upstream(settings.voice_base_url, carries_key=bool(own), plain_http=settings.plain_http)
    made: Voice = plugins.load("voices", name)(
        rest,
        base_url=settings.voice_base_url or settings.base_url,
        api_key=own if is_elsewhere else own or _held_key(settings),
        callers_pay=gate.passes_keys and not is_elsewhere,
        connect=partial(Transport, connect_timeout=settings.connect_timeout, proxy_for=proxy_for),
    )
    return made


def _checked(voice: Any) -> Voice:
    if not all(callable(getattr(voice, name, None)) for name in ("say", "open", "close")):
        raise ConfigError("`voice` is neither a name nor a Voice.", hint="write voice='espeak', or use @app.voice")
    checked: Voice = voice
    return checked


def _held_key(settings: Any) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key else None


def _keyed(model: Model) -> Model:
    """Give a model of a provider with a name of its own the key of that name, when it has none."""
    from .settings import key_of

    if model.api_key or model.provider in (DIALECT, EMBEDDED, HOUSED):
        return model
    return replace(model, api_key=key_of(model.provider))


def proxy_for(origin: Origin) -> Proxy | None:
    from .settings import proxy_url

    url = None if origin.scheme == "http" or origin.is_loopback else proxy_url(origin.host)
    return read_proxy(url) if url else None
