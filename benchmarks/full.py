"""The firstword server with every feature on: gate keys, both hooks, and a stage that reads every chunk."""

from __future__ import annotations

import os

from firstword import App, CallNext, Chunk, Send, Turn

# A server with a key of its own and gate keys: "bench" is what the load generator sends.
app = App(base_url=os.environ["LLM_BASE_URL"], api_key="held", keys=["bench"])


@app.before_turn
async def add_what_we_know(turn: Turn) -> None:
    """Put a line in front of the conversation, as retrieval does."""
    turn.messages = [{"role": "system", "content": "The guest's name is Ada."}, *turn.messages]


@app.stage
async def count_words(turn: Turn, send: Send, call_next: CallNext) -> None:
    """Read the text of every chunk on its way."""
    turn.state["words"] = 0

    async def relay(chunk: Chunk) -> None:
        turn.state["words"] += chunk.text.count(" ")
        await send(chunk)

    await call_next(turn, relay)


@app.after_turn
async def remember(turn: Turn) -> None:
    """Take the whole reply, as memory does."""
    turn.state["reply"] = turn.reply.text
