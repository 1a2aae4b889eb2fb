"""Change words on their way to the caller: no number of four digits or more is spoken, however it was cut."""

from __future__ import annotations

import re

from firstword import App, CallNext, Chunk, Send, Turn

LONG_NUMBER = re.compile(r"[0-9]{4,}")

app = App()


@app.stage
async def redact(turn: Turn, send: Send, call_next: CallNext) -> None:
    """Hide long numbers in what the model says."""
    held = ""  # digits at the end of a chunk: the number may go on in the next one

    async def relay(chunk: Chunk) -> None:
        nonlocal held
        if not chunk.text and not chunk.finish_reason:
            await send(chunk)
            return
        text = held + chunk.text
        end = len(text) if chunk.finish_reason else len(text.rstrip("0123456789"))
        held = text[end:]
        words = LONG_NUMBER.sub("(hidden)", text[:end])
        # A chunk that is passed on as it came keeps its bytes.
        await send(chunk if words == chunk.text else chunk.with_text(words))

    await call_next(turn, relay)


if __name__ == "__main__":
    app.run()
