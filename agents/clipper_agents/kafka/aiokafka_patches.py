"""What this project replaces in aiokafka, because aiokafka has no setting for it.

| replaced | why |
|---|---|
| `client.create_conn` | attempts to connect, waits and closings end in time, by errors that are tried again |
| `errors.kafka_errors` | error 82, another process has the instance name, has no class: the member is unknown |
| `fetcher.PartitionRecords` | lean records, and header names that are no UTF-8, for consumers that ask for them |
| | it can also say which offsets hold no record |
| `fetcher.MemoryRecords` | the batch that was read last can be read again, leniently |
| decoders of gzip, lz4 and zstd | a megabyte may unpack to gigabytes, where a topic is not stored plain |
| `GroupCoordinator._send_req` | a coordinator that is loading says so in a field that aiokafka does not read |
| | it took that for "nothing is committed", and everything was read once more |
| requests to fetch and to produce | see `fetch_sessions` |
| `consumer.Fetcher`, `producer.Sender` | see `broker_tasks` |

Rules of this file:
- Records are made here only for consumers whose key deserializer is a `LeanKeys`; all others get aiokafka's.
- What else is replaced holds for a whole process, so `install` is for workers; `install_records` is for everybody.
- Kafka takes any bytes as the name of a header, and clients in C, Go or Rust send them. aiokafka raises at such a name,
  again at each fetch, and the partition stands. Here the batch is read again by aiokafka's Python code, and what is
  wrong is replaced by U+FFFD: such a header is none of ours.
- A batch that brokers took and nobody can decompress or parse is logged and skipped: it would stop its partition for
  ever. One with a wrong checksum is fetched again.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import cramjam
import msgspec
from aiokafka import client, conn, errors
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record import default_records
from aiokafka.record._crecords import default_records as compiled_records
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from clipper_agents.kafka.broker_tasks import install_tasks
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.sasl import SaslConnection

logger = logging.getLogger(__name__)

FENCED_INSTANCE_ID = 82
LOG_APPEND_TIME = 1
CONNECT_TIMEOUT_MS = 3_000
"""For a connection, TLS, log-in and the broker's first words together; on one machine they take milliseconds. aiokafka
waits its request timeout for each member of a cluster in turn: four attempts at a frozen broker kept a pipeline of
three brokers from its group for most of a minute."""
CLOSE_WITHIN_S = 0.2
"""For what is not sent yet, and the broker's end of TLS: one that was asked twice before has not sent that for 30 s,
and a frozen one takes nothing."""
MOST_UNPACKED_BYTES, USUAL_RATIO = 4 * LARGEST_RECORD_BYTES, 16
"""Of a batch, which has a megabyte as brokers keep it."""
_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8
"""Bytes of the base offset, which come first in a batch."""


class EmptyOffsets:
    """Offsets of fetched logs that hold no record for their consumer, until they are passed.

    That are transaction markers, aborted batches, and what compaction has removed.

    >>> empty = EmptyOffsets()
    >>> empty.add(("queries", 0), 5, 7); empty.add(("queries", 0), 7, 8); empty.add(("queries", 0), 9, 10)
    >>> empty.skip(("queries", 0), 4), empty.skip(("queries", 0), 5)
    (4, 8)
    """

    def __init__(self) -> None:
        self._ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}

    def add(self, tp: tuple[str, int], first: int, end: int) -> None:
        ranges = self._ranges.setdefault(tp, [])
        if ranges and ranges[-1][1] == first:
            first = ranges.pop()[0]
        ranges.append((first, end))

    def skip(self, tp: tuple[str, int], offset: int) -> int:
        """Return the first offset from this one on that is not known to be empty, and forget what lies before it."""
        ranges = self._ranges.get(tp)
        while ranges and ranges[0][0] <= offset:
            offset = max(offset, ranges.pop(0)[1])
        return offset

    def clear(self, tp: tuple[str, int]) -> None:
        """Forget the offsets of a partition, which is to be read from another one on."""
        self._ranges.pop(tp, None)


class TransactionMarker(NamedTuple):
    """What tells the marker of a transaction from all others: its partition, and the producer's id and epoch."""

    topic: str
    partition: int
    producer_id: int
    epoch: int


class LeanKeys:
    """Key deserializer that marks a consumer whose records are lean.

    Offsets without a record are added to `empty`, and those of transaction markers to `markers`.
    """

    def __init__(self, empty: EmptyOffsets | None = None, markers: dict[TransactionMarker, int] | None = None) -> None:
        self.empty, self.markers = empty, markers

    def __call__(self, key: bytes | None) -> bytes | None:
        return key


def install() -> None:
    """Replace all of it, for every client of this process."""
    install_records()
    install_tasks()
    errors.kafka_errors[FENCED_INSTANCE_ID] = errors.UnknownMemberIdError
    client.create_conn = connect_in_time
    GroupCoordinator._send_req = _checked


_send_req = GroupCoordinator._send_req


async def _checked(self: GroupCoordinator, request: Any) -> Any:
    response = await _send_req(self, request)
    if (
        isinstance(request, OffsetFetchRequest)
        and (error := errors.for_code(getattr(response, "error_code", 0))) is not errors.NoError
    ):
        if error is errors.NotCoordinatorForGroupError:
            self.coordinator_dead()
        raise error
    return response


def install_records() -> None:
    """Make lean records for consumers that are marked by `LeanKeys`."""
    fetcher.PartitionRecords = _partition_records
    fetcher.MemoryRecords = RereadableRecords
    for module in (compiled_records, default_records):
        for codec in ("gzip", "lz4", "zstd"):
            setattr(module, f"{codec}_decode", partial(_unpacked, getattr(cramjam, codec).decompress_into))


def _unpacked(decompress_into: Callable[[bytes, bytearray], int], packed: bytes) -> bytes:
    """What a batch contains, of at most `MOST_UNPACKED_BYTES`; snappy has a bound of its own."""
    for room in (min(USUAL_RATIO * len(packed), MOST_UNPACKED_BYTES), MOST_UNPACKED_BYTES):
        unpacked = bytearray(room)
        try:
            return bytes(memoryview(unpacked)[: decompress_into(packed, unpacked)])
        except cramjam.DecompressionError:
            if room == MOST_UNPACKED_BYTES:
                raise
    raise AssertionError


# --- connections ----------------------------------------------------------------------------------------------------
class BoundedConnection(SaslConnection):
    """aiokafka's connection, which ends in time, and by errors of Kafka."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request, and return what waits for its answer, at most as long as a request may take."""
        try:
            answer = super().send(request, expect_response)
        except RuntimeError as error:  # from uvloop, where the transport has ended
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN, exc=error)
            raise errors.KafkaConnectionError(f"Connection to broker at {self._host}:{self._port} has ended") from error
        return self._answered(answer) if expect_response else answer

    async def _answered(self, answer: Any) -> Any:
        """Close when an answer is late. aiokafka would once for each, and the second time it knows no connection."""
        try:
            return await answer
        except TimeoutError as error:
            self.close(reason=conn.CloseReason.CONNECTION_TIMEOUT)
            raise errors.RequestTimedOutError from error

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close, and wait not long for the broker."""
        if self._writer is not None:
            self._loop.call_later(CLOSE_WITHIN_S, self._writer.transport.abort)
        return super().close(*args, **kwargs)


async def connect_in_time(
    host: str, port: int, *, request_timeout_ms: int, attempt_ms: int = CONNECT_TIMEOUT_MS, **options: Any
) -> BoundedConnection:
    """Connect to a broker: aiokafka's `create_conn` with a bound of its own; requests on the connection keep theirs."""
    connection = BoundedConnection(host, port, request_timeout_ms=min(request_timeout_ms, attempt_ms), **options)
    await connection.connect()
    connection._request_timeout = request_timeout_ms / 1000
    return connection


# --- records --------------------------------------------------------------------------------------------------------
class LeanRecord(msgspec.Struct, gc=False):
    """One record, as `ConsumerRecord`, which costs more to make than all else that aiokafka does with a record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    timestamp_type: int
    """Whose clock that is: `LOG_APPEND_TIME`, the broker's; else that of whoever wrote the record."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class LeanPartitionRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """The records of one partition in a fetch, and the offsets that hold none: what it leaves out is not there."""

    next_fetch_offset: int
    empty: EmptyOffsets | None = None
    markers: dict[TransactionMarker, int] | None = None
    _records_iterator: Iterator[LeanRecord] | None

    def __iter__(self) -> Iterator[LeanRecord]:
        if self._records_iterator is None:
            self._records_iterator = self._unpacked()
        return self._records_iterator

    def __next__(self) -> LeanRecord:
        return next(iter(self))

    def _unpack_records(self) -> None:
        """No generator yet: one that nobody reads would keep itself and the fetch until the collector comes."""

    def _unpacked(self) -> Iterator[LeanRecord]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise errors.CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not self._is_skipped(batch):
                yield from self._readable(batch)
            self._note_empty(batch.next_offset)

    def _readable(self, batch: Any) -> Iterator[LeanRecord]:
        try:
            try:
                yield from self._records_of(batch)
            except UnicodeDecodeError:  # a header's name, which may be any bytes
                yield from self._records_of(self._records.last_batch())
        except (MemoryError, errors.UnsupportedCodecError):  # this process lacks something, and not the batch
            raise
        except Exception as error:  # noqa: BLE001 - each codec has its own
            logger.warning(
                "record batch cannot be read and is skipped topic=%s partition=%d offsets=%d..%d: %r",
                *self._tp, self.next_fetch_offset, batch.next_offset - 1, error,
            )  # fmt: skip

    def _records_of(self, batch: Any) -> Iterator[LeanRecord]:
        (topic, partition), clock = self._tp, batch.timestamp_type
        for record in batch:
            offset = record.offset
            if offset < self.next_fetch_offset:
                continue
            if offset > self.next_fetch_offset:
                self._note_empty(offset)
            self.next_fetch_offset = offset + 1
            yield LeanRecord(
                topic, partition, offset, record.timestamp, clock, record.key, record.value, tuple(record.headers)
            )

    def _is_skipped(self, batch: Any) -> bool:
        if batch.is_control_batch and self.markers is not None:
            topic, partition = self._tp
            marker = TransactionMarker(topic, partition, batch.producer_id, batch.producer_epoch)
            self.markers[marker] = batch.base_offset
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)

    def _note_empty(self, end: int) -> None:
        """Go on to an offset before which there is no other record."""
        if end > self.next_fetch_offset:
            if self.empty is not None:
                self.empty.add(self._tp, self.next_fetch_offset, end)
            self.next_fetch_offset = end


def _partition_records(
    tp: Any, records: Any, aborted: Any, first_offset: int, key_deserializer: Any, *rest: Any
) -> Any:
    """What aiokafka calls by the name `PartitionRecords` for each fetch; it says nothing else about the consumer."""
    if not isinstance(key_deserializer, LeanKeys):
        return PartitionRecords(tp, records, aborted, first_offset, key_deserializer, *rest)
    lean = LeanPartitionRecords(tp, records, aborted, first_offset, None, *rest)
    lean.empty, lean.markers = key_deserializer.empty, key_deserializer.markers
    return lean


class RereadableRecords:
    """The batches of one partition in a fetch response, of which the one given last can be read again."""

    def __init__(self, fetched: bytes) -> None:
        self._fetched, self._start, self._stop = fetched, 0, 0
        self._records = MemoryRecords(fetched)
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        """The next batch, read by aiokafka."""
        self._start = self._stop
        (length,) = _LENGTH.unpack_from(self._fetched, self._start + _LENGTH_AT)
        self._stop += _LENGTH_AT + _LENGTH.size + length
        return self._records.next_batch()

    def last_batch(self) -> "LenientBatch":
        """The batch that `next_batch` gave last, from its beginning."""
        return LenientBatch(memoryview(self._fetched)[self._start : self._stop])


class LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # final to readers, and pinned
    """A batch that is read whatever its headers' names are."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Lenient(self._buffer)


class _Lenient(bytearray):
    """Bytes of which each part can be decoded."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Lenient(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The text, with U+FFFD for what is none."""
        return super().decode(encoding, errors)
