"""Errors that are the model's fault: the next model is asked, else the caller is told."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Error

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
