"""The upstream cuts or the caller hangs up, at every point of a turn: one ending, and nothing left open.

Rules:
- A hang-up must reach the upstream within 50 ms; on a busy machine it is measured again, twice at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Call, Caller, Heard, turn
from requests_of_a_test import deaf, full
from served import Served

from firstword import App
from firstword.testing import Upstream, script

SOON = 0.05  # seconds from a hang-up to the upstream's end of the line
TRANSCRIPT = script.events(script.says("Hello there, friend."))  # head, role, three words, finish, [DONE], last chunk
WHOLE_AFTER = 6  # writes: from the finish_reason on, no word is missing


@pytest.fixture(scope="module")
def served(upstream: Upstream) -> Iterator[Served]:
    """One server for all faults: whatever one turn suffers, the next is served."""
    running = Served(App(base_url=upstream.base_url, first_token_timeout=5, stall_timeout=5, hedge_share=0))
    yield running
    running.stop()


def check_ending(heard: Heard) -> str:
    """Return how a reply ended: `error`, `cut` or `whole`; asserts that it is exactly one of them."""
    assert heard.whole, heard
    if heard.status != 200:
        assert heard.error["message"] and heard.headers["content-type"] == "application/json"
        return "error"
    errors = [chunk for chunk in heard.chunks if "error" in chunk]
    if errors:
        assert errors == heard.chunks[-1:] and not heard.finish_reasons and b"[DONE]" not in heard.body
        return "cut"
    assert heard.done and heard.finish_reasons == ["stop"]
    return "whole"


async def nothing_is_left(served: Served) -> None:
    """Assert that no turn runs and no upstream connection is in use."""
    # In a thread: our own end of a line closes with the next step of this loop.
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}


# --- the upstream fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [script.close(), script.reset()], ids=["fin", "rst"])
async def test_the_upstream_cuts_after_its_nth_write(served: Served, upstream: Upstream, marker: str, cut: Any) -> None:
    """Before the first word it is a true status, after it an error event, and once every word is here no loss."""
    endings = []
    for count in range(len(TRANSCRIPT) + 1):
        name = f"{marker} {count}"
        heard = await Caller(served.url).says(user=name, script=[*TRANSCRIPT[:count], cut])
        endings.append((check_ending(heard), heard.text if heard.status == 200 else heard.status))

        await nothing_is_left(served)
        records = await upstream.wait_closed(name)
        # A kept connection that closed unheard was replaced once; an answer that began is never asked for again.
        assert len(records) <= (2 if count == 0 else 1)

    words = [("cut", "Hello"), ("cut", "Hello there,"), ("cut", "Hello there, friend.")]
    assert endings == [("error", 502)] * 3 + words + [("whole", "Hello there, friend.")] * 3
    assert len(endings) > WHOLE_AFTER


async def test_the_upstream_cuts_after_its_nth_byte(served: Served, upstream: Upstream, marker: str) -> None:
    """Every byte of the reply is the last one once: within the status line, a header, a character, a chunk's size."""
    frames = [step["text"].replace("Hello", "Grüße").encode() for step in TRANSCRIPT[1:-1]]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [head, *(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames), b"0\r\n\r\n"]
    reply = b"".join(parts)
    ends = {"whole": len(b"".join(parts[:6])), "cut": len(b"".join(parts[:3]))}
    gate = asyncio.Semaphore(16)

    async def ending(size: int) -> str:
        async with gate:
            steps = [script.send(reply[:size], raw=True), script.close()]
            heard = await Caller(served.url).says(user=marker, script=steps)
            assert heard.status in (200, 502) and "Grüße there, friend.".startswith(
                heard.text if heard.status == 200 else ""
            )
            return check_ending(heard)

    sizes = range(0, len(reply) + 1, 5)
    endings = await asyncio.gather(*map(ending, sizes))
    for size, found in zip(sizes, endings, strict=True):
        # The last frame of a part is whole before the line break that ends its chunk.
        expected = "whole" if size >= ends["whole"] - 2 else "cut" if size >= ends["cut"] - 2 else "error"
        assert found == expected, (size, reply[:size][-40:])
    await nothing_is_left(served)
    await upstream.wait_closed(marker)


# --- the caller hangs up --------------------------------------------------------------------------


async def soon(measure: Callable[[], Awaitable[float]]) -> None:
    """Assert that what `measure` takes, in seconds, is short."""
    taken = [await measure()]
    while min(taken) > SOON and len(taken) < 3:
        taken.append(await measure())
    assert min(taken) <= SOON, taken


@contextlib.asynccontextmanager
async def hanging_up(served: Served, body: dict[str, Any]) -> AsyncIterator[Call]:
    """Dial; after the block the caller must be gone and nothing left of the turn."""
    async with Caller(served.url).dials(body) as call:
        yield call
    await nothing_is_left(served)


async def hang_ups(served: Served, upstream: Upstream, body: dict[str, Any], *, behind: bytes = b"") -> int:
    """Hang up when the model is asked, with `behind` sent after the turn; it must reach the upstream soon.

    Returns how many turns that took.
    """
    asked, marker = 0, body["user"]

    async def measure() -> float:
        nonlocal asked
        asked += 1
        async with hanging_up(served, body) as call:
            call.writer.write(behind)
            await upstream.wait_asked(marker, count=asked)
            hung_up = call.hangs_up()
        record = (await upstream.wait_closed(marker, count=asked))[-1]
        assert record.closed_by == "peer" and record.closed is not None
        return record.closed - hung_up

    await soon(measure)
    return asked


WAITING = {
    "headers": script.never_answers(),
    "first event": script.sends_only_headers(),
    "first word": script.sends_only_the_role(),
    "comments": script.comments_for_ever(),
    "reasoning": [script.head(), script.repeat(script.reasoning("Hm"), script.wait(0.01))],
    "error page": [script.head(500, body="length", length=100), script.send("<html>")],
}


@pytest.mark.parametrize("steps", WAITING.values(), ids=WAITING.keys())
async def test_a_hang_up_before_the_first_word_reaches_the_upstream(
    served: Served, upstream: Upstream, marker: str, steps: script.Script
) -> None:
    """LiteLLM#31499, Bifrost#7035: the model goes on thinking for nobody, and is even asked again."""
    asked = await hang_ups(served, upstream, turn(user=marker, script=steps))
    assert len(upstream.seen(marker, until="now")) == asked  # no further attempt


@pytest.mark.parametrize("size", [60_000, 70_000, 900_000, 1_500_000])
@pytest.mark.parametrize("behind", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "pipelined"])
async def test_a_hang_up_behind_much_that_was_sent_reaches_the_upstream(
    served: Served, upstream: Upstream, marker: str, size: int, behind: bytes
) -> None:
    """A long history, and a request that came too early: reading was paused for either, and the end was not seen."""
    body = turn("x" * size, user=marker, script=script.never_answers())
    await hang_ups(served, upstream, body, behind=behind)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_a_hang_up_after_the_nth_event_reaches_the_upstream(
    served: Served, upstream: Upstream, marker: str, count: int
) -> None:
    """Barge-in: the caller speaks over the answer; after the last word, it is over anyway."""
    words = ["One,", " two,", " three.", ""]
    steps = [script.head(200, script.EVENT_STREAM), script.role(), *map(script.text, words[:count])]
    asked = 0

    async def measure() -> float:
        nonlocal asked
        asked += 1
        async with hanging_up(served, turn(user=marker, script=steps)) as call:
            await call.hears_word(words[min(count, 3) - 1])
            hung_up = call.hangs_up()
        record = (await upstream.wait_closed(marker, count=asked))[-1]
        assert record.closed_by == "peer" and record.closed is not None
        return record.closed - hung_up

    await soon(measure)
    assert len(upstream.seen(marker, until="now")) == asked


async def closed_after(line: socket.socket) -> float:
    """Read to the end of the line, by FIN or RST; return when it came."""
    loop = asyncio.get_running_loop()
    with line:
        try:
            while await asyncio.wait_for(loop.sock_recv(line, 1_000_000), 5):
                pass
        except ConnectionError:
            pass
        return time.monotonic()


DEAF = {
    "tls handshake": ("https://127.0.0.1:{}/v1", turn(), b"\x16\x03"),
    "proxy": ("https://llm.example/v1", turn(), b"CONNECT llm.example:443 "),
    "large request": ("http://127.0.0.1:{}/v1", turn("x" * 12_000_000), b"POST /v1/chat/completions"),
}


@pytest.mark.parametrize(("base_url", "body", "first"), DEAF.values(), ids=DEAF.keys())
async def test_a_hang_up_while_the_line_is_being_made_closes_it(
    serve: Callable[[App], Served], monkeypatch: pytest.MonkeyPatch, base_url: str, body: Any, first: bytes
) -> None:
    """The handshake never answers, the proxy makes no tunnel, the request is taken by nobody."""
    with deaf() as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        served = serve(App(base_url=base_url.format(port), warm=False, first_token_timeout=20, connect_timeout=20))

        async def measure() -> float:
            async with Caller(served.url).dials(body, headers={"authorization": "Bearer key"}) as call:
                line, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 5)
                line.setblocking(False)
                assert (await asyncio.get_running_loop().sock_recv(line, 64)).startswith(first)
                hung_up = call.hangs_up()
                closed = await closed_after(line)
            await nothing_is_left(served)
            return closed - hung_up

        await soon(measure)
        with pytest.raises(BlockingIOError):
            listener.accept()  # no further attempt


def connecting() -> int:
    """Return how many sockets of this process wait for the first answer of a peer's kernel (SYN_SENT)."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime, or no TCP
            if str(link.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(link.name))) as one:
                    count += one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x02"
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
async def test_a_hang_up_while_connecting_gives_the_attempt_up(serve: Callable[[App], Served]) -> None:
    """The upstream's host drops our SYN, as one that is away or full does."""
    with full() as port:
        served = serve(App(base_url=f"http://127.0.0.1:{port}/v1", warm=False, connect_timeout=20))

        async def until(count: int) -> None:
            while connecting() != count:
                await asyncio.sleep(0.002)

        async def measure() -> float:
            before = connecting()
            async with hanging_up(served, turn()) as call:
                await asyncio.wait_for(until(before + 1), 5)
                hung_up = call.hangs_up()
                await asyncio.wait_for(until(before), 5)
                return time.monotonic() - hung_up

        await soon(measure)
