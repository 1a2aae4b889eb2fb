"""Server-sent events are cut out of bytes in one form, however they were spelt and however they were split.

Rules:
- A case is fed whole, and again one byte at a time: a reader that knows where a read ended is wrong.
"""

from __future__ import annotations

import re
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firstword.errors import UpstreamProtocolError
from firstword.wire import DONE, FrameReader, frame

BOM = b"\xef\xbb\xbf"

steady = settings(deadline=None, derandomize=True)


def read(*pieces: bytes) -> list[bytes]:
    """Return all frames of a body that arrived in these pieces."""
    reader = FrameReader()
    frames = [each for piece in pieces for each in reader.feed(piece)]
    return frames + reader.end()


def byte_by_byte(body: bytes) -> list[bytes]:
    return read(*(body[at : at + 1] for at in range(len(body))))


# --- every spelling that the standard allows ------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b'data: {"a":1}\n\ndata: {"a":2}\n\ndata: [DONE]\n\n', [b'{"a":1}', b'{"a":2}', b"[DONE]"]),
        (b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\n', [b'{"a":1}', b'{"a":2}']),
        (b'data: {"a":1}\r\rdata: {"a":2}\r\r', [b'{"a":1}', b'{"a":2}']),
        (b'data: {"a":1}\r\n\ndata: {"a":2}\n\r\ndata: {"a":3}\r\r\n', [b'{"a":1}', b'{"a":2}', b'{"a":3}']),
        (b'data:{"a":1}\n\n', [b'{"a":1}']),
        (b"data: [DONE] \n\n", [b"[DONE]"]),
        (b"data:[DONE]\r\n\r\n", [b"[DONE]"]),
        (b'data: {\ndata: "a":1,\ndata:"b":2}\n\n', [b'{ "a":1, "b":2}']),
        (b'data: {"a":1}\ndata\n\n', [b'{"a":1}']),
        (BOM + b'data: {"a":1}\n\n', [b'{"a":1}']),
        (BOM + b': hello\n\ndata: {"a":1}\n\n', [b'{"a":1}']),
        (b': ping\n\n: ping\n\ndata: {"a":1}\n\n:\n\n', [b'{"a":1}']),
        (b': OPENROUTER PROCESSING\ndata: {"a":1}\n\n', [b'{"a":1}']),
        (b'id: 7\nretry: 3000\nevent: message\ndata: {"a":1}\n\n', [b'{"a":1}']),
        (b"event: ping\n\n", []),
        (b"id: 7\n\nretry: 3000\n\n", []),
        (b"data\n\ndata:\n\ndata: \n\ndata:  \n\n", []),
        (b'\n\n\n\ndata: {"a":1}\n\n\n\n\n\ndata: {"a":2}\n\n\n', [b'{"a":1}', b'{"a":2}']),
        (b'database: {"no":1}\ndat: 1\n data: 2\nDATA: 3\ndata : 4\n\n', []),
        (b'data: {"a":1}', [b'{"a":1}']),
        (b'data: {"a":1}\n', [b'{"a":1}']),
        (b'data: {"a":1}\r', [b'{"a":1}']),
        (b'data: {"a":1}\n\ndata: {"a":2}\r\n', [b'{"a":1}', b'{"a":2}']),
        (b"", []),
        (b"\r\n\r\n", []),
        (b": only a comment", []),
        (b"<html>\n\n<body>Sorry</body>\n</html>", []),
        (b"data: null\n\ndata: \xff\xfe\n\n", [b"null", b"\xff\xfe"]),
    ],
)
def test_every_spelling_of_an_event_comes_out_in_one_form(body: bytes, data: list[bytes]) -> None:
    """What providers, proxies and the standard's own examples send."""
    expected = [frame(each) for each in data]

    assert read(body) == expected
    assert byte_by_byte(body) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u001c", "\u001e"])
def test_what_only_unicode_takes_for_a_line_break_tears_no_event(separator: str) -> None:
    """A model writes U+2028 in a poem; `str.splitlines` would end the event there."""
    body = f'data: {{"content":"one{separator}two"}}\n\n'.encode()

    assert read(body) == [body]
    assert byte_by_byte(body) == [body]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error":{"message":"broken"}}', {"message": "broken"}),
        (b'{"message":"broken","code":500}', {"message": "broken", "code": 500}),
        (b'"broken"', "broken"),
        (b"broken pipe", "broken pipe"),
        (b"{half of", "{half of"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'[{"message":"broken"}]', [{"message": "broken"}]),
    ],
)
def test_an_event_named_error_says_error_in_its_data(data: bytes, error: object) -> None:
    """openai-python swallows an `event: error` whose data has no `error` key."""
    for spelling in (b"event: error\ndata: %b\n\n", b"event:error\r\ndata:%b\r\n\r\n", b"data: %b\nevent: error\n\n"):
        (only,) = byte_by_byte(spelling % data)

        assert only.startswith(b"data: {") and only.endswith(b"}\n\n") and only.count(b"\n") == 2
        assert msgspec.json.decode(only[6:]) == {"error": error}


def test_an_event_of_another_name_keeps_its_data() -> None:
    """`event: ping` with data, and a name that only starts with `error`."""
    assert read(b'event: ping\ndata: {"a":1}\n\n') == [frame(b'{"a":1}')]
    assert read(b'event: errors\ndata: {"a":1}\n\n') == [frame(b'{"a":1}')]


def test_events_come_out_with_the_read_that_ends_them() -> None:
    """A token must not wait for the next read; nothing comes out twice."""
    reader = FrameReader()

    assert reader.feed(b'data: {"a":1}\n') == []
    assert reader.feed(b'\ndata: {"a":2}\n\ndata: {"a"') == [frame(b'{"a":1}'), frame(b'{"a":2}')]
    assert reader.feed(b"") == []
    assert reader.feed(b":3}\r\n\r") == [frame(b'{"a":3}')]
    assert reader.feed(b"\ndata: [DONE]\n") == []
    assert reader.feed(b"\n") == [DONE]
    assert reader.end() == []


# --- a flood has a cap ----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [b"x" * 8192, b"data: " + b"x" * 5000, b'data: {"a":\n', b"\n:" * 4096])
def test_an_event_without_an_end_is_an_error_before_it_fills_the_memory(piece: bytes) -> None:
    """hermes#58471: a line that never ends. 256 kB are allowed here, and little more is ever held."""
    reader = FrameReader(max_frame=262_144)
    fed = 0
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamProtocolError, match="262144 bytes"):
            while fed < 64 * 262_144:
                reader.feed(piece)
                fed += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 262_144 - len(piece) <= fed <= 262_144
    assert peak < 3 * 262_144
    assert reader.feed(b'data: {"a":1}\n\n') == [frame(b'{"a":1}')]  # what was held is gone


def test_many_small_events_are_no_flood() -> None:
    """A long answer is far over the cap in sum; an image of 100 kB in one event is below it."""
    reader = FrameReader(max_frame=262_144)
    large = b'data: {"a":"' + b"x" * 100_000 + b'"}\n\n'

    assert sum(len(reader.feed(large * 2)) for _ in range(20)) == 40
    half = len(large) // 2
    assert [reader.feed(each) for each in (large[:half], large[half:])] == [[], [large]]


def test_the_price_of_a_byte_does_not_grow_with_the_event() -> None:
    """One event of 1 MB that arrives byte by byte: looking at all of it each time would cost the square."""

    def seconds(size: int) -> float:
        piece = [b"x"] * size
        reader = FrameReader()
        began = time.thread_time()
        for byte in piece:
            reader.feed(byte)
        return time.thread_time() - began

    assert seconds(1_000_000) < 8 * seconds(250_000)  # 4 when linear, 16 when not


# --- properties -----------------------------------------------------------------------------------

TOKENS = [b"data: ", b"data:", b"data", b"event: error", b": ping", b"id: 1", b"retry: 5", b"\n", b"\n\n", b"\r\n"]
TOKENS += [
    b"\r",
    b"\r\n\r\n",
    b" ",
    b'{"a":1}',
    b'{"b":"\xe4\xbd\xa0\xe5\xa5\xbd"}',
    b"{",
    b"}",
    b"[DONE]",
    b"\xe2\x80\xa8",
]
TOKENS += [BOM, b"x", b":", b"\xff", b"\x00", b'data: {"a":1}\n\n', b"\t"]

bodies = st.one_of(st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join), st.binary(max_size=80))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body, and the same body in pieces."""
    body = draw(bodies)
    at = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return body, [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


def as_the_standard_says(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return (name, data) of each event: the standard's algorithm, line by line, an unfinished event at the end too."""
    events, name, data = [], b"", []
    lines = re.split(rb"\r\n|\r|\n", body.removeprefix(BOM))
    for line in [*lines, b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif not line:
            events.append((name, b" ".join(data).strip()))
            name, data = b"", []
    return [(name, data) for name, data in events if data or name.strip() == b"error"]


@steady
@given(cuts())
@example((b'data: {"a":1} \n\n\n', [b'data: {"a":1} \n\n', b"\n"]))
@example((BOM + b"\n\n", [b"\xef", b"\xbb\xbf\n", b"\n"]))
def test_any_cutting_of_the_bytes_gives_the_same_frames(cut: tuple[bytes, list[bytes]]) -> None:
    """Reads end anywhere: within a character, between CR and LF, within `data:`."""
    body, pieces = cut
    whole = read(body)

    assert read(*pieces) == whole
    assert byte_by_byte(body) == whole


@steady
@given(bodies)
@example(b'data: {"a":1}\n\n: ping\n\n')
def test_a_frame_waits_for_no_byte_after_its_own(body: bytes) -> None:
    """However the bytes came, at each of them the same frames are out as if all had come at once."""
    reader = FrameReader()
    frames: list[bytes] = []
    for end in range(1, len(body) + 1):
        frames += reader.feed(body[end - 1 : end])
        assert frames == FrameReader().feed(body[:end])


@steady
@given(bodies)
def test_frames_are_what_the_standard_says(body: bytes) -> None:
    """A second reader, as slow and as plain as the standard's text, finds the same events."""
    expected = as_the_standard_says(body)
    found = read(body)

    assert len(found) == len(expected)
    for (name, data), each in zip(expected, found, strict=True):
        assert b'"error"' in each if name.strip() == b"error" else each[6:-2].strip() == data


@steady
@given(bodies)
def test_whatever_goes_in_a_frame_is_one_line_of_data(body: bytes) -> None:
    """Clients die of anything else: a bare comment, an `id:` line, an event without data."""
    for each in byte_by_byte(body):
        assert re.fullmatch(rb"data: [^\r\n]+\n\n", each), each


json_text = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(steady, max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=8), json_text, max_size=4), min_size=1, max_size=5), st.data())
def test_a_canonical_frame_keeps_its_very_bytes(values: list[dict[str, object]], data: st.DataObject) -> None:
    """What OpenAI itself sends goes through untouched, wherever it is cut."""
    frames = [frame(msgspec.json.encode(value)) for value in values]
    body = b"".join(frames)
    at = data.draw(st.integers(0, len(body)))

    assert read(body) == frames
    assert read(body[:at], body[at:]) == frames
    assert byte_by_byte(body) == frames
