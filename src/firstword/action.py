"""What a turn may ask of the voice engine beside words: to end the call, or to transfer it; and how that is done. Pure.

An `Action` is what is wanted, and the same for all engines. A `Deed` is how one engine is told to do it, which its
platform says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import ActionError

MAX_SAY = 2_000  # signs; two minutes of speech
MAX_TO = 256  # signs; what a SIP address may take

_NUMBER = re.compile(r"\+?[0-9][0-9 ().-]*")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing for the engine to do when the reply has ended.

    to: where the call is transferred to: a phone number, a SIP address or the name of an agent; None = it is ended.
    say: words that the caller hears first. Raises ActionError when one of them is not what it should be.
    """

    to: str | None = None
    say: str | None = None

    def __post_init__(self) -> None:
        if self.say is not None and (not isinstance(self.say, str) or len(self.say) > MAX_SAY):
            raise ActionError(f"What to say is not a text of at most {MAX_SAY} signs.")
        if any("\ud800" <= sign <= "\udfff" for sign in self.say or ""):
            raise ActionError("What to say holds half of a character.")  # it could not be sent
        if self.to is None:
            return
        if not isinstance(self.to, str) or not self.to.strip() or len(self.to) > MAX_TO or not self.to.isprintable():
            raise ActionError(
                "The destination is not a phone number, a SIP address or the name of an agent.",
                hint="write it like +15551234567, sip:desk@example.com or billing",
            )

    @property
    def words(self) -> str:
        """What is said first; empty when that is nothing."""
        return (self.say or "").strip()

    @property
    def number(self) -> str | None:
        """The phone number of `to`, without signs between its digits; None when it is none."""
        to = (self.to or "").strip()
        return re.sub(r"[^+0-9]", "", to) if _NUMBER.fullmatch(to) else None

    @property
    def address(self) -> str | None:
        """The SIP address of `to`; None when it is none."""
        to = (self.to or "").strip()
        return to if to.lower().startswith(("sip:", "sips:")) else None


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent of an engine that is stopped by its REST API: by its `id`, else as the one in its `channel`."""

    id: str | None
    channel: str | None


@dataclass(frozen=True, slots=True)
class Deed:
    """How an engine is told to do an action.

    say: words at the end of the reply; empty when there are none, or when the call has them.
    call: the engine's own tool and its arguments, the last call of the reply; None = none.
    agent: who is to leave once the reply was heard; None = nobody. due: when that is, in monotonic seconds.
    """

    say: str = ""
    call: tuple[str, dict[str, Any]] | None = None
    agent: Agent | None = None
    due: float = 0.0
