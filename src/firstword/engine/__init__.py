"""The other end of the line: what Agora's engine does with a custom LLM server, for a terminal and for tests.

It follows Agora's custom LLM and short-term memory documentation. What is not documented there is decided as
docs/engine.md tells.
"""
