"""Whose sound a reply is, the model's or ours; and hooks and stages have their say before a voice has."""

from __future__ import annotations

from typing import Any

import pytest
from sounds import AUDIO, audios, is_framed, level, needs_espeak, pcm_of, spoken, transcript

from firstword import App, Chunk, Send, Turn
from firstword.stages.aloud import MAX_DIRECTIVE
from firstword.testing import says, script, talk

FRIEND = "Hello there, friend. How are you?"
GREETING = [{"role": "assistant", "content": "Welcome!"}]


def kept(app: App) -> list[Turn]:
    """Return the list into which an App's turns go when they are over."""
    turns: list[Turn] = []

    @app.after_turn
    async def keep(turn: Turn) -> None:
        turns.append(turn)

    return turns


async def test_the_model_is_asked_for_text() -> None:
    """`modalities`, `audio` and `n` are not its business; neither is sound of earlier turns, which it never made."""
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.", "audio": {"id": "audio_1"}},
        {"role": "user", "content": "Again"},
    ]
    score = await talk(spoken(), say=history, request={**AUDIO, "n": 2, "temperature": 0.5})

    body = score.seen[0].body
    assert not {"modalities", "audio", "n"} & set(body)
    assert body["temperature"] == 0.5
    assert body["messages"] == [history[0], {"role": "assistant", "content": "Hello."}, history[2]]


async def test_without_a_voice_a_model_that_speaks_itself_is_passed_through() -> None:
    """gpt-4o-audio: the request goes to it as it came, and its chunks come back untouched."""
    audio = {"id": "audio_x", "data": "AAAA", "transcript": "Hel"}
    model = script.events(script.role(), script.event(script.chunk({"audio": audio})), script.finish(), script.done())
    app = App(model="m")
    turns = kept(app)
    score = await talk(app, models=model, request=AUDIO)

    assert score.seen[0].body["modalities"] == ["audio"]
    assert score.seen[0].body["audio"] == AUDIO["audio"]
    assert audios(score.chunks) == [audio]
    assert score.done
    assert turns[0].aloud is None
    assert turns[0].reply.text == "Hel"


async def test_a_request_for_text_stays_text() -> None:
    """An App with a voice serves engines that have one of their own as well."""
    for request in ({}, {"modalities": ["text"]}, {"modalities": None}, {"audio": {"voice": "alloy"}}):
        score = await talk(spoken(), models=says(FRIEND), request=request)
        assert score == [(0.0, FRIEND)]
        assert score.sound == []
        assert score.seen[0].body.get("audio") == request.get("audio")


async def test_a_last_message_of_the_assistant_is_said_and_no_model_is_asked() -> None:
    """Agora's directive, with which a greeting is spoken."""
    app = spoken()
    turns = kept(app)
    score = await talk(app, say=GREETING, request=AUDIO)

    assert score == [(0.0, "Welcome!")]
    assert score.asked == []
    assert (score.finish_reason, score.done, is_framed(score)) == ("stop", True, True)
    assert turns[0].reply.text == "Welcome!"


@pytest.mark.parametrize("content", ["", "  \n", None, [], "…"])
async def test_a_directive_without_words_is_a_whole_reply_without_an_error(content: Any) -> None:
    """None of these may be a 4xx, or an apology."""
    app = spoken(apology="Sorry.")
    score = await talk(app, say=[{"role": "assistant", "content": content}], request=AUDIO)

    assert (score.status, score.done, score.finish_reason, score.asked) == (200, True, "stop", [])
    assert "Sorry" not in score.text


@pytest.mark.parametrize(
    "path",
    [
        "/audio/chat/completions",
        "/v1/audio/chat/completions",
        "/agora/s/7/audio/chat/completions",
        "//audio//chat/completions/",
    ],
)
async def test_the_path_of_audio_wants_sound_whatever_the_request_says(path: str) -> None:
    """Agora's custom LLM for audio has a URL of its own; nothing else need be in the request."""
    score = await talk(spoken(), models=says(FRIEND), path=path)
    assert transcript(score) == FRIEND
    assert is_framed(score)


async def test_a_session_that_is_called_audio_is_no_wish_for_sound() -> None:
    """`/s/audio/chat/completions` is the session's path."""
    score = await talk(spoken(), models=says(FRIEND), path="/s/audio/chat/completions")
    assert score.sound == []
    assert score.turn is not None and score.turn.session == "audio"


@needs_espeak
@pytest.mark.parametrize(("length", "status"), [(MAX_DIRECTIVE, 200), (MAX_DIRECTIVE + 1, 400)])
async def test_a_directive_that_nobody_hears_to_its_end_is_refused(length: int, status: int) -> None:
    """Megabytes of text to be said: the calls of all others would wait while they are read."""
    score = await talk(spoken(), say=[{"role": "assistant", "content": "." * length}], request=AUDIO)

    assert score.status == status
    assert (score.error or {}).get("param") == (None if status == 200 else "messages")


async def test_what_no_model_can_do_is_done_by_the_voice_at_hand() -> None:
    """An App without a voice: the path of audio, and the directive, are said by espeak-ng."""
    for asked in ({"path": "/audio/chat/completions", "models": says("Welcome!")}, {"say": GREETING, "request": AUDIO}):
        score = await talk(App(model="m"), **asked)  # type: ignore[arg-type]
        assert transcript(score) == "Welcome!"
        assert level(pcm_of(score)) > 0.01


async def test_hooks_and_stages_are_asked_for_a_directive_too() -> None:
    """A hook that refuses callers refuses these as well, and one that redacts has its way before the voice has."""
    app = spoken()

    @app.before_turn
    async def check(turn: Turn) -> None:
        turn.state["checked"] = True

    @app.on_chunk
    def redact(turn: Turn, chunk: Chunk) -> Chunk | None:
        return chunk.with_text("Hello!") if chunk.text else None

    score = await talk(app, say=GREETING, request=AUDIO)
    assert transcript(score) == "Hello!"
    assert score.turn is not None and score.turn.state["checked"]


async def test_what_a_stage_says_is_said_aloud() -> None:
    """A stage of the user's that answers itself."""
    app = spoken()

    @app.stage
    async def answer(turn: Turn, send: Send, call_next: Any) -> None:
        await send(turn.chunk({"role": "assistant", "content": FRIEND}))
        await send(turn.chunk({}, "stop"))

    score = await talk(app, request=AUDIO)
    assert transcript(score) == FRIEND
    assert score.asked == []


async def test_on_chunk_sees_the_words_before_they_are_said_and_then_the_sound() -> None:
    """Every chunk that leaves is seen, as for text."""
    app = spoken()
    texts: list[str] = []
    sounds: list[str] = []

    @app.on_chunk
    def see(turn: Turn, chunk: Chunk) -> None:
        texts.append(chunk.text)
        sounds.append(chunk.transcript)

    score = await talk(app, models=says(FRIEND), request=AUDIO)
    assert "".join(texts) == "".join(sounds) == transcript(score) == FRIEND
