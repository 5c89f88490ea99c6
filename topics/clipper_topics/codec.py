"""Encodes and decodes records by their content-type header: JSON unless it says msgpack.

Rules of this file:
- Whatever the bytes are, decoding ends in a record or in `UndecodableRecord`: they come from anybody.
- Fields that a record does not know are ignored, in every kind of record.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from clipper_topics.audit import Audit
from clipper_topics.change import Change
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import AckRequest, Feedback, FeedbackAck
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query, RawQuery
from clipper_topics.restore import Restore

JSON = "application/json"
MSGPACK = "application/msgpack"
CONTENT_TYPE = "content-type"
ECHOED = ("correlation-id", "traceparent")
"""Headers of a query or a feedback that what is written about it repeats."""
MSGPACK_HEADERS: list[tuple[str, bytes]] = [(CONTENT_TYPE, MSGPACK.encode())]
JSON_HEADERS: list[tuple[str, bytes]] = [(CONTENT_TYPE, JSON.encode())]
_NO_HEADERS: list[tuple[str, bytes]] = []

Headers = Iterable[tuple[str, bytes]]
T = TypeVar("T", bound=msgspec.Struct)


class UndecodableRecord(ValueError):
    """The bytes are no record of the topic's kind; the message says where and why."""


_USUAL = {(): (JSON, ()), tuple(MSGPACK_HEADERS): (MSGPACK, ()), tuple(JSON_HEADERS): (JSON, ())}


def read_headers(headers: Headers) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Return the content type that the headers state, and those of them that an answer repeats.

    >>> read_headers([("traceparent", b"00-4bf9-00f0-01"), ("tenant", b"7")])
    ('application/json', (('traceparent', b'00-4bf9-00f0-01'),))
    """
    if type(headers) is tuple and (usual := _USUAL.get(headers)):
        return usual
    echoed = tuple(one for one in headers if one[0].lower() in ECHOED and one[1] is not None)
    return content_type(headers), echoed


def content_type(headers: Headers) -> str:
    """Return the content type that the headers state, without parameters; JSON when they state none."""
    if type(headers) is tuple and (usual := _USUAL.get(headers)):
        return usual[0]
    for name, value in headers:
        if name.lower() == CONTENT_TYPE:
            return (value or b"").decode("utf-8", "replace").split(";")[0].strip().lower()
    return JSON


def headers_of(kind: str, *, state_json: bool = False) -> list[tuple[str, bytes]]:
    """Return the headers that a record of this content type carries.

    Args:
        kind: The content type.
        state_json: Whether JSON is stated too. Routers state it with predictions and audits, for readers that know
            nothing of this contract; in records of applications it is understood.

    >>> headers_of(JSON), headers_of(JSON, state_json=True)
    ([], [('content-type', b'application/json')])
    """
    if kind == MSGPACK:
        return MSGPACK_HEADERS
    return JSON_HEADERS if state_json else _NO_HEADERS


def no_extension(code: int, _: memoryview) -> object:
    """Refuse what msgpack leaves to applications: bytes that come from anybody."""
    raise ValueError(f"msgpack extension type {code}: use numbers, text, binary, lists and maps")


def _decoders(record: type[msgspec.Struct]) -> dict[str, Any]:
    if record.__struct_config__.forbid_unknown_fields:
        return {
            JSON: TolerantDecoder(record, msgspec.json.Decoder()),
            MSGPACK: TolerantDecoder(record, msgspec.msgpack.Decoder(ext_hook=no_extension)),
        }
    return {
        JSON: msgspec.json.Decoder(record),
        MSGPACK: msgspec.msgpack.Decoder(record, ext_hook=no_extension),
    }


# --- fields from the future, in records that forbid them ----------------------------------------------------------
def known_fields(content: Any, record: type[msgspec.Struct]) -> Any:
    """Return the content without fields that the record, or a record in one of its fields, does not have.

    >>> from clipper_topics.manifests import ApplicationManifest
    >>> known_fields({"name": "digits", "colour": 1, "input": {"dtype": "text", "x": 2}}, ApplicationManifest)
    {'name': 'digits', 'input': {'dtype': 'text'}}
    """
    if not isinstance(content, Mapping):
        return content
    types = {field.encode_name: field.type for field in msgspec.structs.fields(record)}
    return {name: _known(value, types[name]) for name, value in content.items() if name in types}


def _known(value: Any, declared: Any) -> Any:
    is_record = isinstance(declared, type) and issubclass(declared, msgspec.Struct)
    return known_fields(value, declared) if is_record else value


class TolerantDecoder(Generic[T]):
    """A decoder that ignores unknown fields of a record whose type forbids them.

    Slower than msgspec's own: for manifests, of which there are few.
    """

    def __init__(self, record: type[T], parser: "msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any]") -> None:
        self._record = record
        self._parser = parser

    def decode(self, value: bytes) -> T:
        """The record.

        Raises:
            msgspec.MsgspecError: the bytes, or a field that the record knows, are not as they should be.
        """
        return msgspec.convert(known_fields(self._parser.decode(value), self._record), self._record)


# --- records ------------------------------------------------------------------------------------------------------
class Codec(Generic[T]):
    """Encodes and decodes one kind of record.

    >>> queries.decode(b'{"application": "digits", "input": [1, 2]}').application
    'digits'
    """

    def __init__(self, record: type[T]) -> None:
        self._decoders = _decoders(record)
        self._encoders: dict[str, Any] = {JSON: msgspec.json.Encoder(), MSGPACK: msgspec.msgpack.Encoder()}

    def decode(self, value: bytes | None, headers: Headers = ()) -> T:
        """The record.

        Raises:
            UndecodableRecord: an empty value, an unknown content type, or bytes that are no such record.
        """
        return self.decode_as(content_type(headers) if headers else JSON, value)

    def decode_as(self, kind: str, value: bytes | None) -> T:
        """The record, of a content type that is known already.

        Raises:
            UndecodableRecord: as `decode`.
        """
        if not value:
            raise UndecodableRecord("the value is empty")
        decoder = self._decoders.get(kind)
        if decoder is None:
            raise UndecodableRecord(f"content-type {kind!r}: use {JSON} (the default) or {MSGPACK}")
        try:
            record: T = decoder.decode(value)
        except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
            raise UndecodableRecord(f"not {kind}: {error}") from error
        return record

    def encode(self, record: T, kind: str = JSON) -> bytes:
        """The record as bytes of this content type."""
        encoded: bytes = self._encoders[kind].encode(record)
        return encoded


queries = Codec(Query)
raw_queries = Codec(RawQuery)
predictions = Codec(Prediction)
audits = Codec(Audit)
feedback = Codec(Feedback)
ack_requests = Codec(AckRequest)
feedback_acks = Codec(FeedbackAck)
applications = Codec(ApplicationManifest)
models = Codec(ModelManifest)
changes = Codec(Change)
host_reports = Codec(HostReport)
restores = Codec(Restore)
drifts = Codec(DriftEvent)
