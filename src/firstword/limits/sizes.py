"""How large a request may be, beyond its bytes: messages, images, and one image. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import BadRequest, PayloadTooLarge
from ..turn import Turn


@dataclass(frozen=True, slots=True)
class Sizes:
    """None is no bound. messages, images: how many; image: bytes of one that is sent with its data, as it stands."""

    messages: int | None = None
    images: int | None = None
    image: int | None = None

    @property
    def are_any(self) -> bool:
        """True when there is something to check."""
        return (self.messages, self.images, self.image) != (None, None, None)

    def check(self, turn: Turn) -> None:
        """Raise BadRequest or PayloadTooLarge, which name the field."""
        messages = turn.messages
        if self.messages is not None and len(messages) > self.messages:
            said = f"`messages` has {len(messages)} of them, and may have {self.messages}."
            raise BadRequest(
                said, param="messages", hint="send fewer, or let the operator raise FIRSTWORD_MAX_MESSAGES"
            )
        if self.images is None and self.image is None:
            return
        count = 0
        for position, message in enumerate(messages):
            content = message.get("content")
            for index, part in enumerate(content) if isinstance(content, list) else ():
                url = _image(part)
                if url is not None:
                    count += 1
                    self._check_image(url, count, f"messages[{position}].content[{index}].image_url.url")

    def _check_image(self, url: str, count: int, where: str) -> None:
        if self.images is not None and count > self.images:
            hint = "send fewer, or let the operator raise FIRSTWORD_MAX_IMAGES"
            raise BadRequest(f"`messages` has more than {self.images} images.", param=where, hint=hint)
        if self.image is not None and len(url) > self.image and url[:5].lower() == "data:":
            hint = "send a smaller one, or let the operator raise FIRSTWORD_MAX_IMAGE"
            raise PayloadTooLarge(f"`{where}` is longer than {self.image} bytes.", param=where, hint=hint)


def _image(part: Any) -> str | None:
    """Return the address of an image, which its platform has brought into OpenAI's shape; None for another part."""
    image = part.get("image_url") if isinstance(part, dict) else None
    url = image.get("url") if isinstance(image, dict) else None
    return url if isinstance(url, str) else None
