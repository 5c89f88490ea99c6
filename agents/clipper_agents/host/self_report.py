"""What a host says of itself on the hosts topic, from before its model is loaded until it has left.

starting --> ready --> draining --> (nothing)
    | cannot be loaded   | cannot go on
    '--------------------'--> failed, with the reason

Rules of this file:
- Serving never waits for it: reports are written from a thread of their own, as soon as a broker takes them.
- The ready line waits a moment for its report, so that routers know of a host that its supervisor calls ready.
"""

import asyncio
import os

from clipper_agents.control.host_reports import HostReports, one_line
from clipper_topics.host_report import HostReport, State
from clipper_topics.manifests import ModelManifest

KNOWN_WITHIN_S = 5.0
LAST_WORD_S = 2.0
"""A broker that is away must not hold up the end of a process."""


class SelfReports:
    """The reports of one host about itself; `metrics` is the address at which it serves its metrics, `host:port`."""

    def __init__(self, reports: HostReports, model: ModelManifest, instance: str, metrics: str | None = None) -> None:
        self._reports, self._model, self._instance, self._metrics = reports, model, instance, metrics
        self._over = False

    def say(self, state: State, reason: str | None = None) -> None:
        """Report the state of the host."""
        if not self._over:
            self._reports.put(
                HostReport(
                    model=self._model.ref,
                    instance=self._instance,
                    state=state,
                    reason=reason,
                    sha256=self._model.sha256,
                    pid=os.getpid(),
                    metrics=self._metrics,
                )
            )

    async def serves(self) -> None:
        """Report `ready`, and wait until that is written, for at most `KNOWN_WITHIN_S`."""
        self.say("ready")
        await asyncio.to_thread(self._reports.wait_written, KNOWN_WITHIN_S)

    def fails(self, reason: BaseException | str | None) -> None:
        """Report `failed` with the reason, and nothing more."""
        self.say("failed", one_line(reason))
        self._over = True
        self._reports.close(LAST_WORD_S)

    async def leave(self) -> None:
        """Withdraw the report after an orderly end, and report nothing more."""
        if not self._over:
            self._over = True
            self._reports.withdraw(self._model.ref, self._instance)
            await asyncio.to_thread(self._reports.close, LAST_WORD_S)

    async def watch_rights(self) -> None:
        """Wait for ever, or raise the error when this user may not write reports: then no router would ask it."""
        await asyncio.wrap_future(self._reports.refused)
