"""One order for the records of several partitions: the same live, from the past, and from the past again.

Intervals depend on the order of what they are made of, so a fold that a restart has to come to again needs an order
that does not depend on which fetch came first: by the broker's timestamp, then topic, partition and offset.

Rules of this file:
- A record is released once nothing can come before it: every other partition has a later one waiting, or was at its end
  when the broker's clock was past the record.
- Within a partition time does not go back: a record counts as no older than the one before.
- Topics whose records have their producers' timestamps (`CreateTime`) still have one order when they are read from the
  past; live, a record may come later than its place, and then an interval may differ in its last digits.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import TypeAlias

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import Record

_Key: TypeAlias = tuple[int, int, int, int]


class TimeOrder:
    """Records that wait for their place; in one millisecond the partition with the lower rank is first."""

    def __init__(self, ranks: Mapping[TopicPartition, int]) -> None:
        self._ranks = dict(ranks)
        self._waiting: dict[TopicPartition, deque[tuple[_Key, Record]]] = {tp: deque() for tp in ranks}
        self._last_ms: dict[TopicPartition, int] = dict.fromkeys(ranks, 0)
        self.newest_ms = 0
        """Timestamp of the newest record so far."""

    def add(self, tp: TopicPartition, records: Sequence[Record]) -> None:
        """Records of one partition, in log order."""
        waiting, rank, at_ms = self._waiting[tp], self._ranks[tp], self._last_ms[tp]
        for record in records:
            at_ms = max(at_ms, record.timestamp)
            waiting.append(((at_ms, rank, tp.partition, record.offset), record))
        self._last_ms[tp] = at_ms
        self.newest_ms = max(self.newest_ms, at_ms)

    def waiting(self, tp: TopicPartition) -> int:
        return len(self._waiting[tp])

    def release(self, at_end: set[TopicPartition], sure_ms: float) -> Iterator[tuple[int, Record]]:
        """Records whose turn it is, each with its time in milliseconds.

        The partitions `at_end` were read to an end that the broker named when its clock had passed `sure_ms`: nothing
        older can come there.
        """
        if any(not waiting and tp not in at_end for tp, waiting in self._waiting.items()):
            return
        heads = [(waiting[0][0], tp) for tp, waiting in self._waiting.items() if waiting]
        heapify(heads)
        bound = sure_ms if len(heads) < len(self._waiting) else float("inf")
        while heads and heads[0][0][0] < bound:
            tp = heads[0][1]
            waiting = self._waiting[tp]
            key, record = waiting.popleft()
            yield key[0], record
            if waiting:
                heapreplace(heads, (waiting[0][0], tp))
            elif tp in at_end:
                heappop(heads)
                bound = sure_ms
            else:
                return
