"""What was decided about each query of a partition, on disk: so memory does not grow with the length of a log.

Rules of this file:
- Of several records about a query the first counts, as for routers. One that is another, and comes more than a feedback
  horizon later, is another decision under the same id: routers had forgotten the first by then.
- A feedback is about the oldest decision that is no more than a horizon older. When all are older, it is about the
  newest of them and `late`: whether a router still knew it, the predictions alone do not say.
- Each decision has a name of its own: the query's id, with a number behind it when it is not the first of that id.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clipper_agents.replay.spill_store import SpillStore
from clipper_topics.logged_records import LoggedRecord

_HEAD = struct.Struct("<qqB")
_MSGPACK, _AUDITED = 1, 2
_OFFSET = struct.Struct("<q")
_DECISION, _CREDIT = b"d", b"c"


class KnownDecision(NamedTuple):
    """An indexed decision.

    Attributes:
        name: Unique name of the decision.
        at_ms: When it was logged, milliseconds since the epoch.
        logged: The record in the log.
        late: Whether the decision is more than a horizon older than the feedback.
    """

    name: str
    at_ms: int
    logged: LoggedRecord
    late: bool = False


class DecisionIndex:
    """Decisions by query id, and which feedback counted for each.

    Args:
        folder: Empty or missing; the caller deletes it. The first write creates a database in it.
        horizon_s: How long after its prediction a feedback counts, in seconds.
    """

    def __init__(self, folder: Path, horizon_s: float) -> None:
        self._store, self._horizon_ms = SpillStore(folder), horizon_s * 1000

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def add(self, found: Sequence[tuple[str, int, LoggedRecord]]) -> None:
        """Index decisions in log order, each as query id, time in milliseconds since the epoch, and record."""
        known = self._store.get([_key(query_id) for query_id, *_ in found])
        new, repeated = dict[str, bytes](), []
        for one, old in zip(found, known, strict=True):
            if old is None and one[0] not in new:
                new[one[0]] = _packed(one[1], one[2])
            else:
                repeated.append(one)
        self._store.put((_key(query_id), value) for query_id, value in new.items())
        for query_id, at_ms, logged in repeated:
            self._add_again(query_id, at_ms, logged)

    def find(self, wanted: Sequence[tuple[str, int]]) -> list[KnownDecision | None]:
        """Return the decision that each feedback, given as query id and time, is about; None without one."""
        values = self._store.get([_key(query_id) for query_id, _ in wanted])
        return [
            None if value is None else self._newest(query_id, at_ms, _unpacked(query_id, value))
            for (query_id, at_ms), value in zip(wanted, values, strict=True)
        ]

    def credits(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the offset of the feedback that counted, by the decision's name; None where none did."""
        values = self._store.get([_CREDIT + name.encode() for name in names])
        return {
            name: None if value is None else _OFFSET.unpack(value)[0] for name, value in zip(names, values, strict=True)
        }

    def credit(self, counted: Mapping[str, int]) -> None:
        """Note which feedback counted, by the decision's name."""
        if not counted:
            return
        self._store.put((_CREDIT + name.encode(), _OFFSET.pack(offset)) for name, offset in counted.items())

    def _add_again(self, query_id: str, at_ms: int, logged: LoggedRecord) -> None:
        for name in _names(query_id):
            (value,) = self._store.get([_key(name)])
            if value is None:
                self._store.put([(_key(name), _packed(at_ms, logged))])
                return
            old = _unpacked(name, value)
            if at_ms <= old.at_ms + self._horizon_ms or logged.value == old.logged.value:
                return

    def _newest(self, query_id: str, at_ms: int, first: KnownDecision) -> KnownDecision:
        found = first
        for name in _names(query_id):
            if at_ms <= found.at_ms + self._horizon_ms:
                return found
            if name == query_id:
                continue
            (value,) = self._store.get([_key(name)])
            if value is None:
                break
            found = _unpacked(name, value)
        return found._replace(late=True)


def _names(query_id: str) -> Iterable[str]:
    yield query_id
    number = 2
    while True:
        yield f"{query_id}\0{number}"
        number += 1


def _key(name: str) -> bytes:
    return _DECISION + name.encode()


def _packed(at_ms: int, logged: LoggedRecord) -> bytes:
    flags = (_MSGPACK if logged.msgpack else 0) | (_AUDITED if logged.audited else 0)
    return _HEAD.pack(at_ms, logged.offset, flags) + logged.value


def _unpacked(name: str, value: bytes) -> KnownDecision:
    at_ms, offset, flags = _HEAD.unpack_from(value)
    return KnownDecision(
        name, at_ms, LoggedRecord(offset, value[_HEAD.size :], bool(flags & _MSGPACK), bool(flags & _AUDITED))
    )
