"""Errors that more than readers of one record know; it imports nothing, as the command line waits for it."""


class UnknownRowVersion(ValueError):
    """A selection row has a version that this release does not read: a newer one has written it."""
