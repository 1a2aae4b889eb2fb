"""A turn that is sent again when its reply was just made: replayed if it was never heard, else thought about anew."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from actions_of_a_test import BYE, LEAVE, ON_AGORA, app_on
from caller import Caller, turn
from served import Served

from firstword import App, Turn, clock
from firstword.server.again import KEPT
from firstword.testing import Phone, Upstream, run, script

Serve = Callable[[App], Served]
STORY = "It is noon, and the sun is high."
ANEW = "It is one."
SAID = script.events(script.says(STORY))
NO_END = [*script.events(script.role(), script.words(STORY), script.finish(), script.usage())[:-1]]
AGAIN = script.events(script.says(ANEW))
RETRY = {"x-stainless-retry-count": "1"}
NOTHING = {"in_use": 0, "turns": 0}


def body_of(marker: str, *scripts: script.Script, **fields: Any) -> dict[str, Any]:
    """Return a turn of a session of this test's own; the n-th time that the model is asked, it does the n-th script."""
    return turn(**{"user": marker, "scripts": list(scripts), "session_id": marker, "turn_id": 1, **fields})


async def unheard(caller: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Hang up when the last word was said, and the end of the reply was not; return the chunks until then."""
    async with caller.dials(body) as call:
        await call.hears_word('"stop"')
        call.hangs_up()
        return call.heard.chunks


async def asked(upstream: Upstream, marker: str) -> int:
    return len(await upstream.wait_settled(marker))


# --- never heard ------------------------------------------------------------------------------------


async def test_a_reply_whose_end_was_not_heard_is_replayed_once(
    caller: Caller, server: Served, upstream: Upstream, marker: str
) -> None:
    """The caller is gone behind the last word; the same turn gets the very chunks again, and is then heard."""
    body = body_of(marker, NO_END, AGAIN)
    chunks = await unheard(caller, body)
    assert await asyncio.to_thread(server.left_open) == NOTHING

    second = await caller.hears(body)
    assert second.text == STORY and second.done and second.chunks[: len(chunks)] == chunks
    assert await asked(upstream, marker) == 1
    assert (await caller.hears(body)).text == ANEW


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "streamed, then in one piece": ({}, {"stream": False}),
    "in one piece, then streamed": ({"stream": False}, {}),
    "counted, then not": ({"stream_options": {"include_usage": True}}, {}),
    "counted, and again": ({"stream_options": {"include_usage": True}},) * 2,
}


@pytest.mark.parametrize(("first", "second"), WAYS.values(), ids=WAYS)
async def test_a_replay_is_written_as_its_request_wants_it(
    caller: Caller, upstream: Upstream, marker: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The retry asks for it streamed or in one piece, with a count of the tokens or without."""
    body = body_of(marker, script.events(script.says(STORY)[:-1], script.usage(), script.done()))
    await caller.hears({**body, **first})
    heard = await caller.hears({**body, **second}, headers=RETRY)

    if second.get("stream") is False:
        assert heard.json["choices"][0]["message"]["content"] == STORY
        assert heard.json["choices"][0]["finish_reason"] == "stop"
    else:
        assert heard.text == STORY and heard.done
        counted = [chunk for chunk in heard.chunks if not chunk["choices"]]
        assert len(counted) == (1 if "stream_options" in second else 0)
    assert await asked(upstream, marker) == 1


async def test_a_connection_that_broke_behind_the_end_was_not_heard(
    caller: Caller, server: Served, upstream: Upstream, marker: str
) -> None:
    """All was written, and lies unread in the caller's socket when its process dies."""
    body = body_of(marker, SAID, AGAIN)
    async with caller.dials(body) as call:
        await upstream.wait_settled(marker)
        assert await asyncio.to_thread(server.left_open) == NOTHING
        # A linger of 0 seconds is what the kernel does for a process that dies with unread bytes: RST, see socket(7).
        sock = call.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        call.hangs_up()

    def is_unheard() -> bool:
        kept = server.app._built.server._repeats._kept.values()  # type: ignore[union-attr]
        return not any(run.was_heard for run in kept)

    async def until_unheard() -> None:
        while not is_unheard():
            await asyncio.sleep(0.001)

    await asyncio.to_thread(server.run, until_unheard)
    assert (await caller.hears(body)).text == STORY
    assert await asked(upstream, marker) == 1


# --- heard ------------------------------------------------------------------------------------------


async def test_what_was_heard_is_thought_about_anew(caller: Caller, upstream: Upstream, marker: str) -> None:
    """The same words for a second time, and nothing says that the first reply was lost."""
    body = body_of(marker, SAID, AGAIN)

    assert [(await caller.hears(body)).text for _ in range(2)] == [STORY, ANEW]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (RETRY, STORY),
        ({"x-stainless-retry-count": "0"}, ANEW),
        ({"x-stainless-retry-count": "x"}, ANEW),
        ({"x-stainless-retry-count": "9" * 5000}, ANEW),
        ({"x-envoy-attempt-count": "1"}, ANEW),
        ({"x-envoy-attempt-count": "2"}, STORY),
    ],
)
async def test_what_says_that_it_is_a_retry_is_replayed(
    caller: Caller, upstream: Upstream, marker: str, headers: dict[str, str], text: str
) -> None:
    """What was heard here was lost on its way, and the client says so."""
    body = body_of(marker, SAID, AGAIN)
    await caller.hears(body)

    assert (await caller.hears(body, headers=headers)).text == text


NEIGHBOURS: dict[str, dict[str, Any]] = {
    "another session": {"session_id": "another"},
    "another number": {"turn_id": 2},
    "other words": {"messages": turn("Hello again")["messages"]},
    "other tools": {"tools": [{"type": "function", "function": {"name": "clock"}}]},
    "another model": {"model": "m2"},
}


@pytest.mark.parametrize("fields", NEIGHBOURS.values(), ids=NEIGHBOURS)
async def test_another_turn_hears_nothing_of_it(
    caller: Caller, upstream: Upstream, marker: str, fields: dict[str, Any]
) -> None:
    """It was never heard, and the next request even says that it is a retry."""
    await unheard(caller, body_of(marker, NO_END, AGAIN))

    assert (await caller.hears(body_of(marker, NO_END, AGAIN, **fields), headers=RETRY)).text == ANEW


async def test_another_key_hears_nothing_of_it(caller: Caller, upstream: Upstream, marker: str) -> None:
    """Two callers say the same of themselves, and ask the same."""
    await unheard(caller, body_of(marker, NO_END, AGAIN))

    body = body_of(marker, NO_END, AGAIN)
    assert (await caller.hears(body, headers={**RETRY, "authorization": "Bearer other"})).text == ANEW


HALF = {"cut": script.closes_after("It is"), "left": script.stalls_after("It is"), "refused": script.refuses(429)}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
async def test_what_is_not_whole_is_not_replayed(
    caller: Caller, server: Served, upstream: Upstream, marker: str, half: script.Script
) -> None:
    """The model broke or was refused, or the caller left in the middle, which is a barge-in: thought about anew."""
    body = body_of(marker, half, half, AGAIN) if half is HALF["refused"] else body_of(marker, half, AGAIN)
    async with caller.dials(body) as call:
        if half is HALF["left"]:
            await call.hears_word('" is"')
            call.hangs_up()
        async for _ in call.listens():
            pass
    assert await asyncio.to_thread(server.left_open) == NOTHING

    heard = await caller.hears(body, headers=RETRY)
    assert heard.text == ANEW and heard.done


@pytest.mark.parametrize(("after", "heard"), [(KEPT - 0.1, STORY), (KEPT + 0.1, ANEW)])
async def test_a_reply_waits_for_seconds(after: float, heard: str) -> None:
    """The engine comes back just in time, or just too late: then nothing of it is in memory any more."""

    async def main() -> None:
        who = {"session_id": "s1", "turn_id": 1}
        async with Phone(models=lambda record: NO_END if record.attempt == 1 else AGAIN) as phone:
            assert (await phone.talk(request=who, leaves=0.1)).text == STORY
            await asyncio.sleep(after)
            if after > KEPT:
                repeats = phone.app._built.server._repeats  # type: ignore[union-attr]
                assert (len(repeats), repeats.size) == (0, 0)
            assert (await phone.talk(request=who)).text == heard

    await run(main)


async def test_an_agent_that_was_to_leave_leaves_behind_the_replay() -> None:
    """Who asks again is still on the line: the farewell is spoken anew, and heard to its end."""
    app = app_on("agora")
    begun = []

    @app.before_turn
    def close(turn: Turn) -> None:
        begun.append(clock.now())
        turn.end_call(say=BYE)

    async def main() -> list[float | None]:
        async with Phone(app) as phone:
            assert (await phone.talk(request=ON_AGORA)).text == BYE
            await asyncio.sleep(1.0)
            assert (await phone.talk(request=ON_AGORA, headers=RETRY)).text == BYE
        return [each.requested for each in phone.seen if each.path == LEAVE]

    left = await run(main)
    assert len(begun) == 1 and [round((each or 0.0) - begun[0], 3) for each in left] == [1.0 + 2.667]


async def test_no_hook_is_called_for_a_replay_and_the_voice_is_the_same(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """What hooks remember they remember once; what a hook has told the engine with the first words is told again."""
    app = App(base_url=upstream.base_url)
    called: list[str] = []

    @app.before_turn
    def before(turn: Turn) -> None:
        called.append("before")
        turn.interruptable = False

    @app.after_turn
    def after(turn: Turn) -> None:
        called.append(f"after {turn.again}".strip())

    served = serve(app)
    caller = Caller(served.url)
    body = body_of(marker, script.never_answers(), SAID)
    async with caller.dials(body) as first:
        await upstream.wait_asked(marker)
        heard = [await caller.hears(body), await caller.hears(body, headers=RETRY)]
        async for _ in first.listens():
            pass
    await asyncio.to_thread(served.run, served.app._built.server.drain)  # type: ignore[union-attr]

    assert [reply.chunks[0].get("metadata") for reply in heard] == [{"interruptable": False}] * 2
    assert [reply.text for reply in heard] == [STORY] * 2
    assert sorted(called) == ["after", "after superseded", "before", "before"]


# --- a real client's own retry ------------------------------------------------------------------------


@asynccontextmanager
async def a_bad_line(url: str) -> AsyncIterator[str]:
    """Relay to a server. The first reply is taken whole and not passed on: the connection is cut instead."""
    there = urlsplit(url)
    count = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        is_first = count == 1
        reply, request = await asyncio.open_connection(there.hostname, there.port)

        async def up() -> None:
            while data := await reader.read(65536):
                request.write(data)

        way = asyncio.create_task(up())
        taken = b""
        try:
            while data := await reply.read(65536):
                taken += data
                if not is_first:
                    writer.write(data)
                elif b"[DONE]" in taken or b'"chat.completion"' in taken:
                    return
        finally:
            way.cancel()
            request.close()
            writer.transport.abort()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.close()


@pytest.mark.parametrize("stream", [True, False])
async def test_openai_python_asks_again_and_is_given_the_reply_that_was_lost(
    server: Served, upstream: Upstream, marker: str, stream: bool
) -> None:
    """The line is cut within the first answer. The SDK retries by itself; the model is asked once."""
    body = body_of(marker, SAID, AGAIN)
    more = {name: body.pop(name) for name in ("scripts", "session_id", "turn_id")}
    async with a_bad_line(server.url) as url, openai.AsyncOpenAI(base_url=url, api_key="k") as client:
        reply = await client.chat.completions.create(**{**body, "stream": stream}, extra_body=more)
        if stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in reply])
        else:
            text = reply.choices[0].message.content

    assert text == STORY
    assert await asked(upstream, marker) == 1


async def test_openai_python_does_not_ask_again_for_what_was_superseded(
    server: Served, upstream: Upstream, marker: str
) -> None:
    """It retries every other 409: the older request would supersede the newer one, and so on."""
    body = body_of(marker, script.never_answers(), script.events(script.role(), script.wait(0.5), script.says(STORY)))
    del body["turn_id"]  # Agora's engine, which has such numbers, is not told
    more = {name: body.pop(name) for name in ("scripts", "session_id")}
    async with openai.AsyncOpenAI(base_url=server.url, api_key="k") as client:
        older = asyncio.create_task(client.chat.completions.create(**body, extra_body=more))
        await upstream.wait_asked(marker)
        newer = await client.chat.completions.create(**{**body, "stream": False}, extra_body=more)
        with pytest.raises(openai.ConflictError, match="sent again"):
            await older

    assert newer.choices[0].message.content == STORY
    assert await asked(upstream, marker) == 2
