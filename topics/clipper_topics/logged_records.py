"""Predictions and audits as they stand in their logs: the bytes, and the little that finds them again.

A router keeps the bytes of every prediction in an index, and a replay on disk. Decoding a whole prediction costs ten
times as much as its head, so only what feedback is about is ever decoded.
"""

from typing import Any, NamedTuple

import msgspec

from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.codec import Codec, UndecodableRecord, content_type
from clipper_topics.prediction import Prediction


class LoggedRecord(NamedTuple):
    """One prediction or one audit in its log; its value is msgpack or JSON.

    A prediction that is `audited` says that an audit follows.
    """

    offset: int
    value: bytes
    msgpack: bool
    audited: bool = False

    @property
    def content_type(self) -> str:
        return codec.MSGPACK if self.msgpack else codec.JSON


class PredictionHead(msgspec.Struct):
    """The part of a prediction that tells which query it answers, when that was asked, and whether an audit follows."""

    query_id: str
    application: str = ""
    query_offset: int = -1
    queried_at_ms: int = 0
    audited: bool = False


class _NamedModel(msgspec.Struct):
    model: str
    version: str


class _NamedModels(msgspec.Struct):
    """The part of a prediction that names models."""

    models: list[_NamedModel] = []
    missing: list[_NamedModel] = []


_heads, _named_models = Codec(PredictionHead), Codec(_NamedModels)


def audit_key(query_id: str, query_offset: int) -> str:
    """The key under which the audit of one record of a query is indexed.

    >>> audit_key("order 7", 41)
    '41 order 7'
    """
    return f"{query_offset} {query_id}"


def prediction_head(logged: LoggedRecord) -> PredictionHead:
    """Decode the head of a prediction; `UndecodableRecord` where the bytes are none."""
    return _heads.decode_as(logged.content_type, logged.value)


def decides(logged: LoggedRecord, application: str | None, since_ms: float, until_ms: float) -> bool:
    """Whether a prediction answers a query of this application (None: of any) that was asked within a span of time."""
    head = prediction_head(logged)
    return since_ms <= head.queried_at_ms <= until_ms and application in (None, head.application)


def named_models(logged: LoggedRecord) -> list[str]:
    """References of the models that a prediction names."""
    found = _named_models.decode_as(logged.content_type, logged.value)
    return [f"{one.model}:{one.version}" for one in (*found.models, *found.missing)]


def decode_prediction(logged: LoggedRecord) -> Prediction:
    """Decode the whole prediction."""
    return codec.predictions.decode_as(logged.content_type, logged.value)


def decode_audit(logged: LoggedRecord) -> Audit:
    """Decode the whole audit; `UndecodableRecord` where the bytes are none."""
    return codec.audits.decode_as(logged.content_type, logged.value)


def read_prediction(record: Any) -> tuple[str, LoggedRecord] | None:
    """Return query id and content of a record of the predictions topic, as Kafka clients read it; None for no such."""
    logged = _logged(record)
    try:
        head = prediction_head(logged)
    except UndecodableRecord:
        return None
    return head.query_id, logged._replace(audited=True) if head.audited else logged


def read_audit(record: Any) -> tuple[str, LoggedRecord] | None:
    """The `audit_key` and the content of a record of the audits topic; None for a record that is no audit.

    The audit is decoded wholly, so that whatever is indexed can be learned from.
    """
    logged = _logged(record)
    try:
        audit = decode_audit(logged)
    except UndecodableRecord:
        return None
    return audit_key(audit.query_id, audit.query_offset), logged


def _logged(record: Any) -> LoggedRecord:
    return LoggedRecord(record.offset, record.value or b"", content_type(record.headers) == codec.MSGPACK)
