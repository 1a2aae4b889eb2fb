"""Answer from your own documents: look them up before the model is asked, and put what fits into the system message."""

from __future__ import annotations

import re

from firstword import App, Turn

DOCUMENTS = {
    "opening hours": "We are open from 9 to 18 o'clock, Monday to Saturday.",
    "delivery time": "A parcel takes two working days.",
    "return parcel": "You can send a parcel back within 30 days, free of charge.",
}

app = App()


@app.before_turn
async def retrieve(turn: Turn) -> None:
    """Tell the model what the documents say about the caller's last words."""
    found = search(turn.text)
    if found:
        facts = "Answer from these facts:\n" + "\n".join(found)
        turn.messages = [{"role": "system", "content": facts}, *turn.messages]


def search(text: str) -> list[str]:
    """Return the documents whose title shares a word with `text`. A real one would ask a search index."""
    asked = set(re.findall(r"\w+", text.lower()))
    return [document for title, document in DOCUMENTS.items() if asked.intersection(title.split())]


if __name__ == "__main__":
    app.run()
