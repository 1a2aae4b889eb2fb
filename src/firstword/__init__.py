"""firstword: the custom LLM server for voice agents. These are its public names."""

from typing import TYPE_CHECKING, Any

from .app import App
from .chunk import Chunk
from .errors import (
    ActionError,
    BadRequest,
    ConfigError,
    Error,
    Forbidden,
    RequestError,
    ToolError,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
    VoiceError,
)
from .events import Event, Heard
from .model import Model
from .policy import Policy
from .tools import Tool
from .turn import Attempt, Called, CallNext, Reply, Send, Stage, Timeline, Turn

if TYPE_CHECKING:
    from .admission.urls import sign_url
    from .tools.http import HTTPTool
    from .voices import Sound, Voice, Word

__version__ = "0.1.0"
__all__ = [
    "ActionError",
    "App",
    "Attempt",
    "BadRequest",
    "CallNext",
    "Called",
    "Chunk",
    "ConfigError",
    "Error",
    "Event",
    "Forbidden",
    "HTTPTool",
    "Heard",
    "Model",
    "Policy",
    "Reply",
    "RequestError",
    "Send",
    "Sound",
    "Stage",
    "Timeline",
    "TooManyRequests",
    "Tool",
    "ToolError",
    "Turn",
    "Unauthorized",
    "UpstreamError",
    "Voice",
    "VoiceError",
    "Word",
    "sign_url",
]


def __getattr__(name: str) -> Any:
    if name == "HTTPTool":  # most Apps have none, and an import is what a new user waits for first
        from .tools.http import HTTPTool

        return HTTPTool
    if name == "sign_url":
        from .admission.urls import sign_url

        return sign_url
    if name in ("Sound", "Voice", "Word"):
        from . import voices

        return getattr(voices, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
