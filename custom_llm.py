"""Your custom LLM: the one file to edit. `python3 custom_llm.py` serves it on port 8000."""

import os
from collections.abc import AsyncIterator

from firstword import App, Turn

# Any OpenAI-compatible API. The caller's API key goes with each request.
LLM_BASE_URL = os.getenv("LLM_BASE_URL") or "https://api.openai.com/v1"

app = App(base_url=LLM_BASE_URL)


@app.before_turn
async def think_first(turn: Turn) -> None:
    """Change what the model is asked: `turn.messages` is the conversation, `turn.text` the caller's last words."""


# Or answer without any model: `"model": "parrot"` is this function.
@app.model("parrot")
async def parrot(turn: Turn) -> AsyncIterator[str]:
    """Say it back."""
    yield "You said: "
    yield turn.text


if __name__ == "__main__":
    app.run()
