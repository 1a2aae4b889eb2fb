"""Answer with sound: a speech endpoint says the replies, and recorded greetings are played as they are.

In Agora, the agent's `llm.url` ends in `/audio/chat/completions`, and its `output_modalities` are `["audio"]`.
"""

from __future__ import annotations

from pathlib import Path

from firstword import App, Sound

# Any API with OpenAI's POST /audio/speech; FIRSTWORD_VOICE_BASE_URL says where, if not where the model is.
app = App(voice="openai:gpt-4o-mini-tts/coral")

# `recorded/Welcome!.wav` is what is heard for "Welcome!".
recorded = {path.stem: Sound.from_file(path) for path in Path("recorded").glob("*.wav")}


@app.voice
async def play(text: str) -> Sound | None:
    """Return the recording of a text, if there is one; None leaves it to the voice above."""
    return recorded.get(text)


if __name__ == "__main__":
    app.run()
