"""`python -m firstword.local MODEL.gguf`: what the server starts."""

from __future__ import annotations

import os
import sys

from .desk import work
from .mind import Mind


def _load() -> Mind:
    # Else its threads wait for each other by running in circles: ten times the work where others work as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .llama import Llama  # here, as it loads the library, which reads this

    return Llama(sys.argv[1])


def main() -> None:
    """Be the process of a local model: the only argument is the file with its weights."""
    work(_load)


if __name__ == "__main__":
    main()
