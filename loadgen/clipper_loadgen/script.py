"""Queries as bytes, put together from pieces that were encoded before the run.

A query is `head + index + middle + body`: the head has the partition and the run, the index tells the queries of a run
apart, the middle has the application and the context, and the body the input. Each piece is encoded once, so that
during the run a query costs one join instead of one encoding of its whole input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import xxhash
from aiokafka.partitioner import murmur2

from clipper_loadgen.datasets import Dataset
from clipper_loadgen.workload import Workload

INDEX_CHARS = 8
"""A query id is `<partition>-<run><index>`, run and index with eight hexadecimal digits each."""
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


class JsonPieces:
    """A query as JSON: `head` goes up to the index, `middle` on to the input, `body` to the end of the record.

    >>> p = JsonPieces()
    >>> p.head("0-12345678", has_context=False) + b"00000000" + p.middle("digits", None) + p.body([1, 2])
    b'{"query_id":"0-1234567800000000","application":"digits","input":[1,2]}'
    """

    def head(self, identity: str, *, has_context: bool) -> bytes:
        del has_context
        return b'{"query_id":"' + identity.encode()

    def middle(self, application: str, context: str | None) -> bytes:
        named = b"" if context is None else b'"context":' + _json.encode(context) + b","
        return b'","application":' + _json.encode(application) + b"," + named + b'"input":'

    def body(self, row: Any) -> bytes:
        return _json.encode(row) + b"}"


class MsgpackPieces:
    """The same as msgpack; flat rows of floating-point numbers are written as float32."""

    def head(self, identity: str, *, has_context: bool) -> bytes:
        id_chars = len(identity) + INDEX_CHARS
        fields = 4 if has_context else 3
        # fixmap, "query_id", fixstr: the id has at most 22 characters, fixstr takes 31
        return bytes([0x80 | fields]) + _msgpack.encode("query_id") + bytes([0xA0 | id_chars]) + identity.encode()

    def middle(self, application: str, context: str | None) -> bytes:
        fields = ["application", application, *([] if context is None else ["context", context]), "input"]
        return b"".join(_msgpack.encode(field) for field in fields)

    def body(self, row: Any) -> bytes:
        if not (isinstance(row, list) and row and isinstance(row[0], float)):
            return _msgpack.encode(row)
        packed = np.empty((len(row), 5), np.uint8)
        packed[:, 0] = 0xCA
        packed[:, 1:] = np.asarray(row, ">f4").view(np.uint8).reshape(-1, 4)
        # the header of an array, from an array of as many nils of one byte each
        return _msgpack.encode([None] * len(row))[: -len(row)] + packed.tobytes()


PIECES: dict[str, JsonPieces | MsgpackPieces] = {"json": JsonPieces(), "msgpack": MsgpackPieces()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Every query of a run, ready to be sent.

    Attributes:
        run: Eight hexadecimal digits that tell this run's queries from all others.
        partitions: Partition of each query.
        keys: Record key of each query: the context, else a digest of the input.
        heads: By partition.
        middles: Of each query.
        bodies: Of each query.
    """

    run: str
    partitions: list[int]
    keys: list[bytes]
    heads: list[bytes]
    middles: list[bytes]
    bodies: list[bytes]

    def __len__(self) -> int:
        return len(self.partitions)

    def value(self, query: int) -> bytes:
        """The query's record value."""
        return b"".join((self.heads[self.partitions[query]], b"%08x" % query, self.middles[query], self.bodies[query]))

    def query_id(self, query: int) -> str:
        """The query's id."""
        return f"{self.partitions[query]}-{self.run}{query:08x}"

    def query_of(self, query_id: str) -> int | None:
        """The query that an id names; None for an id of somebody else."""
        if query_id[-16:-8] != self.run:
            return None
        try:
            query = int(query_id[-8:], 16)
        except ValueError:
            return None
        return query if query < len(self.partitions) else None


def write_script(
    workload: Workload, dataset: Dataset, *, applications: Sequence[str], encoding: str, partitions: int, run: str
) -> Script:
    """Encode the pieces of every query, each distinct row and context once.

    Args:
        workload: Which row and context each query has.
        dataset: The rows.
        applications: Names of the applications, to which queries go in turn.
        encoding: A name in `PIECES`.
        partitions: Number of partitions of the queries topic.
        run: Eight hexadecimal digits, new for each run: a known id is answered from the log, not by a model.
    """
    pieces = PIECES[encoding]
    row_bodies = {row: pieces.body(dataset.row(row)) for row in sorted(set(workload.rows))}
    bodies = [row_bodies[row] for row in workload.rows]
    heads = [pieces.head(f"{p}-{run}", has_context=workload.contexts is not None) for p in range(partitions)]
    names: list[str | None]
    if workload.contexts is None:
        names = [None] * len(bodies)
        row_keys = {row: xxhash.xxh3_64_hexdigest(body).encode() for row, body in row_bodies.items()}
        keys = [row_keys[row] for row in workload.rows]
    else:
        name_of = {context: f"c{context}" for context in set(workload.contexts)}
        key_of = {context: name.encode() for context, name in name_of.items()}
        names = [name_of[context] for context in workload.contexts]
        keys = [key_of[context] for context in workload.contexts]
    turns = [{name: pieces.middle(each, name) for name in set(names)} for each in applications]
    middles = [turns[query % len(turns)][name] for query, name in enumerate(names)]
    partition_of = {key: _partition(key, partitions) for key in set(keys)}
    return Script(
        run=run, partitions=[partition_of[key] for key in keys], keys=keys, heads=heads, middles=middles, bodies=bodies
    )


def _partition(key: bytes, partitions: int) -> int:
    """As the default partitioners of the Java client and aiokafka choose."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions
