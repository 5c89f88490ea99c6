"""What can go wrong with the embedded broker."""

from clipper_stream.errors import SetupError


class BrokerNotStarted(SetupError):
    """No Java, no jars, a busy port, or the broker ended at its start; one line says which and what to do next."""


class PortTaken(BrokerNotStarted):
    """Somebody else listens on a port of the broker; met with other ports, unless the user named this one."""
