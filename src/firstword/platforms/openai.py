"""The plain OpenAI chat.completions request: checked where the relay depends on it, else left exactly as it came.

Sampling parameters and unknown fields are the provider's to judge. Image parts are brought into the one
shape that providers understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..action import Action, Deed
from ..chunk import Chunk
from ..errors import ActionError, BadRequest
from ..turn import Turn
from . import Asked

FIELDS: tuple[tuple[str, type, str], ...] = (
    ("model", str, "a string"),
    ("stream", bool, "true or false"),
    ("stream_options", dict, "an object"),
    ("tools", list, "a list"),
)


class OpenAI:
    """The OpenAI API's own dialect, and what every other one has of it unless it says otherwise."""

    engine_tools: frozenset[str] = frozenset()
    apology: str | None = None
    speaks_errors = False
    resent = "supersede"
    forgets_images = False

    def read(self, asked: Asked) -> Turn:
        """Return the turn; the body is taken over. Raises BadRequest that names the field."""
        check(asked.body)
        return asked.turn("openai")

    def filler(self, words: str) -> str:
        """Return the words as they are."""
        return words

    def opening(self, turn: Turn, id: str) -> Chunk | None:
        """Return None: there is nothing before a reply."""
        return None

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is."""
        return completion

    def mistake(self, body: dict[str, Any], status: int) -> dict[str, Any]:
        """Return it as it is."""
        return body

    def act(self, turn: Turn, action: Action) -> Deed:
        """Raise ActionError: the OpenAI API knows of no call."""
        raise ActionError(
            "Plain chat completions cannot end or transfer a call.",
            hint="name the voice engine in its URL (/vapi/chat/completions), or by FIRSTWORD_PLATFORM",
        )


def check(body: dict[str, Any]) -> None:
    """Check what the relay depends on, and bring image parts into OpenAI's shape. Raises BadRequest."""
    for name, kind, said in FIELDS:
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            raise BadRequest(f"`{name}` is not {said}.", param=name)
    messages = body.get("messages")
    if not isinstance(messages, list):
        said = "missing" if messages is None else "not a list"
        raise BadRequest(f"`messages` is {said}.", param="messages", hint='send at least {"role": "user", ...} in it')
    if not messages:
        raise BadRequest("`messages` is empty.", param="messages", hint='send at least {"role": "user", ...} in it')
    for position, message in enumerate(messages):
        # The usual message, words in a role, is seen at a glance: conversations are long.
        if type(message) is dict and type(message.get("role")) is str and type(message.get("content")) is str:
            continue
        _check_message(message, f"messages[{position}]")


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise BadRequest(f"`{where}` is not an object.", param=where)
    if not isinstance(message.get("role"), str):
        raise BadRequest(f"`{where}.role` is not a string.", param=f"{where}.role")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise BadRequest(f"`{where}.content` is not a string, a list of parts or null.", param=f"{where}.content")
    for position, part in enumerate(content):
        name = f"{where}.content[{position}]"
        if not isinstance(part, dict):
            raise BadRequest(f"`{name}` is not an object.", param=name)
        if part.get("image_url") is not None or part.get("type") in ("image", "image_url"):
            _normalise_image(part, name)


def _normalise_image(part: dict[str, Any], where: str) -> None:
    """Make `{"type": "image", "image_url": "https://..."}`, as Agora's own sample sends it, an OpenAI image part."""
    image = part.get("image_url")
    if isinstance(image, str):
        image = {"url": image}
    if not isinstance(image, dict) or not isinstance(image.get("url"), str) or not image["url"]:
        raise BadRequest(f"`{where}.image_url.url` is missing.", param=f"{where}.image_url.url")
    part["type"] = "image_url"
    part["image_url"] = image


def identity(value: Any) -> str | None:
    """Return an identity as text; engines send numbers as well. None when there is none."""
    return str(value) if type(value) in (str, int) and value != "" else None


def fields(value: Any) -> dict[str, Any]:
    """Return an object's fields; none of what is no object, as what an engine sends may be."""
    return value if isinstance(value, dict) else {}


def first(value: Any, names: Sequence[str]) -> str | None:
    """Return the identity that stands first under one of these names; None when `value` is no object that has one."""
    there = fields(value)
    return next((found for name in names if (found := identity(there.get(name)))), None)


def taken(body: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Take these fields out of a body, and return them."""
    return {name: body.pop(name) for name in body.keys() & names}


def aside(messages: list[dict[str, Any]], names: frozenset[str]) -> list[dict[str, Any]]:
    """Take these fields out of the messages, and return them side by side with these; nothing when no message has any.

    So `messages[i]` and the i-th of what is returned are the same one, as long as nobody puts others there.
    """
    if all(map(names.isdisjoint, messages)):
        return []
    return [taken(each, names) for each in messages]


platform = OpenAI()
