"""How much may be in a request: messages, images, and one image; and the field at fault is named."""

from __future__ import annotations

from typing import Any

import pytest

from firstword.errors import RequestError
from firstword.limits.sizes import Sizes
from firstword.testing import says, talk
from firstword.turn import Turn

SAID = {"role": "user", "content": "Hi"}


def image(size: int, kind: str = "data:image/png;base64,") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": kind + "A" * (size - len(kind))}}


def seen(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


BAD: dict[str, tuple[Sizes, list[Any], int, str]] = {
    "too many messages": (Sizes(messages=2), [SAID] * 3, 400, "messages"),
    "too many images": (Sizes(images=1), [SAID, seen(image(50)), seen(image(50))], 400, "messages[2].content[0]"),
    "too many in one": (Sizes(images=1), [seen(SAID, image(50), image(50))], 400, "messages[0].content[2]"),
    "too large": (Sizes(image=100), [seen(image(101))], 413, "messages[0].content[0]"),
    "too large, oddly spelt": (Sizes(image=100), [seen(image(101, "DATA:image/png,"))], 413, "messages[0].content[0]"),
}
GOOD: dict[str, tuple[Sizes, list[Any]]] = {
    "as many as may be": (Sizes(2, 2, 100), [SAID, seen(image(100), image(100))]),
    "no bound": (Sizes(), [seen(image(1_000_000))] * 50),
    "an image elsewhere is as large as it likes": (Sizes(image=100), [seen(image(500, "https://example.com/"))]),
    "odd parts": (Sizes(images=1, image=9), [seen(None, 3, {}, {"image_url": 3}, {"image_url": {"url": 3}}), {}]),
}


@pytest.mark.parametrize(("sizes", "messages", "status", "where"), BAD.values(), ids=BAD)
def test_what_is_too_much_is_named(sizes: Sizes, messages: list[Any], status: int, where: str) -> None:
    """Somebody sends an album, or a conversation of a week."""
    with pytest.raises(RequestError) as caught:
        sizes.check(Turn(request={"messages": messages}))
    assert caught.value.status == status and caught.value.param is not None and caught.value.hint
    assert caught.value.param.startswith(where)


@pytest.mark.parametrize(("sizes", "messages"), GOOD.values(), ids=GOOD)
def test_what_is_not_too_much_passes(sizes: Sizes, messages: list[Any]) -> None:
    """The bound itself is allowed; what has no bound is not looked at."""
    sizes.check(Turn(request={"messages": messages}))


async def test_a_caller_is_told_and_no_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings reach the server; an image in Agora's own shape counts as any."""
    monkeypatch.setenv("FIRSTWORD_MAX_MESSAGES", "2")
    monkeypatch.setenv("FIRSTWORD_MAX_IMAGES", "1")
    monkeypatch.setenv("FIRSTWORD_MAX_IMAGE", "100")
    strange = {"type": "image", "image_url": image(101)["image_url"]["url"]}
    for messages, status, code in (
        ([SAID] * 2, 200, None),
        ([SAID] * 3, 400, "bad_request"),
        ([seen(image(50), image(50))], 400, "bad_request"),
        ([seen(strange)], 413, "payload_too_large"),
    ):
        score = await talk(models=says("Hi."), say=messages, path="/agora/chat/completions")
        assert score.status == status and (score.error or {}).get("code") == code
        assert len(score.seen) == (status == 200)
