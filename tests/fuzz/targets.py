"""What is fuzzed: four functions of some bytes, each of which ends in an assertion when a promise is broken.

Rules:
- The first byte says into what pieces the others are cut, so that a fuzzer finds cuttings as well.
- Nothing here needs a fuzzer: a test feeds the seeds, and every input that once broke something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from feeding import NEXT, cut, hears

from firstword.errors import RequestError, UpstreamProtocolError
from firstword.platforms import Asked
from firstword.platforms.agora import platform
from firstword.providers.openai import Decoder
from firstword.server.request import read_json
from firstword.shaping import Shaper
from firstword.shaping.signs import BOUND, URL_BOUND
from firstword.wire import FrameReader

_loop = asyncio.new_event_loop()


def _cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the input without its first byte, whole and in pieces: of 1 to 255 bytes, or at the first line break."""
    size, rest = data[0], data[1:]
    return rest, cut(rest, range(size, len(rest), size) if size else [rest.find(b"\n")])


def response(data: bytes) -> None:
    """Read an HTTP response: an answer or an error of the upstream, and the next response is the next one."""
    whole, pieces = _cut(data)
    if not whole:
        return
    once = _loop.run_until_complete(hears([whole], closes=True))
    again = _loop.run_until_complete(hears(pieces, closes=True))
    # A second answer spoils the first one only when both come in one read.
    if (once.failure, again.failure) != (UpstreamProtocolError, None):
        assert (once.body, once.failure) == (again.body, again.failure)
        assert once.failure or once.status == again.status
    _loop.run_until_complete(hears(pieces))


def reply(data: bytes) -> None:
    """Read an event stream: the same frames and chunks however it is cut."""
    whole, pieces = _cut(data)
    assert _frames([whole]) == _frames(pieces)
    assert _chunks([whole]) == _chunks(pieces)


def request(data: bytes) -> None:
    """Read a voice engine's request: a turn that can be sent on, or a refusal."""
    try:
        body = read_json(data)
        turn = platform.read(Asked(body, {}, {}, "/chat/completions", None))
    except RequestError as refusal:
        msgspec.json.encode(refusal.body())
        return
    assert all(isinstance(message, dict) for message in turn.request["messages"])
    msgspec.json.encode(turn.request)


def spoken(data: bytes) -> None:
    """Make text fit to be spoken: the same is heard however it is cut, and no more is kept back than may be."""
    texts = [piece.decode("utf-8", "replace") for piece in _cut(data)[1]]
    text = "".join(texts)
    for markup in (True, False):
        once = Shaper(markup=markup)
        heard = once.feed(text) + once.end()
        again = Shaper(markup=markup)
        said = ""
        for piece in texts:
            said += again.feed(piece)
            assert len(again.kept) <= URL_BOUND + BOUND
        assert said + again.end() == heard


def _frames(pieces: list[bytes]) -> list[bytes]:
    reader = FrameReader()
    frames = [frame for piece in pieces for frame in reader.feed(piece)] + reader.end()
    for frame in frames:
        assert frame.startswith(b"data: ") and frame.endswith(b"\n\n") and not {10, 13} & set(frame[6:-2])
    return frames


def _chunks(pieces: list[bytes]) -> tuple[list[object], str]:
    decoder = Decoder(turn_id="chatcmpl-ours", model="m1", wants_usage=True, secret=None)
    chunks = []
    for piece in pieces:
        if not decoder.done and decoder.failure is None:
            chunks += decoder.feed(piece)
    if not decoder.done and decoder.failure is None:
        chunks += decoder.end()
    # When it was made stands in a chunk that had no time of its own: two readers may differ by a second.
    return [{**msgspec.json.decode(chunk.frame[6:]), "created": 0} for chunk in chunks], repr(decoder.failure)


SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    response: [
        b"\xff" + NEXT,
        b"\x00HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nx: y\r\n\r\n",
        b"\x07HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
        b"\x01HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n",
        b"\x20HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
        b"\x30" + NEXT + NEXT,
    ],
    reply: [
        b'\xffdata: {"id":"a","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n',
        b'\x05data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\r\n\r\n: a\r\n\r\n',
        b'\x01event: error\ndata: {"message":"x","code":429}\n\ndata: {"error":{"message":"x"}}\n\n',
        b'\x03\xef\xbb\xbfdata: {}\n\ndata:{"id":"","choices":null,"x":[1.5]}\n\nid: 1\nretry: 2\n\ndata: {',
    ],
    request: [
        b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi","turn_id":1,"metadata":{"user":"7"}}]}',
        b'{"params":{"model":"m","session_id":"s"},"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}',
        b'{"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f"}}]},'
        b'{"role":"tool","tool_call_id":"1","content":""}],"tools":[{"type":"function","function":{"name":"f"}}],'
        b'"context":{"presence":{},"appId":"x"},"stream_options":null,"temperature":1e3}',
    ],
    spoken: [
        b"\xff## Menu\n\n- **Soup** *hot* ~~cold~~ `x`\n- [ ] [Bread](https://a.com)\n> ![c](d)\n---\n| a | b |\n|-|-|",
        b"\x03<think>Hm.</think> <b>Hi</b><br/> &amp; \\*x\\* \\( y \\) $$z$$ <a@b.co> <!-- c --> <|end|>",
        "\x05See https://www.a.com/b?c=1, www.d.org[1][^2]. \u30103\u2020s\u3011 \U0001f600 1\ufe0f\u20e3".encode(),
        b"\x02```python\nprint(1)\n```\n~~~\ntext\n~~~\n[1]: https://a.com\n[^2]: Note\n* * *\n_a_ __b__ ***c***",
    ],
}
BROKEN: dict[Callable[[bytes], None], list[bytes]] = {
    response: [b"0" + NEXT + NEXT.replace(b"200", b"284")],
    reply: [],
    request: [],
    spoken: [],
}
