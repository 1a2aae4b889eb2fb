"""Run the tools that a model calls, and ask it again with their results: the stage next to the model.

What the model says goes on as it comes; what it calls of ours never reaches the engine. What it calls of the engine's
leaves with the last answer, in the strict form. Over all rounds it is one reply: one id, one role, one ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import calls
from ..calls import Call
from ..errors import UpstreamSilent
from ..platforms import of
from ..stages.fill import suits
from ..tools import Tool
from ..turn import CallNext, Seen, Send, Stage, Turn
from .answer import Answer, Spoken
from .jobs import Jobs
from .toolbox import Toolbox, definition, name_of
from .use import Limits, Uses

HANDED_ON = "Handed on to the voice engine, which does it after this reply. Do not call it again."

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """What an App offers to every turn. `strict`: whoever may be asked knows the strict mode of schemas."""

    toolbox: Toolbox
    jobs: Jobs
    limits: Limits
    strict: bool = False


def call_tools(offer: Offer) -> Stage:
    """Return the stage. Raises what the model raises, and UpstreamSilent when a tool's filler is all that was said."""

    async def call(turn: Turn, send: Send, call_next: CallNext) -> None:
        request = turn.request
        tools = offer.toolbox.now()
        is_forbidden = "none" in (request.get("tool_choice"), request.get("function_call"))
        if is_forbidden or not (tools or request.get("tools")):
            await call_next(turn, send)
        else:
            await _Rounds(turn, send, call_next, offer, tools).run()

    return call


class _Rounds:
    """One turn: an answer, the tools that it calls, the next answer."""

    def __init__(self, turn: Turn, send: Send, call_next: CallNext, offer: Offer, tools: Mapping[str, Tool]) -> None:
        self._turn = turn
        self._call_next = call_next
        self._offer = offer
        self._tools = tools
        self._spoken = Spoken(turn, send)
        self._uses = Uses(turn, tools, offer.jobs, offer.limits)
        self._messages = _with_late(turn.messages, self._uses.late())
        self._engines: list[Any] = []  # the engine's definitions, as they came
        for each in turn.request.get("tools") or ():
            name = name_of(each)
            if name is not None and name in tools:
                offer.toolbox.warn(name, "the engine has one too, ours is used")
            else:
                self._engines.append(each)
        older = turn.request.get("functions")
        self._names = {name_of(each) for each in self._engines}  # what the engine does itself
        self._names |= {name_of({"function": each}) for each in (older if isinstance(older, list) else ())}
        self._pending: list[Call] = []  # calls for the engine
        self._said: set[str] = set()  # tools whose fillers were said

    async def run(self) -> None:
        """Answer the turn."""
        most = self._offer.limits.rounds
        for number in range(most + 1):
            filled = self._turn.filled
            answer = Answer(self._spoken, ends=not self._pending)
            await self._ask(answer, number)
            called = answer.calls.whole()
            before = tuple(self._pending)
            ours = [call for call in called if not self._hand_on(call, before)]
            if not ours or number == most:
                break
            self._spoken.add(answer)
            if not self._spoken.has_words:
                self._turn.timeline.spoke = None  # the call was no word
            self._turn.corked = False  # what ended the answer stays here: nothing follows at once
            for call in self._turn.parted:
                call()  # what was kept back of its words is said before the tools run
            await self._turn.flush()
            is_silent = not (answer.has_words or (self._turn.filled and not filled))
            results = await self._uses.run(ours, lambda: self._fill(ours if is_silent else ()))  # noqa: B023
            if self._turn.action is not None and self._turn.action.words:
                answer = Answer(self._spoken, ends=True)  # the last words are given: nobody is asked for others
                asked = self._turn.deed.call if self._turn.deed is not None else None
                # The same call of the model's came before: it has other words in it, or another destination.
                self._pending = [call for call in self._pending if asked is None or call.name != asked[0]]
                break
            self._tell(answer, called, dict(zip((call.id for call in ours), results, strict=True)))
        await self._end(answer)

    def _hand_on(self, call: Call, before: tuple[Call, ...]) -> bool:
        """Keep a call for the engine, unless it repeats one of an answer before.

        False when it is not the engine's, or not one that it could do.
        """
        if call.name in self._tools or call.name not in self._names or call.arguments is None:
            return False
        if all((call.name, call.arguments) != (other.name, other.arguments) for other in before):
            self._pending.append(call)
        return True

    async def _fill(self, called: list[Call] | tuple[()]) -> None:
        """Say the filler of the first tool that has one which was not said yet; a reply in one piece needs none."""
        if not self._turn.stream or not suits(self._turn):
            return
        for call in called:
            tool = self._tools.get(call.name)
            if tool is not None and tool.filler and tool.name not in self._said:
                self._said.add(tool.name)
                spaced = tool.filler if tool.filler[-1].isspace() else f"{tool.filler} "
                await self._spoken.fill(of(self._turn).filler(spaced))
                return

    def _tell(self, answer: Answer, called: list[Call], results: Mapping[str, str]) -> None:
        """Add an answer and what came of its calls to the conversation."""
        known = self._tools.keys() | self._names
        items = [call if call.name in known else calls.renamed(call) for call in called]
        self._messages = [*self._messages, calls.message(answer.kept, items)]
        self._messages += [calls.result(call, results.get(call.id, HANDED_ON)) for call in called]

    async def _ask(self, answer: Answer, number: int) -> None:
        """Ask the model. The turn's request is the round's only as long as that takes: hooks know it as it was."""
        turn, timeline = self._turn, self._turn.timeline
        request, asked, answered, spoke = turn.request, timeline.asked, timeline.answered, timeline.spoke
        turn.request = self._body(number)
        if number:
            timeline.spoke = None  # each answer has its own time for the first word
        try:
            await self._call_next(turn, Seen(turn, answer.see, self._spoken.send))
        finally:
            turn.is_calling = False  # no call leaves before it is whole
            if not request.get("model") and turn.request.get("model"):
                request["model"] = turn.request["model"]
            turn.request = request
            if number:
                timeline.asked, timeline.answered = asked, answered
                timeline.spoke = timeline.spoke if spoke is None else spoke
        self._uses.were_told()  # not sooner: the turn's own messages say which turn it is

    def _body(self, number: int) -> Json:
        """Return the request of a round."""
        is_last = number == self._offer.limits.rounds
        body = {**self._turn.request, "messages": self._messages}
        offered = [] if is_last else [definition(tool, strict=self._offer.strict) for tool in self._tools.values()]
        tools = [*self._engines, *offered]
        if body.get("n") not in (None, 1):
            body["n"] = 1  # which of two answers would call?
        if number:
            _unforce(body, self._tools if is_last else {})
            spoke = [attempt.model for attempt in self._turn.attempts if attempt.spoke is not None]
            if spoke:
                body["model"] = spoke[-1]  # whoever called wants to hear the result
        if tools:
            body["tools"] = tools
        else:
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                body.pop(name, None)
        return body

    def _wants_usage(self) -> bool:
        options = self._turn.request.get("stream_options")
        return not self._turn.stream or bool(isinstance(options, dict) and options.get("include_usage"))

    async def _end(self, answer: Answer) -> None:
        """Send what is left to be sent: the engine's calls, and an ending that was held back."""
        spoken, turn = self._spoken, self._turn
        has_words = spoken.has_words or answer.has_words
        is_said = turn.action is not None and bool(turn.action.words)
        if spoken.is_filled and not (has_words or self._pending or turn.silent or is_said):
            raise UpstreamSilent(model=turn.model)
        if not self._pending and answer.held is None and not is_said:
            return
        chunks = [spoken.chunk(delta) for delta in calls.deltas(self._pending)]
        reason = answer.held if answer.held in ("length", "content_filter") else "stop"
        chunks.append(spoken.chunk({}, "tool_calls" if self._pending else reason))
        usage = calls.added(spoken.usage, answer.usage)
        if usage is not None and self._wants_usage():
            chunks.append(chunks[-1].changed(choices=[], usage=usage))
        turn.corked = True  # `[DONE]` follows at once
        for chunk in chunks:
            turn.hears(chunk)
            await spoken.send(chunk)


def _with_late(messages: list[Json], late: list[tuple[Call, str]]) -> list[Json]:
    """Return a conversation with what became of earlier calls, before the words that it is to answer."""
    if not late:
        return messages
    told = [part for call, text in late for part in (calls.message((), [call]), calls.result(call, text))]
    users = [position for position, each in enumerate(messages) if each.get("role") == "user"]
    place = users[-1] if users else len(messages)
    return [*messages[:place], *told, *messages[place:]]


def _unforce(body: Json, gone: Mapping[str, Any]) -> None:
    """Let the model choose: what it was forced to call it has called. `gone` are tools that are not there any more."""
    choice = body.get("tool_choice")
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and isinstance(allowed, dict):
        left = [each for each in allowed.get("tools") or () if name_of(each) not in gone]
        body["tool_choice"] = (
            {**choice, "allowed_tools": {**allowed, "mode": "auto", "tools": left}} if left else "none"
        )
    elif choice is not None:
        body["tool_choice"] = "auto"
    if "function_call" in body:
        body["function_call"] = "auto"
