"""An index of the predictions topic by query id: the decisions that feedback may still be about.

Audits have an index of the same kind, in a folder of its own (`audits`); "prediction" below is "audit" there.

Rules of this file:
- A decision enters only from a record that is in the predictions topic, in log order: of two for one query the first
  stays.
- The log is the truth and this is an index of it: what is missing here is read from there.
- Beside a decision stands the offset of the feedback that was applied to it. Applied feedback is rebuilt from the
  feedback topic.
- The databases of a partition vouch for each other: its offsets stand in the newest one. So when one of them is
  corrupt, the whole partition is set aside and read from the log again.
- Nothing is written ahead: after a crash the newest entries may be missing, and with them the offsets that say so. So
  all of one database is on disk before the next one is begun.
- Decisions live in one database for each horizon of the log's time, and a database is dropped whole when the feedback
  that was read has left it behind by a horizon; no clock of a process counts. So disk is bounded by two horizons of
  decisions and what feedback is behind, and nothing is deleted one by one. A database is renamed first: half of one
  that a crash left behind is not opened again.
"""

import logging
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import rocksdict

from clipper_agents.streaming.databases import Database, DatabaseCorrupt, forget_broken, set_aside
from clipper_agents.streaming.rocksdb_options import options, unlogged
from clipper_agents.streaming.storage import storage_failed
from clipper_topics.logged_records import LoggedRecord

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("<qB")
_MSGPACK, _AUDITED = 1, 2
_OFFSET = struct.Struct("<q")
_LAST_OFFSET = b"\0offset"
_APPLIED_UPTO = b"\0credited"
_DECISION = b"d"
_APPLIED = b"c"
_DROPPED = ".dropped"
NONE = -1


class PartitionIndex:
    """The index of one partition of a log.

    Attributes:
        last_offset: Offset of the last indexed prediction, -1 for none.
        applied_feedback_upto: Last feedback offset up to which applied feedback is noted, -1 for none.
        newest_s: The newest timestamp of a record that was indexed since this was opened, seconds since the epoch.
    """

    newest_s = 0.0

    def __init__(self, folder: Path, horizon_s: float) -> None:
        self._folder, self._horizon_s = folder, horizon_s
        self._ages: dict[int, Database] = {}
        self.last_offset = self.applied_feedback_upto = NONE
        self._unlogged = unlogged()
        try:
            self._read()
        except DatabaseCorrupt:
            self.close()
            self._read()
        forget_broken(folder)

    def find(self, query_ids: Sequence[str]) -> list[LoggedRecord | None]:
        """Return the decision of each query, None where none is known."""
        values = self._find([_DECISION + query_id.encode() for query_id in query_ids])
        return [_unpack(value) if value is not None else None for value in values]

    def applied_feedback(self, query_ids: Sequence[str]) -> list[int | None]:
        """Return the offset of the feedback applied to each query's decision, None where none was."""
        values = self._find([_APPLIED + query_id.encode() for query_id in query_ids])
        return [_OFFSET.unpack(value)[0] if value is not None else None for value in values]

    def index(self, records: Sequence[tuple[str, LoggedRecord]], upto: int, at_s: float) -> None:
        """Index predictions of one partition, in log order.

        Args:
            records: Query id and record of each.
            upto: Predictions up to this offset are indexed once this returns.
            at_s: Timestamp of the last record by the broker, seconds since the epoch; says when they are forgotten.
        """
        new = self._new_of(records)
        self.index_new(
            ((query_id, one.offset, one.value, one.msgpack, one.audited) for query_id, one in new), upto, at_s
        )

    def index_new(self, records: Iterable[tuple[str, int, bytes, bool, bool]], upto: int, at_s: float) -> None:
        """Index the first predictions of distinct new queries, without looking any up.

        Args:
            records: Query id, offset, value, whether the value is msgpack, and whether an audit follows, of each.
            upto: Last offset, as in `index`.
            at_s: Timestamp, as in `index`.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, pack = batch.put, _HEAD.pack
        for query_id, offset, value, msgpack, audited in records:
            put(_DECISION + query_id.encode(), pack(offset, msgpack | _AUDITED if audited else msgpack) + value)
        self.last_offset = max(self.last_offset, upto)
        self.newest_s = max(self.newest_s, at_s)
        put(_LAST_OFFSET, _OFFSET.pack(self.last_offset))
        self._age_of(at_s).write(batch, self._unlogged)

    def note_applied_feedback(self, counted: Iterable[tuple[str, int]], upto: int, at_s: float) -> None:
        """Note which feedback was applied to each query's decision.

        Args:
            counted: Query id and feedback offset of each, in log order; the first of a query stays.
            upto: Feedback up to this offset is noted once this returns.
            at_s: Timestamp of the last feedback, seconds since the epoch.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        noted = list(counted)
        before = self.applied_feedback([query_id for query_id, _ in noted])
        for (query_id, offset), old in zip(reversed(noted), reversed(before), strict=True):
            if old is None:
                batch.put(_APPLIED + query_id.encode(), _OFFSET.pack(offset))
        self.applied_feedback_upto = max(self.applied_feedback_upto, upto)
        batch.put(_APPLIED_UPTO, _OFFSET.pack(self.applied_feedback_upto))
        self._age_of(at_s).write(batch, self._unlogged)

    def forget_before(self, feedback_at_s: float) -> None:
        """Forget decisions that are more than a horizon older than feedback that is still to come.

        Args:
            feedback_at_s: Timestamp that no later feedback is older than, seconds since the epoch.
        """
        ages = sorted(self._ages)
        for age in ages[:-1]:
            if (age + 1) * self._horizon_s < feedback_at_s - self._horizon_s:
                self._drop(age)

    def clear(self) -> None:
        """Forget everything, because the topic was created anew."""
        for age in list(self._ages):
            self._drop(age)
        self.last_offset = self.applied_feedback_upto = NONE

    def close(self) -> None:
        """Close the databases."""
        for database in self._ages.values():
            database.close()
        self._ages.clear()

    def _read(self) -> None:
        """Open the databases of the folder.

        Raises:
            DatabaseCorrupt: one of them is corrupt, and all of them have been set aside.
        """
        try:
            if self._folder.is_file():
                set_aside(self._folder, "a file is in its place")
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in list(self._folder.glob(f"*{_DROPPED}")):
                shutil.rmtree(path)
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise storage_failed(self._folder, error) from error
        foreign = [name for name in names if not (name.isascii() and name.isdecimal() and str(int(name)) == name)]
        if foreign:
            logger.warning("left alone, no database of ours folder=%s names=%s", self._folder, ",".join(foreign))
        for age in sorted(int(name) for name in set(names).difference(foreign)):
            self._ages[age] = self._opened(age)
        self.last_offset = self._highest(_LAST_OFFSET)
        self.applied_feedback_upto = self._highest(_APPLIED_UPTO)

    def _opened(self, age: int) -> Database:
        return Database(self._folder / str(age), options(), self._folder)

    def _new_of(self, records: Sequence[tuple[str, LoggedRecord]]) -> list[tuple[str, LoggedRecord]]:
        """Return the first record of each query that is not indexed yet."""
        first = dict(reversed(records))
        known = self._find([_DECISION + query_id.encode() for query_id in first])
        return [record for record, old in zip(first.items(), known, strict=True) if old is None]

    def _find(self, keys: list[Any]) -> list[bytes | None]:
        found: list[bytes | None] = [None] * len(keys)
        missing = list(range(len(keys)))
        if len(self._ages) == 1:
            (database,) = self._ages.values()
            return database.get(list(keys)) or found
        for age in sorted(self._ages):  # the oldest first: of two entries it is the earlier
            values = self._ages[age].get([keys[index] for index in missing]) or []
            for index, value in zip(missing, values, strict=True):
                found[index] = value
            missing = [index for index in missing if found[index] is None]
        return found

    def _age_of(self, at_s: float) -> Database:
        """Return the database for writes of a time."""
        age = max(int(at_s // self._horizon_s), *self._ages, 0)
        if age not in self._ages:
            for database in self._ages.values():
                database.flush()
            self._ages[age] = self._opened(age)
        return self._ages[age]

    def _drop(self, age: int) -> None:
        self._ages.pop(age).close()
        try:
            dropped = (self._folder / str(age)).rename(self._folder / f"{age}{_DROPPED}")
            shutil.rmtree(dropped)
        except OSError as error:
            raise storage_failed(self._folder, error) from error

    def _highest(self, key: bytes) -> int:
        values = [database.get(key) for database in self._ages.values()]
        return max((_OFFSET.unpack(value)[0] for value in values if value is not None), default=NONE)


def _unpack(value: bytes) -> LoggedRecord:
    offset, flags = _HEAD.unpack_from(value)
    return LoggedRecord(offset, value[_HEAD.size :], bool(flags & _MSGPACK), bool(flags & _AUDITED))


class LogIndex:
    """The index of one log, for the owned partitions."""

    def __init__(self, folder: Path, horizon_s: float) -> None:
        self._folder, self._horizon_s = folder, horizon_s
        self._open: dict[int, PartitionIndex] = {}

    def of(self, partition: int) -> PartitionIndex:
        """Return the partition's index; the first call opens it."""
        found = self._open.get(partition)
        if found is None:
            found = PartitionIndex(self._folder / str(partition), self._horizon_s)
            self._open[partition] = found
        return found

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Close the indexes of all other partitions."""
        for partition in self._open.keys() - set(partitions):
            self._open.pop(partition).close()
