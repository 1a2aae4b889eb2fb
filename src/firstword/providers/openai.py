"""Any server that speaks OpenAI's chat.completions, with the deviations that real ones show.

Requests leave as they came. Of what comes back, an event in good form keeps its bytes; what would break a
client (no `id`, `choices: null`, a second `finish_reason`) is mended; and an answer counts as whole only if
`finish_reason` or `[DONE]` was seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ..calls import mended
from ..chunk import Choice, Chunk
from ..errors import BadRequest, UpstreamError, UpstreamProtocolError, UpstreamStatusError, UpstreamTruncated
from ..turn import Turn
from ..wire import FrameReader, HttpRequest
from ._accepts import ANYTHING, Accepts, fitted
from ._errors import read_error, refusal
from ._strict import Strict
from ._think import Thoughts
from ._words import Likeness

PATH = "/chat/completions"
MAX_CHOICES = 128  # `n` is at most that at OpenAI
MAX_WAITING = 16  # events without an id or choices before the first that has them; Azure sends one
BIG_FRAME = 64 * 1024  # bytes of an event that is looked at before it is decoded
MAX_THINGS = 10_000  # objects and lists in one: audio and images are long, not manifold
HEADERS = (
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("accept-encoding", "identity"),  # a compressed stream is a late stream
    ("user-agent", "firstword"),
)


class OpenAI:
    """The OpenAI dialect, and any that differs from it in what it accepts."""

    base_url = "https://api.openai.com/v1"
    accepts = ANYTHING

    def strictly(self) -> OpenAI:
        """Return the same dialect for a server that refuses what is not plain: see `Accepts.strictly`."""
        strict = type(self)()
        strict.accepts = self.accepts.strictly()
        return strict

    def request(self, turn: Turn, *, model: str, base_url: str, key: str | None) -> HttpRequest:
        """Return the turn's own body, asked as a stream. A reply in one piece is put together on our side."""
        body = {**turn.request, "model": model, "stream": True}
        if type(body.get("messages")) is list:
            body["messages"] = mended(body["messages"])
        if not turn.stream or turn.used is not None:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        if self.accepts is not ANYTHING:
            body = self.fit(body, self.accepts)
        headers = HEADERS if not key else (*HEADERS, ("authorization", f"Bearer {key}"))
        try:
            content = msgspec.json.encode(body)
        except RecursionError:
            raise BadRequest("The body is nested too deeply.") from None
        return HttpRequest("POST", join(base_url, PATH), headers, content)

    def fit(self, body: dict[str, Any], accepts: Accepts) -> dict[str, Any]:
        """Return a request's body as this server accepts it."""
        return fitted(body, accepts)

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

    def decoder(self, turn: Turn, *, secret: str | None, thinks: bool = False) -> Decoder:
        """Return the reader of one response."""
        options = turn.request.get("stream_options")
        wants_usage = not turn.stream or bool(isinstance(options, dict) and options.get("include_usage"))
        wants_usage = wants_usage or turn.used is not None
        return Decoder(turn_id=turn.id, model=turn.model, wants_usage=wants_usage, secret=secret, thinks=thinks)


@lru_cache(maxsize=256)
def join(base_url: str, path: str) -> str:
    """Return the URL of `path` below `base_url`, which may carry a query, or be pasted with the path already on it."""
    base, mark, query = base_url.partition("?")
    base = base.rstrip("/").removesuffix(PATH)
    return base + path + mark + query


class Decoder:
    """Read one response. Chunks that came before a failure are returned; `failure` then says what happened."""

    def __init__(
        self, *, turn_id: str, model: str, wants_usage: bool, secret: str | None, thinks: bool = False
    ) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        self.finished = False  # every choice that began has ended
        self.skipped = 0
        self.usage: Any = None  # the tokens as its server counted them last, whoever has asked for them
        self._frames = FrameReader()
        self._likeness = Likeness()
        self._strict = Strict()
        self._thoughts = Thoughts(thinks=thinks)
        self._may_think = True  # it is not seen yet how the answer begins, or its reasoning goes on
        # What every chunk of the reply must say; the first chunk that has something to say sets it.
        self._stencil: dict[str, Any] = {
            "id": turn_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._id: str | None = None  # the reply's one id, once it is set
        self._flows = False  # the reply has begun, with one choice: most of what comes now is words
        self._leaves_out = False  # this server's chunks lack a field of the stencil
        self._waiting: list[Chunk] = []  # those before the first: Azure's carries filter results and no id
        self._seen: set[int] = set()  # indexes of choices
        self._finished: set[int] = set()
        self._called: set[int] = set()  # those that called a tool
        self._wants_usage = wants_usage
        self._secret = secret

    @property
    def calling(self) -> bool:
        """A call of a tool has begun, and its answer has not ended."""
        return not self._called <= self._finished

    def words(self, data: bytes) -> Chunk | None:
        """Return the chunk that `data` is, when it is one of words like those before; None if `feed` has to read it."""
        return self._likeness.read(data) if self._flows and not self._frames.rest else None

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
        for index, words in () if self.finished else self._thoughts.rest():
            choice = {"index": index, "delta": {"content": words}, "finish_reason": None}
            chunks.append(Chunk({**self._stencil, "choices": [choice]}))
        if self.failure is None and not self.done and not self.finished:
            self.failure = UpstreamTruncated("The model's server ended its answer in the middle.")
        return chunks

    def _read(self, frames: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for frame in frames:
            if self.done or self.failure is not None:
                break
            try:
                if frame[:12] == b"data: [DONE]":
                    self.done = True
                    for chunk in self._endings():
                        chunks += self._mended(chunk)
                else:
                    chunks += self._take(frame)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.skipped += 1
        return chunks

    def _take(self, frame: bytes) -> list[Chunk]:
        """Return what one event gives: as a rule the very same bytes. Raises what decoding raises."""
        if not frame.isascii():
            frame.decode()  # a field that nobody looks at must be UTF-8 as well
        if len(frame) > BIG_FRAME and frame.count(b"{") + frame.count(b"[") > MAX_THINGS:
            raise msgspec.DecodeError("an event of more things than a chunk can mean")
        chunk = Chunk.from_frame(frame)
        try:
            look = chunk.look()
        except msgspec.ValidationError:
            chunk = _reshaped(chunk)
            look = chunk.look()
        choices = look.choices
        if look.usage is not None:
            self.usage = look.usage
        if self._flows and look.id == self._id and look.error is None and choices and _is_usual(choices):
            if self._may_think and (told := self._told(chunk)) is not chunk:
                return [] if told is None else [told]
            self._likeness.learn(frame, choices[0].delta.content)  # type: ignore[union-attr]
            return [chunk]
        if look.error is not None:
            self.failure = read_error(look.error, secret=self._secret)
            return []
        if choices:
            chunk = self._note(chunk, choices)
            return [] if self.failure is not None else self._mended(chunk)
        if look.usage is not None and not self._wants_usage:
            return []
        return self._named(chunk if choices is not None else chunk.changed(choices=[]))

    def _note(self, chunk: Chunk, choices: list[Choice]) -> Chunk:
        """Keep count of what began and what ended; mend a choice without a delta, take out a second ending."""
        again: set[int] = set()  # positions of choices that end a second time
        is_odd = False  # a choice has no delta
        for position, choice in enumerate(choices):
            index = choice.index if isinstance(choice.index, int) else 0
            if index not in self._seen:
                self._seen.add(index)
                self._may_think = True
            if choice.delta is None:
                is_odd = True
            elif choice.delta.tool_calls:
                self._called.add(index)
            reason = choice.finish_reason
            if reason is None:
                continue
            if reason == "error":  # OpenRouter's way to say that the model behind it broke
                self.failure = UpstreamStatusError("The model's server reported an error.", status=502)
            elif index in self._finished or not isinstance(reason, str) or not reason:
                again.add(position)
            else:
                self._finished.add(index)
        if len(self._seen) > MAX_CHOICES:
            self.failure = UpstreamProtocolError(f"The model's server sent more than {MAX_CHOICES} choices.")
        if is_odd:
            chunk = _reshaped(chunk)
        if again:
            chunk = _unfinished(chunk, again)
        self.finished = bool(self._finished) and self._seen <= self._finished
        self._flows = self._flows and not self._finished and self._seen == {0}
        return chunk

    def _mended(self, chunk: Chunk) -> list[Chunk]:
        """Return a chunk with the reply's one id, and calls in the strict form. Who calls nothing pays nothing."""
        if self._may_think:
            told = self._told(chunk)
            if told is None:
                return []
            chunk = told
        if not self._called:
            return self._named(chunk)
        return [named for each in self._strict.mend(chunk) for named in self._named(each)]

    def _told(self, chunk: Chunk) -> Chunk | None:
        """Return a chunk with its reasoning told from its words; None when nothing is left of it."""
        told = self._thoughts.read(chunk)
        self._may_think = not self._thoughts.are_over(self._seen)
        return told

    def _named(self, chunk: Chunk) -> list[Chunk]:
        """Give a chunk the reply's one id; the first one brings those that waited for it."""
        look = chunk.look()
        if self._id is not None:
            return [chunk if look.id == self._id and not self._leaves_out else self._filled(chunk)]
        if not look.choices:
            if look.id:
                return [chunk]  # metadata for the engine: its object says nothing of the chunks behind it
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(chunk)
            return []
        data = chunk.data
        for name in self._stencil:
            value = data.get(name)
            if value and (name != "id" or isinstance(value, str)):
                self._stencil[name] = value
            else:
                self._leaves_out = True
        self._id = self._stencil["id"]
        self._flows = not self._finished and self._seen == {0} and not self._leaves_out
        chunks = [self._filled(each) for each in self._waiting] if self._waiting else []
        chunks.append(self._filled(chunk) if self._leaves_out else chunk)
        return chunks

    def _filled(self, chunk: Chunk) -> Chunk:
        """Return a chunk that has every field of the stencil, and the reply's id."""
        own = {name: value for name, value in chunk.data.items() if value or name not in self._stencil}
        return Chunk({**self._stencil, **own, "id": self._id})

    def _endings(self) -> list[Chunk]:
        """After `[DONE]`: end what has no `finish_reason` yet, for a server that leaves it null."""
        if self.finished:
            return []
        chunks = []
        for index in sorted((self._seen or {0}) - self._finished):
            reason = "tool_calls" if index in self._called else "stop"
            choice = {"index": index, "delta": {}, "finish_reason": reason}
            chunks.append(Chunk({**self._stencil, "id": self._id, "choices": [choice]}))
            self._finished.add(index)
        self.finished = True
        return chunks


def _reshaped(chunk: Chunk) -> Chunk:
    """Return a chunk of unusual shape in the usual one. Raises msgspec.DecodeError when it is no JSON object."""
    data = msgspec.convert(chunk.data, dict[str, Any])
    choices = data.get("choices")
    kept = []
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            kept.append(choice if isinstance(delta, dict) else {**choice, "delta": {}})
    return Chunk({**data, "choices": kept})


def _unfinished(chunk: Chunk, positions: set[int]) -> Chunk:
    """Return the chunk with no `finish_reason` in the choices at `positions`."""
    choices = [
        {**choice, "finish_reason": None} if position in positions else choice
        for position, choice in enumerate(chunk.data["choices"])
    ]
    return chunk.changed(choices=choices)


def _is_usual(choices: list[Choice]) -> bool:
    """True for words in the middle of a reply with one choice: nothing is to be noted or mended."""
    choice = choices[0]
    delta = choice.delta
    return (
        len(choices) == 1
        and choice.finish_reason is None
        and type(choice.index) is int
        and choice.index == 0
        and delta is not None
        and not delta.tool_calls
        and not delta.function_call
    )


provider = OpenAI()
