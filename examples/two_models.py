"""Two models behind one server, each with its own address and key; the request's `model` chooses between them.

The server holds keys here, so it answers its own machine only, until FIRSTWORD_KEYS says who may call.
"""

from __future__ import annotations

import os

from firstword import App, Model

app = App(
    models=[
        # The first one also answers for every name that is not in this list.
        Model(
            "gpt-5-mini",
            base_url=os.getenv("OPENAI_BASE_URL") or "https://api.openai.com/v1",
            api_key=os.getenv("OPENAI_API_KEY"),
        ),
        Model(
            "deepseek-chat",
            base_url=os.getenv("DEEPSEEK_BASE_URL") or "https://api.deepseek.com/v1",
            api_key=os.getenv("DEEPSEEK_API_KEY"),
        ),
    ]
)

if __name__ == "__main__":
    app.run(host="127.0.0.1")
