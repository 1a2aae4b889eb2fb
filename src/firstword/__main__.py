"""`python -m firstword` is the `firstword` command."""

from .cli import main

main()
