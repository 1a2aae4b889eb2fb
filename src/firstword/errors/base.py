"""The root of the tree of errors, and the errors that are nobody's outside: ours, a tool's, a voice's."""

from __future__ import annotations

import math
from typing import Any


class Error(Exception):
    """Base of all errors of firstword; never raised itself.

    `status` is the HTTP status a caller sees, `type` and `code` the words of the OpenAI error body.
    `detail` is for the operator's log and never shown to a caller: a host name, an errno.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def body(self) -> dict[str, Any]:
        """Return the OpenAI-shaped body, `{"error": {message, type, param, code}}`."""
        return {"error": {"message": str(self), "type": self.type, "param": None, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return what a client that retries must know: `x-should-retry`, `retry-after`."""
        return {}


class ConfigError(Error):
    """A setting is wrong. Raised at start only; names the setting and the mend."""


class Stopping(Error):
    """The server was told to stop while it answered."""

    status = 503
    code = "server_stopping"


class Overloaded(Error):
    """The server has as much to do as it can, whoever asks; in `retry_after` seconds it may be less."""

    status = 503
    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return again_after(self.retry_after)


class ToolError(Error):
    """A tool did not do what the model asked of it. The model is told, never the caller. `tool` is its name."""

    code = "tool_error"

    def __init__(self, message: str, *, tool: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tool = tool


class VoiceError(Error):
    """A voice did not say what it was given. Before the first sound it is a status, after it the end of the reply."""

    status = 502
    type = "voice_error"
    code = "voice_error"

    def __init__(self, message: str, *, status: int = 502, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.status = status
        if status == 501:
            self.code = "voice_unavailable"  # nobody has installed one, or named one

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"} if self.status == 501 else {}


class ActionError(Error):
    """The engine cannot end or transfer this call. A tool's model is told; of a hook or a stage it ends the turn."""

    code = "action_unavailable"

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}  # what the operator must mend is the same a second later


def again_after(seconds: float | None) -> dict[str, str]:
    """Return the headers that say when to ask again, in whole seconds and in thousandths; none for None."""
    if seconds is None:
        return {}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
