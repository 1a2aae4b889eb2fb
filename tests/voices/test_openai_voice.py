"""A speech endpoint under a real uvicorn: what it is asked, what comes of its answers, and who learns of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from api_of_a_test import Api, Serve, half, never
from requests_of_a_test import says_to
from sounds import AUDIO, audios, level, pitch, sine

from firstword import App, ConfigError, Turn
from firstword.errors import VoiceError
from firstword.testing import Upstream
from firstword.turn import Aloud
from firstword.voices import Sound
from firstword.voices._pcm import wav
from firstword.voices.openai import MAX_WAV, OpenAIVoice

KEY = "sk-canary-4f2a9c1d"
SPEECH = "/v1/audio/speech"
TONE = sine(1.0, 1000, rate_hz=24_000)


@pytest.fixture
def api(serve: Serve) -> Api:
    made = Api(serve)
    made.says(SPEECH, TONE, kind="audio/pcm")
    return made


Make = Callable[..., OpenAIVoice]


@pytest.fixture
async def make(api: Api) -> AsyncIterator[Make]:
    made: list[OpenAIVoice] = []

    def voice(**more: Any) -> OpenAIVoice:
        made.append(OpenAIVoice("tts", **{"base_url": f"{api.url}/v1", "api_key": KEY, **more}))
        return made[-1]

    yield voice
    for each in made:
        transport = each._transport
        assert transport is None or transport.in_use == 0
        await each.close()
        assert transport is None or transport.open_count == 0


def a_turn(**more: Any) -> Turn:
    return Turn({"messages": []}, **more)


async def said(voice: OpenAIVoice, turn: Turn | None = None) -> list[Sound]:
    sounds: list[Sound] = []

    async def hear(sound: Sound) -> None:
        sounds.append(sound)

    await voice.say("Hello there.", hear, turn=turn or a_turn())
    return sounds


async def refused(voice: OpenAIVoice, turn: Turn | None = None) -> VoiceError:
    with pytest.raises(VoiceError) as caught:
        await said(voice, turn)
    assert KEY not in str(caught.value) and "Hello" not in str(caught.value)
    return caught.value


async def test_it_is_asked_as_openai_describes_it(make: Make, api: Api) -> None:
    """The engine's `audio.voice` says who speaks; without one it is the operator's choice."""
    await said(make(voice="coral"))
    await said(make(), a_turn(aloud=Aloud(voice="nova")))

    first, second = api.asked
    assert (first.method, first.target) == ("POST", SPEECH)
    assert first.json == {"model": "tts", "input": "Hello there.", "voice": "coral", "response_format": "pcm"}
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert second.json["voice"] == "nova"


async def test_its_sound_is_brought_to_our_rate(make: Make) -> None:
    """24,000 samples a second come, 16,000 leave: the same second of the same tone."""
    pcm = b"".join(sound.pcm for sound in await said(make()))
    assert len(pcm) == 32_000
    assert pitch(pcm) == pytest.approx(1000, rel=0.002)
    assert level(pcm) == pytest.approx(0.5 / 2**0.5, rel=0.03)


async def test_its_sound_is_passed_on_as_it_comes(make: Make, api: Api) -> None:
    """The second half is sent when the first was heard: nobody waits for the whole."""
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    goes_on = asyncio.Event()

    async def halves(api: Api, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"audio/pcm")]})
        await send({"type": "http.response.body", "body": TONE[:24_001], "more_body": True})
        while not heard.is_set():
            await asyncio.sleep(0.005)
        await send({"type": "http.response.body", "body": TONE[24_001:]})
        loop.call_soon_threadsafe(goes_on.set)

    api.answers[SPEECH] = halves
    pcm = b""

    async def hear(sound: Sound) -> None:
        nonlocal pcm
        pcm += sound.pcm
        heard.set()

    await asyncio.wait_for(make().say("Hello there.", hear, turn=a_turn()), 10)
    await asyncio.wait_for(goes_on.wait(), 10)
    assert len(pcm) == 32_000
    assert pitch(pcm) == pytest.approx(1000, rel=0.002)


async def test_connections_are_kept_between_sentences(make: Make, api: Api) -> None:
    """A TLS handshake before each sentence would be heard."""
    voice = make()
    for _ in range(3):
        await said(voice)
    assert len({asked.port for asked in api.asked}) == 1


async def test_a_wav_file_is_understood_although_pcm_was_asked_for(make: Make, api: Api) -> None:
    """Some servers know one format only."""
    api.says(SPEECH, wav(sine(0.5, 440, rate_hz=22_050), 22_050), kind="audio/wav")
    [sound] = await said(make())
    assert sound.seconds == 0.5
    assert pitch(sound.pcm) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (wav(TONE)[:30], "cannot be read"),
        (wav(TONE)[:44] + bytes(MAX_WAV), "WAV file of more than"),
    ],
    ids=["cut", "huge"],
)
async def test_a_wav_file_that_is_none_or_has_no_end_is_an_error(
    make: Make, api: Api, answer: bytes, message: str
) -> None:
    """It is read whole before it is played, so it has a bound."""
    api.says(SPEECH, answer, kind="audio/wav")
    assert message in (await refused(make())).message


@pytest.mark.parametrize("body", [b"", b"a"])
async def test_an_answer_without_sound_is_silence(make: Make, api: Api, body: bytes) -> None:
    """There is nothing to be heard, and nothing to be said about it."""
    api.says(SPEECH, body, kind="audio/pcm")
    assert b"".join(sound.pcm for sound in await said(make())) == b""


@pytest.mark.parametrize("status", [400, 401, 429, 500, 302])
async def test_a_status_is_told_without_the_servers_own_words(make: Make, api: Api, status: int) -> None:
    """They may repeat the key, or what was to be said."""
    api.says(SPEECH, {"error": {"message": f"{KEY}: Hello there."}}, status=status)
    error = await refused(make())
    assert (error.status, error.message) == (502, f"The voice's server answered {status}.")
    assert (error.hint is not None) == (status == 401)


async def test_a_server_that_does_not_answer_is_left_in_time(make: Make, api: Api) -> None:
    """`first_token_timeout` is for a voice as for a model."""
    api.answers[SPEECH] = never
    turn = a_turn()
    turn.adjust(first_token_timeout=0.3)
    error = await refused(make(), turn)
    assert (error.status, error.message) == (504, "The voice's server did not answer in time.")


async def test_a_server_that_hangs_up_in_the_middle_is_an_error(make: Make, api: Api) -> None:
    """Words are missing."""
    api.answers[SPEECH] = half
    error = await refused(make())
    assert error.status == 502 and "The voice's server" in error.message


async def test_a_server_that_is_away_is_an_error(make: Make) -> None:
    """Nobody listens there."""
    error = await refused(make(base_url="http://127.0.0.1:9/v1"))
    assert error.status == 502
    assert error.detail == "127.0.0.1:9"


async def test_a_caller_who_leaves_closes_the_connection(make: Make, api: Api) -> None:
    """Barge-in: the server learns at once that nobody listens."""
    api.answers[SPEECH] = never
    voice = make()
    saying = asyncio.create_task(said(voice))
    while not api.asked:
        await asyncio.sleep(0.005)
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    assert await asyncio.to_thread(api.left.get, timeout=10) == "http.disconnect"


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, "Bearer the-caller"),  # the voice is where the model is, and the caller has its key
        ({"api_key": "sk-held", "open": True}, "Bearer sk-held"),
        ({"voice_api_key": "sk-voice"}, "Bearer sk-voice"),
        ({"elsewhere": True}, None),  # a caller's key is for the model's server, and for nobody else
        ({"elsewhere": True, "api_key": "sk-held", "open": True}, None),
        ({"elsewhere": True, "voice_api_key": "sk-voice"}, "Bearer sk-voice"),
    ],
    ids=["caller's", "held", "its own", "elsewhere", "elsewhere, held", "elsewhere, its own"],
)
async def test_a_key_goes_to_whom_it_is_for(
    api: Api, upstream: Upstream, settings: dict[str, Any], sent: str | None
) -> None:
    """The key of the model's server must not reach the voice's when that is another one."""
    given = dict(settings)
    elsewhere = given.pop("elsewhere", False)
    given |= {"voice_base_url": f"{api.url}/v1"} if elsewhere else {"base_url": f"{api.url}/v1"}
    app = App(voice="openai:tts/coral", warm=False, **given)
    directive = {"messages": [{"role": "assistant", "content": "Welcome!"}], "model": "m", **AUDIO, "audio": {}}
    status, _ = await says_to(app, {"authorization": "Bearer the-caller"}, **directive)

    assert status == 200
    assert api.asked[-1].headers.get("authorization") == sent
    assert api.asked[-1].json["voice"] == "coral"


async def test_an_engine_hears_it(api: Api, upstream: Upstream) -> None:
    """From the model's words to frames, through both servers."""
    app = App(base_url=upstream.base_url, voice="openai:tts", voice_base_url=f"{api.url}/v1", warm=False)
    status, body = await says_to(app, model="m", stream=True, **AUDIO)
    import json

    chunks = [json.loads(line[6:]) for line in body.split("\n\n") if line.startswith("data: {")]
    assert status == 200
    assert "".join(each["transcript"] for each in audios(chunks)) == "Hello"
    assert body.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "settings",
    [{"base_url": "ftp://x"}, {"base_url": "no url"}, {"api_key": "two words"}, {"api_key": "line\n"}],
    ids=str,
)
def test_what_cannot_work_is_told_at_start(settings: dict[str, Any]) -> None:
    """A wrong URL or key, before any call."""
    with pytest.raises(ConfigError):
        OpenAIVoice("tts", **settings)


def test_an_unknown_voice_is_told_at_start() -> None:
    """The operator has misspelt it."""
    with pytest.raises(ConfigError, match="There is no voice 'espaek'") as caught:
        App(voice="espaek")
    assert caught.value.hint == "one of: espeak, openai"
    with pytest.raises(ConfigError, match="neither a name nor a Voice"):
        App(voice=5)  # type: ignore[arg-type]
