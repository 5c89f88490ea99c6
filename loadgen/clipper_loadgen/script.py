"""The queries and feedback of a run as bytes, put together from pieces that were encoded before the run.

A query is `head + index + middle + body`: the head goes up to the index in the id, which tells the queries of a run
apart, the middle on to the input, and the body has the input. Each piece is encoded once, so that during the run a
query costs one join instead of one encoding of its whole input.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import msgspec
import numpy as np
import xxhash

from clipper_loadgen.datasets import random_dataset
from clipper_loadgen.draws import (
    arrival_times,
    contexts_of,
    feedback_delays,
    fresh_count,
    repeated_from,
    row_of_each,
)
from clipper_loadgen.plan import CONTENT_TYPES, LoadPlan
from clipper_stream.client.batch_sender import RecordHeaders, TopicRecord
from clipper_stream.client.client_records import partition_for
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import InputSpec
from clipper_topics.query import Query

_INDEX = "________"
"""Where the index of a query goes. A query id is `<partition>-<run><zeros><index>` with 32 hexadecimal digits, eight of
the run and eight of the index: the form of the client's ids, which name their partition."""
_FILL = "0" * 16
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Every query and feedback of a run, ready to be sent; the lists have an element a query."""

    run: str
    """Eight hexadecimal digits that tell this run's queries from all others."""
    applications: Sequence[str]
    """Names of the applications, to which queries go in turn."""
    content_type: str
    headers: RecordHeaders
    """Of every record."""
    times_s: list[float]
    """Intended send times from the start of the run; NaN in saturation mode, where there are none."""
    first: int
    """Index of the first query after the warm-up."""
    rows: list[int]
    """Indices in the data set."""
    partitions: list[int]
    keys: list[bytes]
    """The context, else a digest of the input."""
    around: list[tuple[bytes, bytes]]
    """Head and middle."""
    bodies: list[bytes]
    labels: list[Any] | None
    """What feedback says; None where the truth is not known, and a loss of 0 is said."""
    delays_s: list[float] | None
    """From answer to feedback; None for a run without feedback."""

    def __len__(self) -> int:
        return len(self.partitions)

    def record(self, query: int) -> TopicRecord:
        head, middle = self.around[query]
        value = b"".join((head, b"%08x" % query, middle, self.bodies[query]))
        return self.partitions[query], self.keys[query], value, self.headers

    def feedback(self, query: int) -> TopicRecord:
        """The record of the query's feedback: its label, or a loss where no label is known."""
        truth = Feedback(query_id=self.query_id(query), application=self.applications[query % len(self.applications)])
        if self.labels is None:
            truth.loss = 0.0
        else:
            truth.label = self.labels[query]
        return self.partitions[query], self.keys[query], codec.feedback.encode(truth, self.content_type), self.headers

    def query_id(self, query: int) -> str:
        return f"{self.partitions[query]}-{self.run}{_FILL}{query:08x}"

    def query_of(self, query_id: str) -> int | None:
        """The query that an id names; None for an id of somebody else."""
        if query_id[-32:-8] != self.run + _FILL:
            return None
        try:
            query = int(query_id[-8:], 16)
        except ValueError:
            return None
        return query if query < len(self.partitions) else None


def write_script(plan: LoadPlan, *, partitions: int, run: str) -> Script:
    """Draw a run, and encode the pieces of every query, each distinct row and context once.

    The digits of `run` are new for each run: a known id is answered from the log, not by a model.
    """
    kind, seed, dataset = CONTENT_TYPES[plan.encoding], plan.seed, plan.dataset
    times_s = [math.nan] * plan.queries
    if plan.mode != "saturation":
        times_s = arrival_times(plan.arrivals, plan.rate_per_s, plan.warmup_s + plan.duration_s, seed)
    count = len(times_s)
    origin = repeated_from(count, plan.repeat_ratio, plan.recent, seed)
    if isinstance(dataset, InputSpec):
        dataset = random_dataset(dataset, fresh_count(origin), seed)
    rows = row_of_each(origin, len(dataset.rows), seed)
    row_bodies = {row: encode_input(dataset.row(row), kind) for row in sorted(set(rows))}
    key_of: dict[Any, bytes] = {row: xxhash.xxh3_64_hexdigest(body).encode() for row, body in row_bodies.items()}
    drawn, contexts = rows, list[str | None]([None] * count)
    if plan.contexts:
        drawn = contexts_of(count, plan.contexts, seed)
        names = {one: f"c{one}" for one in set(drawn)}
        contexts, key_of = [names[one] for one in drawn], {one: name.encode() for one, name in names.items()}
    keys = [key_of[one] for one in drawn]
    partition_of = {key: partition_for(key, partitions) for key in key_of.values()}
    around: dict[tuple[str, int, str | None], tuple[bytes, bytes]] = {}
    pieces = []
    for key, context, application in zip(keys, contexts, cycle(plan.applications), strict=False):
        place = application, partition_of[key], context
        if place not in around:
            around[place] = _around_index(Query(application=application, context=context), place[1], run, kind)
        pieces.append(around[place])
    return Script(
        run=run,
        applications=plan.applications,
        content_type=kind,
        headers=codec.headers_of(kind),
        times_s=times_s,
        first=sum(time_s < plan.warmup_s for time_s in times_s),
        rows=rows,
        partitions=[partition_of[key] for key in keys],
        keys=keys,
        around=pieces,
        bodies=[row_bodies[row] for row in rows],
        labels=None if dataset.labels is None else [dataset.label(row) for row in rows],
        delays_s=None if plan.feedback_delay_s is None else feedback_delays(plan.feedback_delay_s, count, seed),
    )


def encode_input(row: Any, kind: str) -> bytes:
    """The input as it ends a query; in msgpack flat rows of floating-point numbers are written as float32."""
    if kind == codec.JSON:
        return _json.encode(row) + b"}"
    if not (isinstance(row, list) and row and isinstance(row[0], float)):
        return _msgpack.encode(row)
    packed = np.empty((len(row), 5), np.uint8)
    packed[:, 0] = 0xCA
    packed[:, 1:] = np.asarray(row, ">f4").view(np.uint8).reshape(-1, 4)
    # the header of an array, from an array of as many nils of one byte each
    return _msgpack.encode([None] * len(row))[: -len(row)] + packed.tobytes()


def _around_index(query: Query, partition: int, run: str, kind: str) -> tuple[bytes, bytes]:
    query.query_id, query.input = f"{partition}-{run}{_FILL}{_INDEX}", None
    head, _, rest = codec.queries.encode(query, kind).partition(_INDEX.encode())
    return head, rest.removesuffix(b"null}" if kind == codec.JSON else b"\xc0")
