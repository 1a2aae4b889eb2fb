"""What may answer a turn: the models that the user named, the functions, the demo, and which of them a turn means.

With several models the others stand in for the one that is asked (`race`). Without any, the name that a turn brings
goes to `base_url` as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from . import clock, plugins
from .beside import Beside
from .errors import BadRequest, ConfigError, Forbidden, NotFound, UpstreamError
from .health import Budget, Health
from .model import Again, Model, embedded, listed, remote, traced
from .providers import Embedded, Housed, Provider, Remote
from .providers.openai import OpenAI
from .race import Runner, once_more, race
from .telemetry import Counts
from .transport import Transport, split
from .turn import CallNext, Send, Turn

DIALECT = "openai"  # what a server speaks when nobody says otherwise
EMBEDDED = "demo"  # always there: a new user hears something before there is a key
HOUSED = "local"  # there when it is installed
FUNCTION = "function"  # whose dialect a function of the user's speaks, as traces have it


class Roster:
    """All that may answer, made ready within the event loop that it lives in.

    base_url, api_key: where a model is that names no other place, and the server's own key for that place.
    strict: the server at `base_url` refuses what it does not know.
    default: the model of a turn that names none, when there is no list; None = such a turn is refused.
    callers_pay: callers' own keys reach a model that has none.
    extra: what turns may cost beyond one request each. counts: hears of each request that is over.
    keeps_traces: what answers without HTTP notes in the turn's trace that it was asked.
    opened: is told the name of a model that is left alone from now on, asked with the server's key.
    """

    def __init__(
        self,
        models: Sequence[Model],
        functions: Mapping[str, CallNext],
        transport: Transport,
        *,
        base_url: str,
        api_key: str | None,
        strict: bool,
        default: str | None,
        callers_pay: bool,
        extra: Budget,
        counts: Counts | None = None,
        keeps_traces: bool = False,
        opened: Callable[[str], None] | None = None,
    ) -> None:
        self._counts = counts
        self._transport = transport
        self._keeps_traces = keeps_traces
        self._base_url = base_url
        self._api_key = api_key
        self._strict = strict
        self._default = default
        self._callers_pay = callers_pay
        self._first = models[0].name if models else None
        self._has_list = bool(models)
        self._extra = extra
        self._remotes: list[Model] = []
        self._housed: dict[str, Beside] = {}  # by provider: each has one process, however many names lead to it
        alone = len(models) < 2
        runners = [
            Runner(
                model.name,
                self._ready(model, model.name, alone=alone),
                Health(None if opened is None else partial(opened, model.name)),
            )
            for model in models
        ]
        self._runners = {runner.name: runner for runner in runners}
        self.runners = [] if alone else runners  # those of a race
        demo = self._noted(embedded(plugins.load("providers", EMBEDDED)), EMBEDDED, EMBEDDED)
        self._names: dict[str, CallNext] = {EMBEDDED: demo}
        self._warmed = list(self._housed)  # those that are named at start; any other waits until it is asked
        self._offer_local(is_needed=default == HOUSED and not models and HOUSED not in functions)
        for runner in runners:
            others = [other for other in runners if other is not runner]
            self._names[runner.name] = _racing([runner, *others], extra) if others else runner.answer
        self._names.update({name: self._noted(each, name, FUNCTION) for name, each in functions.items()})
        # What answers any other name.
        self.rest = self._names[models[0].name] if models else self._ready(Model("any"), None, alone=True)

    def _ready(self, model: Model, name: str | None, *, alone: bool) -> CallNext:
        provider = speaks(model, self._base_url, strict=self._strict)
        if isinstance(provider, Housed):
            beside = self._housed.setdefault(model.provider, Beside(provider, model.name, self._counts))
            answer = self._noted(beside.answer, model.name, model.provider)
            return _twice(answer, self._extra) if alone else answer
        if isinstance(provider, Embedded):
            return self._noted(embedded(provider), model.name, model.provider)
        self._remotes.append(model)
        url = where(model, self._base_url)
        # The server's key belongs to its own base_url; one elsewhere, on the same host too, may be somebody else's.
        key = model.api_key or (self._api_key if url.rstrip("/") == self._base_url.rstrip("/") else None)
        ask = partial(remote, provider, name, url, key, self._transport, callers_pay=self._callers_pay)
        ask = partial(ask, thinks=model.thinks, counts=self._counts)
        return ask(again=_again(ask(), self._extra)) if alone else ask()

    def _noted(self, answer: CallNext, name: str, provider: str) -> CallNext:
        return traced(answer, name, provider) if self._keeps_traces else answer

    def _offer_local(self, *, is_needed: bool) -> None:
        """Let the model on this machine be named when it is installed. Raises ConfigError when it is needed."""
        try:
            plugins.load("providers", HOUSED).command()
        except ConfigError:
            if is_needed:
                raise
            return
        self._names[HOUSED] = self._ready(Model(HOUSED, provider=HOUSED), HOUSED, alone=True)
        if is_needed:
            self._warmed.append(HOUSED)

    def ask(self, turn: Turn, send: Send) -> Awaitable[None]:
        """Let the model that the turn names answer it.

        Raises BadRequest when it names none and there is none, NotFound for the local one when it is not installed.
        """
        model = turn.model
        if not model and not self._has_list:
            if not self._default:
                raise BadRequest(
                    "The request names no model.",
                    param="model",
                    hint='send "model", or set LLM_MODEL for those who do not',
                )
            turn.model = model = self._default
        self._extra.turns += 1
        if turn.policy.models is not None or turn.grant.models is not None:
            return self._ask_among(turn, send)
        return self._ask_named(turn, send, model)

    def _ask_among(self, turn: Turn, send: Send) -> Awaitable[None]:
        """Let those answer who may: of what a hook has chosen, or the App lists, what the caller's key is for."""
        allowed, names = turn.grant.models, turn.policy.models
        if names is None:
            if not self._has_list or (turn.model in self._names and turn.model not in self._runners):
                if allowed is not None and turn.model not in allowed:
                    raise _not_for_this_key()
                return self._ask_named(turn, send, turn.model)
            first = [turn.model] if turn.model in self._runners else []
            names = (*first, *(name for name in self._runners if name not in first))
        chosen = [each for each in self._chosen(names) if allowed is None or each.name in allowed]
        if not chosen:
            raise _not_for_this_key()
        if self.runners:
            return race(turn, send, chosen, self._extra)
        turn.asked.append(chosen[0].name)
        return chosen[0].answer(turn, send)  # the only one of the list, which tries a second time by itself

    def _ask_named(self, turn: Turn, send: Send, model: str) -> Awaitable[None]:
        answer = self._names.get(model)
        if answer is None and model == HOUSED and not self._has_list:
            raise NotFound(
                "The model 'local' is not installed on this server.",
                param="model",
                hint="its operator can: pip install 'firstword[local]'",
            )
        name = model if answer is not None else self._first or model
        if not self.runners or name not in self._runners:  # a race notes by itself whom it asks
            turn.asked.append(name)
        return (answer or self.rest)(turn, send)

    def _chosen(self, names: Sequence[str]) -> list[Runner]:
        """Return the models that a turn may be answered by. Raises ConfigError for a name that is not in the list."""
        unknown = [name for name in names if name not in self._runners]
        if unknown:
            known = ", ".join(self._runners) or "none"
            raise ConfigError(f"{unknown[0]!r} is not in the App's `models`.", hint=f"choose among: {known}")
        return [self._runners[name] for name in names]

    def warn(self, name: str) -> None:
        """Take it that a model fails elsewhere: it is asked, and the first failure here is enough for a while."""
        self._runners[name].health.breaker(None).warn(clock.now())

    def keep_warm(self) -> None:
        """Connect to every upstream, and stay connected."""
        for model in self._remotes:
            self._transport.keep_warm(where(model, self._base_url))
        for name in self._warmed:
            self._housed[name].warm()

    async def close(self) -> None:
        """End the processes of models on this machine."""
        for beside in self._housed.values():
            await beside.close()

    @property
    def waiting(self) -> int:
        """How many turns wait for a model on this machine."""
        return sum(beside.waiting for beside in self._housed.values())

    # --- what the pages ask ------------------------------------------------------------------------

    async def models(self, key: str | None) -> list[dict[str, Any]]:
        """Return the models that a request may name, as the OpenAI API lists them."""
        ours = [{"id": name, "object": "model", "created": 0, "owned_by": "firstword"} for name in self._names]
        if self._has_list:
            return ours
        provider = plugins.load("providers", DIALECT)
        return ours + await listed(provider, self._base_url, self._api_key or key, self._transport)

    def states(self) -> dict[str, str]:
        """Return the state of each of several models: "closed" (it is asked), "open" (it is not) or "half-open"."""
        return {runner.name: runner.health.state(clock.now()) for runner in self.runners}

    async def unready(self) -> list[str]:
        """Return what keeps the server from serving, a sentence each."""
        names: dict[str, list[str]] = {}  # of the models at each URL
        for model in self._remotes:
            names.setdefault(where(model, self._base_url), []).append(model.name)
        results = await asyncio.gather(*map(self._transport.reach, names), return_exceptions=True)
        reasons = [
            f"{', '.join(there)}: {result.message}" if len(names) > 1 else result.message
            for there, result in zip(names.values(), results, strict=True)
            if isinstance(result, UpstreamError)
        ]
        reasons += [why for name in self._warmed if (why := self._housed[name].unready())]
        # One model within reach is enough to serve.
        return reasons if len(reasons) == len(names) + len(self._warmed) else []


def where(model: Model, base_url: str) -> str:
    """Return where a model is: as it says itself, else as its provider does; the plain dialect is at `base_url`."""
    if model.base_url:
        return model.base_url
    provider = plugins.load("providers", model.provider)
    own: str | None = None if model.provider == DIALECT else getattr(provider, "base_url", None)
    return own or base_url


def speaks(model: Model, base_url: str, *, strict: bool) -> Provider:
    """Return the provider of a model: the one that it names, else the one at whose host it is. Raises ConfigError.

    Somebody who only sets LLM_BASE_URL names none, and Groq refuses what it does not know all the same. `strict` is
    said of `base_url`.
    """
    name, url = model.provider, where(model, base_url)
    if name == DIALECT:
        host = split(url)[0].host
        for its_name, each in plugins.ours("providers").items():
            if isinstance(each, Remote) and split(each.base_url)[0].host == host:
                name = its_name
    provider: Any = plugins.load("providers", name)
    if model.strict or (strict and url == base_url and isinstance(provider, OpenAI)):
        if not isinstance(provider, OpenAI):
            raise ConfigError(f"A model of {name!r} cannot be strict.", hint="leave `strict` out of the Model")
        provider = provider.strictly()
    assert isinstance(provider, (Remote, Embedded, Housed))
    return provider


def as_model(model: Model | str) -> Model:
    """Read "gpt-5-mini" or "openai:gpt-5-mini"; a colon within a model's own name ("llama3:8b") stays."""
    if isinstance(model, Model):
        return model
    if not isinstance(model, str):
        raise ConfigError("One of `models` is neither a name nor a Model.", hint="write models=[Model('gpt-5-mini')]")
    if model in (EMBEDDED, HOUSED):
        return Model(model, provider=model)
    prefix, colon, name = model.partition(":")
    if colon and prefix in plugins.known("providers"):
        return Model(name, provider=prefix)
    return Model(model)


def check_new(name: str, others: Iterable[str]) -> None:
    """Raise ConfigError when this is no name, or another model has it."""
    if not isinstance(name, str):  # `@app.model` without its brackets gives us the function
        raise ConfigError("A model of your own has no name.", hint='write @app.model("parrot")')
    if name in others:
        raise ConfigError(f"There are two models {name!r}.", hint="give one of them another name")


def _not_for_this_key() -> Forbidden:
    return Forbidden(
        "This key is for none of the models that would answer.", param="model", hint="GET /models lists its"
    )


def _racing(runners: Sequence[Runner], extra: Budget) -> CallNext:
    async def ask(turn: Turn, send: Send) -> None:
        await race(turn, send, runners, extra)

    return ask


def _twice(answer: CallNext, extra: Budget) -> CallNext:
    """Let a model that failed before it began to speak try once more, if there is any use."""

    async def ask(turn: Turn, send: Send) -> None:
        asked = clock.now()
        try:
            await answer(turn, send)
            return
        except UpstreamError as error:
            if error.began or error.again_after is None:
                raise
            failed = error
        await once_more(turn, send, answer, failed, asked=asked, extra=extra)

    return ask


def _again(answer: CallNext, extra: Budget) -> Again:
    async def ask(turn: Turn, send: Send, failed: UpstreamError, asked: float) -> None:
        await once_more(turn, send, answer, failed, asked=asked, extra=extra)

    return ask
