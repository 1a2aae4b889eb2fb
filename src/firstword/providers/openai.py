"""Any server that speaks OpenAI's chat.completions, with the deviations that real ones show.

Requests leave as they came. Of what comes back, an event in good form keeps its bytes; what would break a
client (no `id`, `choices: null`, a second `finish_reason`) is mended; and an answer counts as whole only if
`finish_reason` or `[DONE]` was seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from ..chunk import Chunk, Look
from ..errors import BadRequest, UpstreamError, UpstreamProtocolError, UpstreamStatusError, UpstreamTruncated
from ..turn import Turn
from ..wire import FrameReader, HttpRequest
from ._errors import read_error, refusal

PATH = "/chat/completions"


class OpenAI:
    """The OpenAI dialect."""

    base_url = "https://api.openai.com/v1"

    def request(self, turn: Turn, *, model: str, base_url: str, key: str | None) -> HttpRequest:
        """Return the turn's own body, asked as a stream. A reply in one piece is put together on our side."""
        body = {**turn.request, "model": model, "stream": True}
        if not turn.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        headers = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),  # a compressed stream is a late stream
            ("user-agent", "firstword"),
        ]
        if key:
            headers.append(("authorization", f"Bearer {key}"))
        try:
            content = msgspec.json.encode(body)
        except RecursionError:
            raise BadRequest("The body is nested too deeply.") from None
        return HttpRequest("POST", join(base_url, PATH), tuple(headers), content)

    def models(self, *, base_url: str, key: str | None) -> HttpRequest:
        """Return the request for the server's list of models."""
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        return HttpRequest("GET", join(base_url, "/models"), (("accept", "application/json"), *headers))

    def streams(self, headers: Mapping[str, str]) -> bool:
        """True unless the response says that it is something else, as a JSON or HTML page does."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind in ("text/event-stream", "", "text/plain", "application/octet-stream")

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes, *, secret: str | None) -> UpstreamError:
        """Return the error of a response that is no stream: the server's own words where it has any."""
        return refusal(status, headers, body, secret=secret)

    def decoder(self, turn: Turn, *, secret: str | None) -> Decoder:
        """Return the reader of one response."""
        options = turn.request.get("stream_options")
        wants_usage = not turn.stream or bool(isinstance(options, dict) and options.get("include_usage"))
        return Decoder(turn_id=turn.id, model=turn.model, wants_usage=wants_usage, secret=secret)


def join(base_url: str, path: str) -> str:
    """Return the URL of `path` below `base_url`, which may carry a query, or be pasted with the path already on it."""
    base, mark, query = base_url.partition("?")
    base = base.rstrip("/").removesuffix(PATH)
    return base + path + mark + query


class Decoder:
    """Read one response. Chunks that came before a failure are returned; `failure` then says what happened."""

    def __init__(self, *, turn_id: str, model: str, wants_usage: bool, secret: str | None) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        self.skipped = 0
        self._frames = FrameReader()
        self._id: str | None = None  # of the first chunk that has one: all chunks of a reply have the same
        self._nameless: list[dict[str, Any]] = []  # chunks before that, as Azure sends them
        self._stencil: dict[str, Any] = {
            "id": turn_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._seen: set[int] = set()  # indexes of choices
        self._finished: set[int] = set()
        self._called: set[int] = set()  # those that called a tool
        self._wants_usage = wants_usage
        self._secret = secret

    @property
    def finished(self) -> bool:
        """Every choice that began has ended."""
        return bool(self._finished) and self._seen <= self._finished

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that end in `data`."""
        try:
            return self._read(self._frames.feed(data))
        except UpstreamProtocolError as error:
            self.failure = error
            return []

    def end(self) -> list[Chunk]:
        """Take the end of the body; a last event without its blank line still counts."""
        chunks = self._read(self._frames.end())
        if self.failure is None and not self.done:
            if not self.finished:
                self.failure = UpstreamTruncated("The model's server ended its answer in the middle.")
            else:
                chunks += self._name(None)
        return chunks

    def _read(self, frames: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for frame in frames:
            if self.done or self.failure is not None:
                break
            if frame.startswith(b"data: [DONE]"):
                self.done = True
                chunks += self._name(None)
                chunks += self._last_words()
            else:
                self._take(frame, chunks)
        return chunks

    def _take(self, frame: bytes, chunks: list[Chunk]) -> None:
        """Add what one event gives to `chunks`: as a rule the very same bytes."""
        chunk: Chunk | None = Chunk.from_frame(frame)
        assert chunk is not None
        try:
            look = chunk.look()
        except msgspec.ValidationError:
            chunk = _reshaped(chunk)
            if chunk is None:
                self.skipped += 1
                return
            look = chunk.look()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return
        if look.error is not None:
            self.failure = read_error(look.error, secret=self._secret)
            return
        if look.choices is None:
            chunk = chunk.changed(choices=[])
        elif look.choices:
            chunk = self._note_choices(chunk, look)
            if self.failure is not None:
                return
        elif look.usage is not None and not self._wants_usage:
            return
        if look.id != self._id or self._id is None:
            chunks += self._name(chunk)
        else:
            chunks.append(chunk)

    def _note_choices(self, chunk: Chunk, look: Look) -> Chunk:
        """Keep count of what began and what ended; take out a second ending."""
        for choice in look.choices or ():
            index = choice.index if isinstance(choice.index, int) else 0
            self._seen.add(index)
            if choice.delta is not None and choice.delta.tool_calls:
                self._called.add(index)
            reason = choice.finish_reason
            if reason is None:
                continue
            if reason == "error":  # OpenRouter's way to say that the model behind it broke
                self.failure = UpstreamStatusError("The model's server reported an error.", status=502)
            elif index in self._finished or not isinstance(reason, str):
                choices = [dict(each) for each in chunk.data["choices"]]
                for each in choices:
                    if each.get("index", 0) == index:
                        each["finish_reason"] = None
                chunk = chunk.changed(choices=choices)
            else:
                self._finished.add(index)
        return chunk

    def _name(self, chunk: Chunk | None) -> list[Chunk]:
        """Give chunks the reply's one id. Those before the first id wait for it; None says that none will come."""
        if self._id is None:
            found = chunk.look().id if chunk is not None else self._stencil["id"]
            if not isinstance(found, str) or not found:
                assert chunk is not None
                self._nameless.append(chunk.data)
                if any(choice.get("delta") for choice in chunk.data["choices"] if isinstance(choice, dict)):
                    return self._name(None)  # words do not wait: the reply gets our id
                return []
            self._id = found
            if chunk is not None:
                self._stencil.update({k: chunk.data[k] for k in ("id", "created", "model") if chunk.data.get(k)})
        named = [self._repaired(data) for data in self._nameless]
        self._nameless = []
        if chunk is not None:
            named.append(chunk if chunk.look().id == self._id else self._repaired(chunk.data))
        return named

    def _repaired(self, data: dict[str, Any]) -> Chunk:
        """Return a chunk with what every client needs: the reply's id, an object, a time, a model."""
        return Chunk({**data, **{k: data.get(k) or v for k, v in self._stencil.items()}, "id": self._id})

    def _last_words(self) -> list[Chunk]:
        """After `[DONE]`: end what has no `finish_reason` yet, for a server that leaves it null."""
        if not self._seen:
            self._seen.add(0)
        chunks = []
        for index in sorted(self._seen - self._finished):
            reason = "tool_calls" if index in self._called else "stop"
            choice = {"index": index, "delta": {}, "finish_reason": reason}
            chunks.append(Chunk({**self._stencil, "id": self._id, "choices": [choice]}))
            self._finished.add(index)
        return chunks


def _reshaped(chunk: Chunk) -> Chunk | None:
    """Return a chunk of unusual shape in the usual one, or None when nothing can be made of it."""
    data = chunk.data
    if not isinstance(data, dict):
        return None
    choices = data.get("choices")
    kept = []
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            kept.append(choice if isinstance(delta, dict) else {**choice, "delta": {}})
    return Chunk({**data, "choices": kept})


provider = OpenAI()
