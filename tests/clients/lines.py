"""How a caller of `tests/clients/` is told what to do: in lines of JSON, each answered by a line with what it heard.

Runs in the environment of the client, so nothing of ours is imported. What every such client is asked and tells:

- asked: `url`; `body`, what it adds to the request; `headers`; `tools`, that it offers its own two; `whole`, that it
  asks for one piece; `form`, that it wants one; `image`, a URL to show; `retries`; `leaves`, at the first word
- heard: `words`, `ran` (its own tools, and with what), `usage` (tokens in and out), `form`, and `error`
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE = 10.0  # seconds that anything here may take

Json = dict[str, Any]
HELLO = "Hello there, my friend."
RESULTS = {"weather": "rain", "clock": "noon"}  # what the client's own tools answer


def told(error: Exception) -> Json:
    """Return what an exception says of itself."""
    says = {name: getattr(error, name, None) for name in ("code", "type", "body")}
    return {"class": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error), **says}


async def answer(ways: dict[str, Callable[[Json, Json], Awaitable[None]]]) -> None:
    """Do what each line says in the one of the ways that it names, until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = {"body": {}, "headers": {}, "retries": 0, **json.loads(line)}
        heard: Json = {"words": [], "ran": [], "usage": None, "form": None, "error": None}
        try:
            await asyncio.wait_for(ways[asked["way"]](asked, heard), PATIENCE)
        except Exception as error:
            heard["error"] = told(error)
        heard["words"] = "".join(heard["words"])
        print(json.dumps(heard, default=str), flush=True)
