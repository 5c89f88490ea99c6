"""Queries that are all encoded before a run: the same bytes for every system of one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from models import INPUTS, digits

from clipper_loadgen.script import MsgpackPieces
from clipper_topics.codec import MSGPACK_HEADERS

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
        repeat_ratio: Share of queries from `REPEATS_FROM` on whose row is one of `HOT_ROWS`.
    """

    encoding: str = "json"
    rows_each: int = 1
    repeat_ratio: float = 0.0


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
    """Numbers are thousandths, six characters in JSON; no row comes twice but the repeats. The seed is fixed."""
    rng = np.random.default_rng(11)
    rows = rng.integers(0, 1_000, (records * shape.rows_each, INPUTS)) / 1_000.0
    if shape.repeat_ratio:
        hot = np.flatnonzero(rng.random(len(rows)) < shape.repeat_ratio)
        hot = hot[hot >= REPEATS_FROM]
        # of the same partition: clients send an input always to the same one, where its output is cached
        rows[hot] = rows[rng.integers(0, HOT_ROWS // PARTITIONS, len(hot)) * PARTITIONS + hot % PARTITIONS]
    ids = [f"{index % PARTITIONS}-00c1a55e{index:08x}" for index in range(records)]
    packs = rows.reshape(records, shape.rows_each, INPUTS)
    encode = ENCODERS[shape.encoding]
    return Backlog(
        values=[encode(query_id, pack) for query_id, pack in zip(ids, packs, strict=True)],
        ids=ids,
        labels=digits(rows.astype(np.float32)).reshape(records, -1).tolist(),
        headers={"json": [], "v2": V2_HEADERS}.get(shape.encoding, MSGPACK_HEADERS),
        rows_each=shape.rows_each,
    )


def _json_query(query_id: str, pack: Any) -> bytes:
    field, rows = ("input", pack[0]) if len(pack) == 1 else ("inputs", pack)
    return _json({"query_id": query_id, "application": APPLICATION, field: rows.tolist()})


def _msgpack_query(query_id: str, pack: Any) -> bytes:
    body = MsgpackPieces().body
    return _msgpack_record(query_id, [body(row.tolist()) for row in pack])


def _bytes_query(query_id: str, pack: Any) -> bytes:
    return _msgpack_record(query_id, [_msgpack(row.astype("<f4").tobytes()) for row in pack])


def _msgpack_record(query_id: str, rows: list[bytes]) -> bytes:
    """A map of three fields, the last one given as encoded rows."""
    texts = ["query_id", query_id, "application", APPLICATION, "input" if len(rows) == 1 else "inputs"]
    # the header of an array, from an array of as many nils of one byte each
    header = b"" if len(rows) == 1 else _msgpack([None] * len(rows))[: -len(rows)]
    return b"".join((b"\x83", *map(_msgpack, texts), header, *rows))


def _v2_request(query_id: str, pack: Any) -> bytes:
    row = {"name": "predict", "shape": [1, INPUTS], "datatype": "FP32", "data": pack[0].tolist()}
    return _json({"id": query_id, "inputs": [row]})


ENCODERS: dict[str, Callable[[str, Any], bytes]] = {
    "json": _json_query,
    "msgpack": _msgpack_query,
    "msgpack-bytes": _bytes_query,
    "v2": _v2_request,
}
