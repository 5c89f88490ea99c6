"""What hosts say of themselves on the hosts topic, read from outside."""

import asyncio
import time
from collections.abc import Callable, Iterable

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import Record, open_reader
from clipper_agents.kafka.retry import COMMANDS, TIMEOUT_S
from clipper_agents.kafka.tailer import POLL_S, TopicTailer, open_tailer
from clipper_agents.kafka.topics import existing_topics
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.host_report import HostReport, report_key

OnReport = Callable[[HostReport], None]


async def read_reports(connection: KafkaConnection, catalogue: Catalogue) -> dict[bytes, HostReport]:
    """The newest report of each host, by its key; none where there is no such topic.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    if catalogue.hosts not in await existing_topics(connection, catalogue.prefix):
        return {}
    reports: dict[bytes, HostReport] = {}
    async with open_reader(connection, isolation_level="read_committed") as reader:
        _take_reports(reports, await reader.read_all([TopicPartition(catalogue.hosts, 0)]))
    return reports


async def wait_for_host(
    connection: KafkaConnection, catalogue: Catalogue, ref: str, within_s: float, on_report: OnReport
) -> HostReport | None:
    """Wait until a host of a version is ready, or a new report says that one has failed.

    Args:
        connection: How to reach the brokers.
        catalogue: Of the deployment.
        ref: The version, `name:version`.
        within_s: How long, in seconds.
        on_report: Called with each report about the version, those from before first.

    Returns:
        The report that ended it; None when there was none in time. A failure from before does not end it: a host
        may be about to start again.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    hosts = [TopicPartition(catalogue.hosts, 0)]
    async with open_tailer(connection, isolation_level="read_committed", policy=COMMANDS) as tailer:
        await tailer.begin(hosts)
        reports: dict[bytes, HostReport] = {}
        async with asyncio.timeout(TIMEOUT_S):
            while tailer.behind:
                for records in (await tailer.poll()).values():
                    _take_reports(reports, records)
        before = [each for each in reports.values() if each.model == ref]
        for report in before:
            on_report(report)
        ready = [each for each in before if each.state == "ready"]
        return ready[0] if ready else await _new_report(tailer, ref, within_s, on_report)


async def _new_report(tailer: TopicTailer, ref: str, within_s: float, on_report: OnReport) -> HostReport | None:
    """The first report of a version that says it is ready or has failed; None when there is none in time."""
    end_s = time.monotonic() + within_s
    while (left_s := end_s - time.monotonic()) > 0:
        for records in (await tailer.poll(wait_s=min(POLL_S, left_s))).values():
            for report in filter(None, map(_report, records)):
                if report.model == ref:
                    on_report(report)
                    if report.state in {"ready", "failed"}:
                        return report
    return None


def _take_reports(found: dict[bytes, HostReport], records: Iterable[Record]) -> None:
    for record in records:
        found.pop(record.key or b"", None)
        if report := _report(record):
            found[record.key or b""] = report


def _report(record: Record) -> HostReport | None:
    """The report; None for a host that has left, and for what is no report or under another key."""
    try:
        report = codec.host_reports.decode(record.value, record.headers)
    except UndecodableRecord:
        return None
    return report if record.key == report_key(report.model, report.instance) else None
