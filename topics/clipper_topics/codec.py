"""Encodes and decodes records by their content-type header: JSON unless it says msgpack; and frames for hosts.

Rules of this file:
- Whatever the bytes are, decoding ends in a record or in `UndecodableRecord`: they come from anybody.
- Fields that a record does not know are ignored, in every kind of record and at every level of it.
- A whole number counts as an integer however it is written: JavaScript writes 3.0 as 3, Java writes 3 as 3.0.
- A frame, between routers and hosts, is one version byte, then msgpack with the matrix as raw bytes. A reader that
  meets a version it does not know raises `UnknownFrame`; it never guesses. Fields are only ever appended, with a
  default, under the same version; any other change is a new version byte.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from clipper_topics.audit import Audit
from clipper_topics.change import Change
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import AckRequest, Feedback, FeedbackAck, RawFeedback
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query, RawQuery
from clipper_topics.restore import Restore

JSON = "application/json"
MSGPACK = "application/msgpack"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"
ECHOED = ("correlation-id", TRACEPARENT)
"""Headers of a query or a feedback that what is written about it repeats."""
_SAMPLED = frozenset(b"13579bdf")
"""The last digit of the `traceparent` of what is sampled."""
MSGPACK_HEADERS: list[tuple[str, bytes]] = [(CONTENT_TYPE, MSGPACK.encode())]
MSGPACK_ALIASES = ("application/x-msgpack", "application/vnd.msgpack")
"""Other names of msgpack that clients use."""
JSON_HEADERS: list[tuple[str, bytes]] = [(CONTENT_TYPE, JSON.encode())]
_NO_HEADERS: list[tuple[str, bytes]] = []

Headers = Iterable[tuple[str, bytes]]
T = TypeVar("T", bound=msgspec.Struct)


class UndecodableRecord(ValueError):
    """The bytes are no record of the topic's kind; the message says where and why."""


ReadHeaders: TypeAlias = tuple[str, tuple[tuple[str, bytes], ...], bytes | None]
NO_HEADERS: ReadHeaders = (JSON, (), None)
_STATED: dict[bytes | None, str] = {JSON.encode(): JSON, MSGPACK.encode(): MSGPACK}
_USUAL: dict[Any, ReadHeaders] = {
    (): NO_HEADERS, tuple(JSON_HEADERS): NO_HEADERS, tuple(MSGPACK_HEADERS): (MSGPACK, (), None),
}  # fmt: skip


def read_headers(headers: Headers) -> ReadHeaders:
    """Return the content type that the headers state, those that an answer repeats, and the `traceparent` if sampled.

    Whether that has the right form is for `trace_context` to say: most queries are not sampled.

    >>> read_headers([("traceparent", b"00-4bf9-00f0-00"), ("tenant", b"7")])
    ('application/json', (('traceparent', b'00-4bf9-00f0-00'),), None)
    """
    if type(headers) is tuple and (usual := _USUAL.get(headers)):
        return usual
    kind: str | None = None
    echoed, sampled = list[tuple[str, bytes]](), None
    for one in headers:
        name, value = one[0].lower(), one[1]
        if name in ECHOED and value is not None:
            echoed.append(one)
            if name == TRACEPARENT and value and value[-1] in _SAMPLED:
                sampled = sampled or value
        elif name == CONTENT_TYPE and kind is None:
            kind = _STATED.get(value) or _stated(value)
    return JSON if kind is None else kind, tuple(echoed), sampled


def content_type(headers: Headers) -> str:
    """Return the content type that the headers state, without parameters; JSON when they state none.

    >>> content_type([("Content-Type", b"Application/x-msgpack; charset=utf-8")])
    'application/msgpack'
    """
    return read_headers(headers)[0]


def _stated(value: bytes | None) -> str:
    stated = (value or b"").decode("utf-8", "replace").split(";")[0].strip().lower()
    return MSGPACK if stated in MSGPACK_ALIASES else stated


def headers_of(kind: str, *, state_json: bool = False) -> list[tuple[str, bytes]]:
    """Return the headers that a record of this content type carries.

    Routers state JSON too (`state_json`), for readers that know nothing of this contract; applications leave it out.

    >>> headers_of(JSON), headers_of(JSON, state_json=True)
    ([], [('content-type', b'application/json')])
    """
    if kind == MSGPACK:
        return MSGPACK_HEADERS
    return JSON_HEADERS if state_json else _NO_HEADERS


def no_extension(code: int, _: memoryview) -> object:
    """Refuse what msgpack leaves to applications: bytes that come from anybody."""
    raise ValueError(f"msgpack extension type {code}: use numbers, text, binary, lists and maps")


def records_in(records: Iterable[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """The records and all records that stand in their fields, each once."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting: list[Any] = [inspect.type_info(record) for record in records]
    while waiting:
        match waiting.pop():
            case inspect.StructType(cls=record, fields=fields):
                found[record] = None
                waiting += [field.type for field in fields]
            case inspect.UnionType(types=types):
                waiting += types
            case inspect.ListType(item_type=item):
                waiting.append(item)
    return list(found)


# --- records that forbid unknown fields -----------------------------------------------------------------------------
def as_declared(value: Any, declared: inspect.Type) -> Any:
    """Return the value without the fields that no record has, and with whole numbers as integers where these are meant.

    >>> from clipper_topics.manifests import ApplicationManifest
    >>> manifest = inspect.type_info(ApplicationManifest)
    >>> as_declared({"name": "digits", "revision": 2.0, "colour": 1, "input": {"shape": [3.0], "x": 2}}, manifest)
    {'name': 'digits', 'revision': 2, 'input': {'shape': [3]}}
    """
    match declared:
        case inspect.StructType(fields=fields) if isinstance(value, Mapping):
            types = {field.encode_name: field.type for field in fields}
            return {name: as_declared(part, types[name]) for name, part in value.items() if name in types}
        case inspect.ListType(item_type=item) if isinstance(value, list):
            return [as_declared(part, item) for part in value]
        case inspect.UnionType(types=types) if value is not None:  # a type or null
            return as_declared(value, types[0])
        case inspect.IntType() if isinstance(value, float) and value.is_integer():
            return int(value)
    return value


# --- records ------------------------------------------------------------------------------------------------------
_PARSERS: dict[str, Any] = {JSON: msgspec.json.Decoder(), MSGPACK: msgspec.msgpack.Decoder(ext_hook=no_extension)}
_ENCODERS: dict[str, Any] = {JSON: msgspec.json.Encoder(), MSGPACK: msgspec.msgpack.Encoder()}


class Codec(Generic[T]):
    """Encodes and decodes one kind of record.

    Where its type forbids unknown fields, what does not fit the type is parsed once more, without it: records of newer
    releases and of other languages.

    Raises:
        UndecodableRecord: from decoding: an empty value, an unknown content type, or bytes that are no such record.

    >>> queries.decode(b'{"application": "digits", "input": [1, 2]}').application
    'digits'
    """

    def __init__(self, record: type[T]) -> None:
        self.type, self._declared = record, inspect.type_info(record)
        self._is_strict = any(part.__struct_config__.forbid_unknown_fields for part in records_in([record]))
        self._decoders: dict[str, Any] = {
            JSON: msgspec.json.Decoder(record),
            MSGPACK: msgspec.msgpack.Decoder(record, ext_hook=no_extension),
        }

    def decode(self, value: bytes | None, headers: Headers = ()) -> T:
        return self.decode_as(content_type(headers) if headers else JSON, value)

    def decode_as(self, kind: str, value: bytes | None) -> T:
        """Decode a record of a content type that is known already."""
        if not value:
            raise UndecodableRecord("the value is empty")
        decoder = self._decoders.get(kind)
        if decoder is None:
            raise UndecodableRecord(f"content-type {kind!r}: use {JSON} (the default) or {MSGPACK}")
        try:
            return self._decode_strict(decoder, kind, value) if self._is_strict else decoder.decode(value)
        except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
            raise UndecodableRecord(f"not {kind}: {error}") from error

    def encode(self, record: T, kind: str = JSON) -> bytes:
        encoded: bytes = _ENCODERS[kind].encode(record)
        return encoded

    def _decode_strict(self, decoder: Any, kind: str, value: bytes) -> T:
        try:
            record: T = decoder.decode(value)
        except msgspec.ValidationError:
            record = msgspec.convert(as_declared(_PARSERS[kind].decode(value), self._declared), self.type)
        return record


queries = Codec(Query)
raw_queries = Codec(RawQuery)
predictions = Codec(Prediction)
audits = Codec(Audit)
feedback = Codec(Feedback)
raw_feedback = Codec(RawFeedback)
ack_requests = Codec(AckRequest)
feedback_acks = Codec(FeedbackAck)
applications = Codec(ApplicationManifest)
models = Codec(ModelManifest)
changes = Codec(Change)
host_reports = Codec(HostReport)
restores = Codec(Restore)
drifts = Codec(DriftEvent)
comparisons = Codec(Comparison)


# --- frames ---------------------------------------------------------------------------------------------------------
FRAME_VERSION = 1


class UnknownFrame(ValueError):
    """The bytes are no frame of a version that this process knows."""


class RequestFrame(msgspec.Struct, array_like=True, kw_only=True):
    """Rows for one model version, all of one dtype and row shape."""

    router: bytes
    """Identity of the asking router process, new at each start: 8 random bytes."""
    frame: int
    """Token of the frame, 64 random bits: the hosts of this model version know it, and nobody else."""
    reply: int
    """Partition of the outputs topic that the asking router reads."""
    dtype: str
    """numpy dtype of a numeric matrix, or `text`, `bytes`, `json`: `rows` then has the rows."""
    shape: list[int]
    """Shape of the matrix, rows first; `[n]` for non-numeric rows."""
    matrix: bytes = b""
    """The matrix in C order, for a numeric dtype."""
    rows: list[object] = []
    """The rows, for a non-numeric dtype."""
    deadlines: bytes = b""
    """One little-endian float64 a row: seconds since the epoch, `inf` for none."""


class FailedRow(msgspec.Struct, array_like=True):
    """A row without an output."""

    row: int
    """Index in the request frame."""
    reason: str
    """`late` (dropped, the deadline had passed) or `error`."""
    explanation: str


class OutputFrame(msgspec.Struct, array_like=True, kw_only=True):
    """Outputs of consecutive rows of one request frame; a frame may be answered in several pieces."""

    router: bytes
    """As in the request."""
    frame: int
    """As in the request."""
    row0: int
    """Index of the first row in the request frame."""
    outputs: list[object]
    """One output a row, in order; null where the row failed."""
    failed: list[FailedRow] = []
    """The rows without an output."""


_request = msgspec.msgpack.Decoder(RequestFrame, ext_hook=no_extension)
_output = msgspec.msgpack.Decoder(OutputFrame, ext_hook=no_extension)
_VERSION = bytes([FRAME_VERSION])


def encode_frame(frame: RequestFrame | OutputFrame) -> bytes:
    """Return the frame as bytes."""
    encoded: bytes = _ENCODERS[MSGPACK].encode(frame)
    return _VERSION + encoded


def decode_request(data: bytes) -> RequestFrame:
    """Decode a request frame; `UnknownFrame` for another version, or bytes that are none."""
    return _decoded(data, _request)


def decode_output(data: bytes) -> OutputFrame:
    """Decode an output frame; `UnknownFrame` as `decode_request`."""
    return _decoded(data, _output)


def _decoded(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    if not data or data[0] != FRAME_VERSION:
        found = data[0] if data else "an empty value"
        message = f"frame version {found}, this process reads {FRAME_VERSION}: update the older of the two processes"
        raise UnknownFrame(message)
    try:
        return decoder.decode(memoryview(data)[1:])
    except (ValueError, RecursionError) as error:
        raise UnknownFrame(f"no {decoder.type.__name__}: {error}") from error
