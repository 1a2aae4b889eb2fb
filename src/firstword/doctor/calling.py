"""What callers do to a server: hang up in mid-answer, leave by the dozen, send a turn again, and come back."""

from __future__ import annotations

import asyncio

from .answers import RATE_LIMITED, judge_turn, no_reply, status_and_body
from .findings import Check, Fault, Finding, Level, ok, skipped
from .heard import Heard
from .patient import Patient
from .shapes import SYSTEM, said

ABANDONED = 20
AT_ONCE = 5
LEAVE_AFTER = 2.0  # seconds for a first byte, after which an abandoned call is hung up all the same
SLOWER = 3.0  # times as long as before, and
MARGIN = 1.0  # seconds on top: a first word that is later than that is late because of those who left
GROWN = 20  # tokens by which the same prompt may differ
DOUBLED = 1.6  # times the tokens of the history, and
ROLES = 60  # tokens for the roles of its messages

HANGUP_HURTS = Fault(
    "hangup-hurts",
    Level.ERROR,
    "After a caller has hung up in mid-answer, the next turn fails.",
    "Each interruption is such a hang-up: the caller interrupts and then hears nothing.",
    "Catch the disconnect, close the request to the model, and keep nothing locked.",
)
ABANDONED_BLOCK = Fault(
    "abandoned-block",
    Level.ERROR,
    "After twenty calls that were hung up, the next one fails or waits.",
    "Answers go on although nobody listens, and hold connections, threads, and money.",
    "End the request to the model when the caller's connection closes.",
)
RESENT_FAILS = Fault(
    "resent-fails",
    Level.ERROR,
    "The same turn, sent twice at the same time, fails.",
    "LiveKit, ElevenLabs and Tavus send a turn before the caller has ended it, and SDKs send it again.",
    "Answer both, or the later one; the earlier one may then be told 409, or just end.",
)
SIX_HURT = Fault(
    "resent-hurts",
    Level.ERROR,
    "After a turn that was sent six times, each hung up at once, the next one fails.",
    "Vapi was seen to do just that.",
    "Catch the disconnect before the model has answered as well.",
)
DOUBLED_HISTORY = Fault(
    "history-doubled",
    Level.ERROR,
    "The model is sent the history twice.",
    "The engine sends the whole conversation with each turn; a memory of the server's own comes on top. "
    "The model gets confused, and you pay twice.",
    "Send the model the messages of the request, and nothing that you kept of them.",
)
REMEMBERS = Fault(
    "remembers-strangers",
    Level.ERROR,
    "The same first words cost more tokens the second time: the server adds what others have said.",
    "Callers without a session of their own share one memory: one hears of another.",
    "Keep a memory by session only, and none for a call without one.",
)
HISTORY = " ".join(["We talked about the harbour, the old lighthouse and the boats that come in at noon."] * 4)


async def _is_answered(patient: Patient, words: str = "Hello") -> tuple[Heard, bool]:
    heard = await patient.ask(patient.body(said(words)))
    return heard, heard.status == 429 or (heard.is_stream and heard.stream.spoke_at is not None)


def _wrong(heard: Heard, patient: Patient) -> str:
    return heard.trouble or status_and_body(heard, patient.secrets)


def has_begun(heard: Heard) -> bool:
    """True once something of the body is there."""
    return bool(heard.reads)


async def _leave(patient: Patient, words: str, *, at_once: bool = False) -> Heard:
    """Call, and hang up at the first bytes of the answer, or at once."""
    async with patient.dial() as line:
        await line.send(patient.body(said(words)))
        return line.heard if at_once else await line.hear(until=has_begun, timeout=LEAVE_AFTER)


async def _hang_up(patient: Patient) -> list[Finding]:
    await _leave(patient, "Tell me a long story about the sea.")
    cut = {"interrupted": True, "interrupt_timestamp": 1767000012500, "original": "Once upon a time there was a boat."}
    body = patient.body(
        SYSTEM,
        said("Tell me a long story about the sea.", turn_id=1),
        said("Once upon", "assistant", turn_id=1, metadata={"source": "llm", **cut}),
        said("Stop. What time is it?", turn_id=2),
    )
    heard = await patient.ask(body)
    found = judge_turn(heard, body, HANGUP_HURTS, secrets=patient.secrets)
    if any(finding.level is Level.ERROR for finding in found) and heard.status != 200:
        return [HANGUP_HURTS.seen(_wrong(heard, patient))]
    return found or [ok("the next turn is answered; whether the model was stopped cannot be seen from here")]


def judge_after(before: Heard, after: Heard) -> str:
    """Return why a turn after many hang-ups is late; empty when it is not."""
    first, second = before.stream.spoke_at, after.stream.spoke_at
    if first is None or second is None:
        return ""
    usual, now = first - before.sent, second - after.sent
    return f"first word after {now:.2f} s, before it was {usual:.2f} s" if now > usual * SLOWER + MARGIN else ""


async def _abandon(patient: Patient) -> list[Finding]:
    before, is_answered = await _is_answered(patient)
    if not is_answered or before.status == 429:
        return no_reply(before) or [skipped("a turn before it was not answered")]
    for _ in range(ABANDONED // AT_ONCE):
        await asyncio.gather(*(_leave(patient, "Tell me a long story.") for _ in range(AT_ONCE)))
    after, is_answered = await _is_answered(patient)
    if not is_answered:
        return [ABANDONED_BLOCK.seen(_wrong(after, patient))]
    late = judge_after(before, after)
    return [ABANDONED_BLOCK.seen(late)] if late else [ok(f"{ABANDONED} calls hung up, the next is answered")]


async def _resend(patient: Patient) -> list[Finding]:
    body = patient.body(said("What is two and two?"), session_id="check-resent", turn_id=1)
    calls = await asyncio.gather(patient.ask(body), patient.ask(body))
    if any(heard.status == 429 for heard in calls):
        return [skipped(RATE_LIMITED)]
    failed = [heard for heard in calls if not heard.is_stream or heard.stream.spoke_at is None]
    wrong = [heard for heard in failed if not _stands_back(heard)] or failed[1:]
    if wrong:
        return [RESENT_FAILS.seen(_wrong(wrong[0], patient))]
    return [ok("the later one is answered, and the earlier stands back" if failed else "both are answered")]


def _stands_back(heard: Heard) -> bool:
    """True for a reply that says that another one is answered in its place, or that ends without a word or an error."""
    return heard.status == 409 or (heard.is_stream and heard.stream.done_at is not None and bool(heard.stream.reasons))


async def _six(patient: Patient) -> list[Finding]:
    for _ in range(6):
        await _leave(patient, "What is two and two?", at_once=True)
    heard, is_answered = await _is_answered(patient, "What is two and two?")
    return [ok("the seventh is answered")] if is_answered else [SIX_HURT.seen(_wrong(heard, patient))]


def judge_counts(alone: int, in_one: int, as_history: int, again: int) -> list[Finding]:
    """Return what four counts of prompt tokens say.

    alone: of one short message; in_one: of the same with the words of a history in it; as_history: of the message with
    the same history before it, as messages; again: of the short message once more.
    """
    found = []
    if as_history - alone > (in_one - alone) * DOUBLED + ROLES:
        found.append(DOUBLED_HISTORY.seen(f"{in_one - alone} tokens of history came to {as_history - alone}"))
    if again - alone > GROWN:
        found.append(REMEMBERS.seen(f"{alone} tokens, then {again}"))
    return found


async def _history(patient: Patient) -> list[Finding]:
    past = [message for _ in range(3) for message in (said(HISTORY), said(HISTORY, "assistant"))]
    counts = []
    for messages in (
        [said("Hello")],
        [said(" ".join([HISTORY] * 6) + " Hello")],
        [*past, said("Hello")],
        [said("Hello")],
    ):
        heard = await patient.ask(patient.body(*messages, stream_options={"include_usage": True}))
        tokens = (heard.stream.usage or {}).get("prompt_tokens")
        if not isinstance(tokens, int):
            return no_reply(heard) or [skipped("the server does not tell how many tokens the prompt has")]
        counts.append(tokens)
    return judge_counts(*counts) or [ok(f"prompts of {counts[0]}, {counts[1]}, {counts[2]} and {counts[3]} tokens")]


CHECKS = (
    Check(
        "hang-up",
        "a caller who interrupts, and the next turn",
        _hang_up,
        (HANGUP_HURTS,),
        requests=2,
        is_quick=True,
        is_alone=True,
    ),
    Check(
        "abandoned",
        "twenty calls that are hung up, five at a time, and one more",
        _abandon,
        (ABANDONED_BLOCK,),
        requests=ABANDONED + 2,
        is_alone=True,
    ),
    Check("resent", "the same turn twice at once", _resend, (RESENT_FAILS,), requests=2),
    Check(
        "six",
        "a turn sent six times, each hung up at once, and a seventh",
        _six,
        (SIX_HURT,),
        requests=7,
        is_alone=True,
    ),
    Check(
        "history",
        "whether the history is doubled, or shared between callers; told by the count of tokens",
        _history,
        (DOUBLED_HISTORY, REMEMBERS),
        requests=4,
        is_alone=True,
    ),
)
