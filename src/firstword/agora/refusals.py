"""What Agora's API says when it does not do what it was asked, and what a person does about it.

Source: Agora, "Status codes and error messages" of the Conversational AI REST API: `{detail, reason}`; older answers
have `{message, statusCode}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import Error

MAX_DETAIL = 300  # signs of what Agora says

_HINTS = {
    400: "check the field that it names, in your options or in the file",
    403: "turn on Conversational AI for the project in Agora's console, and look whether the account may pay",
    404: "it has stopped, or is not of this project: check AGORA_APP_ID and AGORA_AREA",
    409: "stop that agent (`firstword agent stop ID`), or give another --name",
    422: "stop agents that are not needed, or ask Agora for a higher limit",
    429: "wait a little, then try again",
    500: "try again; if it stays, ask Agora's support",
    502: "try again; if it stays, ask Agora's support",
    503: "the agent could not be started: try again in a few seconds",
    504: "try again in a few seconds",
}
_SAYS = {
    400: "Agora did not understand the request",
    401: "Agora did not accept the credentials",
    403: "Agora does not allow this for the project",
    404: "Agora knows no such agent that runs",
    409: "There is an agent of this name already",
    422: "The project has reached a limit of Agora's",
    429: "Agora got too many requests from this project",
    503: "Agora could not start the agent",
    504: "Agora was too slow",
}
_REASONS = {
    "ServiceNotEnabled": "turn on Conversational AI for the project in Agora's console",
    "AccountSuspended": "the account is suspended: look at its balance in Agora's console",
    "ResourceAllocationFailed": "Agora has no room just now: try again in a few seconds",
}


class AgoraError(Error):
    """Agora's API did not do what it was asked. `refused`: its HTTP status, `reason`: its own word; None without."""

    def __init__(
        self, message: str, *, hint: str | None = None, refused: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused
        self.reason = reason


def refusal(status: int, body: Any, *, is_basic: bool, secrets: Sequence[str]) -> AgoraError:
    """Return the error that an answer of Agora's API means. `is_basic`: the customer's key was sent, and no token."""
    told = body if isinstance(body, dict) else {}
    reason = _word(told.get("reason") or told.get("statusCode"))
    detail = _shown(told.get("detail") or told.get("message"), secrets)
    says = _SAYS.get(status, f"Agora answered {status}" if status < 500 else "Agora failed")
    because = ": ".join(filter(None, (reason, detail)))
    hint = _REASONS.get(reason or "") or _HINTS.get(status)
    if status == 401:
        hint = _who(is_basic)
    elif 300 <= status < 400:
        hint = "is AGORA_AGENTS_API_BASE_URL right?"
    elif hint is None:
        hint = _HINTS[500] if status >= 500 else "is AGORA_AREA right?"
    message = f"{says} ({status}{', ' + because.rstrip('.') if because else ''})."
    return AgoraError(message, hint=hint, refused=status, reason=reason)


def no_answer(status: int) -> AgoraError:
    """Return the error for a 200 that does not hold what the API describes."""
    hint = "is AGORA_AGENTS_API_BASE_URL right, and no proxy on the way?"
    return AgoraError("Agora's API sent something else than it describes.", hint=hint, refused=status)


def _who(is_basic: bool) -> str:
    if is_basic:
        return "check AGORA_BASIC_KEY and AGORA_BASIC_SECRET (`RESTful API` in the console) and AGORA_AREA"
    return "check AGORA_APP_ID, AGORA_APP_CERT and AGORA_AREA, and this machine's clock"


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"\w{1,64}", value) else None


def _shown(value: Any, secrets: Sequence[str]) -> str:
    """Return what Agora says as one short line without our secrets, which it may repeat."""
    if not isinstance(value, str):
        return ""
    for secret in secrets:
        value = value.replace(secret, "***")
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in value).split())
    return line[:MAX_DETAIL]
