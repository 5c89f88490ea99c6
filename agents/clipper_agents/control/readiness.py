"""Which model versions have a host that serves, as hosts and their supervisors say on the hosts topic.

Rules of this file:
- A version that was ready once stays so until it is forgotten, though its hosts may drain, restart or crash. A query
  that they do not answer in time has the default at its deadline, and the policy learns from it; candidates that came
  and went with every restart would change what the policy chooses from each time, and its probabilities with it.
- A version that was never ready since this router started is not asked: what cannot be loaded costs no answer.
- Anybody who may write to the topic can say anything: a record that is none is ignored, and told.
"""

import logging
from collections.abc import Iterable
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.observability.logging import event
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord
from clipper_topics.host_report import report_key

logger = logging.getLogger(__name__)

SHOWN_BYTES = 200


class ReadyHosts:
    """Follows hosts by model version."""

    def __init__(self) -> None:
        self._ready: dict[str, set[bytes]] = {}
        self._once: set[str] = set()

    def take(self, records: Iterable[ConsumerRecord[Any, Any]]) -> bool:
        """Take in records of the hosts topic; whether another version is ready now."""
        before = self._once | self._ready.keys()
        for record in records:
            try:
                self._take(record)
            except UndecodableRecord as error:
                key = (record.key or b"")[:SHOWN_BYTES].decode("utf-8", "replace")
                event(logger, "host report ignored", logging.WARNING, key=key, offset=record.offset, reason=error)
        return self._once | self._ready.keys() != before

    def is_ready(self, ref: str) -> bool:
        """Whether the version may be asked."""
        return ref in self._once or ref in self._ready

    def forget(self, ref: str) -> None:
        """The version is retired: it is ready while a host of it still says so, and again when one says so anew."""
        self._once.discard(ref)

    def hosts(self, ref: str) -> int:
        """How many hosts of the version say that they are ready."""
        return len(self._ready.get(ref, ()))

    def _take(self, record: ConsumerRecord[Any, Any]) -> None:
        key = record.key or b""
        ref = key.decode("utf-8", "replace").partition("/")[0]
        ready = False
        if record.value:
            report = codec.host_reports.decode(record.value, record.headers)
            if report_key(report.model, report.instance) != key:
                raise UndecodableRecord(f"the value is about host {report.instance!r} of {report.model!r}")
            ready = report.state == "ready"
        if ready:
            self._ready.setdefault(ref, set()).add(key)
            self._once.add(ref)
        elif ref in self._ready:
            self._ready[ref].discard(key)
            if not self._ready[ref]:
                del self._ready[ref]
