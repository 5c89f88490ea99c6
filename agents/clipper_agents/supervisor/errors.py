"""What can go wrong with a child process."""

from clipper_stream.errors import SetupError


class ChildNotReady(SetupError):
    """A child ended before it was ready, or was not ready in time; the message has its last words."""
