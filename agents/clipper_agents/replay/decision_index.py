"""What was decided about each query of a partition, on disk: so memory does not grow with the length of a log.

Rules of this file:
- As for routers: of several records about a query of one application the first counts, a query with the id of one that
  was asked too long before is another query, and a feedback is about the first decision of its application and time.
- The decisions under one id are numbered in log order; the offset in the log is what identifies a decision.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clipper_agents.replay.spill_store import SpillStore
from clipper_agents.router.decision_index import entry_key, pack_entry, unpack_entry
from clipper_topics.feedback import queried_between, repeated_between
from clipper_topics.logged_records import LoggedRecord, decides, prediction_head

_OFFSET = struct.Struct("<q")
_CREDIT = b"c"


class DecisionIndex:
    """Decisions by query id and application, and which feedback counted for each.

    Args:
        folder: Empty or missing; the caller deletes it. The first write creates a database in it.
        horizon_s: How long after its query a feedback counts, in seconds.
    """

    def __init__(self, folder: Path, horizon_s: float) -> None:
        self._store, self._horizon_ms = SpillStore(folder), horizon_s * 1000

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def add(self, found: Sequence[tuple[str, LoggedRecord]]) -> None:
        """Index decisions in log order, each as query id and record."""
        known = self._store.get([entry_key(query_id) for query_id, _ in found])
        new, repeated = dict[str, bytes](), []
        for one, old in zip(found, known, strict=True):
            if old is None and one[0] not in new:
                new[one[0]] = pack_entry(*one[1])
            else:
                repeated.append(one)
        self._store.put((entry_key(query_id), value) for query_id, value in new.items())
        for query_id, logged in repeated:
            self._add_again(query_id, logged)

    def first(self, keys: Sequence[str]) -> list[LoggedRecord | None]:
        """Return the first record under each key."""
        return [None if value is None else unpack_entry(value) for value in self._store.get([*map(entry_key, keys)])]

    def find(self, wanted: Sequence[tuple[str, str | None, int]]) -> list[LoggedRecord | None]:
        """Return the decision that each feedback is about, None without one.

        Args:
            wanted: Query id, application or None, and time in milliseconds since the epoch of each feedback.
        """
        firsts = self._store.get([entry_key(query_id) for query_id, *_ in wanted])
        return [
            None if first is None else self._about(*asked, first) for asked, first in zip(wanted, firsts, strict=True)
        ]

    def credits(self, decisions: Sequence[int]) -> dict[int, int | None]:
        """Return the offset of the feedback that counted, by the decision's offset; None where none did."""
        values = self._store.get([_CREDIT + _OFFSET.pack(one) for one in decisions])
        return {
            one: None if value is None else _OFFSET.unpack(value)[0]
            for one, value in zip(decisions, values, strict=True)
        }

    def credit(self, counted: Mapping[int, int]) -> None:
        """Note which feedback counted, by the decision's offset."""
        if not counted:
            return
        self._store.put((_CREDIT + _OFFSET.pack(one), _OFFSET.pack(offset)) for one, offset in counted.items())

    def _add_again(self, query_id: str, logged: LoggedRecord) -> None:
        head, number = prediction_head(logged), 0
        span = repeated_between(head.queried_at_ms, self._horizon_ms)
        for old in self._under(query_id):
            if decides(old, head.application, *span):
                return
            number += 1
        self._store.put([(entry_key(query_id, number), pack_entry(*logged))])

    def _about(self, query_id: str, application: str | None, at_ms: int, first: bytes) -> LoggedRecord | None:
        span = queried_between(at_ms, self._horizon_ms)
        return next((one for one in self._under(query_id, first) if decides(one, application, *span)), None)

    def _under(self, query_id: str, value: bytes | None = None) -> Iterator[LoggedRecord]:
        """Return the decisions under an id in log order; `value` is the first one where it is known already."""
        number = 0
        while value is not None or (value := self._store.get([entry_key(query_id, number)])[0]) is not None:
            yield unpack_entry(value)
            value, number = None, number + 1
