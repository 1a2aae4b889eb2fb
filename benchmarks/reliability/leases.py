"""The soak with every limit on: are all shares of turns given back, of those that were abandoned as well?

Afterwards each session takes all the turns that it may have at once, and so does each key: one lease that was not given
back, and somebody is refused. One turn more is refused, so that the limits are known to be there.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from firstword.testing import script

from ..soak import Left, Server, Who, request

KEYS = [f"key-of-client-{name}" for name in ("a", "b", "c", "d")]
SESSIONS = 16  # of each key
MOST_OF_SESSION, MOST_OF_KEY = 3, 24  # turns at once: a caller who hangs up and calls again has two for a moment
EVERYBODY = [
    Who(f"/s/call-{number}-{at}/chat/completions", key) for at in range(SESSIONS) for number, key in enumerate(KEYS)
]
LIMITS = {
    "FIRSTWORD_KEYS": ",".join(KEYS),
    "LLM_API_KEY": "the-provider-s",
    "FIRSTWORD_MAX_TURNS_PER_KEY": str(MOST_OF_KEY),
    "FIRSTWORD_MAX_TURNS_PER_SESSION": str(MOST_OF_SESSION),
    # So large that they refuse nobody, and counted all the same.
    **dict.fromkeys(
        [
            f"FIRSTWORD_{what}_PER_MINUTE{whose}"
            for what in ("REQUESTS", "TOKENS")
            for whose in ("", "_PER_KEY", "_PER_SESSION")
        ],
        "1000000000",
    ),
}
HELD = [script.head(200, script.EVENT_STREAM), script.role(), script.text("One"), script.wait(60), script.end()]
PATIENCE = 15.0  # seconds


def metrics(port: int) -> dict[str, float]:
    """Return all samples of `/metrics` by their names, with their labels."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {KEYS[0]}"})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


async def at_rest(port: int) -> dict[str, float]:
    """Wait until no turn is in progress; return the metrics then. Raises Left."""
    for _ in range(int(PATIENCE / 0.05)):
        found = await asyncio.to_thread(metrics, port)
        if found["firstword_turns_in_progress"] == 0:
            return found
        await asyncio.sleep(0.05)
    raise Left(f"{found['firstword_turns_in_progress']:.0f} turns are still in progress")


async def every_share(server: Server) -> dict[str, Any]:
    """Have each session and each key take its whole share, and one turn more; return the figures. Raises Left."""
    found = await at_rest(server.port)
    refused = sum(value for name, value in found.items() if name.startswith("firstword_limits_refused_total"))
    let_in = beyond = 0
    at_once = MOST_OF_KEY // MOST_OF_SESSION
    for key in KEYS:
        mine = [who for who in EVERYBODY if who.key == key]
        for at in range(0, len(mine), at_once):
            turns = [who for who in mine[at : at + at_once] for _ in range(MOST_OF_SESSION)]
            others = [mine[(at + at_once) % len(mine)]]
            let_in += await hold(server.port, turns, others)
            beyond += len(others)
            await at_rest(server.port)
        let_in += await hold(server.port, mine[:1] * MOST_OF_SESSION, mine[:1])
        beyond += 1
        await at_rest(server.port)
    return {"refused meanwhile": int(refused), "let in at once": let_in, "refused beyond": beyond}


async def hold(port: int, turns: Sequence[Who], beyond: Sequence[Who]) -> int:
    """Have all `turns` in progress at once, then be refused as each of `beyond`. Raises Left when it is not so."""
    lines: list[asyncio.StreamWriter] = []
    try:
        statuses = await asyncio.gather(*(begin(port, who, f"Hold {at}.", lines) for at, who in enumerate(turns)))
        if lost := [status for status in statuses if status != "200"]:
            raise Left(f"a lease was not given back: of {len(turns)} turns {len(lost)} were refused: {set(lost)}")
        more = await asyncio.gather(*(begin(port, who, "One more.", lines) for who in beyond))
        if wrong := [status for status in more if status != "429"]:
            raise Left(f"a turn beyond the limit was let in: {wrong}")
    finally:
        for line in lines:
            line.transport.abort()
    return len(turns)


async def begin(port: int, who: Who, said: str, lines: list[asyncio.StreamWriter]) -> str:
    """Begin a turn that is held; return its status, once the first word is there if it is good."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines.append(writer)
    writer.write(request(port, who, said, "held", HELD))
    heard = b""
    with suppress(asyncio.TimeoutError):
        while b"One" not in heard and not re.match(rb"HTTP/1.1 [^2].*\r\n\r\n", heard, re.DOTALL):
            data = await asyncio.wait_for(reader.read(65_536), PATIENCE)
            if not data:
                break
            heard += data
    return heard[9:12].decode("latin-1") or "nothing"
