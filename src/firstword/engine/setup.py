"""How the engine is set up: the `llm` block of a Join request, and what else decides how a call goes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import msgspec

from ..errors import ConfigError

URL = "http://localhost:8000/chat/completions"
MODEL = "demo"
MAX_TOOLS = 32  # that an engine owns
RATE = 15.0  # signs a second, about 160 English words a minute
TOOL_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")

Json = dict[str, Any]


@dataclass(slots=True)
class Setup:
    """What an engine is told before a call. The names are Agora's own where it has one; times are seconds.

    vendor: "custom" has the engine send turn_id, timestamp and metadata; any other is plain OpenAI.
    tools: those that the engine owns, as OpenAI declares them; `results` has what each gives back, as text.
    filler_words are the engine's own; one is said when no word came for `response_wait`.
    silence_action: "speak" says `silence_message`, "think" sends it to the server. silence_timeout: None = never.
    user, vpids: the uid of who speaks, and the voices that are recognised. presence: what each uid shares.
    image_form: "openai", or "agora" for the shape of Agora's own sample.
    rate: signs a second that the voice speaks; 0 = words are heard as they come.
    """

    url: str = URL
    api_key: str = field(default="", repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    vendor: str = "custom"
    params: Json = field(default_factory=lambda: {"model": MODEL})
    system_messages: list[Json] = field(default_factory=list)
    max_history: int = 32
    greeting_message: str = ""
    failure_message: str = ""
    output_modalities: list[str] = field(default_factory=lambda: ["text"])
    tools: list[Json] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    filler_words: list[str] = field(default_factory=list)
    response_wait: float = 1.5
    silence_timeout: float | None = None
    silence_action: str = "speak"
    silence_message: str = "Are you still there?"
    user: str = "1002"
    vpids: list[str] = field(default_factory=list)
    presence: dict[str, Json] = field(default_factory=dict)
    image_form: str = "openai"
    rate: float = RATE

    @property
    def is_custom(self) -> bool:
        """True when the engine's own fields are sent."""
        return self.vendor == "custom"

    @property
    def speaks_only(self) -> bool:
        """True when the server has to synthesise whatever is spoken: the output is audio, and nothing else."""
        return self.output_modalities == ["audio"]

    def put(self, name: str, value: Any) -> None:
        """Set one field; text is read as JSON where that is meant. Raises ConfigError, which names the field."""
        kinds = get_type_hints(Setup)
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            raise ConfigError(
                f"There is no setting {name!r}.", hint=f"did you mean {near[0]}?" if near else f"one of {_names()}"
            )
        if isinstance(value, str) and kinds[name] is not str:
            value = _read(value)
        if name in ("system_messages", "filler_words", "vpids", "output_modalities") and isinstance(value, str):
            value = [{"role": "system", "content": value} if name == "system_messages" else value]
        try:
            read = msgspec.convert(value, kinds[name])
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"The setting {name} is wrong: {error}.", hint=f"{name} is {_kind(kinds[name])}"
            ) from None
        _check(name, read)
        setattr(self, name, read)

    def own(self, name: str, result: str, declaration: Json | None = None) -> None:
        """Let the engine own a tool that always gives back `result`. Raises ConfigError."""
        if not TOOL_NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name of a tool.", hint="a letter, then up to 63 letters, digits and underscores"
            )
        function = {"name": name, "parameters": {"type": "object", "properties": {}}}
        others = [each for each in self.tools if (each.get("function") or {}).get("name") != name]
        if len(others) >= MAX_TOOLS:
            raise ConfigError(f"An engine owns {MAX_TOOLS} tools at most.", hint="leave some out")
        self.tools = [*others, declaration or {"type": "function", "function": function}]
        self.results[name] = result


def read_block(text: str, setup: Setup) -> None:
    """Put the `llm` block of a Join request, or of AI Studio, into a setup. Raises ConfigError.

    The block may stand alone, under `llm`, or under `properties` as in a whole request. What has no bearing on a call
    (style, input_modalities, ...) is passed over.
    """
    try:
        block = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"The llm block is not JSON: {error}.", hint='it looks like {"llm": {"url": ...}}') from None
    for name in ("properties", "llm"):
        if isinstance(block, Mapping) and isinstance(block.get(name), Mapping):
            block = block[name]
    if not isinstance(block, Mapping):
        raise ConfigError("The llm block is no JSON object.", hint='it looks like {"llm": {"url": ...}}')
    known = {each.name for each in fields(Setup)}
    for name, value in block.items():
        if name in known and value is not None:
            setup.put(name, value)


def _check(name: str, value: Any) -> None:
    """Raise ConfigError for what has the right kind and is wrong all the same."""
    choices = {"silence_action": ("speak", "think"), "image_form": ("openai", "agora")}.get(name)
    if choices and value not in choices:
        raise ConfigError(f"{name} is not {value!r}.", hint=f"it is {' or '.join(choices)}")
    if isinstance(value, (int, float)) and value < 0:
        raise ConfigError(f"{name} is less than 0.", hint="times are seconds")
    if name == "tools" and len(value) > MAX_TOOLS:
        raise ConfigError(f"An engine owns {MAX_TOOLS} tools at most.", hint="leave some out")


def _read(text: str) -> Any:
    """Return what a text means as JSON; the text itself when it is none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None if text == "none" else text


def _names() -> str:
    return ", ".join(each.name for each in fields(Setup))


def _kind(kind: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", float | None: "a number of seconds, or none"}
    return words.get(kind) or ("a JSON list" if str(kind).startswith("list") else "a JSON object")
