"""Selection state by application and context: rows of the selection table, merged over partitions when it is shared.

Rules of this file:
- A row belongs to one (application, context) in one partition, and the partition's owner alone writes it.
- Without a context, the state is the sum of all partitions' rows in partition order: own rows as they are in the table,
  those of other routers as they were published last. With a context, all its queries are in one partition.
- The rows with the empty application are notes, and are stored behind the others: without a context the position, and
  with an application's name in place of the context its newest restore, as the control topic counts them (`applied`).
- That without a context is the partition's position: the last feedback offset that is in the rows, with the ids of the
  topics that rows and decisions refer to. Nobody learns or answers with another topic in their place.
- A partition may have millions of contexts: nothing but `surplus`, in a thread, goes through them.
"""

import asyncio
import logging
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import numpy as np
from aiokafka import ConsumerRecord

from clipper_agents.control.selection_states import state_of
from clipper_agents.kafka.topic_ids import stale_references
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.outbox import NO_RECORDS, RecordsByTopic
from clipper_agents.streaming.partition_writer import PartitionTakenOver
from clipper_agents.streaming.table import TransactionalTable
from clipper_stream.query import Application
from clipper_stream.selection.state import SelectionState, merge
from clipper_stream.selection.trials import PolicyChoice
from clipper_topics.selection_rows import (
    NO_ROW,
    POSITION,
    ForgottenContexts,
    RowKey,
    SelectionRow,
    decode_key,
    decode_row,
    encode_key,
    encode_row,
    is_context,
    offset_of,
    position_note,
    prefix_of,
)

logger = logging.getLogger(__name__)

MAX_PREPARED = 20_000
"""Prepared choices kept, a few hundred bytes each: one for each application and active context."""

ROWS_A_TURN = 5_000
"""Looked at in some ten milliseconds, then others have their turn."""
PAUSE_RATIO = 100.0
"""Of the time between two looks at a partition's rows, to that of a look."""


class SelectionStore:
    """The rows of owned partitions, the published totals of the others, and the policies' choices from both."""

    def __init__(self, table: TransactionalTable, partitions: int) -> None:
        self._table = table
        self._topic_ids: tuple[bytes, ...] = ()
        self._partitions = range(partitions)
        self._owned: set[int] = set()
        self._published: dict[RowKey, SelectionState] = {}
        self._unpublished: dict[RowKey, bytes] = {}
        self._prepared: OrderedDict[tuple[str, int | None, str | None], PolicyChoice] = OrderedDict()

    # --- rows -----------------------------------------------------------------------------------------------------
    def own(self, partitions: Iterable[int]) -> None:
        """Own these partitions from now on; their rows are in the table, and only this process writes them."""
        self._owned = set(partitions)
        self._prepared.clear()
        for partition in self._owned:
            for application in self._applications(partition):
                key = RowKey(application, None, partition)
                if (value := self._table.get_row(partition, encode_key(key))) is not None:
                    self._note(key, value)

    async def refer_to(self, topics: Mapping[str, bytes]) -> None:
        """Have owned partitions refer to these topics, given with their ids, from their first position on.

        Raises:
            StaleReferences: what a partition has learned refers to an earlier topic of the name.
            PartitionTakenOver: another process writes the partition's rows now.
        """
        self._topic_ids = (*topics.values(),)
        for partition in self._owned:
            noted = self._row(RowKey(*POSITION, partition)).topic_ids
            if noted and noted != self._topic_ids:
                raise stale_references(name for name, then in zip(topics, noted, strict=True) if topics[name] != then)
            if not noted:
                await self.write(partition, {}, self.position(partition))

    def position(self, partition: int) -> int:
        """Return the last feedback offset in the partition's rows, -1 for none."""
        return self._row(RowKey(*POSITION, partition)).offset

    def row(self, application: str, context: str | None, partition: int) -> SelectionRow:
        return self._row(RowKey(application, context, partition))

    def contexts(self, application: str, partition: int) -> list[str | None]:
        """Return the contexts of the application's rows in the partition; None stands for the row without a context."""
        prefix = prefix_of(application)
        keys = (key for key, _ in self._table.items(partition, prefix))
        return [decode_key(key).context for key in takewhile(lambda key: key.startswith(prefix), keys)]

    async def write(
        self,
        partition: int,
        rows: Mapping[tuple[str, str | None], SelectionRow],
        position: int,
        beside: RecordsByTopic = NO_RECORDS,
    ) -> None:
        """Store rows, the new position and `beside` (`TransactionalTable.write`) in one durable step.

        Raises:
            PartitionTakenOver: another process writes the partition's rows now; nothing is stored.
        """
        notes_last = sorted(rows.items(), key=lambda item: item[0][0] == "")
        encoded = {RowKey(name, context, partition): encode_row(row) for (name, context), row in notes_last}
        at = RowKey(*POSITION, partition)
        encoded[at] = encode_row(position_note(self._row(at), position, self._topic_ids))
        await self._table.write(partition, {encode_key(key): value for key, value in encoded.items()}, beside)
        for key, value in encoded.items():
            self._note(key, value)

    def has_more(self, partition: int, most: int) -> bool:
        """Return whether the partition may have more rows than so many; it is not counted."""
        return self._table.estimated_size(partition) > most

    def surplus(self, partition: int, most: int) -> tuple[int, list[bytes]] | None:
        """Find the contexts to forget, all but the newest seven eighths of `most`; None: there are no more than `most`.

        For a thread: it reads all rows. The result is a feedback offset, and the keys of rows whose last change is
        before it.
        """
        offsets = array("q", (offset for _, offset in self._contexts(partition)))
        if len(offsets) <= most:
            return None
        at = len(offsets) - most * 7 // 8
        before = int(np.partition(np.frombuffer(offsets, np.int64), at)[at])
        return before, self._older(partition, before)

    async def forget_contexts(self, partition: int, before: int, keys: Iterable[bytes]) -> int:
        """Delete rows whose last change is still before a feedback offset, and note it, in one step; how many."""
        deleted: dict[bytes, bytes | None] = {}
        for number, key in enumerate(keys):
            value = self._table.get_row(partition, key)
            if value is not None and offset_of(value) < before:
                deleted[key] = None
            if number % ROWS_A_TURN == 0:
                await asyncio.sleep(0)
        at = RowKey(*POSITION, partition)
        last = self._row(at)
        note = position_note(last, last.offset, self._topic_ids, (ForgottenContexts(last.offset + 1, before),))
        await self._table.write(partition, {**deleted, encode_key(at): encode_row(note)})
        self._prepared.clear()
        return len(deleted)

    async def drop_forgotten(self) -> None:
        """Drop rows that were forgotten and are here still.

        An old directory has them where compaction has removed their deletions from the changelog since.
        """
        for partition in self._owned:
            if forgotten := self._row(RowKey(*POSITION, partition)).forgotten:
                before = max(note.before for note in forgotten)
                self._table.drop(partition, await asyncio.to_thread(self._older, partition, before))

    def _older(self, partition: int, before: int) -> list[bytes]:
        return [key for key, offset in self._contexts(partition) if offset < before]

    async def stop(self) -> None:
        await self._table.stop_writers()

    def _applications(self, partition: int) -> Iterator[str]:
        """Yield the applications that have rows, by one look for each: keys are in the order of their names."""
        first = prefix_of("")[:1]
        while (row := next(self._table.items(partition, first), None)) is not None:
            yield (name := decode_key(row[0]).application)
            first = prefix_of(name) + b"\xff"

    def _contexts(self, partition: int) -> Iterator[tuple[bytes, int]]:
        for key, value in self._table.items(partition):
            if is_context(decode_key(key)):
                yield key, offset_of(value)

    def _row(self, key: RowKey) -> SelectionRow:
        value = self._table.get_row(key.partition, encode_key(key))
        return NO_ROW if value is None else decode_row(value)

    def _note(self, key: RowKey, value: bytes) -> None:
        if key.application and key.context is None:
            self._prepared.pop((key.application, None, None), None)
            self._unpublished[key] = value
        elif key.application:
            self._prepared.pop((key.application, key.partition, key.context), None)

    # --- totals of other routers ------------------------------------------------------------------------------------
    def take_published(self, records: Iterable[ConsumerRecord[Any, Any]]) -> None:
        """Take totals that routers published; for owned partitions the table takes precedence."""
        for record in records:
            try:
                key = decode_key(record.key)
                row = decode_row(record.value) if record.value is not None else NO_ROW
            except ValueError as error:  # a topic that anybody can write to must not stop every router
                logger.error("totals ignored offset=%d reason=%s", record.offset, error)  # noqa: TRY400
                continue
            self._published[key] = state_of(row)
            if key.partition not in self._owned:
                self._prepared.pop((key.application, None, None), None)

    def unpublished(self) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
        """Return records for the selection topic: the rows that changed since the last call."""
        changed, self._unpublished = self._unpublished, {}
        return [(encode_key(key), value, []) for key, value in changed.items() if key.partition in self._owned]

    # --- choices ----------------------------------------------------------------------------------------------------
    def prepare(self, application: Application, partition: int, context: str | None) -> PolicyChoice:
        """Return the policy's choice with audits and trials, from the totals known now."""
        key = (application.name, None if context is None else partition, context)
        choice = self._prepared.get(key)
        if choice is None:
            choice = self._prepared[key] = application.choice(self.state(application.name, partition, context), context)
            if len(self._prepared) > MAX_PREPARED:
                self._prepared.popitem(last=False)
        return choice

    def state(self, application: str, partition: int, context: str | None) -> SelectionState:
        """Return the state of the application's models, in a context or over all partitions."""
        if context is not None:
            return state_of(self.row(application, context, partition))
        return merge(self._part(application, number) for number in self._partitions)

    def forget(self, application: str) -> None:
        """Drop the prepared choices of an application, because its manifest has changed."""
        for key in [key for key in self._prepared if key[0] == application]:
            del self._prepared[key]

    def _part(self, application: str, partition: int) -> SelectionState:
        if partition in self._owned:
            return state_of(self.row(application, None, partition))
        return self._published.get(RowKey(application, None, partition), _NO_STATE)


class ContextBound:
    """Holds the number of contexts of each owned partition down: those without feedback for longest are forgotten.

    What is forgotten, and before which feedback, is in the changelog with the deletions, in one transaction: so whoever
    folds the logs forgets the same. Rows are looked through by a thread, which takes a hundredth of the time at most.
    """

    def __init__(self, app: ClipperApp, topic: str, selection: SelectionStore, most: int) -> None:
        self._app, self._topic, self._selection, self._most = app, topic, selection, most
        self._next_s: dict[int, float] = {}

    async def hold(self) -> None:
        """Look at the owned partitions that may have too many contexts, and forget some."""
        generation = self._app.generation
        for partition in self._app.owned_partitions(self._topic) if generation >= 0 else []:
            began_s = time.monotonic()
            if began_s < self._next_s.get(partition, began_s) or not self._selection.has_more(partition, self._most):
                continue
            surplus = await asyncio.to_thread(self._selection.surplus, partition, self._most)
            self._next_s[partition] = began_s + PAUSE_RATIO * (time.monotonic() - began_s)
            if surplus is None:
                continue
            async with self._app.state_lock.of(partition):
                if self._app.generation != generation:
                    return
                try:
                    count = await self._selection.forget_contexts(partition, *surplus)
                except PartitionTakenOver:  # which the next learning step reports
                    return
            logger.info("contexts forgotten partition=%d count=%d before=%d", partition, count, surplus[0])


_NO_STATE = SelectionState()
