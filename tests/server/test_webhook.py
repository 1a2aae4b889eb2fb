"""The webhook of a real server: who is believed, what is done with an event, and how it finds the turns it is about."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from events_of_a_test import AGENT, CHANNEL, PATH, SECRET, a_turn, event, finished, metrics, sign, tell
from prometheus_client.parser import text_string_to_metric_families
from served import Served

from firstword import App, Event, Turn
from firstword.server.webhook import MAX_EVENT, MAX_KEPT, MAX_NOTICES, Webhook
from firstword.telemetry import Counts
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
ANSWER = script.events(script.says("Hello there."))


@pytest.fixture
def told(upstream: Upstream) -> tuple[App, queue.SimpleQueue[Event]]:
    """An App that takes events, and what its hook hears."""
    app = App(base_url=upstream.base_url, agora_webhook_secret=SECRET, warm=False)
    heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
    app.on_event(heard.put)
    return app, heard


@pytest.fixture
def engine(serve: Serve, told: tuple[App, queue.SimpleQueue[Event]]) -> Caller:
    """An engine that tells its events to that App."""
    return Caller(serve(told[0]).url)


async def count(caller: Caller) -> dict[str, float]:
    """Return what was counted: each sample with its labels."""
    page = (await caller.hears(method="GET", path="/metrics")).body.decode()
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = [value for _, value in sorted(sample.labels.items())]
            found[" ".join([sample.name.removeprefix("firstword_"), *labels])] = sample.value
    return found


async def promises(caller: Caller, length: int, **headers: str) -> bytes:
    """Promise a body of this length, send none of it, and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(caller.url.rpartition(":")[2]))
    try:
        lines = [f"{name}: {value}" for name, value in {"host": "x", "content-length": str(length), **headers}.items()]
        writer.write("\r\n".join([f"POST {PATH} HTTP/1.1", *lines, "", ""]).encode())
        return await asyncio.wait_for(reader.read(65536), 5)
    finally:
        writer.transport.abort()


# --- who is believed ---------------------------------------------------------------------------------------


async def test_a_signed_event_is_answered_and_handed_to_the_hook(
    engine: Caller, told: tuple[App, queue.SimpleQueue[Event]]
) -> None:
    """The agent has joined."""
    heard = await tell(engine, event(101))
    assert (heard.status, heard.json) == (200, {"status": "ok"})
    found = await asyncio.to_thread(told[1].get, True, 5)
    assert (found.kind, found.name, found.agent, found.channel) == (101, "agent_joined", AGENT, CHANNEL)
    assert (await count(engine))["events_total agent_joined"] == 1


async def test_without_a_secret_there_is_nothing(serve: Serve, upstream: Upstream) -> None:
    """The route is off, and looks like any other path."""
    caller = Caller(serve(App(base_url=upstream.base_url, warm=False)).url)
    nowhere = await caller.hears(event(101), path="/nowhere")
    heard = await tell(caller, event(101))
    assert (heard.status, heard.body) == (nowhere.status, nowhere.body) and heard.status == 404


@pytest.mark.parametrize(
    "signature", ["", "0" * 64, sign(event(101)), sign(b""), "x", sign(event(101), "other")], ids=str
)
async def test_who_has_not_the_secret_is_not_believed(
    engine: Caller, told: tuple[App, queue.SimpleQueue[Event]], signature: str
) -> None:
    """No signature, one of other bytes, one of another secret."""
    heard = await tell(engine, event(102), signature=signature)
    assert (heard.status, heard.error["code"]) == (401, "invalid_signature")
    assert SECRET not in heard.body.decode() and told[1].empty()
    assert "events_total agent_left" not in await count(engine)


async def test_gate_keys_are_no_matter(serve: Serve, upstream: Upstream) -> None:
    """Agora cannot send one; the signature is what lets it in."""
    app = App(base_url=upstream.base_url, agora_webhook_secret=SECRET, api_key="held", keys=["gate"], warm=False)
    assert (await tell(Caller(serve(app).url), event(101))).status == 200


@pytest.mark.parametrize(("late", "status"), [(-240, 200), (240, 200), (-400, 401), (400, 401)])
async def test_what_was_sent_long_ago_is_not_taken(engine: Caller, late: float, status: int) -> None:
    """Somebody has kept a signed event and sends it again, or a clock is wrong: five minutes are borne."""
    heard = await tell(engine, event(101, notifyMs=int((time.time() + late) * 1000)))
    assert heard.status == status
    assert status == 200 or "clock" in heard.error["message"]


async def test_an_event_without_a_time_is_taken(engine: Caller) -> None:
    """Agora documents one, and its test of the address may have none."""
    assert (await tell(engine, b'{"eventType": 1}')).status == 200


async def test_a_body_that_cannot_be_right_is_not_even_read(engine: Caller) -> None:
    """Unsigned, or longer than any call's history: the answer comes before the body."""
    assert b"401 Unauthorized" in await promises(engine, 4_000_000)
    signed = {"agora-signature-v2": "0" * 64}
    assert b"413 " in await promises(engine, MAX_EVENT + 1, **signed)


async def test_a_long_event_is_taken(engine: Caller, told: tuple[App, queue.SimpleQueue[Event]]) -> None:
    """A history of a megabyte, which is hashed in a thread."""
    body = event(103, {"contents": [{"role": "user", "content": "word " * 200_000}]})
    assert (await tell(engine, body)).status == 200
    assert (await asyncio.to_thread(told[1].get, True, 5)).name == "agent_history"
    assert (await tell(engine, body, signature="0" * 64)).status == 401


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b"[]"])
async def test_what_is_signed_and_no_event_is_told_so(engine: Caller, body: bytes) -> None:
    """Another product's notifications lead here."""
    assert (await tell(engine, body)).status == 400


async def test_another_method_is_refused(engine: Caller) -> None:
    """Somebody opens it in a browser."""
    heard = await engine.hears(method="GET", path=PATH)
    assert (heard.status, heard.headers["allow"]) == (405, "POST")


# --- what is done with an event -----------------------------------------------------------------------------


async def test_an_event_that_is_sent_again_does_nothing(
    engine: Caller, told: tuple[App, queue.SimpleQueue[Event]]
) -> None:
    """Agora did not hear the answer; the time is new then, and the id is not."""
    for late in (0, 5):
        body = event(102, noticeId="n1", notifyMs=int((time.time() + late) * 1000))
        assert (await tell(engine, body)).status == 200
    assert (await tell(engine, event(101))).status == 200
    assert [(await asyncio.to_thread(told[1].get, True, 5)).kind for _ in range(2)] == [102, 101]
    assert told[1].empty() and (await count(engine))["events_total agent_left"] == 1


async def test_the_answer_does_not_wait_for_the_hook(serve: Serve, upstream: Upstream) -> None:
    """The hook writes to a database that hangs; the server's stop waits for it."""
    app = App(base_url=upstream.base_url, agora_webhook_secret=SECRET, warm=False)
    may_end, ended = threading.Event(), []

    @app.on_event
    def slow(event: Event) -> None:
        may_end.wait(10)
        ended.append(event.kind)

    served = serve(app)
    assert (await tell(Caller(served.url), event(101))).status == 200
    assert not ended
    threading.Timer(0.2, may_end.set).start()
    await asyncio.to_thread(served.stop)
    assert ended == [101]


async def test_a_hook_that_fails_is_told_in_the_log(
    serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Async as well; what it says may be what somebody said, and stays out of the log."""
    app = App(base_url=upstream.base_url, agora_webhook_secret=SECRET, warm=False)

    @app.on_event
    async def fails(event: Event) -> None:
        raise ValueError("a caller's words")

    served = serve(app)
    with caplog.at_level(logging.INFO, "firstword"):
        assert (await tell(Caller(served.url), event(110, {"module": "llm", "code": 500}))).status == 200
        await asyncio.to_thread(served.stop)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("mistake event=110 type=ValueError") for line in lines)
    assert not any("caller's words" in line for line in lines)


async def test_what_failed_is_told_in_the_log(engine: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """The engine could not reach this server, or did not like what it said: a warning with its own word for it."""
    with caplog.at_level(logging.WARNING, "firstword"):
        await tell(engine, event(110, {"module": "llm", "code": 502, "message": "what somebody said"}))
        await tell(engine, event(110, {"module": "a b\n=" + "x" * 1000, "code": ["x"], "agent_id": "forged id=1"}))
    assert [record.getMessage() for record in caplog.records] == [
        f"event kind=110 name=agent_error agent={AGENT} module=llm code=502",
        f"event kind=110 name=agent_error agent=forged?id?1 module=a?b??{'x' * 59}",
    ]


async def test_a_hook_that_will_never_hear_anything_is_told(
    serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """The secret was forgotten."""
    app = App(base_url=upstream.base_url, warm=False)
    app.on_event(lambda event: None)
    with caplog.at_level(logging.WARNING, "firstword"):
        await Caller(serve(app).url).hears(method="GET", path="/health")
    assert "set FIRSTWORD_AGORA_WEBHOOK_SECRET" in caplog.text


# --- joined to our turns --------------------------------------------------------------------------------------


async def test_the_engine_s_times_find_our_turn(
    engine: Caller, told: tuple[App, queue.SimpleQueue[Event]], caplog: pytest.LogCaptureFixture
) -> None:
    """Two turns of a call, then its end: the greeting is not ours, and both turns are, by channel and number."""
    _, heard = told
    with caplog.at_level(logging.INFO, "firstword"):
        for number in (2, 3):
            said = await engine.says(channel=CHANNEL, turn_id=number, script=ANSWER)
            assert said.text == "Hello there."
        await tell(engine, finished(a_turn(1, 300), a_turn(2, 1799, llm_ttft=281), a_turn(3, 900, llm_ttft=200)))
        await tell(engine, metrics({"turn_id": 2, "llm_ttfb": 270}))
    lines = [record.getMessage() for record in caplog.records]
    ours = [line.split()[2] for line in lines if line.startswith("turn ended")]
    found = [line for line in lines if line.startswith("turn heard")]
    assert [line.split()[2:5] for line in found] == [
        [ours[0], "number=2", "event=112"],
        [ours[1], "number=3", "event=112"],
        [ours[0], "number=2", "event=111"],
    ]
    assert found[0].endswith(" e2e=1.7990 llm_ttft=0.2810") and found[2].endswith(" llm_ttfb=0.2700")
    assert 0 < float(found[0].split("first_word=")[1].split()[0]) < 5

    turns = (await asyncio.to_thread(heard.get, True, 5)).turns
    assert [f"id={turn.id}" for turn in turns[1:]] == ours and turns[0].id is None
    counted = await count(engine)
    assert counted["heard_total here"] == 3 and counted["heard_total elsewhere"] == 1
    assert counted["engine_latency_seconds_count turns_finished e2e"] == 3
    assert counted["engine_latency_seconds_sum turns_finished e2e"] == pytest.approx(2.999)
    assert counted["engine_latency_seconds_bucket turns_finished 1.0 e2e"] == 2
    assert counted["engine_latency_seconds_bucket turns_finished +Inf e2e"] == 3
    assert counted["engine_latency_seconds_count agent_metrics llm_ttfb"] == 1


def a_webhook() -> Webhook:
    return Webhook(SECRET, hook=None, counts=Counts())


def answered(number: int | None, *, channel: str | None = None, **engine: Any) -> Turn:
    return Turn(request={"messages": []}, number=number, channel=channel, engine=engine)


async def ids(webhook: Webhook, numbers: list[int], **payload: Any) -> list[str | None]:
    """Return which of our turns an event's are, as its hook hears it."""
    found: asyncio.Queue[Event] = asyncio.Queue()
    webhook._hook = found.put
    body = event(111, {"metrics": [{"turn_id": number} for number in numbers], **payload})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": "POST", "headers": [(b"agora-signature-v2", sign(body).encode())]}
    await webhook.answer(scope, receive, send)
    assert sent[0]["status"] == 200
    return [turn.id for turn in (await found.get()).turns]


async def test_an_agent_s_id_is_better_than_a_channel() -> None:
    """A channel is used again, and each call begins with turn 1; what was told last counts."""
    webhook = a_webhook()
    one, two = answered(1, channel=CHANNEL, agent_id="one"), answered(1, channel=CHANNEL, agent_id="two")
    nameless = answered(2, channel=CHANNEL)
    for turn in (one, two, nameless, answered(None, channel=CHANNEL), answered(3)):
        webhook.note(turn)
    assert await ids(webhook, [1, 2, 3], agent_id="one") == [one.id, nameless.id, None]
    assert await ids(webhook, [1], agent_id="unheard-of") == [two.id]
    assert await ids(webhook, [1], agent_id=None, channel="other") == [None]


async def test_a_turn_that_was_sent_again_is_the_one_that_was_heard(
    engine: Caller, told: tuple[App, queue.SimpleQueue[Event]], upstream: Upstream, marker: str
) -> None:
    """The engine posts a turn twice, and reads the second reply: that one is meant."""
    slow = [script.head(200, script.EVENT_STREAM), script.wait(1.5), *ANSWER[1:]]
    first = asyncio.create_task(engine.says(user=marker, channel=CHANNEL, turn_id=2, script=slow))
    await upstream.wait_asked(marker, within=5)
    second = await engine.says("Hello", channel=CHANNEL, turn_id=2, script=ANSWER)
    await first
    await tell(engine, finished(a_turn(2)))
    (found,) = (await asyncio.to_thread(told[1].get, True, 5)).turns
    assert second.text == "Hello there." and found.id == second.headers["x-request-id"]


async def test_what_is_kept_is_bounded() -> None:
    """Calls whose end is never told, and events without end: the oldest go."""
    webhook = a_webhook()
    for number in range(MAX_KEPT + 10):
        webhook.note(answered(number, channel=CHANNEL))
    assert len(webhook._turns) == MAX_KEPT
    assert [id is None for id in await ids(webhook, [9, 10, MAX_KEPT + 9])] == [True, False, False]
    for number in range(MAX_NOTICES + 10):
        webhook._notices[str(number)] = None
    await ids(webhook, [1])
    assert len(webhook._notices) >= MAX_NOTICES  # filled by hand; one in, one out
    before = len(webhook._notices)
    await ids(webhook, [1])
    assert len(webhook._notices) == before
