"""Reads some of the records of logs that are written faster than they are to be read.

Rules of this file:
- Each topic has a budget of so many records a second, of which a second's worth is saved up. While that suffices, every
  record is read.
- Where it does not, each partition is read for its part of the budget, and on from where its log ended at the last
  fetch. What was read stands for what was skipped too.
- How far a log has grown is known from the last fetch, and fetches are small, so what is skipped is mostly never sent.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader, Record


class LogSampler:
    """Reads topics as far as their budgets go, and whatever else the reader has assigned whole."""

    def __init__(self, reader: LogReader, topics: Iterable[str], per_s: int) -> None:
        self._reader, self._per_s = reader, per_s
        self._budgets = dict.fromkeys(topics, float(per_s))
        self._skipped: Counter[TopicPartition] = Counter()
        """Offsets that no record stands for yet."""
        self._at_s = 0.0

    async def read(self, now_s: float) -> list[tuple[TopicPartition, Sequence[Record], float]]:
        """What was fetched of each partition, in log order, and for how many records each of these stands."""
        reader, starts = self._reader, dict(self._reader.positions)
        earned, self._at_s = self._per_s * min(1.0, now_s - self._at_s), now_s
        self._budgets = {topic: min(self._per_s, left + earned) for topic, left in self._budgets.items()}
        ends = {tp: reader.known_end(tp) for tp in starts if tp.topic in self._budgets}
        parts = self._parts({tp: end - starts[tp] for tp, end in ends.items() if end > starts[tp]})
        fetched = await reader.fetch(starts.keys() - parts.keys(), wait_s=0)
        for tp, most in parts.items():
            if most > 0:
                fetched |= await reader.fetch([tp], max_records=most, wait_s=0)
            if (skipped := ends[tp] - reader.positions[tp]) > 0:
                reader.skip_to(tp, ends[tp])
                self._skipped[tp] += skipped
        return [(tp, records, self._weight(tp, records, starts[tp])) for tp, records in fetched.items()]

    def _parts(self, ahead: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """How many records to read of each partition of the topics whose budget does not suffice for all."""
        wanted: Counter[str] = Counter()
        for tp, offsets in ahead.items():
            wanted[tp.topic] += offsets
        shares = {topic: self._budgets[topic] / offsets for topic, offsets in wanted.items()}
        return {tp: math.ceil(shares[tp.topic] * offsets) for tp, offsets in ahead.items() if shares[tp.topic] < 1}

    def _weight(self, tp: TopicPartition, records: Sequence[Record], start: int) -> float:
        """For how many records each of these stands."""
        if tp.topic in self._budgets:
            self._budgets[tp.topic] -= len(records)
        offsets: int = records[-1].offset + 1 - start
        return 1 + self._skipped.pop(tp, 0) / offsets
