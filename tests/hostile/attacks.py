"""All that is tried, one after the other: `findings` plays it and yields what happened, for the table of a report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hostile import crowd, floods, oversized, slow
from hostile.corpus import ROWS
from hostile.finding import Finding
from hostile.front import NGINX, front
from hostile.smuggling import at_our_port, through_nginx
from hostile.victim import Victim, victim

# A server that is attacked by those who are slow waits this long, in seconds; as it is set, fifteen times as long.
SHORT = dict.fromkeys(["FIRSTWORD_BODY_TIMEOUT", "HEAD_TIMEOUT", "WRITE_TIMEOUT", "LINGER"], "1")


async def findings(base_url: str) -> AsyncIterator[Finding]:
    """Play everything against servers of its own, in front of a scripted model at `base_url`."""
    with _started(base_url, **SHORT, SMALL_BUFFERS="yes", FIRSTWORD_KEEP_ALIVE="3") as server:
        for each in slow.ATTACKS:
            yield await asyncio.to_thread(each, server)
    if slow.SLOWHTTPTEST is not None:
        with _started(base_url, **SHORT, FIRSTWORD_KEEP_ALIVE="3") as server:
            for mode in slow.MODES:
                yield await asyncio.to_thread(slow.slowhttptest, server, mode)
    with _started(base_url) as server:
        for name in floods.FLOODS:
            yield await asyncio.to_thread(floods.attack(name), server)
        yield await asyncio.to_thread(floods.trailer_that_is_a_header, server)
        for name, way in oversized.ATTACKS:
            yield await oversized.attack(name, way, server)
    with _started(base_url, FIRSTWORD_MAX_CONNECTIONS="12000") as server:
        yield await crowd.idle_connections(server)
    with _started(base_url, FIRSTWORD_MAX_CONNECTIONS="20") as server:
        yield await asyncio.to_thread(crowd.too_many, server, 20)
    with _started(base_url, DESCRIPTORS="60", UNBOUNDED="yes") as server:
        yield await asyncio.to_thread(crowd.no_descriptors, server)
    for each in await asyncio.to_thread(_smuggling):
        yield each


def _smuggling() -> list[Finding]:
    """Play the corpus, and return one finding for each way of it."""
    found = []
    with TemporaryDirectory() as folder, victim(Path(folder), is_watched=True, **SHORT) as server:
        for cut in (False, True):
            played = [at_our_port(row, server, cut=cut) for row in ROWS]
            found.append(_summed(f"request smuggling, {'byte by byte' if cut else 'whole'}", played))
        for buffering in (False, True) if NGINX is not None else ():
            with TemporaryDirectory() as files, front(Path(files), server.port, buffering=buffering) as nginx:
                played = [through_nginx(row, server, nginx) for row in ROWS]
            how = "whole bodies" if buffering else "bodies as they come"
            found.append(_summed(f"request smuggling through nginx, which passes on {how}", played))
    return found


def _summed(tried: str, played: list[Finding]) -> Finding:
    wrong = [each.tried for each in played if not each.stands]
    happened = f"of {len(played)} attempts, {len(played) - len(wrong)} were read in one way, or refused and closed"
    return Finding(tried, happened + (f"; not: {', '.join(wrong)}" if wrong else ""), not wrong)


@contextmanager
def _started(base_url: str, **environment: str) -> Iterator[Victim]:
    with TemporaryDirectory() as folder, victim(Path(folder), base_url, **environment) as server:
        yield server
