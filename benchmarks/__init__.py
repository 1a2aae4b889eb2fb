"""Honest timings of the relay beside other servers; the README.md of this folder says how to run and read them."""
