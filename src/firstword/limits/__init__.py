"""How much callers may take: turns, requests, tokens and money; and what is refused when it is more than that."""
