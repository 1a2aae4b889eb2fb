"""Tell the log of a mistake in somebody's code: where it was made, and only on request what it says."""

from __future__ import annotations

import logging
import traceback

log = logging.getLogger("firstword")

PLACES = 4  # of the calls that led to it, the last ones


def log_mistake(what: str, error: BaseException, *, debug: bool) -> None:
    """Log `what`, as in "mistake id=...", and where `error` came from; what it says may be a caller's words."""
    if debug:
        log.error("%s", what, exc_info=error)
        return
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error(
        "%s type=%s at=%s hint: FIRSTWORD_DEBUG=1 shows what it says",
        what,
        type(error).__name__,
        " > ".join(places[-PLACES:]),
    )
