"""Records of the logs with the fields that a replay needs, decoded a fetched list at once.

Rules of this file:
- What nobody asks for is not decoded: a prediction takes less time than a whole one.
- A record that the codecs cannot read is None here, and a feedback that says nothing, or too much, is too.
- A list of records of one content type is decoded in one go; when one of them cannot be, each by itself.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_topics.codec import JSON, MSGPACK, content_type, no_extension

Record: TypeAlias = ConsumerRecord[Any, Any]
UNSAID = msgspec.UNSET
_Long = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Short = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class LeanAnswer(msgspec.Struct, gc=False):
    """The fields of a model that answered."""

    model: str
    version: str
    propensity: float
    output: Any = UNSAID
    outputs: Any = UNSAID
    latency_ms: float = 0.0
    served: bool = True


class LeanMissing(msgspec.Struct, gc=False):
    """The fields of a model that did not answer."""

    model: str
    version: str
    propensity: float
    served: bool = True


class LeanPolicy(msgspec.Struct, gc=False):
    """The policy that decided."""

    name: str
    version: _Short = 1


class LeanPrediction(msgspec.Struct, gc=False):
    """The fields of a prediction."""

    query_id: str
    application: str
    context: str | None = None
    output: Any = UNSAID
    outputs: Any = UNSAID
    confidence: float = 0.0
    default: bool = False
    reason: str | None = None
    policy: LeanPolicy | None = None
    served_propensity: float | None = None
    models: list[LeanAnswer] = []
    missing: list[LeanMissing] = []
    audited: bool = False
    features: list[float] = []
    query_offset: _Long = -1
    predicted_at_ms: _Long = 0


class LeanAudit(msgspec.Struct, gc=False):
    """The fields of an audit."""

    query_id: str
    models: list[LeanAnswer] = []
    missing: list[LeanMissing] = []
    query_offset: _Long = -1


class LeanFeedback(msgspec.Struct, gc=False):
    """The fields of a feedback."""

    query_id: str
    application: str | None = None
    context: str | None = None
    label: Any = UNSAID
    loss: _Unit | None = None
    reward: _Unit | None = None


class LeanQuery(msgspec.Struct, gc=False):
    """The input of a query."""

    input: Any = UNSAID
    inputs: list[Any] | None = None


class ListDecoder:
    """Decodes lists of records of one kind.

    Args:
        kind: Type of the records.

    >>> from aiokafka import ConsumerRecord
    >>> values = [b'{"query_id": "0-1", "label": 3}', b"{"]
    >>> records = [ConsumerRecord("f", 0, n, 0, 0, None, value, None, 0, 0, ()) for n, value in enumerate(values)]
    >>> [found and found.query_id for found in ListDecoder(LeanFeedback).decode(records)]
    ['0-1', None]
    """

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._decoders: dict[str, Any] = {
            JSON: msgspec.json.Decoder(kind).decode,
            MSGPACK: msgspec.msgpack.Decoder(kind, ext_hook=no_extension).decode,
        }

    def decode(self, records: Sequence[Record]) -> list[Any]:
        """Decode each record, in order; None where it is no record of this kind."""
        headers = {record.headers for record in records}
        kinds = {content_type(one) for one in headers}
        if len(kinds) == 1 and (decode := self._decoders.get(kinds.pop())) is not None:
            try:
                return [decode(record.value) for record in records]
            except (ValueError, TypeError, RecursionError):
                pass
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Any:
        decode = self._decoders.get(content_type(record.headers))
        if not record.value or decode is None:
            return None
        try:
            return decode(record.value)
        except (ValueError, RecursionError):
            return None


def given_loss(found: LeanFeedback) -> float | None:
    """Return the loss in [0, 1] that a feedback without a label gives; None unless it gives loss or reward."""
    loss, reward = found.loss, found.reward
    if reward is not None:
        return 1.0 - float(reward) if loss is None else None
    return None if loss is None else float(loss)
