"""The doctor: calls any custom LLM server as a voice engine does, and says what is wrong and how to mend it.

Rules:
- Judgement is pure and stands apart from the calls, so that each fault is tried on bytes.
- It is a guest: a few requests at once, each in its time, none sent again; a key is sent and never shown.
"""

from __future__ import annotations

from .examine import CHECKS, Examination, chosen, cost, examine
from .findings import Check, Fault, Finding, Level
from .patient import Patient

__all__ = ["CHECKS", "Check", "Examination", "Fault", "Finding", "Level", "Patient", "chosen", "cost", "examine"]
