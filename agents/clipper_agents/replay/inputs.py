"""The inputs of decisions: what the queries asked, read from their topic for a chunk at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from clipper_agents.kafka.admin import TIMEOUT_S
from clipper_agents.replay.partition_reader import AT_ONCE, FETCH_MS
from clipper_agents.replay.values import text_of
from clipper_agents.replay.wire import UNSAID, LeanQuery, ListDecoder, Record
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.catalogue import Catalogue


class InputReader:
    """Reads the queries of one partition.

    Args:
        consumer: Started, by `logs_consumer`; what it is assigned is changed.
        catalogue: Of the deployment.
        partition: Its number.
    """

    def __init__(self, consumer: AIOKafkaConsumer, catalogue: Catalogue, partition: int) -> None:
        self._consumer: Any = consumer
        self._tp = TopicPartition(catalogue.queries, partition)
        self._decoder = ListDecoder(LeanQuery)

    async def of(self, columns: DecisionColumns) -> tuple[str | None, ...]:
        """Of each decision `{"input": ...}`, or `{"inputs": [...]}` of several rows, as JSON; None where it is gone.

        Raises:
            KafkaError: the broker refuses.
            TimeoutError: nothing came for `TIMEOUT_S` seconds.
        """
        wanted: dict[int, str | None] = dict.fromkeys(columns.query_offset.tolist())
        wanted.pop(-1, None)
        if wanted:
            await self._read(wanted)
        return tuple(wanted.get(offset) for offset in columns.query_offset.tolist())

    async def _read(self, wanted: dict[int, str | None]) -> None:
        tp, consumer = self._tp, self._consumer
        low = (await consumer.beginning_offsets([tp]))[tp]
        end = min(max(wanted) + 1, (await consumer.end_offsets([tp]))[tp])
        at = max(low, min(wanted))
        consumer.assign([tp])
        consumer.seek(tp, at)
        while at < end:
            before = at
            async with asyncio.timeout(TIMEOUT_S):
                while at == before:
                    self._take(
                        (await consumer.getmany(tp, timeout_ms=FETCH_MS, max_records=AT_ONCE)).get(tp, []), wanted
                    )
                    at = await consumer.position(tp)

    def _take(self, records: Sequence[Record], wanted: dict[int, str | None]) -> None:
        own = [record for record in records if record.offset in wanted]
        for record, query in zip(own, self._decoder.decode(own), strict=True):
            wanted[record.offset] = None if query is None else _text(query)


def _text(query: LeanQuery) -> str | None:
    """The field with the row, or the rows, as one JSON object."""
    if query.inputs is not UNSAID:
        return text_of({"inputs": query.inputs})
    return None if query.input is msgspec.UNSET else text_of({"input": query.input})
