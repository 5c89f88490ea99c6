"""Candidates that learn: the log is replayed in the order of time."""
