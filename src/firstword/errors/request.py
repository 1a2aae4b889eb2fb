"""Errors that are downstream's fault: an HTTP status, and nobody else is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Error, again_after


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


class Expired(Unauthorized):
    """The token, or the signed URL, was good once."""

    code = "expired_key"


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


class MisdirectedRequest(RequestError):
    """The Host header names none of this server's names."""

    status = 421
    code = "misdirected_request"


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


class HeadTooLarge(RequestError):
    """The request's line and headers are over the limit, or there are too many of them."""

    status = 431
    code = "head_too_large"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "connection": "close"}


class TooManyConnections(RequestError):
    """The process keeps as many connections as it may."""

    status = 503
    type = "server_error"
    code = "too_many_connections"

    def headers(self) -> dict[str, str]:
        return {"retry-after": "1", "connection": "close"}


class TooManyRequests(RequestError):
    """This caller has had its share; `retry_after` seconds from now there is more."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return again_after(self.retry_after)


class BudgetExceeded(RequestError):
    """What a client, a session or all may cost is spent; in `retry_after` seconds a new period begins; None = never."""

    status = 429
    type = "insufficient_quota"
    code = "budget_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        # Hours, as a rule: who asks again before asks in vain.
        return {**super().headers(), **again_after(self.retry_after)}
