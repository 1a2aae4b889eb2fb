"""The settings of running it for many: access, limits, seeing inside, many machines, lifecycle.

They are the operator's, and are set in the environment only: the file with the App is the same on every machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode


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

    # --- limits
    max_connections: int = Field(
        20_000,
        gt=0,
        description="Connections that one process keeps open; further ones get a 503. Fewer where the system grants "
        "fewer descriptors: a quarter of them is kept for models.",
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

    # --- lifecycle
    drain_delay: float = Field(
        0.0,
        ge=0,
        description="Seconds after SIGTERM in which all is served as before and `/ready` says no, so that a balancer "
        "can learn of it.",
    )
    drain_timeout: float = Field(
        10.0, gt=0, description="Seconds that turns in progress get to end when the server is told to stop."
    )

    @field_validator("hosts", "image_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",")] if isinstance(value, str) else value
