"""firstword: the custom LLM server for voice agents. These are its public names."""

from .app import App
from .chunk import Chunk
from .errors import (
    BadRequest,
    ConfigError,
    Error,
    Forbidden,
    RequestError,
    ToolError,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
)
from .model import Model
from .policy import Policy
from .tools import Tool
from .turn import Called, CallNext, Reply, Send, Stage, Timeline, Turn

__version__ = "0.1.0"
__all__ = [
    "App",
    "BadRequest",
    "CallNext",
    "Called",
    "Chunk",
    "ConfigError",
    "Error",
    "Forbidden",
    "Model",
    "Policy",
    "Reply",
    "RequestError",
    "Send",
    "Stage",
    "Timeline",
    "TooManyRequests",
    "Tool",
    "ToolError",
    "Turn",
    "Unauthorized",
    "UpstreamError",
]
