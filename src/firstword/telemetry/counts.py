"""Count what became of turns: a few additions when one is over, off the caller's path.

No label holds what a caller said or is. Times are those of the turn's timeline.
"""

from __future__ import annotations

from typing import Any

from ..errors import Error, UpstreamError, UpstreamStatusError
from ..events import Event
from ..turn import Timeline, Turn
from ..used import tokens_in
from .tally import MAX_NAME, MAX_SPREADS, Reading, Spread, Tally, name_of, note_in

LEFT = "left"  # what became of a request that we ended: nobody waited any more, or another model had spoken
# Where a provider's count of tokens says what. Source: https://platform.openai.com/docs/api-reference/chat/object
KINDS = (("input", ("prompt_tokens",)), ("output", ("completion_tokens",)))
PARTS = (
    ("cached", ("prompt_tokens_details", "cached_tokens")),
    ("reasoning", ("completion_tokens_details", "reasoning_tokens")),
)


class Heard:
    """The times of one platform's replies, at hand: each turn notes in all of them."""

    __slots__ = ("answer", "byte", "first", "sentence", "turn", "words")

    def __init__(self, tally: Tally, platform: str) -> None:
        labels = (name_of(platform),)
        self.byte: Spread = tally.spread("first_byte_seconds", labels)
        self.words: Spread = tally.spread("first_heard_seconds", labels)
        self.answer: Spread = tally.spread("first_answer_seconds", labels)
        self.first = (self.byte, self.words, self.answer)
        self.sentence: Spread = tally.spread("first_sentence_seconds", labels)
        self.turn: Spread = tally.spread("turn_seconds", labels)

    def note(self, timeline: Timeline) -> None:
        """Note the times of a reply that left as it came."""
        received, sent = timeline.received, timeline.sent
        if sent is not None and sent == timeline.heard == timeline.replied:  # the answer's own words began the reply
            note_in(self.first, sent - received)
        else:
            for spread, at in zip(self.first, (sent, timeline.heard, timeline.replied), strict=True):
                if at is not None:
                    spread.note(at - received)
        if timeline.sentence is not None:
            self.sentence.note(timeline.sentence - received)


class Counts(Tally):
    """What this process has counted since it began. `readings` are what others count, and what is true only now."""

    def __init__(self) -> None:
        super().__init__()
        self.in_progress = 0
        self.readings: list[Reading] = []
        self._heard: dict[str, Heard] = {}  # by platform
        self._spoken: dict[str, tuple[Spread, Spread]] = {}  # by model
        self._before = self.spread("overhead_seconds", ("before",))
        self._after = self.spread("overhead_seconds", ("after",))

    def now(self) -> Tally:
        """Return all of it at this moment, with what others count."""
        tally = Tally()
        tally.merge(self.snapshot())
        tally.take({"turns_in_progress": {(): self.in_progress}})
        for reading in self.readings:
            tally.take(reading())
        return tally

    def begin(self) -> None:
        """Count a turn that begins; each one ends with `note`."""
        self.in_progress += 1

    def note(self, turn: Turn, outcome: str) -> None:
        """Count a turn that is over."""
        self.in_progress -= 1
        turns, labels = self.counters["turns"], (turn.platform, outcome)
        if labels in turns:
            turns[labels] += 1
        else:
            self.add("turns", (name_of(turn.platform), name_of(outcome)))
        if turn.again:
            self.add("again", (turn.again,))
            if turn.is_repeat:
                return  # what else is to be counted belongs to the turn whose reply it heard
        self._note_times(turn)
        if outcome == "hung_up":
            self._note_hang_up(turn)
        if not turn.is_plain:
            self._note_more(turn)

    def note_refusal(self, error: Error) -> None:
        """Count a request that was refused before it was a turn."""
        self.add("refused", (name_of(error.code or error.type),))

    def note_request(self, model: str, status: str) -> None:
        """Count a request to a model that is over, by what became of it."""
        labels = (model, status)
        requests = self.counters["upstream_requests"]
        if labels in requests:
            requests[labels] += 1
        else:
            self.add("upstream_requests", (name_of(model), status))

    def note_tokens(self, model: str, usage: Any) -> None:
        """Count the tokens of an answer, as its server has counted them."""
        for kind, tokens in tokens_of(usage):
            self.add("tokens", (name_of(model), kind), tokens)

    def note_event(self, event: Event) -> None:
        """Count an event of an engine's, and the times in it."""
        name = name_of(event.name)
        self.add("events", (name,))
        for turn in event.turns:
            self.add("heard", ("elsewhere" if turn.id is None else "here",))
            for part, seconds in turn.latencies.items():
                self.spread("engine_latency_seconds", (name, name_of(part))).note(seconds)

    def _note_times(self, turn: Turn) -> None:
        timeline = turn.timeline
        heard = self._heard.get(turn.platform) or self._heard_on(turn.platform)
        if turn.stream:
            heard.note(timeline)
        if timeline.ended is not None:
            heard.turn.note(timeline.ended - timeline.received)
        if timeline.asked is None:
            return
        asked = turn.attempts[0].asked if turn.attempts else timeline.asked
        self._before.note(asked - timeline.received)
        if timeline.spoke is None or turn.called:
            return  # between the first question and the first word were tools, and perhaps other questions
        model = (turn.attempts and turn.answered_by) or turn.model
        token, gap = self._spoken.get(model) or self._spoken_by(model)
        token.note(timeline.spoke - timeline.asked)
        if turn.longest_gap is not None:
            gap.note(turn.longest_gap)
        if timeline.replied is not None and turn.aloud is None:
            self._after.note(timeline.replied - timeline.spoke)

    def _heard_on(self, platform: str) -> Heard:
        """Return the times of a platform's replies; a platform of a plugin's may have any name."""
        made = Heard(self, platform)
        if len(self._heard) < MAX_SPREADS:
            self._heard[platform] = made
        return made

    def _spoken_by(self, model: str) -> tuple[Spread, Spread]:
        """Return the times of a model: to its first token, and the longest gap."""
        labels = (name_of(model),)
        made = (self.spread("first_token_seconds", labels), self.spread("longest_gap_seconds", labels))
        if len(self._spoken) < MAX_SPREADS and len(model) <= MAX_NAME:
            self._spoken[model] = made
        return made

    def _note_hang_up(self, turn: Turn) -> None:
        timeline = turn.timeline
        if timeline.left is not None and timeline.ended is not None:  # some servers tell it by a write that fails
            self.spread("cancel_seconds").note(timeline.ended - timeline.left)
        if timeline.heard is not None:
            self.add("barge_ins", (name_of(turn.platform),))

    def _note_more(self, turn: Turn) -> None:
        """Count what a plain turn has not."""
        for name, count in (
            ("fillers", turn.filled),
            ("apologies", turn.apologised),
            ("truncated", turn.reply.truncated),
            ("stalls", turn.stalls),
        ):
            if count:
                self.add(name, (), count)
        for each in turn.called:
            tool = "" if each.outcome == "unknown" else name_of(each.name)  # else it is the model's own words
            self.add("tool_calls", (tool, each.outcome))
            self.spread("tool_seconds", (tool,)).note(each.seconds)
        for attempt in turn.attempts:
            model = name_of(attempt.model)
            self.add("attempts", (model, attempt.why, attempt.outcome))
            if attempt.spoke is None and attempt.chunks:
                self.add("unheard", (model, "chunks"), attempt.chunks)
            tokens = tokens_in(attempt.usage, "total_tokens")
            if tokens:
                self.add("unheard", (model, "tokens"), tokens)


def status_of(error: UpstreamError) -> str:
    """Return what became of a request that failed: the status that was sent, else a word."""
    return str(error.status) if isinstance(error, UpstreamStatusError) else str(error.code).removeprefix("upstream_")


def tokens_of(usage: Any) -> list[tuple[str, int]]:
    """Return how many tokens of each kind a provider has counted: "cached" is a part of "input", and so on."""
    found = []
    for kind, path in (*KINDS, *PARTS):
        tokens = tokens_in(usage, *path)
        if tokens:
            found.append((kind, tokens))
    return found
