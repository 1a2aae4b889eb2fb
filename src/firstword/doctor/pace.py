"""When the words come: the first one, the gaps between, what a proxy holds back, several calls at once.

Judgement of moments is pure; all are seconds on the monotonic clock.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from statistics import median

from .answers import judge_turn, no_reply, status_and_body
from .findings import Check, Fault, Finding, Level, ok, skipped
from .heard import Heard
from .patient import Patient
from .shapes import said

LONG_FACTOR = 4  # how much longer than others a long answer may take
SLOW = 1.5  # seconds to the first word, after which Agora's engine speaks a filler word of its own
GAP = 1.0  # seconds of silence within an answer that a caller takes for its end
EARLY = 0.3  # seconds between the headers and the first word
HELD = 0.5  # seconds of waiting, after which an answer that comes all at once was held back
SHARE_HELD = 0.1  # of that wait, in which all of it comes
FEWEST_PIECES = 16  # of an answer, to say how it comes
AT_ONE_MOMENT = 0.003  # seconds
CLUMP = 8  # pieces that come at one moment, on average
CALLS_AT_ONCE = 5
TOO_QUICK = 0.05  # seconds of a reply, below which calls cannot be told to wait for each other
NAMES = ("amber", "birch", "cobalt", "dune", "ember")

SLOW_FIRST_WORD = Fault(
    "slow-first-word",
    Level.WARNING,
    "The first word takes longer than 1.5 s.",
    "People notice 0.7 s and repeat themselves; at 1.5 s Agora's engine speaks a filler word, if it has any.",
    "Use a quicker model or region, turn reasoning off, shorten the prompt, keep connections to the model open.",
)
GAPS = Fault(
    "gaps",
    Level.WARNING,
    "There is a pause of more than 1 s within the answer.",
    "The voice stops in mid-sentence, and the caller begins to speak.",
    "See whether the model or something on the way pauses; ask another model when it does.",
)
HEADERS_EARLY = Fault(
    "headers-early",
    Level.ADVICE,
    "Status and headers come long before the first word.",
    "A failure of the model has no status of its own any more, and Pipecat's only retry, which waits for the "
    "headers, never happens.",
    "Hold the headers back until the first word.",
)
BUFFERED = Fault(
    "buffered",
    Level.WARNING,
    "The whole answer comes at once, after a long wait.",
    "Something gathers it: the caller waits for the last word before the first is spoken.",
    "Flush each event; turn off proxy_buffering in nginx, and middleware that gathers bodies.",
)
CLUMPS = Fault(
    "clumps",
    Level.WARNING,
    "Events come in clumps.",
    "A buffer on the way fills and empties: the first word waits for many others.",
    "Flush each event; turn off proxy_buffering and compression on the way.",
)
LONG_REFUSED = Fault(
    "refuses-long",
    Level.WARNING,
    "A turn that asks for a long answer is refused.",
    "The caller hears the failure message.",
    "Read what the server says.",
)
NOT_KEPT = Fault(
    "not-kept",
    Level.ADVICE,
    "The connection is closed behind a reply.",
    "Each turn pays for a new connection, with TLS three round trips.",
    "Keep connections alive for a minute or more.",
)
QUEUED = Fault(
    "queued",
    Level.WARNING,
    "Five calls at once are answered one after the other.",
    "With the second caller on the line, each waits for the other's whole answer.",
    "Do not block the event loop: use an async client, or threads, or more workers.",
)
FAILS_AT_ONCE = Fault(
    "fails-at-once",
    Level.ERROR,
    "Of five calls at once some fail.",
    "With several callers on the line, some hear silence.",
    "Look for a shared client, a limit of connections, or a lock, in the server's log.",
)
CROSSED = Fault(
    "crossed",
    Level.ERROR,
    "A caller's reply holds another caller's word.",
    "Conversations are mixed: callers hear what is not meant for them.",
    "Keep all of a turn in the turn: no globals, no shared history, no cache without the session in its key.",
)


def judge_moments(heard: Heard) -> list[Finding]:
    """Return what is wrong with when the words of a long answer came."""
    moments = [at for at, _ in heard.stream.words]
    if not moments or heard.headed is None:
        return []
    found = []
    wait, span = moments[0] - heard.sent, moments[-1] - moments[0]
    if wait > SLOW:
        found.append(SLOW_FIRST_WORD.seen(f"{wait:.2f} s"))
    if moments[0] - heard.headed > EARLY:
        found.append(HEADERS_EARLY.seen(f"{moments[0] - heard.headed:.2f} s before it"))
    gap = max((later - earlier for earlier, later in pairwise(moments)), default=0.0)
    if gap > GAP:
        found.append(GAPS.seen(f"{gap:.2f} s"))
    if len(moments) < FEWEST_PIECES:
        return found
    if wait > HELD and span < wait * SHARE_HELD:
        found.append(BUFFERED.seen(f"{len(moments)} pieces within {span:.2f} s, after {wait:.2f} s of silence"))
    groups = 1 + sum(later - earlier > AT_ONE_MOMENT for earlier, later in pairwise(moments))
    if span > HELD and len(moments) > groups * CLUMP:
        found.append(CLUMPS.seen(f"{len(moments)} pieces at {groups} moments"))
    return found


def told(heard: Heard) -> str:
    """Return in one line when the words of an answer came."""
    moments = [at for at, _ in heard.stream.words]
    if not moments or heard.headed is None:
        return "no words"
    gaps = [later - earlier for earlier, later in pairwise(moments)] or [0.0]
    return (
        f"headers after {heard.headed - heard.sent:.3f} s, first word after {moments[0] - heard.sent:.3f} s, "
        f"{len(moments)} pieces in {moments[-1] - moments[0]:.2f} s, "
        f"gaps p50 {median(gaps):.3f} s, max {max(gaps):.3f} s"
    )


def are_queued(calls: list[Heard]) -> bool | None:
    """True when each call's first word came behind the end of another's; None when they were too quick to tell."""
    spoken = sorted((at, heard.ended or at, heard) for heard in calls if (at := heard.stream.spoke_at) is not None)
    if len(spoken) < 2 or min(ended - at for at, ended, _ in spoken) < TOO_QUICK:
        return None
    return all(later[0] >= earlier[1] for earlier, later in pairwise(spoken))


def crossed(words: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return, of (own name, what was heard), the pairs of own and foreign name where a reply has only a foreign one."""
    return [
        (own, other)
        for own, heard in words
        for other in NAMES
        if other != own and other in heard.lower() and own not in heard.lower()
    ]


async def _long(patient: Patient) -> list[Finding]:
    body = patient.body(said("Count aloud from one to one hundred and fifty, in words, and leave out none."))
    heard = await patient.ask(body, timeout=patient.timeout * LONG_FACTOR)
    found = judge_turn(heard, body, LONG_REFUSED, secrets=patient.secrets)
    if heard.is_stream:
        found += judge_moments(heard)
    return found or [ok(told(heard))]


async def _again(patient: Patient) -> list[Finding]:
    async with patient.dial() as line:
        for turn in ("Hello", "Hello again"):
            await line.send(patient.body(said(turn)))
            heard = await line.hear(timeout=patient.timeout)
            if early := no_reply(heard):
                return [NOT_KEPT.seen(heard.trouble)] if turn != "Hello" and heard.status != 429 else early
            if not heard.is_whole or not heard.is_kept:
                return [NOT_KEPT.seen(f"connection: {heard.headers.get('connection', 'not said')}")]
    return [ok("a second turn on the same connection")]


async def _at_once(patient: Patient) -> list[Finding]:
    bodies = [
        patient.body(said(f"My code word is {name}. Say my code word and nothing else."), session_id=f"check-{name}")
        for name in NAMES[:CALLS_AT_ONCE]
    ]
    calls = await asyncio.gather(*(patient.ask(body) for body in bodies))
    found = []
    if any(heard.status == 429 for heard in calls):
        return [skipped("some were refused with 429: the server or its provider limits how often it is asked")]
    wrong = [heard for heard in calls if heard.status != 200 or heard.stream.spoke_at is None]
    if wrong:
        told = wrong[0].trouble or status_and_body(wrong[0], patient.secrets)
        found.append(FAILS_AT_ONCE.seen(f"{len(wrong)} of {len(calls)}; {told}"))
    mixed = crossed([(name, heard.stream.text) for name, heard in zip(NAMES, calls, strict=True)])
    if mixed:
        found.append(CROSSED.seen(f"who said {mixed[0][0]} heard {mixed[0][1]}"))
    queued = are_queued(list(calls))
    if queued:
        found.append(QUEUED.seen())
    return found or [ok("all at once" if queued is False else "all answered, too quickly to see whether one waits")]


CHECKS = (
    Check(
        "pace",
        "a long answer: its first word, its gaps, its end",
        _long,
        (SLOW_FIRST_WORD, GAPS, HEADERS_EARLY, BUFFERED, CLUMPS, LONG_REFUSED),
        is_alone=True,
    ),
    Check("keep-alive", "two turns on one connection", _again, (NOT_KEPT,), requests=2),
    Check(
        "at-once",
        "five calls at once, each with a word of its own",
        _at_once,
        (QUEUED, FAILS_AT_ONCE, CROSSED),
        requests=CALLS_AT_ONCE,
        is_alone=True,
    ),
)
