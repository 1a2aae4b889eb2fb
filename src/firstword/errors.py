"""Every way a turn can go wrong, as one tree.

Each class answers three questions: whose fault it is, which HTTP status it is, and whether another
model may be tried. A message says what happened in one sentence; `hint` says how to mend it.
Neither ever holds a key, a caller's words or a traceback: both are shown to people.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
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


# --- downstream's fault: an HTTP status, nobody else is asked -------------------------------------


class RequestError(Error):
    """The request cannot be served as it was sent; `param` names the field at fault."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param

    def body(self) -> dict[str, Any]:
        body = super().body()
        body["error"]["param"] = self.param
        return body

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class BadRequest(RequestError):
    """The body is not what the API describes."""

    code = "bad_request"


class Unauthorized(RequestError):
    """No key was sent, or not one of ours."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class InvalidSignature(RequestError):
    """An event was not signed with our secret, or long ago."""

    status = 401
    type = "authentication_error"
    code = "invalid_signature"


class Forbidden(RequestError):
    """This caller may not be served here."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(RequestError):
    """There is nothing at this path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this HTTP method; `allow` lists those that do."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: Sequence[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.allow = tuple(allow)

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "allow": ", ".join(self.allow)}


class RequestTimeout(RequestError):
    """The caller was too slow to send the body."""

    status = 408
    code = "request_timeout"

    def headers(self) -> dict[str, str]:
        # The rest of the body may still come; nothing after it on this connection could be trusted.
        return {"connection": "close"}


class Superseded(RequestError):
    """The same turn was sent again, and the later request is the one that is answered."""

    status = 409
    code = "superseded"


class TooSlow(RequestError):
    """The caller shares a reply with others, and fell too far behind them."""

    status = 408
    code = "too_slow"


class PayloadTooLarge(RequestError):
    """The body is over the limit."""

    status = 413
    code = "payload_too_large"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "connection": "close"}


class TooManyRequests(RequestError):
    """This caller has had its share; `retry_after` seconds from now there is more."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {"retry-after": str(math.ceil(self.retry_after)), "retry-after-ms": str(round(self.retry_after * 1000))}


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


# --- the model's fault: the next model, else the caller is told ------------------------------------


NO_MONEY = "insufficient_quota"  # a 429 that no waiting mends
MAX_WAIT = 86_400.0  # seconds; who says to come back later than in a day says never
RETRY_PAUSE = 0.1  # seconds before the same model is asked again, when its server does not say


class UpstreamError(Error):
    """A model did not answer as it should. `model` is its name, `retryable` says whether another may be asked.

    `again_after`: seconds after which the same question may find the same model well; None = it would be in vain.
    `began`: some of its answer was passed on. `is_second`: it was asked for a second time.
    """

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retryable = True
    again_after: float | None = None
    began = False
    is_second = False

    def __init__(self, message: str, *, model: str = "", hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.model = model

    @property
    def retry_after(self) -> float | None:
        """Seconds after which its server said that it may be asked again; None when it did not say."""
        return None

    def headers(self) -> dict[str, str]:
        # What was tried twice is not better for a third time.
        return {"x-should-retry": "false"} if self.is_second else {}


class UpstreamSilent(UpstreamError):
    """An answer ended without a word: empty, blank, reasoning only, or withheld by a content filter."""

    code = "upstream_silent"

    def __init__(self, *, model: str = "", withheld: bool = False) -> None:
        said = "The model's server withheld its answer." if withheld else "The model ended its answer without a word."
        super().__init__(said, model=model)
        self.retryable = not withheld  # a content policy is not for another model to go round


class UpstreamConnectError(UpstreamError):
    """No connection could be made: refused, unknown host, TLS, or the proxy on the way."""

    code = "upstream_unreachable"
    again_after = RETRY_PAUSE


class UpstreamStatusError(UpstreamError):
    """The model's server answered with an error status, or with an error as its first event.

    `error` is the server's own error object, passed on as it came; `passed` are the headers
    (`retry-after`, `retry-after-ms`, `x-should-retry`) that steer the client's own retries.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error: Mapping[str, Any] | None = None,
        passed: Mapping[str, str] | None = None,
        model: str = "",
        hint: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, model=model, hint=hint, detail=detail)
        self.status = status
        self.error = error
        self.passed = dict(passed or {})
        word = (error or {}).get("code") or (error or {}).get("type")
        if isinstance(word, str) and word.replace("_", "").isalnum() and len(word) <= 64:
            self.code = word  # the server's own word for it: what the operator looks for in the log
        self.retryable = status in (408, 409, 429) or status >= 500
        if self.retryable and self.passed.get("x-should-retry") != "false" and self.code != NO_MONEY:
            self.again_after = RETRY_PAUSE if self.retry_after is None else self.retry_after

    @property
    def retry_after(self) -> float | None:
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            value = self.passed.get(name, "")
            if value.replace(".", "", 1).isdecimal():
                return min(float(value) * unit, MAX_WAIT)
        return _seconds_until(self.passed.get("retry-after", ""))

    def body(self) -> dict[str, Any]:
        return {"error": dict(self.error)} if self.error is not None else super().body()

    def headers(self) -> dict[str, str]:
        headers = {**self.passed, **super().headers()}
        if not self.retryable:
            headers.setdefault("x-should-retry", "false")
        return headers


def _seconds_until(date: str) -> float | None:
    """Return the seconds from now to a date as HTTP writes it (RFC 9110, 5.6.7); None when it is none."""
    if not date:
        return None
    from email.utils import parsedate_to_datetime  # here, because it is needed once in a blue moon

    try:
        return min(max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0), MAX_WAIT)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class UpstreamTimeout(UpstreamError):
    """A model was too slow. `phase` is `connect`, `first token`, `stall` or `turn`."""

    status = 504
    code = "upstream_timeout"

    def __init__(
        self, message: str, *, phase: str, model: str = "", hint: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message, model=model, hint=hint, detail=detail)
        self.phase = phase
        if phase == "connect":  # any other has used up the time
            self.again_after = RETRY_PAUSE


class UpstreamProtocolError(UpstreamError):
    """What came back is no HTTP, no event stream, or over a limit."""

    code = "upstream_protocol_error"


class UpstreamTruncated(UpstreamError):
    """The stream ended with neither `finish_reason` nor `[DONE]`: words are missing."""

    code = "upstream_truncated"
    again_after = RETRY_PAUSE


class AllModelsFailed(UpstreamError):
    """Every model was asked and none has spoken. `causes` has their errors, in the order in which they came."""

    code = "all_models_failed"
    retryable = False

    def __init__(self, causes: Sequence[UpstreamError]) -> None:
        said = "; ".join(f"{cause.model or 'a model'}: {cause.message.rstrip('.')}" for cause in causes)
        super().__init__(f"No model has answered ({said}).")
        self.causes = tuple(causes)
        waits = [cause.retry_after for cause in causes if cause.retry_after is not None]
        self._wait = min(waits, default=None)
        if self._wait is not None:
            self.status = 503
        elif causes and all(isinstance(cause, UpstreamTimeout) for cause in causes):
            self.status = 504

    @property
    def retry_after(self) -> float | None:
        return self._wait

    def headers(self) -> dict[str, str]:
        headers = {"x-should-retry": "false"}  # all were tried: the same question would find the same
        if self._wait is not None:
            headers["retry-after"] = str(math.ceil(self._wait))
        return headers
