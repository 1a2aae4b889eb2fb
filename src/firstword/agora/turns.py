"""A turn as Agora's engine tells of it, as a row of a table. Pure; times are milliseconds, as the engine has them.

Source: Agora, "Query conversation turn information", and webhook 112, which tells the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a person looks for, by the names that the engine has for it; `llm_ttfa` is of models that speak themselves.
PARTS = {
    "asr": ("asr_ttlw",),
    "llm_ttft": ("llm_ttft", "llm_ttfb", "llm_ttfa"),
    "sentence": ("llm_ftfs",),
    "tts": ("tts_ttfb",),
    "algorithm": ("algorithm_processing",),
    "transport": ("transport",),
}
HEAD = ["turn", "began with", "ended", "e2e", *PARTS]


def row(turn: Mapping[str, Any]) -> list[str]:
    """Return the cells of a turn; a dash for what the engine does not tell."""
    times = segments(turn)
    parts = [next((_number(times[name]) for name in names if name in times), "-") for names in PARTS.values()]
    metrics = _object(turn.get("metrics"))
    return [
        _number(turn.get("turn_id")),
        _word(_object(turn.get("start")).get("type")),
        _word(_object(turn.get("end")).get("type")),
        _number(metrics.get("e2e_latency_ms")),
        *parts,
    ]


def segments(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a turn's latency by their names."""
    listed = _object(turn.get("metrics")).get("segmented_latency_ms")
    found = listed if isinstance(listed, list) else []
    return {str(each.get("name")): each.get("latency") for each in found if isinstance(each, dict)}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(round(value)) if is_number and abs(value) < 1e15 else "-"


def _word(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 40 else "-"
