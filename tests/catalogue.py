"""The fault catalogue: what a model can do wrong, as scripts, and what its caller must be spared in each case.

It is played on a clock that jumps (`test_faults_played.py`, and `faults.py`, which prints it), and through a real
server and a real upstream process (`test_faults_heard.py`). `pace` is how much faster a script runs than on the phone:
the real process is not to be waited for. Numbers are those of the failures that other gateways were seen with
(`test_failure_modes.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firstword.testing import never_connects, refuses_connection, script
from firstword.testing.models import Scripted

Script = script.Script

WORDS = "One, two, three, four, five, six, seven, eight, nine, ten"  # of an answer that is cut off
FRIEND = "Hello there, friend."
SORRY = "I'm sorry, I lost the line for a moment. Could you say that again?"
FILLER = "One moment. "


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    play: what the model does, at a pace. is_slow: only silence tells of it. modes: which known failures it is.
    """

    name: str
    play: Callable[[float], Script]
    modes: tuple[int, ...] = ()
    is_slow: bool = False


@dataclass(frozen=True)
class Unreached:
    """A model that cannot be reached."""

    name: str
    model: Scripted
    is_slow: bool = False

    def play(self, pace: float) -> Scripted:
        """Return what it does, at any pace."""
        return self.model


def _at_any_pace(steps: Script) -> Callable[[float], Script]:
    return lambda pace: steps


def _fault(name: str, steps: Script, *modes: int, is_slow: bool = False) -> Fault:
    return Fault(name, _at_any_pace(steps), modes, is_slow)


def _for_ever(step: script.Step, every: float) -> Callable[[float], Script]:
    begins = [script.head(200, script.EVENT_STREAM), script.role()]
    return lambda pace: [*begins, script.repeat(step, script.wait(every / pace))]


# Nothing was said yet: another model can answer, and the caller need not know.
BEFORE_SPEECH = (
    _fault("hangs up without an answer", [script.close()], 6),
    _fault("accepts and never answers", script.never_answers(), 2, is_slow=True),
    _fault("headers, then silence", script.sends_only_headers(), 3, is_slow=True),
    _fault("the role, then silence", script.sends_only_the_role(), 3, is_slow=True),
    Fault("comments for ever", _for_ever(script.comment(), 0.5), (3, 9), is_slow=True),
    Fault("empty chunks for ever", _for_ever(script.text(""), 0.5), (3,), is_slow=True),
    Fault("blanks for ever", _for_ever(script.text("  "), 0.5), (3,), is_slow=True),
    Fault("reasons for ever", _for_ever(script.reasoning("Hm, "), 0.5), (4,), is_slow=True),
    _fault("reasons, and ends without a word", script.only_thinks(), 4),
    _fault("408", script.refuses(408, "Request timeout.")),
    _fault("429", script.rate_limits(), 48),
    _fault("429 with retry-after: 7", script.rate_limits("7"), 48),
    _fault("500", script.refuses(500, "Broken.")),
    _fault("503 with a page of HTML", script.shows_a_page(503)),
    _fault("200 with an error in JSON", script.refuses(200, "Not really.", type="server_error"), 1, 10),
    _fault("200 with a page of HTML", script.shows_a_page(200), 10),
    _fault("the first event is an error", script.fails_at_once(), 1),
    _fault("ends without a word", script.events(script.role(), script.finish(), script.done()), 12),
    _fault("ends with nothing at all", script.events(), 11),
    _fault("`length` before a word", script.events(script.role(), script.finish("length"), script.done())),
    _fault("blanks only", script.events(script.role(), script.text("  \n"), script.finish(), script.done())),
    _fault("closes after the role", script.closes_after(""), 11),
)

# Words were heard: nobody may say them again.
MIDWAY = (
    _fault("an error event after ten words", script.fails_after(WORDS), 18, 19),
    _fault("closes between two chunks after ten words", script.closes_after(WORDS), 11),
    _fault("ends its body after ten words", script.ends_after(WORDS), 11, 12),
    _fault("resets within a chunk after ten words", script.resets_after(WORDS), 11),
    _fault("stalls after ten words", script.stalls_after(WORDS), 16, is_slow=True),
    Fault(
        "comments for ever after ten words",
        lambda pace: [*script.stalls_after(WORDS), script.repeat(script.comment(), script.wait(0.5 / pace))],
        (16,),
        is_slow=True,
    ),
    Fault(
        "blanks for ever after ten words",
        lambda pace: [*script.stalls_after(WORDS), script.repeat(script.text(" "), script.wait(0.5 / pace))],
        (16,),
        is_slow=True,
    ),
)

# Odd, and whole: the caller hears the answer, and nobody else is asked.
WHOLE = (
    _fault("a finish_reason and no `[DONE]`", script.forgets_done(FRIEND), 13),
    _fault("`[DONE]` and no finish_reason", script.forgets_to_finish(FRIEND), 15),
    _fault("an event of broken JSON in between", script.babbles_within(FRIEND), 17),
    _fault("characters torn between reads", script.shreds(FRIEND)),
    _fault("usage after the end", script.counts_after(FRIEND), 14),
    Fault("a word a second", lambda pace: script.events(script.says(FRIEND, every=1.0 / pace)), (5,)),
)

# No other model would mend it.
FINAL = (
    _fault("400: a field it does not know", script.rejects("No such field.")),
    _fault("400: the content policy", script.finds_it_improper(), 48),
    _fault("400: the context is too long", script.finds_it_too_long(), 48),
    _fault("401", script.refuses(401, "Bad key.")),
    _fault("403", script.refuses(403, "Not you.")),
    _fault("404", script.refuses(404, "No such model.")),
    _fault("422", script.refuses(422, "Odd.")),
)

# Without a script, because there is no server: only the clock that jumps has them all.
NO_CONNECTION = (
    Unreached("refuses the connection", refuses_connection()),
    Unreached("never takes the connection", never_connects(), is_slow=True),
)

ALL = (*BEFORE_SPEECH, *MIDWAY, *WHOLE, *FINAL)
