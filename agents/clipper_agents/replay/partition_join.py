"""The join of one partition: predictions, audits and feedback go in as they are read, finished columns come out.

Rules of this file:
- Of several predictions about a query of the application the first is the decision, and the first feedback about it
  that can be used counts. Feedback that names no application is about the first decision under its id, whosever it is.
- The id of a query is never forgotten: a second prediction about it is a repetition, however late. That of a decision
  which is not wanted (another application's, or before the span) is kept as well, so that feedback about the decision
  is not taken for an orphan.
- Feedback and audits may be read before their prediction: they wait for it until the end of the reading.
- A chunk is finished once everything was read that may still be about it: up to the horizon behind its last decision.
- How much fits into memory changes nothing but the speed.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from clipper_agents.replay.chunk import ChunkBuilder
from clipper_agents.replay.chunk_columns import columns_of
from clipper_agents.replay.chunk_spill import WaitingChunks
from clipper_agents.replay.patches import FeedbackPatch, OrphanBuffer, audit_patch
from clipper_agents.replay.spill_store import SpillingDict
from clipper_agents.replay.wire import (
    UNSAID,
    LeanAudit,
    LeanFeedback,
    LeanPrediction,
    ListDecoder,
    Record,
    given_loss,
)
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.feedback import FORWARDED, said_at_ms
from clipper_topics.query_ids import partition_of
from clipper_topics.restore import restore_id_of

CHUNK_ROWS = 65_536
MOST_IN_MEMORY = 262_144
"""Decisions of a partition that wait in memory, ids and patches likewise: about 150 MB."""

NOT_WANTED = -1
"""Stands for the number of a decision of the application that is not read."""
OTHERS = -2
"""Stands for that of another application's decision."""
_FIRST, _OWN = "first ", "own "
_NUMBER = struct.Struct("<q")

_Told: TypeAlias = tuple[Record, LeanFeedback, float | None]
"""A feedback, and the loss that it gives instead of a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRules:
    """What is joined, how labels are scored, and how much stays in memory.

    Attributes:
        application: Whose decisions are wanted.
        loss_kind: How a label is compared with an output.
        horizon_ms: How long after its decision a feedback still counts.
        partitions: Of the feedback topic.
        chunk_rows: Decisions in a chunk.
        most_in_memory: Decisions, ids and patches in memory, each.
    """

    application: str
    loss_kind: str
    horizon_ms: float = float("inf")
    partitions: int = 1
    chunk_rows: int = CHUNK_ROWS
    most_in_memory: int = MOST_IN_MEMORY


class PartitionJoin:
    """Joins predictions, audits and feedback of one partition.

    Args:
        partition: Number of the partition.
        rules: Rules of the join.
        first_offset: First wanted prediction; of earlier ones only the ids are kept.
        folder: Empty folder for what does not fit into memory.

    Attributes:
        counts: Counts of records by outcome, with the names in `docs/reference/replay-files.md`.
    """

    def __init__(self, partition: int, rules: JoinRules, first_offset: int, folder: Path) -> None:
        self._partition, self._rules, self._first_offset = partition, rules, first_offset
        self._ids = SpillingDict[int](folder / "ids", _NUMBER.pack, lambda content: int(_NUMBER.unpack(content)[0]))
        self._behind = SpillingDict[int](
            folder / "behind", _NUMBER.pack, lambda content: int(_NUMBER.unpack(content)[0])
        )
        """Numbers of decisions of the application whose id another one used first."""
        self._chunks = WaitingChunks(folder, rules.chunk_rows, rules.most_in_memory)
        self._early = OrphanBuffer(folder / "early", rules.most_in_memory)
        """By id with `_FIRST` before it what waits for the first decision, with `_OWN` for that of the application."""
        self._builder, self._next_row = ChunkBuilder(0), 0
        self._predictions = ListDecoder(LeanPrediction)
        self._audits = ListDecoder(LeanAudit)
        self._feedback = ListDecoder(LeanFeedback)
        self.counts: Counter[str] = Counter()

    def close(self) -> None:
        """Close the files."""
        self._ids.close()
        self._behind.close()
        self._early.close()

    def predictions(self, records: Sequence[Record]) -> None:
        """Take in predictions, in log order."""
        found = self._predictions.decode(records)
        recent, known, row = self._ids.recent, self._known_on_disk(found), self._next_row
        application, first = self._rules.application, self._first_offset
        kept: list[Record] = []
        wanted: list[LeanPrediction] = []
        for record, one in zip(records, found, strict=True):
            if one is None:
                self.counts["undecodable"] += 1
                continue
            own, before = one.application == application, recent.get(one.query_id, known.get(one.query_id))
            if before is not None and (not own or before != OTHERS or self._number_behind(one.query_id) is not None):
                self.counts["repeated"] += own
                continue
            numbers = recent if before is None else self._behind.recent
            if own and record.offset >= first:
                numbers[one.query_id] = row
                row += 1
                kept.append(record)
                wanted.append(one)
            else:
                numbers[one.query_id] = NOT_WANTED if own else OTHERS
        self._next_row = row
        self._build(kept, wanted)
        if self._early:
            behind = self._behind.recent
            self._deliver(
                [one.query_id for one in found if one and (one.query_id not in known or one.query_id in behind)]
            )
        self._spill()

    def audits(self, records: Sequence[Record]) -> None:
        """Take in audits, in log order."""
        pairs = zip(records, self._audits.decode(records), strict=True)
        found = [(record, one) for record, one in pairs if one is not None]
        self.counts["undecodable"] += len(records) - len(found)
        for (record, one), row in zip(found, self._rows_of([one.query_id for _, one in found]), strict=True):
            if row is None:
                self._early.put(_OWN + one.query_id, audit_patch(NOT_WANTED, record, one))
            elif row != NOT_WANTED and (patches := self._chunks.patches(row)) is not None:
                patches.audits.append(audit_patch(row, record, one))
        self._chunks.tidy(len(found))

    def feedback(self, records: Sequence[Record]) -> None:
        """Take in feedback, in log order."""
        told = self._told(records)
        unknown = self._put(told, map(self._ids.recent.get, [one.query_id for _, one, _ in told]))
        if unknown and self._ids.on_disk:
            unknown = self._put(unknown, self._ids.older([one.query_id for _, one, _ in unknown]))
        for record, one, given in unknown:
            self._unknown(record, one, given)
        self._chunks.tidy(len(told))

    def finished(self, read_upto_ms: float) -> Iterator[DecisionColumns]:
        """Return the chunks about which no further record can come.

        Args:
            read_upto_ms: Time up to which all audits and feedback have been taken in, milliseconds since the epoch.
        """
        return self._left(read_upto_ms - self._rules.horizon_ms)

    def end(self) -> Iterator[DecisionColumns]:
        """Return the remaining chunks after everything has been read."""
        if len(self._builder):
            self._close_chunk()
        self.counts["orphans"] += self._early.feedback_left
        return self._left(float("inf"))

    def _left(self, before_ms: float) -> Iterator[DecisionColumns]:
        rules = self._rules
        while (left := self._chunks.leave(before_ms)) is not None:
            chunk, patches = left
            audits, feedback = patches.all()
            counts, kind, horizon_ms = self.counts, rules.loss_kind, rules.horizon_ms
            columns = columns_of(chunk, self._partition, audits, feedback, kind, horizon_ms, counts)
            counts["decisions"] += len(columns)
            yield columns

    def _known_on_disk(self, found: Sequence[LeanPrediction | None]) -> dict[str, int]:
        """Return the numbers of decisions, by id, whose first prediction was read long ago and is on disk."""
        if not self._ids.on_disk:
            return {}
        recent = self._ids.recent
        ids = [one.query_id for one in found if one is not None and one.query_id not in recent]
        return {query_id: row for query_id, row in zip(ids, self._ids.older(ids), strict=True) if row is not None}

    def _spill(self) -> None:
        most = self._rules.most_in_memory
        for numbers in (self._ids, self._behind):
            if len(numbers.recent) > most:
                numbers.spill(kept=most // 2)

    def _number_behind(self, query_id: str) -> int | None:
        """Return the number of the application's decision under an id that another one used first; None without one."""
        found = self._behind.recent.get(query_id)
        return self._behind.older([query_id])[0] if found is None else found

    def _build(self, records: Sequence[Record], wanted: Sequence[LeanPrediction]) -> None:
        while wanted:
            fitting = self._rules.chunk_rows - len(self._builder)
            self._builder.add(records[:fitting], wanted[:fitting])
            records, wanted = records[fitting:], wanted[fitting:]
            if len(self._builder) == self._rules.chunk_rows:
                self._close_chunk()

    def _close_chunk(self) -> None:
        chunk = self._builder.close()
        self._chunks.add(chunk)
        self._builder = ChunkBuilder(chunk.first_row + len(chunk))

    def _rows_of(self, ids: Sequence[str]) -> list[int | None]:
        """Return the number of the application's decision under each id, `NOT_WANTED`, or None without one."""
        get = self._ids.recent.get
        rows = [get(one) for one in ids]
        if self._ids.on_disk:
            unknown = [place for place, row in enumerate(rows) if row is None]
            for place, row in zip(unknown, self._ids.older([ids[one] for one in unknown]), strict=True):
                rows[place] = row
        return [self._number_behind(one) if row == OTHERS else row for one, row in zip(ids, rows, strict=True)]

    def _told(self, records: Sequence[Record]) -> list[_Told]:
        """Return the valid feedback, without markers of restores."""
        if any(record.headers for record in records):
            plain = [one for one in records if not one.headers or restore_id_of(one.headers) is None]
            self.counts["markers"] += len(records) - len(plain)
            records = plain
        told: list[_Told] = []
        add = told.append
        for record, one in zip(records, self._feedback.decode(records), strict=True):
            if one is None or not one.query_id:
                continue
            if one.loss is None and one.reward is None:
                if one.label is not UNSAID:
                    add((record, one, None))
            elif (one.label is UNSAID or one.label is None) and (given := given_loss(one)) is not None:
                add((record, one, given))
        self.counts["undecodable"] += len(records) - len(told)
        self.counts["feedback"] += len(told)
        return told

    def _put(self, told: Sequence[_Told], rows: Iterable[int | None]) -> list[_Told]:
        """Keep feedback about known decisions, and return the rest; `rows` has the number of the first of each id."""
        per_chunk, application, unknown = self._rules.chunk_rows, self._rules.application, []
        last, patches = -1, None
        for (record, one, given), first in zip(told, rows, strict=True):
            row = first
            if first == OTHERS and one.application == application:
                row = self._number_behind(one.query_id)
            if row is None:
                unknown.append((record, one, given))
            elif row < 0 or (one.application is not None and one.application != application):
                self.counts["not_wanted"] += 1
            else:
                if row // per_chunk != last:
                    last, patches = row // per_chunk, self._chunks.patches(row)
                if patches is None:
                    self.counts["late"] += 1
                else:
                    label, said_ms = one.label if given is None else None, said_at_ms(record.timestamp, record.headers)
                    patches.feedback.append((row, record.offset, said_ms, label, given, one.context))
        return unknown

    def _unknown(self, record: Record, one: LeanFeedback, given: float | None) -> None:
        """Count or keep feedback without a decision: of another partition or application, or read too early."""
        named = partition_of(one.query_id)
        elsewhere = named is not None and named != self._partition and named < self._rules.partitions
        if elsewhere and not any(name == FORWARDED for name, _ in record.headers):
            self.counts["forwarded"] += 1
        elif one.application is not None and one.application != self._rules.application:
            self.counts["not_wanted"] += 1
        else:
            label, said_ms = one.label if given is None else None, said_at_ms(record.timestamp, record.headers)
            patch = FeedbackPatch(NOT_WANTED, record.offset, said_ms, label, given, one.context)
            self._early.put((_FIRST if one.application is None else _OWN) + one.query_id, patch)

    def _deliver(self, ids: Sequence[str]) -> None:
        """Hand audits and feedback that waited for these queries to their decisions."""
        rows = {_FIRST + query_id: self._ids.recent[query_id] for query_id in ids if query_id in self._ids.recent}
        rows |= {_OWN + query_id: row for query_id, row in zip(ids, self._rows_of(ids), strict=True) if row is not None}
        for name, waiting in self._early.take(list(rows)).items():
            row = rows[name]
            patches = None if row < 0 else self._chunks.patches(row)
            for one in waiting:
                if patches is None:
                    self.counts["not_wanted"] += isinstance(one, FeedbackPatch)
                elif isinstance(one, FeedbackPatch):
                    patches.feedback.append(one._replace(row=row))
                else:
                    patches.audits.append(one._replace(row=row))
