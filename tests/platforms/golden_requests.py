"""The golden requests: the recorded shapes of each engine, in words of ours, and what becomes of each.

A case has `path` (with its query), `headers` and `body` as they come; `turn` are the fields of the Turn that are not
what they are by default, `leaves` the body that the model gets, `reply` a reply in one piece where it is not plain.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from firstword.platforms import Asked

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "golden"
FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CASES: list[Json] = [case for cases in FILES.values() for case in cases]
NAMES = [f"{name}: {case['what']}" for name, cases in FILES.items() for case in cases]


def asked(case: Json) -> Asked:
    """Return a fresh copy of a case's request, as the server hands it to a platform."""
    path, _, query = case["path"].partition("?")
    body = json.loads(json.dumps(case["body"]))
    return Asked(body, dict(case.get("headers", {})), dict(parse_qsl(query)), path, None)
