"""Makes the logs of a deployment anew together, when one of them was deleted and created again.

Rules of this file:
- What was made anew already stays: its records are answered, or learned, once the others are new.
- The changelog, which says what refers to which topic, goes last: a renewal that was broken off can be repeated.
"""

from collections.abc import Iterable, Mapping

from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.reader import Record, read_topic
from clipper_agents.kafka.topic_ids import read_topic_ids
from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import read_row


def replaced_logs(catalogue: Catalogue, noted: Iterable[tuple[bytes, ...]], now: Mapping[str, bytes]) -> list[str]:
    """Return the logs that are other ones than rows and answers refer to.

    `noted` are the ids of all logs beside the position of each partition, `now` those of the topics that there are.
    """
    by_log = zip(catalogue.logs, zip(*noted, strict=True), strict=False)
    return [name for name, ids in by_log if {*ids} != {now.get(name)}]


async def read_replaced_logs(connection: KafkaConnection, catalogue: Catalogue) -> list[str]:
    """Return the logs that were deleted since answers and rows refer to them; errors as of `read_topic`."""
    noted: dict[int, tuple[bytes, ...]] = {}

    def take(records: list[Record]) -> None:
        for record in records:
            key, row = read_row(record.key, record.value) or (None, None)
            if key is not None and row is not None and row.topic_ids:
                noted[key.partition] = row.topic_ids

    await read_topic(connection, catalogue, catalogue.selection_changelog, take)
    async with administration(connection) as admin:
        now = await read_topic_ids(admin._client, catalogue.logs)
    return replaced_logs(catalogue, noted.values(), now)


async def renew_logs(
    connection: KafkaConnection, catalogue: Catalogue, replaced: Iterable[str], replication_factor: int
) -> list[str]:
    """Make all logs anew but those that were `replaced`, and what was learned from them; return their names."""
    earlier = [name for name in catalogue.logs if name not in set(replaced)]
    learned = [catalogue.selection, catalogue.selection_changelog]
    for names in (earlier, learned):
        await delete_topics(connection, names)
        await ensure_topics(connection, catalogue, replication_factor=replication_factor)
    return [*earlier, *learned]
