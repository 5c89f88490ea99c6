"""Fetches that name only the partitions that changed (KIP-227), and requests that are packed in one go.

aiokafka names each partition of a consumer in each fetch, and the broker answers with each of them; every field is
encoded and decoded by a call of its own. For a lone record that is most of what a consumer of many partitions costs.

Rules of this file:
- A broker has what the last fetch of a session named. So a fetch names what is new or has another position, and what is
  to be left out: partitions that are paused, and those of which there are records that nobody took yet.
- A session begins anew after an answer with an error, and after one that never came.
- After its answer a request names the partitions that were answered, for aiokafka looks at each that it names.
- Brokers and versions of requests that are not known here get aiokafka's own requests.
"""

import struct
from functools import cached_property
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.fetch import FetchRequest_v11 as FetchStruct
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.produce import ProduceRequest_v7 as ProduceStruct

Wanted: TypeAlias = dict[tuple[str, int], tuple[int, int]]
"""Position and most bytes of each partition."""
Versions = dict[int, tuple[int, int]]
"""By API, the least and the most that a broker takes."""
FIRST_EPOCH, LAST_EPOCH = 0, 2**31 - 1

_HEADER = struct.Struct(">hhih")
_FETCH = struct.Struct(">iiiibii")
_FETCH_PARTITION = struct.Struct(">iiqqi")
_FETCHED = struct.Struct(">ihii")
_FETCHED_PARTITION = struct.Struct(">ihqqqi")
_ABORTED = struct.Struct(">qq")
_TWO = struct.Struct(">ii")
_PRODUCED_PARTITION = struct.Struct(">ihqqq")
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
_CONSUMER, _UNKNOWN = -1, -1


class _AnswerHeader(NamedTuple):
    correlation_id: int


class _Bytes(NamedTuple):
    """What is encoded already."""

    content: bytes

    def encode(self) -> bytes:
        return self.content


class _Packed:
    """A request as aiokafka's connection sends it; it is its own decoder of the answer.

    Attributes:
        api: aiokafka's class of the request, for its numbers.
    """

    api: Any

    def build_request_header(self, correlation_id: int, client_id: str) -> _Bytes:
        name = client_id.encode()
        return _Bytes(_HEADER.pack(self.api.API_KEY, self.api.API_VERSION, correlation_id, len(name)) + name)

    def parse_response_header(self, answer: BytesIO) -> Any:
        return _AnswerHeader(*_INT32.unpack(answer.read(_INT32.size)))

    @property
    def RESPONSE_TYPE(self) -> "_Packed":  # noqa: N802 (aiokafka's name)
        return self


# --- fetch ----------------------------------------------------------------------------------------------------------
class FetchSession:
    """What one broker has of the fetches of one consumer.

    Attributes:
        number: The broker's number of it; 0 if there is none.
        epoch: Counts the fetches of the session; 0 begins one.
    """

    def __init__(self) -> None:
        self.number, self.epoch = 0, FIRST_EPOCH
        self._named: Wanted = {}
        self._is_answered = True

    def next(self, wanted: Wanted) -> tuple[Wanted, list[tuple[str, int]]]:
        """Return what the next fetch names, and what it has the broker leave out, so that `wanted` is fetched."""
        if not self._is_answered:
            self.epoch = FIRST_EPOCH
        self._is_answered = False
        before, self._named = self._named, wanted
        if self.epoch == FIRST_EPOCH:
            return wanted, []
        changed = {tp: position for tp, position in wanted.items() if before.get(tp) != position}
        return changed, [tp for tp in before if tp not in wanted]

    def answered(self, error_code: int, number: int) -> None:
        """Take the broker's word about the session."""
        self._is_answered = True
        if error_code or not number:
            self.epoch = FIRST_EPOCH
        else:
            self.number, self.epoch = number, self.epoch % LAST_EPOCH + 1


class SessionFetchRequest(FetchRequest):  # type: ignore[misc]
    """aiokafka's request of a fetch, as part of a session.

    Attributes:
        session: Of the broker; None: the fetch is of none.
        wanted: Position and most bytes of each partition.
    """

    session: FetchSession | None = None
    _topics: list[tuple[str, list[tuple[int, int, int]]]] | None

    @classmethod
    def of(cls, like: "SessionFetchRequest", wanted: Wanted) -> "SessionFetchRequest":
        """Return a request like another one, for other partitions or positions."""
        request = cls(like._max_wait_ms, like._min_bytes, like._max_bytes, like._isolation_level, [], like._rack_id)
        request.session, request.wanted, request._topics = like.session, wanted, None
        return request

    @cached_property
    def wanted(self) -> Wanted:
        return {(topic, one): (position, most) for topic, found in self.topics for one, position, most in found}

    @property
    def topics(self) -> list[tuple[str, list[tuple[int, int, int]]]]:
        """What is wanted, by topic, as aiokafka has it."""
        if self._topics is None:
            by_topic: dict[str, list[tuple[int, int, int]]] = {}
            for (topic, partition), (position, most) in self.wanted.items():
                by_topic.setdefault(topic, []).append((partition, position, most))
            self._topics = [*by_topic.items()]
        return self._topics

    def answered(self, found: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        """Name only what was answered from now on."""
        wanted = self.wanted
        self._topics = [(topic, [(one, *wanted[topic, one]) for one, *_ in some]) for topic, some in found]

    def prepare(self, versions: Versions) -> Any:
        least, most = versions.get(self.API_KEY, (0, 0))
        if self.session is None or not least <= FetchStruct.API_VERSION <= most:
            self._topics = self.topics
            return super().prepare(versions)
        return _PackedFetch(self, self.session)


class _PackedFetch(_Packed):
    api = FetchStruct
    API_VERSION = FetchStruct.API_VERSION
    topics: list[tuple[str, list[tuple[Any, ...]]]]
    """Of the answer: partition, error code, high watermark, last stable offset, start of the log, aborted transactions,
    preferred replica, records."""

    def __init__(self, request: SessionFetchRequest, session: FetchSession) -> None:
        self._request, self._session = request, session

    def encode(self) -> bytes:
        request, session = self._request, self._session
        named, left_out = session.next(request.wanted)
        by_topic: dict[str, list[bytes]] = {}
        for (topic, partition), (position, most) in named.items():
            by_topic.setdefault(topic, []).append(_FETCH_PARTITION.pack(partition, _UNKNOWN, position, _UNKNOWN, most))
        forgotten: dict[str, list[bytes]] = {}
        for topic, partition in left_out:
            forgotten.setdefault(topic, []).append(_INT32.pack(partition))
        first = _FETCH.pack(
            _CONSUMER, request._max_wait_ms, request._min_bytes, request._max_bytes, request._isolation_level,
            session.number, session.epoch,
        )  # fmt: skip
        return first + _topics(by_topic) + _topics(forgotten) + _string(request._rack_id)

    def decode(self, answer: BytesIO) -> "_PackedFetch":
        data, at = answer.getbuffer(), answer.tell()
        _, error_code, number, count = _FETCHED.unpack_from(data, at)
        at += _FETCHED.size
        self._session.answered(error_code, number)
        self.topics = []
        for _ in range(count):
            topic, partitions, at = _topic_at(data, at)
            found: list[tuple[Any, ...]] = []
            for _ in range(partitions):
                *numbers, aborted_count = _FETCHED_PARTITION.unpack_from(data, at)
                at += _FETCHED_PARTITION.size
                aborted = None if aborted_count < 0 else [
                    _ABORTED.unpack_from(data, at + n * _ABORTED.size) for n in range(aborted_count)
                ]  # fmt: skip
                at += max(0, aborted_count) * _ABORTED.size
                replica, size = _TWO.unpack_from(data, at)
                at += _TWO.size
                found.append((*numbers, aborted, replica, bytes(data[at : at + size]) if size > 0 else b""))
                at += max(0, size)
            self.topics.append((topic, found))
        self._request.answered(self.topics)
        return self


# --- produce --------------------------------------------------------------------------------------------------------
class PackedProduceRequest(ProduceRequest):  # type: ignore[misc]
    """aiokafka's request to store records, packed in one go."""

    def prepare(self, versions: Versions) -> Any:
        least, most = versions.get(self.API_KEY, (0, 0))
        if not least <= ProduceStruct.API_VERSION <= most:
            return super().prepare(versions)
        return _PackedProduce(self)


class _PackedProduce(_Packed):
    api = ProduceStruct
    API_VERSION = ProduceStruct.API_VERSION
    topics: list[tuple[str, list[tuple[int, int, int, int, int]]]]
    """Of the answer: partition, error code, offset, timestamp, start of the log."""

    def __init__(self, request: PackedProduceRequest) -> None:
        self._request = request

    def encode(self) -> bytes:
        request = self._request
        name = request._transactional_id
        parts = [
            _INT16.pack(-1) if name is None else _string(name),
            struct.pack(">hii", request._required_acks, request._timeout, len(request._topics)),
        ]
        for topic, partitions in request._topics:
            parts += (_string(topic), _INT32.pack(len(partitions)))
            for partition, records in partitions:
                parts += (_TWO.pack(partition, len(records)), records)
        return b"".join(parts)

    def decode(self, answer: BytesIO) -> "_PackedProduce":
        data, at = answer.getbuffer(), answer.tell() + _INT32.size
        self.topics = []
        for _ in range(*_INT32.unpack_from(data, at - _INT32.size)):
            topic, partitions, at = _topic_at(data, at)
            end = at + partitions * _PRODUCED_PARTITION.size
            self.topics.append((topic, [*_PRODUCED_PARTITION.iter_unpack(data[at:end])]))
            at = end
        return self


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def _topics(packed: dict[str, list[bytes]]) -> bytes:
    parts = [_INT32.pack(len(packed))]
    for topic, partitions in packed.items():
        parts += (_string(topic), _INT32.pack(len(partitions)), *partitions)
    return b"".join(parts)


def _topic_at(data: memoryview, at: int) -> tuple[str, int, int]:
    end = at + _INT16.size + _INT16.unpack_from(data, at)[0]
    return str(data[at + _INT16.size : end], "utf-8"), _INT32.unpack_from(data, end)[0], end + _INT32.size
