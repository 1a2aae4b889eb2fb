"""The main job: a turn comes in, the model's words go out."""

from __future__ import annotations

from caller import Caller
from served import Served


async def test_a_caller_hears_what_the_model_says(caller: Caller, server: Served) -> None:
    """The scripted model says the caller's words back."""
    heard = await caller.says("Hello there, friend.")

    assert (heard.status, heard.text, heard.finish_reasons, heard.done) == (200, "Hello there, friend.", ["stop"], True)
    assert server.left_open() == {"in_use": 0, "turns": 0}
