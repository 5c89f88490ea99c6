"""Records of the logs as Arrow tables, with the columns that the join of decisions and feedback needs.

Rules of this file:
- What nobody asks for is not decoded: a prediction takes less time than a whole one.
- A value of the logs (an output, a label) is a text that is its JSON. One that JSON cannot say stands as msgpack, so
  that `value_of` returns every value as it was logged.
- A place is one number for partition and offset, in log order within a partition.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from aiokafka import ConsumerRecord

from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import JSON, MSGPACK, content_type, no_extension
from clipper_topics.feedback import FORWARDED, said_at_ms
from clipper_topics.prediction import LOW_CONFIDENCE
from clipper_topics.restore import restore_id_of

Record: TypeAlias = ConsumerRecord[Any, Any]
UNSAID = msgspec.UNSET
_Long = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Short = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


# --- records ----------------------------------------------------------------------------------------------------------
class LeanAnswer(msgspec.Struct, gc=False):
    """A model that was asked, and what it said."""

    model: str
    version: str
    propensity: float
    output: Any = UNSAID
    outputs: Any = UNSAID
    latency_ms: float = 0.0
    served: bool = True


class LeanMissing(msgspec.Struct, gc=False):
    """A model that did not answer."""

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
    is_default: bool = msgspec.field(default=False, name="default")
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


def decoder(kind: type[msgspec.Struct]) -> Callable[[Sequence[Record]], list[Any]]:
    """Return a function that decodes records of a kind, in order, to None where one is no such record.

    >>> values = [b'{"query_id": "0-1", "label": 3}', b"{"]
    >>> records = [ConsumerRecord("f", 0, n, 0, 0, None, value, None, 0, 0, ()) for n, value in enumerate(values)]
    >>> [found and found.query_id for found in decoder(LeanFeedback)(records)]
    ['0-1', None]
    """
    decoders: dict[str, Callable[[Any], Any]] = {
        JSON: msgspec.json.Decoder(kind).decode,
        MSGPACK: msgspec.msgpack.Decoder(kind, ext_hook=no_extension).decode,
    }

    def one(record: Record) -> Any:
        decode = decoders.get(content_type(record.headers))
        try:
            return decode(record.value) if decode and record.value else None
        except (ValueError, RecursionError):
            return None

    def every(records: Sequence[Record]) -> list[Any]:
        kinds = {content_type(headers) for headers in {record.headers for record in records}}
        decode = decoders.get(kinds.pop()) if len(kinds) == 1 else None
        try:
            return [decode(record.value) for record in records] if decode else [*map(one, records)]
        except (ValueError, TypeError, RecursionError):
            return [*map(one, records)]

    return every


# --- values -----------------------------------------------------------------------------------------------------------
_NO_JSON = "!"
"""Begins the text of a value that is no JSON."""
_PLAIN = frozenset((int, str, type(None)))
"""Types of values that are equal only where their texts are."""


def json_of(value: Any) -> str:
    """Return the value as compact JSON, with null for numbers that are not finite.

    >>> json_of([1, 2.50]), json_of(2**70)
    ('[1,2.5]', '1180591620717411303424')
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError):
        return json.dumps(value, default=repr, separators=(",", ":"), skipkeys=True)


def text_of(value: Any) -> str:
    """Return the text that stands for a value; `value_of` is the inverse.

    >>> [value_of(text_of(value)) for value in (1, 1.0, True, None, [2**70, "x"], {1: b"y"}, float("inf"))]
    [1, 1.0, True, None, [1180591620717411303424, 'x'], {1: b'y'}, inf]
    """
    text = json_of(value)
    if type(value) in _PLAIN or json.loads(text) == value:
        return text
    return _NO_JSON + msgspec.msgpack.encode(value).hex()


def value_of(text: str) -> Any:
    """Return the value that a text of `text_of` stands for."""
    return msgspec.msgpack.decode(bytes.fromhex(text[1:])) if text[:1] == _NO_JSON else json.loads(text)


class _PlainTexts(dict[Any, str]):
    """Texts of values by the values."""

    def __missing__(self, value: Any) -> str:
        text = self[value] = text_of(value)
        return text


def texts_of(values: Sequence[Any]) -> list[str]:
    """Return the texts of many values; one that a record leaves out is null."""
    known = _PlainTexts()
    if _PLAIN.issuperset(map(type, values)):
        return [known[value] for value in values]
    said = [None if value is UNSAID else value for value in values]
    return [known[value] if type(value) in _PLAIN else text_of(value) for value in said]


def _outputs(found: Iterable[LeanPrediction | LeanAnswer]) -> list[str]:
    return texts_of([one.output if one.outputs is UNSAID else one.outputs for one in found])


# --- tables -----------------------------------------------------------------------------------------------------------
_LONG, _REAL, _FLAG, _TEXT = pa.int64(), pa.float64(), pa.bool_(), pa.string()
_MODELS = {
    "place": _LONG, "number": _LONG, "model": _TEXT, "propensity": _REAL, "served": _FLAG, "answered": _FLAG,
    "latency_ms": _REAL, "output": _TEXT,
}  # fmt: skip
TABLES = {
    "predictions": {
        "place": _LONG, "logged_ms": _LONG, "query_id": _TEXT, "context": _TEXT, "answer": _TEXT, "several": _FLAG,
        "confidence": _REAL, "is_default": _FLAG, "low_confidence": _FLAG, "policy": _TEXT, "revision": pa.int32(),
        "served_propensity": _REAL, "audited": _FLAG, "features": pa.list_(_REAL), "query_offset": _LONG,
        "predicted_at_ms": _LONG,
    },
    "other_predictions": {"place": _LONG, "query_id": _TEXT, "own": _FLAG},
    "models": _MODELS,
    "audits": {"place": _LONG, "logged_ms": _LONG, "query_id": _TEXT, "query_offset": _LONG},
    "audit_models": _MODELS,
    "feedback": {
        "place": _LONG, "said_ms": _LONG, "query_id": _TEXT, "application": _TEXT, "context": _TEXT, "label": _TEXT,
        "given": _REAL, "sent_on": _FLAG,
    },
    "inputs": {"place": _LONG, "input": _TEXT},
}  # fmt: skip
"""Columns of each table. Of the predictions that are not wanted (of another application, or before the span) only the
ids are kept. `number` orders the models of one record, of which a later one replaces an earlier one;"""


_AS_LOGGED = (
    "query_id", "context", "confidence", "is_default", "served_propensity", "audited", "features", "predicted_at_ms",
)  # fmt: skip
"""Columns of predictions that are fields of the records."""
_BEHIND = 1 << 32
"""Added to the numbers of missing models."""


def columns_of(found: Sequence[msgspec.Struct], *names: str) -> dict[str, list[Any]]:
    """Return fields of records as columns."""
    return {name: [*map(attrgetter(name), found)] for name in names}


def places_of(records: Sequence[Record]) -> Any:
    """Return the place of each record of one partition; offsets stay below 2**48 for nine years at 1 M records/s."""
    first = records[0].partition << 48 if records else 0
    return np.array([record.offset for record in records], np.int64) + first


class LogTables:
    """Writes the tables of some partitions to files of a folder, `<table>-<name>.arrow`; a context manager.

    Args:
        application: Whose decisions are wanted.
        firsts: Offset of the first wanted prediction of each partition.

    Attributes:
        counts: Counts of records, with the names in `docs/reference/replay-files.md`.
        asked: Offsets of the first and last query of the wanted decisions of each partition.
    """

    def __init__(
        self, folder: Path, name: str, catalogue: Catalogue, application: str, firsts: Mapping[int, int]
    ) -> None:
        self._folder, self._name = folder, name
        self._application, self._firsts = application, firsts
        self._takers: dict[str, Callable[[Sequence[Record]], None]] = {
            catalogue.predictions: self._take_predictions,
            catalogue.audits: self._take_audits,
            catalogue.feedback: self._take_feedback,
            catalogue.queries: self._take_inputs,
        }
        self._decode: dict[type[msgspec.Struct], Callable[[Sequence[Record]], list[Any]]] = {
            kind: decoder(kind) for kind in (LeanPrediction, LeanAudit, LeanFeedback, LeanQuery)
        }
        self._files: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.asked: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        for table, columns in TABLES.items():
            path = self._folder / f"{table}-{self._name}.arrow"
            self._files[table] = pa.ipc.new_file(path, pa.schema(list(columns.items())))
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def take(self, records: Sequence[Record]) -> None:
        """Append records of one partition of a topic, in log order."""
        self._takers[records[0].topic](records)

    def _write(self, table: str, **columns: Any) -> None:
        kinds = TABLES[table]
        self._files[table].write(pa.record_batch({name: pa.array(columns[name], kinds[name]) for name in kinds}))

    def _found(self, kind: type[msgspec.Struct], records: Sequence[Record]) -> tuple[Sequence[Any], ...]:
        found = self._decode[kind](records)
        readable = [*map(bool, found)]  # a struct is true
        if all(readable):
            return records, found
        self.counts["undecodable"] += readable.count(False)
        return _chosen(readable, records, found)

    def _take_predictions(self, records: Sequence[Record]) -> None:
        records, found = self._found(LeanPrediction, records)
        application, first = self._application, self._firsts[records[0].partition] if records else 0
        wanted = [
            one.application == application and record.offset >= first
            for record, one in zip(records, found, strict=True)
        ]
        if not all(wanted):
            rest, others = _chosen([not one for one in wanted], records, found)
            own = [one.application == application for one in others]
            self._write("other_predictions", **columns_of(others, "query_id"), place=places_of(rest), own=own)
            records, found = _chosen(wanted, records, found)
        if found:
            self._write_predictions(records, found)

    def _write_predictions(self, records: Sequence[Record], found: Sequence[LeanPrediction]) -> None:
        places, columns = places_of(records), columns_of(found, *_AS_LOGGED)
        offsets = np.array([one.query_offset for one in found], np.int64)
        self._write(
            "predictions",
            **columns,
            place=places,
            logged_ms=[record.timestamp for record in records],
            answer=_outputs(found),
            several=[one.outputs is not UNSAID for one in found],
            low_confidence=[one.reason == LOW_CONFIDENCE for one in found],
            policy=[one.policy and one.policy.name for one in found],
            revision=[one.policy and one.policy.version for one in found],
            query_offset=offsets,
        )
        self._write_models("models", places, found)
        if len(known := offsets[offsets >= 0]):
            partition, least, most = records[0].partition, int(known.min()), int(known.max())
            before = self.asked.get(partition, (least, most))
            self.asked[partition] = min(least, before[0]), max(most, before[1])

    def _write_models(self, table: str, places: Any, records: Sequence[LeanPrediction | LeanAudit]) -> None:
        """Write who was asked; who is missing stands behind who answered."""
        for kind, first in (("models", 0), ("missing", _BEHIND)):
            lists = [*map(attrgetter(kind), records)]
            found = [one for each in lists for one in each]
            if not found:
                continue
            answered, nothing = kind == "models", [None] * len(found)
            self._write(
                table,
                **columns_of(found, "propensity", "served"),
                place=np.repeat(places, [*map(len, lists)]),
                number=np.arange(first, first + len(found)),
                model=[f"{one.model}:{one.version}" for one in found],
                answered=np.full(len(found), answered),
                latency_ms=[one.latency_ms for one in found] if answered else nothing,
                output=_outputs(found) if answered else nothing,
            )

    def _take_audits(self, records: Sequence[Record]) -> None:
        records, found = self._found(LeanAudit, records)
        if not found:
            return
        places, logged_ms = places_of(records), [record.timestamp for record in records]
        self._write("audits", **columns_of(found, "query_id", "query_offset"), place=places, logged_ms=logged_ms)
        self._write_models("audit_models", places, found)

    def _take_feedback(self, records: Sequence[Record]) -> None:
        if any(map(_headers, records)):
            is_said = [restore_id_of(one.headers) is None for one in records]
            self.counts["markers"] += is_said.count(False)
            (records,) = _chosen(is_said, records)
        records, found = self._found(LeanFeedback, records)
        valid = [*map(_is_valid, found)]
        if not all(valid):
            self.counts["undecodable"] += valid.count(False)
            records, found = _chosen(valid, records, found)
        self.counts["feedback"] += len(found)
        self._write(
            "feedback",
            **columns_of(found, "query_id", "application", "context"),
            place=places_of(records),
            said_ms=[said_at_ms(one.timestamp, one.headers) if one.headers else one.timestamp for one in records],
            label=texts_of([one.label for one in found]),
            given=[one.loss if one.reward is None else 1.0 - float(one.reward) for one in found],
            sent_on=[bool(one.headers) and any(name == FORWARDED for name, _ in one.headers) for one in records],
        )

    def _take_inputs(self, records: Sequence[Record]) -> None:
        records, found = self._found(LeanQuery, records)
        self._write("inputs", place=places_of(records), input=[_input(one) for one in found])


_headers = attrgetter("headers")


def _chosen(wanted: Sequence[bool], *columns: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    return tuple([*compress(column, wanted)] for column in columns)


def _is_valid(found: LeanFeedback) -> bool:
    """Return whether it names a query and says exactly one truth; null beside another truth is absent."""
    if found.loss is None and found.reward is None:
        return found.label is not UNSAID and bool(found.query_id)
    one_number = found.loss is None or found.reward is None
    return one_number and (found.label is UNSAID or found.label is None) and bool(found.query_id)


def _input(query: LeanQuery) -> str | None:
    if query.inputs is not None:
        return json_of({"inputs": query.inputs})
    return None if query.input is UNSAID else json_of({"input": query.input})
