"""One partition of the selection table against the fold of its logs.

bounds --> decisions indexed --> [beginning deleted: rows begun from the changelog] --> step by step: folded, compared
       --> rows at the position compared --> feedback between the last equal and the first different row

Rules of this file:
- The verdict is about the rows now. Older rows of the changelog say where a row that differs was equal last.
- Where the beginning of a log was deleted, feedback is folded from the first position on behind which every decision
  must still be there, and every feedback about it: two horizons behind the first record that is.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper_agents.control.state import DeclaredRestore
from clipper_agents.feedback.feedback_step import Restored, Row
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.checkpoints import Checkpoints, LearnedStep
from clipper_agents.replay.decision_index import DecisionIndex
from clipper_agents.replay.entries import EntryReader
from clipper_agents.replay.log_ranges import Cursor, Logs
from clipper_agents.replay.refold import Entry, FoldedConfigs, KnownRows, LearningConfigs, RefoldOutcome, refold
from clipper_agents.replay.verdicts import FeedbackAt, PartitionVerdict, RowMismatch, shown_row
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import EARLY_FEEDBACK_MS, Feedback
from clipper_topics.logged_records import decode_prediction
from clipper_topics.selection_rows import NO_ROW, POSITION, ForgottenContexts, SelectionRow, note_row

MOST_EXPLAINED = 50
"""Rows that differ for which the feedback is looked up, in each partition."""
MOST_SHOWN = 20
"""Feedbacks between two rows that are named; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationInputs:
    """What all partitions share, read once.

    Attributes:
        catalogue: Topics of the deployment.
        configs: The policies and losses of each application.
        restores: Declared restores, by id.
        changelog_ends: End of each partition of the changelog, from before the other logs were looked at.
        horizon_s: How long after its query a feedback counts, in seconds.
        application: The application to verify; None: all.
    """

    catalogue: Catalogue
    configs: Mapping[str, LearningConfigs]
    restores: Mapping[str, DeclaredRestore]
    changelog_ends: Sequence[int]
    horizon_s: float
    application: str | None = None

    def asked(self, place: Row) -> bool:
        """Return whether a row is to be verified."""
        about = place[0] or place[1]
        return self.application is None or about in (None, self.application)


class PartitionFold:
    """Folds the feedback of one partition into rows.

    Args:
        cursor: Reads the feedback.
        reader: Joins feedback with decisions.
        rows: Keeps the rows.
        configs: Knows under which policy and loss each feedback was folded.

    Attributes:
        rows: The rows so far.
        folded: Records so far.
        forgotten: Contexts that were forgotten in the rows.
    """

    def __init__(self, cursor: Cursor, reader: EntryReader, rows: KnownRows, configs: FoldedConfigs) -> None:
        self._cursor, self._reader, self._index = cursor, reader, reader.decisions
        self.rows, self._configs = rows, configs
        self.folded = 0
        self.forgotten: set[ForgottenContexts] = set()

    async def credit(self, upto: int) -> None:
        """Note only which feedback counted, up to and including an offset."""
        async for records in self._cursor.through(upto):
            entries = [one for one in self._reader.entries(records) if isinstance(one.said, Feedback)]
            self._index.credit(self._folded(entries).credited)
        self._configs.unlogged.clear()

    async def forget(self, forgotten: Sequence[ForgottenContexts]) -> None:
        """Fold the feedback before each place where contexts were forgotten, and forget them."""
        for one in forgotten:
            if one not in self.forgotten:
                await self.advance(one.first - 1)
                self.rows.forget_contexts(one.before)
                self.forgotten.add(one)

    async def advance(self, upto: int) -> None:
        """Fold the feedback up to and including an offset."""
        async for records in self._cursor.through(upto):
            self.folded += len(records)
            outcome = self._folded(self._reader.entries(records))
            self.rows.keep(outcome)
            self._index.credit(outcome.credited)

    def _folded(self, entries: Sequence[Entry]) -> RefoldOutcome:
        return refold(entries, self._configs.application, self.rows, self._index)


class PartitionVerifier:
    """Verifies one partition, or folds it up to an offset. An instance is used once.

    Args:
        logs: Source of the records.
        known: What all partitions share.
        partition: Number of the partition.
        folder: Empty folder for the index of decisions; the caller deletes it.

    Attributes:
        table: The table, as far as it has been read.
        since: First feedback offset that is folded.
        parted: Rows that differ from the fold.
    """

    def __init__(self, logs: Logs, known: VerificationInputs, partition: int, folder: Path) -> None:
        self._logs, self._known, self._partition = logs, known, partition
        self._decisions = DecisionIndex(folder / "decisions", known.horizon_s)
        self._audits = DecisionIndex(folder / "audits", known.horizon_s)
        self._reader = EntryReader(known.catalogue, self._decisions, self._audits, known.restores)
        self.table = Checkpoints(partition)
        self.parted: dict[Row, RowMismatch] = {}
        self._configs = FoldedConfigs({}, {})
        self.since = 0
        self._equal: dict[Row, int] = {}
        self._begun: dict[Row, int] = {}
        self._compared = self._end = 0
        self._ready = True

    @property
    def unlogged(self) -> set[str]:
        """Return the applications of which nothing says under which policy and loss their feedback was folded."""
        return self._configs.unlogged

    def close(self) -> None:
        """Close the index."""
        self._decisions.close()
        self._audits.close()

    async def verify(self) -> PartitionVerdict:
        """Fold the partition and compare it with the table."""
        async with self._fold() as fold:
            async for step in self._steps():
                if self._ready:
                    await fold.forget(step.forgotten)
                    await fold.advance(step.position)
                    self._compare(fold, step.rows)
                    self._compared += len(step.rows)
                else:
                    await self._begin(fold, step)
            await self._compare_now(fold)
            return await self._verdict(fold)

    async def rows_at(self, upto: int) -> KnownRows:
        """Return the rows after feedback up to and including an offset; `table` and `since` say which are unknown."""
        async with self._fold() as fold:
            async for step in self._steps():
                if not self._ready:
                    await self._begin(fold, step, upto)
                    continue
                await fold.forget([one for one in step.forgotten if one.first <= upto])
                if step.position <= upto:
                    await fold.advance(step.position)
                    self._compare(fold, step.rows)
            if not self._ready:
                await fold.credit(self.since - 1)
                fold.rows.rows.clear()
            await fold.advance(upto)
            return fold.rows

    @asynccontextmanager
    async def _fold(self) -> AsyncIterator[PartitionFold]:
        catalogue, number = self._known.catalogue, self._partition
        topics = (catalogue.predictions, catalogue.audits, catalogue.feedback)
        bounds = {topic: await self._logs.bounds(topic, number) for topic in topics}
        await self._indexed(catalogue.predictions, bounds, self._reader.add_predictions)
        await self._indexed(catalogue.audits, bounds, self._reader.add_audits)
        start, self._end = bounds[catalogue.feedback]
        self.since = await self._first_certain(bounds)
        self._ready = not self.since
        cursor = Cursor(self._logs.read(catalogue.feedback, number, start, self._end))
        try:
            self._configs = FoldedConfigs(self._known.configs, await self._config_notes())
            yield PartitionFold(cursor, self._reader, KnownRows(whole=self._ready), self._configs)
        finally:
            await cursor.close()

    async def _indexed(
        self, topic: str, bounds: Mapping[str, tuple[int, int]], add: Callable[[list[Record]], None]
    ) -> None:
        async with aclosing(self._logs.read(topic, self._partition, *bounds[topic])) as lists:
            async for records in lists:
                add(records)

    async def _first_certain(self, bounds: Mapping[str, tuple[int, int]]) -> int:
        """Return the first feedback offset whose decisions must all still exist; 0 if no record was deleted."""
        times = [
            await self._first_ms(topic, start, end) if start < end else None
            for topic, (start, end) in bounds.items()
            if start > 0
        ]
        if not times:
            return 0
        known = [at_ms for at_ms in times if at_ms is not None]
        if len(known) < len(times):
            return max(1, self._end)
        at_ms = round(max(known) + 2 * (self._known.horizon_s * 1000 + EARLY_FEEDBACK_MS))
        return max(1, await self._logs.offset_at(self._known.catalogue.feedback, self._partition, at_ms))

    async def _first_ms(self, topic: str, start: int, end: int) -> int | None:
        async with aclosing(self._logs.read(topic, self._partition, start, end)) as lists:
            async for records in lists:
                return int(records[0].timestamp)
        return None

    async def _config_notes(self) -> Mapping[str | None, SelectionRow]:
        """Read where policies and losses took effect, if any application has had several."""
        if all(configs.only is not None for configs in self._known.configs.values()):
            return {}
        table = Checkpoints(self._partition)
        async for _ in self._steps(table):
            pass
        return table.configs

    async def _steps(self, table: Checkpoints | None = None) -> AsyncIterator[LearnedStep]:
        table = self.table if table is None else table
        topic = self._known.catalogue.selection_changelog
        start, _ = await self._logs.bounds(topic, self._partition)
        end = self._known.changelog_ends[self._partition]
        async with aclosing(self._logs.read(topic, self._partition, start, end)) as lists:
            async for records in lists:
                for record in records:
                    step = table.take(record)
                    if step is not None:
                        yield step

    async def _begin(self, fold: PartitionFold, step: LearnedStep, upto: float = math.inf) -> None:
        """Begin with the rows that the table held before the first certain feedback, or in its step.

        Args:
            fold: Not begun.
            step: The next step of the changelog.
            upto: Feedback behind this offset is not folded.
        """
        if step.position < self.since:
            for place, row in step.rows.items():
                self._start(fold, place, row)
            return
        fold.rows.rows |= dict.fromkeys(fold.rows.rows.keys() - self.table.live.keys(), NO_ROW)
        fold.forgotten.update(step.forgotten)
        await fold.credit(self.since - 1)
        await fold.advance(int(min(step.position, upto)))
        self._ready = True
        for place in step.rows:
            if not fold.rows.marked(place):
                fold.rows.forget(place)
        if step.position <= upto:
            self._compare(fold, step.rows)

    def _start(self, fold: PartitionFold, place: Row, row: SelectionRow) -> None:
        fold.rows.start(place, row)
        self._begun[place] = row.offset

    def _unparted(self, rows: Mapping[Row, SelectionRow]) -> dict[Row, SelectionRow]:
        return {place: row for place, row in rows.items() if place not in self.parted and place[0] not in self.unlogged}

    def _compare(self, fold: PartitionFold, rows: Mapping[Row, SelectionRow]) -> None:
        for place, row in rows.items():
            if not fold.rows.known(place):
                self._start(fold, place, row)
            elif fold.rows.equal(place, row):
                fold.rows.counted(place, row)
                self._equal[place] = row.offset
                self.parted.pop(place, None)
            else:
                self._part(fold, place, row)

    def _part(self, fold: PartitionFold, place: Row, row: SelectionRow | None) -> None:
        if place in self.parted or place[0] in self.unlogged or not self._known.asked(place):
            return
        mine = fold.rows.row(place)
        self.parted[place] = RowMismatch(
            application=place[0],
            context=place[1],
            partition=self._partition,
            last_equal=self._equal.get(place),
            first_different=mine.offset if row is None else row.offset,
            table=shown_row(row),
            logs=shown_row(mine if mine.offset >= 0 else None),
        )

    async def _compare_now(self, fold: PartitionFold) -> None:
        """Compare the newest rows at the position, then the rows behind it, each at its own offset."""
        live, position = self.table.live, self.table.position
        if not self._ready:
            self.since = self._end
            for place, row in live.items():
                self._start(fold, place, row)
            return
        self._compare(fold, {place: row for place, row in live.items() if place != POSITION and row.offset <= position})
        for place, row in [(place, row) for place, row in fold.rows.rows.items() if place not in live]:
            if row.offset >= 0:
                self._part(fold, place, None)
            else:
                self.parted.pop(place, None)
        for place, row in self.table.ahead.items():
            await fold.advance(row.offset)
            self._compare(fold, {place: row})
        if position >= self._end:
            fold.rows.start(POSITION, note_row(self._end - 1))
            self._part(fold, POSITION, live[POSITION])

    async def _verdict(self, fold: PartitionFold) -> PartitionVerdict:
        live = self.table.live
        compared = [place for place in live if self._known.asked(place)]
        partings = [*self.parted.values(), *self._misplaced()]
        return PartitionVerdict(
            partition=self._partition,
            since=self.since,
            position=self.table.position,
            behind=max(0, self._end - 1 - self.table.position),
            feedbacks=fold.folded,
            rows=len(compared),
            checkpoints=self._compared,
            unproven=sum(self._begun.get(place) == live[place].offset for place in compared),
            partings=[await self._explained(one) if at < MOST_EXPLAINED else one for at, one in enumerate(partings)],
            unlogged=sorted(self.unlogged),
        )

    def _misplaced(self) -> Iterator[RowMismatch]:
        for key, row in self.table.misplaced.items():
            if self._known.asked((key.application, key.context)):
                yield RowMismatch(
                    application=key.application,
                    context=key.context,
                    partition=key.partition,
                    last_equal=None,
                    first_different=row.offset,
                    table=shown_row(row),
                    logs=None,
                )

    async def _explained(self, parting: RowMismatch) -> RowMismatch:
        """Return the mismatch with the feedback between the last equal row and the first different one."""
        first = self.since if parting.last_equal is None else parting.last_equal + 1
        last = max(row.offset for row in (parting.table, parting.logs) if row is not None)
        topic, found, count = self._known.catalogue.feedback, list[FeedbackAt](), 0
        async with aclosing(self._logs.read(topic, self._partition, first, min(last + 1, self._end))) as lists:
            async for records in lists:
                about = [one for one in self._reader.entries(records) if concerns(one, parting)]
                count += len(about)
                found += map(feedback_at, about[: MOST_SHOWN - len(found)])
        return msgspec.structs.replace(parting, feedbacks=count, between=found)


def concerns(entry: Entry, parting: RowMismatch) -> bool:
    """Return whether a record can change the row of a mismatch."""
    if isinstance(entry.said, Restored):
        return entry.said.marker.application in (parting.application, parting.application or parting.context)
    if entry.decision is None:
        return False
    prediction = decode_prediction(entry.decision)
    return (prediction.application, prediction.context) == (parting.application, parting.context)


def feedback_at(entry: Entry) -> FeedbackAt:
    """Return the place of a record."""
    query_id = entry.said.query_id if isinstance(entry.said, Feedback) else None
    record = entry.record
    return FeedbackAt(topic=record.topic, partition=record.partition, offset=record.offset, query_id=query_id)
