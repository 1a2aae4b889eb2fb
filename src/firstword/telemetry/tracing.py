"""Whether traces are kept: the library for it, which is large, is loaded only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from .content import Content

if TYPE_CHECKING:
    from .traces import Traces

NONE = "none"


def keep_traces(where: str, content: Content | None) -> Traces | None:
    """Return what keeps traces; None where that is "none". content: redacts what was said, if that is kept too.

    Raises ConfigError when OpenTelemetry is missing, or does not take its settings.
    """
    if where == NONE:
        return None
    from importlib.metadata import version

    try:
        from .traces import open_traces
    except ImportError:
        raise ConfigError(
            "FIRSTWORD_TRACES needs OpenTelemetry, which is not installed.", hint="pip install 'firstword[traces]'"
        ) from None
    return open_traces(where, version=version("firstword"), content=content)
