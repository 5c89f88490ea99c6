"""An index of the predictions topic by query id: the decisions that feedback may still be about.

Audits have an index of the same kind, in a folder of its own (`audits`); "prediction" below is "audit" there.

Rules of this file:
- A decision enters only from a record that is in the predictions topic, in log order: of two for one query of one
  application the first stays. A query with the id of one that was asked too long before is another query.
- The log is the truth and this is an index of it: what is missing here is read from there.
- Ids are those of an application. The decisions under an id are numbered in log order within a database, and the next
  one is looked at where one is of another application, or of another time; so a query costs one look.
- Which feedback was applied to a decision is noted under the decision's offset, and rebuilt from the feedback topic.
- The databases of a partition vouch for each other: its offsets stand in the newest one. So when one of them is
  corrupt, the whole partition is set aside and read from the log again.
- Entries are written ahead to a log that the system writes out: a process that is killed loses none, and its successor
  reads nothing again. After a power cut the newest may be missing, and with them the offsets that say so. So all of one
  database is on disk before the next one is begun.
- Decisions live in one database for each horizon of the log's time, and a database is dropped whole when no query and
  no feedback that is still to come can be about them; no clock of a process counts. So disk is bounded by two horizons
  of decisions and what feedback is behind, and nothing is deleted one by one. A database is renamed first: half of one
  that a crash left behind is not opened again.
"""

import logging
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from clipper_agents.streaming.databases import Database, DatabaseCorrupt, forget_broken, set_aside
from clipper_agents.streaming.storage import storage_failed
from clipper_topics.feedback import queried_between, repeated_between
from clipper_topics.logged_records import LoggedRecord, audit_key, decides, prediction_head

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("<qB")
_MSGPACK, _AUDITED = 1, 2
_OFFSET = struct.Struct("<q")
_LAST_OFFSET = b"\0indexed"
_APPLIED_UPTO = b"\0applied"
_SINCE = b"\0since"
_TIME = struct.Struct("<d")
_DECISION = b"d"
_APPLIED = b"a"
_AND = b"\xff"
"""Between id and number: no byte of a text in UTF-8."""
_DROPPED = ".dropped"
NONE = -1

Asked: TypeAlias = tuple[str, str | None, float]
"""Id of a query; its application, None for any; timestamp of the query or feedback, in milliseconds since the epoch."""


class Closable(Protocol):
    """What is open on disk."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Closable)


class DecisionMatch(NamedTuple):
    """A decision under the id that was asked for; `own` when it is the one, else the id has only others."""

    logged: LoggedRecord
    own: bool


class PartitionIndex:
    """The index of one partition of a log.

    Attributes:
        last_offset: Offset of the last indexed prediction, -1 for none.
        applied_feedback_upto: Last feedback offset up to which applied feedback is noted, -1 for none.
        newest_s: The newest timestamp of a record that was indexed since this was opened, seconds since the epoch.
        since_ms: From when on no record of the log is missing, in milliseconds since the epoch; infinite while the
            index is empty.
    """

    newest_s, since_ms = 0.0, math.inf

    def __init__(self, folder: Path, horizon_s: float) -> None:
        self._folder, self._horizon_s = folder, horizon_s
        self._ages: dict[int, Database] = {}
        self.last_offset = self.applied_feedback_upto = NONE
        try:
            self._read()
        except DatabaseCorrupt:
            self.close()
            self._read()
        forget_broken(folder)

    def find(self, keys: Sequence[str]) -> list[LoggedRecord | None]:
        values = self._find([entry_key(key) for key in keys])
        return [None if value is None else unpack_entry(value) for value in values]

    def decided(self, queries: Sequence[Asked]) -> list[DecisionMatch | None]:
        """Return the decision about each query, given in log order, or another one under its id."""
        return self._first(queries, repeated_between)

    def undecided(self, query_ids: Sequence[str]) -> list[int]:
        keys, known = [*map(entry_key, query_ids)], set[int]()
        for age in self._ages.values():
            known.update(index for index, value in enumerate(age.get_many(keys)) if value is not None)
        return [index for index in range(len(keys)) if index not in known]

    def about(self, feedback: Sequence[Asked]) -> list[LoggedRecord | None]:
        return [match.logged if match and match.own else None for match in self._first(feedback, queried_between)]

    def applied_feedback(self, decisions: Sequence[int]) -> list[int | None]:
        values = self._find([_APPLIED + _OFFSET.pack(offset) for offset in decisions])
        return [_OFFSET.unpack(value)[0] if value is not None else None for value in values]

    def index(self, records: Sequence[tuple[str, LoggedRecord]], upto: int, at_s: float) -> None:
        """Index predictions, each with its query id, in log order up to an offset.

        The broker's timestamp of the last one, `at_s` in seconds since the epoch, says when they are forgotten.
        """
        database = self._age_of(at_s)
        new = self._new_of(records, database)
        self._end([(key, pack_entry(*logged)) for key, logged in new.items()], database, upto, at_s)

    def index_new(self, records: Iterable[tuple[str, int, bytes, bool, bool]], upto: int, at_s: float) -> None:
        """Index the first predictions of distinct new queries whose ids no other application has, without a look.

        Of each query id, offset, value, whether the value is msgpack, and whether an audit follows; otherwise `index`.
        """
        entries = [
            (entry_key(query_id), pack_entry(offset, value, msgpack, audited))
            for query_id, offset, value, msgpack, audited in records
        ]
        self._end(entries, self._age_of(at_s), upto, at_s)

    def pass_marker(self, offset: int) -> None:
        """Note that the log has been read up to the marker at an offset, which is no prediction."""
        self._end([], self._age_of(self.newest_s), offset, self.newest_s)

    def _end(self, entries: list[tuple[bytes, bytes]], database: Database, upto: int, at_s: float) -> None:
        self.last_offset = max(self.last_offset, upto)
        self.newest_s = max(self.newest_s, at_s)
        self._write(entries, database)

    def note_applied_feedback(self, counted: Iterable[tuple[int, int]], upto: int, at_s: float) -> None:
        """Note which feedback, up to an offset, was applied to each decision: the offsets of both, in log order.

        The first of a decision stays; `at_s` is the timestamp of the last feedback, seconds since the epoch.
        """
        entries: list[tuple[bytes, bytes]] = []
        noted = list(counted)
        before = self.applied_feedback([decision for decision, _ in noted])
        for (decision, offset), old in zip(reversed(noted), reversed(before), strict=True):
            if old is None:
                entries.append((_APPLIED + _OFFSET.pack(decision), _OFFSET.pack(offset)))
        self.applied_feedback_upto = max(self.applied_feedback_upto, upto)
        self._write(entries, self._age_of(at_s))

    def _write(self, entries: list[tuple[bytes, bytes]], newest: Database) -> None:
        """Write with both offsets, so that they stay when older databases are dropped."""
        entries += (
            (_LAST_OFFSET, _OFFSET.pack(self.last_offset)),
            (_APPLIED_UPTO, _OFFSET.pack(self.applied_feedback_upto)),
            (_SINCE, _TIME.pack(self.since_ms)),
        )
        newest.write(entries)

    def needed_since_ms(self, oldest_ms: float) -> float:
        """Return from when on decisions can be asked for by queries and feedback that are no older than a time."""
        return repeated_between(oldest_ms, self._horizon_s * 1000)[0]

    def forget_before(self, at_s: float) -> None:
        """Forget databases of which all decisions are older, but the newest.

        That they are forgotten is on disk first: an index never takes itself for whole where it is not.
        """
        old = [age for age in sorted(self._ages)[:-1] if (age + 1) * self._horizon_s < at_s]
        if not old:
            return
        self.since_ms = max(self.since_ms, (old[-1] + 1) * self._horizon_s * 1000)
        newest = self._ages[max(self._ages)]
        self._write([], newest)
        newest.flush()
        for age in old:
            self._drop(age)

    def begin(self, needed_ms: float, since_ms: float) -> None:
        """Prepare for the part of the log behind the index.

        Where a decision of `needed_ms` or later may be missing, the log is read whole, from `since_ms` on; both in
        milliseconds since the epoch.
        """
        if self.since_ms > needed_ms:
            self.clear()
            self.since_ms = since_ms

    def clear(self) -> None:
        for age in reversed(list(self._ages)):  # what is left by a crash meanwhile is whole up to its end
            self._drop(age)
        self.last_offset = self.applied_feedback_upto = NONE
        self.since_ms = math.inf

    def close(self) -> None:
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
        times = [database.get(_SINCE) for database in self._ages.values()]
        self.since_ms = max((_TIME.unpack(value)[0] for value in times if value is not None), default=math.inf)

    def _opened(self, age: int) -> Database:
        return Database(self._folder / str(age), self._folder)

    def _new_of(self, records: Sequence[tuple[str, LoggedRecord]], database: Database) -> dict[bytes, LoggedRecord]:
        new: dict[bytes, LoggedRecord] = {}
        keys = [entry_key(query_id) for query_id, _ in records]
        for key, value, (query_id, record) in zip(keys, self._find(keys), records, strict=True):
            if value is None and key not in new:
                new[key] = record
                continue
            head = prediction_head(record)
            (known,) = self._first([(query_id, head.application, head.queried_at_ms)], repeated_between)
            if known is not None and known.own:
                continue
            span, free, number = repeated_between(head.queried_at_ms, self._horizon_s * 1000), key, 0
            while (before := new.get(free)) is not None or database.get(free) is not None:
                if before is not None and decides(before, head.application, *span):
                    break
                number += 1
                free = entry_key(query_id, number)
            else:
                new[free] = record
        return new

    def _first(
        self, asked: Sequence[Asked], between: Callable[[float, float], tuple[float, float]]
    ) -> list[DecisionMatch | None]:
        matches: list[DecisionMatch | None] = [None] * len(asked)
        missing, horizon_ms = list(range(len(asked))), self._horizon_s * 1000
        for age in sorted(self._ages):
            places, number = missing, 0
            while places:
                values = self._ages[age].get_many([entry_key(asked[place][0], number) for place in places])
                others = []
                for place, value in zip(places, values, strict=True):
                    if value is None:
                        continue
                    logged, (_, application, at_ms) = unpack_entry(value), asked[place]
                    own = decides(logged, application, *between(at_ms, horizon_ms))
                    if own or matches[place] is None:
                        matches[place] = DecisionMatch(logged, own)
                    if not own:
                        others.append(place)
                places, number = others, number + 1
            if len(self._ages) > 1:
                missing = [place for place in missing if (match := matches[place]) is None or not match.own]
        return matches

    def _find(self, keys: list[Any]) -> list[bytes | None]:
        values: list[bytes | None] = [None] * len(keys)
        missing = list(range(len(keys)))
        if len(self._ages) == 1:
            (database,) = self._ages.values()
            return database.get_many(keys) or values
        for age in sorted(self._ages):  # the oldest first: of two entries it is the earlier
            stored = self._ages[age].get_many([keys[index] for index in missing])
            for index, value in zip(missing, stored, strict=True):
                values[index] = value
            missing = [index for index in missing if values[index] is None]
        return values

    def _age_of(self, at_s: float) -> Database:
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


def entry_key(query_id: str, number: int = 0) -> bytes:
    """Return the key of a decision under an id; the first one has the number 0."""
    return _DECISION + query_id.encode() + (_AND + b"%d" % number if number else b"")


def pack_entry(offset: int, value: bytes, msgpack: bool, audited: bool) -> bytes:
    """Return the fields of a `LoggedRecord` as one value."""
    return _HEAD.pack(offset, msgpack | _AUDITED if audited else msgpack) + value


def unpack_entry(entry: bytes) -> LoggedRecord:
    """Return the record of a value."""
    offset, flags = _HEAD.unpack_from(entry)
    return LoggedRecord(offset, entry[_HEAD.size :], bool(flags & _MSGPACK), bool(flags & _AUDITED))


class PartitionStores(dict[int, S]):
    """What this process has open on disk for each partition that it owns; opened when it is first asked for."""

    def __init__(self, open_store: Callable[[int], S]) -> None:
        super().__init__()
        self._open_store = open_store

    def __missing__(self, partition: int) -> S:
        store = self[partition] = self._open_store(partition)
        return store

    def keep_only(self, partitions: Iterable[int]) -> None:
        for partition in self.keys() - set(partitions):
            self.pop(partition).close()


LogIndex: TypeAlias = PartitionStores[PartitionIndex]
"""The index of one log, for the owned partitions."""


def log_index(folder: Path, horizon_s: float) -> LogIndex:
    """The index of one log; it remembers what is no older than a horizon."""
    return PartitionStores(lambda partition: PartitionIndex(folder / str(partition), horizon_s))


class DecisionLookup:
    """The indexed decisions that feedback is about, and their audits, each looked up once.

    Attributes:
        decisions: By query id and application, as feedback names them, and its time; None where none is indexed.
        audits: Likewise, of the decisions that have an audit; None where it is not indexed.
    """

    def __init__(self, decisions: PartitionIndex, audits: PartitionIndex, asked: Iterable[Asked]) -> None:
        self._decision_index, self._audit_index = decisions, audits
        self.decisions: dict[Asked, LoggedRecord | None] = dict.fromkeys(asked)
        self.audits: dict[Asked, LoggedRecord | None] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look up again what was missing, after a wait."""
        missing = [asked for asked, logged in self.decisions.items() if logged is None]
        self.decisions.update(zip(missing, self._decision_index.about(missing), strict=True))
        keys = {
            asked: audit_key(asked[0], prediction_head(logged).query_offset)
            for asked, logged in self.decisions.items()
            if logged is not None and logged.audited and self.audits.get(asked) is None
        }
        if keys:
            self.audits.update(zip(keys, self._audit_index.find([*keys.values()]), strict=True))

    def is_complete(self, asked: Asked) -> bool:
        decision = self.decisions[asked]
        return decision is not None and self.audits.get(asked, decision) is not None
