"""Requests to model versions: which rows each carries, and which slots wait for a row.

Rules of this file:
- Rows go into requests by dtype and shape, and no request is too large for a Kafka record.
- Identical rows for one deterministic model version are asked for once; the others wait for the first.
- A key is in flight no longer than the query that asked for it: at that query's deadline the others ask anew.
- A request is known by a token that nobody can guess: a host of another model, which has not read it, cannot answer it.
- A row of a request is answered once. Whatever comes again (a host that was restarted answers its request anew) is
  not counted.
- An output that is late still feeds the cache. So a request is remembered `FORGET_AFTER_S` beyond its last deadline,
  but of those that are overdue no more than `MAX_OVERDUE_ROWS` rows: hosts that are down cost no memory.
"""

import marshal
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from secrets import randbits
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper_stream.caching.cache import MARSHAL_FORMAT
from clipper_stream.query.batch import OPEN, Failure, QueryBatch
from clipper_stream.query.in_flight import DeadlineQueue

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
"""Half of what a broker takes by default: a row is never split, and one of half a megabyte still goes."""
UTF8_BYTES = 4
"""Most bytes of a character."""

Slot = tuple[QueryBatch, int]


class Part(NamedTuple):
    """Slots of one batch that ask one model version.

    Attributes:
        keys: Under which each output is cached and shared; none where it may be neither.
    """

    batch: QueryBatch
    slots: Sequence[int]
    keys: Sequence[bytes]

    def at(self, places: Sequence[int]) -> "Part":
        keys = [self.keys[place] for place in places] if self.keys else ()
        return Part(self.batch, [self.slots[place] for place in places], keys)


@dataclass(frozen=True, slots=True)
class Request:
    """Rows for one model version, of one dtype and shape.

    Attributes:
        frame: Token of the request.
        rows: The inputs: a matrix with one row an input; or a list of texts, bytes or JSON values.
        deadlines_s: When each output is of no more use, seconds since the epoch; `inf` for never.
        asked: Whose the rows are.
        traced: For whoever carries the request out: notes about rows of sampled queries.
    """

    ref: str
    frame: int
    rows: NDArray[Any] | list[Any]
    deadlines_s: "array[float]"
    asked: Sequence[Part] = ()
    traced: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Outputs of consecutive rows of one request, from `row0` on.

    Attributes:
        outputs: One a row; anything where the row failed.
        failures: Why there is no output (`late` or `error`), by index of the row in the request.
    """

    frame: int
    row0: int
    outputs: list[Any]
    failures: Mapping[int, Failure] = field(default_factory=dict)


def frames(parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], Any]]:
    """The rows in frames of one dtype and shape, and whose they are; a row larger than a frame may be goes alone."""
    matrix = _as_one_matrix(parts)
    if matrix is not None and len(matrix) <= _most_rows(matrix):
        yield parts, matrix
        return
    whose = [*chain.from_iterable(zip(repeat(batch), slots, keys or repeat(None)) for batch, slots, keys in parts)]
    if matrix is not None:
        for start in range(0, len(matrix), _most_rows(matrix)):
            stop = start + _most_rows(matrix)
            yield _parts_of(whose[start:stop]), matrix[start:stop]
        return
    rows = [batch.rows[batch.slot_row[slot]] for batch, slots, _ in parts for slot in slots]
    for group in _same_shape(rows):
        for indices in _not_too_large(group, rows):
            chosen = [rows[index] for index in indices]
            yield (
                _parts_of(whose[index] for index in indices),
                np.stack(chosen) if isinstance(chosen[0], np.ndarray) else chosen,
            )


def _as_one_matrix(parts: Sequence[Part]) -> NDArray[Any] | None:
    cut: list[NDArray[Any]] = []
    for batch, slots, _ in parts:
        matrix = batch.rows
        if not isinstance(matrix, np.ndarray):
            return None
        row_of = batch.slot_row
        rows = [row_of[slot] for slot in slots]
        cut.append(matrix if rows == [*range(len(matrix))] else matrix[rows])
    if len(cut) == 1:
        return cut[0]
    return np.concatenate(cut) if len({(one.dtype, one.shape[1:]) for one in cut}) == 1 else None


def _parts_of(whose: Iterable[tuple[QueryBatch, int, bytes | None]]) -> list[Part]:
    found: list[tuple[QueryBatch, list[int], list[bytes | None]]] = []
    for batch, slot, key in whose:
        if not found or found[-1][0] is not batch or (found[-1][2][0] is None) != (key is None):
            found.append((batch, [], []))
        found[-1][1].append(slot)
        found[-1][2].append(key)
    return [Part(batch, slots, [key for key in keys if key is not None]) for batch, slots, keys in found]


def _most_rows(matrix: NDArray[Any]) -> int:
    return max(1, min(MAX_FRAME_ROWS, MAX_FRAME_BYTES // max(1, int(matrix[0].nbytes))))


def _same_shape(rows: Sequence[Any]) -> Iterable[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        shape = (row.dtype.str, row.shape) if isinstance(row, np.ndarray) else None
        groups.setdefault(shape, []).append(index)
    return groups.values()


def _not_too_large(group: list[int], rows: Sequence[Any]) -> Iterator[list[int]]:
    frame: list[int] = []
    size_bytes = 0
    for index in group:
        row_bytes = _row_bytes(rows[index])
        if frame and (len(frame) >= MAX_FRAME_ROWS or size_bytes + row_bytes > MAX_FRAME_BYTES):
            yield frame
            frame, size_bytes = [], 0
        frame.append(index)
        size_bytes += row_bytes
    yield frame


def _row_bytes(row: Any) -> int:
    """An upper bound of the bytes that the row takes in a frame."""
    if isinstance(row, np.ndarray):
        return row.nbytes
    if isinstance(row, bytes):
        return len(row)
    if isinstance(row, str):
        return len(row) if row.isascii() else UTF8_BYTES * len(row)
    return len(marshal.dumps(row, MARSHAL_FORMAT))  # of every JSON value at least as long as msgpack


# --- rows in flight -------------------------------------------------------------------------------------------------
FRAME_TOKEN_BITS = 64
"""What an integer has on the wire. Of 10,000 requests in flight, 100,000 guesses a second hit one in 580 years."""
FORGET_AFTER_S = 10.0
MAX_OVERDUE_ROWS = 16_384
"""With some kilobytes a query these take tens of megabytes."""
MOST_RETURN_RATIO = 0.25
"""Of the time that a row has left when it is asked: a wrong measurement may cost no more."""


class Lookup(NamedTuple):
    """Slots of one model version whose outputs may be in the cache, under the keys of the part."""

    ref: str
    part: Part


@dataclass(slots=True)
class _Sent:
    """A request that was sent, and which of its rows are answered."""

    ref: str
    parts: Sequence[Part]
    answered: bytearray
    unanswered: int


class RowsInFlight:
    """Builds requests, finds the slots that an output is for, and asks anew what others gave up."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return len(self._sent) + len(self._asker)

    def clear(self) -> None:
        self._sent: dict[int, _Sent] = {}
        self._in_time: DeadlineQueue[int] = DeadlineQueue()
        self._overdue: dict[int, float] = {}
        self._overdue_rows = 0
        self._asker: dict[bytes, Slot] = {}
        """Who asked for a row, by key."""
        self._others: dict[bytes, list[Slot]] = {}
        """Who waits for it besides."""
        self._to_ask: dict[str, list[Part]] = {}
        self._again: dict[str, list[tuple[Slot, bytes]]] = {}

    # --- asking ---------------------------------------------------------------------------------------------------
    def ask(self, ref: str, part: Part) -> None:
        self._to_ask.setdefault(ref, []).append(part)

    def join(self, ref: str, part: Part) -> int:
        """Ask for rows that nobody asks for, and wait for the others; how many these are."""
        batch, slots, keys = part
        asker = self._asker
        if asker.keys().isdisjoint(keys) and (len(keys) == 1 or len(set(keys)) == len(keys)):
            asker.update(zip(keys, zip(repeat(batch), slots, strict=False), strict=True))
            self.ask(ref, part)
            return 0
        first = [
            place
            for place, (key, slot) in enumerate(zip(keys, slots, strict=True))
            if self._is_first(key, (batch, slot))
        ]
        if first:
            self.ask(ref, part.at(first))
        return len(keys) - len(first)

    def requests(self, now_s: float, return_s: float) -> list[Request]:
        """Requests for the rows that are to be asked, of one dtype and shape each, none too large.

        Outputs are `return_s` seconds on their way back: so much earlier they must leave the host, but no earlier than
        after `1 - MOST_RETURN_RATIO` of the time that is left.
        """
        if self._again:
            self._inherit()
        asked, self._to_ask = self._to_ask, {}
        found: list[Request] = []
        for ref, parts in asked.items():
            for some, rows in frames(parts):
                due_s = [due for part in some for due in _due_times_s(part)]
                frame = randbits(FRAME_TOKEN_BITS)
                self._sent[frame] = _Sent(ref, some, bytearray(len(due_s)), len(due_s))
                self._in_time.push(max(due_s), frame)
                if return_s:
                    due_s = [due - min(return_s, MOST_RETURN_RATIO * max(0.0, due - now_s)) for due in due_s]
                found.append(Request(ref, frame, rows, array("d", due_s), some))
        return found

    def abandon(self, batch: QueryBatch, entries: Sequence[int], now_s: float) -> None:
        """Give up the open rows of entries at their deadline: others that wait for them ask anew."""
        for ref, slots, keys in batch.shareable_rows(entries):
            for slot, key in zip(slots, keys, strict=True):
                if self._asker.get(key) == (batch, slot):
                    self._ask_again(ref, key, now_s)

    # --- arriving -------------------------------------------------------------------------------------------------
    def take(self, piece: OutputPiece) -> tuple[str, list[tuple[Part, Sequence[Any]]]]:
        """The model version and the slots that a piece answers, each for the first time, with their outputs."""
        sent = self._sent.get(piece.frame)
        if sent is None:
            return "", []
        outputs, first, count = piece.outputs, piece.row0, len(sent.answered)
        if piece.failures:
            outputs = [piece.failures.get(row, output) for row, output in enumerate(outputs, first)]
        if first < 0 or first + len(outputs) > count:  # rows that were never asked for
            outputs, first = outputs[max(0, -first) : max(0, count - first)], max(0, first)
        last = first + len(outputs)
        before = sent.answered[first:last]
        fresh = before.count(0)
        sent.answered[first:last] = b"\1" * len(outputs)
        if last - first == count:
            found = [*_cut(sent.parts, outputs)]
        else:
            found = [*_cut(_between(sent.parts, first, last), outputs)]
        if fresh < len(before):
            found = [*_not_before(found, before)]
        sent.unanswered -= fresh
        if piece.frame in self._overdue:
            self._overdue_rows -= fresh
        if not sent.unanswered:
            self._drop(piece.frame)
        return sent.ref, found

    def arrived(self, part: Part) -> Iterable[tuple[int, Slot]]:
        """End the keys of these rows; who waits for the output of each besides its own slot, by place."""
        batch, slots, keys = part
        if not keys:
            return ()
        askers = [*map(self._asker.pop, keys, repeat(None))]
        if not self._others and askers == [*zip(repeat(batch), slots)]:
            return ()
        return self._waiting(part, askers)

    def _waiting(self, part: Part, askers: list[Slot | None]) -> Iterable[tuple[int, Slot]]:
        for place, (slot, key, asker) in enumerate(zip(part.slots, part.keys, askers, strict=True)):
            if asker is not None and asker != (part.batch, slot):
                yield place, asker
            for other in self._others.pop(key, ()):
                yield place, other

    def failed(self, ref: str, part: Part, failure: Failure, now_s: float) -> Sequence[Slot]:
        """The slots that a failed row, a part of one slot, concerns: an error concerns all who wait for the row.

        Lateness is the asker's own, and the others ask anew. Where they have done so already, because the asker ran out
        of time, it is nobody's.
        """
        slot = part.batch, part.slots[0]
        if not part.keys:
            return (slot,)
        key = part.keys[0]
        if failure.reason != "late":
            return self._resolve(key)
        if self._asker.get(key) != slot:
            return ()
        self._ask_again(ref, key, now_s)
        return (slot,)

    # --- forgetting -----------------------------------------------------------------------------------------------
    def forget(self, now_s: float) -> list[int]:
        """Drop requests whose answer is not awaited any more, and return their tokens."""
        for frame in self._in_time.pop_due(now_s):
            self._overdue[frame] = now_s + FORGET_AFTER_S
            self._overdue_rows += self._sent[frame].unanswered
        forgotten: list[int] = []
        for frame, until_s in self._overdue.items():
            if until_s > now_s and self._overdue_rows <= MAX_OVERDUE_ROWS:
                break
            self._overdue_rows -= self._sent[frame].unanswered
            forgotten.append(frame)
        for frame in forgotten:
            self._drop(frame)
        return forgotten

    def _drop(self, frame: int) -> None:
        del self._sent[frame]
        self._in_time.discard(frame)
        self._overdue.pop(frame, None)

    # --- single flight --------------------------------------------------------------------------------------------
    def _is_first(self, key: bytes, slot: Slot) -> bool:
        if key not in self._asker:
            self._asker[key] = slot
            return True
        self._others.setdefault(key, []).append(slot)
        return False

    def _resolve(self, key: bytes) -> list[Slot]:
        asker = self._asker.pop(key, None)
        return [] if asker is None else [asker, *self._others.pop(key, ())]

    def _ask_again(self, ref: str, key: bytes, now_s: float) -> None:
        """Have the first of those that wait beside the asker, and still can, ask for a row."""
        del self._asker[key]
        for slot in self._others.pop(key, ()):
            if _is_open(slot) and slot[0].due_of(slot[1]) > now_s and self._is_first(key, slot):
                self._again.setdefault(ref, []).append((slot, key))

    def _inherit(self) -> None:
        """Ask for the rows whose asker ran out of time; where the next one has its answer by now, the one after it."""
        again, self._again = self._again, {}
        for ref, rows in again.items():
            for slot, key in rows:
                heirs = [slot]
                if not _is_open(slot):
                    waiting = self._resolve(key) if self._asker.get(key) == slot else []
                    heirs = [other for other in waiting if _is_open(other)]
                    for heir in heirs:
                        self._is_first(key, heir)
                if heirs:
                    self.ask(ref, Part(heirs[0][0], (heirs[0][1],), (key,)))


def _is_open(slot: Slot) -> bool:
    return slot[0].outputs[slot[1]] is OPEN


def _between(parts: Iterable[Part], first: int, last: int) -> Iterator[Part]:
    start = 0
    for batch, slots, keys in parts:
        some = slice(max(first - start, 0), max(last - start, 0))
        start += len(slots)
        if first < start and slots[some]:
            yield Part(batch, slots[some], keys[some])


def _cut(parts: Iterable[Part], outputs: Sequence[Any]) -> Iterator[tuple[Part, Sequence[Any]]]:
    start = 0
    for part in parts:
        count = len(part.slots)
        yield part, outputs if count == len(outputs) else outputs[start : start + count]
        start += count


def _not_before(found: Iterable[tuple[Part, Sequence[Any]]], before: bytearray) -> Iterator[tuple[Part, Sequence[Any]]]:
    answered = iter(before)
    for part, outputs in found:
        places = [place for place in range(len(part.slots)) if not next(answered)]
        if places:
            yield part.at(places), [outputs[place] for place in places]


def _due_times_s(part: Part) -> Iterable[float]:
    batch, slots, _ = part
    if batch.query_behind:
        return map(batch.due_of, slots)
    due_s, entry_of = batch.due_s, batch.slot_entry
    return [due_s[entry_of[slot]] for slot in slots]
