"""Host reports on the hosts topic, and which model versions have a host that serves.

Rules of this file:
- Key and value name the same host; what is refused leaves what the host said before. Anybody who may write to the
  topic can say anything.
- A version that was ready once stays so for a router until it is forgotten, though its hosts may drain, restart or
  crash. A query that they do not answer in time has the default at its deadline, and the policy learns from it;
  candidates that came and went with every restart would change what the policy chooses from each time, and its
  probabilities with it.
- A version that was never ready since a router started is not asked: what cannot be loaded costs no answer.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from clipper_agents.control.state import shown_key
from clipper_agents.kafka.reader import FOLLOW_WAIT_S, Record, open_reader
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.observability.logging import event
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.host_report import HostReport, report_key

logger = logging.getLogger(__name__)

OnReport = Callable[[HostReport], None]


class HostStates:
    """The newest report of each host: the one fold of the hosts topic.

    Attributes:
        reports: By key, the newest last.
    """

    def __init__(self) -> None:
        self.reports: dict[bytes, HostReport] = {}

    def apply(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> HostReport | None:
        """Take one record in, and return its report; for a host that has left (an empty value), its last report.

        Raises:
            UndecodableRecord: no report, or one of another host than the key names.
        """
        name = key or b""
        if not value:
            return self.reports.pop(name, None)
        report = codec.host_reports.decode(value, headers)
        if report_key(report.model, report.instance) != name:
            raise UndecodableRecord(f"the value is about host {report.instance!r} of {report.model!r}")
        self.reports.pop(name, None)
        self.reports[name] = report
        return report

    def take(self, records: Iterable[Record]) -> None:
        """Take records in; what is no report is left out."""
        for record in records:
            with contextlib.suppress(UndecodableRecord):
                self.apply(record.key, record.value, record.headers)


class ReadyHosts:
    """Model versions that have a host that serves, or had one since this process started."""

    def __init__(self) -> None:
        self._hosts = HostStates()
        self._serving: Counter[str] = Counter()
        self._once: set[str] = set()

    def take(self, records: Iterable[Record]) -> bool:
        """Take in records of the hosts topic, and return whether the set of ready versions has changed."""
        before = self._once | self._serving.keys()
        for record in records:
            try:
                report = self._hosts.apply(record.key, record.value, record.headers)
            except UndecodableRecord as error:
                about = {"key": shown_key(record.key), "offset": record.offset, "reason": error}
                event(logger, "host report ignored", logging.WARNING, **about)
                continue
            if record.value and report is not None and report.state == "ready":
                self._once.add(report.model)
        self._serving = Counter(each.model for each in self._hosts.reports.values() if each.state == "ready")
        return self._once | self._serving.keys() != before

    def is_ready(self, ref: str) -> bool:
        return ref in self._once or ref in self._serving

    def forget(self, ref: str) -> None:
        """Forget that the version was ready once: from now on it is ready only while a host of it says so."""
        self._once.discard(ref)

    def hosts(self, ref: str) -> int:
        return self._serving[ref]


async def read_reports(connection: KafkaConnection, catalogue: Catalogue) -> dict[bytes, HostReport]:
    """Return the newest report of each host by its key; an empty dictionary when there is no hosts topic."""
    if catalogue.hosts not in await existing_topics(connection, catalogue.prefix):
        return {}
    hosts = HostStates()
    async with open_reader(connection) as reader:
        hosts.take(await reader.read_all([TopicPartition(catalogue.hosts, 0)]))
    return hosts.reports


async def wait_for_host(
    connection: KafkaConnection,
    catalogue: Catalogue,
    ref: str,
    within_s: float,
    on_report: OnReport,
    before: Mapping[bytes, HostReport],
) -> HostReport | None:
    """Wait until a host of a version is ready, or a new report says that one has failed, and return that report.

    None when there was none in time. A failure that is among the reports from `before` does not end it: a host may be
    about to start again. `on_report` is called with each report about the version that is the newest of its host.
    """
    hosts, end_s = HostStates(), time.monotonic() + within_s
    async with open_reader(connection, fetch_wait_s=FOLLOW_WAIT_S) as reader:
        await reader.follow(await reader.beginning_offsets([TopicPartition(catalogue.hosts, 0)]))
        known: dict[bytes, HostReport] = {}
        while (left_s := end_s - time.monotonic()) > 0:
            for records in (await reader.fetch(wait_s=min(FOLLOW_WAIT_S, left_s))).values():
                hosts.take(records)
            if reader.behind:
                continue
            news = [(key, one) for key, one in hosts.reports.items() if one.model == ref and one is not known.get(key)]
            known = dict(hosts.reports)
            for _, one in news:
                on_report(one)
            ready = [one for _, one in news if one.state == "ready"]
            if ended := ready or [one for key, one in news if one.state == "failed" and one != before.get(key)]:
                return ended[0]
    return None
