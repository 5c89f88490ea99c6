"""What hosts and routers say of themselves: a record each on the compacted hosts topic; an empty value: it has left.

They may write here and not on the control topic: whoever runs a model has no right to declare one.
"""

from typing import Literal

import msgspec

State = Literal["starting", "ready", "failed", "draining"]


class HostReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state of one host of a model version, or of one router."""

    model: str
    """`name:version`; empty: a router."""
    instance: str
    """Name of the process."""
    state: State
    """`ready`: it answers requests. `failed`: it could not start, or ended by itself; `reason` says why."""
    reason: str | None = None
    """Why it failed, or why a router does not serve, in one line."""
    sha256: str | None = None
    """Digest of the bytes that it loaded, when its runtime loads a file."""
    at_ms: int = 0
    """Since when, milliseconds since the epoch."""
    pid: int | None = None
    """Its process id, on its own machine."""
    metrics: str | None = None
    """Address of its metrics, `host:port`; one of the loopback interface is that of its own machine."""
    problems: list[str] = []
    """What ails its machine: a line each, which says what to do."""


def report_key(model: str, instance: str) -> bytes:
    """Return the key of a host's report."""
    return f"{model}/{instance}".encode()
