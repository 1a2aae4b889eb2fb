"""The settings of running it for many: access, limits, seeing inside, many machines, lifecycle.

They are the operator's, and are set in the environment only: the file with the App is the same on every machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from ..admission.callers import networks
from ..admission.keys import KeyFile
from ..admission.tokens import Tokens, read_key_file
from ..admission.urls import SignedURLs


class Running(BaseSettings):
    """Each field is a setting; its description is what docs/running.md says of it."""

    # --- access
    hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Names that the Host header may say, separated by commas, as in `voice.example.com,*.example.org`; "
        "unset: any.",
    )
    image_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Hosts that the images, sound and files of a message may lead to, separated by commas; `*`: any "
        "public one; `none`: a message holds its data; unset: as `*`.",
    )
    plain_http: bool = Field(
        False, description="Let keys go to a public host in plain http, as the whole way there is yours."
    )
    keys_file: str | None = Field(
        None, description="A file of named gate keys: hashes, limits and models. A change of it counts at once."
    )
    jwt_secret: SecretStr | None = Field(
        None, description="The secret of at least 32 bytes that callers' tokens are signed with (HS256)."
    )
    jwt_key_file: str | None = Field(
        None, description="The public key, a PEM file, for tokens that are signed with the private one (RS256, ES256)."
    )
    jwt_jwks: str | None = Field(
        None, description="The https URL of an issuer's set of public keys, which is asked for again as it changes."
    )
    jwt_issuer: str | None = Field(None, description="The `iss` that a token has to have.")
    jwt_audience: str | None = Field(None, description="The `aud` that a token has to have.")
    url_secret: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="What URLs for one session are signed with, at least 32 bytes. Of several, separated by commas, "
        "the first signs, and all are good.",
    )
    trusted_proxies: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Networks, separated by commas, whose `x-forwarded-for` says which address a request came from.",
    )
    operator_key: SecretStr | None = Field(
        None,
        description="The key for `/metrics` and the console, as it is or as `sha256:<hex>`: gate keys do not open "
        "them any more.",
    )
    operator_host: str = Field("127.0.0.1", description="Address that the operator's port listens on.")
    operator_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A port of its own for `/metrics`, `/health`, `/ready` and the console, which the other one has "
        "no more.",
    )

    # --- limits
    max_connections: int = Field(
        20_000,
        gt=0,
        description="Connections that one process keeps open; further ones get a 503. Fewer where the system grants "
        "fewer descriptors: a quarter of them is kept for models.",
    )
    max_turns: int = Field(
        2000, ge=0, description="Most turns in progress at the same time in one process; `0`: as many as come."
    )
    max_turns_per_key: int | None = Field(None, gt=0, description="The same of one client.")
    max_turns_per_session: int | None = Field(None, gt=0, description="The same of one session.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most requests of all clients in a minute.")
    requests_per_minute_per_key: float | None = Field(None, gt=0, description="The same of one client.")
    requests_per_minute_per_session: float | None = Field(None, gt=0, description="The same of one session.")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Most tokens of all clients in a minute, of prompts and answers."
    )
    tokens_per_minute_per_key: float | None = Field(None, gt=0, description="The same of one client.")
    tokens_per_minute_per_session: float | None = Field(None, gt=0, description="The same of one session.")
    prices: str | None = Field(None, description="File with what a million tokens of each model cost.")
    budget: float | None = Field(
        None, gt=0, description="What all clients may spend in a period, in the unit of the prices."
    )
    budget_per_key: float | None = Field(None, gt=0, description="The same of one client.")
    budget_per_session: float | None = Field(None, gt=0, description="What one session may spend in all.")
    budget_period: Literal["day", "month", "total"] = Field(
        "month", description="The period of budgets, by UTC: `day`, `month` or `total`, which never ends."
    )
    max_messages: int | None = Field(None, gt=0, description="Most messages of a request.")
    max_images: int | None = Field(None, gt=0, description="Most images of a request.")
    max_image: int | None = Field(None, gt=0, description="Most bytes of an image that is sent as a `data:` URL.")
    shed_after: float = Field(
        0.25,
        ge=0,
        description="Seconds that the event loop is late from which on new turns are refused, until it is half of "
        "that; `0`: never.",
    )

    # --- seeing inside
    metrics_dir: Path | None = Field(
        None,
        description="Folder on this machine in which the workers of one server write down what they have counted, so "
        "that `/metrics` tells of all of them. `--workers` makes one; it is for workers that something else starts.",
    )
    log: Literal["human", "json"] = Field(
        "human", description="The form of the log: `human`, or `json`, one object a line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged: `debug`, `info`, `warning` or `error`, and what is worse."
    )
    log_session: bool = Field(
        False, description="Log the names of the session, the user and the channel, after redaction."
    )
    log_transcripts: bool = Field(
        False, description="Log what callers said and what was replied, after redaction, on a line for each turn."
    )
    redact: Literal["auto", "none"] = Field(
        "auto",
        description="What is taken out of words before they are kept: `auto`: numbers, e-mail addresses, cards, "
        "accounts and keys; `none`: nothing, but for what `@app.redact` takes out.",
    )
    traces: Literal["otlp", "console", "none"] = Field(
        "none",
        description="Where spans go: `otlp`: to the collector that the `OTEL_` variables name; `console`: to standard "
        "output; `none`.",
    )
    traces_content: bool = Field(
        False, description="Keep what was said and what tools were told in spans, after redaction."
    )
    console: bool = Field(
        False, description="Show the last turns at `/console`, for the operator: when, how long, who answered."
    )

    # --- many machines
    redis_url: SecretStr | None = Field(
        None,
        description="A Valkey or Redis server that replicas share, as `redis://:password@host:6379/0`; `rediss://` "
        "with TLS, `unix://` for a socket.",
    )
    redis_prefix: str = Field(
        "firstword", pattern=r"^[!-~]{1,64}$", description="What every name in that server begins with."
    )
    redis_timeout: float = Field(0.005, gt=0, le=1, description="Seconds that a turn waits for that server at most.")
    limits_without_store: Literal["local", "open", "closed"] = Field(
        "local",
        description="What holds while it is away: `local`, each process counts by itself; `open`, no limits; "
        "`closed`, no turns.",
    )

    # --- lifecycle
    keep_alive: int = Field(
        75,
        gt=0,
        description="Seconds for which a connection is kept for the next turn; longer than a balancer keeps it.",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        description="Seconds after SIGTERM in which all is served as before and `/ready` says no, so that a balancer "
        "can learn of it.",
    )
    drain_timeout: float = Field(
        10.0, gt=0, description="Seconds that turns in progress get to end when the server is told to stop."
    )
    hung_after: float = Field(
        60.0,
        ge=0,
        description="Seconds for which code may hold the event loop of one of several workers before the worker is "
        "killed and replaced; `0`: for ever.",
    )

    @field_validator("hosts", "image_hosts", "url_secret", "trusted_proxies", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",")] if isinstance(value, str) else value

    def for_gate(self) -> dict[str, Any]:
        """Return what a Gate takes of these. Raises ConfigError."""
        urls = [each.get_secret_value() for each in self.url_secret]
        secret, file = self.jwt_secret, self.jwt_key_file
        signed: dict[str, Any] = {
            "secret": secret.get_secret_value() if secret else None,
            "public_key": read_key_file(file) if file else None,
            "jwks": self.jwt_jwks,
            "issuer": self.jwt_issuer,
            "audience": self.jwt_audience,
        }
        return {
            "file": KeyFile(self.keys_file, has_prices=self.prices is not None) if self.keys_file else None,
            "tokens": Tokens(**signed) if any(signed.values()) else None,
            "urls": SignedURLs(urls) if urls else None,
            "operator_key": self.operator_key.get_secret_value() if self.operator_key else None,
            "proxies": networks(self.trusted_proxies),
        }

    @property
    def operator(self) -> tuple[str, int] | None:
        """Where the operator's port is; None when there is none of its own."""
        return None if self.operator_port is None else (self.operator_host, self.operator_port)
