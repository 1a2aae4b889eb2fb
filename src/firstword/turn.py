"""The whole abstraction on one page: a turn, and how stages are put around the model that answers it.

A turn is one coroutine call, `handler(turn, send)`. A stage is a function around the rest of the turn;
it may act before, after, and, by passing on a `send` of its own, on every chunk between. So `try/finally`,
timeouts and cancellation mean what they always mean, and a caller who hangs up cancels one task.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import clock
from .action import Action, Deed
from .admission.grant import NOBODY, Grant
from .chunk import Chunk
from .errors import ActionError, Error
from .message import Message, words
from .policy import Policy
from .trace import Trace
from .used import Used

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(slots=True)
class Timeline:
    """When each thing happened, in seconds on the monotonic clock; None when it did not."""

    received: float = field(default_factory=lambda: clock.now())  # the request's head was read
    admitted: float | None = None  # the key was accepted
    prepared: float | None = None  # the body was read and understood
    asked: float | None = None  # the request left for the model
    answered: float | None = None  # the model's head came back
    spoke: float | None = None  # the first chunk that speaks came from the model
    sent: float | None = None  # the first byte left for the caller
    heard: float | None = None  # the first words left for the caller, a filler or an apology included
    replied: float | None = None  # the first words of the answer left
    sentence: float | None = None  # a whole sentence of the answer had left: what a voice can begin with
    ended: float | None = None  # the turn was over, however it ended
    left: float | None = None  # the caller hung up


@dataclass(slots=True)
class Attempt:
    """One request to a model, where a turn may cost several, and what became of it. Times are monotonic seconds.

    why: "first", "hedge" (the one before was silent), "failover" (it had failed) or "retry" (nobody else was left).
    outcome: "answered" (it spoke, and had the turn), "cut" (it spoke, and failed then), "failed", "lost" (another one
        spoke first) or "left" (nobody waited any more); empty while it runs.
    error: the code of what it failed with; empty when it did not.
    chunks: how many came before it spoke or ended, most of them reasoning: about the tokens that it may cost.
    usage: the tokens that its server has counted, if it said so before it was cancelled; a reply has its own.
    """

    model: str
    why: str
    asked: float
    spoke: float | None = None
    ended: float | None = None
    outcome: str = ""
    error: str = ""
    chunks: int = 0
    usage: dict[str, Any] | None = None


def _new_id() -> str:
    return f"chatcmpl-{os.urandom(16).hex()}"


async def nothing() -> None:
    """A turn that nobody writes has nothing to flush."""


@dataclass(slots=True)
class Reply:
    """What the caller was sent, filled in as the turn ends.

    `truncated` says that the model began to speak and was cut off: words are missing, whatever was said instead.
    """

    chunks: list[Chunk] = field(default_factory=list)
    truncated: bool = False
    last: Chunk | None = None  # the model's last one, also when the chunks are not kept

    @property
    def text(self) -> str:
        """All the words; of sound, what was said in it."""
        return "".join(chunk.text or chunk.transcript for chunk in self.chunks)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped; None when it was cut off."""
        if self.truncated:
            return None
        return next((chunk.finish_reason for chunk in self._backwards() if chunk.finish_reason), None)

    @property
    def usage(self) -> dict[str, Any] | None:
        """The provider's own count of tokens, when it sent one."""
        return next((chunk.data["usage"] for chunk in self._backwards() if chunk.look().usage), None)

    def _backwards(self) -> list[Chunk]:
        return [*([] if self.last is None else [self.last]), *reversed(self.chunks)]


@dataclass(frozen=True, slots=True)
class Called:
    """One call of a tool, and what came of it. `arguments` and `result` are what was said to and fro, as text.

    outcome: "answered"; "refused", with a reason; "failed", by a mistake; "timed_out"; "continues", for a tool that
    commits and was not done in time; "unknown", when nobody has such a tool. seconds: how long it was waited for.
    """

    name: str
    arguments: str
    result: str
    outcome: str
    seconds: float
    began: float = 0.0  # when, in monotonic seconds
    span: str = ""  # its own in the turn's trace


@dataclass(frozen=True, slots=True)
class Aloud:
    """How the words of a turn leave as sound of ours.

    voice: the one that the engine names, if it does. format: of a reply in one piece, `wav` or `pcm16`.
    text: what is said as it is, and no model is asked; None as a rule.
    """

    voice: str | None = None
    format: str = "wav"
    text: str | None = None


_POLICY = Policy()


@dataclass(slots=True, eq=False)
class Turn:
    """One request of a voice engine and our reply to it.

    `request` is the body that goes to the model: change it, or `messages`, before the model is asked.
    `engine` holds what only the voice engine understands (turn_id, timestamp, ...); it never goes to the model.
    `interruptable` and `voice` tell Agora's engine with the first words whether the caller may cut this reply off, and
    how it is spoken (`tts_params`): set them before. An engine that cannot be told is not.
    """

    request: dict[str, Any]
    stream: bool = True
    key: str | None = field(default=None, repr=False)  # the caller's own for the provider; None: the server holds one
    grant: Grant = NOBODY  # what the gate lets this caller do
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # names in lower case
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: str = "/chat/completions"
    engine: Mapping[str, Any] = field(default_factory=dict)
    session: str | None = None  # who is on the line, as the engine says; None = unknown, so nothing is shared
    user: str | None = None
    channel: str | None = None
    number: int | None = None  # the engine's turn_id
    platform: str = "openai"  # whose dialect this is; "openai" for a client that is no voice engine
    source: str | None = None  # where the last message came from, as the engine says: "asr", "silence", "command" ...
    speakers: tuple[str, ...] = ()  # the voices that were recognised in it
    presence: Mapping[str, Any] = field(default_factory=dict)  # what each participant has shared, by uid
    past: Callable[[], list[Message]] | None = field(default=None, repr=False)  # makes `history`, where there is more
    interruptable: bool | None = None  # False: the caller cannot cut this reply off
    voice: dict[str, Any] | None = None  # how this reply is spoken, as the engine's tts_params
    echo: Mapping[str, Any] = field(default_factory=dict)  # root fields that the engine wants back in every chunk
    id: str = field(default_factory=_new_id)
    timeline: Timeline = field(default_factory=Timeline)
    reply: Reply = field(default_factory=Reply)
    error: Error | None = None  # how the turn failed, once it has
    corked: bool = False  # more chunks follow at once: they may leave in one write with these
    flush: Callable[[], Awaitable[None]] = field(default=nothing, repr=False)  # write what was corked, now
    state: dict[str, Any] = field(default_factory=dict)  # for your own stages and hooks
    policy: Policy = _POLICY  # what is done against silence; change it by `adjust`
    shape: str | None = None  # how its words are made fit to be spoken; None = as the App says
    silent: bool = False  # an answer without a word is meant: no other model is asked, nothing is said instead
    is_audio: bool = False  # it came to /audio/chat/completions
    aloud: Aloud | None = None  # its words leave as sound of ours; None: as they are
    filled: bool = False  # a filler was said
    apologised: bool = False  # the apology was said
    is_calling: bool = False  # the model was cut off within a call of a tool, of which half was passed on
    asked: list[str] = field(default_factory=list)  # the models that were asked, a name for each request
    attempts: list[Attempt] = field(default_factory=list)  # all requests, when there could be more than one
    trace: Trace | None = None  # its place in a trace, when there is one
    used: list[Used] | None = None  # the tokens of each request to a model; None: nobody counts them
    cost: Decimal | None = None  # what they cost when the turn is over, by the operator's prices; None without them
    stalls: int = 0  # times that the engine got no whole sentence for stall_timeout, although words came
    longest_gap: float | None = None  # seconds: the longest silence of the model between two of its words
    again: str = ""  # when it was sent again: "superseded", or "joined" or "replayed" (`is_repeat`)
    called: list[Called] = field(default_factory=list)  # the tools that ran here, in the order of their results
    adjusted: list[Callable[[], None]] = field(default_factory=list, repr=False)  # who must know of an adjustment
    parted: list[Callable[[], None]] = field(default_factory=list, repr=False)  # who must know that an answer is over
    action: Action | None = None  # what the engine is to do when the reply has ended
    deed: Deed | None = None  # how it is told to
    judge: Callable[[Turn, Action], Deed] | None = field(default=None, repr=False)  # says how; None when it is too late
    lingers: bool = False  # a tool that commits was left behind: what it asks for comes too late, and is no mistake

    def adjust(self, **changes: Any) -> None:
        """Change the policy of this turn: `turn.adjust(fillers=[], hedge_after=None)`. Raises ConfigError.

        It counts for what has not begun: in a before_turn hook, for all of it.
        """
        self.policy = replace(self.policy, **changes)
        for call in self.adjusted:
            call()

    def end_call(self, *, say: str | None = None) -> None:
        """Have the engine hang up when this reply has ended; `say` is heard before that.

        What is asked for last counts. Raises ActionError when this engine cannot, or it is too late.
        """
        self.act(Action(say=say))

    def transfer(self, to: str, *, say: str | None = None) -> None:
        """Have the engine transfer the call when this reply has ended; `say` is heard before that.

        to: a phone number (+15551234567), a SIP address (sip:desk@example.com), or an agent as the engine names it.
        What is asked for last counts. Raises ActionError when this engine cannot, or it is too late.
        """
        if to is None:
            raise ActionError("There is no destination to transfer the call to.", hint="give a number or an address")
        self.act(Action(to, say))

    def act(self, action: Action) -> None:
        """Ask for an action. Raises ActionError when this engine cannot do it, or it is too late."""
        if self.judge is not None:
            self.deed = self.judge(self, action)
        elif not self.lingers:
            raise ActionError(
                "It is too late to end or transfer the call: the reply has its ending.",
                hint="ask in a before_turn hook, a stage, a tool or a model function",
            )
        self.action = action

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as the model will see it."""
        messages: list[dict[str, Any]] = self.request["messages"]
        return messages

    @messages.setter
    def messages(self, messages: list[dict[str, Any]]) -> None:
        self.request["messages"] = messages

    @property
    def history(self) -> list[Message]:
        """The messages as they came, with what the engine tells of each: what was heard, who spoke, and when."""
        if self.past is not None:
            return self.past()
        return [Message(each, each.get("role") or "", words(each.get("content"))) for each in self.messages]

    @property
    def model(self) -> str:
        """The model that the request names; empty when it names none."""
        return self.request.get("model") or ""

    @model.setter
    def model(self, name: str) -> None:
        self.request["model"] = name

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **named: Any) -> Chunk:
        """Return a chunk of this reply in the strict form; `named` is its id, created or model, if not the usual."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        usual = {"id": self.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": self.model}
        return Chunk({**usual, **self.echo, **named, "choices": [choice]})

    def hears(self, chunk: Chunk) -> None:
        """Note when the model first spoke."""
        if self.timeline.spoke is None and chunk.speaks:
            self.timeline.spoke = clock.now()

    @property
    def is_plain(self) -> bool:
        """True when the caller heard one model, as it spoke, and nobody and nothing else was asked, or failed."""
        return not (
            self.attempts or self.filled or self.called or self.stalls or self.aloud or self.error or self.again
        )

    @property
    def is_repeat(self) -> bool:
        """True when the turn was sent again, and hears the reply to another request: nobody was asked for it."""
        return self.again in ("joined", "replayed")

    @property
    def wants_json(self) -> bool:
        """True when a program reads the reply, not a person: words of ours would break it."""
        wanted = self.request.get("response_format")
        return isinstance(wanted, dict) and str(wanted.get("type")).startswith("json")

    @property
    def wants_audio(self) -> bool:
        """True when the model's own voice is played: words of ours would not be heard."""
        modalities = self.request.get("modalities")
        return isinstance(modalities, list) and "audio" in modalities

    @property
    def answered_by(self) -> str | None:
        """The model that spoke, when there could be several; None when none has."""
        return next((attempt.model for attempt in self.attempts if attempt.spoke is not None), None)

    @property
    def asked_at(self) -> float | None:
        """When the model that speaks was asked; until one does, when the first was; None when nobody was."""
        return self.attempts[0].asked if self.timeline.asked is None and self.attempts else self.timeline.asked

    @property
    def text(self) -> str:
        """The last words of the caller; empty when there are none."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return words(message.get("content"))
        return ""


Send = Callable[[Chunk], Awaitable[None]]
CallNext = Callable[[Turn, Send], Awaitable[None]]
Stage = Callable[[Turn, Send, CallNext], Awaitable[None]]


def foreign(stage: Stage) -> Stage:
    """Wrap a stage that may take its time after the rest of the turn: the last words do not wait for it."""

    async def call(turn: Turn, send: Send, call_next: CallNext) -> None:
        async def rest(turn: Turn, send: Send) -> None:
            await call_next(turn, send)
            await turn.flush()

        await stage(turn, send, rest)

    return call


class Seen:
    """A `send` on whose way `see` looks at each chunk, and says which one goes on in its place; None keeps it back.

    As that never waits, `at_once` is kept.
    """

    def __init__(self, turn: Turn, see: Callable[[Chunk], Chunk | None], send: Send) -> None:
        self._turn = turn
        self._see = see
        self._send = send
        self._at_once: Callable[[Chunk], bool] | None = getattr(send, "at_once", None)
        self._is_corked = False  # what was sent last waits for what comes next

    async def __call__(self, chunk: Chunk) -> None:
        """Send what `see` makes of a chunk."""
        seen = self._see(chunk)
        if seen is not None:
            await self._send(seen)

    @property
    def at_once(self) -> Callable[[Chunk], bool] | None:
        """What sends without waiting; None when that cannot be."""
        return None if self._at_once is None else self._see_at_once

    def _see_at_once(self, chunk: Chunk) -> bool:
        assert self._at_once is not None
        seen = self._see(chunk)
        if seen is None:
            # What waits for this chunk must not wait any longer: False has it flushed.
            was_corked, self._is_corked = self._is_corked, False
            return not was_corked
        self._is_corked = self._turn.corked
        return self._at_once(seen)


def compose(stages: Sequence[Stage], model: CallNext) -> CallNext:
    """Nest `stages` around `model`, first outermost."""
    for stage in reversed(stages):
        model = _around(stage, model)
    return model


def _around(stage: Stage, call_next: CallNext) -> CallNext:
    async def call(turn: Turn, send: Send) -> None:
        await stage(turn, send, call_next)

    return call
