"""Every metric there is: its kind, its labels, and what it says. Whatever counts, shows or documents one reads this."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How a metric behaves, and what becomes of it when several workers are shown as one."""

    COUNTER = "only grows; all workers' are added up, also those of workers that are gone"
    SPREAD = "a histogram of seconds; added up in the same way"
    GAUGE = "true only now; those of the workers that run are added up"
    PEAK = "true only now; the largest of all workers that run"


class Metric(NamedTuple):
    """One metric; outside its name begins with `firstword_`."""

    kind: Kind
    labels: tuple[str, ...]
    text: str


COUNTER, SPREAD, GAUGE, PEAK = Kind.COUNTER, Kind.SPREAD, Kind.GAUGE, Kind.PEAK

# In the order in which they are shown. docs/metrics.md tells what starts and what ends each time.
METRICS: Mapping[str, Metric] = {
    # --- what callers hear
    "turns": Metric(COUNTER, ("platform", "outcome"), "Turns that are over, by how they ended."),
    "first_byte_seconds": Metric(SPREAD, ("platform",), "From a request to the first byte of its reply (TTFB)."),
    "first_heard_seconds": Metric(
        SPREAD, ("platform",), "From a request to the first words that left, a filler included (TTFF)."
    ),
    "first_answer_seconds": Metric(
        SPREAD, ("platform",), "From a request to the first words of the answer that left (TTFAT)."
    ),
    "first_sentence_seconds": Metric(
        SPREAD, ("platform",), "From a request to the moment when a whole sentence of the answer had left (TTFS)."
    ),
    "turn_seconds": Metric(SPREAD, ("platform",), "From a request to the end of its turn."),
    "longest_gap_seconds": Metric(SPREAD, ("model",), "The longest silence of a model within an answer."),
    "stalls": Metric(COUNTER, (), "Times that words came for stall_timeout without the end of a sentence."),
    "fillers": Metric(COUNTER, (), "Fillers that were said."),
    "apologies": Metric(
        COUNTER, (), "Apologies that were said instead of an error, or behind words that were cut off."
    ),
    "truncated": Metric(COUNTER, (), "Replies of which words are missing."),
    "barge_ins": Metric(COUNTER, ("platform",), "Turns whose caller hung up after the first words had left."),
    "cancel_seconds": Metric(
        SPREAD, (), "From a hang-up to the moment when the turn had let go of its models and tools."
    ),
    "again": Metric(COUNTER, ("how",), "Turns that were sent again: superseded, joined to the first one, or replayed."),
    # --- models
    "first_token_seconds": Metric(SPREAD, ("model",), "From asking a model to its first word (TTFT)."),
    "upstream_requests": Metric(COUNTER, ("model", "status"), "Requests to models, by what became of them."),
    "tokens": Metric(COUNTER, ("model", "kind"), "Tokens as the models' servers have counted them."),
    "attempts": Metric(COUNTER, ("model", "why", "outcome"), "Requests to models, of turns that could cost several."),
    "unheard": Metric(
        COUNTER,
        ("model", "unit"),
        "What came from models of which the caller heard nothing: chunks, and tokens where they were counted.",
    ),
    "breaker": Metric(GAUGE, ("model", "state"), "Workers in which each model's breaker is in this state."),
    "overhead_seconds": Metric(
        SPREAD, ("part",), "What the server adds: before it has asked a model, and after the model has spoken."
    ),
    # --- tools
    "tool_calls": Metric(COUNTER, ("tool", "outcome"), "Calls of tools that run here, by what came of them."),
    "tool_seconds": Metric(SPREAD, ("tool",), "How long a turn has waited for a call of a tool."),
    # --- who may speak, and how much
    "refused": Metric(COUNTER, ("reason",), "Requests that were refused before they were a turn, by the error's code."),
    "gate_refused": Metric(COUNTER, ("reason",), "Requests that the gate has refused, by what was wrong with the key."),
    "limits_refused": Metric(COUNTER, ("limit",), "Turns that a limit has refused, by its name."),
    "cost": Metric(COUNTER, ("model",), "What models have cost, in the unit of the price table."),
    "turns_in_progress": Metric(GAUGE, (), "Turns that have begun and are not over."),
    # --- the engine's own word
    "events": Metric(COUNTER, ("event",), "What an engine told by webhook."),
    "heard": Metric(COUNTER, ("where",), "Turns that an engine told of, and whether they were answered here."),
    "engine_latency_seconds": Metric(SPREAD, ("event", "part"), "How long the parts of turns took the engine."),
    # --- the machine
    "connections": Metric(GAUGE, ("host", "state"), "Connections to models' servers."),
    "queue": Metric(
        GAUGE, ("of",), "Turns that wait for the model on this machine, and what is done beside turns or after them."
    ),
    "store": Metric(GAUGE, ("how",), "Workers for which the store that replicas share is there, or away."),
    "loop_lag_seconds": Metric(PEAK, (), "How late the event loop comes to what is due."),
    "loop_held_seconds": Metric(
        COUNTER, (), "For how long code has held the event loop, when it was for about a second or more."
    ),
    "workers": Metric(GAUGE, (), "Processes that serve."),
    "worker_starts": Metric(COUNTER, (), "Processes that have begun to serve."),
    "build_info": Metric(PEAK, ("version", "python"), "1 for what runs."),
}
