"""The inputs of decisions: what the queries asked, read from their topic for a chunk at a time."""

from collections.abc import Sequence
from contextlib import aclosing

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader, Range
from clipper_agents.replay.partition_reader import AT_ONCE
from clipper_agents.replay.values import text_of
from clipper_agents.replay.wire import UNSAID, LeanQuery, ListDecoder, Record
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.catalogue import Catalogue


class InputReader:
    """Reads the inputs of one partition's queries.

    Args:
        reader: A connected reader that reads nothing else meanwhile.
        catalogue: Topics of the deployment.
        partition: Number of the partition.
    """

    def __init__(self, reader: LogReader, catalogue: Catalogue, partition: int) -> None:
        self._reader = reader
        self._tp = TopicPartition(catalogue.queries, partition)
        self._decoder = ListDecoder(LeanQuery)

    async def of(self, columns: DecisionColumns) -> tuple[str | None, ...]:
        """Return the input of each decision as JSON, `{"input": ...}` or `{"inputs": [...]}`; None if it is deleted.

        Raises:
            KafkaError: the broker refuses.
            TimeoutError: no record came within the reader's patience.
        """
        wanted: dict[int, str | None] = dict.fromkeys(columns.query_offset.tolist())
        wanted.pop(-1, None)
        if wanted:
            await self._read(wanted)
        return tuple(wanted.get(offset) for offset in columns.query_offset.tolist())

    async def _read(self, wanted: dict[int, str | None]) -> None:
        there = (await self._reader.ranges([self._tp]))[self._tp]
        asked = Range(max(there.first, min(wanted)), min(there.end, max(wanted) + 1))
        async with aclosing(self._reader.lists({self._tp: asked}, AT_ONCE)) as lists:
            async for _, records in lists:
                self._take(records, wanted)

    def _take(self, records: Sequence[Record], wanted: dict[int, str | None]) -> None:
        own = [record for record in records if record.offset in wanted]
        for record, query in zip(own, self._decoder.decode(own), strict=True):
            wanted[record.offset] = None if query is None else _text(query)


def _text(query: LeanQuery) -> str | None:
    """Return the field with the row or rows as one JSON object."""
    if query.inputs is not None:
        return text_of({"inputs": query.inputs})
    return None if query.input is UNSAID else text_of({"input": query.input})
