"""The form of an event stream, line by line: what of it breaks which client.

Pure. The table it is held to was measured with openai-python, openai-node, livekit-agents and pipecat; the strict form
is what all of them read: `data: ` + one line of JSON + a blank line, and `data: [DONE]` as the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Fault, Finding, Level
from .heard import Event, Heard, Stream, short

LATE = 1.0  # seconds between [DONE] and the end of the reply
STALL = 5.0  # seconds of silence in a reply that is not over; the caller has hung up by then
COMPRESSED = Fault(
    "compressed",
    Level.WARNING,
    "The event stream is compressed.",
    "A compressor holds words back until it has enough of them, so they come late and in clumps.",
    "Exclude text/event-stream from compression, in your code and in the proxy before it.",
)
BOM = Fault(
    "bom",
    Level.ERROR,
    "The stream begins with a byte order mark.",
    "openai-python loses the first event.",
    "Encode as UTF-8, not as utf-8-sig.",
)
CARRIAGE_RETURN = Fault(
    "carriage-return",
    Level.WARNING,
    "Lines end with CR or CRLF.",
    "The standard allows it, but a client that splits at two line feeds never sees an event end.",
    "End each line with a line feed alone.",
)
NO_SPACE = Fault(
    "no-space",
    Level.WARNING,
    "There is no space behind `data:`.",
    "The standard allows it, but many clients look for `data: ` with the space and drop the line.",
    "Write `data: ` and then the JSON.",
)
COMMENTS = Fault(
    "comments",
    Level.ADVICE,
    "There are comments in the stream.",
    "No client speaks them, but each one starts LiveKit's timeout anew, so it waits for a model that is dead.",
    "Send nothing until there is something to say.",
)
EVENT_LINE = Fault(
    "event-line",
    Level.WARNING,
    "There are `event:` lines.",
    "Chat completions have none. A browser's EventSource and the SDKs sort such events away from the others.",
    "Send `data:` lines only.",
)
ERROR_SWALLOWED = Fault(
    "error-swallowed",
    Level.ERROR,
    "An event is named `error`, and its data has no `error` object.",
    "openai-python swallows it: the reply looks complete.",
    'Send `data: {"error":{"message":...,"type":...,"code":...}}` without an `event:` line.',
)
ID_LINE = Fault(
    "id-line",
    Level.WARNING,
    "There are `id:` lines.",
    "openai-python dies with a JSONDecodeError when one stands in an event without data.",
    "Send `data:` lines only; nobody resumes a chat completion.",
)
RETRY_LINE = Fault(
    "retry-line",
    Level.ERROR,
    "There is a `retry:` line.",
    "openai-python dies with a JSONDecodeError.",
    "Send `data:` lines only.",
)
EMPTY_EVENT = Fault(
    "empty-event",
    Level.ERROR,
    "There is an event without data.",
    "openai-python tries to read it as JSON and dies.",
    "Send no empty `data:` line as a sign of life.",
)
UNKNOWN_LINE = Fault(
    "unknown-line",
    Level.WARNING,
    "There is a line that is neither `data:` nor anything else of an event stream.",
    "Clients drop it. If it was to be spoken, it is lost.",
    "Put each event's JSON behind `data: ` on the same line.",
)
DATA_LINES = Fault(
    "data-lines",
    Level.WARNING,
    "One event has several `data:` lines.",
    "A client that reads line by line takes each for an event of its own, and half a JSON breaks it.",
    "Write the JSON on one line.",
)
NOT_JSON = Fault(
    "not-json",
    Level.ERROR,
    "An event's data is not a JSON object.",
    "Both OpenAI SDKs raise an exception in mid-reply.",
    "Put one whole JSON object in each event. Several objects need several events.",
)
NOT_UTF8 = Fault(
    "not-utf8",
    Level.ERROR,
    "An event is not UTF-8.",
    "Clients fail to decode it. As a rule a character was cut in two between two events.",
    "Cut text between characters: decode the model's bytes incrementally.",
)
LINE_SEPARATOR = Fault(
    "line-separator",
    Level.ADVICE,
    "There is a raw U+2028 or U+2029 in an event.",
    "Clients that split text at every Unicode line break tear the event apart.",
    "Escape both in JSON, as \\u2028 and \\u2029.",
)
NO_BLANK_LINE = Fault(
    "no-blank-line",
    Level.WARNING,
    "The last event has no blank line behind it.",
    "The standard says that it is thrown away, and some clients do: they never see the end.",
    "End each event, `[DONE]` too, with two line feeds.",
)
NO_DONE = Fault(
    "no-done",
    Level.WARNING,
    "The stream has no `data: [DONE]`.",
    "A client that waits for it hangs until the connection closes, and a cut reply looks like a whole one.",
    "Send `data: [DONE]` and a blank line as the last event.",
)
DONE_FORM = Fault(
    "done-form",
    Level.ERROR,
    "`[DONE]` is not written as `data: [DONE]`.",
    "openai-node compares the exact text, takes anything else for JSON, and raises a SyntaxError.",
    "Send exactly `data: [DONE]`: one space, no quotes, nothing behind it.",
)
DONE_TWICE = Fault(
    "done-twice",
    Level.WARNING,
    "`[DONE]` comes more than once.",
    "A client that keeps the connection takes the second one for part of the next reply.",
    "Pass the model's [DONE] on or send your own, not both.",
)
AFTER_DONE = Fault(
    "after-done",
    Level.WARNING,
    "Something comes behind `[DONE]`.",
    "Clients have stopped reading. Whatever it was, it is lost.",
    "Send all of the reply before [DONE].",
)
ENDS_LATE = Fault(
    "ends-late",
    Level.WARNING,
    "The reply does not end with `[DONE]`: the body stays open.",
    "Clients that read to the end of the body take the turn for unfinished, and the connection is not free.",
    "End the response right behind [DONE], in the same write if you can.",
)
TRUNCATED = Fault(
    "truncated",
    Level.ERROR,
    "The reply is cut off: its body breaks, or ends with neither `finish_reason` nor `[DONE]`.",
    "The caller hears half a sentence. Under `connection: close` the SDKs take it for a whole reply.",
    "Look for a proxy's time limit, and for an exception behind the first words. "
    "End with an error event, or an apology, `stop` and [DONE].",
)
STALLED = Fault(
    "stalled",
    Level.ERROR,
    "The reply stops in the middle, and the connection stays open.",
    "The caller hears half a sentence, and then the line is dead until the engine gives up.",
    "Give each read from the model a time limit; end with an error event, or an apology, `stop` and [DONE].",
)
ERROR_IN_STREAM = Fault(
    "error-in-stream",
    Level.ERROR,
    "The status is 200 and the stream says that there is an error.",
    "An engine takes 200 for success: it speaks no failure message, and nobody asks another model.",
    "Hold the status line back until the model's first word, and answer a failure with its true status.",
)
ERROR_SHAPE = Fault(
    "error-event-shape",
    Level.ERROR,
    "The status is 200 and the stream has an error that is not an object with a message.",
    "An engine takes 200 for success, and the SDKs show an empty error or break on it.",
    'Send `data: {"error":{"message":...,"type":...,"code":...}}`.',
)
FAULTS = (
    COMPRESSED,
    BOM,
    CARRIAGE_RETURN,
    NO_SPACE,
    COMMENTS,
    EVENT_LINE,
    ERROR_SWALLOWED,
    ID_LINE,
    RETRY_LINE,
    EMPTY_EVENT,
    UNKNOWN_LINE,
    DATA_LINES,
    NOT_JSON,
    NOT_UTF8,
    LINE_SEPARATOR,
    NO_BLANK_LINE,
    NO_DONE,
    DONE_FORM,
    DONE_TWICE,
    AFTER_DONE,
    ENDS_LATE,
    TRUNCATED,
    STALLED,
    ERROR_IN_STREAM,
    ERROR_SHAPE,
)
BREAKS = (TRUNCATED, STALLED, ERROR_IN_STREAM, ERROR_SHAPE, ERROR_SWALLOWED)
_SEPARATORS = ("\u2028".encode(), "\u2029".encode())


def judge_form(heard: Heard) -> list[Finding]:
    """Return what is wrong with the form of an event stream."""
    stream = heard.stream
    found = []
    if heard.coding:
        found.append(COMPRESSED.seen(f"content-encoding: {heard.coding}"))
    if stream.has_bom:
        found.append(BOM.seen(short(repr(heard.body[:12]))))
    if stream.has_cr:
        found.append(CARRIAGE_RETURN.seen(short(repr(heard.body[: heard.body.find(b"\r") + 4][-40:]))))
    for event in stream.events:
        found += _judge_event(event)
    return [*found, *_judge_end(heard, stream)]


def _judge_event(event: Event) -> Iterator[Finding]:
    seen = short(repr(event.raw))
    if any(not name for name, _ in event.fields):
        yield COMMENTS.seen(seen)
    if event.is_comment:
        return
    yield from _judge_lines(event, seen)
    if event.data is None or not event.data.strip():
        if event.named(b"retry") is None and event.named(b"id") is None:
            yield EMPTY_EVENT.seen(seen)
    elif event.is_done:
        if event.data != b"[DONE]":
            yield DONE_FORM.seen(seen)
    else:
        yield from _judge_data(event, seen)


def _judge_lines(event: Event, seen: str) -> Iterator[Finding]:
    lines = event.raw.split(b"\n")
    names = [name for name, _ in event.fields]
    if any(line.startswith(b"data:") and line[5:6] not in (b" ", b"") for line in lines):
        yield NO_SPACE.seen(seen)
    if names.count(b"data") > 1:
        yield DATA_LINES.seen(seen)
    if b"event" in names:
        is_error = (event.named(b"event") or b"").strip() == b"error"
        lacks_it = event.chunk is None or "error" not in event.chunk
        yield (ERROR_SWALLOWED if is_error and lacks_it else EVENT_LINE).seen(seen)
    if b"id" in names:
        yield ID_LINE.seen(seen)
    if b"retry" in names:
        yield RETRY_LINE.seen(seen)
    if set(names) - {b"", b"data", b"event", b"id", b"retry"}:
        yield UNKNOWN_LINE.seen(seen)


def _judge_data(event: Event, seen: str) -> Iterator[Finding]:
    data = event.data or b""
    if any(separator in data for separator in _SEPARATORS):
        yield LINE_SEPARATOR.seen(seen)
    try:
        data.decode()
    except UnicodeDecodeError:
        yield NOT_UTF8.seen(seen)
        return
    if event.chunk is None:
        if b"error" not in [value.strip() for name, value in event.fields if name == b"event"]:
            yield NOT_JSON.seen(seen)
        return
    error = event.chunk.get("error")
    if error:
        has_message = isinstance(error, dict) and isinstance(error.get("message"), str)
        yield (ERROR_IN_STREAM if has_message else ERROR_SHAPE).seen(seen)


def _judge_end(heard: Heard, stream: Stream) -> Iterator[Finding]:
    events = [event for event in stream.events if not event.is_comment]
    ends = [at for at, event in enumerate(events) if event.is_done]
    last = short(repr(events[-1].raw)) if events else "no event at all"
    if len(ends) > 1:
        yield DONE_TWICE.seen(f"{len(ends)} times")
    if ends and any(not event.is_done for event in events[ends[0] :]):
        yield AFTER_DONE.seen(last)
    if ends and stream.rest:
        yield NO_BLANK_LINE.seen(short(repr(stream.rest)))
    has_error = any(event.chunk and event.chunk.get("error") for event in events)
    is_over = ends or stream.reasons or has_error
    if not heard.is_whole and ends:
        yield ENDS_LATE.seen(heard.trouble)
    elif heard.is_cut_by_us:
        silence = (heard.ended or 0) - (heard.reads[-1][0] if heard.reads else heard.sent)
        if silence > min(STALL, ((heard.ended or 0) - heard.sent) / 2):
            yield STALLED.seen(f"nothing for {silence:.1f} s; last: {last}")
    elif not heard.is_whole or (events and not is_over):
        yield TRUNCATED.seen(f"{heard.trouble or 'the body ends'}; last: {last}")
    elif not ends and stream.reasons and not has_error:
        yield NO_DONE.seen(f"last: {last}")
    if heard.is_whole and ends and (heard.ended or 0) - events[ends[0]].at > LATE:
        yield ENDS_LATE.seen(f"{(heard.ended or 0) - events[ends[0]].at:.1f} s behind [DONE]")
