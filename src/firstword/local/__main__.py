"""`python -m firstword.local MODEL.gguf`: what the server starts."""

from __future__ import annotations

import sys

from .desk import work
from .mind import Mind


def _load() -> Mind:
    from .llama import Llama  # here, so that a package that is broken is told and not only died of

    return Llama(sys.argv[1])


if __name__ == "__main__":
    work(_load)
