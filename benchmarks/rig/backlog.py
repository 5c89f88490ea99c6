"""Queries that are all encoded and written before a run, and the predictions about them, counted and read back."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rig.flood import TopicEnd, TopicRecord, produce
from rig.predictions import records_from
from rig.tasks import DIGITS, Task

from clipper_loadgen.script import encode_input
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import MSGPACK, MSGPACK_HEADERS
from clipper_topics.connection import KafkaConnection

APPLICATION = "digits-backlog"
PARTITIONS = 4
INDEX_DIGITS = 8
"""A query id ends with the index of the query, in so many hexadecimal digits."""
HOT_ROWS, REPEATS_FROM = 1_000, 20_000
"""Repeats are drawn from so many first rows, and begin so late: then these are answered, no longer in flight."""
V2_HEADERS = [("mlserver-model", b"digits")]
_json = msgspec.json.encode
_msgpack = msgspec.msgpack.encode


@dataclass(frozen=True, slots=True)
class Shape:
    """What the queries look like.

    Attributes:
        encoding: `json`, `msgpack` (numbers as float32 arrays), `msgpack-bytes` (a row as its 256 bytes), or `v2`
            (inference requests as MLServer reads them).
        rows_each: Rows in a record; 1: `input`, more: `inputs`.
        repeat_ratio: Share of queries from `REPEATS_FROM` on whose row is one of `HOT_ROWS`; where the same work is
            done, of the later queries whose row is one of the earlier ones.
        task: What rows and models are.
    """

    encoding: str = "json"
    rows_each: int = 1
    repeat_ratio: float = 0.0
    task: Task = DIGITS

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Of each record."""
        return {"json": [], "v2": V2_HEADERS}.get(self.encoding, MSGPACK_HEADERS)

    def encode(self, query_id: str, pack: NDArray[np.float64], application: str = APPLICATION) -> bytes:
        """A query about some rows as bytes."""
        return ENCODERS[self.encoding](query_id, pack, application)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Encoded queries, query i for partition `i % PARTITIONS`.

    Attributes:
        values: Record values.
        ids: Query ids.
        labels: What the model says of each row of each query.
        headers: Record headers.
        rows_each: Rows in a record.
    """

    values: list[bytes]
    ids: list[str]
    labels: list[list[int]]
    headers: list[tuple[str, bytes]]
    rows_each: int


@lru_cache(maxsize=4)
def make_backlog(shape: Shape, records: int) -> Backlog:
    """No row comes twice but the repeats. The seed is fixed."""
    rng, task = np.random.default_rng(11), shape.task
    rows = task.rows(rng, records * shape.rows_each)
    if shape.repeat_ratio:
        hot = np.flatnonzero(rng.random(len(rows)) < shape.repeat_ratio)
        hot = hot[hot >= REPEATS_FROM]
        # of the same partition: clients send an input always to the same one, where its output is cached
        rows[hot] = rows[rng.integers(0, HOT_ROWS // PARTITIONS, len(hot)) * PARTITIONS + hot % PARTITIONS]
    ids = [f"{index % PARTITIONS}-00c1a55e{index:08x}" for index in range(records)]
    packs = rows.reshape(records, shape.rows_each, task.inputs)
    return Backlog(
        values=[shape.encode(query_id, pack) for query_id, pack in zip(ids, packs, strict=True)],
        ids=ids,
        labels=task.labels(rows).reshape(records, -1).tolist(),
        headers=shape.headers,
        rows_each=shape.rows_each,
    )


def _json_query(query_id: str, pack: Any, application: str) -> bytes:
    field, rows = ("input", pack[0]) if len(pack) == 1 else ("inputs", pack)
    return _json({"query_id": query_id, "application": application, field: rows.tolist()})


def _msgpack_query(query_id: str, pack: Any, application: str) -> bytes:
    return _msgpack_record(query_id, [encode_input(row.tolist(), MSGPACK) for row in pack], application)


def _bytes_query(query_id: str, pack: Any, application: str) -> bytes:
    return _msgpack_record(query_id, [_msgpack(row.astype("<f4").tobytes()) for row in pack], application)


def _msgpack_record(query_id: str, rows: list[bytes], application: str) -> bytes:
    """A map of three fields, the last one given as encoded rows."""
    texts = ["query_id", query_id, "application", application, "input" if len(rows) == 1 else "inputs"]
    # the header of an array, from an array of as many nils of one byte each
    header = b"" if len(rows) == 1 else _msgpack([None] * len(rows))[: -len(rows)]
    return b"".join((b"\x83", *map(_msgpack, texts), header, *rows))


def _v2_request(query_id: str, pack: Any, _: str) -> bytes:
    row = {"name": "predict", "shape": [*pack.shape], "datatype": "FP32", "data": pack[0].tolist()}
    return _json({"id": query_id, "inputs": [row]})


ENCODERS: dict[str, Callable[[str, Any, str], bytes]] = {
    "json": _json_query,
    "msgpack": _msgpack_query,
    "msgpack-bytes": _bytes_query,
    "v2": _v2_request,
}


class _Model(msgspec.Struct):
    cached: bool = False


class Found(msgspec.Struct):
    """What is looked at in an answer, of whatever system."""

    query_id: str = ""
    id: str = ""
    output: Any = None
    outputs: list[Any] | None = None
    models: list[_Model] = []
    reason: str | None = None

    @property
    def labels(self) -> list[Any]:
        """One a row, also of a V2 response."""
        if self.outputs is None:
            return [self.output]
        return self.outputs[0]["data"] if self.id else self.outputs


_from_json, _from_msgpack = msgspec.json.Decoder(Found), msgspec.msgpack.Decoder(Found)


class Ends:
    """Queries in, predictions out.

    Args:
        connection: The broker.
        catalogue: The topics; they exist.
    """

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._queries, self._predictions = catalogue.queries, catalogue.predictions
        self._end = TopicEnd(connection, catalogue.predictions, PARTITIONS)

    def close(self) -> None:
        """Leave the broker."""
        self._end.close()

    def fill(self, backlog: Backlog) -> None:
        """Write every query, and wait until all are acknowledged."""
        self.write(backlog, range(len(backlog.values)))

    def write(self, backlog: Backlog, queries: Iterable[int]) -> None:
        """Write these queries, by index.

        Raises:
            TimeoutError: not all were acknowledged in time.
        """
        topic, ids, values = self._queries, backlog.ids, backlog.values
        produce(
            self._connection,
            (TopicRecord(topic, n % PARTITIONS, ids[n], values[n], backlog.headers) for n in queries),
        )

    def predictions(self) -> int:
        """Records on the predictions topic."""
        return self._end.grown()

    def check(self, backlog: Backlog, cold: int) -> dict[str, Any]:
        """Read all predictions: missing, duplicates, wrong labels, default outputs, share answered from a cache.

        Args:
            backlog: What was asked.
            cold: So many queries at the beginning do not count for the cache: what they ask again is in flight.
        """
        label_of = dict(zip(backlog.ids, backlog.labels, strict=True))
        seen: Counter[str] = Counter()
        tally: Counter[str] = Counter()
        for record in records_from(self._connection, self._predictions, [0] * PARTITIONS):
            value = record.value() or b""
            found = (_from_json if value.startswith(b"{") else _from_msgpack).decode(value)
            query_id = found.query_id or found.id
            if query_id not in label_of:  # a probe
                continue
            seen[query_id] += 1
            tally["defaults"] += found.reason is not None
            tally["wrong"] += found.reason is None and found.labels != label_of[query_id]
            if int(query_id[-INDEX_DIGITS:], 16) >= cold:
                tally["warm"] += 1
                tally["hits"] += bool(found.models) and all(model.cached for model in found.models)
        return {
            "missing": len(backlog.ids) - len(seen),
            "duplicates": seen.total() - len(seen),
            "wrong": tally["wrong"],
            "default_ratio": round(tally["defaults"] / max(1, seen.total()), 6),
            "hit_ratio": round(tally["hits"] / max(1, tally["warm"]), 4),
        }
