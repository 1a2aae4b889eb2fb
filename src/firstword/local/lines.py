"""What the server and the process of a local model say to each other: a line of JSON each, either way."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Order(msgspec.Struct, tag="order", omit_defaults=True, frozen=True):
    """An answer that is wanted.

    messages: (role, words) each, oldest first. most: tokens of the answer; None = as many as are usual.
    stop: words that the answer ends before. presence, frequency: as the OpenAI API counts them. bias: by token.
    seed: the same one gives the same answer. schema: what the JSON of the answer must fit; None = plain words.
    """

    number: int
    messages: list[tuple[str, str]]
    most: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = []
    presence: float = 0.0
    frequency: float = 0.0
    bias: dict[int, float] = {}
    schema: dict[str, Any] | None = None


class Leave(msgspec.Struct, tag="leave", frozen=True):
    """Nobody waits for this order any more."""

    number: int


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The model is loaded: the first line of all."""


class Broken(msgspec.Struct, tag="broken", frozen=True):
    """The model cannot be loaded, or has failed; `why` is for the operator, and holds nobody's words."""

    why: str


class Words(msgspec.Struct, tag="words", frozen=True):
    """What the model has said: whole characters, never empty."""

    number: int
    text: str


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """The answer is over; `reason` is "stop", "length" or "left". What follows are counts of tokens.

    asked: of the prompt, `cached` of which were known from the order before. said: of the answer.
    """

    number: int
    reason: str
    asked: int
    cached: int
    said: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The order cannot be carried out. `field` is the part of the request at fault."""

    number: int
    field: str


Asked: TypeAlias = Order | Leave
Told: TypeAlias = Ready | Broken | Words | Ended | Refused


def line(said: Asked | Told) -> bytes:
    """Return what is said as a line."""
    return msgspec.json.encode(said) + b"\n"


def read_asked(data: bytes) -> Asked:
    """Return what a line to the process says. Raises msgspec.ValidationError."""
    asked: Asked = msgspec.json.decode(data, type=Order | Leave)
    return asked


def read_told(data: bytes) -> Told:
    """Return what a line from the process says. Raises msgspec.ValidationError."""
    told: Told = msgspec.json.decode(data, type=Ready | Broken | Words | Ended | Refused)
    return told
