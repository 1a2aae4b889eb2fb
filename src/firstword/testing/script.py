"""The script a request carries to the local upstream: its steps, and builders that read as sentences.

Rules:
- A script is a list of steps; a step is a plain JSON object with a verb, `{"do": "wait", "seconds": 0.2}`.
  The classes below are the grammar. Builders return steps or scripts, and scripts are joined with `+`.
- What a script does not do does not happen: one that runs out before `end` leaves the line open and silent.
- The request's body holds `"script": [...]`, or `"scripts": [[...], [...]]`: one for each request of the same
  marker in turn, and the last one ever after. `in_headers` carries it where a body cannot.
- "after" a text means: the role and that text were streamed word by word, then it happened.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Step: TypeAlias = dict[str, Any]
Script: TypeAlias = list[Step]
Framing: TypeAlias = Literal["chunked", "length", "close", "none"]

EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}
CREATED = 1_767_000_000  # seconds since 1970, the same in every answer
FLOOD_PIECE = 65_536  # bytes


# --- the grammar ----------------------------------------------------------------------------------


class _Verb(msgspec.Struct, tag_field="do", tag=str.lower, omit_defaults=True, forbid_unknown_fields=True):
    """One step; its name is the verb."""


class Head(_Verb):
    """Send the status line and headers. `body` says how what follows is framed, and adds the header that says so.

    `length` bytes are promised under `"length"`, sent or not; `"close"` ends the body with the connection;
    `"none"` adds nothing, as a 1xx needs.
    """

    status: int = 200
    headers: list[tuple[str, str]] = []
    body: Framing = "chunked"
    length: int = 0


class Send(_Verb):
    """Send `text` and then `base64`, `times` over, framed as the head said or as it is when `raw`.

    `pieces` bytes at a time, if it is not 0, each in a write (and a chunk) of its own, `pause` seconds apart.
    """

    text: str = ""
    base64: bytes = b""
    times: int = 1
    pieces: int = 0
    pause: float = 0.0
    raw: bool = False


class Wait(_Verb):
    """Do nothing for `seconds`, or until the peer closes."""

    seconds: float | None = None


class Read(_Verb):
    """Read the request's body. Only a script in the headers needs it: it starts before the body is read."""


class End(_Verb):
    """End the response as its framing asks: the last chunk, nothing, or the end of the connection."""


class Close(_Verb):
    """Close the connection without a word: with FIN, or with RST when `reset`."""

    reset: bool = False


class Repeat(_Verb):
    """Do `steps` so many `times`, or until the peer closes."""

    steps: list[AnyStep]
    times: int | None = None


AnyStep: TypeAlias = Head | Send | Wait | Read | End | Close | Repeat


def parse(script: Any, attempt: int = 1) -> list[AnyStep]:
    """Return the steps for the `attempt`-th request. Raises `msgspec.ValidationError`, which names the bad step."""
    if script and isinstance(script, list) and all(isinstance(part, list) for part in script):
        script = script[min(attempt, len(script)) - 1]
    return msgspec.convert(script, list[AnyStep])


def in_headers(script: Script | Sequence[Script], marker: str = "") -> dict[str, str]:
    """Return headers that carry `script`, or scripts. It starts at the end of the head, the body still unread."""
    return {"x-script": base64.b64encode(msgspec.json.encode(script)).decode(), "x-marker": marker}


def _step(verb: AnyStep) -> Step:
    step: Step = msgspec.to_builtins(verb)
    return step


def head(
    status: int = 200, headers: Mapping[str, str] | None = None, *, body: Framing = "chunked", length: int = 0
) -> Step:
    """Send the status line and `headers`."""
    return _step(Head(status, list((headers or {}).items()), body, length))


def send(data: str | bytes, *, times: int = 1, pieces: int = 0, pause: float = 0.0, raw: bool = False) -> Step:
    """Send `data`; see `Send`."""
    text, binary = (data, b"") if isinstance(data, str) else ("", data)
    return _step(Send(text, binary, times, pieces, pause, raw))


def wait(seconds: float | None = None) -> Step:
    """Do nothing for `seconds`, or until the peer closes, which is noticed at once either way."""
    return _step(Wait(seconds))


def read() -> Step:
    """Read the request's body, which a script in the headers leaves where it is."""
    return _step(Read())


def end() -> Step:
    """End the response as its framing asks."""
    return _step(End())


def close() -> Step:
    """Close with FIN. After `end()` this is a kept connection that goes stale without saying so."""
    return _step(Close())


def reset() -> Step:
    """Close with RST."""
    return _step(Close(reset=True))


def repeat(*steps: Step, times: int | None = None) -> Step:
    """Do `steps` so many `times`, or until the peer closes."""
    return _step(Repeat([msgspec.convert(step, AnyStep) for step in steps], times))


# --- answers, as a good model gives them ------------------------------------------------------------


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **others: Any) -> dict[str, Any]:
    """Return one `chat.completion.chunk` with this `delta`; `others` are added to it or replace its fields."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    named = {"id": "chatcmpl-script", "object": "chat.completion.chunk", "created": CREATED, "model": "scripted"}
    return {**named, "choices": [choice], **others}


def event(data: Mapping[str, Any] | str) -> Step:
    """Send one server-sent event that holds `data`."""
    line = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return send(f"data: {line}\n\n")


def comment(words: str = "ping") -> Step:
    """Send a server-sent comment, which no client hears."""
    return send(f": {words}\n\n")


def role() -> Step:
    """Send the first chunk: a role and no words."""
    return event(chunk({"role": "assistant", "content": ""}))


def text(words: str) -> Step:
    """Send a chunk that says `words`."""
    return event(chunk({"content": words}))


def reasoning(words: str) -> Step:
    """Send a chunk that thinks `words`."""
    return event(chunk({"reasoning_content": words}))


def tool_call(name: str = "", arguments: str = "", *, id: str = "", index: int = 0) -> Step:
    """Send a chunk of a tool call; without `id` and `name` it goes on with the arguments of the one at `index`."""
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    opening = {"id": id, "type": "function"} if id else {}
    return event(chunk({"tool_calls": [{"index": index, **opening, "function": function}]}))


def finish(reason: str = "stop") -> Step:
    """Send the chunk that says why it ended."""
    return event(chunk({}, reason))


def usage(prompt: int = 7, completion: int = 5) -> Step:
    """Send the chunk that counts tokens and has no choices."""
    return event(chunk({}, choices=[], usage=tokens(prompt, completion)))


def tokens(prompt: int = 7, completion: int = 5) -> dict[str, int]:
    """Return the `usage` object."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def done() -> Step:
    """Send `[DONE]`."""
    return event("[DONE]")


def error_event(message: str = "The model crashed.", *, type: str = "server_error", code: str | None = None) -> Step:
    """Send an error where a chunk should be."""
    return event(_error(message, type, code))


def words(said: str, every: float = 0.0) -> Script:
    """Send `said` word by word, each in a chunk of its own, `every` seconds."""
    pieces = re.findall(r"\s*\S+|\s+$", said)
    return [step for piece in pieces for step in ([wait(every), text(piece)] if every else [text(piece)])]


def says(said: str, every: float = 0.0) -> Script:
    """Send the events of a whole good answer."""
    return [role(), *words(said, every), finish(), done()]


def events(*parts: Step | Script, body: Framing = "chunked") -> Script:
    """Answer 200 with an event stream of `parts`, then end it."""
    flat = [step for part in parts for step in ([part] if isinstance(part, dict) else part)]
    return [head(200, EVENT_STREAM, body=body), *flat, end()]


def _document(status: int, text: str, headers: Mapping[str, str]) -> Script:
    """Answer with one whole body."""
    return [head(status, headers, body="length", length=len(text.encode())), send(text), end()]


def json_document(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """Answer with `value` as JSON."""
    text = msgspec.json.encode(value).decode()
    return _document(status, text, {"content-type": "application/json", **(headers or {})})


def _error(message: str, type: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


# --- hostile answers ------------------------------------------------------------------------------


def refuses(
    status: int,
    message: str = "The server had an error.",
    *,
    type: str = "server_error",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Script:
    """Answer with an OpenAI error body; `refuses(200)` is an error that calls itself a success."""
    return json_document(_error(message, type, code), status, headers)


def rate_limits(retry_after: str | None = None) -> Script:
    """Answer 429, with a `retry-after` header if one is given."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return refuses(429, "Rate limit reached.", type="requests", code="rate_limit_exceeded", headers=headers)


def rejects(message: str = "The field 'messages' is missing.", code: str | None = None) -> Script:
    """Answer 400: asking again is in vain."""
    return refuses(400, message, type="invalid_request_error", code=code)


def finds_it_too_long() -> Script:
    """Answer 400: more tokens than the model takes."""
    return rejects("This model's maximum context length is 8192 tokens.", "context_length_exceeded")


def finds_it_improper() -> Script:
    """Answer 400: the content policy."""
    return rejects("Your request was rejected by our safety system.", "content_policy_violation")


def shows_a_page(status: int = 503) -> Script:
    """Answer with HTML, as a load balancer does; 200 is a captive portal."""
    page = f"<html><head><title>{status}</title></head><body><h1>Sorry</h1></body></html>\n"
    return _document(status, page, {"content-type": "text/html"})


def never_answers() -> Script:
    """Accept the request and say nothing."""
    return []


def sends_only_headers() -> Script:
    """Answer 200 and then nothing."""
    return [head(200, EVENT_STREAM)]


def sends_only_the_role() -> Script:
    """Say who speaks, and nothing more."""
    return stalls_after("")


def comments_for_ever(every: float = 0.01) -> Script:
    """Send a comment `every` seconds and never a word."""
    return [head(200, EVENT_STREAM), repeat(comment("PROCESSING"), wait(every))]


def only_thinks(thought: str = "Let me think about that.") -> Script:
    """Stream reasoning and finish without a word that can be spoken."""
    return events(role(), *(reasoning(word) for word in thought.split()), finish(), done())


def fails_at_once() -> Script:
    """Answer 200 with an error as the first event, then end."""
    return events(error_event())


def _begins(said: str, body: Framing = "chunked") -> Script:
    return [head(200, EVENT_STREAM, body=body), role(), *words(said)]


def fails_after(said: str) -> Script:
    """Send an error event in mid-answer, then end."""
    return [*_begins(said), error_event(), end()]


def stalls_after(said: str) -> Script:
    """Go silent in mid-answer, the line open."""
    return _begins(said)


def closes_after(said: str, body: Framing = "chunked") -> Script:
    """Close with FIN between two chunks; under `body="close"` HTTP takes that for a whole body."""
    return [*_begins(said, body), close()]


def ends_after(said: str) -> Script:
    """End the body properly in mid-answer, with neither a finish reason nor `[DONE]`."""
    return [*_begins(said), end()]


def resets_after(said: str) -> Script:
    """Send half a chunk in mid-answer, then RST."""
    return [*_begins(said), half_a_chunk(), reset()]


def half_a_chunk() -> Step:
    """Promise 256 bytes and send fewer."""
    return send('100\r\ndata: {"id":"chatcmpl-script"', raw=True)


def miscounts_after(said: str) -> Script:
    """Send a chunk that is longer than its size says, then a size that is no number."""
    return [*_begins(said), send("5\r\ndata: {}\n\n\r\nzz\r\n", raw=True), close()]


def forgets_done(said: str) -> Script:
    """Give a whole answer without `[DONE]`."""
    return events(role(), words(said), finish())


def forgets_to_finish(said: str) -> Script:
    """Give a whole answer with `[DONE]` and no finish reason."""
    return events(role(), words(said), done())


def babbles_within(said: str) -> Script:
    """Give a whole answer with one event of broken JSON in it."""
    return events(role(), event('{"choices": [{"delta'), words(said), finish(), done())


def counts_after(said: str) -> Script:
    """Give a whole answer and count tokens in a chunk after the finish reason."""
    return events(role(), words(said), finish(), usage(), done())


def shreds(said: str = "Grüße, 你好 👋", pieces: int = 1, pause: float = 0.0) -> Script:
    """Give a whole answer `pieces` bytes at a time, each in a chunk of its own: characters are torn apart."""
    frames = "".join(step["text"] for step in says(said))
    return [head(200, EVENT_STREAM), send(frames, pieces=pieces, pause=pause), end()]


def floods(size: int) -> Script:
    """Send `size` bytes (in steps of 64 KiB) without one newline, then stay open."""
    piece = send("x", times=FLOOD_PIECE)
    return [head(200, EVENT_STREAM), send("data: "), repeat(piece, times=-(-size // FLOOD_PIECE))]


def early_hints(status: int = 103) -> Step:
    """Send an informational head, before the true one."""
    return head(status, {"link": "</style.css>; rel=preload"}, body="none")
