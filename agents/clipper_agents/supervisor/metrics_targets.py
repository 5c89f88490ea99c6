"""Where the processes of a deployment serve their metrics, in a file that Prometheus follows (`file_sd_configs`).

    [{"targets": ["127.0.0.1:40021"], "labels": {"component": "router", "instance": "router-0"}}, ...]

Rules of this file:
- Prometheus never reads half a list: the file is replaced by a whole new one.
- A process that has ended unexpectedly keeps its last address until it serves again: an alert has to see that nobody
  answers there. One that was stopped, or whose version has gone, is not listed any more.
- Nobody depends on the file: where it cannot be written, the log says so once.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from clipper_agents.control.host_reports import address_of
from clipper_agents.observability.logging import event

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Prometheus hears of a replaced file at once, and scrapes every few seconds."""


class MetricsTargets:
    """Keeps the file as the processes are."""

    def __init__(
        self,
        path: Path,
        listens_on: Callable[[str], str],
        processes: Callable[[], Mapping[str, Mapping[str, str]]],
    ) -> None:
        self.path, self._listens_on, self._processes = path, listens_on, processes
        self._known: dict[str, dict[str, object]] = {}
        self._written = ""

    async def follow(self) -> None:
        """Keep the file until cancelled, then remove it."""
        try:
            while True:
                self.write()
                await asyncio.sleep(LOOK_S)
        finally:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def write(self) -> None:
        """Replace the file if a process has come, gone, or changed its port."""
        processes = self._processes()
        told = {name: self._target(name, fields) for name, fields in processes.items() if "metrics" in fields}
        self._known = {name: one for name, one in {**self._known, **told}.items() if name in processes}
        text = json.dumps([self._known[name] for name in sorted(self._known)], indent=2)
        if text == self._written:
            return
        self._written = text
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.path)
        except OSError as error:
            event(log, "Prometheus cannot be told where metrics are", logging.WARNING, file=self.path, reason=error)

    def _target(self, name: str, fields: Mapping[str, str]) -> dict[str, object]:
        target = address_of(self._listens_on(fields["role"]), int(fields["metrics"]), here="localhost")
        return {"targets": [target], "labels": {"component": fields["role"], "instance": name}}
