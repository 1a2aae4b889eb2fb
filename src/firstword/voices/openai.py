"""A speech endpoint that speaks OpenAI's API: `POST {base_url}/audio/speech`, its PCM passed on as it comes.

Source: OpenAI's API reference, createSpeech. `response_format: "pcm"` is 16-bit little-endian PCM of one channel,
24,000 samples a second; a server that answers with a WAV file all the same is understood.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from .. import clock
from ..admission import is_key
from ..errors import ConfigError, UpstreamError, UpstreamTimeout, VoiceError
from ..transport import Connection, Transport, split
from ..turn import Turn
from ..wire import HttpRequest
from . import Hear, Sound
from ._pcm import Resampler, is_wav, read_wav

MODEL = "gpt-4o-mini-tts"
SPEAKER = "alloy"
RATE_HZ = 24_000
MAX_WAV = 16 * 1024 * 1024  # bytes; a WAV file is read whole before it is played
WAV_HEAD = 12  # bytes that tell one
MAX_REASON = 4 * 1024  # bytes of an error that are read, so that its connection may be kept


class OpenAIVoice:
    """A Voice behind an API. `model` is its model there, and `voice` who speaks when the engine does not say.

    callers_pay: without `api_key` the caller's own key goes through; only to a server that also has the model.
    connect: makes the connections.
    Raises ConfigError for a wrong URL or key.
    """

    def __init__(
        self,
        model: str = MODEL,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        voice: str = SPEAKER,
        callers_pay: bool = False,
        connect: Callable[[], Transport] = Transport,
    ) -> None:
        self._model = model
        self._url = f"{base_url.rstrip('/')}/audio/speech"
        self._origin = split(self._url)[0]
        if api_key is not None and not is_key(api_key):
            raise ConfigError(
                "An API key holds a space, a line break or a sign that is not ASCII.",
                hint="check FIRSTWORD_VOICE_API_KEY, or the api_key of the voice",
            )
        self._api_key = api_key
        self._speaker = voice
        self._callers_pay = callers_pay
        self._connect = connect
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"OpenAIVoice({self._model!r})"

    async def open(self) -> None:
        """Connect, and stay connected."""
        self._pool().keep_warm(self._url)

    async def close(self) -> None:
        """Close all connections."""
        transport, self._transport = self._transport, None
        if transport is not None and self._loop is asyncio.get_running_loop():
            await transport.close()

    async def say(self, text: str, hear: Hear, *, turn: Turn) -> None:
        """Give the sound of `text` to `hear` as it comes. Raises VoiceError."""
        first, stall = turn.policy.first_token_timeout, turn.policy.stall_timeout
        try:
            began = clock.now()
            connection = await self._pool().request(self._request(text, turn), within=first)
            try:
                if connection.status != 200:
                    raise await self._refused(connection)
                left = max(began + first - clock.now(), 0.01)
                await _pass_on(connection, hear, left, stall)
                connection.drain()
            finally:
                connection.release()
        except UpstreamError as error:
            late = isinstance(error, UpstreamTimeout)
            message = "The voice's server did not answer in time." if late else error.message
            message = message.replace("The model's server", "The voice's server")
            raise VoiceError(message, status=504 if late else 502, detail=self._origin.authority) from None

    def _request(self, text: str, turn: Turn) -> HttpRequest:
        speaker = (turn.aloud.voice if turn.aloud is not None else None) or self._speaker
        body = {"model": self._model, "input": text, "voice": speaker, "response_format": "pcm"}
        headers = [("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", "firstword")]
        key = self._api_key or (turn.key if self._callers_pay else None)
        if key is not None:
            headers.append(("authorization", f"Bearer {key}"))
        return HttpRequest("POST", self._url, tuple(headers), msgspec.json.encode(body))

    async def _refused(self, connection: Connection) -> VoiceError:
        """Return what a status means. The server's own words are not passed on: they may repeat what was to be said."""
        with contextlib.suppress(UpstreamError):  # the status says enough
            await connection.read(1.0)
        status = connection.status
        hint = None
        if status in (401, 403):
            mine = self._api_key or not self._callers_pay
            hint = "the operator of this server must check FIRSTWORD_VOICE_API_KEY" if mine else "check your key"
        return VoiceError(
            f"The voice's server answered {status}.", status=502, hint=hint, detail=self._origin.authority
        )

    def _pool(self) -> Transport:
        """Return the connections of the running loop."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._loop is not loop:
            self._transport, self._loop = self._connect(), loop
        return self._transport


async def _pass_on(connection: Connection, hear: Hear, first: float, stall: float) -> None:
    """Give what comes to `hear`; the first bytes within `first` seconds, others within `stall` of those before."""
    head = b""
    within = first
    while len(head) < WAV_HEAD and (data := await connection.read(within)):
        head += data
        within = stall
    if is_wav(head):
        await _hear_whole(connection, hear, head, stall)
        return
    resampler = Resampler(RATE_HZ)
    pcm = resampler.feed(head)
    while True:
        if pcm:
            await hear(Sound(pcm))
        data = await connection.read(stall)
        if not data:
            break
        pcm = resampler.feed(data)
    rest = resampler.end()
    if rest:
        await hear(Sound(rest))


async def _hear_whole(connection: Connection, hear: Hear, head: bytes, stall: float) -> None:
    """Give a WAV file to `hear`."""
    file = bytearray(head)
    while data := await connection.read(stall):
        file += data
        if len(file) > MAX_WAV:
            raise VoiceError(f"The voice's server sent a WAV file of more than {MAX_WAV} bytes.")
    try:
        pcm, rate_hz = read_wav(bytes(file))
        resampler = Resampler(rate_hz)
    except ValueError as error:
        raise VoiceError(f"The voice's server sent a WAV file that cannot be read: {error}.") from None
    await hear(Sound(resampler.feed(pcm) + resampler.end()))


def voice(rest: str, **given: Any) -> OpenAIVoice:
    """Return the voice of `"openai:rest"`: a model, and behind a slash who speaks. Raises ConfigError."""
    model, _, speaker = (rest or MODEL).partition("/")
    return OpenAIVoice(model or MODEL, voice=speaker or SPEAKER, **given)
