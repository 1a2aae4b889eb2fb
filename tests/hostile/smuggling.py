"""The corpus, played: each row at our own port, whole and byte by byte, and through a real nginx."""

from __future__ import annotations

from hostile.corpus import PROBE, Row
from hostile.finding import Finding
from hostile.front import Front
from hostile.victim import Victim
from hostile.wire import Heard, talk

OF_ALL = "request smuggling: a row of the corpus"


def at_our_port(row: Row, victim: Victim, *, cut: bool) -> Finding:
    """Send a row, `cut` into single bytes or not, and a probe where it should be answered."""
    pieces = [row.sent[at : at + 1] for at in range(len(row.sent))] if cut else [row.sent]
    heard = talk(victim.port, *pieces, *([PROBE] if row.stays else []))
    seen = victim.seen()
    probed = ((404,), ("GET /probe",)) if row.stays else ((), ())
    asked = ((*row.statuses, *probed[0]), (*row.seen, *probed[1]))
    stands = heard.closed and (tuple(heard.statuses), tuple(seen)) == asked
    return Finding(f"{row.name}{', byte by byte' if cut else ''}", _told(heard, seen), stands)


def through_nginx(row: Row, victim: Victim, front: Front) -> Finding:
    """Send a row and a probe to nginx. What it passes on is seen as it says, or is refused by us."""
    heard = talk(front.port, row.sent, PROBE)
    seen = victim.seen()
    passed = front.passed_on(len(seen))
    left = iter(passed)
    is_part = all(any(request == each.request for each in left) for request in seen)
    unseen = [each for each in passed if each.request not in seen]
    stands = heard.closed and is_part and all(each.status in ("400", "431") for each in unseen)
    told = ", ".join(f"{each.request} ({each.status})" for each in passed)
    return Finding(f"{row.name}, through nginx", f"nginx passed on [{told}]; {_told(heard, seen)}", stands)


def _told(heard: Heard, seen: list[str]) -> str:
    statuses = ", ".join(map(str, heard.statuses)) or "no response"
    return f"{statuses}; {'closed' if heard.closed else 'left open'}; the App saw {seen}"
