"""The firstword server with gate keys and every hook: before a turn, on each of its chunks, and after it."""

from __future__ import annotations

import os

from firstword import App, Chunk, Turn

# A server with a key of its own and gate keys: "bench" is what the load generator sends.
app = App(base_url=os.environ["LLM_BASE_URL"], api_key="held", keys=["bench"])


@app.before_turn
async def add_what_we_know(turn: Turn) -> None:
    """Put a line in front of the conversation, as retrieval does."""
    turn.messages = [{"role": "system", "content": "The guest's name is Ada."}, *turn.messages]


@app.on_chunk
def count_words(turn: Turn, chunk: Chunk) -> None:
    """Read the text of every chunk on its way."""
    turn.state["words"] = turn.state.get("words", 0) + chunk.text.count(" ")


@app.after_turn
async def remember(turn: Turn) -> None:
    """Take the whole reply, as memory does."""
    turn.state["reply"] = turn.reply.text
