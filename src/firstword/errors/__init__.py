"""Every way a turn can go wrong, as one tree.

Each class answers three questions: whose fault it is, which HTTP status it is, and whether another
model may be tried. A message says what happened in one sentence; `hint` says how to mend it.
Neither ever holds a key, a caller's words or a traceback: both are shown to people.
"""

from __future__ import annotations

from .base import ActionError, ConfigError, Error, Overloaded, Stopping, ToolError, VoiceError
from .request import (
    BadRequest,
    BudgetExceeded,
    Expired,
    Forbidden,
    HeadTooLarge,
    InvalidSignature,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    Superseded,
    TooManyConnections,
    TooManyRequests,
    TooSlow,
    Unauthorized,
)
from .upstream import (
    MAX_WAIT,
    NO_MONEY,
    RETRY_PAUSE,
    AllModelsFailed,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilent,
    UpstreamStatusError,
    UpstreamTimeout,
    UpstreamTruncated,
)

__all__ = [
    "MAX_WAIT",
    "NO_MONEY",
    "RETRY_PAUSE",
    "ActionError",
    "AllModelsFailed",
    "BadRequest",
    "BudgetExceeded",
    "ConfigError",
    "Error",
    "Expired",
    "Forbidden",
    "HeadTooLarge",
    "InvalidSignature",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "NotFound",
    "Overloaded",
    "PayloadTooLarge",
    "RequestError",
    "RequestTimeout",
    "Stopping",
    "Superseded",
    "TooManyConnections",
    "TooManyRequests",
    "TooSlow",
    "ToolError",
    "Unauthorized",
    "UpstreamConnectError",
    "UpstreamError",
    "UpstreamProtocolError",
    "UpstreamSilent",
    "UpstreamStatusError",
    "UpstreamTimeout",
    "UpstreamTruncated",
    "VoiceError",
]
