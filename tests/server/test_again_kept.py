"""What is kept of turns that may be sent again: within bounds, and whatever is cancelled at whichever step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from actions_of_a_test import ON_AGORA

from firstword import App, clock
from firstword.chunk import Chunk
from firstword.errors import Error, Superseded
from firstword.model import remote
from firstword.providers.openai import provider
from firstword.server.again import KEPT, MAX_BYTES, MAX_KEPT, Repeats, Sending, content_of
from firstword.server.run import MAX_REPLY, QUIET_TIMEOUT, Cut, error_of
from firstword.testing import Phone, Score, Upstream, run, script
from firstword.transport import Transport
from firstword.turn import Aloud, Send, Turn

STORY = "It is noon, and the sun is high."
SLOWLY = script.events(script.says(STORY, every=0.002))


def turn_of(number: int = 1, session: str = "s1", **request: Any) -> Turn:
    """Return a turn of a session."""
    return Turn(request={"messages": [{"role": "user", "content": "Hello"}], **request}, session=session, number=number)


async def says(turn: Turn, send: Send) -> None:
    """Answer with a chunk as long as the turn's user asks for."""
    await send(turn.chunk({"content": "a" * turn.request.get("size", 1000)}))
    await send(turn.chunk({}, "stop"))


async def heard(repeats: Repeats, turn: Turn, cut: Cut | None = None, sending: Sending | None = None) -> list[Chunk]:
    """Have a turn, as the server has it; return what its caller was sent. `cut` is how it ends behind its last word."""
    sending = sending or repeats.begin(turn)
    task = asyncio.current_task()
    assert sending is not None and task is not None
    sent: list[Chunk] = []
    why: list[Cut] = []

    def end(reason: Cut) -> None:
        why.append(reason)
        task.cancel()

    async def send(chunk: Chunk) -> None:
        sent.append(chunk)
        if sending.keep is not None:
            sending.keep(chunk)
        await asyncio.sleep(0)

    sending.on_cut(end)
    try:
        await sending(turn, send)
    except Error as error:
        turn.error = error
    except asyncio.CancelledError:
        cut = why[0] if why else Cut.LEFT
        turn.error = error_of(cut, turn)
    repeats.end(sending, turn, cut)
    return sent


# --- bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["supersede", "join"])
async def test_the_oldest_of_too_many_replies_go(rule: str) -> None:
    """More sessions than are kept: what is left are the newest, and the bytes are those of them."""
    repeats = Repeats(says, lambda _: rule)
    for number in range(MAX_KEPT + 10):
        await heard(repeats, turn_of(number, size=10), Cut.LEFT)

    assert len(repeats) == MAX_KEPT
    assert repeats.size == sum(run.size for run in repeats._kept.values())
    found = [repeats.begin(turn_of(number, size=10)) for number in (9, 10)]
    assert [each.how for each in found if each] == ["", "replayed"]
    repeats.close()
    assert len(repeats._kept) == 0


@pytest.mark.parametrize("rule", ["supersede", "join"])
async def test_the_oldest_of_too_long_replies_go(rule: str) -> None:
    """The bytes of all are bounded, and so are those of one."""
    repeats = Repeats(says, lambda _: rule)
    size = MAX_REPLY - 1000
    for number in range(2 * MAX_BYTES // size):
        await heard(repeats, turn_of(number, size=size), Cut.LEFT)
        assert 0 < repeats.size <= MAX_BYTES

    assert len(repeats) == MAX_BYTES // (size + 500)
    newest = repeats.begin(turn_of(number, size=size))
    assert newest is not None and newest.how == "replayed"
    await heard(repeats, turn_of(-1, size=MAX_REPLY + 1), Cut.LEFT)
    found = repeats.begin(turn_of(-1, size=MAX_REPLY + 1))
    assert found is not None and found.how == ""
    repeats.close()
    assert repeats.size == 0


async def test_replies_under_way_are_bounded_together() -> None:
    """So many callers at once that there is no room: all are answered, and some of it is just not kept."""
    repeats = Repeats(says, lambda _: "supersede")
    go_on = asyncio.Event()
    count = 2 * MAX_BYTES // MAX_REPLY

    async def waits(turn: Turn, send: Send) -> None:
        await says(turn, send)
        await go_on.wait()

    repeats._handler = waits
    turns = [asyncio.ensure_future(heard(repeats, turn_of(each, size=MAX_REPLY // 2 + 1))) for each in range(2 * count)]
    while not all(each.chunks or each.gone for each in repeats._running.values()) or len(repeats) < len(turns):
        await asyncio.sleep(0)
    assert repeats.size <= MAX_BYTES
    go_on.set()

    assert all(len(sent) == 2 for sent in await asyncio.gather(*turns))
    assert len(repeats._running) == 0 and repeats.size <= MAX_BYTES
    repeats.close()
    assert repeats.size == 0


async def test_nothing_is_left_of_it_after_some_seconds() -> None:
    """Nobody calls any more: memory is let go of all the same."""

    async def main() -> None:
        repeats = Repeats(says, lambda _: "supersede")
        for number in range(10):
            await heard(repeats, turn_of(number))
            await asyncio.sleep(KEPT / 5)
        assert 0 < len(repeats) <= 6
        await asyncio.sleep(KEPT)
        assert (len(repeats), repeats.size, repeats._timer) == (0, 0, None)

    await run(main)


@pytest.mark.parametrize(
    ("turn", "rule"),
    [(Turn(request={"messages": []}, number=1), "supersede"), (turn_of(), "none")],
    ids=["no session", "none"],
)
async def test_nothing_is_kept_of_what_is_not_shared(turn: Turn, rule: str) -> None:
    """A plain request, and a rule by which nothing is shared."""
    repeats = Repeats(says, lambda _: rule)

    assert repeats.begin(turn) is None and len(repeats) == 0


async def test_a_request_that_is_nested_too_deeply_is_shared_with_nobody() -> None:
    """What JSON can just be read of may be too deep to be written; the provider's dialect says so."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    assert Repeats(says, lambda _: "supersede").begin(turn_of(metadata=deep)) is None


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
async def test_who_does_not_let_go_of_a_model_is_waited_for_so_long_and_no_longer(leaves: bool) -> None:
    """A stage of the superseded turn takes its time over its end: the newer one asks after a second, and so does the
    one after it, although the second was given up meanwhile, or has left by itself.
    """

    async def main() -> None:
        begun: list[float] = []

        async def clings(turn: Turn, send: Send) -> None:
            begun.append(clock.now())
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.shield(asyncio.sleep(30))

        repeats = Repeats(clings, lambda _: "supersede")
        tasks = []
        for _ in range(3):
            sending = repeats.begin(turn_of())
            assert sending is not None
            task = asyncio.ensure_future(heard(repeats, turn_of(), sending=sending))
            tasks.append(task)
            await asyncio.sleep(0.1)
            if leaves and len(tasks) == 2:
                task.cancel()
                await asyncio.wait({task})
        await asyncio.sleep(5)
        assert len(begun) == 2 and round(begun[1] - begun[0], 3) == 0.2 + QUIET_TIMEOUT
        assert tasks[1].done() and not tasks[0].done()
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert len(repeats._running) == 0

    await run(main)


@pytest.mark.parametrize("rule", ["supersede", "join"])
async def test_the_engine_s_own_tool_does_not_wait_for_an_end_mark(rule: str) -> None:
    """The model's server takes its time over `[DONE]`; the engine has run the call by then, and goes on."""
    call = script.tool_call("clock", "{}", id="c1")
    calls = script.events(script.role(), call, script.finish("tool_calls"), script.wait(0.4), script.done())
    user = {"role": "user", "content": "What time is it?"}
    asked = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "noon"}

    def answer(record: Any) -> Any:
        return script.events(script.says(STORY)) if record.body["messages"][-1] == result else calls

    async def main() -> Score:
        app = App(base_url="http://model.test/v1", model="m", resent=rule)
        async with Phone(app, models=answer) as phone:
            first = asyncio.ensure_future(phone.talk([user], request=ON_AGORA))
            await asyncio.sleep(0.1)
            messages = [user, {"role": "assistant", "content": None, "tool_calls": [asked]}, result]
            second = await phone.talk(messages, request=ON_AGORA)
            assert (await first).finish_reason == "tool_calls"
            return second

    assert await run(main) == [(0.0, STORY)]


async def test_sound_is_not_replayed_and_is_no_answer_to_another_format() -> None:
    """It is played at its pace; and who asks for words, or for sound in one piece, cannot use it."""

    async def speaks(turn: Turn, send: Send) -> None:
        turn.aloud = Aloud()
        await says(turn, send)

    repeats = Repeats(speaks, lambda _: "supersede")
    await heard(repeats, turn_of(), Cut.LEFT)
    assert (len(repeats), repeats.size) == (0, 0)

    formats = [(False, True), (True, True), (True, False)]
    turns = [replace(turn_of(), is_audio=is_audio, stream=stream) for is_audio, stream in formats]
    assert len({content_of(each) for each in turns}) == 3
    assert content_of(turns[0]) == content_of(replace(turns[0], stream=False))


# --- cancelled at the n-th step -----------------------------------------------------------------------


class Steps:
    """A coroutine that waits; before its n-th wait, `do` is called. `count` is how often it has waited."""

    def __init__(self, coroutine: Any, at: int, do: Callable[[], Any] | None = None) -> None:
        self.coroutine, self.at, self.do, self.count = coroutine, at, do, 0

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        while True:
            try:
                future = self.coroutine.send(None) if thrown is None else self.coroutine.throw(thrown)
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count == self.at:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(self.do or task.cancel)
            thrown = None
            try:
                yield future
            except BaseException as error:
                thrown = error

    async def run(self) -> Any:
        """Do it, as a task of its own wants it."""
        return await self


@asynccontextmanager
async def models(upstream: Upstream, rule: str) -> AsyncIterator[Repeats]:
    """Turns that a real model answers, one at a time; asserts that no task, connection or reply under way is left."""
    transport = Transport()
    ask = remote(provider, None, upstream.base_url, None, transport)
    busy: list[int] = []

    async def answers(turn: Turn, send: Send) -> None:
        busy.append(transport.in_use)
        await ask(turn, send)

    repeats = Repeats(answers, lambda _: rule)
    tasks = asyncio.all_tasks()
    yield repeats
    while transport.in_use:
        await asyncio.sleep(0.002)
    assert asyncio.all_tasks() == tasks and not any(busy)
    assert len(repeats._running) == 0 and repeats.size == sum(run.size for run in repeats._kept.values())
    repeats.close()
    await transport.close()


def text_of(sent: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in sent)


@pytest.mark.parametrize("who", [(True, False), (False, True), (True, True)], ids=["first", "second", "both"])
async def test_who_hears_a_reply_together_is_cancelled_at_the_nth_wait(
    upstream: Upstream, marker: str, who: tuple[bool, bool]
) -> None:
    """Before the model is asked, while it is, and while it speaks: who stays hears all, and nobody's turn goes on."""
    for count in range(1, 200):
        async with models(upstream, "join") as repeats:
            turns = [turn_of(model="m", user=f"{marker} {count}", script=SLOWLY) for _ in who]
            steps = [Steps(heard(repeats, each), count * leaves) for each, leaves in zip(turns, who, strict=True)]
            sent = await asyncio.gather(*(each.run() for each in steps))
        assert [each.again for each in turns] == ["", "joined"]
        stays = [each for each, leaves in zip(sent, who, strict=True) if not leaves]
        assert [text_of(each) for each in stays] == [STORY] * len(stays)
        if all(each.count < count for each, leaves in zip(steps, who, strict=True) if leaves):
            break
        for record in await upstream.wait_settled(f"{marker} {count}", count=0):
            assert record.ended is not None or (not stays and record.closed_by == "peer")
    assert 10 < count < 199


async def test_a_turn_is_superseded_at_its_nth_wait(upstream: Upstream, marker: str) -> None:
    """While its model is dialled, asked and heard: the newer one is answered, and no model is asked by both at once."""
    for count in range(1, 200):
        async with models(upstream, "supersede") as repeats:
            turns = [turn_of(model="m", user=f"{marker} {count}", script=SLOWLY) for _ in range(2)]
            newer: list[asyncio.Future[list[Chunk]]] = []
            begin = lambda: newer.append(asyncio.ensure_future(heard(repeats, turns[1])))  # noqa: E731, B023
            steps = Steps(heard(repeats, turns[0]), count, begin)
            sent = await steps.run()
            if newer:
                assert text_of(await newer[0]) == STORY
                assert isinstance(turns[0].error, Superseded) or text_of(sent) == STORY  # or it was over just then
        if not newer:
            break
        assert len(await upstream.wait_settled(f"{marker} {count}", count=0)) <= 2
    assert 10 < count < 199


async def test_the_newer_turn_is_cancelled_at_its_nth_wait(upstream: Upstream, marker: str) -> None:
    """While it waits for the older one to let go of its model, and behind that: nobody is left."""
    for count in range(1, 200):
        async with models(upstream, "supersede") as repeats:
            turns = [turn_of(model="m", user=f"{marker} {count}", script=SLOWLY) for _ in range(2)]
            older = asyncio.ensure_future(heard(repeats, turns[0]))
            await upstream.wait_asked(f"{marker} {count}")
            steps = Steps(heard(repeats, turns[1]), count)
            await asyncio.gather(older, steps.run())
            assert isinstance(turns[0].error, Superseded)
        if steps.count < count:
            break
        assert len(await upstream.wait_settled(f"{marker} {count}")) <= 2
    assert 10 < count < 199
