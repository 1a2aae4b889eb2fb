"""Answer without any LLM: a function is a model, and requests reach it by its name, `"model": "orders"`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from firstword import App, Turn

app = App()


@app.model("orders")
async def orders(turn: Turn) -> AsyncIterator[str]:
    """Say where an order is. What is yielded first is spoken while the rest is still being looked up."""
    number = re.search(r"\d+", turn.text)
    if number is None:
        yield "Which order do you mean? Please tell me its number."
        return
    yield f"Let me look up order {number[0]}. "
    yield await look_up(number[0])


async def look_up(number: str) -> str:
    """Return the state of an order. A real one would ask a database."""
    await asyncio.sleep(0.1)
    return {"42": "It arrives on Friday."}.get(number, "I cannot find it.")


@app.model("greeter")
def greeter(turn: Turn) -> str:
    """A plain function runs in a thread, so it may block."""
    return "Good day, how can I help?"


if __name__ == "__main__":
    app.run()
