"""Bytes to records and back, by the content-type header: JSON unless it says msgpack.

Rules of this file:
- Whatever the bytes are, decoding ends in a record or in `UndecodableRecord`: they come from anybody.
- Fields that a record does not know are ignored, in every kind of record.
"""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from clipper_topics.audit import Audit
from clipper_topics.change import Change
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import Feedback
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query
from clipper_topics.restore import Restore
from clipper_topics.tolerant import TolerantDecoder

JSON = "application/json"
MSGPACK = "application/msgpack"
CONTENT_TYPE = "content-type"
MSGPACK_HEADERS: list[tuple[str, bytes]] = [(CONTENT_TYPE, MSGPACK.encode())]

Headers = Iterable[tuple[str, bytes]]
T = TypeVar("T", bound=msgspec.Struct)


class UndecodableRecord(ValueError):
    """The bytes are no record of the topic's kind; the message says where and why."""


_USUAL: dict[Headers, str] = {(): JSON, tuple(MSGPACK_HEADERS): MSGPACK, ((CONTENT_TYPE, JSON.encode()),): JSON}


def content_type(headers: Headers) -> str:
    """The content type that the headers state, without parameters; JSON when they state none."""
    if type(headers) is tuple and (usual := _USUAL.get(headers)):
        return usual
    for name, value in headers:
        if name.lower() == CONTENT_TYPE:
            return (value or b"").decode("utf-8", "replace").split(";")[0].strip().lower()
    return JSON


def headers_of(kind: str) -> list[tuple[str, bytes]]:
    """The headers that a record of this content type carries: none for JSON."""
    return MSGPACK_HEADERS if kind == MSGPACK else []


def _no_extension(code: int, _: memoryview) -> Any:
    raise ValueError(f"msgpack extension type {code}: use numbers, text, binary, lists and maps")


def _decoders(record: type[msgspec.Struct]) -> dict[str, Any]:
    if record.__struct_config__.forbid_unknown_fields:
        return {
            JSON: TolerantDecoder(record, msgspec.json.Decoder()),
            MSGPACK: TolerantDecoder(record, msgspec.msgpack.Decoder(ext_hook=_no_extension)),
        }
    return {
        JSON: msgspec.json.Decoder(record),
        MSGPACK: msgspec.msgpack.Decoder(record, ext_hook=_no_extension),
    }


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
predictions = Codec(Prediction)
audits = Codec(Audit)
feedback = Codec(Feedback)
applications = Codec(ApplicationManifest)
models = Codec(ModelManifest)
changes = Codec(Change)
host_reports = Codec(HostReport)
restores = Codec(Restore)
drifts = Codec(DriftEvent)
