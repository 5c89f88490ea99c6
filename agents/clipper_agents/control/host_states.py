"""What hosts say of themselves on the hosts topic, read from outside."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.admin import unreachable
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.kafka.whole_topic import committed_consumer, whole_partitions
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
    consumer = committed_consumer(connection)
    try:
        await consumer.start()
        return await _reports(consumer, catalogue)
    except KafkaError as error:
        raise await unreachable(connection, error) from error
    finally:
        await consumer.stop()


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
    consumer = committed_consumer(connection)
    try:
        await consumer.start()
        before = [each for each in (await _reports(consumer, catalogue)).values() if each.model == ref]
        for report in before:
            on_report(report)
        ready = [each for each in before if each.state == "ready"]
        if ready:
            return ready[0]
        async with asyncio.timeout(within_s):
            async for report in _new_reports(consumer, ref):
                on_report(report)
                if report.state in {"ready", "failed"}:
                    return report
    except TimeoutError:
        return None
    except KafkaError as error:
        raise await unreachable(connection, error) from error
    finally:
        await consumer.stop()
    return None


async def _new_reports(consumer: AIOKafkaConsumer, ref: str) -> AsyncIterator[HostReport]:
    async for record in consumer:
        report = _report(record)
        if report is not None and report.model == ref:
            yield report


async def _reports(consumer: AIOKafkaConsumer, catalogue: Catalogue) -> dict[bytes, HostReport]:
    found: dict[bytes, HostReport] = {}
    for record in await whole_partitions(consumer, [TopicPartition(catalogue.hosts, 0)]):
        found.pop(record.key or b"", None)
        if report := _report(record):
            found[record.key or b""] = report
    return found


def _report(record: ConsumerRecord[Any, Any]) -> HostReport | None:
    """The report; None for a host that has left, and for what is no report or under another key."""
    try:
        report = codec.host_reports.decode(record.value, record.headers)
    except UndecodableRecord:
        return None
    return report if record.key == report_key(report.model, report.instance) else None
