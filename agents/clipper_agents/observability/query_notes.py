"""What a router tells of sampled queries, and the spans that these are, which another process makes of it.

    process queries -------------------------------------------------------------- of one query
      decode, decide, send requests (to each model), process outputs, combine, record predictions

Rules of this file:
- A note is made where queries are served, and is cheap; `spans` is called in the process that exports them.
- A span about a record has the span that wrote it as its parent: that is what is known of one record's trace.
- Times are nanoseconds since the epoch. A context is a `traceparent`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, TimedSpan
from clipper_topics.trace_context import record_attributes, rows_in_header, trace_and_span

Attributes = dict[str, Any]


class ProcessedRecord(msgspec.Struct, array_like=True, tag="processed"):
    """A record that was processed, for the trace that it is part of."""

    context: str
    topic: str
    partition: int
    offset: int
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int | float | bool] = {}
    span_id: str = ""
    error: str = ""

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the record."""
        trace_id, parent_id = trace_and_span(self.context)
        about = {**self.attributes, **record_attributes("process", "process", self.topic, self.partition, self.offset)}
        ids, times = (trace_id, self.span_id, parent_id), (self.began_ns, self.ended_ns)
        yield TimedSpan(f"process {self.topic}", CONSUMER, *ids, *times, about, (), self.error)


class AnsweredQuery(msgspec.Struct, array_like=True, tag="answered"):
    """A query whose prediction is in the log; without models nobody was asked."""

    record: ProcessedRecord
    decoded_ns: int
    decided_ns: int
    combining_ns: int
    answered_ns: int
    log: tuple[str, int]
    """Topic and offset of the prediction."""
    policy: str = ""
    revision: int = 0
    models: list[str] = []
    propensity: float | None = None
    confidence: float = 0.0
    cached: list[str] = []
    missing: list[str] = []

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the spans of what the router did, but for those of requests and outputs."""
        record = self.record
        yield self._within("decode", record.began_ns, self.decoded_ns, {})
        yield self._within("decide", self.decoded_ns, self.decided_ns, self._decision())
        if self.models:
            found: Attributes = {
                "clipper.confidence": self.confidence,
                "clipper.models.cached": self.cached,
                "clipper.models.missing": self.missing,
            }
            began_ns = max(self.decided_ns, self.combining_ns)
            yield self._within("combine", began_ns, max(began_ns, self.answered_ns), found)
        times = self.answered_ns, record.ended_ns
        yield from RecordedNote(record.context, record.span_id, record.partition, *times, self.log).spans()
        yield from record.spans()

    def _decision(self) -> Attributes:
        if not self.models:
            return {}
        found = {"clipper.policy": self.policy, "clipper.revision": self.revision, "clipper.models": self.models}
        return found if self.propensity is None else {**found, "clipper.propensity": self.propensity}

    def _within(self, name: str, began_ns: int, ended_ns: int, attributes: Attributes) -> TimedSpan:
        trace_id, _ = trace_and_span(self.record.context)
        return TimedSpan(name, INTERNAL, trace_id, "", self.record.span_id, began_ns, ended_ns, attributes)


class RecordedNote(msgspec.Struct, array_like=True, tag="recorded"):
    """A prediction or an audit that is in its log."""

    context: str
    parent_id: str
    partition: int
    began_ns: int
    ended_ns: int
    log: tuple[str, int]

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the writing."""
        trace_id, _ = trace_and_span(self.context)
        (topic, offset), name = self.log, f"record {self.log[0]}"
        stored = record_attributes("record", "send", topic, self.partition, offset)
        yield TimedSpan(name, PRODUCER, trace_id, "", self.parent_id, self.began_ns, self.ended_ns, stored)


class SentRequest(msgspec.Struct, array_like=True, tag="sent"):
    """A request with rows of sampled queries that Kafka has now; without a partition it was lost."""

    topic: str
    partition: int | None
    offset: int
    model: str
    rows: int
    ended_ns: int
    parts: list[tuple[str, str, str, int, bool, int]]
    """Of each query: context, span of the query, span of the sending, rows, whether they are served, since when."""

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of each query."""
        common = record_attributes("send", "send", self.topic, self.partition, self.offset)
        common |= {"clipper.model": self.model, "clipper.request.rows": self.rows}
        error = "not_stored" if self.partition is None else ""
        for context, parent_id, span_id, rows, is_served, began_ns in self.parts:
            trace_id, _ = trace_and_span(context)
            about = {**common, "clipper.rows": rows, "clipper.served": is_served}
            yield TimedSpan(
                f"send {self.topic}", PRODUCER, trace_id, span_id, parent_id, began_ns, self.ended_ns, about, (), error
            )


class GatheredOutputs(msgspec.Struct, array_like=True, tag="gathered"):
    """A record of outputs that was gathered, with the header that names rows of sampled queries."""

    header: bytes
    topic: str
    partition: int
    offset: int
    began_ns: int
    ended_ns: int

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of each query's rows."""
        for rows in rows_in_header(self.header):
            record = ProcessedRecord(
                rows.traceparent, self.topic, self.partition, self.offset, self.began_ns, self.ended_ns
            )
            yield from record.spans()
