"""The selection state of an application at a moment: what a change keeps, so that a rollback can bring it back."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clipper_agents.kafka.whole_topic import whole_partitions
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import SavedRow
from clipper_topics.selection_rows import ROW_VERSION, RowKey, SelectionRow

log = logging.getLogger(__name__)

MOST_ROWS = 1_000
WITHIN_S = 10.0
"""For the changelog of all applications. One that takes longer belongs to a deployment with very many contexts, of
which a change would keep no rows anyway."""

_keys = msgspec.msgpack.Decoder(RowKey)
_rows = msgspec.msgpack.Decoder(SelectionRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far feedback was, and what had been learned from it.

    Attributes:
        feedback_ends: End of each partition of the feedback topic.
        rows: By application; without one whose rows are too many to keep.
    """

    feedback_ends: tuple[int, ...] = ()
    rows: Mapping[str, list[SavedRow]] = field(default_factory=dict)


NO_MOMENT = Moment()


async def read_moment(
    consumer: AIOKafkaConsumer, catalogue: Catalogue, topics: Mapping[str, int], applications: Iterable[str]
) -> Moment:
    """The moment now.

    Args:
        consumer: Started; what it is assigned is changed.
        catalogue: Of the deployment.
        topics: Partitions of the topics that exist, by name.
        applications: Whose rows are wanted; none: the changelog is not read.

    Raises:
        KafkaError: no broker answers, or a right is missing.
    """
    feedback = _partitions(catalogue.feedback, topics)
    ends = await consumer.end_offsets(feedback) if feedback else {}
    rows = await _within_time(consumer, _partitions(catalogue.selection_changelog, topics), list(applications))
    return Moment(feedback_ends=tuple(ends[tp] for tp in feedback), rows=rows)


async def _within_time(
    consumer: AIOKafkaConsumer, changelog: list[TopicPartition], applications: list[str]
) -> dict[str, list[SavedRow]]:
    if not applications or not changelog:
        return {}
    try:
        async with asyncio.timeout(WITHIN_S):
            records = await whole_partitions(consumer, changelog)
    except TimeoutError:
        log.warning("the selection state was not read within %.0f s: this change keeps none", WITHIN_S)
        return {}
    return saved_rows(records, applications)


def saved_rows(records: Iterable[ConsumerRecord[Any, Any]], applications: Iterable[str]) -> dict[str, list[SavedRow]]:
    """The newest rows of these applications, by partition and context; without those that have too many.

    Of two rows with one key the one of the later feedback counts, as for the routers' table.
    """
    found: dict[str, dict[RowKey, SelectionRow]] = {name: {} for name in applications}
    for record in records:
        read = row_of(record)
        if read is not None and (rows := found.get(read[0].application)) is not None:
            key, row = read
            there = rows.get(key)
            if there is None or there.offset <= row.offset:
                rows[key] = row
    return {name: _saved(rows) for name, rows in found.items() if len(rows) <= MOST_ROWS}


def _saved(rows: Mapping[RowKey, SelectionRow]) -> list[SavedRow]:
    ordered = sorted(rows.items(), key=lambda item: (item[0].partition, item[0].context is not None, item[0].context))
    return [saved_row(key, row) for key, row in ordered]


def row_of(record: ConsumerRecord[Any, Any]) -> tuple[RowKey, SelectionRow] | None:
    """The row of a changelog record; None for one that nobody wrote who knows the table."""
    try:
        key = _keys.decode(record.key or b"")
        row = None if record.value is None else _rows.decode(record.value)
    except ValueError:
        return None
    return None if row is None or row.version != ROW_VERSION else (key, row)


def saved_row(key: RowKey, row: SelectionRow) -> SavedRow:
    """A row as it can be kept."""
    totals = {one.model: (one.count, one.loss, one.weighted_count, one.weighted_loss) for one in row.totals}
    moments = {one.model: one.moments for one in row.totals if one.moments}
    return SavedRow(partition=key.partition, context=key.context, totals=totals, moments=moments)


def _partitions(topic: str, topics: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(topics.get(topic, 0))]
