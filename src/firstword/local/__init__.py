"""The process that a model on this machine runs in: it takes orders line by line, and says the words as they come.

It knows nothing of the server but the lines in `lines.py`, so that a crash, a busy core or a leak stays in it
(docs/decisions/0025-a-model-beside-the-server.md). Rules: one order at a time; whether the caller has left is looked at
between two tokens, and between two slices of a prompt; the process ends when its input does.
"""
